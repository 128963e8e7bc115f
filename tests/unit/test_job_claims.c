/* SPDX-License-Identifier: Apache-2.0
 *
 * Every claim state x every command: what is answered, and how the job is held afterwards. The
 * table is written by hand from the rules, one row per command, one column per situation. */
#include <assert.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/base/apply.h"
#include "broker/core/base/keys.h"
#include "broker/core/base/topo.h"
#include "broker/core/job/live.h"
#include "broker/core/session/session.h"
#include "broker/store/store_cells.h"
#include "tests/unit/job_rig.h"

/* Otherwise each job costs an allocation of its own, and another miss of the processor's caches. */
static_assert((int)JOB_LIVE_BYTES <= (int)CELL_VALUE_BYTES,
	      "the state of a job fits into its cell");

enum situation {
	READY,
	LEASED,
	INTENT,
	ORPHAN,
	ORPHAN_INTENT,
	GATED,
	ENDED,
	CANCEL_ASKED,
	CANCELLED,
	SITUATIONS
};

static const char *const situation_names[SITUATIONS] = {"ready",  "leased",	   "intent",
							"orphan", "orphan+intent", "gated",
							"ended",  "cancel-asked",  "cancelled"};

/* A column: what is answered (see expect_answer), a slash, the claim afterwards. */
struct row {
	const char *command;
	const char *expected[SITUATIONS];
};

/* Answers: 0 done, d duplicate, A applied, D nothing new, Q quarantined; S stale token, T stale
 * attempt, C conflict, X cancelled, W wrong state, I invalid; 0 and 1 for claims: how many were
 * given. Claims: r ready, l leased, o orphaned, g gated, n none. */
/* clang-format off */
static const struct row rows[] = {
	/*                    ready  leased intent orphan orph+i gated  ended  c-asked cancelled */
	{"claim",            {"1/l", "0/l", "0/l", "0/o", "0/o", "0/g", "0/n", "0/l", "0/n"}},
	{"claim-orphans",    {"1/l", "0/l", "0/l", "1/l", "1/l", "0/g", "0/n", "0/l", "0/n"}},
	{"claim-resume",     {"0/r", "1/l", "1/l", "0/o", "0/o", "0/g", "0/n", "1/l", "0/n"}},
	{"intent",           {"S/r", "0/l", "d/l", "S/o", "S/o", "S/g", "S/n", "d/l", "X/n"}},
	{"intent-other-tag", {"S/r", "0/l", "C/l", "S/o", "S/o", "S/g", "S/n", "C/l", "X/n"}},
	{"intent-no-token",  {"S/r", "S/l", "S/l", "S/o", "S/o", "S/g", "S/n", "S/l", "S/n"}},
	{"intent-bad-token", {"S/r", "S/l", "S/l", "S/o", "S/o", "S/g", "S/n", "S/l", "S/n"}},
	{"intent-attempt-2", {"S/r", "T/l", "T/l", "S/o", "S/o", "S/g", "S/n", "X/l", "X/n"}},
	{"report",           {"A/r", "A/l", "A/l", "A/o", "A/o", "S/g", "Q/n", "A/l", "Q/n"}},
	{"report-bad-token", {"S/r", "S/l", "S/l", "S/o", "S/o", "S/g", "S/n", "S/l", "S/n"}},
	{"report-no-token",  {"A/r", "A/l", "A/l", "A/o", "A/o", "A/g", "Q/n", "A/l", "Q/n"}},
	{"report-end",       {"A/n", "A/n", "A/n", "A/n", "A/n", "S/g", "D/n", "A/n", "Q/n"}},
	{"report-end-other", {"A/n", "A/n", "A/n", "A/n", "A/n", "A/n", "D/n", "A/n", "Q/n"}},
	{"report-attempt-2", {"Q/r", "Q/l", "Q/l", "Q/o", "Q/o", "Q/g", "Q/n", "Q/l", "Q/n"}},
	{"report-release",   {"I/r", "A/r", "A/o", "D/o", "D/o", "S/g", "D/n", "A/o", "D/n"}},
	{"release",          {"S/r", "0/r", "W/l", "S/o", "S/o", "d/g", "S/n", "W/l", "S/n"}},
	{"release-delay",    {"S/r", "0/g", "W/l", "S/o", "S/o", "d/g", "S/n", "W/l", "S/n"}},
	{"release-bad-token",{"S/r", "S/l", "S/l", "S/o", "S/o", "S/g", "S/n", "S/l", "S/n"}},
	{"cancel",           {"0/n", "0/n", "0/l", "0/n", "0/o", "0/n", "0/n", "d/l", "d/n"}},
	{"reset",            {"W/r", "W/l", "W/l", "W/o", "W/o", "W/g", "0/r", "W/l", "0/r"}},
	{"reset-force",      {"0/r", "0/r", "0/r", "0/r", "0/r", "0/r", "0/r", "0/r", "0/r"}},
	{"submit",           {"d/r", "d/l", "d/l", "d/o", "d/o", "d/g", "d/n", "d/l", "d/n"}},
	{"session-end",      {"0/r", "0/o", "0/o", "0/o", "0/o", "0/g", "0/n", "0/o", "0/n"}},
	{"time",             {"0/r", "0/l", "0/l", "0/o", "0/o", "0/r", "0/n", "0/l", "0/n"}},
};
/* clang-format on */

/* Brings the job into that situation; returns the token of its holder or former holder; 0: it was
 * never leased. */
static uint64_t bring(struct rig *rig, enum situation situation)
{
	uint64_t token = 0;

	cr_assert_eq(rig_submit(rig, "j").code, 0);
	if (situation == READY)
		return 0;
	cr_assert_eq(rig_claim(rig, rig->session, 1, 0), 1);
	token = rig->deliveries->jobs[0]->token;
	if (situation == INTENT || situation == ORPHAN_INTENT || situation == ENDED ||
	    situation == CANCEL_ASKED)
		cr_assert_eq(rig_intent(rig, "j", token, 1, "tag").code, 0);
	if (situation == ORPHAN || situation == ORPHAN_INTENT) {
		rig_session_end(rig, rig->session);
		rig->session = rig_session(rig);
	}
	if (situation == GATED)
		cr_assert_eq(rig_release(rig, "j", token, 60000).code, 0);
	if (situation == ENDED)
		cr_assert_eq(rig_report(rig, "j", token, 1, "COMPLETE").code, 0);
	if (situation == CANCEL_ASKED || situation == CANCELLED)
		cr_assert_eq(rig_cancel(rig, "j").code, 0);
	return token;
}

static struct outcome report_release(struct rig *rig, uint64_t token)
{
	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;

	m.job = (char *)"j";
	m.token = token;
	m.attempt = 1;
	m.release = true;
	return rig_apply(rig, COMMAND_JOB_REPORT, rig->session, &m);
}

static char letter_of(const struct outcome *out)
{
	static const char dispositions[] = {[SLUICE__DISPOSITION__APPLIED] = 'A',
					    [SLUICE__DISPOSITION__DUPLICATE] = 'D',
					    [SLUICE__DISPOSITION__QUARANTINED] = 'Q'};

	switch (out->code) {
	case SLUICE_E_STALE_TOKEN:
		return 'S';
	case SLUICE_E_STALE_ATTEMPT:
		return 'T';
	case SLUICE_E_CONFLICT:
		return 'C';
	case SLUICE_E_CANCELLED:
		return 'X';
	case SLUICE_E_WRONG_STATE:
		return 'W';
	case SLUICE_E_INVAL:
		return 'I';
	case 0:
		break;
	default:
		return '?';
	}
	if (out->kind == OUT_REPORTED)
		return dispositions[out->disposition];
	return out->duplicate ? 'd' : '0';
}

static char claimed(struct rig *rig, uint8_t flags)
{
	return (char)('0' + rig_claim(rig, rig->session, 10, flags));
}

static char run(struct rig *rig, const char *command, uint64_t token)
{
	const uint64_t bad = UINT64_C(0xffffffffffff);
	struct outcome out = {0};

	if (strcmp(command, "claim") == 0)
		return claimed(rig, 0);
	if (strcmp(command, "claim-orphans") == 0)
		return claimed(rig, CLAIM_ORPHANS);
	if (strcmp(command, "claim-resume") == 0)
		return claimed(rig, CLAIM_RESUME);
	if (strcmp(command, "intent") == 0)
		out = rig_intent(rig, "j", token, 1, "tag");
	else if (strcmp(command, "intent-other-tag") == 0)
		out = rig_intent(rig, "j", token, 1, "another");
	else if (strcmp(command, "intent-no-token") == 0)
		out = rig_intent(rig, "j", 0, 1, "tag");
	else if (strcmp(command, "intent-bad-token") == 0)
		out = rig_intent(rig, "j", bad, 1, "tag");
	else if (strcmp(command, "intent-attempt-2") == 0)
		out = rig_intent(rig, "j", token, 2, "another");
	else if (strcmp(command, "report") == 0)
		out = rig_report(rig, "j", token, 1, "ACTIVE");
	else if (strcmp(command, "report-bad-token") == 0)
		out = rig_report(rig, "j", bad, 1, "ACTIVE");
	else if (strcmp(command, "report-no-token") == 0)
		out = rig_report(rig, "j", 0, 1, "ACTIVE");
	else if (strcmp(command, "report-end") == 0)
		out = rig_report(rig, "j", token, 1, "COMPLETE");
	else if (strcmp(command, "report-end-other") == 0)
		out = rig_report(rig, "j", 0, 1, "COMPLETE");
	else if (strcmp(command, "report-attempt-2") == 0)
		out = rig_report(rig, "j", 0, 2, "ACTIVE");
	else if (strcmp(command, "report-release") == 0)
		out = report_release(rig, token);
	else if (strcmp(command, "release") == 0)
		out = rig_release(rig, "j", token, 0);
	else if (strcmp(command, "release-delay") == 0)
		out = rig_release(rig, "j", token, 5000);
	else if (strcmp(command, "release-bad-token") == 0)
		out = rig_release(rig, "j", bad, 0);
	else if (strcmp(command, "cancel") == 0)
		out = rig_cancel(rig, "j");
	else if (strcmp(command, "reset") == 0)
		out = rig_reset(rig, "j", false);
	else if (strcmp(command, "reset-force") == 0)
		out = rig_reset(rig, "j", true);
	else if (strcmp(command, "submit") == 0)
		out = rig_submit(rig, "j");
	else if (strcmp(command, "session-end") == 0)
		rig_session_end(rig, rig->session);
	else if (strcmp(command, "time") == 0)
		rig_advance(rig, 3600000);
	else
		cr_assert(false, "no such command: %s", command);
	return letter_of(&out);
}

/* The queue counts one job, in the place that its claim says. */
static void check_counts(struct rig *rig, char claim, const char *command, const char *where)
{
	const Sluice__QueueInfo *queue = rig_queue_show(rig);

	cr_assert_eq(queue->ready, claim == 'r', "%s when %s: %llu ready", command, where,
		     (unsigned long long)queue->ready);
	cr_assert_eq(queue->leased, claim == 'l', "%s when %s: %llu leased", command, where,
		     (unsigned long long)queue->leased);
	cr_assert_eq(queue->orphaned, claim == 'o', "%s when %s: %llu orphaned", command, where,
		     (unsigned long long)queue->orphaned);
	cr_assert_eq(queue->delayed, claim == 'g', "%s when %s: %llu delayed", command, where,
		     (unsigned long long)queue->delayed);
}

static void check_cell(const struct row *row, enum situation situation)
{
	const char *expected = row->expected[situation];
	const char *where = situation_names[situation];
	struct rig rig;
	uint64_t token;
	char answer;

	rig_open(&rig);
	token = bring(&rig, situation);
	answer = run(&rig, row->command, token);
	cr_assert_eq(answer, expected[0], "%s when %s: answered %c, expected %c", row->command,
		     where, answer, expected[0]);
	cr_assert_eq(rig_show(&rig, "j")->claim[0], expected[2],
		     "%s when %s: the job is %s afterwards", row->command, where,
		     rig.reply->jobs[0]->claim);
	check_counts(&rig, expected[2], row->command, where);
	rig_audit(&rig);
	rig_close(&rig);
}

Test(job_claims, every_command_in_every_claim_state)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		for (int situation = 0; situation < SITUATIONS; situation++)
			check_cell(&rows[i], situation);
	}
}

Test(job_claims, a_takeover_has_a_higher_token_and_delivers_what_is_known)
{
	struct rig rig;
	const Sluice__JobDelivery *delivery;
	uint64_t token;

	rig_open(&rig);
	token = bring(&rig, INTENT);
	cr_assert_eq(rig_cancel(&rig, "j").terminal, false);
	cr_assert_eq(rig_effects(&rig, FX_JOB_CANCEL), 1);
	rig_session_end(&rig, rig.session);
	cr_assert_eq(rig_effects(&rig, FX_QUEUE_READY), 1, "consumers of orphans are woken");
	rig.session = rig_session(&rig);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, CLAIM_ORPHANS), 1);
	delivery = rig.deliveries->jobs[0];
	cr_assert_gt(delivery->token, token);
	cr_assert(delivery->orphan && delivery->intent && delivery->cancel &&
		  !delivery->redelivered);
	cr_assert_str_eq(delivery->tag, "tag");
	cr_assert_str_eq(delivery->owner, "ada");
	cr_assert_eq(delivery->payload.len, 4);
	cr_assert_eq(rig_report(&rig, "j", token, 1, "ACTIVE").code, SLUICE_E_STALE_TOKEN);
	cr_assert_eq(rig_report(&rig, "j", delivery->token, 1, "CANCELED").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	rig_audit(&rig);
	rig_close(&rig);
}

/* The session lives and gave the job up, so the notice must name the job that another session took
 * over. */
Test(job_claims, a_takeover_names_the_job_to_the_session_that_gave_it_up)
{
	Sluice__JobReport report = SLUICE__JOB_REPORT__INIT;
	size_t notices = 0;
	struct rig rig;

	rig_open(&rig);
	report.token = bring(&rig, INTENT);
	report.job = (char *)"j";
	report.attempt = 1;
	report.state = (char *)"ACTIVE";
	report.release = true;
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_REPORT, rig.session, &report).code, 0);
	cr_assert_eq(rig_claim(&rig, rig_session(&rig), 1, CLAIM_ORPHANS), 1);
	for (size_t i = 0; i < effects_count(rig.world.effects); i++) {
		const struct effect *effect = effects_at(rig.world.effects, i);

		if (effect->kind != FX_LEASE_LOST)
			continue;
		notices++;
		cr_expect_eq(effect->session, rig.session);
		cr_expect_eq(effect->token, report.token);
		cr_expect(effect->name.len == 1 && *(const char *)effect->name.data == 'j',
			  "the notice names '%.*s'", (int)effect->name.len,
			  (const char *)effect->name.data);
	}
	cr_expect_eq(notices, 1);
	rig_close(&rig);
}

Test(job_claims, a_cancel_does_not_wait_in_the_queue_and_notifies_the_holder)
{
	struct rig rig;
	struct outcome out;

	rig_open(&rig);
	bring(&rig, LEASED);
	out = rig_cancel(&rig, "j");
	cr_assert(out.terminal);
	cr_assert_str_eq(out.state, "CANCELED");
	cr_assert_eq(rig_effects(&rig, FX_JOB_CANCEL), 1);
	cr_assert_eq(rig_effects(&rig, FX_LEASE_LOST), 1);
	cr_assert_eq(rig_effects(&rig, FX_JOB_TERMINAL), 1);
	out = rig_cancel(&rig, "j");
	cr_assert(out.code == 0 && out.terminal && out.duplicate);
	cr_assert_eq(rig_effects(&rig, FX_JOB_TERMINAL), 0);
	cr_assert_eq(rig_history(&rig, "j"), 3, "submit, claim, cancel");
	cr_assert_eq(rig_submit(&rig, "k").code, 0);
	cr_assert_eq(rig_cancel(&rig, "k").terminal, true);
	cr_assert_eq(rig_claim(&rig, rig.session, 10, 0), 0,
		     "a cancelled job is not given to anybody");
	rig_close(&rig);
}

Test(job_claims, a_reset_begins_an_attempt_without_data_of_the_old_one)
{
	struct rig rig;
	const Sluice__JobInfo *info;
	const Sluice__JobDelivery *delivery;

	rig_open(&rig);
	bring(&rig, CANCEL_ASKED);
	cr_assert_eq(rig_reset(&rig, "j", true).attempt, 2);
	cr_assert_eq(rig_effects(&rig, FX_LEASE_LOST), 1);
	info = rig_show(&rig, "j");
	cr_assert(!info->cancel && !info->intent && info->token == 0 && info->tag[0] == '\0' &&
		  info->attempt == 2);
	cr_assert_str_eq(info->state, "SUBMITTED");
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	delivery = rig.deliveries->jobs[0];
	cr_assert(delivery->attempt == 2 && !delivery->intent && !delivery->cancel &&
		  delivery->tag[0] == '\0');
	cr_assert_eq(rig_intent(&rig, "j", delivery->token, 2, "second").code, 0);
	rig_close(&rig);
}

Test(job_claims, resume_delivers_the_same_lease_again)
{
	struct rig rig;
	uint64_t token;

	rig_open(&rig);
	token = bring(&rig, INTENT);
	cr_assert_eq(rig_claim(&rig, rig.session, 10, CLAIM_RESUME), 1);
	cr_assert_eq(rig.deliveries->jobs[0]->token, token);
	cr_assert(rig.deliveries->jobs[0]->redelivered && rig.deliveries->jobs[0]->intent);
	cr_assert_eq(rig_history(&rig, "j"), 3, "submit, claim, intent: a redelivery is no event");
	rig_close(&rig);
}

Test(job_claims, a_session_that_holds_a_damaged_job_ends_and_the_others_become_orphans)
{
	struct rig rig;
	struct store_txn *txn = NULL;
	struct key key;
	uint64_t other;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "a").code, 0);
	cr_assert_eq(rig_submit(&rig, "b").code, 0);
	cr_assert_eq(rig_claim(&rig, rig.session, 10, 0), 2);
	cr_assert_eq(store_begin(rig.world.store, &txn), 0);
	key_one(&key, rig.world.gateway, 1); /* the first job's number */
	cr_assert_eq(store_put(txn, STORE_LIVE, key_slice(&key), (struct sluice_slice){"?", 1}), 0);
	cr_assert_eq(store_commit(txn), 0);
	rig_session_end(&rig, rig.session);
	cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 1);
	cr_expect_str_eq(world_effect(&rig.world, FX_ITEM_DAMAGED)->name.data,
			 "table live, key 000000010000000000000001: its content is not valid");
	other = rig_session(&rig);
	cr_assert_eq(rig_claim(&rig, other, 1, CLAIM_ORPHANS), 1);
	cr_expect_str_eq(rig.deliveries->jobs[0]->job, "b");
	sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
	world_discard(&rig.world);
}

/* The checksum is right, but no broker writes such a content. */
static void session_ends_with(void (*spoil)(struct job_live *live), const char *text)
{
	struct store_txn *txn = NULL;
	uint8_t bytes[JOB_LIVE_BYTES];
	struct job_live live;
	struct rig rig;
	struct key key;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "a").code, 0);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	cr_assert_eq(store_begin(rig.world.store, &txn), 0);
	key_one(&key, rig.world.gateway, 1);
	cr_assert_eq(job_live_get(txn, rig.world.gateway, 1, &live), 0);
	spoil(&live);
	job_live_encode(bytes, &live);
	cr_assert_eq(store_put(txn, STORE_LIVE, key_slice(&key),
			       (struct sluice_slice){bytes, sizeof(bytes)}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
	rig_session_end(&rig, rig.session);
	cr_assert_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 1);
	cr_expect_not_null(strstr(world_effect(&rig.world, FX_ITEM_DAMAGED)->name.data, text), "%s",
			   (const char *)world_effect(&rig.world, FX_ITEM_DAMAGED)->name.data);
	sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
	world_discard(&rig.world);
}

static void spoil_flags(struct job_live *live)
{
	live->flags |= 128;
}

static void spoil_entry(struct job_live *live)
{
	live->entry = 7;
}

static void spoil_history(struct job_live *live)
{
	live->hist_ref = live->hist_last + 1;
}

Test(job_claims, a_live_record_that_cannot_be_is_damaged_and_breaks_no_assertion)
{
	session_ends_with(spoil_flags, "table live, key 000000010000000000000001: ");
	session_ends_with(spoil_entry,
			  "table live, key 000000010000000000000001: ready, and no entry");
	session_ends_with(spoil_history,
			  "table live, key 000000010000000000000001: a reference behind");
}

static void damage(struct rig *rig, enum store_table table, const struct key *key)
{
	struct store_txn *txn = NULL;

	cr_assert_eq(store_begin(rig->world.store, &txn), 0);
	cr_assert_eq(store_put(txn, table, key_slice(key), (struct sluice_slice){"?", 1}), 0);
	cr_assert_eq(store_commit(txn), 0);
}

static void submit_abc(struct rig *rig)
{
	rig_open(rig);
	cr_assert_eq(rig_submit(rig, "a").code, 0);
	cr_assert_eq(rig_submit(rig, "b").code, 0);
	cr_assert_eq(rig_submit(rig, "c").code, 0);
}

Test(job_claims, a_damaged_job_is_skipped_and_can_still_be_cancelled)
{
	static const enum store_table tables[] = {STORE_JOB, STORE_ITEM};

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		struct rig rig;
		struct key key;
		Sluice__QueueDelete delete = SLUICE__QUEUE_DELETE__INIT;

		submit_abc(&rig);
		if (tables[i] == STORE_JOB)
			key_one(&key, rig.world.gateway, 2); /* b's number, and its entry's */
		else
			key_two(&key, rig.world.gateway, rig.queue, 2);
		damage(&rig, tables[i], &key);
		cr_expect_eq(rig_claim(&rig, rig.session, 10, 0), 1, "the jobs in front of it");
		cr_expect_str_eq(rig.deliveries->jobs[0]->job, "a");
		cr_expect_eq(rig_effects(&rig, FX_QUEUE_READY), 1, "and there is more");
		cr_expect_eq(rig_claim(&rig, rig.session, 10, 0), 1);
		cr_expect_str_eq(rig.deliveries->jobs[0]->job, "c");
		cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 1);
		cr_expect_eq(rig_claim(&rig, rig.session, 10, 0), 0);
		cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 0, "reported once");
		cr_expect_eq(rig_queue_show(&rig)->ready, 0);
		cr_expect_eq(rig_queue_show(&rig)->delayed, 1, "it is open");
		cr_expect_eq(rig_cancel(&rig, "a").code, 0);
		cr_expect_eq(rig_cancel(&rig, "c").code, 0);
		delete.name = (char *)RIG_QUEUE;
		cr_expect_eq(rig_apply(&rig, COMMAND_QUEUE_DELETE, 0, &delete).code,
			     SLUICE_E_IN_USE);
		cr_expect_eq(rig_cancel(&rig, "b").code, 0);
		cr_expect_eq(rig_queue_show(&rig)->delayed, 0);
		cr_expect_eq(rig_queue_show(&rig)->ready, 0);
		cr_expect_eq(rig_queue_show(&rig)->leased, 0);
		sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
		world_discard(&rig.world);
	}
}

Test(job_claims, a_damaged_orphan_is_skipped_and_can_still_be_reset)
{
	struct rig rig;
	struct key key;
	uint64_t other;

	submit_abc(&rig);
	cr_assert_eq(rig_claim(&rig, rig.session, 2, 0), 2);
	rig_session_end(&rig, rig.session);
	key_one(&key, rig.world.gateway, 1);
	damage(&rig, STORE_JOB, &key);
	other = rig_session(&rig);
	cr_expect_eq(rig_claim(&rig, other, 10, CLAIM_ORPHANS), 2);
	cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 1);
	cr_expect_str_eq(rig.deliveries->jobs[0]->job, "b");
	cr_expect_str_eq(rig.deliveries->jobs[1]->job, "c");
	cr_expect_eq(rig_queue_show(&rig)->orphaned, 1, "it is still an orphan");
	cr_expect_eq(rig_reset(&rig, "a", true).code, 0);
	cr_expect_eq(rig_queue_show(&rig)->orphaned, 0);
	cr_expect_eq(rig_queue_show(&rig)->ready, 1);
	cr_expect_eq(rig_claim(&rig, other, 10, CLAIM_ORPHANS), 0);
	cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 1, "and is found again, now ready");
	sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
	world_discard(&rig.world);
}

static const Sluice__Reply *list_all(struct rig *rig)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobList list = SLUICE__JOB_LIST__INIT;

	request.op_case = SLUICE__REQUEST__OP_JOB_LIST;
	request.job_list = &list;
	return rig_query(rig, &request);
}

/* Of the job with number 2 alone. */
static void audit_finds(struct rig *rig, const char *what)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__Audit audit = SLUICE__AUDIT__INIT;

	request.op_case = SLUICE__REQUEST__OP_AUDIT;
	request.audit = &audit;
	rig_query(rig, &request);
	cr_assert_not_null(rig->reply->audited, "%s", rig->reply->text);
	cr_expect_eq(rig->reply->audited->jobs, 3, "all are shown");
	cr_assert_eq(rig->reply->audited->n_findings, 1);
	cr_expect_not_null(strstr(rig->reply->audited->findings[0], "job 2: "), "%s",
			   rig->reply->audited->findings[0]);
	cr_expect_not_null(strstr(rig->reply->audited->findings[0], what), "%s",
			   rig->reply->audited->findings[0]);
}

Test(job_claims, a_damaged_job_is_reported_by_a_list_and_the_audit_and_ends_neither)
{
	static const struct {
		enum store_table table;
		const char *found, *id;
	} cases[] = {{STORE_LIVE, "its live record is damaged", "b"},
		     {STORE_JOB, "its submission is damaged", ""},
		     {STORE_HIST, "its history row 2 is damaged", "b"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const Sluice__Reply *reply;
		struct rig rig;
		struct key key;

		submit_abc(&rig);
		key_one(&key, rig.world.gateway,
			2); /* b's number, and that of the row that it left */
		damage(&rig, cases[i].table, &key);
		reply = list_all(&rig);
		cr_assert_eq(reply->n_jobs, 3, "%s: %zu rows", cases[i].found, reply->n_jobs);
		cr_expect_str_eq(reply->jobs[0]->job, "a");
		cr_expect_str_eq(reply->jobs[1]->job, cases[i].id);
		cr_expect_eq(reply->jobs[1]->number, 2);
		cr_expect_not_null(strstr(reply->jobs[1]->evidence, "damaged"), "%s",
				   reply->jobs[1]->evidence);
		cr_expect_str_eq(reply->jobs[2]->job, "c");
		cr_expect_str_eq(reply->jobs[2]->evidence, "");
		audit_finds(&rig, cases[i].found);
		world_discard(&rig.world);
	}
}

Test(job_claims, a_damaged_entry_of_a_session_hides_none_of_its_jobs)
{
	struct rig rig;
	struct key key;

	submit_abc(&rig);
	cr_assert_eq(rig_claim(&rig, rig.session, 3, 0), 3);
	key_owned(&key, rig.world.gateway, rig.session, OWNED_JOB, 2);
	damage(&rig, STORE_OWNED, &key);
	audit_finds(&rig, "the entry of session 1 that holds it is damaged");
	cr_expect_eq(rig_claim(&rig, rig.session, 10, CLAIM_RESUME), 3,
		     "it is redelivered what it holds");
	rig_session_end(&rig, rig.session);
	cr_expect_eq(rig_queue_show(&rig)->orphaned, 3);
	cr_expect_eq(rig_queue_show(&rig)->leased, 0);
	rig_audit(&rig);
	cr_expect_eq(rig_claim(&rig, rig_session(&rig), 10, CLAIM_ORPHANS), 3);
	sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
	world_discard(&rig.world);
}

static size_t orphans_announced(const struct rig *rig)
{
	size_t count = 0;

	for (size_t i = 0; i < effects_count(rig->world.effects); i++) {
		const struct effect *effect = effects_at(rig->world.effects, i);

		count += effect->kind == FX_QUEUE_READY && effect->orphan;
	}
	return count;
}

/* A claim that grants fewer jobs than requested counts as the last one, unless it announces the
 * rest. */
Test(job_claims, a_claim_that_damage_cuts_short_announces_the_orphans_after_it)
{
	for (uint64_t bad = 1; bad <= 8; bad++) {
		struct rig rig;
		struct key key;
		uint64_t other;
		size_t got = 0;
		char id[16];

		rig_open(&rig);
		for (int i = 1; i <= 8; i++) {
			(void)snprintf(id, sizeof(id), "job-%d", i);
			cr_assert_eq(rig_submit(&rig, id).code, 0);
		}
		cr_assert_eq(rig_claim(&rig, rig.session, 8, 0), 8);
		rig_session_end(&rig, rig.session);
		key_one(&key, rig.world.gateway, bad);
		damage(&rig, STORE_JOB, &key);
		other = rig_session(&rig);
		for (int claims = 0; claims < 9; claims++) {
			got += rig_claim(&rig, other, 100, CLAIM_ORPHANS);
			if (orphans_announced(&rig) == 0)
				break;
		}
		cr_expect_eq(got, 7,
			     "job %d is damaged: %zu were delivered until nothing was announced",
			     (int)bad, got);
		sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
		world_discard(&rig.world);
	}
}

static int fail_at(void *user, const char *operation)
{
	int *left = user;

	(void)operation;
	return (*left)-- == 0 ? SLUICE_E_NO_SPACE : 0;
}

/* A record that a failing store does not return counts neither as damaged nor as sound. */
Test(job_claims, the_cancel_of_a_skipped_job_meets_each_failure_of_the_store)
{
	Sluice__JobCancel cancel = SLUICE__JOB_CANCEL__INIT;
	struct command command = {.type = COMMAND_JOB_CANCEL, .gateway = 1, .body = &cancel};
	struct store_txn *txn;
	int rc = 1, calls = 0;
	struct rig rig;
	struct key key;

	rig_open(&rig);
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	key_one(&key, rig.world.gateway, 1);
	damage(&rig, STORE_JOB, &key);
	cr_assert_eq(rig_claim(&rig, rig.session, 10, 0), 0);
	cr_assert_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 1);
	cancel.job = (char *)"j";
	for (; rc != 0 && calls < 200; calls++) {
		int left = calls;

		effects_clear(rig.world.effects);
		cr_assert_eq(store_begin(rig.world.store, &txn), 0);
		store_fault_set(rig.world.store, fail_at, &left);
		rc = core_batch_begin(rig.world.core, txn, rig.world.clock);
		if (rc == 0)
			rc = core_apply(rig.world.core, txn, &command, rig.world.effects);
		if (rc == 0)
			rc = core_batch_end(rig.world.core, txn, rig.world.effects);
		store_fault_set(rig.world.store, NULL, NULL);
		cr_assert(rc == 0 || rc == SLUICE_E_NO_SPACE, "call %d: %s", calls,
			  sluice_error_name(rc));
		store_abort(txn);
		core_batch_abort(rig.world.core);
	}
	cr_assert_eq(rc, 0);
	cr_assert_gt(calls, 5);
	cr_assert_eq(rig_apply(&rig, COMMAND_JOB_CANCEL, rig.session, &cancel).code, 0);
	sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
	world_discard(&rig.world);
}

/* A job stays skipped, so a job is not skipped when the repair of another record makes it
 * readable. */
Test(job_claims, a_damaged_lifecycle_ends_the_claim_and_skips_no_job)
{
	struct cmd_claim m = {.max = 10};
	struct rig rig;
	struct key key;

	submit_abc(&rig);
	m.queue = rig.queue;
	key_topo(&key, rig.world.gateway, TOPO_LIFECYCLE, 1);
	damage(&rig, STORE_TOPO, &key);
	world_restart(&rig.world); /* the cache had it */
	cr_expect_eq(rig_apply(&rig, COMMAND_CLAIM, rig.session, &m).code, SLUICE_E_CORRUPT);
	cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 0);
	cr_expect_eq(rig_queue_show(&rig)->ready, 3);
	world_discard(&rig.world);
}

Test(job_claims, the_next_claim_skips_the_damaged_jobs_that_one_claim_leaves)
{
	struct rig rig;
	struct key key;
	char id[16];

	rig_open(&rig);
	for (unsigned i = 1; i <= 101; i++) {
		(void)snprintf(id, sizeof(id), "job-%u", i);
		cr_assert_eq(rig_submit(&rig, id).code, 0);
		key_one(&key, rig.world.gateway, i);
		if (i <= 100)
			damage(&rig, STORE_JOB, &key);
	}
	cr_expect_eq(rig_claim(&rig, rig.session, 10, 0), 0);
	cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 64);
	cr_expect_gt(rig_effects(&rig, FX_QUEUE_READY), 0);
	cr_expect_eq(rig_claim(&rig, rig.session, 10, 0), 1);
	cr_expect_eq(rig_effects(&rig, FX_ITEM_DAMAGED), 36);
	sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
	world_discard(&rig.world);
}

Test(job_claims, a_delayed_job_is_ready_when_its_delay_is_over)
{
	struct rig rig;

	rig_open(&rig);
	bring(&rig, GATED);
	rig_advance(&rig, 59000);
	cr_assert_str_eq(rig_show(&rig, "j")->claim, "gated");
	rig_advance(&rig, 2000);
	cr_assert_str_eq(rig_show(&rig, "j")->claim, "ready");
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	rig_close(&rig);
}

Test(job_claims, a_repeated_cancel_after_intent_notifies_again_and_writes_nothing)
{
	struct rig rig;

	rig_open(&rig);
	bring(&rig, CANCEL_ASKED);
	cr_assert_eq(rig_history(&rig, "j"), 4, "submit, claim, intent, cancel");
	cr_assert(!rig_cancel(&rig, "j").terminal);
	cr_assert_eq(rig_effects(&rig, FX_JOB_CANCEL), 1);
	cr_assert_eq(rig_history(&rig, "j"), 4);
	rig_close(&rig);
}

Test(job_claims, the_timer_of_an_earlier_delay_does_not_end_a_later_one)
{
	struct rig rig;

	rig_open(&rig);
	bring(&rig, GATED); /* for 60 s */
	cr_assert_eq(rig_reset(&rig, "j", true).code, 0);
	cr_assert_eq(rig_claim(&rig, rig.session, 1, 0), 1);
	cr_assert_eq(rig_release(&rig, "j", rig.deliveries->jobs[0]->token, 120000).code, 0);
	rig_advance(&rig, 61000);
	cr_assert_str_eq(rig_show(&rig, "j")->claim, "gated");
	rig_advance(&rig, 60000);
	cr_assert_str_eq(rig_show(&rig, "j")->claim, "ready");
	rig_audit(&rig);
	rig_close(&rig);
}
