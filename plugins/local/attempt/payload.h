/* SPDX-License-Identifier: Apache-2.0
 * What a local job runs: {"argv": ["prog", ...], "env": {"NAME": "value"}, "cwd": "/dir", "stdin":
 * "/file", "timeout_ms": 60000}. Only argv is needed. env adds to the scheduler's environment; a
 * missing or null cwd is a directory of its own below that of the attempt, a missing or null stdin
 * is empty; without timeout_ms it runs as long as it likes.
 *
 * Arguments and paths are bytes, JSON strings are not. A byte from 0x80 on that is no part of a
 * UTF-8 character may stand as it is, or as the escape \udc80 to \udcff (as Python's
 * surrogateescape and os.fsdecode() write it). */
#ifndef SLUICE_LOCAL_PAYLOAD_H
#define SLUICE_LOCAL_PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

enum { PAYLOAD_ARGS_MAX = 1024, PAYLOAD_ENV_MAX = 256 };
/* One word of argv or "NAME=value", as execve() has it; all of them; and a year. */
enum { PAYLOAD_WORD_MAX = 131071, PAYLOAD_BYTES_MAX = 1024 * 1024 };
#define PAYLOAD_TIMEOUT_MS_MAX INT64_C(31536000000)

struct payload {
	char *argv[PAYLOAD_ARGS_MAX + 1]; /* NULL-terminated */
	char *env[PAYLOAD_ENV_MAX];	  /* "NAME=value" */
	size_t argc, env_count;
	char *cwd;	    /* NULL: one of its own */
	char *stdin_path;   /* NULL: nothing to read */
	int64_t timeout_ms; /* 0: none */
	size_t bytes;	    /* of argv and env, with their NULs */
};
/* Owned: payload_free. INVAL or LIMIT; why says what was wrong and what was expected. */
int payload_parse(const char *text, size_t len, struct payload *ret, char *why, size_t why_bytes);
void payload_free(struct payload *payload);

#endif
