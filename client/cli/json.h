/* SPDX-License-Identifier: Apache-2.0
 * JSON of the command: reads the library's replies (well-formed; only their end is checked), writes
 * text safely, and combines the rows of a list's pages into one document. */
#ifndef SLUICE_CLI_JSON_H
#define SLUICE_CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "sluice/client.h"

/* The text of one value; borrowed. len 0: absent. */
struct json {
	const char *at;
	size_t len;
};

struct json json_of(const char *text); /* NULL: absent */
/* A member of an object; absent if it is missing or this is no object. */
struct json json_get(struct json object, const char *name);
/* The next element or member; *io_pos is 0 at first; *ret_name (may be NULL) includes its
 * quotes. */
bool json_each(struct json list, size_t *io_pos, struct json *ret_name, struct json *ret_value);
/* A string without quotes and escapes, other values as written, cut to fit; "" if absent. Returns
 * buf. */
const char *json_plain(struct json value, char *buf, size_t bytes);
uint64_t json_number(struct json value); /* 0: absent, or no number */

/* "text", escaped; bytes that are not UTF-8 are written as Latin-1. */
void json_put_text(FILE *file, const void *bytes, size_t len);
/* "NAME":"text", or "NAME_base64":"..." for bytes that are not UTF-8. */
void json_put_member(FILE *file, const char *name, const void *bytes, size_t len);

/* Rows of the pages of one list. */
struct json_list {
	FILE *file;
	char *text;
	size_t len;
	uint64_t rows, index;
	const char *name;
};
/* 0 or NOMEM; then json_list_end frees it. name is borrowed until then. */
int json_list_begin(struct json_list *list, const char *name);
int json_list_add(struct json_list *list, sluice_reply *page); /* borrows page; 0 or NOMEM */
/* Prints {"NAME":[...],"index":N} to standard output if print, and frees the list's memory. 0 or
 * NOMEM. */
int json_list_end(struct json_list *list, bool print);

#endif
