/* SPDX-License-Identifier: Apache-2.0
 * Streams, queues and machines: ls, show, create, rm, peek. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "table.h"

enum { SUBJECTS_MAX = 32, PAGE = 500 };

static int print_json(sluice_reply *reply)
{
	const char *json = sluice_reply_json(reply);

	(void)printf("%s\n", json != NULL ? json : "{}");
	sluice_reply_free(reply);
	return 0;
}

/* A call that answers nothing but that it is done. */
static int done(struct cli *cli, int rc, sluice_reply *reply)
{
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		return print_json(reply);
	sluice_reply_free(reply);
	return 0;
}

static const char *number(uint64_t value, char buf[24])
{
	(void)snprintf(buf, 24, "%" PRIu64, value);
	return buf;
}

static size_t subjects_take(const struct cli *cli, const char *list[SUBJECTS_MAX + 1])
{
	size_t count = 0;
	int pos = 0;

	while (count < SUBJECTS_MAX && option_many(cli, "subject", &pos, &list[count]))
		count++;
	list[count] = NULL;
	return count;
}

static bool duration_option(struct cli *cli, const char *name, uint64_t *ret_ms)
{
	const char *text = option(cli, name);

	*ret_ms = 0;
	if (text == NULL || duration_parse(text, ret_ms))
		return true;
	(void)complain(cli, 0, "--%s is '%s'; expected a duration such as 30s, 10m or 7d", name, text);
	return false;
}

/* ---- streams ---- */

static void stream_rows(const sluice_reply *reply, struct table *table)
{
	sluice_stream_info info;
	char events[24], bytes[24], first[24], next[24], when[32];

	for (size_t i = 0; sluice_reply_stream(reply, i, &info); i++)
		table_row(table, (const char *const[]){info.name, number(info.events, events), number(info.bytes, bytes), number(info.first_offset, first),
						       number(info.next_offset, next), time_text(info.last_time_ms, when)});
}

static const char *const stream_heads[] = {"STREAM", "EVENTS", "BYTES", "FIRST", "NEXT", "LAST EVENT", NULL};
static const char *const queue_heads[] = {"QUEUE", "KIND", "READY", "LEASED", "DELAYED", "ORPHANED", "ACKED", "DEAD", NULL};

static void queue_rows(const sluice_reply *reply, struct table *table)
{
	sluice_queue_info info;
	char ready[24], leased[24], delayed[24], orphaned[24], acked[24], dead[24];

	for (size_t i = 0; sluice_reply_queue(reply, i, &info); i++)
		table_row(table, (const char *const[]){info.name, info.jobs ? "jobs" : "items", number(info.ready, ready), number(info.leased, leased),
						       number(info.delayed, delayed), number(info.orphaned, orphaned), number(info.acked, acked),
						       number(info.dead_lettered, dead)});
}

/* All rows of a list, page by page. The last name of a page is where the next begins. */
static int list(struct cli *cli, sluice_thing thing, struct table *table)
{
	char after[300] = "";
	bool more = true;
	int rc = need(cli);

	while (rc == 0 && more) {
		sluice_reply *reply = NULL;
		sluice_stream_info stream;
		sluice_queue_info queue;

		rc = sluice_list(cli->client, thing, after, PAGE, NULL, &reply);
		if (rc != 0)
			return refused(cli, rc, reply);
		more = sluice_reply_more(reply);
		if (thing == SLUICE_STREAM && !cli->json)
			stream_rows(reply, table);
		else if (thing == SLUICE_QUEUE && !cli->json)
			queue_rows(reply, table);
		for (size_t i = 0; thing == SLUICE_STREAM && sluice_reply_stream(reply, i, &stream); i++)
			(void)snprintf(after, sizeof(after), "%s", stream.name);
		for (size_t i = 0; thing == SLUICE_QUEUE && sluice_reply_queue(reply, i, &queue); i++)
			(void)snprintf(after, sizeof(after), "%s", queue.name);
		if (cli->json || thing == SLUICE_MACHINE) {
			more = more && thing != SLUICE_MACHINE;
			(void)print_json(reply);
		} else {
			sluice_reply_free(reply);
		}
	}
	return rc;
}

static int list_table(struct cli *cli, sluice_thing thing, const char *const *heads)
{
	struct table *table = table_create(heads);
	int rc = list(cli, thing, table);

	/* Without a row the heads say that there is none. */
	if (cli->json || rc != 0)
		table_free(table);
	else
		table_print(table);
	return rc;
}

int cmd_stream_ls(struct cli *cli)
{
	return list_table(cli, SLUICE_STREAM, stream_heads);
}

int cmd_queue_ls(struct cli *cli)
{
	return list_table(cli, SLUICE_QUEUE, queue_heads);
}

static int show(struct cli *cli, sluice_thing thing)
{
	sluice_reply *reply = NULL;
	struct table *table;
	int rc = need(cli);

	if (rc != 0)
		return rc;
	rc = sluice_show(cli->client, thing, cli->args[0], NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json || thing == SLUICE_MACHINE)
		return print_json(reply);
	table = table_create(thing == SLUICE_STREAM ? stream_heads : queue_heads);
	if (thing == SLUICE_STREAM)
		stream_rows(reply, table);
	else
		queue_rows(reply, table);
	table_print(table);
	sluice_reply_free(reply);
	return 0;
}

int cmd_stream_show(struct cli *cli)
{
	return show(cli, SLUICE_STREAM);
}

int cmd_queue_show(struct cli *cli)
{
	return show(cli, SLUICE_QUEUE);
}

int cmd_stream_create(struct cli *cli)
{
	const char *subjects[SUBJECTS_MAX + 1];
	sluice_stream_spec spec = {.name = cli->args[0], .subjects = subjects, .if_not_exists = option(cli, "if-not-exists") != NULL};
	sluice_reply *reply = NULL;
	int rc;

	(void)subjects_take(cli, subjects);
	if (!duration_option(cli, "max-age", &spec.max_age_ms) || !number_option(cli, "max-bytes", 0, &spec.max_bytes) ||
	    !number_option(cli, "max-events", 0, &spec.max_events))
		return SLUICE_E_INVAL;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_stream_create(cli->client, &spec, NULL, &reply);
	return done(cli, rc, reply);
}

int cmd_queue_create(struct cli *cli)
{
	const char *subjects[SUBJECTS_MAX + 1];
	sluice_queue_spec spec = {.name = cli->args[0],
				  .jobs = option(cli, "jobs") != NULL,
				  .subjects = subjects,
				  .dead_letter = option(cli, "dead-letter"),
				  .priority = option(cli, "priority") != NULL,
				  .machine = option(cli, "machine"),
				  .if_not_exists = option(cli, "if-not-exists") != NULL};
	uint64_t lease_ms, attempts;
	sluice_reply *reply = NULL;
	int rc;

	(void)subjects_take(cli, subjects);
	if (!duration_option(cli, "lease", &lease_ms) || !number_option(cli, "max-attempts", 0, &attempts) ||
	    !number_option(cli, "max-items", 0, &spec.max_items))
		return SLUICE_E_INVAL;
	if (lease_ms > UINT32_MAX || attempts > UINT32_MAX)
		return complain(cli, SLUICE_E_INVAL, "--lease or --max-attempts is too large");
	spec.lease_ms = (uint32_t)lease_ms;
	spec.max_attempts = (uint32_t)attempts;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_queue_create(cli->client, &spec, NULL, &reply);
	return done(cli, rc, reply);
}

/* ---- machines ---- */

int cmd_machine_ls(struct cli *cli)
{
	return list(cli, SLUICE_MACHINE, NULL);
}

int cmd_machine_show(struct cli *cli)
{
	return show(cli, SLUICE_MACHINE);
}

int cmd_machine_create(struct cli *cli)
{
	char at[1024], *text = NULL;
	sluice_reply *reply = NULL;
	size_t len;
	int rc;

	(void)snprintf(at, sizeof(at), "%s%s", strcmp(cli->args[0], "-") == 0 ? "" : "@", cli->args[0]);
	rc = body_read(cli, at, &text, &len);
	if (rc == 0)
		rc = need(cli);
	if (rc == 0) {
		rc = sluice_machine_create(cli->client, text, option(cli, "if-not-exists") != NULL, NULL, &reply);
		rc = done(cli, rc, reply);
	}
	free(text);
	return rc;
}

/* ---- rm, peek ---- */

int cmd_rm(struct cli *cli)
{
	const char *what = option(cli, "thing");
	sluice_thing thing = what[0] == 's' ? SLUICE_STREAM : what[0] == 'q' ? SLUICE_QUEUE : SLUICE_MACHINE;
	sluice_reply *reply = NULL;
	int rc;

	if (!cli->yes && isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1) {
		char answer[16] = "";

		(void)fprintf(stderr, "Delete %s '%s' and all that is in it? [y/N] ", what, cli->args[0]);
		if (fgets(answer, sizeof(answer), stdin) == NULL || (answer[0] != 'y' && answer[0] != 'Y'))
			return complain(cli, SLUICE_E_INVAL, "nothing was deleted");
	}
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_delete(cli->client, thing, cli->args[0], NULL, &reply);
	return done(cli, rc, reply);
}

int cmd_queue_peek(struct cli *cli)
{
	sluice_reply *reply = NULL;
	uint64_t max;
	int rc;

	if (!number_option(cli, "max", 100, &max) || max > 1000)
		return complain(cli, SLUICE_E_INVAL, "--max; expected at most 1000");
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_queue_peek(cli->client, cli->args[0], option(cli, "state"), 0, (uint32_t)max, NULL, &reply);
	return rc != 0 ? refused(cli, rc, reply) : print_json(reply);
}
