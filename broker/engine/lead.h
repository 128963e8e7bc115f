/* SPDX-License-Identifier: Apache-2.0
 * Taking the lead: the first batch of an engine. For engine.c. */
#ifndef SLUICE_ENGINE_LEAD_H
#define SLUICE_ENGINE_LEAD_H

#include "broker/engine/engine.h"

/* Commits BOOT, and LEVEL_RAISE if the level is older; arms the sessions, and sets the next
 * deadline. Nobody waits for the effects. */
int lead_commit(struct engine *engine, struct batch_clock clock,
		const struct cmd_boot *boot) SLUICE_MUST_USE;

#endif
