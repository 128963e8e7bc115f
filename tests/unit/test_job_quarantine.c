/* SPDX-License-Identifier: Apache-2.0
 * Parked and quarantined reports: when they are applied, kept, dropped and purged. */
#include <criterion/criterion.h>
#include <string.h>

#include "tests/unit/job_rig.h"

Test(job_quarantine, reports_before_their_job_are_applied_in_order_at_its_submit)
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
		     "the report on a later attempt stays in quarantine");
	cr_assert_str_neq(rig.reply->quarantine[0]->reason, "parked");
	cr_assert_eq(rig_quarantine(&rig, "other"), 1);
	cr_assert_eq(rig_report(&rig, "ended", 0, 1, "COMPLETE").disposition,
		     SLUICE__DISPOSITION__PARKED);
	cr_assert_str_eq(rig_submit(&rig, "ended").state, "COMPLETE");
	cr_assert_eq(rig_claim(&rig, rig.session, 10, 0), 1, "the ended job is not in the queue");
	cr_assert_str_eq(rig.deliveries->jobs[0]->job, "early");
	rig_audit(&rig);
	rig_close(&rig);
}

Test(job_quarantine, a_report_that_is_sent_again_stays_one_row_in_quarantine)
{
	Sluice__JobReport early, illegal;
	struct outcome first, again;
	struct rig rig;

	rig_open(&rig);
	rig_report_fill(&early, "early", "ACTIVE", 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &early).disposition,
			     SLUICE__DISPOSITION__PARKED);
	cr_assert_eq(rig_quarantine(&rig, "early"), 1, "parked once");
	rig_submit(&rig, "j");
	rig_report(&rig, "j", 0, 1, "QUEUED");
	rig_report_fill(&illegal, "j", "SUBMITTED", rig.world.clock.wall_ms);
	first = rig_apply(&rig, COMMAND_JOB_REPORT, 0, &illegal);
	cr_assert_eq(first.disposition, SLUICE__DISPOSITION__QUARANTINED);
	rig_report(&rig, "j", 0, 1, "ACTIVE");
	rig_report(&rig, "other", 0, 7, "ACTIVE");
	again = rig_apply(&rig, COMMAND_JOB_REPORT, 0, &illegal);
	cr_assert_eq(again.disposition, SLUICE__DISPOSITION__QUARANTINED);
	cr_expect_str_eq(again.text, first.text,
			 "the first answer, though the job's state has changed");
	cr_assert_eq(rig_quarantine(&rig, "j"), 1, "in quarantine once");
	illegal.seen_time_ms++;
	rig_apply(&rig, COMMAND_JOB_REPORT, 0, &illegal);
	cr_assert_eq(rig_quarantine(&rig, "j"), 2, "seen at another time it is another report");
	rig_audit(&rig);
	rig_close(&rig);
}

/* A holder sends an end until it is accepted. */
Test(job_quarantine, a_quarantined_report_is_applied_when_it_is_legal)
{
	Sluice__JobReport report;
	struct rig rig;

	rig_open(&rig);
	rig_submit(&rig, "j");
	rig_report_fill(&report, "j", "COMPLETE", rig.world.clock.wall_ms);
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

/* A later job may have the same id. */
Test(job_quarantine, a_late_report_never_applies_to_a_later_job_with_its_id)
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
	rig_report_fill(&report, "j", "FAILED", 0);
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

Test(job_quarantine, a_report_is_no_retry_of_one_on_an_earlier_job_with_its_id)
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
	cr_assert_eq(rig_quarantine(&rig, "j"), 1, "it stays in quarantine");
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

Test(job_quarantine, many_parked_reports_are_applied_in_steps_and_in_order)
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
	cr_assert_str_eq(out.state, "SUBMITTED", "too many for one command: TICK applies them");
	cr_assert_eq(rig_history(&rig, "j"), 1);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	token = rig.deliveries->jobs[0]->token;
	cr_assert_eq(rig_report(&rig, "j", 0, 1, "COMPLETE").disposition,
		     SLUICE__DISPOSITION__PARKED, "parked after those that wait");
	cr_assert_eq(rig_report(&rig, "j", token, 1, "QUEUED").disposition,
		     SLUICE__DISPOSITION__APPLIED, "a holder's report does not wait");
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

/* limit: QUARANTINE_ROWS_MAX */
Test(job_quarantine, the_quarantine_drops_its_oldest_row)
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
	cr_assert_eq(rig_quarantine(&rig, "oldest"), 0, "the oldest row was dropped");
	cr_assert_str_eq(rig_submit(&rig, "oldest").state, "SUBMITTED", "and is not applied");
	out = rig_apply(&rig, COMMAND_QUARANTINE_PURGE, 0, &purge);
	cr_assert_eq(out.count, 10000);
	cr_assert_eq(rig_quarantine(&rig, ""), 0);
	rig_audit(&rig);
	rig_close(&rig);
}

Test(job_quarantine, purge_by_job_and_by_number)
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

Test(job_quarantine, a_quarantined_report_refuses_its_whole_transaction)
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
