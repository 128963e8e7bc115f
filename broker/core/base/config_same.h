/* SPDX-License-Identifier: Apache-2.0
 * For if_not_exists: compares the existing definition with the requested one. */
#ifndef SLUICE_CORE_BASE_CONFIG_SAME_H
#define SLUICE_CORE_BASE_CONFIG_SAME_H

#include "broker/core/base/apply.h"

/* Refuses CONFLICT with the first field in which the existing definition differs from the given
 * one, and both values. Lists of texts (subjects) are not compared, nor a description that was not
 * given. */
int config_same(const ProtobufCMessage *stored, const ProtobufCMessage *given, const char *what,
		const char *name, struct outcome *out) SLUICE_MUST_USE;

#endif
