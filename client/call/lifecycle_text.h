/* SPDX-License-Identifier: Apache-2.0
 * The text form of a lifecycle. One statement a line, '#' begins a comment:
 *   lifecycle NAME | state A -> B, C | terminal D | cancelled D | failed E | description TEXT
 * The first state is the initial one. */
#ifndef SLUICE_CLIENT_LIFECYCLE_TEXT_H
#define SLUICE_CLIENT_LIFECYCLE_TEXT_H

#include "sluice.pb-c.h"

/* *ret is owned: lifecycle_text_free. INVAL; why names the line. The broker checks the rules
 * (exits, reachability). */
int lifecycle_text_parse(const char *text, Sluice__LifecycleConfig **ret, char *why,
			 size_t why_bytes);
void lifecycle_text_free(Sluice__LifecycleConfig *config); /* accepts NULL */

#endif
