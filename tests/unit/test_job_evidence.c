/* SPDX-License-Identifier: Apache-2.0
 *
 * Reports: times and ends in evidence, and reports that arrive twice. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/base/keys.h"
#include "tests/unit/job_rig.h"

/* ---- times, codes and logs in evidence ---- */

static Sluice__JobReport report_with(const char *state)
{
	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;

	m.job = (char *)"j";
	m.attempt = 1;
	m.source = (char *)"test";
	m.state = (char *)state;
	return m;
}

static enum _Sluice__Disposition applied(struct rig *rig, const Sluice__JobReport *m)
{
	struct outcome out = rig_apply(rig, COMMAND_JOB_REPORT, rig->session, m);

	cr_assert_eq(out.code, 0, "%s", out.text);
	return (enum _Sluice__Disposition)out.disposition;
}

static const char *last_event(struct rig *rig)
{
	const char *all = world_events(&rig->world, RIG_STREAM), *last = all;

	for (const char *at = all; (at = strstr(at, "{\"job\"")) != NULL; at++)
		last = at;
	return last;
}

Test(job_evidence, an_end_has_the_time_of_its_evidence_and_not_of_its_report)
{
	Sluice__JobReport m = report_with("ACTIVE");
	const Sluice__JobInfo *info;
	struct rig rig;
	uint64_t now;

	rig_open(&rig);
	rig_submit(&rig, "j");
	now = rig.world.clock.wall_ms;
	m.started_time_ms = now + 5;
	world_wait(&rig.world, 10);
	cr_assert_eq(applied(&rig, &m), SLUICE__DISPOSITION__APPLIED);
	world_wait(&rig.world, 3600000);
	m = report_with("FAILED");
	m.seen_time_ms = now + 60000;
	m.ended_time_ms = now + 50000;
	m.memory_peak_bytes = 1 << 30;
	m.signal = 9;
	m.class_ = SLUICE__EVIDENCE_CLASS__CLASS_FAIL;
	cr_assert_eq(applied(&rig, &m), SLUICE__DISPOSITION__APPLIED);
	info = rig_show(&rig, "j");
	cr_assert_eq(info->ended_time_ms, now + 50000);
	cr_assert_eq(info->seen_time_ms, now + 60000);
	cr_assert_eq(info->started_time_ms, now + 5, "of the report before");
	cr_assert_eq(info->memory_peak_bytes, 1 << 30);
	cr_assert_eq(info->signal, 9);
	cr_assert_eq(info->class_, SLUICE__EVIDENCE_CLASS__CLASS_FAIL);
	cr_assert(!info->exited, "there was no exit code");
	cr_assert_eq(info->change_time_ms, now + 10 + 3600000,
		     "the time of recording is kept, too");
	cr_assert_eq(rig_history(&rig, "j"), 3);
	cr_assert_eq(rig.reply->history[2]->ended_time_ms, now + 50000);
	cr_assert_eq(rig.reply->history[2]->started_time_ms, now + 5);
	cr_assert_not_null(strstr(last_event(&rig), "\"ended_time_ms\":"), "%s", last_event(&rig));
	cr_assert_not_null(strstr(last_event(&rig), "\"signal\":9"));
	cr_assert_null(strstr(last_event(&rig), "exited"));
	rig_close(&rig);
}

Test(job_evidence, what_lies_in_the_future_counts_as_now)
{
	Sluice__JobReport m = report_with("COMPLETE");
	const Sluice__JobInfo *info;
	struct rig rig;
	uint64_t now;

	rig_open(&rig);
	rig_submit(&rig, "j");
	now = rig.world.clock.wall_ms;
	m.seen_time_ms = m.started_time_ms = m.ended_time_ms = UINT64_MAX;
	m.exited = true;
	cr_assert_eq(applied(&rig, &m), SLUICE__DISPOSITION__APPLIED);
	info = rig_show(&rig, "j");
	cr_assert(info->seen_time_ms == now && info->started_time_ms == now &&
		  info->ended_time_ms == now);
	cr_assert(info->exited && info->exit_code == 0);
	world_wait(&rig.world, 1000);
	cr_assert_eq(applied(&rig, &m), SLUICE__DISPOSITION__DUPLICATE, "and its retry is one");
	cr_assert_eq(rig_history(&rig, "j"), 2);
	rig_close(&rig);
}

Test(job_evidence, an_end_without_a_time_has_that_of_the_sighting_or_the_report)
{
	Sluice__JobReport m = report_with("COMPLETE");
	struct rig rig;
	uint64_t now;

	rig_open(&rig);
	rig_submit(&rig, "j");
	now = rig.world.clock.wall_ms;
	world_wait(&rig.world, 5000);
	m.seen_time_ms = now + 1000;
	cr_assert_eq(applied(&rig, &m), SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_show(&rig, "j")->ended_time_ms, now + 1000);
	cr_assert_eq(rig_reset(&rig, "j", false).code, 0);
	cr_assert_eq(rig_show(&rig, "j")->ended_time_ms, 0, "it is open again");
	m = report_with("COMPLETE");
	m.attempt = 2;
	cr_assert_eq(applied(&rig, &m), SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_show(&rig, "j")->ended_time_ms, now + 5000);
	cr_assert_eq(rig_cancel(&rig, "j").code, 0);
	rig_submit(&rig, "k");
	world_wait(&rig.world, 1000);
	cr_assert_eq(rig_cancel(&rig, "k").code, 0);
	cr_assert_eq(rig_show(&rig, "k")->ended_time_ms, now + 6000, "nobody reported it");
	rig_close(&rig);
}

Test(job_evidence, evidence_after_the_end_does_not_hide_how_it_ended)
{
	Sluice__JobReport m = report_with("FAILED");
	const Sluice__JobInfo *info;
	struct rig rig;

	rig_open(&rig);
	rig_submit(&rig, "j");
	m.exited = true;
	m.exit_code = 3;
	m.ended_time_ms = 77;
	cr_assert_eq(applied(&rig, &m), SLUICE__DISPOSITION__APPLIED);
	m = report_with("");
	m.evidence = (char *)"its log is kept";
	cr_assert_eq(applied(&rig, &m), SLUICE__DISPOSITION__APPLIED);
	info = rig_show(&rig, "j");
	cr_assert(info->exited && info->exit_code == 3 && info->ended_time_ms == 77);
	cr_assert_str_eq(info->evidence, "its log is kept");
	rig_close(&rig);
}

/* ---- the same report again ---- */

Test(job_evidence, a_retry_after_a_later_report_gets_the_first_answer)
{
	struct rig rig;
	uint64_t token, rows;

	rig_open(&rig);
	rig_submit(&rig, "j");
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	token = rig.deliveries->jobs[0]->token;
	cr_assert_eq(rig_report(&rig, "j", token, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_report(&rig, "j", token, 1, "COMPLETE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	rows = rig_history(&rig, "j");
	for (int i = 0; i < 2; i++) {
		struct outcome out = rig_report(&rig, "j", token, 1, "ACTIVE");

		cr_assert_eq(out.code, 0, "%s", out.text);
		cr_assert_eq(out.disposition, SLUICE__DISPOSITION__DUPLICATE);
		cr_assert(out.terminal, "its lease has ended, and the answer says so");
		cr_assert_str_eq(out.state, "COMPLETE");
	}
	cr_assert_eq(rig_history(&rig, "j"), rows);
	cr_assert_eq(rig_quarantine(&rig, "j"), 0);
	cr_assert_eq(rig_report(&rig, "j", token, 1, "QUEUED").disposition,
		     SLUICE__DISPOSITION__QUARANTINED,
		     "a report that was never sent before is no retry");
	rig_close(&rig);
}

Test(job_evidence, a_retry_that_could_be_applied_again_is_recognized_by_its_seen_time)
{
	Sluice__JobReport first = report_with("ACTIVE"), second = report_with("SUSPENDED");
	struct rig rig;

	rig_open(&rig);
	rig_submit(&rig, "j");
	first.seen_time_ms = 1000;
	second.seen_time_ms = 2000;
	cr_assert_eq(applied(&rig, &first), SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(applied(&rig, &second), SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(applied(&rig, &first), SLUICE__DISPOSITION__DUPLICATE);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "SUSPENDED");
	first.seen_time_ms = 3000;
	cr_assert_eq(applied(&rig, &first), SLUICE__DISPOSITION__APPLIED, "it runs again");
	cr_assert_str_eq(rig_show(&rig, "j")->state, "ACTIVE");
	rig_close(&rig);
}

Test(job_evidence, without_a_seen_time_a_state_may_be_reported_again)
{
	struct rig rig;

	rig_open(&rig);
	rig_submit(&rig, "j");
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "QUEUED").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	rig_close(&rig);
}

Test(job_evidence, a_retry_of_evidence_is_not_recorded_twice)
{
	Sluice__JobReport one = report_with(""), two = report_with("");
	struct rig rig;
	size_t rows;

	rig_open(&rig);
	rig_submit(&rig, "j");
	one.evidence = (char *)"one";
	two.evidence = (char *)"two";
	one.seen_time_ms = two.seen_time_ms = 5;
	cr_assert_eq(applied(&rig, &one), SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(applied(&rig, &two), SLUICE__DISPOSITION__APPLIED);
	rows = rig_history(&rig, "j");
	cr_assert_eq(applied(&rig, &one), SLUICE__DISPOSITION__DUPLICATE);
	cr_assert_eq(rig_history(&rig, "j"), rows);
	rig_close(&rig);
}

Test(job_evidence, a_retry_across_a_reset_gets_the_answer_of_its_attempt)
{
	struct outcome out;
	struct rig rig;
	uint64_t token;

	rig_open(&rig);
	rig_submit(&rig, "j");
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	token = rig.deliveries->jobs[0]->token;
	cr_assert_eq(rig_report(&rig, "j", token, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_report(&rig, "j", token, 1, "FAILED").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_reset(&rig, "j", false).code, 0);
	out = rig_report(&rig, "j", token, 1, "FAILED");
	cr_assert_eq(out.code, 0, "%s", out.text);
	cr_assert_eq(out.disposition, SLUICE__DISPOSITION__DUPLICATE);
	cr_assert(out.terminal && out.attempt == 1);
	cr_assert_str_eq(out.state, "FAILED");
	cr_assert_eq(rig_report(&rig, "j", token, 1, "ACTIVE").code, SLUICE_E_STALE_TOKEN,
		     "a holder whose report ended nothing must learn that its lease has ended");
	cr_assert_eq(rig_report(&rig, "j", token, 1, "COMPLETE").code, SLUICE_E_STALE_TOKEN);
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__DUPLICATE);
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "COMPLETE").disposition,
		     SLUICE__DISPOSITION__QUARANTINED);
	cr_assert_str_eq(rig_show(&rig, "j")->state, "SUBMITTED");
	rig_close(&rig);
}

/* ---- the jobs of one session ---- */

Test(job_evidence, the_list_of_what_a_session_holds)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobList list = SLUICE__JOB_LIST__INIT;
	struct rig rig;
	uint64_t other;
	char id[16];

	rig_open(&rig);
	other = rig_session(&rig);
	for (int i = 0; i < 10; i++) {
		snprintf(id, sizeof(id), "j%d", i);
		rig_submit(&rig, id);
	}
	cr_assert_eq(rig_claim(&rig, rig.session, 3, 0), 3);
	cr_assert_eq(rig_claim(&rig, other, 5, 0), 5);
	request.op_case = SLUICE__REQUEST__OP_JOB_LIST;
	request.job_list = &list;
	list.holder_session = other;
	list.max = 3;
	cr_assert_eq(rig_query(&rig, &request)->n_jobs, 3);
	cr_assert(rig.reply->more);
	cr_assert_str_eq(rig.reply->jobs[0]->job, "j3");
	list.after_number = rig.reply->jobs[2]->number;
	cr_assert_eq(rig_query(&rig, &request)->n_jobs, 2);
	cr_assert(!rig.reply->more);
	cr_assert_str_eq(rig.reply->jobs[1]->job, "j7");
	list.after_number = 0;
	list.holder_session = rig.session;
	list.claim = (char *)"ready";
	cr_assert_eq(rig_query(&rig, &request)->n_jobs, 0);
	list.claim = (char *)"leased";
	cr_assert_eq(rig_query(&rig, &request)->n_jobs, 3);
	list.holder_session = 4711;
	cr_assert_eq(rig_query(&rig, &request)->n_jobs, 0, "nobody");
	rig_close(&rig);
}

Test(job_evidence, a_lease_of_a_missing_job_is_named_and_does_not_end_the_list)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobList list = SLUICE__JOB_LIST__INIT;
	struct store_txn *txn;
	struct rig rig;
	struct key key;

	rig_open(&rig);
	for (int i = 0; i < 3; i++)
		rig_submit(&rig, i == 0 ? "a" : i == 1 ? "b" : "c");
	cr_assert_eq(rig_claim(&rig, rig.session, 3, 0), 3);
	cr_assert_eq(store_begin(rig.world.store, &txn), 0);
	key_one(&key, rig.world.gateway, 2);
	cr_assert_eq(store_del(txn, STORE_LIVE, key_slice(&key)), 0);
	cr_assert_eq(store_commit(txn), 0);
	request.op_case = SLUICE__REQUEST__OP_JOB_LIST;
	request.job_list = &list;
	list.holder_session = rig.session;
	cr_assert_eq(rig_query(&rig, &request)->n_jobs, 3);
	cr_expect_str_eq(rig.reply->jobs[1]->job, "b");
	cr_expect_not_null(strstr(rig.reply->jobs[1]->evidence,
				  "table live, key 000000010000000000000002: "),
			   "%s", rig.reply->jobs[1]->evidence);
	cr_expect_str_eq(rig.reply->jobs[2]->job, "c");
	sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
	world_discard(&rig.world);
}

Test(job_evidence, a_job_whose_id_cannot_be_read_has_its_number_in_its_holders_list)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobList list = SLUICE__JOB_LIST__INIT;
	struct store_txn *txn;
	struct rig rig;
	struct key key;

	rig_open(&rig);
	for (int i = 0; i < 3; i++)
		rig_submit(&rig, i == 0 ? "a" : i == 1 ? "b" : "c");
	cr_assert_eq(rig_claim(&rig, rig.session, 3, 0), 3);
	cr_assert_eq(store_begin(rig.world.store, &txn), 0);
	key_one(&key, rig.world.gateway, 2);
	cr_assert_eq(store_put(txn, STORE_JOB, key_slice(&key), (struct sluice_slice){"?", 1}), 0);
	cr_assert_eq(store_commit(txn), 0);
	request.op_case = SLUICE__REQUEST__OP_JOB_LIST;
	request.job_list = &list;
	list.holder_session = rig.session;
	cr_assert_eq(rig_query(&rig, &request)->n_jobs, 3, "%s", rig.reply->text);
	cr_expect_str_eq(rig.reply->jobs[0]->job, "a");
	cr_expect_str_eq(rig.reply->jobs[1]->job, "");
	cr_expect_eq(rig.reply->jobs[1]->number, 2);
	cr_expect_eq(rig.reply->jobs[1]->holder_session, rig.session);
	cr_expect_not_null(strstr(rig.reply->jobs[1]->evidence,
				  "damaged: table job, key 000000010000000000000002: "),
			   "%s", rig.reply->jobs[1]->evidence);
	cr_expect_str_eq(rig.reply->jobs[2]->job, "c");
	sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
	world_discard(&rig.world);
}

/* One turn of a read, with a snapshot of its own. */
static bool read_turn(struct rig *rig, struct core_read *read, uint8_t **ret, size_t *ret_bytes)
{
	struct query_clock clock = {rig->world.clock.mono_ms, rig->world.clock.wall_ms};
	struct store_txn *txn;
	bool done = false;

	cr_assert_eq(store_begin_read(rig->world.store, &txn), 0);
	cr_assert_eq(core_read_turn(read, txn, clock, 1, &done, ret, ret_bytes), 0);
	store_abort(txn);
	return done;
}

static void forget_all(struct rig *rig)
{
	Sluice__JobRetention keep = SLUICE__JOB_RETENTION__INIT;

	keep.keep_ms = 1;
	cr_assert_eq(rig_apply(rig, COMMAND_JOB_RETENTION, 0, &keep).code, 0);
	rig_advance(rig, 10);
}

Test(job_evidence, a_job_that_is_forgotten_between_two_turns_ends_its_history)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobHistory history = SLUICE__JOB_HISTORY__INIT;
	struct core_read *read;
	Sluice__Reply *reply;
	uint8_t *packed = NULL;
	size_t bytes = 0;
	struct rig rig;

	rig_open(&rig);
	rig_submit(&rig, "j");
	rig_report(&rig, "j", 0, 1, "ACTIVE");
	rig_report(&rig, "j", 0, 1, "COMPLETE");
	request.op_case = SLUICE__REQUEST__OP_JOB_HISTORY;
	request.job_history = &history;
	history.job = (char *)"j";
	cr_assert_eq(core_read_begin(rig.world.gateway, &request, &read), 0);
	cr_assert(!read_turn(&rig, read, &packed, &bytes), "one row, and more to come");
	forget_all(&rig);
	rig_submit(&rig, "j"); /* another one, whose history is no part of it */
	cr_assert(read_turn(&rig, read, &packed, &bytes), "it ends");
	core_read_end(read);
	reply = sluice__reply__unpack(NULL, bytes, packed);
	cr_assert_not_null(reply);
	cr_expect_eq(reply->code, 0);
	cr_assert_eq(reply->n_history, 1);
	cr_expect_str_eq(reply->history[0]->state, "COMPLETE");
	cr_expect(!reply->more);
	sluice__reply__free_unpacked(reply, NULL);
	free(packed);
	rig_close(&rig);
}
