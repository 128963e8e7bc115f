/* SPDX-License-Identifier: Apache-2.0
 * The text form of a machine. One statement a line, '#' begins a comment:
 *   machine NAME | state A -> B, C | terminal D | cancelled D | failed E | description TEXT
 * The first state is the initial one. */
#ifndef SLUICE_CLIENT_MACHINE_TEXT_H
#define SLUICE_CLIENT_MACHINE_TEXT_H

#include "sluice.pb-c.h"

/* *ret is owned: machine_text_free. INVAL, why names the line. Rules (exits, reachability) are the
 * broker's to check. */
int machine_text_parse(const char *text, Sluice__MachineConfig **ret, char *why, size_t why_bytes);
void machine_text_free(Sluice__MachineConfig *config); /* accepts NULL */

#endif
