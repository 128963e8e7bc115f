/* SPDX-License-Identifier: Apache-2.0
 * Damaged rows of the quarantine and the history, and damaged records of jobs: all others are still
 * handled. */
#include <criterion/criterion.h>
#include <string.h>

#include "broker/core/base/keys.h"
#include "broker/core/base/name.h"
#include "tests/unit/job_rig.h"

static void row_damage(struct rig *rig, uint64_t n)
{
	struct store_txn *txn = NULL;
	struct key key;

	key_one(&key, 1, n);
	cr_assert_eq(store_begin(rig->world.store, &txn), 0);
	cr_assert_eq(store_put(txn, STORE_QUAR, key_slice(&key), (struct sluice_slice){"?", 1}), 0);
	cr_assert_eq(store_commit(txn), 0);
}

/* Damages a row of another job, a row of the job itself, and its newest row. */
Test(job_damage, a_damaged_parked_report_delays_no_other)
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
			     SLUICE__DISPOSITION__APPLIED, "no later report is parked");
		cr_expect_eq(rig_quarantine(&rig, ""), 1 + (at > 0),
			     "and the row of other, if it is not the damaged one");
		cr_expect_eq(rig_quarantine(&rig, "j"), 1, "its job cannot be known");
		cr_expect_eq(rig.reply->quarantine[0]->n, damaged[at]);
		cr_expect_not_null(strstr(rig.reply->quarantine[0]->reason, "damaged"));
		cr_expect_eq(rig_apply(&rig, COMMAND_QUARANTINE_PURGE, 0, &purge).code, 0);
		cr_expect_eq(rig_quarantine(&rig, ""), 0, "the damaged one is purged, too");
		world_discard(&rig.world);
	}
}

Test(job_damage, a_report_is_not_refused_for_a_damaged_row_of_its_job)
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

/* The result of a report when the newest row of the job's history, which the previous report wrote,
 * is damaged. */
Test(job_damage, a_report_is_not_refused_for_a_damaged_row_of_the_history)
{
	static const struct {
		const char *state, *evidence, *ref;
		bool seen; /* it has a seen time: the broker searches for the first such report */
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
			rig_report_fill(&m, "j", ended ? "COMPLETE" : "QUEUED", 0);
			m.scheduler_ref = (char *)"4711";
			m.started_time_ms = 1;
			cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m).disposition,
				     SLUICE__DISPOSITION__APPLIED);
			history_damage(&rig, newest_row(&rig, "j"));
			rig_report_fill(&m, "j", cases[i].state,
					cases[i].seen ? rig.world.clock.wall_ms : 0);
			m.attempt = cases[i].attempt;
			m.evidence = (char *)cases[i].evidence;
			m.scheduler_ref = (char *)cases[i].ref;
			out = rig_apply(&rig, COMMAND_JOB_REPORT, 0, &m);
			cr_expect_eq(out.code, 0, "case %zu.%d: %s", i, ended, out.text);
			cr_expect_eq(out.disposition, cases[i].disposition, "case %zu.%d: %d", i,
				     ended, out.disposition);
			cr_expect_geq(rig_effects(&rig, FX_ITEM_DAMAGED), 1,
				      "case %zu.%d: the damage is reported", i, ended);
			world_discard(&rig.world);
		}
}

/* The number of history rows in the store, of all jobs. */
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

/* The rows of both jobs alternate. at: the damaged one of the rows of the job that is forgotten. */
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
	cr_expect(rig_missing(&rig, "j"), "row %zu", at);
	cr_expect_eq(rows_stored(&rig), REPORTS + 1,
		     "row %zu: only the other job's rows are left, %zu rows", at,
		     rows_stored(&rig));
	cr_expect_eq(rig_history(&rig, "other"), REPORTS + 1);
	cr_expect_eq(rig_submit(&rig, "j").duplicate, false, "its id is free");
	rig_audit(&rig);
	world_discard(&rig.world);
}

Test(job_damage, a_job_with_a_damaged_row_in_its_history_is_forgotten_with_all_of_it)
{
	forgets_with_damaged_row(301, false);
	forgets_with_damaged_row(300, false);
	forgets_with_damaged_row(150, false);
	forgets_with_damaged_row(150, true);
	forgets_with_damaged_row(1, false);
	forgets_with_damaged_row(0, false);
}

Test(job_damage, a_finished_job_whose_record_is_damaged_or_missing_is_still_forgotten)
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
		cr_expect_eq(world_ticks(&rig.world, 1000), 1,
			     "no timer is set for another attempt");
		cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 1, "the damage is reported");
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
