/* SPDX-License-Identifier: Apache-2.0
 * The ledger's promises outside of single transitions: idempotent submit, evidence, history,
 * retention, lists, explain, full queues, events' subjects, priorities. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/base/text.h"
#include "broker/core/job/job.h"
#include "tests/unit/job_rig.h"

Test(job_ledger, submit_is_idempotent_and_a_conflict_names_the_field)
{
	Sluice__JobSubmit m = rig_submit_of("j");
	struct outcome first, out;
	struct rig rig;

	rig_open(&rig);
	first = rig_submit(&rig, "j");
	cr_assert(first.code == 0 && !first.duplicate && first.attempt == 1);
	cr_assert_str_eq(first.state, "SUBMITTED");
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	out = rig_submit(&rig, "j");
	cr_assert(out.code == 0 && out.duplicate && out.id == first.id && out.index == first.index);
	cr_assert_str_eq(out.state, "ACTIVE", "a duplicate answers with the job as it is");
	m.lifecycle = (char *)"airavata";
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0,
		     "the queue's lifecycle, by its name");
	m = rig_submit_of("j");
	m.owner = (char *)"bob";
	out = rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m);
	cr_assert(out.code == SLUICE_E_CONFLICT && strstr(out.text, "owner") != NULL, "%s",
		  out.text);
	m = rig_submit_of("j");
	m.payload.len = 3;
	out = rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m);
	cr_assert(out.code == SLUICE_E_CONFLICT && strstr(out.text, "payload") != NULL, "%s",
		  out.text);
	m = rig_submit_of("j");
	m.priority = 9;
	out = rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m);
	cr_assert(out.code == SLUICE_E_CONFLICT && strstr(out.text, "priority") != NULL, "%s",
		  out.text);
	m = rig_submit_of("j");
	m.queue = (char *)"elsewhere";
	out = rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m);
	cr_assert(out.code == SLUICE_E_CONFLICT && strstr(out.text, "queue") != NULL, "%s",
		  out.text);
	rig_audit(&rig);
	cr_assert_eq(rig.reply->audited->jobs, 1);
	rig_close(&rig);
}

/* limit: JOB_PAYLOAD_BYTES_MAX */
Test(job_ledger, submit_refuses_invalid_jobs)
{
	Sluice__JobSubmit m = rig_submit_of("j");
	char *big = calloc(1, 1048577);
	struct rig rig;

	rig_open(&rig);
	m.queue = (char *)"dead-letter";
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, SLUICE_E_INVAL,
		     "a queue of items");
	m.queue = (char *)"nowhere";
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, SLUICE_E_NOT_FOUND);
	m.queue = (char *)"";
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, SLUICE_E_INVAL);
	m = rig_submit_of("");
	cr_assert_neq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	m = rig_submit_of("j");
	m.lifecycle = (char *)"no-such";
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, SLUICE_E_NOT_FOUND);
	m = rig_submit_of("j");
	m.priority = 256;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, SLUICE_E_INVAL);
	m = rig_submit_of("j");
	m.owner = (char *)"\xff";
	cr_assert_eq(world_try(&rig.world, COMMAND_JOB_SUBMIT, &m).code, SLUICE_E_INVAL,
		     "even when the codec does not check it");
	m = rig_submit_of("j");
	m.payload = (ProtobufCBinaryData){1048577, (uint8_t *)big};
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, SLUICE_E_LIMIT);
	m.payload.len = 1048576;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	cr_assert_eq(rig.deliveries->jobs[0]->payload.len, 1048576);
	free(big);
	rig_close(&rig);
}

/* limit: EVIDENCE_BYTES_MAX */
Test(job_ledger, evidence_and_reference_are_recorded_once)
{
	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;
	char evidence[4098] = "";
	const Sluice__JobInfo *info;
	struct rig rig;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	m.job = (char *)"j";
	m.attempt = 1;
	m.source = (char *)"slurm:a";
	m.state = (char *)"SUBMITTED";
	m.scheduler_ref = (char *)"4711";
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).disposition,
		     SLUICE__DISPOSITION__APPLIED, "same state, new reference");
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).disposition,
		     SLUICE__DISPOSITION__DUPLICATE);
	cr_assert_eq(rig_history(&rig, "j"), 2);
	m.state = (char *)"";
	m.scheduler_ref = (char *)"";
	m.evidence = (char *)"PENDING \"(Resources)\" \xe2\x82\xac";
	m.exit_code = -1;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).disposition,
		     SLUICE__DISPOSITION__DUPLICATE);
	info = rig_show(&rig, "j");
	cr_assert_str_eq(info->state, "SUBMITTED");
	cr_assert_str_eq(info->scheduler_ref, "4711");
	cr_assert_str_eq(info->evidence, "PENDING \"(Resources)\" \xe2\x82\xac");
	cr_assert_str_eq(info->source, "slurm:a");
	cr_assert_eq(info->exit_code, -1);
	cr_assert_eq(rig_history(&rig, "j"), 3);
	cr_assert_eq(rig_events(&rig), 1, "only changes of state are events");
	memset(evidence, 'e', 4097);
	m.evidence = evidence;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(strlen(rig_show(&rig, "j")->evidence), 4096, "it is cut");
	m.evidence = (char *)"";
	m.exit_code = 0;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).code, SLUICE_E_INVAL,
		     "nothing is reported");
	m.state = (char *)"ACTIVE";
	m.attempt = 0;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).code, SLUICE_E_INVAL,
		     "neither token nor attempt");
	rig_close(&rig);
}

Test(job_ledger, history_is_linked_and_complete)
{
	static const char *const events[] = {"submit",	 "claim",  "intent", "report", "orphan",
					     "takeover", "cancel", "report", "reset"};
	struct rig rig;
	uint64_t token, last = 0;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	cr_assert_eq(rig_submit(&rig, "between").code, 0);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	token = rig.deliveries->jobs[0]->token;
	cr_assert_eq(rig_intent(&rig, "j", token, 1, "t").code, 0);
	cr_assert_eq(rig_report(&rig, "j", token, 1, "ACTIVE").code, 0);
	rig_session_end(&rig, rig.session);
	rig.session = rig_session(&rig);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, CLAIM_ORPHANS), 1);
	token = rig.deliveries->jobs[0]->token;
	cr_assert_eq(rig_cancel(&rig, "j").code, 0);
	cr_assert_eq(rig_report(&rig, "j", token, 1, "CANCELED").code, 0);
	cr_assert_eq(rig_reset(&rig, "j", false).code, 0);
	cr_assert_eq(rig_history(&rig, "j"), sizeof(events) / sizeof(events[0]));
	for (size_t i = 0; i < rig.reply->n_history; i++) {
		cr_assert_str_eq(rig.reply->history[i]->event, events[i]);
		cr_assert_gt(rig.reply->history[i]->n, last);
		last = rig.reply->history[i]->n;
	}
	cr_assert_str_eq(rig.reply->history[7]->from_state, "ACTIVE");
	cr_assert_str_eq(rig.reply->history[7]->state, "CANCELED");
	cr_assert_eq(rig.reply->history[8]->attempt, 2);
	rig_close(&rig);
}

static size_t jobs_listed(struct rig *rig, Sluice__JobList *list)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;

	request.op_case = SLUICE__REQUEST__OP_JOB_LIST;
	request.job_list = list;
	rig_query(rig, &request);
	cr_assert_eq(rig->reply->code, 0, "%s", rig->reply->text);
	return rig->reply->n_jobs;
}

Test(job_ledger, list_filters_and_pages_by_number)
{
	Sluice__JobList list = SLUICE__JOB_LIST__INIT;
	struct rig rig;
	char id[16];

	rig_open(&rig);
	for (int i = 0; i < 10; i++) {
		snprintf(id, sizeof(id), "job-%d", 9 - i);
		cr_assert_eq(rig_submit(&rig, id).code, 0);
	}
	cr_assert_eq(rig_report(&rig, "job-4", 0, 1, "COMPLETE").code, 0);
	cr_assert_eq(rig_claim(&rig, rig.session, 2, 0), 2);
	list.max = 4;
	cr_assert_eq(jobs_listed(&rig, &list), 4);
	cr_assert(rig.reply->more);
	cr_assert_str_eq(rig.reply->jobs[0]->job, "job-9", "in the order of submission");
	list.after_number = rig.reply->jobs[3]->number;
	cr_assert_eq(jobs_listed(&rig, &list), 4);
	list.after_number = 0;
	list.after = (char *)"job-2";
	cr_assert_eq(jobs_listed(&rig, &list), 2);
	cr_assert(!rig.reply->more);
	list.after = (char *)"";
	list.max = 0;
	list.state = (char *)"COMPLETE";
	cr_assert_eq(jobs_listed(&rig, &list), 1);
	cr_assert_str_eq(rig.reply->jobs[0]->job, "job-4");
	list.state = (char *)"";
	list.claim = (char *)"leased";
	cr_assert_eq(jobs_listed(&rig, &list), 2);
	list.claim = (char *)"";
	list.open_only = true;
	cr_assert_eq(jobs_listed(&rig, &list), 9);
	list.queue = (char *)RIG_QUEUE;
	cr_assert_eq(jobs_listed(&rig, &list), 9);
	rig_audit(&rig);
	cr_assert_eq(rig.reply->audited->open, 9);
	cr_assert_eq(rig.reply->audited->ready, 7);
	cr_assert_eq(rig.reply->audited->leased, 2);
	rig_close(&rig);
}

Test(job_ledger, finished_jobs_are_forgotten_after_their_retention)
{
	Sluice__JobRetention keep = SLUICE__JOB_RETENTION__INIT;
	struct rig rig;

	rig_open(&rig);
	keep.keep_ms = 60000;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	rig_advance(&rig,
		    0); /* its scan of the jobs is done: from here each end sets its own timer */
	cr_assert_eq(rig_submit(&rig, "short").code, 0);
	cr_assert_eq(rig_submit(&rig, "again").code, 0);
	cr_assert_eq(rig_submit(&rig, "open").code, 0);
	cr_assert_eq(rig_report(&rig, "short", 0, 1, "COMPLETE").code, 0);
	cr_assert_eq(rig_report(&rig, "again", 0, 1, "FAILED").code, 0);
	rig_advance(&rig, 30000);
	cr_assert_eq(rig_reset(&rig, "again", false).code, 0);
	rig_advance(&rig, 31000);
	cr_assert(rig_missing(&rig, "short"));
	cr_assert_str_eq(rig_show(&rig, "again")->state, "SUBMITTED", "it was reset meanwhile");
	cr_assert_str_eq(rig_show(&rig, "open")->state, "SUBMITTED");
	rig_audit(&rig);
	cr_assert_eq(rig.reply->audited->jobs, 2);
	cr_assert_eq(rig_submit(&rig, "short").duplicate, false, "its id is free");
	/* A new, shorter retention applies to jobs that ended before it; 0 keeps jobs without a
	 * limit. */
	keep.keep_ms = 0;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	cr_assert_eq(rig_report(&rig, "again", 0, 2, "COMPLETE").code, 0);
	rig_advance(&rig, UINT64_C(100) * 86400000);
	cr_assert_str_eq(rig_show(&rig, "again")->state, "COMPLETE");
	keep.keep_ms = 1000;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	rig_advance(&rig, 0);
	cr_assert(rig_missing(&rig, "again"));
	rig_audit(&rig);
	rig_close(&rig);
}

static const char *explained(struct rig *rig, const char *id)
{
	static char text[8192];
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobExplain explain = SLUICE__JOB_EXPLAIN__INIT;

	explain.job = (char *)id;
	request.op_case = SLUICE__REQUEST__OP_JOB_EXPLAIN;
	request.job_explain = &explain;
	rig_query(rig, &request);
	cr_assert_not_null(rig->reply->explained, "%s", rig->reply->text);
	text[0] = '\0';
	for (size_t i = 0; i < rig->reply->explained->n_lines; i++) {
		strcat(text, rig->reply->explained->lines[i]);
		strcat(text, "\n");
	}
	return text;
}

#define SAYS(text, what) cr_assert_not_null(strstr(text, what), "\"%s\" is not in:\n%s", what, text)

Test(job_ledger, explain_has_the_holder_and_the_next_step)
{
	const char *text;
	struct rig rig;
	uint64_t token;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	text = explained(&rig, "j");
	SAYS(text, "Job j is SUBMITTED in attempt 1");
	SAYS(text, "ready in queue work");
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	token = rig.deliveries->jobs[0]->token;
	rig_advance(&rig, 7000);
	text = explained(&rig, "j");
	SAYS(text, "held by session");
	SAYS(text, "(test)");
	SAYS(text, "since 7.");
	SAYS(text, "No intent is recorded");
	cr_assert_eq(rig_intent(&rig, "j", token, 1, "tag-9").code, 0);
	cr_assert_eq(rig_cancel(&rig, "j").code, 0);
	text = explained(&rig, "j");
	SAYS(text, "tag-9");
	SAYS(text, "Cancel was requested");
	rig_session_end(&rig, rig.session);
	text = explained(&rig, "j");
	SAYS(text, "orphaned");
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "CANCELED").code, 0);
	text = explained(&rig, "j");
	SAYS(text, "CANCELED is a terminal state");
	SAYS(text, "Last report: from test");
	rig_close(&rig);
}

Test(job_ledger, a_change_of_state_has_a_time_that_evidence_does_not_change)
{
	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;
	uint64_t submitted, changed;
	struct rig rig;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	submitted = rig.world.clock.wall_ms;
	rig_advance(&rig, 5000);
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "ACTIVE").code, 0);
	changed = rig.world.clock.wall_ms;
	rig_advance(&rig, 5000);
	m.job = (char *)"j";
	m.attempt = 1;
	m.evidence = (char *)"still running";
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).code, 0);
	cr_assert_eq(rig_show(&rig, "j")->submit_time_ms, submitted);
	cr_assert_eq(rig_show(&rig, "j")->change_time_ms, changed);
	rig_close(&rig);
}

Test(job_ledger, a_full_queue_accepts_neither_a_job_nor_a_reset)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueAlter alter = SLUICE__QUEUE_ALTER__INIT;
	struct rig rig;

	rig_open(&rig);
	config.name = (char *)RIG_QUEUE;
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	config.max_items = 2;
	alter.config = &config;
	cr_assert_eq(rig_apply(&rig, COMMAND_QUEUE_ALTER, 0, &alter).code, 0);
	cr_assert_eq(rig_submit(&rig, "a").code, 0);
	cr_assert_eq(rig_submit(&rig, "b").code, 0);
	cr_assert_eq(rig_submit(&rig, "c").code, SLUICE_E_QUEUE_FULL);
	cr_assert_eq(rig_submit(&rig, "a").code, 0, "an existing job needs no room");
	cr_assert(rig_cancel(&rig, "a").terminal);
	cr_assert_eq(rig_submit(&rig, "c").code, 0);
	cr_assert_eq(rig_reset(&rig, "a", false).code, SLUICE_E_QUEUE_FULL);
	cr_assert_eq(rig_reset(&rig, "b", true).code, 0, "an open job keeps its place");
	cr_assert_str_eq(rig_show(&rig, "a")->state, "CANCELED");
	rig_audit(&rig);
	rig_close(&rig);
}

Test(job_ledger, a_job_id_is_one_token_of_its_events_subject)
{
	char token[256], longest[256];
	size_t n;

	n = job_text_token(token, "a.b*c>d%e f#g", 1);
	cr_assert(n == strlen("a%2Eb%2Ac%3Ed%25e%20f%23g") &&
		  memcmp(token, "a%2Eb%2Ac%3Ed%25e%20f%23g", n) == 0);
	memset(longest, 'x', 255);
	longest[255] = '\0';
	n = job_text_token(token, longest, 4711);
	cr_assert(n == 5 && memcmp(token, "#4711", 5) == 0);
	longest[JOB_TOKEN_BYTES_MAX] = '\0';
	cr_assert_eq(job_text_token(token, longest, 4711), JOB_TOKEN_BYTES_MAX);
}

Test(job_ledger, an_event_is_published_for_any_id)
{
	char longest[256];
	struct rig rig;

	rig_open(&rig);
	memset(longest, '.', 255);
	longest[255] = '\0';
	cr_assert_eq(rig_submit(&rig, longest).code, 0);
	cr_assert_eq(rig_submit(&rig, "exp 1.proc>2*").code, 0);
	cr_assert_eq(rig_events(&rig), 2);
	rig_close(&rig);
}

Test(job_ledger, a_priority_queue_delivers_the_higher_job_first)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	Sluice__JobSubmit m = rig_submit_of("low");
	struct rig rig;

	rig_open(&rig);
	config.name = (char *)"urgent";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	config.priority = true;
	create.config = &config;
	cr_assert_eq(rig_apply(&rig, COMMAND_QUEUE_CREATE, 0, &create).code, 0);
	rig.queue = world_queue_ref(&rig.world, "urgent").id;
	m.queue = (char *)"urgent";
	m.priority = 1;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	m.job = (char *)"high";
	m.priority = 200;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	m.job = (char *)"gone";
	m.priority = 255;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	cr_assert(rig_cancel(&rig, "gone").terminal, "an entry is found by its priority");
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	cr_assert_str_eq(rig.deliveries->jobs[0]->job, "high");
	rig_audit(&rig);
	rig_close(&rig);
}
