/* SPDX-License-Identifier: Apache-2.0
 * The ledger's promises outside of single transitions: idempotent submit, parked and quarantined
 * reports, evidence, retention, lists, explain, audit, events' subjects. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/base/keys.h"
#include "broker/core/base/name.h"
#include "broker/core/base/text.h"
#include "broker/core/job/job.h"
#include "tests/unit/job_rig.h"

static Sluice__JobSubmit submit_of(const char *id)
{
	Sluice__JobSubmit m = SLUICE__JOB_SUBMIT__INIT;

	m.job = (char *)id;
	m.queue = (char *)RIG_QUEUE;
	m.owner = (char *)"ada";
	m.payload = (ProtobufCBinaryData){4, (uint8_t *)"work"};
	return m;
}

Test(job_ledger, submit_is_idempotent_and_a_conflict_names_the_field)
{
	Sluice__JobSubmit m = submit_of("j");
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
		     "the lifecycle that it got anyway");
	m = submit_of("j");
	m.owner = (char *)"bob";
	out = rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m);
	cr_assert(out.code == SLUICE_E_CONFLICT && strstr(out.text, "owner") != NULL, "%s",
		  out.text);
	m = submit_of("j");
	m.payload.len = 3;
	out = rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m);
	cr_assert(out.code == SLUICE_E_CONFLICT && strstr(out.text, "payload") != NULL, "%s",
		  out.text);
	m = submit_of("j");
	m.priority = 9;
	out = rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m);
	cr_assert(out.code == SLUICE_E_CONFLICT && strstr(out.text, "priority") != NULL, "%s",
		  out.text);
	m = submit_of("j");
	m.queue = (char *)"elsewhere";
	out = rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m);
	cr_assert(out.code == SLUICE_E_CONFLICT && strstr(out.text, "queue") != NULL, "%s",
		  out.text);
	rig_audit(&rig);
	cr_assert_eq(rig.reply->audited->jobs, 1);
	rig_close(&rig);
}

/* limit: JOB_PAYLOAD_BYTES_MAX */
Test(job_ledger, submit_refuses_what_cannot_work)
{
	Sluice__JobSubmit m = submit_of("j");
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
	m = submit_of("");
	cr_assert_neq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	m = submit_of("j");
	m.lifecycle = (char *)"no-such";
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, SLUICE_E_NOT_FOUND);
	m = submit_of("j");
	m.priority = 256;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, SLUICE_E_INVAL);
	m = submit_of("j");
	m.owner = (char *)"\xff";
	cr_assert_eq(world_try(&rig.world, COMMAND_JOB_SUBMIT, &m).code, SLUICE_E_INVAL,
		     "past a codec that lets it through");
	m = submit_of("j");
	m.payload = (ProtobufCBinaryData){1048577, (uint8_t *)big};
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, SLUICE_E_LIMIT);
	m.payload.len = 1048576;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	cr_assert_eq(rig.deliveries->jobs[0]->payload.len, 1048576);
	free(big);
	rig_close(&rig);
}

Test(job_ledger, reports_before_their_job_are_applied_in_order_at_its_submit)
{
	struct rig rig;
	struct outcome out;

	rig_open(&rig);
	out = rig_report(&rig, "early", 0, 1, "QUEUED");
	cr_assert(out.code == 0 && out.disposition == SLUICE__DISPOSITION__PARKED);
	cr_assert_eq(rig_report(&rig, "early", 0, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__PARKED);
	cr_assert_eq(rig_report(&rig, "other", 0, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__PARKED);
	cr_assert_eq(rig_report(&rig, "early", 0, 2, "QUEUED").disposition,
		     SLUICE__DISPOSITION__PARKED);
	cr_assert_eq(rig_quarantine(&rig, "early"), 3);
	cr_assert_str_eq(rig.reply->quarantine[0]->reason, "parked");
	out = rig_submit(&rig, "early");
	cr_assert_str_eq(out.state, "ACTIVE");
	cr_assert_eq(rig_history(&rig, "early"), 3);
	cr_assert_str_eq(rig.reply->history[1]->state, "QUEUED");
	cr_assert_str_eq(rig.reply->history[2]->state, "ACTIVE");
	cr_assert_eq(rig_quarantine(&rig, "early"), 1,
		     "the one of a later attempt is quarantined for good");
	cr_assert_str_neq(rig.reply->quarantine[0]->reason, "parked");
	cr_assert_eq(rig_quarantine(&rig, "other"), 1);
	cr_assert_eq(rig_report(&rig, "ended", 0, 1, "COMPLETE").disposition,
		     SLUICE__DISPOSITION__PARKED);
	cr_assert_str_eq(rig_submit(&rig, "ended").state, "COMPLETE");
	cr_assert_eq(rig_claim(&rig, rig.session, 10, 0), 1, "the ended one left the queue");
	cr_assert_str_eq(rig.deliveries->jobs[0]->job, "early");
	rig_audit(&rig);
	rig_close(&rig);
}

static void report_fill(Sluice__JobReport *m, const char *id, const char *state, uint64_t seen_ms)
{
	sluice__job_report__init(m);
	m->job = (char *)(uintptr_t)id;
	m->attempt = 1;
	m->state = (char *)(uintptr_t)state;
	m->source = (char *)"test";
	m->evidence = (char *)"what was seen";
	m->seen_time_ms = seen_ms;
}

Test(job_ledger, a_report_that_is_sent_again_stays_one_row_in_quarantine)
{
	Sluice__JobReport early, illegal;
	struct outcome first, again;
	struct rig rig;

	rig_open(&rig);
	report_fill(&early, "early", "ACTIVE", 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &early).disposition,
			     SLUICE__DISPOSITION__PARKED);
	cr_assert_eq(rig_quarantine(&rig, "early"), 1, "parked once");
	rig_submit(&rig, "j");
	rig_report(&rig, "j", 0, 1, "QUEUED");
	report_fill(&illegal, "j", "SUBMITTED", rig.world.clock.wall_ms);
	first = rig_apply(&rig, COMMAND_JOB_REPORT, 0, &illegal);
	cr_assert_eq(first.disposition, SLUICE__DISPOSITION__QUARANTINED);
	rig_report(&rig, "j", 0, 1, "ACTIVE");
	rig_report(&rig, "other", 0, 7, "ACTIVE");
	again = rig_apply(&rig, COMMAND_JOB_REPORT, 0, &illegal);
	cr_assert_eq(again.disposition, SLUICE__DISPOSITION__QUARANTINED);
	cr_expect_str_eq(again.text, first.text,
			 "the first answer, though the job is elsewhere now");
	cr_assert_eq(rig_quarantine(&rig, "j"), 1, "in quarantine once");
	illegal.seen_time_ms++;
	rig_apply(&rig, COMMAND_JOB_REPORT, 0, &illegal);
	cr_assert_eq(rig_quarantine(&rig, "j"), 2, "seen at another time it is another report");
	rig_audit(&rig);
	rig_close(&rig);
}

/* A holder sends an end until it is taken. */
Test(job_ledger, a_quarantined_report_is_applied_once_it_can_be)
{
	Sluice__JobReport report;
	struct rig rig;

	rig_open(&rig);
	rig_submit(&rig, "j");
	report_fill(&report, "j", "COMPLETE", rig.world.clock.wall_ms);
	report.attempt = 2;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &report).disposition,
		     SLUICE__DISPOSITION__QUARANTINED);
	rig_reset(&rig, "j", true);
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &report).disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "COMPLETE");
	rig_close(&rig);
}

static void forget_ended(struct rig *rig)
{
	Sluice__JobRetention keep = SLUICE__JOB_RETENTION__INIT;

	keep.keep_ms = 1;
	cr_assert_eq(rig_apply(rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	rig_advance(rig, 10);
	keep.keep_ms = UINT64_MAX - 1;
	cr_assert_eq(rig_apply(rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
}

/* A name is not an identity. */
Test(job_ledger, a_late_report_never_is_about_a_later_job_of_its_id)
{
	Sluice__JobReport report;
	uint64_t token, number;
	struct rig rig;

	rig_open(&rig);
	number = rig_submit(&rig, "j").id;
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	token = rig.deliveries->jobs[0]->token;
	cr_assert_eq(rig.deliveries->jobs[0]->number, number);
	rig_report(&rig, "j", token, 1, "COMPLETE");
	forget_ended(&rig);
	cr_assert_eq(rig_report(&rig, "j", token, 1, "FAILED").code, SLUICE_E_STALE_TOKEN,
		     "it is forgotten");
	report_fill(&report, "j", "FAILED", 0);
	report.number = number;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &report).code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(rig_quarantine(&rig, "j"), 0, "nothing is parked for the next one");
	cr_assert_neq(rig_submit(&rig, "j").id, number);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "SUBMITTED");
	cr_assert_eq(rig_report(&rig, "j", token, 1, "FAILED").code, SLUICE_E_STALE_TOKEN);
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &report).code, SLUICE_E_NOT_FOUND);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "SUBMITTED");
	report.number = rig_show(&rig, "j")->number;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &report).disposition,
		     SLUICE__DISPOSITION__APPLIED);
	rig_close(&rig);
}

Test(job_ledger, a_report_in_quarantine_is_no_retry_of_one_of_an_earlier_job_of_its_id)
{
	struct outcome out;
	struct rig rig;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	cr_assert_eq(rig_reset(&rig, "j", true).code, 0);
	out = rig_report(&rig, "j", 0, 7, "ACTIVE");
	cr_assert_eq(out.disposition, SLUICE__DISPOSITION__QUARANTINED);
	cr_assert_not_null(strstr(out.text, "attempt 2 is the current one"), "%s", out.text);
	cr_assert_eq(rig_report(&rig, "j", 0, 2, "COMPLETE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	forget_ended(&rig);
	cr_assert_eq(rig_quarantine(&rig, "j"), 1, "it stays to be looked at");
	cr_assert_eq(rig_submit(&rig, "j").duplicate, false, "another job");
	for (int i = 0; i < 2; i++) {
		out = rig_report(&rig, "j", 0, 7, "ACTIVE");
		cr_expect_eq(out.disposition, SLUICE__DISPOSITION__QUARANTINED);
		cr_expect_not_null(strstr(out.text, "attempt 1 is the current one"), "%s",
				   out.text);
		cr_expect_eq(rig_quarantine(&rig, "j"), 2, "the first of this job, and its retry");
	}
	rig_close(&rig);
}

static void row_damage(struct rig *rig, uint64_t n)
{
	struct store_txn *txn = NULL;
	struct key key;

	key_one(&key, 1, n);
	cr_assert_eq(store_begin(rig->world.store, &txn), 0);
	cr_assert_eq(store_put(txn, STORE_QUAR, key_slice(&key), (struct sluice_slice){"?", 1}), 0);
	cr_assert_eq(store_commit(txn), 0);
}

/* Of another job, of its own, and its newest one. */
Test(job_ledger, a_damaged_parked_report_holds_up_no_other)
{
	enum { PARKED = 100 };
	static const uint64_t damaged[] = {1, 50, PARKED + 1};
	static const char *const states[] = {"ACTIVE", "SUSPENDED"};

	for (size_t at = 0; at < sizeof(damaged) / sizeof(damaged[0]); at++) {
		Sluice__QuarantinePurge purge = SLUICE__QUARANTINE_PURGE__INIT;
		struct rig rig;

		rig_open(&rig);
		cr_assert_eq(rig_report(&rig, "other", 0, 1, "ACTIVE").disposition,
			     SLUICE__DISPOSITION__PARKED);
		for (int i = 0; i < PARKED; i++)
			cr_assert_eq(rig_report(&rig, "j", 0, 1, states[i % 2]).disposition,
				     SLUICE__DISPOSITION__PARKED);
		row_damage(&rig, damaged[at]);
		cr_assert_eq(rig_submit(&rig, "j").code, 0);
		(void)world_ticks(&rig.world, 1000);
		cr_expect_str_neq(rig_show(&rig, "j")->state, "SUBMITTED");
		cr_expect_geq(rig_history(&rig, "j"), PARKED - 1, "row %d", (int)damaged[at]);
		cr_expect_eq(rig_report(&rig, "j", 0, 1, "COMPLETE").disposition,
			     SLUICE__DISPOSITION__APPLIED, "nothing is parked behind it");
		cr_expect_eq(rig_quarantine(&rig, ""), 1 + (at > 0),
			     "and other's, if that is another one");
		cr_expect_eq(rig_quarantine(&rig, "j"), 1, "whose it is cannot be known");
		cr_expect_eq(rig.reply->quarantine[0]->n, damaged[at]);
		cr_expect_not_null(strstr(rig.reply->quarantine[0]->reason, "damaged"));
		cr_expect_eq(rig_apply(&rig, COMMAND_QUARANTINE_PURGE, 0, &purge).code, 0);
		cr_expect_eq(rig_quarantine(&rig, ""), 0, "the damaged one is purged, too");
		world_discard(&rig.world);
	}
}

Test(job_ledger, a_report_is_not_refused_for_a_damaged_row_of_its_job)
{
	struct rig rig;

	rig_open(&rig);
	cr_assert_eq(rig_report(&rig, "none", 0, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__PARKED);
	row_damage(&rig, 1);
	cr_expect_eq(rig_report(&rig, "none", 0, 1, "SUSPENDED").disposition,
		     SLUICE__DISPOSITION__PARKED);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	cr_assert_eq(rig_report(&rig, "j", 0, 7, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__QUARANTINED);
	row_damage(&rig, 3);
	cr_expect_eq(rig_report(&rig, "j", 0, 8, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__QUARANTINED);
	world_discard(&rig.world);
}

static bool missing(struct rig *rig, const char *id)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobShow show = SLUICE__JOB_SHOW__INIT;

	show.job = (char *)id;
	request.op_case = SLUICE__REQUEST__OP_JOB_SHOW;
	request.job_show = &show;
	return rig_query(rig, &request)->code == SLUICE_E_NOT_FOUND;
}

static void history_damage(struct rig *rig, uint64_t n)
{
	struct store_txn *txn = NULL;
	struct key key;

	key_one(&key, rig->world.gateway, n);
	cr_assert_eq(store_begin(rig->world.store, &txn), 0);
	cr_assert_eq(store_put(txn, STORE_HIST, key_slice(&key), (struct sluice_slice){"?", 1}), 0);
	cr_assert_eq(store_commit(txn), 0);
}

static uint64_t newest_row(struct rig *rig, const char *id)
{
	size_t count = rig_history(rig, id);

	return rig->reply->history[count - 1]->n;
}

/* What comes of a report when the newest row of the job's history, the one of the report before, is
 * damaged. */
Test(job_ledger, a_report_is_not_refused_for_a_damaged_row_of_the_history)
{
	static const struct {
		const char *state, *evidence, *ref;
		bool seen; /* it says when it was seen: its first is looked for */
		uint32_t attempt;
		int disposition;
	} cases[] = {
		{"", "PENDING", "", false, 1, SLUICE__DISPOSITION__APPLIED},
		{"", "PENDING", "", true, 1, SLUICE__DISPOSITION__APPLIED},
		{"QUEUED", "", "4712", false, 1, SLUICE__DISPOSITION__APPLIED},
		{"ACTIVE", "", "", false, 1, SLUICE__DISPOSITION__APPLIED},
		{"COMPLETE", "", "", true, 1, SLUICE__DISPOSITION__APPLIED},
		{"ACTIVE", "", "", false, 7, SLUICE__DISPOSITION__QUARANTINED},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (int ended = 0; ended < 2; ended++) {
			Sluice__JobReport m;
			struct outcome out;
			struct rig rig;

			if (ended && cases[i].state[0] != '\0')
				continue;
			rig_open(&rig);
			cr_assert_eq(rig_submit(&rig, "j").code, 0);
			report_fill(&m, "j", ended ? "COMPLETE" : "QUEUED", 0);
			m.scheduler_ref = (char *)"4711";
			m.started_time_ms = 1;
			cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).disposition,
				     SLUICE__DISPOSITION__APPLIED);
			history_damage(&rig, newest_row(&rig, "j"));
			report_fill(&m, "j", cases[i].state,
				    cases[i].seen ? rig.world.clock.wall_ms : 0);
			m.attempt = cases[i].attempt;
			m.evidence = (char *)cases[i].evidence;
			m.scheduler_ref = (char *)cases[i].ref;
			out = rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m);
			cr_expect_eq(out.code, 0, "case %zu.%d: %s", i, ended, out.text);
			cr_expect_eq(out.disposition, cases[i].disposition, "case %zu.%d: %d", i,
				     ended, out.disposition);
			cr_expect_geq(rig_effects(&rig, FX_ITEM_DAMAGED), 1,
				      "case %zu.%d: it is told", i, ended);
			world_discard(&rig.world);
		}
}

/* All rows of the store, of whichever job. */
static size_t rows_stored(struct rig *rig)
{
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct store_txn *txn;
	struct key key;
	size_t rows = 0;
	int rc;

	key_begin(&key, rig->world.gateway);
	cr_assert_eq(store_begin_read(rig->world.store, &txn), 0);
	cr_assert_eq(store_scan_begin(txn, STORE_HIST, key_slice(&key), &scan), 0);
	while ((rc = store_scan_next(scan, &found, &value)) == 0)
		rows++;
	cr_assert_eq(rc, SLUICE_E_NOT_FOUND);
	store_scan_end(scan);
	store_abort(txn);
	return rows;
}

/* The rows of both jobs lie mixed. at: of the forgotten one's. */
static void forgets_with_damaged_row(size_t at, bool gone)
{
	enum { REPORTS = 300 };
	Sluice__JobRetention keep = SLUICE__JOB_RETENTION__INIT;
	static const char *const states[] = {"ACTIVE", "SUSPENDED"};
	struct store_txn *txn = NULL;
	struct rig rig;
	struct key key;
	uint64_t n;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	cr_assert_eq(rig_submit(&rig, "other").code, 0);
	for (int i = 0; i < REPORTS; i++) {
		cr_assert_eq(rig_report(&rig, "other", 0, 1, states[i % 2]).disposition,
			     SLUICE__DISPOSITION__APPLIED);
		cr_assert_eq(rig_report(&rig, "j", 0, 1, states[i % 2]).disposition,
			     SLUICE__DISPOSITION__APPLIED);
	}
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "COMPLETE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_history(&rig, "j"), REPORTS + 2);
	n = rig.reply->history[at]->n;
	history_damage(&rig, n);
	if (gone) {
		key_one(&key, rig.world.gateway, n);
		cr_assert_eq(store_begin(rig.world.store, &txn), 0);
		cr_assert_eq(store_del(txn, STORE_HIST, key_slice(&key)), 0);
		cr_assert_eq(store_commit(txn), 0);
	}
	keep.keep_ms = 1;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	world_wait(&rig.world, 10);
	cr_expect_geq(world_ticks(&rig.world, 50), REPORTS / 50, "bounded work per command");
	cr_expect(missing(&rig, "j"), "row %zu", at);
	cr_expect_eq(rows_stored(&rig), REPORTS + 1,
		     "row %zu: what is left is the other's, %zu rows", at, rows_stored(&rig));
	cr_expect_eq(rig_history(&rig, "other"), REPORTS + 1);
	cr_expect_eq(rig_submit(&rig, "j").duplicate, false, "its id is free");
	rig_audit(&rig);
	world_discard(&rig.world);
}

Test(job_ledger, a_job_with_a_damaged_row_in_its_history_is_forgotten_with_all_of_it)
{
	forgets_with_damaged_row(301, false);
	forgets_with_damaged_row(300, false);
	forgets_with_damaged_row(150, false);
	forgets_with_damaged_row(150, true);
	forgets_with_damaged_row(1, false);
	forgets_with_damaged_row(0, false);
}

Test(job_ledger, a_finished_job_whose_record_is_damaged_or_missing_is_forgotten_all_the_same)
{
	for (int gone = 0; gone < 2; gone++) {
		Sluice__JobRetention keep = SLUICE__JOB_RETENTION__INIT;
		struct store_txn *txn = NULL;
		uint64_t named;
		struct rig rig;
		struct key key;

		rig_open(&rig);
		cr_assert_eq(rig_submit(&rig, "j").code, 0);
		cr_assert_eq(rig_submit(&rig, "other").code, 0);
		cr_assert_eq(rig_cancel(&rig, "j").code, 0);
		key_one(&key, rig.world.gateway, 1);
		cr_assert_eq(store_begin(rig.world.store, &txn), 0);
		cr_assert_eq(gone ? store_del(txn, STORE_JOB, key_slice(&key))
				  : store_put(txn, STORE_JOB, key_slice(&key),
					      (struct sluice_slice){"?", 1}),
			     0);
		cr_assert_eq(store_commit(txn), 0);
		keep.keep_ms = 1;
		cr_assert_eq(rig_apply(&rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
		world_wait(&rig.world, 10);
		cr_expect_eq(world_ticks(&rig.world, 1000), 1, "nothing is tried again");
		cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 1, "it is told");
		cr_expect_not_null(strstr(world_effect(&rig.world, FX_ITEM_DAMAGED)->name.data,
					  "the job's id stays taken"));
		cr_expect_eq(world_records(&rig.world, STORE_LIVE), 1, "the other's");
		cr_expect_eq(world_records(&rig.world, STORE_JOB), 1);
		cr_expect_eq(rig_history(&rig, "other"), 1);
		cr_expect_eq(rows_stored(&rig), 1);
		rig_audit(&rig);
		cr_expect_eq(rig.reply->audited->jobs, 1);
		cr_assert_eq(store_begin_read(rig.world.store, &txn), 0);
		cr_expect_eq(name_find(txn, rig.world.gateway, NAME_JOB,
				       (struct sluice_slice){"j", 1}, &named),
			     0);
		store_abort(txn);
		world_discard(&rig.world);
	}
}

Test(job_ledger, many_parked_reports_are_applied_bit_by_bit_and_in_order)
{
	enum { PARKED = 300 };
	static const char *const states[] = {"ACTIVE", "SUSPENDED"};
	struct outcome out;
	struct rig rig;
	uint64_t token;

	rig_open(&rig);
	for (int i = 0; i < PARKED; i++) {
		cr_assert_eq(rig_report(&rig, "j", 0, 1, states[i % 2]).disposition,
			     SLUICE__DISPOSITION__PARKED);
		cr_assert_eq(rig_report(&rig, "other", 0, 1, states[i % 2]).disposition,
			     SLUICE__DISPOSITION__PARKED);
	}
	out = rig_submit(&rig, "j");
	cr_assert_str_eq(out.state, "SUBMITTED", "more than one command applies: by TICK");
	cr_assert_eq(rig_history(&rig, "j"), 1);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	token = rig.deliveries->jobs[0]->token;
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "COMPLETE").disposition,
		     SLUICE__DISPOSITION__PARKED, "behind those that wait");
	cr_assert_eq(rig_report(&rig, "j", token, 1, "QUEUED").disposition,
		     SLUICE__DISPOSITION__APPLIED, "a holder's is not held up");
	cr_assert_geq(world_ticks(&rig.world, 50), PARKED / 50, "bounded work per command");
	cr_assert_eq(rig_history(&rig, "j"), 1 + 1 + 1 + PARKED + 1,
		     "submit, claim, the holder's, and all of them");
	for (int i = 0; i < PARKED; i++)
		cr_assert_str_eq(rig.reply->history[3 + i]->state, states[i % 2], "%d", i);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "COMPLETE");
	cr_assert_eq(rig_quarantine(&rig, "j"), 0);
	cr_assert_eq(rig_quarantine(&rig, "other"), PARKED);
	rig_audit(&rig);
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

/* limit: QUARANTINE_ROWS_MAX */
Test(job_ledger, the_quarantine_drops_its_oldest_row)
{
	Sluice__QuarantinePurge purge = SLUICE__QUARANTINE_PURGE__INIT;
	struct outcome out;
	struct rig rig;

	rig_open(&rig);
	cr_assert_eq(rig_report(&rig, "oldest", 0, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__PARKED);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	for (int i = 0; i < 9999; i++)
		cr_assert_eq(rig_report(&rig, "j", 0, 7 + (uint32_t)i, "ACTIVE").disposition,
			     SLUICE__DISPOSITION__QUARANTINED);
	cr_assert_eq(rig_quarantine(&rig, "oldest"), 1, "10000 rows are kept");
	cr_assert_eq(rig_report(&rig, "j", 0, 7, "QUEUED").disposition,
		     SLUICE__DISPOSITION__QUARANTINED);
	cr_assert_eq(rig_quarantine(&rig, "oldest"), 0, "the oldest went");
	cr_assert_str_eq(rig_submit(&rig, "oldest").state, "SUBMITTED", "and is not applied");
	out = rig_apply(&rig, COMMAND_QUARANTINE_PURGE, 0, &purge);
	cr_assert_eq(out.count, 10000);
	cr_assert_eq(rig_quarantine(&rig, ""), 0);
	rig_audit(&rig);
	rig_close(&rig);
}

Test(job_ledger, purge_by_job_and_by_number)
{
	Sluice__QuarantinePurge purge = SLUICE__QUARANTINE_PURGE__INIT;
	struct rig rig;

	rig_open(&rig);
	for (int i = 0; i < 6; i++)
		cr_assert_eq(rig_report(&rig, i % 2 ? "a" : "b", 0, 1,
					i / 2 % 2 ? "SUSPENDED" : "ACTIVE")
				     .disposition,
			     SLUICE__DISPOSITION__PARKED);
	purge.job = (char *)"a";
	purge.up_to = 4;
	cr_assert_eq(rig_apply(&rig, COMMAND_QUARANTINE_PURGE, 0, &purge).count, 2);
	cr_assert_eq(rig_quarantine(&rig, "a"), 1);
	cr_assert_eq(rig_quarantine(&rig, "b"), 3);
	cr_assert_str_eq(rig_submit(&rig, "a").state, "ACTIVE",
			 "what is left of the chain is applied");
	purge.up_to = 0;
	purge.job = (char *)"b";
	cr_assert_eq(rig_apply(&rig, COMMAND_QUARANTINE_PURGE, 0, &purge).count, 3);
	cr_assert_str_eq(rig_submit(&rig, "b").state, "SUBMITTED");
	cr_assert_eq(rig_quarantine(&rig, ""), 0);
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
		    0); /* its walk over the jobs is done: from here each end sets its own timer */
	cr_assert_eq(rig_submit(&rig, "short").code, 0);
	cr_assert_eq(rig_submit(&rig, "again").code, 0);
	cr_assert_eq(rig_submit(&rig, "open").code, 0);
	cr_assert_eq(rig_report(&rig, "short", 0, 1, "COMPLETE").code, 0);
	cr_assert_eq(rig_report(&rig, "again", 0, 1, "FAILED").code, 0);
	rig_advance(&rig, 30000);
	cr_assert_eq(rig_reset(&rig, "again", false).code, 0);
	rig_advance(&rig, 31000);
	cr_assert(missing(&rig, "short"));
	cr_assert_str_eq(rig_show(&rig, "again")->state, "SUBMITTED", "it was reset meanwhile");
	cr_assert_str_eq(rig_show(&rig, "open")->state, "SUBMITTED");
	rig_audit(&rig);
	cr_assert_eq(rig.reply->audited->jobs, 2);
	cr_assert_eq(rig_submit(&rig, "short").duplicate, false, "its id is free");
	/* A new, shorter retention reaches jobs that ended before it; for ever keeps. */
	keep.keep_ms = 0;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	cr_assert_eq(rig_report(&rig, "again", 0, 2, "COMPLETE").code, 0);
	rig_advance(&rig, UINT64_C(100) * 86400000);
	cr_assert_str_eq(rig_show(&rig, "again")->state, "COMPLETE");
	keep.keep_ms = 1000;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	rig_advance(&rig, 0);
	cr_assert(missing(&rig, "again"));
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

Test(job_ledger, explain_says_who_holds_it_and_what_comes_next)
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

Test(job_ledger, a_change_of_state_has_its_time_and_a_note_does_not_move_it)
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

Test(job_ledger, a_full_queue_takes_neither_a_job_nor_a_reset)
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
	cr_assert_eq(rig_submit(&rig, "a").code, 0, "what is there already needs no room");
	cr_assert(rig_cancel(&rig, "a").terminal);
	cr_assert_eq(rig_submit(&rig, "c").code, 0);
	cr_assert_eq(rig_reset(&rig, "a", false).code, SLUICE_E_QUEUE_FULL);
	cr_assert_eq(rig_reset(&rig, "b", true).code, 0, "an open job keeps its room");
	cr_assert_str_eq(rig_show(&rig, "a")->state, "CANCELED");
	rig_audit(&rig);
	rig_close(&rig);
}

Test(job_ledger, a_quarantined_report_refuses_its_whole_transaction)
{
	Sluice__JobReport legal = SLUICE__JOB_REPORT__INIT, stale = SLUICE__JOB_REPORT__INIT;
	Sluice__TxnOp ops[2] = {SLUICE__TXN_OP__INIT, SLUICE__TXN_OP__INIT},
		      *list[2] = {&ops[0], &ops[1]};
	Sluice__Txn txn = SLUICE__TXN__INIT;
	uint64_t events;
	struct rig rig;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	legal.job = stale.job = (char *)"j";
	legal.attempt = 1;
	stale.attempt = 2;
	legal.state = (char *)"QUEUED";
	stale.state = (char *)"ACTIVE";
	ops[0].op_case = ops[1].op_case = SLUICE__TXN_OP__OP_JOB_REPORT;
	ops[0].job_report = &legal;
	ops[1].job_report = &stale;
	txn.n_ops = 2;
	txn.ops = list;
	events = rig_events(&rig);
	cr_assert_eq(rig_apply(&rig, COMMAND_TXN, rig.session, &txn).code, SLUICE_E_QUARANTINED);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "SUBMITTED");
	cr_assert_eq(rig_history(&rig, "j"), 1);
	cr_assert_eq(rig_events(&rig), events);
	cr_assert_eq(rig_quarantine(&rig, "j"), 0);
	stale.attempt = 1;
	cr_assert_eq(rig_apply(&rig, COMMAND_TXN, rig.session, &txn).code, 0);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "ACTIVE",
			 "its second operation needed its first");
	cr_assert_eq(rig_events(&rig), events + 2);
	rig_close(&rig);
}

/* ---- lifecycles in use ---- */

static struct outcome lifecycle_make(struct rig *rig, uint16_t type, bool more)
{
	Sluice__LifecycleState states[4] = {SLUICE__LIFECYCLE_STATE__INIT,
					    SLUICE__LIFECYCLE_STATE__INIT,
					    SLUICE__LIFECYCLE_STATE__INIT,
					    SLUICE__LIFECYCLE_STATE__INIT};
	Sluice__LifecycleState *list[4] = {&states[0], &states[1], &states[2], &states[3]};
	char *after_new[] = {(char *)"RUN"}, *after_run[] = {(char *)"DONE", (char *)"LOST"};
	Sluice__LifecycleConfig config = SLUICE__LIFECYCLE_CONFIG__INIT;
	Sluice__LifecycleCreate create = SLUICE__LIFECYCLE_CREATE__INIT;
	Sluice__LifecycleAlter alter = SLUICE__LIFECYCLE_ALTER__INIT;

	states[0].name = (char *)"NEW";
	states[0].next = after_new;
	states[0].n_next = 1;
	states[1].name = (char *)"RUN";
	states[1].next = after_run;
	states[1].n_next = more ? 2 : 1;
	states[2].name = (char *)"DONE";
	states[2].terminal = true;
	states[3].name = (char *)"LOST";
	states[3].terminal = true;
	config.name = (char *)"small";
	config.states = list;
	config.n_states = more ? 4 : 3;
	config.cancelled = config.failed = (char *)"DONE";
	create.config = alter.config = &config;
	return rig_apply(rig, type, 0,
			 type == COMMAND_LIFECYCLE_CREATE ? (const void *)&create
							  : (const void *)&alter);
}

static struct outcome lifecycle_remove(struct rig *rig, const char *name)
{
	Sluice__LifecycleDelete m = SLUICE__LIFECYCLE_DELETE__INIT;

	m.name = (char *)name;
	return rig_apply(rig, COMMAND_LIFECYCLE_DELETE, 0, &m);
}

static const Sluice__Reply *lifecycles(struct rig *rig)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__LifecycleList list = SLUICE__LIFECYCLE_LIST__INIT;

	request.op_case = SLUICE__REQUEST__OP_LIFECYCLE_LIST;
	request.lifecycle_list = &list;
	return rig_query(rig, &request);
}

Test(job_ledger, a_lifecycle_grows_while_jobs_use_it_and_goes_when_none_does)
{
	Sluice__JobRetention keep = SLUICE__JOB_RETENTION__INIT;
	Sluice__JobSubmit m = submit_of("j");
	struct outcome out;
	struct rig rig;

	rig_open(&rig);
	m.lifecycle = (char *)"small";
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_ALTER, false).code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_CREATE, false).code, 0);
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_CREATE, false).code, SLUICE_E_EXISTS);
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "NEW");
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "RUN").disposition, SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "LOST").disposition,
		     SLUICE__DISPOSITION__QUARANTINED);
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_ALTER, true).code, 0);
	out = lifecycle_make(&rig, COMMAND_LIFECYCLE_ALTER, false);
	cr_assert(out.code == SLUICE_E_IN_USE && strstr(out.text, "LOST") != NULL, "%s", out.text);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, SLUICE_E_IN_USE);
	cr_assert_eq(lifecycles(&rig)->n_lifecycles, 2);
	cr_assert_str_eq(rig.reply->lifecycles[1]->config->name, "small");
	cr_assert_eq(rig.reply->lifecycles[1]->jobs, 1);
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "LOST").disposition, SLUICE__DISPOSITION__APPLIED,
		     "the new state is there at once");
	keep.keep_ms = 1000;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	rig_advance(&rig, 2000);
	cr_assert_eq(lifecycles(&rig)->lifecycles[1]->jobs, 0);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, 0);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, SLUICE_E_NOT_FOUND);
	cr_assert_eq(lifecycle_remove(&rig, "airavata").code, SLUICE_E_IN_USE,
		     "every queue's default");
	rig_close(&rig);
}

Test(job_ledger, a_queue_names_a_lifecycle_that_exists_and_keeps_it)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	Sluice__QueueAlter alter = SLUICE__QUEUE_ALTER__INIT;
	struct outcome out;
	struct rig rig;

	rig_open(&rig);
	config.name = (char *)"small-jobs";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	config.lifecycle = (char *)"small";
	create.config = alter.config = &config;
	out = rig_apply(&rig, COMMAND_QUEUE_CREATE, 0, &create);
	cr_assert_eq(out.code, SLUICE_E_NOT_FOUND);
	cr_assert_str_eq(out.text, "lifecycle 'small' does not exist; create it first");
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_CREATE, false).code, 0);
	cr_assert_eq(rig_apply(&rig, COMMAND_QUEUE_CREATE, 0, &create).code, 0);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, SLUICE_E_IN_USE);
	config.lifecycle = (char *)"smaller";
	cr_assert_eq(rig_apply(&rig, COMMAND_QUEUE_ALTER, 0, &alter).code, SLUICE_E_NOT_FOUND);
	config.lifecycle = (char *)"";
	cr_assert_eq(rig_apply(&rig, COMMAND_QUEUE_ALTER, 0, &alter).code, 0);
	cr_assert_eq(lifecycle_remove(&rig, "small").code, 0);
	rig_close(&rig);
}

Test(job_ledger, a_cancel_that_the_lifecycle_has_no_transition_for_only_sets_the_flag)
{
	Sluice__JobSubmit m = submit_of("j");
	struct rig rig;

	rig_open(&rig);
	m.lifecycle = (char *)"small"; /* NEW leads to RUN only; DONE is its cancelled state */
	cr_assert_eq(lifecycle_make(&rig, COMMAND_LIFECYCLE_CREATE, false).code, 0);
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_SUBMIT, 0, &m).code, 0);
	cr_assert(!rig_cancel(&rig, "j").terminal);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "NEW");
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	cr_assert(rig.deliveries->jobs[0]->cancel);
	cr_assert_eq(rig_intent(&rig, "j", rig.deliveries->jobs[0]->token, 1, "t").code,
		     SLUICE_E_CANCELLED);
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

Test(job_ledger, an_event_is_published_whatever_the_id_looks_like)
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

Test(job_ledger, a_priority_queue_gives_the_higher_job_first)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	Sluice__JobSubmit m = submit_of("low");
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
