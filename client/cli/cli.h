/* SPDX-License-Identifier: Apache-2.0
 *
 * The `sluice` command: a table of commands, each a function over the public client. Data goes to
 * standard output only, messages to standard error. Exit codes are those of error.h.
 */
#ifndef SLUICE_CLI_CLI_H
#define SLUICE_CLI_CLI_H

#include <stdbool.h>
#include <stdio.h>

#include "sluice/client.h"

enum { ARGS_MAX = 64, OPTIONS_MAX = 32 };

struct cli {
	sluice_client *client; /* connected by need() */
	const char *address, *gateway, *tls, *tls_ca;
	int timeout_ms;
	bool json, verbose, yes;
	bool help;	/* help for the command was requested */
	bool reported;	/* the failure was reported */
	bool connected; /* once; set by the library's thread */
	/* Arguments of the command, without options. */
	const char *args[ARGS_MAX];
	int arg_count;
	struct {
		const char *name, *value; /* value "" for flags */
	} options[OPTIONS_MAX];
	int option_count;
};

struct command {
	const char *name;  /* "job submit" */
	const char *usage; /* "--queue Q [--id ID] PAYLOAD|-|@FILE" */
	const char *text;
	const char *options; /* "queue= id= flag": options with a value end in '=' */
	int args_min, args_max;
	int (*run)(struct cli *cli);
};

/* connect.c */
int need(struct cli *cli); /* connects; 0 or a code, reported */

/* option.c */
const char *option(const struct cli *cli, const char *name); /* NULL: not given */
bool option_many(const struct cli *cli, const char *name, int *io_pos, const char **ret_value);
/* "10s", "500ms", "2m", "1h", "3d" to milliseconds; false: malformed. A bare number is seconds. */
bool duration_parse(const char *text, uint64_t *ret_ms);
/* An option that is a number from min to max. False: an error was reported. */
bool number_option(struct cli *cli, const char *name, uint64_t fallback, uint64_t min, uint64_t max,
		   uint64_t *ret);
/* The same for a duration, in ms; fallback when it is not given. */
bool duration_option(struct cli *cli, const char *name, uint64_t fallback_ms, uint64_t max_ms,
		     uint64_t *ret_ms);

/* body.c */
/* A body: the argument itself, "-" for standard input, "@FILE" for a file. malloc'd. */
int body_read(struct cli *cli, const char *word, char **ret, size_t *ret_len);

/* print.c */
const char *number(uint64_t value, char buf[24]);
const char *time_text(uint64_t time_ms, char buf[32]); /* local time; "-" for 0 */
/* Prints the whole reply as one line and frees it; 0 or NOMEM. */
int print_json(sluice_reply *reply);
/* For a call without further results. Frees reply; returns rc, reported. */
int print_done(struct cli *cli, int rc, sluice_reply *reply);

/* ask.c */
/* Asks for confirmation on the terminal, unless --yes was given; 0, or INVAL, reported: "nothing
 * was DONE_TO_IT". */
int sure(struct cli *cli, const char *question, const char *done_to_it);

/* message.c */
/* Reports an error: what was wrong and what was expected; returns code. */
int report_error(struct cli *cli, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* Prints a message that is no error. Any thread. */
void notice(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Reports a refused call by its text. Frees reply; returns code. */
int refused(struct cli *cli, int code, sluice_reply *reply);
int written(struct cli *cli); /* flushes standard output; 0 or IO, reported */

/* Commands, by file. */
int cmd_pub(struct cli *cli);
int cmd_put(struct cli *cli);
int cmd_follow(struct cli *cli);
int cmd_claim(struct cli *cli);
int cmd_stream_ls(struct cli *cli);
int cmd_stream_show(struct cli *cli);
int cmd_stream_create(struct cli *cli);
int cmd_queue_ls(struct cli *cli);
int cmd_queue_show(struct cli *cli);
int cmd_queue_create(struct cli *cli);
int cmd_lifecycle_ls(struct cli *cli);
int cmd_lifecycle_show(struct cli *cli);
int cmd_lifecycle_create(struct cli *cli);
int cmd_rm(struct cli *cli);
int cmd_queue_peek(struct cli *cli);
int cmd_queue_purge(struct cli *cli);
int cmd_queue_alter(struct cli *cli);
int cmd_session_ls(struct cli *cli);
int cmd_session_close(struct cli *cli);
int cmd_job_submit(struct cli *cli);
int cmd_job_ls(struct cli *cli);
int cmd_job_show(struct cli *cli);
int cmd_job_wait(struct cli *cli);
int cmd_job_cancel(struct cli *cli);
int cmd_job_reset(struct cli *cli);
int cmd_job_report(struct cli *cli);
int cmd_job_release(struct cli *cli);
int cmd_job_history(struct cli *cli);
int cmd_job_explain(struct cli *cli);
int cmd_quarantine_ls(struct cli *cli);
int cmd_status(struct cli *cli);
int cmd_audit(struct cli *cli);

#endif
