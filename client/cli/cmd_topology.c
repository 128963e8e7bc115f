/* SPDX-License-Identifier: Apache-2.0
 * Streams, queues and lifecycles: ls, show, create, rm, peek. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "json.h"
#include "table.h"

enum { SUBJECTS_MAX = 32, PAGE = 500 };

static size_t subjects_take(const struct cli *cli, const char *list[SUBJECTS_MAX + 1])
{
	size_t count = 0;
	int pos = 0;

	while (count < SUBJECTS_MAX && option_many(cli, "subject", &pos, &list[count]))
		count++;
	list[count] = NULL;
	return count;
}

/* ---- streams ---- */

static void stream_rows(sluice_reply *reply, struct table *table)
{
	sluice_stream_info info = SLUICE_STREAM_INFO();
	char events[24], bytes[24], first[24], next[24], when[32];

	for (size_t i = 0; sluice_reply_stream(reply, i, &info); i++)
		table_row(table, (const char *const[]){info.name, number(info.events, events),
						       number(info.bytes, bytes),
						       number(info.first_offset, first),
						       number(info.next_offset, next),
						       time_text(info.last_time_ms, when)});
}

static const char *const stream_heads[] = {"STREAM", "EVENTS",	   "BYTES", "FIRST",
					   "NEXT",   "LAST EVENT", NULL};
static const char *const queue_heads[] = {"QUEUE",    "KIND",  "READY", "LEASED", "DELAYED",
					  "ORPHANED", "ACKED", "DEAD",	NULL};

static void queue_rows(sluice_reply *reply, struct table *table)
{
	sluice_queue_info info = SLUICE_QUEUE_INFO();
	char ready[24], leased[24], delayed[24], orphaned[24], acked[24], dead[24];

	for (size_t i = 0; sluice_reply_queue(reply, i, &info); i++)
		table_row(table, (const char *const[]){info.name, info.jobs ? "jobs" : "items",
						       number(info.ready, ready),
						       number(info.leased, leased),
						       number(info.delayed, delayed),
						       number(info.orphaned, orphaned),
						       number(info.acked, acked),
						       number(info.dead_lettered, dead)});
}

/* ---- lifecycles: no typed rows in the library ---- */

static const char *const lifecycle_heads[] = {"LIFECYCLE", "INITIAL", "STATES", "CANCELLED",
					      "FAILED",	   "JOBS",    NULL};

static void lifecycle_rows(sluice_reply *reply, struct table *table)
{
	struct json rows = json_get(json_of(sluice_reply_json(reply)), "lifecycles"), row;
	size_t pos = 0;

	while (json_each(rows, &pos, NULL, &row)) {
		struct json config = json_get(row, "config"), state;
		char name[300], initial[100] = "", states[24], cancelled[100], failed[100],
				jobs[24];
		uint64_t count = 0;

		for (size_t at = 0; json_each(json_get(config, "states"), &at, NULL, &state);
		     count++)
			if (count == 0)
				(void)json_plain(json_get(state, "name"), initial, sizeof(initial));
		table_row(table,
			  (const char *const[]){json_plain(json_get(config, "name"), name,
							   sizeof(name)),
						initial, number(count, states),
						json_plain(json_get(config, "cancelled"), cancelled,
							   sizeof(cancelled)),
						json_plain(json_get(config, "failed"), failed,
							   sizeof(failed)),
						number(json_number(json_get(row, "jobs")), jobs)});
	}
}

/* One lifecycle, a row per state. */
static void state_rows(sluice_reply *reply, struct table *table)
{
	struct json rows = json_get(json_of(sluice_reply_json(reply)), "lifecycles"), row, state,
		    word;
	char cancelled[100], failed[100];
	size_t pos = 0, at = 0;

	if (!json_each(rows, &pos, NULL, &row))
		return;
	row = json_get(row, "config");
	(void)json_plain(json_get(row, "cancelled"), cancelled, sizeof(cancelled));
	(void)json_plain(json_get(row, "failed"), failed, sizeof(failed));
	for (bool first = true; json_each(json_get(row, "states"), &at, NULL, &state);
	     first = false) {
		char name[100], is[100], next[1024] = "", text[100];
		size_t used = 0;

		(void)json_plain(json_get(state, "name"), name, sizeof(name));
		(void)snprintf(is, sizeof(is), "%s%s%s%s", first ? ", initial" : "",
			       json_get(state, "terminal").len > 0 ? ", terminal" : "",
			       strcmp(name, cancelled) == 0 ? ", when cancelled" : "",
			       strcmp(name, failed) == 0 ? ", when failed" : "");
		for (size_t k = 0; json_each(json_get(state, "next"), &k, NULL, &word) &&
				   used < sizeof(next) - 110;)
			used += (size_t)snprintf(next + used, sizeof(next) - used, "%s%s",
						 used > 0 ? ", " : "",
						 json_plain(word, text, sizeof(text)));
		table_row(table, (const char *const[]){name, next, is[0] != 0 ? is + 2 : ""});
	}
}

/* ---- objects ---- */

static const struct thing {
	sluice_object_kind thing;
	const char *rows; /* name of the rows in a reply */
	const char *const *heads;
	void (*print)(sluice_reply *reply, struct table *table);
} things[] = {{SLUICE_OBJECT_STREAM, "streams", stream_heads, stream_rows},
	      {SLUICE_OBJECT_QUEUE, "queues", queue_heads, queue_rows},
	      {SLUICE_OBJECT_LIFECYCLE, "lifecycles", lifecycle_heads, lifecycle_rows}};

/* All rows, page by page. The next page begins after the last name of a page. */
static int list(struct cli *cli, const struct thing *thing)
{
	char after[300] = "";
	struct json_list rows;
	struct table *table;
	bool more = true;
	int rc = need(cli), end;

	if (rc == 0)
		rc = json_list_begin(&rows, thing->rows);
	if (rc != 0)
		return rc;
	table = table_create(thing->heads);
	while (rc == 0 && more) {
		sluice_reply *reply = NULL;
		struct json page, row;
		size_t pos = 0;

		rc = sluice_object_list(cli->client, thing->thing, after, PAGE, NULL, &reply);
		if (rc != 0) {
			rc = refused(cli, rc, reply);
			break;
		}
		thing->print(reply, table);
		page = json_get(json_of(sluice_reply_json(reply)), thing->rows);
		for (more = false; json_each(page, &pos, NULL, &row);
		     more = sluice_reply_more(reply))
			(void)json_plain(json_get(json_get(row, "config"), "name"), after,
					 sizeof(after));
		rc = json_list_add(&rows, reply);
		sluice_reply_free(reply);
	}
	/* Without rows the heads alone show that there are none. */
	if (cli->json || rc != 0)
		table_free(table);
	else
		table_print(table);
	end = json_list_end(&rows, cli->json && rc == 0);
	return rc != 0 ? rc : end;
}

static int show(struct cli *cli, const struct thing *thing)
{
	sluice_reply *reply = NULL;
	struct table *table;
	int rc = need(cli);

	if (rc != 0)
		return rc;
	rc = sluice_object_show(cli->client, thing->thing, cli->args[0], NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		return print_json(reply);
	if (thing->thing == SLUICE_OBJECT_LIFECYCLE) {
		table = table_create((const char *const[]){"STATE", "NEXT", "IS", NULL});
		state_rows(reply, table);
	} else {
		table = table_create(thing->heads);
		thing->print(reply, table);
	}
	table_print(table);
	sluice_reply_free(reply);
	return 0;
}

int cmd_stream_ls(struct cli *cli)
{
	return list(cli, &things[0]);
}

int cmd_queue_ls(struct cli *cli)
{
	return list(cli, &things[1]);
}

int cmd_stream_show(struct cli *cli)
{
	return show(cli, &things[0]);
}

int cmd_queue_show(struct cli *cli)
{
	return show(cli, &things[1]);
}

int cmd_stream_create(struct cli *cli)
{
	const char *subjects[SUBJECTS_MAX + 1];
	sluice_stream_spec spec =
		SLUICE_STREAM_SPEC(.name = cli->args[0], .subjects = subjects,
				   .if_not_exists = option(cli, "if-not-exists") != NULL);
	sluice_reply *reply = NULL;
	int rc;

	(void)subjects_take(cli, subjects);
	if (!duration_option(cli, "max-age", 0, UINT64_MAX, &spec.max_age_ms) ||
	    !number_option(cli, "max-bytes", 0, 0, UINT64_MAX, &spec.max_bytes) ||
	    !number_option(cli, "max-events", 0, 0, UINT64_MAX, &spec.max_events))
		return SLUICE_E_INVAL;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_stream_create(cli->client, &spec, NULL, &reply);
	return print_done(cli, rc, reply);
}

int cmd_queue_create(struct cli *cli)
{
	const char *subjects[SUBJECTS_MAX + 1];
	sluice_queue_spec spec =
		SLUICE_QUEUE_SPEC(.name = cli->args[0], .jobs = option(cli, "jobs") != NULL,
				  .subjects = subjects, .dead_letter = option(cli, "dead-letter"),
				  .priority = option(cli, "priority") != NULL,
				  .lifecycle = option(cli, "lifecycle"),
				  .if_not_exists = option(cli, "if-not-exists") != NULL);
	uint64_t lease_ms, attempts;
	sluice_reply *reply = NULL;
	int rc;

	(void)subjects_take(cli, subjects);
	if (!duration_option(cli, "lease", 0, UINT32_MAX, &lease_ms) ||
	    !number_option(cli, "max-attempts", 0, 0, UINT32_MAX, &attempts) ||
	    !number_option(cli, "max-items", 0, 0, UINT64_MAX, &spec.max_items))
		return SLUICE_E_INVAL;
	spec.lease_ms = (uint32_t)lease_ms;
	spec.max_attempts = (uint32_t)attempts;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_queue_create(cli->client, &spec, NULL, &reply);
	return print_done(cli, rc, reply);
}

/* ---- lifecycle commands ---- */

int cmd_lifecycle_ls(struct cli *cli)
{
	return list(cli, &things[2]);
}

int cmd_lifecycle_show(struct cli *cli)
{
	return show(cli, &things[2]);
}

int cmd_lifecycle_create(struct cli *cli)
{
	char at[1024], *text = NULL;
	sluice_reply *reply = NULL;
	size_t len;
	int rc;

	(void)snprintf(at, sizeof(at), "%s%s", strcmp(cli->args[0], "-") == 0 ? "" : "@",
		       cli->args[0]);
	rc = body_read(cli, at, &text, &len);
	if (rc == 0)
		rc = need(cli);
	if (rc == 0) {
		rc = sluice_lifecycle_create(cli->client, text,
					     option(cli, "if-not-exists") != NULL, NULL, &reply);
		rc = print_done(cli, rc, reply);
	}
	free(text);
	return rc;
}

/* ---- rm, peek ---- */

int cmd_rm(struct cli *cli)
{
	const char *what = option(cli, "thing");
	char question[400];
	sluice_object_kind thing = what[0] == 's'   ? SLUICE_OBJECT_STREAM
				   : what[0] == 'q' ? SLUICE_OBJECT_QUEUE
						    : SLUICE_OBJECT_LIFECYCLE;
	sluice_reply *reply = NULL;
	int rc;

	(void)snprintf(question, sizeof(question), "Delete %s '%.300s' and its contents?", what,
		       cli->args[0]);
	rc = sure(cli, question, "deleted");
	if (rc != 0)
		return rc;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_object_delete(cli->client, thing, cli->args[0], NULL, &reply);
	return print_done(cli, rc, reply);
}

static uint64_t wall_now(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The time since which the entry is held, extensions included: it shows what a worker that hangs
 * holds. */
static const char *since_text(struct json row, char buf[40])
{
	uint64_t held = json_number(json_get(row, "held_ms"));

	buf[0] = 0;
	return held != 0 ? time_text(wall_now() - held, buf) : buf;
}

/* ms in the largest unit that divides it, in the form that --lease accepts; "" for 0. */
static const char *duration_text(uint64_t ms, char buf[32])
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {{"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}};
	size_t i = 0;

	while (ms % units[i].ms != 0)
		i++;
	buf[0] = 0;
	if (ms != 0)
		(void)snprintf(buf, 32, "%llu%s", (unsigned long long)(ms / units[i].ms),
			       units[i].unit);
	return buf;
}

/* When the lease ends, unless extended; of a delayed entry: when it is due. */
static const char *until_text(struct json row, char buf[40])
{
	uint64_t left = json_number(json_get(row, "lease_left_ms")),
		 due = json_number(json_get(row, "due_in_ms"));

	buf[0] = 0;
	if (left == 0 && due == 0)
		return json_number(json_get(row, "token")) != 0 ? "its session's end" : buf;
	return time_text(wall_now() + left + due, buf);
}

static int print_items(sluice_reply *reply)
{
	struct table *table = table_create(
		(const char *const[]){"ITEM", "STATE", "ATTEMPTS", "PUT", "HOLDER", "ADDRESS",
				      "SINCE", "EXTEND MAX", "UNTIL", "SUBJECT", "BODY", NULL});
	struct json rows = json_get(json_of(sluice_reply_json(reply)), "items"), row;
	size_t pos = 0;

	while (json_each(rows, &pos, NULL, &row)) {
		struct json body = json_get(row, "body");
		char seq[24], state[24], attempts[24], when[32], holder[100], address[64],
			since[40], extended[32], until[40], subject[300], text[80];

		if (body.len == 0)
			body = json_get(row, "body_base64");
		table_row(table,
			  (const char *const
				   []){number(json_number(json_get(row, "seq")), seq),
				       json_plain(json_get(row, "state"), state, sizeof(state)),
				       number(json_number(json_get(row, "attempts")), attempts),
				       time_text(json_number(json_get(row, "put_time_ms")), when),
				       json_plain(json_get(row, "holder"), holder, sizeof(holder)),
				       json_plain(json_get(row, "holder_address"), address,
						  sizeof(address)),
				       since_text(row, since),
				       duration_text(json_number(json_get(row, "extend_max_ms")),
						     extended),
				       until_text(row, until),
				       json_plain(json_get(row, "subject"), subject,
						  sizeof(subject)),
				       json_plain(body, text, sizeof(text))});
	}
	table_print(table);
	sluice_reply_free(reply);
	return 0;
}

int cmd_queue_peek(struct cli *cli)
{
	sluice_reply *reply = NULL;
	uint64_t after, max;
	int rc;

	if (!number_option(cli, "max", 100, 1, 1000, &max) ||
	    !number_option(cli, "after", 0, 0, UINT64_MAX, &after))
		return SLUICE_E_INVAL;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_queue_peek(cli->client, cli->args[0], option(cli, "state"), after,
			       (uint32_t)max, NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	return cli->json ? print_json(reply) : print_items(reply);
}
