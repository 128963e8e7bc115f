/* SPDX-License-Identifier: Apache-2.0
 *
 * Configuration: one table of settings (config.def) with default, bounds, unit and text; a file of
 * `key = value` lines and command-line options set the same keys. An error names key, value and
 * what was expected; a file with an error has no effect. A list may be given several times: the
 * values of one source (a file, or the options between two files) replace those of the source
 * before it.
 */
#ifndef SLUICE_ADMIN_CONFIG_H
#define SLUICE_ADMIN_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "sluice/error.h"
#include "sluice/types.h"

enum { CONFIG_TEXT_MAX = 1024, CONFIG_PLUGINS_MAX = 16 };

/* The values of a list are in the array that follows it. */
struct config_list {
	size_t count;
	bool is_old; /* of a source that has ended: the next value replaces them */
};

struct config {
#define TEXT(key, default, text) char key[CONFIG_TEXT_MAX];
#define NUMBER(key, default, min, max, unit, text) uint64_t key;
#define FLAG(key, default, text) bool key;
#define LIST(key, default, max, text) \
	struct config_list key;       \
	char key##_values[max][CONFIG_TEXT_MAX];
#include "broker/admin/config.def"
#undef TEXT
#undef NUMBER
#undef FLAG
#undef LIST
	char plugins[CONFIG_PLUGINS_MAX]
		    [CONFIG_TEXT_MAX]; /* "plugin = PATH [KEY=VALUE ...]", one line each */
	size_t plugin_count;
};

void config_init(struct config *config); /* defaults */
int config_set(struct config *config, const char *key, const char *value, char *why,
	       size_t why_bytes) SLUICE_MUST_USE;
/* Reads a file; an error in why names file and line, and leaves config untouched. */
int config_load(struct config *config, const char *path, char *why,
		size_t why_bytes) SLUICE_MUST_USE;
void config_print(FILE *to); /* every setting with default, bounds and text */

#endif
