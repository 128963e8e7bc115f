/* SPDX-License-Identifier: Apache-2.0
 * Sessions: ls, close. Queues: purge, alter. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "json.h"
#include "table.h"

enum { PAGE = 500 };

/* ---- sessions ---- */

static const char *const session_heads[] = {"SESSION", "NAME", "CLIENT", "ADDRESS",
					    "TIMEOUT", "JOBS", NULL};

/* Returns the last session's number. */
static uint64_t session_rows(sluice_reply *reply, struct table *table, uint64_t *ret_count)
{
	struct json rows = json_get(json_of(sluice_reply_json(reply)), "sessions"), row;
	size_t pos = 0;
	uint64_t last = 0;

	*ret_count = 0;
	while (json_each(rows, &pos, NULL, &row)) {
		char id[24], name[256], client[256], address[64], timeout[32], jobs[24];

		last = json_number(json_get(row, "id"));
		++*ret_count;
		(void)snprintf(timeout, sizeof(timeout), "%" PRIu64 "s",
			       json_number(json_get(row, "timeout_ms")) / 1000);
		table_row(table,
			  (const char *const[]){number(last, id),
						json_plain(json_get(row, "name"), name,
							   sizeof(name)),
						json_plain(json_get(row, "client"), client,
							   sizeof(client)),
						json_plain(json_get(row, "address"), address,
							   sizeof(address)),
						timeout,
						number(json_number(json_get(row, "jobs_held")),
						       jobs),
						NULL});
	}
	return last;
}

int cmd_session_ls(struct cli *cli)
{
	struct table *table;
	struct json_list list;
	uint64_t after = 0, count = 1;
	int rc = need(cli), end;

	if (rc == 0)
		rc = json_list_begin(&list, "sessions");
	if (rc != 0)
		return rc;
	table = table_create(session_heads);
	while (rc == 0 && count > 0) {
		sluice_reply *reply = NULL;

		rc = sluice_session_list(cli->client, after, PAGE, NULL, &reply);
		if (rc != 0) {
			rc = refused(cli, rc, reply);
			break;
		}
		after = session_rows(reply, table, &count);
		rc = json_list_add(&list, reply);
		sluice_reply_free(reply);
	}
	if (rc == 0 && !cli->json)
		table_print(table);
	else
		table_free(table);
	end = json_list_end(&list, rc == 0 && cli->json);
	return rc != 0 ? rc : end;
}

/* The number of the session with that name; *ret 0: none. */
static int session_named(struct cli *cli, const char *name, uint64_t *ret)
{
	uint64_t after = 0, seen = 1;

	*ret = 0;
	while (*ret == 0 && seen > 0) {
		sluice_reply *reply = NULL;
		struct json rows, row;
		size_t pos = 0;
		int rc = sluice_session_list(cli->client, after, PAGE, NULL, &reply);

		if (rc != 0)
			return refused(cli, rc, reply);
		rows = json_get(json_of(sluice_reply_json(reply)), "sessions");
		seen = 0;
		while (json_each(rows, &pos, NULL, &row)) {
			char text[300];

			seen++;
			after = json_number(json_get(row, "id"));
			if (strcmp(json_plain(json_get(row, "name"), text, sizeof(text)), name) ==
			    0)
				*ret = after;
		}
		sluice_reply_free(reply);
	}
	return 0;
}

int cmd_session_close(struct cli *cli)
{
	const char *which = cli->args[0];
	sluice_reply *reply = NULL;
	uint64_t session;
	char *rest;
	int rc = need(cli);

	if (rc != 0)
		return rc;
	rc = session_named(cli, which, &session);
	if (rc != 0)
		return rc;
	/* A name may consist of digits, and then is not a session number. */
	if (session == 0) {
		session = strtoull(which, &rest, 10);
		if (which[0] < '0' || which[0] > '9' || *rest != 0 || session == 0)
			return report_error(cli, SLUICE_E_NOT_FOUND,
					    "no session has the name or number '%s'", which);
	}
	rc = sluice_session_close(cli->client, session, NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	sluice_reply_free(reply);
	return 0;
}

/* ---- queues ---- */

int cmd_queue_purge(struct cli *cli)
{
	sluice_reply *reply = NULL;
	char question[400];
	int rc;

	(void)snprintf(question, sizeof(question), "Drop all ready items of queue '%.300s'?",
		       cli->args[0]);
	rc = sure(cli, question, "purged");
	if (rc == 0)
		rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_queue_purge(cli->client, cli->args[0], NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		return print_json(reply);
	(void)printf("%" PRIu64 "\n", sluice_reply_affected(reply));
	sluice_reply_free(reply);
	return 0;
}

/* The whole configuration is replaced: omitted settings keep their values. */
int cmd_queue_alter(struct cli *cli)
{
	char dead[300], lifecycle[300], description[1100], kind[32], priority[16];
	sluice_queue_spec spec = SLUICE_QUEUE_SPEC(.name = cli->args[0]);
	sluice_reply *shown = NULL, *reply = NULL;
	struct json rows, row = {NULL, 0}, config;
	uint64_t lease_ms, attempts;
	size_t pos = 0;
	int rc = need(cli);

	if (rc == 0)
		rc = sluice_object_show(cli->client, SLUICE_OBJECT_QUEUE, spec.name, NULL, &shown);
	if (rc != 0)
		return shown != NULL ? refused(cli, rc, shown) : rc; /* need() has reported it */
	rows = json_get(json_of(sluice_reply_json(shown)), "queues");
	(void)json_each(rows, &pos, NULL, &row);
	config = json_get(row, "config");
	spec.jobs = strcmp(json_plain(json_get(config, "kind"), kind, sizeof(kind)), "jobs") == 0;
	spec.priority = strcmp(json_plain(json_get(config, "priority"), priority, sizeof(priority)),
			       "true") == 0;
	spec.dead_letter = json_plain(json_get(config, "dead_letter"), dead, sizeof(dead));
	spec.lifecycle = json_plain(json_get(config, "lifecycle"), lifecycle, sizeof(lifecycle));
	spec.description =
		json_plain(json_get(config, "description"), description, sizeof(description));
	if (option(cli, "dead-letter") != NULL)
		spec.dead_letter = option(cli, "dead-letter");
	if (option(cli, "lifecycle") != NULL)
		spec.lifecycle = option(cli, "lifecycle");
	if (!duration_option(cli, "lease", json_number(json_get(config, "lease_ms")), UINT32_MAX,
			     &lease_ms) ||
	    !number_option(cli, "max-attempts", json_number(json_get(config, "max_attempts")), 0,
			   UINT32_MAX, &attempts) ||
	    !number_option(cli, "max-items", json_number(json_get(config, "max_items")), 0,
			   UINT64_MAX, &spec.max_items)) {
		sluice_reply_free(shown);
		return SLUICE_E_INVAL;
	}
	spec.lease_ms = (uint32_t)lease_ms;
	spec.max_attempts = (uint32_t)attempts;
	rc = sluice_queue_alter(cli->client, &spec, NULL, &reply);
	sluice_reply_free(shown);
	if (rc != 0)
		return refused(cli, rc, reply);
	sluice_reply_free(reply);
	return 0;
}
