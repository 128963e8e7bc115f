/* SPDX-License-Identifier: Apache-2.0
 *
 * For if_not_exists: whether what exists is what was asked for.
 */
#ifndef SLUICE_CORE_BASE_CONFIG_SAME_H
#define SLUICE_CORE_BASE_CONFIG_SAME_H

#include "broker/core/base/apply.h"

/* Refuses CONFLICT, with the first field in which the definition that exists differs from the one that was given, and both
 * values. Fields that list texts (subjects) are not compared, nor a description that was not given. */
int config_same(const ProtobufCMessage *stored, const ProtobufCMessage *given, const char *what,
		const char *name, struct outcome *out) SLUICE_MUST_USE;

#endif
