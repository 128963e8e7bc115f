/* SPDX-License-Identifier: Apache-2.0
 * Texts around jobs: checks, JSON, subject tokens. Pure, thread-safe. */
#ifndef SLUICE_CORE_JOB_TEXT_H
#define SLUICE_CORE_JOB_TEXT_H

#include "broker/core/base/apply.h"
#include "protocol/text.h"

/* Refuses a text that is too long or not UTF-8; `what` names it. */
int job_text_check(struct outcome *out, const char *what, const char *text, uint64_t bytes_max);

/* One token of a subject from a job id. These bytes become %XX (upper-case hex): . * > # % space.
 * An id whose token would be longer than JOB_TOKEN_BYTES_MAX becomes "#<job number>", which cannot
 * collide with an id. Returns its length; not terminated. */
enum { JOB_TOKEN_BYTES_MAX = 187 };
size_t job_text_token(char *buf, const char *id, uint64_t number);

/* Writes text as the inside of a JSON string; at most 6 bytes per byte. Returns the end. */
char *job_text_json(char *at, const char *text);

#endif
