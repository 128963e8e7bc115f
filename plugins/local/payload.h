/* SPDX-License-Identifier: Apache-2.0
 * What a local job runs: {"argv": ["prog", ...], "env": {"NAME": "value"}, "cwd": "/dir"}. env adds to the scheduler's. */
#ifndef SLUICE_LOCAL_PAYLOAD_H
#define SLUICE_LOCAL_PAYLOAD_H

#include <stddef.h>

enum { PAYLOAD_ARGS_MAX = 1024, PAYLOAD_ENV_MAX = 256 };
struct payload {
	char *argv[PAYLOAD_ARGS_MAX + 1]; /* NULL-terminated */
	char *env[PAYLOAD_ENV_MAX];	   /* "NAME=value" */
	size_t argc, env_count;
	char *cwd; /* NULL: the scheduler's */
};
/* Owned: payload_free. INVAL or LIMIT; why says what was wrong and what was expected. */
int payload_parse(const char *text, size_t len, struct payload *ret, char *why, size_t why_bytes);
void payload_free(struct payload *payload);

#endif
