/* SPDX-License-Identifier: Apache-2.0
 * Output to a terminal must not move its cursor, change its title or hide a line: bodies, evidence,
 * names and texts come from other people. Pipes and files get every byte unchanged. */
#ifndef SLUICE_CLI_VISIBLE_H
#define SLUICE_CLI_VISIBLE_H

#include <stdio.h>

/* First bytes of a character, until its rest is written. */
struct visible {
	unsigned char part[4];
	size_t part_bytes;
};

/* Writes these bytes to `to` with unsafe ones escaped: control characters except newline and tab,
 * and bytes that are not UTF-8, as \xNN; other control characters and those that change the
 * direction of writing as \uNNNN. A character may come in pieces. */
void visible_write(struct visible *visible, FILE *to, const char *bytes, size_t len);
/* Writes the bytes of an incomplete last character. */
void visible_end(struct visible *visible, FILE *to);

/* From now on the output to stdout and stderr, where they are a terminal, passes through the
 * filter. */
void visible_terminals(void);

#endif
