/* SPDX-License-Identifier: Apache-2.0
 *
 * Every (state, event) pair of the default lifecycle, against a table written here and not derived
 * from the code: the result of a report of each state in each state, by a holder and by another
 * client, and of reports with an old attempt, a future attempt and an unknown state. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/unit/job_rig.h"

enum { STATES = 9 };

static const char *const names[STATES] = {"SUBMITTED", "QUEUED",   "ACTIVE",
					  "COMPLETE",  "CANCELED", "FAILED",
					  "SUSPENDED", "UNKNOWN",  "NON_CRITICAL_FAIL"};
/* Row: the state the job is in; column: the state that is reported. A applied, D duplicate, Q
 * quarantined. */
static const char *const oracle[STATES] = {
	"DAAAAAAAA", /* SUBMITTED */
	"QDAAAAAAA", /* QUEUED */
	"QADAAAAAA", /* ACTIVE */
	"QQQDQQQQQ", /* COMPLETE */
	"QQQQDQQQQ", /* CANCELED */
	"QQQQQDQQQ", /* FAILED */
	"QAAAAADAA", /* SUSPENDED */
	"QAAAAAADA", /* UNKNOWN */
	"QAAAAAAAD", /* NON_CRITICAL_FAIL */
};

static bool ends(int state)
{
	return state >= 3 && state <= 5;
}

static enum _Sluice__Disposition disposition_of(char letter)
{
	return letter == 'A'   ? SLUICE__DISPOSITION__APPLIED
	       : letter == 'D' ? SLUICE__DISPOSITION__DUPLICATE
			       : SLUICE__DISPOSITION__QUARANTINED;
}

/* A job in the state, leased with an intent (until its end). */
static uint64_t job_in(struct rig *rig, const char *id, int state)
{
	uint64_t token = 0;

	cr_assert_eq(rig_submit(rig, id).code, 0);
	(void)rig_claim(rig, rig->session, 100, 0);
	for (size_t i = 0; i < rig->deliveries->n_jobs; i++) {
		if (strcmp(rig->deliveries->jobs[i]->job, id) == 0)
			token = rig->deliveries->jobs[i]->token;
	}
	cr_assert_neq(token, 0, "%s was not delivered", id);
	cr_assert_eq(rig_intent(rig, id, token, 1, "tag").code, 0);
	if (state != 0)
		cr_assert_eq(rig_report(rig, id, token, 1, names[state]).disposition,
			     SLUICE__DISPOSITION__APPLIED);
	return token;
}

static void check_pair(struct rig *rig, int from, int to, bool holder)
{
	bool applied = oracle[from][to] == 'A', quarantined = oracle[from][to] == 'Q';
	const char *expected = applied ? names[to] : names[from];
	char id[64];
	uint64_t token, events;
	size_t rows;
	struct outcome out;
	const Sluice__JobInfo *info;

	snprintf(id, sizeof(id), "%s-%s-%d", names[from], names[to], holder);
	token = job_in(rig, id, from);
	rows = rig_history(rig, id);
	events = rig_events(rig);
	out = rig_report(rig, id, holder ? token : 0, 1, names[to]);
	cr_assert_eq(out.code, 0, "%s: %s", id, out.text);
	cr_assert_eq(out.disposition, disposition_of(oracle[from][to]), "%s: disposition %d, %s",
		     id, out.disposition, out.text);
	cr_assert_str_eq(out.state, expected, "%s", id);
	cr_assert_eq(rig_effects(rig, FX_JOB_TERMINAL), applied && ends(to), "%s: waiters", id);
	/* The holder that did not report the end itself learns that its lease is over. */
	cr_assert_eq(rig_effects(rig, FX_LEASE_LOST), applied && ends(to) && !holder, "%s: holder",
		     id);
	info = rig_show(rig, id);
	cr_assert_str_eq(info->state, expected, "%s", id);
	cr_assert_eq(info->terminal, applied ? ends(to) : ends(from), "%s", id);
	cr_assert_str_eq(info->claim, info->terminal ? "none" : "leased", "%s", id);
	cr_assert_eq(rig_history(rig, id), rows + applied,
		     "%s: a row for each change and for nothing else", id);
	cr_assert_eq(rig_events(rig), events + applied,
		     "%s: an event for each change and for nothing else", id);
	cr_assert_eq(rig_quarantine(rig, id), quarantined, "%s", id);
}

Test(job_transitions, every_pair_by_the_holder)
{
	struct rig rig;

	rig_open(&rig);
	for (int from = 0; from < STATES; from++) {
		for (int to = 0; to < STATES; to++)
			check_pair(&rig, from, to, true);
	}
	rig_audit(&rig);
	rig_close(&rig);
}

Test(job_transitions, every_pair_by_another_client)
{
	struct rig rig;

	rig_open(&rig);
	for (int from = 0; from < STATES; from++) {
		for (int to = 0; to < STATES; to++)
			check_pair(&rig, from, to, false);
	}
	rig_audit(&rig);
	rig_close(&rig);
}

Test(job_transitions, every_new_state_in_every_state_of_another_attempt_is_quarantined)
{
	struct rig rig;

	rig_open(&rig);
	for (int from = 0; from < STATES; from++) {
		char id[32];

		snprintf(id, sizeof(id), "job-%d", from);
		job_in(&rig, id, from);
		cr_assert_eq(rig_reset(&rig, id, true).attempt, 2);
		if (from != 0)
			cr_assert_eq(rig_report(&rig, id, 0, 2, names[from]).disposition,
				     SLUICE__DISPOSITION__APPLIED);
		for (int to = 0; to < STATES; to++) {
			struct outcome old = rig_report(&rig, id, 0, 1, names[to]);
			struct outcome future = rig_report(&rig, id, 0, 3, names[to]);

			bool retry = from != 0 && to == from; /* it was recorded then */

			cr_assert_eq(old.disposition,
				     retry ? SLUICE__DISPOSITION__DUPLICATE
					   : SLUICE__DISPOSITION__QUARANTINED,
				     "%s: %s", id, names[to]);
			cr_assert_eq(future.disposition, SLUICE__DISPOSITION__QUARANTINED, "%s: %s",
				     id, names[to]);
			cr_assert_eq(old.attempt, retry ? 1 : 2);
		}
		cr_assert_str_eq(rig_show(&rig, id)->state, names[from]);
		cr_assert_eq(rig_quarantine(&rig, id), 2 * STATES - (from != 0));
	}
	rig_audit(&rig);
	rig_close(&rig);
}

Test(job_transitions, an_unknown_state_is_quarantined_in_every_state)
{
	struct rig rig;

	rig_open(&rig);
	for (int from = 0; from < STATES; from++) {
		char id[32];

		snprintf(id, sizeof(id), "job-%d", from);
		job_in(&rig, id, from);
		cr_assert_eq(rig_report(&rig, id, 0, 1, "FLYING").disposition,
			     SLUICE__DISPOSITION__QUARANTINED);
		cr_assert_str_eq(rig_show(&rig, id)->state, names[from]);
		cr_assert_eq(rig_quarantine(&rig, id), 1);
		cr_assert_not_null(strstr(rig.reply->quarantine[0]->reason, "FLYING"));
	}
	rig_close(&rig);
}

Test(job_transitions, a_job_ends_once_under_every_order_of_two_ends)
{
	struct rig rig;

	rig_open(&rig);
	for (int first = 3; first <= 5; first++) {
		for (int second = 3; second <= 5; second++) {
			char id[32];
			uint64_t token;

			snprintf(id, sizeof(id), "job-%d-%d", first, second);
			token = job_in(&rig, id, 2);
			cr_assert_eq(rig_report(&rig, id, token, 1, names[first]).disposition,
				     SLUICE__DISPOSITION__APPLIED);
			cr_assert_neq(rig_report(&rig, id, token, 1, names[second]).disposition,
				      SLUICE__DISPOSITION__APPLIED);
			cr_assert_str_eq(rig_show(&rig, id)->state, names[first]);
		}
	}
	rig_close(&rig);
}
