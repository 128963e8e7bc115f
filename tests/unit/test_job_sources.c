/* SPDX-License-Identifier: Apache-2.0
 *
 * Sources: an attempt with an intent is judged only by the source that can find its work. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/base/apply.h"
#include "broker/core/base/keys.h"
#include "broker/core/job/live.h"
#include "tests/unit/job_rig.h"

static struct outcome seen(struct rig *rig, uint64_t session, const char *name, bool take)
{
	Sluice__SourceSeen m = SLUICE__SOURCE_SEEN__INIT;

	m.source = (char *)name;
	m.ok = true;
	m.text = (char *)"hello";
	m.take = take;
	return rig_apply(rig, COMMAND_SOURCE_SEEN, session, &m);
}

static uint64_t source_of(struct rig *rig, const char *name)
{
	struct store_txn *txn;
	uint64_t number = 0;
	int rc;

	cr_assert_eq(store_begin_read(rig->world.store, &txn), 0);
	rc = core_source_find(txn, rig->world.gateway, world_text(name), &number);
	store_abort(txn);
	return rc == 0 ? number : 0;
}

static uint64_t source(struct rig *rig, uint64_t session, const char *name)
{
	struct outcome out = seen(rig, session, name, true);

	cr_assert_eq(out.code, 0, "%s", out.text);
	return source_of(rig, name);
}

/* Job j, intended by rig->session for a source (0: none); the token. */
static uint64_t intended(struct rig *rig, uint64_t number)
{
	uint64_t token;

	cr_assert_eq(rig_submit(rig, "j").code, 0);
	cr_assert_eq(rig_claim_for(rig, rig->session, 1, 0, number), 1);
	token = rig->deliveries->jobs[0]->token;
	cr_assert_eq(rig_intent(rig, "j", token, 1, "tag").code, 0);
	return token;
}

Test(job_sources, an_orphan_with_an_intent_goes_to_its_own_source_and_to_no_other)
{
	struct rig rig;
	uint64_t one, two, stranger, own;

	rig_open(&rig);
	one = source(&rig, rig.session, "local:one");
	stranger = rig_session(&rig);
	two = source(&rig, stranger, "local:two");
	cr_assert(one != 0 && two != 0 && one != two);
	intended(&rig, one);
	cr_assert_str_eq(rig.deliveries->jobs[0]->source, "local:one");
	cr_assert_str_eq(rig_show(&rig, "j")->judge, "local:one");
	cr_assert_eq(rig_history(&rig, "j"), 3);
	cr_assert_str_eq(rig.reply->history[2]->event, "intent");
	cr_assert_str_eq(rig.reply->history[2]->source, "local:one");
	rig_session_end(&rig, rig.session);
	cr_assert_str_eq(rig_show(&rig, "j")->claim, "orphaned");
	cr_assert_eq(rig_claim_for(&rig, stranger, 10, CLAIM_ORPHANS, two), 0, "another source");
	cr_assert_eq(rig_claim_for(&rig, stranger, 10, CLAIM_ORPHANS, 0), 0,
		     "a consumer without a source");
	rig_audit(&rig);
	own = rig_session(&rig);
	cr_assert_eq(rig_claim_for(&rig, own, 10, CLAIM_ORPHANS, one), 1);
	cr_assert(rig.deliveries->jobs[0]->orphan && rig.deliveries->jobs[0]->intent);
	cr_assert_str_eq(rig.deliveries->jobs[0]->source, "local:one");
	cr_assert_eq(rig_queue_show(&rig)->orphaned, 0);
	rig_close(&rig);
}

Test(job_sources, an_orphan_without_intent_goes_to_any_consumer)
{
	struct rig rig;
	uint64_t one, two, other;

	rig_open(&rig);
	one = source(&rig, rig.session, "one");
	other = rig_session(&rig);
	two = source(&rig, other, "two");
	cr_assert_eq(rig_submit(&rig, "j").code, 0);
	cr_assert_eq(rig_claim_for(&rig, rig.session, 1, 0, one), 1);
	rig_session_end(&rig, rig.session);
	cr_assert_str_eq(rig_show(&rig, "j")->judge, "", "nothing was started: no source");
	cr_assert_eq(rig_claim_for(&rig, other, 1, CLAIM_ORPHANS, two), 1);
	cr_assert_str_eq(rig.deliveries->jobs[0]->source, "two");
	cr_assert_eq(rig_intent(&rig, "j", rig.deliveries->jobs[0]->token, 1, "tag").code, 0);
	cr_assert_str_eq(rig_show(&rig, "j")->judge, "two");
	rig_close(&rig);
}

Test(job_sources, an_orphan_with_an_intent_without_a_source_goes_to_any_consumer)
{
	struct rig rig;
	uint64_t one, two, first, second;

	rig_open(&rig);
	first = rig_session(&rig);
	second = rig_session(&rig);
	one = source(&rig, first, "one");
	two = source(&rig, second, "two");
	intended(&rig, 0);
	rig_session_end(&rig, rig.session);
	cr_assert_eq(rig_claim_for(&rig, first, 1, CLAIM_ORPHANS, one), 1);
	cr_assert_str_eq(rig.deliveries->jobs[0]->source, "", "after a takeover it has no source");
	rig_session_end(&rig, first);
	cr_assert_eq(rig_claim_for(&rig, second, 1, CLAIM_ORPHANS, two), 1);
	rig_close(&rig);
}

Test(job_sources, orphans_of_the_own_source_are_delivered_first)
{
	struct rig rig;
	uint64_t one, again;

	rig_open(&rig);
	one = source(&rig, rig.session, "one");
	cr_assert_eq(rig_submit(&rig, "any").code, 0);
	cr_assert_eq(rig_claim_for(&rig, rig.session, 1, 0, one), 1);
	intended(&rig, one);
	rig_session_end(&rig, rig.session);
	again = rig_session(&rig);
	cr_assert_eq(rig_claim_for(&rig, again, 1, CLAIM_ORPHANS, one), 1);
	cr_assert_str_eq(rig.deliveries->jobs[0]->job, "j");
	cr_assert_eq(rig_claim_for(&rig, again, 1, CLAIM_ORPHANS, one), 1);
	cr_assert_str_eq(rig.deliveries->jobs[0]->job, "any");
	rig_close(&rig);
}

Test(job_sources, each_source_of_a_session_is_redelivered_its_jobs)
{
	struct rig rig;
	uint64_t one, two;

	rig_open(&rig);
	one = source(&rig, rig.session, "one");
	two = source(&rig, rig.session, "two");
	intended(&rig, one);
	cr_assert_eq(rig_claim_for(&rig, rig.session, 10, CLAIM_RESUME, two), 0);
	cr_assert_eq(rig_effects(&rig, FX_RESUMED), 1);
	cr_assert_eq(rig_claim_for(&rig, rig.session, 10, CLAIM_RESUME, one), 1);
	cr_assert_eq(rig_effects(&rig, FX_RESUMED), 1);
	rig_close(&rig);
}

Test(job_sources, the_last_step_of_a_resume_reports_that_it_is_complete)
{
	struct cmd_claim step = {.max = 2, .flags = CLAIM_RESUME};
	struct rig rig;
	struct outcome out;
	char id[16];

	rig_open(&rig);
	step.queue = rig.queue;
	for (int i = 0; i < 5; i++) {
		snprintf(id, sizeof(id), "j%d", i);
		cr_assert_eq(rig_submit(&rig, id).code, 0);
	}
	cr_assert_eq(rig_claim(&rig, rig.session, 5, 0), 5);
	cr_assert_eq(rig_effects(&rig, FX_RESUMED), 0, "not a resume");
	for (int steps = 1;; steps++) {
		out = rig_apply(&rig, COMMAND_CLAIM, rig.session, &step);
		cr_assert_eq(out.code, 0, "%s", out.text);
		cr_assert_eq(rig_effects(&rig, FX_RESUMED), out.id == 0);
		step.resume_after = out.id;
		step.resume_until = step.resume_until != 0 ? step.resume_until : out.index;
		if (out.id != 0)
			continue;
		cr_assert_geq(steps, 3);
		break;
	}
	rig_close(&rig);
}

Test(job_sources, one_session_represents_a_source)
{
	struct rig rig;
	uint64_t other, third;

	rig_open(&rig);
	other = rig_session(&rig);
	third = rig_session(&rig);
	cr_assert_eq(seen(&rig, rig.session, "s", false).code, 0);
	cr_assert_eq(seen(&rig, rig.session, "s", false).code, 0, "again");
	cr_assert_eq(seen(&rig, other, "s", false).code, SLUICE_E_CONFLICT);
	cr_assert_eq(seen(&rig, other, "s", true).code, 0);
	cr_assert_eq(seen(&rig, rig.session, "s", false).code, SLUICE_E_CONFLICT,
		     "another session took it over");
	rig_session_end(&rig, other);
	cr_assert_eq(seen(&rig, third, "s", false).code, 0,
		     "the session that represented it has ended");
	cr_assert_eq(seen(&rig, other, "s", true).code, SLUICE_E_SESSION_GONE);
	cr_assert_eq(seen(&rig, third, "", true).code, SLUICE_E_INVAL);
	cr_assert_eq(source_of(&rig, "another"), 0);
	rig_close(&rig);
}

/* limit: SOURCES_MAX */
Test(job_sources, a_gateway_has_a_bounded_number_of_sources)
{
	struct rig rig;
	char name[16];

	rig_open(&rig);
	for (uint64_t i = 0; i < LIMIT_SOURCES_MAX; i++) {
		snprintf(name, sizeof(name), "s%u", (unsigned)i);
		cr_assert_eq(seen(&rig, rig.session, name, false).code, 0);
	}
	cr_assert_eq(seen(&rig, rig.session, "one above the bound", false).code, SLUICE_E_LIMIT);
	cr_assert_eq(seen(&rig, rig.session, "s1", false).code, 0,
		     "existing sources are still accepted");
	rig_close(&rig);
}

/* ---- records from before sources existed ---- */

static void live_1(uint8_t buf[JOB_LIVE_1_BYTES], const struct job_live *live)
{
	uint8_t now[JOB_LIVE_BYTES];

	job_live_encode(now, live);
	memcpy(buf, now, 84);
	if (live->claim == JOB_GATED)
		put_be64(buf + 36, live->due_mono_ms);
	put_be16(buf + 84, (uint16_t)live->gates_unmet);
	put_be32(buf + 86, live->hist_count);
}

Test(job_sources, a_live_record_of_format_1_is_read_and_written_back_as_2)
{
	struct sluice_slice value;
	struct job_live live;
	struct store_txn *txn;
	struct rig rig;
	struct key key;
	uint8_t old[JOB_LIVE_1_BYTES];
	uint64_t token;

	rig_open(&rig);
	token = intended(&rig, 0);
	key_one(&key, rig.world.gateway, 1);
	cr_assert_eq(store_begin(rig.world.store, &txn), 0);
	cr_assert_eq(job_live_get(txn, rig.world.gateway, 1, &live), 0);
	live_1(old, &live);
	cr_assert_eq(store_put(txn, STORE_LIVE, key_slice(&key),
			       (struct sluice_slice){old, sizeof(old)}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
	cr_assert_str_eq(rig_show(&rig, "j")->claim, "leased");
	cr_assert_eq(rig_history(&rig, "j"), 3);
	cr_assert_eq(rig_report(&rig, "j", token, 1, "ACTIVE").disposition,
		     SLUICE__DISPOSITION__APPLIED);
	cr_assert_eq(rig_history(&rig, "j"), 4);
	cr_assert_eq(store_begin_read(rig.world.store, &txn), 0);
	cr_assert_eq(store_get(txn, STORE_LIVE, key_slice(&key), &value), 0);
	cr_assert_eq(value.len, JOB_LIVE_BYTES);
	store_abort(txn);
	sluice__job_deliveries__free_unpacked(rig.deliveries, NULL);
	world_discard(&rig.world);
}

Test(job_sources, both_formats_are_decoded_alike)
{
	const struct job_live made[] = {
		{.state = 3,
		 .claim = JOB_READY,
		 .flags = JOB_CANCEL,
		 .priority = 7,
		 .attempt = 2,
		 .lifecycle = 9,
		 .queue = 10,
		 .token = 11,
		 .holder = 12,
		 .entry = 13,
		 .hist_last = 14,
		 .hist_intent = 15,
		 .hist_ref = 16,
		 .hist_report = 17,
		 .changed_ms = 18,
		 .hist_count = 19},
		{.claim = JOB_GATED,
		 .attempt = 1,
		 .lifecycle = 1,
		 .queue = 1,
		 .due_mono_ms = UINT64_MAX - 1},
	};

	for (size_t i = 0; i < sizeof(made) / sizeof(made[0]); i++) {
		uint8_t one[JOB_LIVE_1_BYTES], two[JOB_LIVE_BYTES], again[JOB_LIVE_BYTES];
		struct job_live live;

		live_1(one, &made[i]);
		job_live_encode(two, &made[i]);
		cr_assert_eq(job_live_decode((struct sluice_slice){one, sizeof(one)}, &live), 0);
		job_live_encode(again, &live);
		cr_assert_arr_eq(again, two, sizeof(two));
		cr_assert_eq(job_live_decode((struct sluice_slice){two, sizeof(two)}, &live), 0);
		job_live_encode(again, &live);
		cr_assert_arr_eq(again, two, sizeof(two));
		for (size_t len = 0; len <= sizeof(two) + 1; len++)
			if (len != sizeof(one) && len != sizeof(two))
				cr_assert_eq(job_live_decode((struct sluice_slice){two, len},
							     &live),
					     SLUICE_E_CORRUPT);
	}
}
