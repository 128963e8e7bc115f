/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes to a terminal cannot move its cursor, change its title or hide a line: bodies,
 * evidence, names and texts come from other people. Pipes and files get every byte as it is.
 */
#ifndef SLUICE_CLI_VISIBLE_H
#define SLUICE_CLI_VISIBLE_H

#include <stdio.h>

/* Bytes that a filter keeps until the rest of their character comes. */
struct visible {
	unsigned char part[4];
	size_t part_bytes;
};

/* Writes to `to` what a terminal may get of these bytes: control characters but newline and tab,
 * and bytes that are no UTF-8, as \xNN; control characters beyond ASCII and those that turn the
 * direction of writing as \uNNNN. A character may come in pieces. */
void visible_write(struct visible *visible, FILE *to, const char *bytes, size_t len);
/* What is left of a character that never ended. */
void visible_end(struct visible *visible, FILE *to);

/* From now on all that is printed to those of stdout and stderr that are a terminal goes through
 * the filter. */
void visible_terminals(void);

#endif
