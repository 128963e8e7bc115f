/* SPDX-License-Identifier: Apache-2.0
 *
 * What audit and explain report of jobs that make no progress. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/job/job.h"
#include "tests/unit/job_rig.h"

enum { HOUR = 3600000, DAY = 24 * HOUR };

static const Sluice__Audited *audit(struct rig *rig, uint64_t silent_ms, uint64_t orphan_ms)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__Audit m = SLUICE__AUDIT__INIT;

	m.silent_ms = silent_ms;
	m.orphan_ms = orphan_ms;
	request.op_case = SLUICE__REQUEST__OP_AUDIT;
	request.audit = &m;
	return rig_query(rig, &request)->audited;
}

/* The number of findings; each must contain this text. */
static size_t finds(struct rig *rig, const char *text)
{
	const Sluice__Audited *audited = audit(rig, 0, 0);

	for (size_t i = 0; i < audited->n_findings; i++)
		cr_assert_not_null(strstr(audited->findings[i], text), "%s", audited->findings[i]);
	return audited->n_findings;
}

static bool explains(struct rig *rig, const char *job, const char *text)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobExplain m = SLUICE__JOB_EXPLAIN__INIT;
	const Sluice__JobExplained *explained;

	m.job = (char *)job;
	request.op_case = SLUICE__REQUEST__OP_JOB_EXPLAIN;
	request.job_explain = &m;
	explained = rig_query(rig, &request)->explained;
	for (size_t i = 0; i < explained->n_lines; i++)
		if (strstr(explained->lines[i], text) != NULL)
			return true;
	return false;
}

static uint64_t source(struct rig *rig, uint64_t session, const char *name)
{
	Sluice__SourceSeen m = SLUICE__SOURCE_SEEN__INIT;
	struct store_txn *txn;
	uint64_t number = 0;

	m.source = (char *)name;
	m.ok = true;
	m.take = true;
	cr_assert_eq(rig_apply(rig, COMMAND_SOURCE_SEEN, session, &m).code, 0);
	cr_assert_eq(store_begin_read(rig->world.store, &txn), 0);
	cr_assert_eq(core_source_find(txn, rig->world.gateway, world_text(name), &number), 0);
	store_abort(txn);
	return number;
}

static uint64_t intended(struct rig *rig, const char *job, uint64_t number)
{
	uint64_t token;

	cr_assert_eq(rig_submit(rig, job).code, 0);
	cr_assert_eq(rig_claim_for(rig, rig->session, 1, 0, number), 1);
	token = rig->deliveries->jobs[0]->token;
	cr_assert_eq(rig_intent(rig, job, token, 1, job).code, 0);
	return token;
}

Test(job_audit, a_lease_without_reports)
{
	struct rig rig;
	uint64_t token;

	rig_open(&rig);
	token = intended(&rig, "j", 0);
	rig_advance(&rig, DAY - 1);
	cr_assert_eq(finds(&rig, ""), 0);
	cr_assert_eq(audit(&rig, HOUR, 0)->n_findings, 1, "the bound is the caller's");
	rig_advance(&rig, 1);
	cr_assert_eq(finds(&rig, "job 1 is leased to session"), 1);
	cr_assert(explains(&rig, "j", "Its last record was made 24 h ago"));
	cr_assert_eq(rig_report(&rig, "j", token, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(finds(&rig, ""), 0, "it was reported on");
	rig_close(&rig);
}

Test(job_audit, a_source_that_is_seen_represents_the_jobs_that_it_began)
{
	struct rig rig;
	uint64_t one;

	rig_open(&rig);
	one = source(&rig, rig.session, "one");
	intended(&rig, "long", one);
	cr_assert_eq(rig_submit(&rig, "stuck").code, 0);
	cr_assert_eq(rig_claim_for(&rig, rig.session, 1, 0, one), 1);
	rig_advance(&rig, DAY);
	(void)source(&rig, rig.session, "one");
	cr_assert_eq(finds(&rig, "job 2 is leased"), 1,
		     "it does not represent jobs that were not begun");
	cr_assert_eq(rig_cancel(&rig, "stuck").code, 0);
	cr_assert_eq(finds(&rig, ""), 0);
	rig_advance(&rig, DAY);
	cr_assert_eq(finds(&rig, "job 1 is leased"), 1);
	(void)source(&rig, rig.session, "one");
	rig_close(&rig);
}

Test(job_audit, a_lease_of_a_holder_that_cannot_judge)
{
	struct rig rig;
	uint64_t one, other;

	rig_open(&rig);
	one = source(&rig, rig.session, "one");
	intended(&rig, "j", one);
	other = rig_session(&rig);
	rig_advance(&rig, HOUR - 1);
	(void)source(&rig, other, "one");
	cr_assert_eq(finds(&rig, ""), 0, "a restart takes a moment");
	rig_advance(&rig, 1);
	cr_assert_eq(finds(&rig, "represents source one"), 1);
	cr_assert(explains(&rig, "j", "the holder cannot judge the job any more"));
	(void)source(&rig, rig.session, "one");
	rig_close(&rig);
}

Test(job_audit, a_takeover_without_reports)
{
	struct rig rig;
	uint64_t other;

	rig_open(&rig);
	intended(&rig, "j", 0);
	rig_session_end(&rig, rig.session);
	other = rig_session(&rig);
	cr_assert_eq(rig_claim(&rig, other, 1, CLAIM_ORPHANS), 1);
	cr_assert_eq(finds(&rig, ""), 0);
	rig_advance(&rig, HOUR);
	cr_assert_eq(finds(&rig, "job 1 was taken over by session"), 1);
	cr_assert_eq(rig_report(&rig, "j", rig.deliveries->jobs[0]->token, 1, "ACTIVE").code, 0);
	cr_assert_eq(finds(&rig, ""), 0);
	rig_close(&rig);
}

Test(job_audit, an_orphan_that_no_consumer_takes)
{
	struct rig rig;

	rig_open(&rig);
	intended(&rig, "j", 0);
	rig_session_end(&rig, rig.session);
	rig_advance(&rig, HOUR - 1);
	cr_assert_eq(finds(&rig, ""), 0);
	rig_advance(&rig, 1);
	cr_assert_eq(finds(&rig, "job 1 is orphaned, and no consumer has taken it"), 1);
	rig.session = rig_session(&rig);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, CLAIM_ORPHANS), 1);
	rig_close(&rig);
}

Test(job_audit, an_absent_source_is_one_finding_for_all_its_jobs)
{
	struct rig rig;
	uint64_t one, two;
	char id[16];

	rig_open(&rig);
	one = source(&rig, rig.session, "one");
	two = source(&rig, rig.session, "two");
	for (int i = 0; i < 5; i++) {
		snprintf(id, sizeof(id), "j%d", i);
		intended(&rig, id, i < 3 ? one : two);
	}
	rig_session_end(&rig, rig.session);
	rig_advance(&rig, HOUR);
	cr_assert_eq(finds(&rig, "orphaned jobs wait for it"), 2);
	cr_assert_not_null(strstr(rig.reply->audited->findings[0], "source one: 3 orphaned jobs"),
			   "%s", rig.reply->audited->findings[0]);
	cr_assert(explains(&rig, "j4", "Only source two can judge it"));
	cr_assert(explains(&rig, "j4", "2 orphaned jobs wait for it"));
	rig.session = rig_session(&rig);
	cr_assert_eq(rig_claim_for(&rig, rig.session, 10, CLAIM_ORPHANS, one), 3);
	cr_assert_eq(rig_claim_for(&rig, rig.session, 10, CLAIM_ORPHANS, two), 2);
	(void)source(&rig, rig.session, "one");
	(void)source(&rig, rig.session, "two");
	rig_close(&rig);
}
