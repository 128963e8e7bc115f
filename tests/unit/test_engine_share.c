/* SPDX-License-Identifier: Apache-2.0
 * Whose commands a batch takes: the shares by themselves, with simulated commands. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "broker/engine/share.h"

/* The numbers of the sessions. SMALL's commands do one record. */
enum { LARGE = 1000, SMALL = 5, SESSIONS = 64, BATCH_BYTES = 16 << 20 };

struct one {
	struct submission submission;
	int64_t cost;
	uint64_t n;
};
struct rig {
	struct shares shares;
	struct taken taken;
	struct engine_sink sink;
	uint64_t batch_bytes;
	uint64_t commits, done, sent;
	/* work: of the last commit; work_of_small: of all until the last small command was done */
	uint64_t work, work_of_small;
	uint64_t all_work, small_done;
	uint64_t work_of[2];  /* of the last commit, by lane: data, control */
	uint64_t bytes_of[2]; /* the same */
	uint64_t done_of[2 * LARGE], data_of[2 * LARGE];
	uint64_t last[2 * LARGE][2]; /* number of the last command, by session and lane */
};

static void rig_open(struct rig *rig)
{
	*rig = (struct rig){.batch_bytes = BATCH_BYTES};
	shares_init(&rig->shares);
	taken_init(&rig->taken);
}

static void rig_close(struct rig *rig)
{
	cr_expect_eq(rig->done, rig->sent, "no command is lost");
	cr_expect_eq(rig->shares.waiting, 0);
	shares_fini(&rig->shares);
}

static void send(struct rig *rig, uint64_t session, int64_t cost, size_t bytes, bool control)
{
	struct one *one = calloc(1, sizeof(*one));

	cr_assert_not_null(one);
	one->submission.command.gateway = 1;
	one->submission.command.session = session;
	one->submission.bytes = bytes;
	one->submission.control = control;
	one->submission.sink = &rig->sink;
	one->cost = cost;
	one->n = ++rig->sent;
	lane_push(control ? &rig->taken.control : &rig->taken.data, &one->submission);
}

static size_t take(struct rig *rig, struct submission **batch)
{
	struct lane *lanes[] = {&rig->taken.control, &rig->taken.data};
	size_t count = 0, bytes = 0;

	for (size_t i = 0; i < 2; i++)
		while (lanes[i]->head != NULL &&
		       (rig->shares.sorted || count == 0 ||
			bytes + lanes[i]->head->bytes <= rig->batch_bytes)) {
			batch[count] = lane_pop(lanes[i]);
			bytes += batch[count++]->bytes;
		}
	return count;
}

static void apply(struct rig *rig, struct submission *submission)
{
	struct one *one = (struct one *)submission;
	const uint64_t session = submission->command.session;
	uint64_t *last = &rig->last[session][submission->control];

	cr_assert_gt(one->n, *last, "session %llu: %llu is done behind %llu",
		     (unsigned long long)session, (unsigned long long)one->n,
		     (unsigned long long)*last);
	*last = one->n;
	submission->work = one->cost;
	rig->work += (uint64_t)one->cost;
	rig->work_of[submission->control] += (uint64_t)one->cost;
	rig->bytes_of[submission->control] += submission->bytes;
	rig->done++;
	rig->done_of[session]++;
	rig->data_of[session] += !submission->control;
}

/* As the engine does it. */
static void commit(struct rig *rig)
{
	static struct submission *batch[1 << 20];
	size_t count, end = 0;

	shares_choose(&rig->shares, &rig->taken, rig->batch_bytes);
	count = take(rig, batch);
	rig->work = 0;
	memset(rig->work_of, 0, sizeof(rig->work_of));
	memset(rig->bytes_of, 0, sizeof(rig->bytes_of));
	while (end < count) {
		apply(rig, batch[end++]);
		if (shares_enough(&rig->shares, rig->work))
			break;
	}
	rig->commits++;
	rig->all_work += rig->work;
	shares_charge(&rig->shares, batch, end, rig->work);
	while (count > end)
		shares_return(&rig->shares, &rig->taken, batch[--count]);
	while (end > 0)
		free(batch[--end]);
}

static bool waits(const struct rig *rig)
{
	return rig->done < rig->sent;
}

static void drain(struct rig *rig)
{
	while (waits(rig)) {
		uint64_t before = rig->done;

		commit(rig);
		cr_assert_gt(rig->done, before, "each commit does something");
	}
}

/* The largest amount of work, over several small commands, from the time one is sent until it is
 * answered, while each other session has a number of commands waiting. */
static uint64_t small_waits(struct rig *rig, int tries)
{
	uint64_t most = 0;

	for (int i = 0; i < tries; i++) {
		const uint64_t before = rig->done_of[SMALL], work = rig->all_work;

		send(rig, SMALL, 1, 100, false);
		for (int commits = 0; rig->done_of[SMALL] == before; commits++) {
			cr_assert_lt(commits, 1000, "it is never done");
			commit(rig);
		}
		most = rig->all_work - work > most ? rig->all_work - work : most;
	}
	return most;
}

/* Many sessions, each with many waiting commands: a small request waits for one commit of theirs,
 * whenever it is sent. */
Test(engine_share, a_small_request_waits_for_one_commit_whatever_others_send)
{
	static const struct {
		const char *what;
		int64_t cost;
		size_t bytes;
		int each, small_between;
		uint64_t most;
	} loads[] = {
		{"large", 40000, 1000, 8, 0, 41000},
		{"below what is noticed alone", 3600, 400, 60, 0, 20000},
		{"as many small ones as fit", 300, 300, 300, 0, 17000},
		{"large only in bytes", 2000, 1000000, 30, 0, 20000},
		{"large with small ones between", 40000, 1000, 8, 16, 57000},
	};

	for (size_t i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
		uint64_t most;
		struct rig rig;

		rig_open(&rig);
		for (int n = 0; n < loads[i].each; n++)
			for (uint64_t of = LARGE; of < LARGE + SESSIONS; of++) {
				send(&rig, of, loads[i].cost, loads[i].bytes, false);
				for (int between = 0; between < loads[i].small_between; between++)
					send(&rig, of, 1, 100, false);
			}
		/* The work of a session's commands is not known in advance: each session has one
		 * done first. */
		for (uint64_t of = LARGE; of < LARGE + SESSIONS; of++)
			while (rig.done_of[of] == 0)
				commit(&rig);
		cr_assert_gt(rig.sent - rig.done, SESSIONS, "%s: more commands are waiting",
			     loads[i].what);
		most = small_waits(&rig, 100);
		cr_expect_leq(most, loads[i].most, "%s: %llu records were done before it",
			      loads[i].what, (unsigned long long)most);
		cr_expect(waits(&rig), "%s", loads[i].what);
		drain(&rig);
		rig_close(&rig);
	}
}

Test(engine_share, each_of_many_sessions_has_as_much_as_any_other)
{
	enum { ROUNDS = 20 };
	struct rig rig;

	rig_open(&rig);
	for (int n = 0; n < 2 * ROUNDS; n++)
		for (uint64_t of = LARGE; of < LARGE + SESSIONS; of++)
			send(&rig, of, 20000, 1000, false);
	for (int n = 0; n < ROUNDS * SESSIONS; n++) {
		send(&rig, SMALL, 1, 100, false); /* which has every other commit */
		commit(&rig);
	}
	for (uint64_t of = LARGE; of < LARGE + SESSIONS; of++) {
		cr_expect_geq(rig.done_of[of], ROUNDS / 2 - 1, "%llu",
			      (unsigned long long)rig.done_of[of]);
		cr_expect_leq(rig.done_of[of], ROUNDS / 2 + 2, "%llu",
			      (unsigned long long)rig.done_of[of]);
	}
	drain(&rig);
	rig_close(&rig);
}

/* Each command of one session is ten times the work: work is shared, not the number of commands. */
Test(engine_share, work_is_shared_and_not_commands)
{
	struct rig rig;

	rig_open(&rig);
	for (int n = 0; n < 2000; n++) {
		send(&rig, LARGE, 5000, 500, false);
		send(&rig, LARGE + 1, 500, 500, false);
	}
	for (int n = 0; n < 60; n++)
		commit(&rig);
	cr_assert_lt(rig.done_of[LARGE + 1], 2000);
	cr_expect_gt(rig.done_of[LARGE + 1], 9 * rig.done_of[LARGE]);
	cr_expect_lt(rig.done_of[LARGE + 1], 11 * rig.done_of[LARGE]);
	drain(&rig);
	rig_close(&rig);
}

Test(engine_share, large_ones_have_every_other_commit_however_many_small_ones_come)
{
	struct rig rig;

	rig_open(&rig);
	for (int n = 0; n < 20; n++)
		send(&rig, LARGE, 40000, 1000, false);
	commit(&rig);
	for (int n = 0; n < 20; n++) {
		for (uint64_t of = 0; of < 500; of++)
			send(&rig, of, 20, 100, false);
		commit(&rig);
	}
	cr_expect_geq(rig.done_of[LARGE], 10, "%llu", (unsigned long long)rig.done_of[LARGE]);
	drain(&rig);
	rig_close(&rig);
}

/* Refused commands do no work, and give their session no more turns than others have. */
Test(engine_share, refused_commands_hold_up_nobody)
{
	struct rig rig;

	rig_open(&rig);
	send(&rig, LARGE, 40000, 1000, false);
	commit(&rig);
	for (int n = 0; n < 200000; n++)
		send(&rig, LARGE, 0, 1000, false);
	cr_expect_leq(small_waits(&rig, 10), 17000);
	cr_expect(waits(&rig));
	drain(&rig);
	rig_close(&rig);
}

/* A command larger than a batch may be is applied alone, also while others always have commands. */
Test(engine_share, what_fits_into_no_batch_is_applied_alone)
{
	struct rig rig;

	rig_open(&rig);
	for (int n = 0; n < 8; n++)
		send(&rig, LARGE, 5000, BATCH_BYTES / 2, false);
	send(&rig, LARGE + 1, 5000, BATCH_BYTES + 1, false);
	for (int n = 0; n < 40 && rig.done_of[LARGE + 1] == 0; n++) {
		send(&rig, SMALL, 1, 100, false);
		commit(&rig);
	}
	cr_expect_eq(rig.done_of[LARGE + 1], 1);
	drain(&rig);
	rig_close(&rig);
}

/* In any mixture each lane of a session keeps its order (apply() checks it), and nothing is
 * lost. */
Test(engine_share, order_within_a_session_stays)
{
	for (unsigned seed = 1; seed <= 20; seed++) {
		unsigned state = seed;
		struct rig rig;

		rig_open(&rig);
		for (int commits = 0; commits < 400; commits++) {
			for (int n = rand_r(&state) % 40; n > 0; n--) {
				const int kind = rand_r(&state) % 8;
				const uint64_t session = 1 + (uint64_t)(rand_r(&state) % 12);

				send(&rig, session,
				     kind == 0	 ? 40000
				     : kind == 1 ? 0
						 : rand_r(&state) % (session < 4 ? 4000 : 20),
				     kind == 2 ? 3000000 : 1 + (size_t)(rand_r(&state) % 1000),
				     rand_r(&state) % 4 == 0);
			}
			commit(&rig);
			if (rand_r(&state) % 100 == 0)
				drain(&rig);
		}
		drain(&rig);
		rig_close(&rig);
	}
}

Test(engine_share, sessions_are_forgotten_by_and_by)
{
	struct rig rig;

	rig_open(&rig);
	for (uint64_t of = LARGE; of < LARGE + SESSIONS; of++)
		send(&rig, of, 40000, 1000, false);
	drain(&rig);
	cr_assert_not_null(rig.shares.all);
	for (int n = 0; n < 1000 && rig.shares.all != NULL; n++)
		commit(&rig);
	cr_expect_null(rig.shares.all);
	send(&rig, SMALL, 1, 100, false);
	commit(&rig);
	cr_expect_not(rig.shares.sorted, "later commands are taken in the order of their arrival");
	rig_close(&rig);
}

/* Commands that wait when the engine ends are given back. */
Test(engine_share, all_that_waits_can_be_taken_out)
{
	struct submission *submission;
	struct rig rig;
	uint64_t out = 0;

	rig_open(&rig);
	for (int n = 0; n < 10; n++)
		for (uint64_t of = LARGE; of < LARGE + SESSIONS; of++)
			send(&rig, of, 40000, 1000, n % 2 == 0);
	for (int n = 0; n < 5; n++)
		commit(&rig);
	while ((submission = shares_pop(&rig.shares)) != NULL) {
		free(submission);
		out++;
	}
	cr_expect_eq(out, rig.sent - rig.done);
	rig.done += out;
	rig_close(&rig);
}

/* ---- lanes ---- */

enum { EACH = 400, EACH_BYTES = 200 << 10 };

/* One that takes long, so that the next ones are chosen by shares. */
static void sort_from_now(struct rig *rig)
{
	send(rig, LARGE, 20000, 100, false);
	commit(rig);
}

/* Many sessions with large control commands, and one with large publishes. */
static void flood(uint64_t batch_bytes)
{
	unsigned long commits = 0, without = 0;
	struct rig rig;

	rig_open(&rig);
	rig.batch_bytes = batch_bytes;
	sort_from_now(&rig);
	for (uint64_t n = 0; n < 40 * 10; n++)
		send(&rig, 100 + n % 40, EACH, EACH_BYTES, true);
	for (int n = 0; n < 60; n++)
		send(&rig, SMALL, EACH, EACH_BYTES, false);
	for (commit(&rig); rig.shares.data_waiting > 0; commit(&rig)) {
		/* Every second commit is for small commands, of which there are none here. */
		without = rig.work_of[0] == 0 ? without + 1 : 0;
		cr_expect_lt(without, 2u, "commit %lu: no data, %llu records of control", commits,
			     (unsigned long long)rig.work_of[1]);
		cr_expect_leq(rig.work_of[1], 16384u / 2 + EACH, "commit %lu: %llu", commits,
			      (unsigned long long)rig.work_of[1]);
		cr_expect_leq(rig.bytes_of[1], batch_bytes / 2, "commit %lu: %llu", commits,
			      (unsigned long long)rig.bytes_of[1]);
		cr_assert_lt(commits++, 1000u);
	}
	cr_expect_gt(commits, 1u);
	drain(&rig);
	rig_close(&rig);
}

Test(engine_share, a_flood_of_control_leaves_half_of_a_commit_to_data)
{
	flood(BATCH_BYTES);
	flood(2 << 20);
}

/* All of one session, whose commands are too many for one commit. */
Test(engine_share, a_flood_of_control_of_a_session_leaves_room_to_its_own_data)
{
	unsigned long commits = 0;
	struct rig rig;

	rig_open(&rig);
	sort_from_now(&rig);
	for (uint64_t n = 0; n < 4000; n++) {
		send(&rig, SMALL, 20, 100, true);
		send(&rig, SMALL, 20, 100, false);
		send(&rig, LARGE + 1 + n % 20, 20, 100, false);
	}
	while (rig.done_of[SMALL] < 7000) {
		commit(&rig);
		cr_assert_lt(commits++, 10000u);
		cr_expect_geq(rig.data_of[SMALL] + 256, rig.done_of[SMALL] / 2,
			      "commit %lu: %llu of %llu are data", commits,
			      (unsigned long long)rig.data_of[SMALL],
			      (unsigned long long)rig.done_of[SMALL]);
	}
	drain(&rig);
	rig_close(&rig);
}
