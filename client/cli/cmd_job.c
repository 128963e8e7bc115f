/* SPDX-License-Identifier: Apache-2.0
 * Jobs, quarantine, audit, status. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "json.h"
#include "table.h"
#include "time_parse.h"

int cmd_job_submit(struct cli *cli)
{
	sluice_job_spec spec =
		SLUICE_JOB_SPEC(.job = option(cli, "id"), .queue = option(cli, "queue"),
				.lifecycle = option(cli, "lifecycle"),
				.owner = option(cli, "owner"));
	char id[40], *payload = NULL;
	sluice_reply *reply = NULL;
	uint64_t priority;
	size_t len = 0;
	int rc;

	if (spec.queue == NULL)
		return report_error(cli, SLUICE_E_INVAL,
				    "--queue is missing; expected the name of a queue of jobs");
	if (!number_option(cli, "priority", 0, 0, 255, &priority))
		return SLUICE_E_INVAL;
	if (spec.job == NULL) {
		sluice_job_id_make(id);
		spec.job = id;
	}
	spec.priority = (uint8_t)priority;
	rc = body_read(cli, cli->args[0], &payload, &len);
	if (rc == 0)
		rc = need(cli);
	if (rc == 0) {
		spec.payload = (sluice_slice){payload, len};
		rc = sluice_job_submit(cli->client, &spec, NULL, &reply);
		if (rc != 0)
			rc = refused(cli, rc, reply);
		else if (cli->json)
			rc = print_json(reply);
		else
			(void)printf("%s\n", spec.job);
	}
	if (rc == 0 && !cli->json)
		sluice_reply_free(reply);
	free(payload);
	return rc;
}

static const char *const job_heads[] = {"JOB",	  "STATE",   "CLAIM",	 "ATTEMPT", "QUEUE",
					"HOLDER", "CHANGED", "EVIDENCE", NULL};

static void job_row(struct table *table, const sluice_job_info *job)
{
	char attempt[24], when[32];

	table_row(table,
		  (const char *const[]){job->job, job->state,
					job->cancel && !job->terminal ? "cancelling" : job->claim,
					number(job->attempt, attempt), job->queue,
					job->terminal ? "" : job->holder,
					time_text(job->change_time_ms, when), job->evidence});
}

int cmd_job_ls(struct cli *cli)
{
	sluice_job_filter filter =
		SLUICE_JOB_FILTER(.state = option(cli, "state"), .queue = option(cli, "queue"),
				  .claim = option(cli, "claim"),
				  .open_only = option(cli, "open") != NULL);
	struct json_list list;
	struct table *table;
	uint64_t max, seen = 0;
	bool more = true;
	int rc;

	if (!number_option(cli, "max", UINT64_MAX, 0, UINT64_MAX, &max) ||
	    !number_option(cli, "after", 0, 0, UINT64_MAX, &filter.after_number))
		return SLUICE_E_INVAL;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = json_list_begin(&list, "jobs");
	if (rc != 0)
		return rc;
	table = table_create(job_heads);
	while (rc == 0 && more && seen < max) {
		sluice_reply *reply = NULL;
		sluice_job_info job = SLUICE_JOB_INFO();

		filter.max = max - seen < 500 ? (uint32_t)(max - seen) : 500;
		rc = sluice_job_list(cli->client, &filter, NULL, &reply);
		if (rc != 0) {
			rc = refused(cli, rc, reply);
			break;
		}
		more = sluice_reply_more(reply);
		for (size_t i = 0; sluice_reply_job(reply, i, &job); i++, seen++) {
			filter.after_number = job.number;
			if (!cli->json)
				job_row(table, &job);
		}
		if (cli->json)
			rc = json_list_add(&list, reply);
		sluice_reply_free(reply);
	}
	if (cli->json || rc != 0)
		table_free(table);
	else
		table_print(table);
	more = json_list_end(&list, cli->json && rc == 0) != 0;
	return rc == 0 && more ? SLUICE_E_NOMEM : rc;
}

/* Lines for the reports of this attempt. An exit code only if there was one: a failed job did not
 * end with 0. */
static void evidence_lines(const sluice_job_info *job)
{
	char when[32];

	if (job->judge[0] != 0)
		(void)printf("judge      %s\n", job->judge);
	if (job->started_time_ms != 0)
		(void)printf("started    %s\n", time_text(job->started_time_ms, when));
	if (job->terminal)
		(void)printf("ended      %s\n", time_text(job->ended_time_ms, when));
	if (job->exited)
		(void)printf("exit code  %d\n", job->exit_code);
	if (job->signal != 0)
		(void)printf("signal     %u\n", job->signal);
	if (job->memory_peak_bytes != 0)
		(void)printf("memory     %" PRIu64 " bytes at most\n", job->memory_peak_bytes);
	if (job->evidence[0] != 0)
		(void)printf("evidence   %s (from %s)\n", job->evidence, job->source);
}

static int show_reply(struct cli *cli, sluice_reply *reply)
{
	sluice_job_info job = SLUICE_JOB_INFO();
	char when[32], submitted[32];

	if (cli->json)
		return print_json(reply);
	if (!sluice_reply_job(reply, 0, &job)) {
		sluice_reply_free(reply);
		return SLUICE_E_INTERNAL;
	}
	(void)printf("job        %s (number %" PRIu64
		     ")\nstate      %s%s, attempt %u, since %s\nclaim      %s%s%s\n"
		     "queue      %s\nlifecycle    %s\nsubmitted  %s\n",
		     job.job, job.number, job.state, job.terminal ? " (ended)" : "", job.attempt,
		     time_text(job.change_time_ms, when), job.claim,
		     job.holder[0] != 0 && !job.terminal ? " by " : "",
		     job.terminal ? "" : job.holder, job.queue, job.lifecycle,
		     time_text(job.submit_time_ms, submitted));
	if (job.owner[0] != 0)
		(void)printf("owner      %s\n", job.owner);
	if (job.intent)
		(void)printf("intent     %s\n", job.tag);
	if (job.scheduler_ref[0] != 0)
		(void)printf("reference  %s\n", job.scheduler_ref);
	evidence_lines(&job);
	if (job.cancel)
		(void)printf("cancel     requested\n");
	if (job.payload.len > 0)
		(void)printf("payload    %.*s\n", (int)job.payload.len,
			     (const char *)job.payload.data);
	sluice_reply_free(reply);
	return 0;
}

int cmd_job_show(struct cli *cli)
{
	sluice_reply *reply = NULL;
	int rc = need(cli);

	if (rc != 0)
		return rc;
	rc = sluice_job_show(cli->client, cli->args[0], option(cli, "payload") != NULL, NULL,
			     &reply);
	return rc != 0 ? refused(cli, rc, reply) : show_reply(cli, reply);
}

int cmd_job_wait(struct cli *cli)
{
	sluice_reply *reply = NULL;
	sluice_job_info job = SLUICE_JOB_INFO();
	uint64_t wanted;
	int rc;

	if (!number_option(cli, "number", 0, 1, UINT64_MAX, &wanted))
		return SLUICE_E_INVAL;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_job_wait(cli->client, cli->args[0], wanted,
			     &SLUICE_CALL(.deadline_ms = cli->timeout_ms), &reply);
	if (rc == SLUICE_E_TIMEOUT && reply != NULL && sluice_reply_job(reply, 0, &job))
		(void)report_error(cli, rc, "%s is still %s after the timeout", job.job, job.state);
	else if (rc != 0)
		return refused(cli, rc, reply);
	return show_reply(cli, reply) != 0 && rc == 0 ? SLUICE_E_INTERNAL : rc;
}

int cmd_job_cancel(struct cli *cli)
{
	sluice_reply *reply = NULL;
	int rc = need(cli);

	if (rc != 0)
		return rc;
	rc = sluice_job_cancel(cli->client, cli->args[0], option(cli, "reason"), NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		return print_json(reply);
	(void)printf("%s\n", sluice_reply_state(reply));
	sluice_reply_free(reply);
	return 0;
}

int cmd_job_reset(struct cli *cli)
{
	sluice_reply *reply = NULL;
	int rc = need(cli);

	if (rc != 0)
		return rc;
	rc = sluice_job_reset(cli->client, cli->args[0], option(cli, "force") != NULL,
			      option(cli, "reason"), NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		return print_json(reply);
	(void)printf("attempt %u\n", sluice_reply_attempt(reply));
	sluice_reply_free(reply);
	return 0;
}

/* A report entered by hand, from the output of a scheduler for example. */
static int report_options(struct cli *cli, sluice_job_report_spec *spec)
{
	uint64_t attempt, exit_code;
	const char *seen = option(cli, "seen");

	if (!number_option(cli, "attempt", 0, 1, UINT32_MAX, &attempt) ||
	    !number_option(cli, "number", 0, 1, UINT64_MAX, &spec->number) ||
	    !number_option(cli, "token", 0, 1, UINT64_MAX, &spec->token) ||
	    !number_option(cli, "exit-code", 0, 0, 255, &exit_code))
		return SLUICE_E_INVAL;
	if (seen != NULL && !time_parse(seen, &spec->seen_time_ms))
		return report_error(cli, SLUICE_E_INVAL,
				    "--seen is '%s'; expected a time that exists, such as "
				    "2026-11-24T10:30Z",
				    seen);
	spec->attempt = (uint32_t)attempt;
	spec->exit_code = (int32_t)exit_code;
	spec->exited = option(cli, "exit-code") != NULL;
	return 0;
}

/* The job as it is now, for numbers that the options omit. Its texts are gone with the reply. */
static int job_now(struct cli *cli, sluice_job_info *ret)
{
	sluice_reply *reply = NULL;
	int rc = sluice_job_show(cli->client, cli->args[0], false, NULL, &reply);

	if (rc != 0)
		return refused(cli, rc, reply);
	if (!sluice_reply_job(reply, 0, ret))
		rc = SLUICE_E_INTERNAL;
	sluice_reply_free(reply);
	return rc;
}

int cmd_job_report(struct cli *cli)
{
	sluice_job_report_spec spec =
		SLUICE_JOB_REPORT_SPEC(.job = cli->args[0], .state = option(cli, "state"),
				       .source = option(cli, "source"),
				       .evidence = option(cli, "evidence"),
				       .scheduler_ref = option(cli, "reference"));
	sluice_reply *reply = NULL;
	sluice_job_info job = SLUICE_JOB_INFO();
	int rc = report_options(cli, &spec);

	if (spec.source == NULL)
		spec.source = "sluice CLI";
	if (rc == 0)
		rc = need(cli);
	if (rc == 0 && spec.attempt == 0 && spec.token == 0) {
		rc = job_now(cli, &job);
		spec.attempt = job.attempt;
		spec.number = spec.number != 0 ? spec.number : job.number;
	}
	if (rc != 0)
		return rc;
	rc = sluice_job_report(cli->client, &spec, NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	/* Nothing was changed: a script must not take the reply for the job's state. */
	if (sluice_reply_disposition(reply) == SLUICE_DISPOSITION_QUARANTINED)
		rc = report_error(cli, SLUICE_E_WRONG_STATE,
				  "job '%s': the report was put into quarantine: %s", spec.job,
				  sluice_reply_reason(reply));
	if (rc == 0 && cli->json)
		return print_json(reply);
	if (rc == 0 && sluice_reply_disposition(reply) == SLUICE_DISPOSITION_PARKED)
		notice(cli, "job '%s' does not exist: the report is %s", spec.job,
		       sluice_reply_reason(reply));
	else if (rc == 0)
		(void)printf("%s\n", sluice_reply_state(reply));
	sluice_reply_free(reply);
	return rc;
}

int cmd_job_release(struct cli *cli)
{
	sluice_reply *reply = NULL;
	sluice_job_info job = SLUICE_JOB_INFO();
	uint64_t token, delay_ms;
	int rc;

	if (!number_option(cli, "token", 0, 1, UINT64_MAX, &token) ||
	    !duration_option(cli, "delay", 0, UINT32_MAX, &delay_ms))
		return SLUICE_E_INVAL;
	rc = need(cli);
	if (rc == 0 && token == 0) {
		rc = job_now(cli, &job);
		token = job.token;
	}
	if (rc != 0)
		return rc;
	rc = sluice_job_release(cli->client, cli->args[0], token, (uint32_t)delay_ms,
				option(cli, "reason"), NULL, &reply);
	return print_done(cli, rc, reply);
}

int cmd_job_history(struct cli *cli)
{
	static const char *const heads[] = {"TIME", "ATTEMPT", "EVENT",	   "STATE",
					    "SEEN", "SOURCE",  "EVIDENCE", NULL};
	sluice_reply *reply = NULL;
	sluice_job_history_row row = SLUICE_JOB_HISTORY_ROW();
	struct table *table;
	int rc = need(cli);

	if (rc != 0)
		return rc;
	rc = sluice_job_history(cli->client, cli->args[0], NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		return print_json(reply);
	table = table_create(heads);
	for (size_t i = 0; sluice_reply_history(reply, i, &row); i++) {
		char when[32], seen[32], attempt[24], state[100];
		/* For an end, the time when it happened; both by the source. */
		sluice_time_ms at = row.ended_time_ms != 0 ? row.ended_time_ms : row.seen_time_ms;

		(void)snprintf(state, sizeof(state), "%.40s%s%.40s", row.from_state,
			       row.from_state[0] != 0 ? " -> " : "", row.state);
		table_row(table,
			  (const char *const[]){time_text(row.time_ms, when),
						number(row.attempt, attempt), row.event, state,
						at != 0 ? time_text(at, seen) : "", row.source,
						row.evidence[0] != 0 ? row.evidence
								     : row.scheduler_ref});
	}
	table_print(table);
	sluice_reply_free(reply);
	return 0;
}

static int print_lines(struct cli *cli, sluice_reply *reply)
{
	if (cli->json)
		return print_json(reply);
	for (size_t i = 0; sluice_reply_line(reply, i) != NULL; i++)
		(void)printf("%s\n", sluice_reply_line(reply, i));
	sluice_reply_free(reply);
	return 0;
}

int cmd_job_explain(struct cli *cli)
{
	sluice_reply *reply = NULL;
	int rc = need(cli);

	if (rc != 0)
		return rc;
	rc = sluice_job_explain(cli->client, cli->args[0], NULL, &reply);
	return rc != 0 ? refused(cli, rc, reply) : print_lines(cli, reply);
}

int cmd_quarantine_ls(struct cli *cli)
{
	static const char *const heads[] = {"N",     "TIME",   "JOB",	 "ATTEMPT",
					    "STATE", "SOURCE", "REASON", NULL};
	sluice_reply *reply = NULL;
	sluice_quarantine_row row = SLUICE_QUARANTINE_ROW();
	struct table *table;
	uint64_t after, max;
	int rc;

	if (!number_option(cli, "max", 1000, 1, 1000, &max) ||
	    !number_option(cli, "after", 0, 0, UINT64_MAX, &after))
		return SLUICE_E_INVAL;
	rc = need(cli);
	if (rc != 0)
		return rc;
	rc = sluice_quarantine_list(cli->client, option(cli, "job"), after, (uint32_t)max, NULL,
				    &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		return print_json(reply);
	table = table_create(heads);
	for (size_t i = 0; sluice_reply_quarantine(reply, i, &row); i++) {
		char n[24], when[32], attempt[24];

		table_row(table,
			  (const char *const[]){number(row.number, n), time_text(row.time_ms, when),
						row.job, number(row.attempt, attempt), row.state,
						row.source, row.reason});
	}
	table_print(table);
	sluice_reply_free(reply);
	return 0;
}

/* Adds up all pages; findings are printed as they arrive: lines, or elements of a list. */
static int audit_pages(struct cli *cli, sluice_job_audit_spec *spec, FILE *lines,
		       sluice_job_audit_info *sum, uint64_t *findings)
{
	do {
		sluice_reply *reply = NULL;
		sluice_job_audit_info page = SLUICE_JOB_AUDIT_INFO();
		int rc = sluice_job_audit(cli->client, spec, NULL, &reply);

		if (rc != 0)
			return refused(cli, rc, reply);
		(void)sluice_reply_audit(reply, &page);
		*sum = SLUICE_MAKE(sluice_job_audit_info, .jobs = sum->jobs + page.jobs,
				   .open = sum->open + page.open, .ready = sum->ready + page.ready,
				   .leased = sum->leased + page.leased,
				   .orphaned = sum->orphaned + page.orphaned,
				   .gated = sum->gated + page.gated, .held = sum->held + page.held);
		for (size_t i = 0; sluice_reply_line(reply, i) != NULL; i++, ++*findings) {
			const char *line = sluice_reply_line(reply, i);

			if (cli->json && *findings > 0)
				(void)fputc(',', lines);
			if (cli->json)
				json_put_text(lines, line, strlen(line));
			else
				(void)fprintf(lines, "%s\n", line);
		}
		spec->after_number = page.next_number;
		sluice_reply_free(reply);
	} while (spec->after_number != 0);
	return 0;
}

int cmd_audit(struct cli *cli)
{
	sluice_job_audit_spec spec = SLUICE_JOB_AUDIT_SPEC();
	sluice_job_audit_info sum = SLUICE_JOB_AUDIT_INFO();
	uint64_t findings = 0;
	char *text = NULL;
	size_t len = 0;
	FILE *lines;
	int rc;

	if (!duration_option(cli, "silent", 0, UINT64_MAX, &spec.silent_ms) ||
	    !duration_option(cli, "orphan", 0, UINT64_MAX, &spec.orphan_ms))
		return SLUICE_E_INVAL;
	lines = open_memstream(&text, &len);
	rc = lines != NULL ? need(cli) : SLUICE_E_NOMEM;
	if (rc == 0)
		rc = audit_pages(cli, &spec, lines, &sum, &findings);
	if (lines != NULL && fclose(lines) != 0 && rc == 0)
		rc = SLUICE_E_NOMEM;
	if (rc == 0 && cli->json)
		(void)printf("{\"jobs\":%" PRIu64 ",\"open\":%" PRIu64 ",\"ready\":%" PRIu64
			     ",\"leased\":%" PRIu64 ",\"orphaned\":%" PRIu64 ",\"gated\":%" PRIu64
			     ",\"held\":%" PRIu64 ",\"findings\":%" PRIu64 ",\"lines\":[%s]}\n",
			     sum.jobs, sum.open, sum.ready, sum.leased, sum.orphaned, sum.gated,
			     sum.held, findings, text);
	else if (rc == 0)
		(void)printf("%s%" PRIu64 " jobs, %" PRIu64 " open: %" PRIu64 " ready, %" PRIu64
			     " leased, %" PRIu64 " orphaned, %" PRIu64 " gated, %" PRIu64
			     " held; %" PRIu64 " findings\n",
			     text, sum.jobs, sum.open, sum.ready, sum.leased, sum.orphaned,
			     sum.gated, sum.held, findings);
	free(text);
	if (rc == 0 && findings > 0)
		rc = report_error(cli, SLUICE_E_CORRUPT,
				  "%" PRIu64
				  " findings: the ledger is not sound, or jobs stand still",
				  findings);
	return rc;
}

/* The library has no typed row for the status: prints a line for each member of its JSON. */
int cmd_status(struct cli *cli)
{
	sluice_reply *reply = NULL;
	struct json status, name, value;
	char key[64], text[512];
	size_t pos = 0;
	int rc = need(cli);

	if (rc != 0)
		return rc;
	rc = sluice_status(cli->client, NULL, &reply);
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		return print_json(reply);
	status = json_get(json_of(sluice_reply_json(reply)), "status");
	while (json_each(status, &pos, &name, &value))
		(void)printf("%-20s %s\n", json_plain(name, key, sizeof(key)),
			     json_plain(value, text, sizeof(text)));
	sluice_reply_free(reply);
	return 0;
}
