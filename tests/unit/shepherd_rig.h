/* SPDX-License-Identifier: Apache-2.0
 *
 * A spool with one attempt, and shepherds on it, for the tests of both. One of each a test process.
 */
#ifndef SLUICE_TESTS_SHEPHERD_RIG_H
#define SLUICE_TESTS_SHEPHERD_RIG_H

#include <criterion/criterion.h>

#include "plugins/local/attempt/attempt.h"

enum { RIG_SPOOL_BYTES = 64 };
extern char spool[RIG_SPOOL_BYTES];
extern char dir[ATTEMPT_PATH_MAX]; /* of the attempt */

void setup(void);
void teardown(void);
void pause_ms(long ms);
/* Writes and reads files of the attempt; get: "" when there is none, static. */
void put(const char *name, const char *text);
const char *get(const char *name);
void job(const char *script); /* its job.json: a shell with this script, in its directory */
/* Start a shepherd as the scheduler does, with up to two options (NULL: none). Return the starter's
 * end of the pipe. */
int shepherd_start(void);
int shepherd_start_with(const char *first, const char *second);
/* Everything that it writes until it closes the pipe; static. Closes fd. */
const char *said(int fd);
struct attempt_view look(void);
/* These wait for 20 s, then the test fails. */
void wait_gone(pid_t pid);
struct attempt_view wait_for(enum attempt_state state);
void wait_for_text(const char *name, const char *part);
void run_to_end(const char *script);

#endif
