/* SPDX-License-Identifier: Apache-2.0
 *
 * Work of a commit. A batch is bounded by the bytes of its commands, but a publish of 140 KB may be
 * 100,000 items, and a hundred of them one batch. A commit ends when so much work was done; what is
 * left goes back to its lane. Sessions that send such commands are heavy: while others have
 * something waiting, too, commits of theirs alternate with commits of all others. So a request of
 * a session that is not heavy waits for the commit that is being made and at most one more, and for
 * that one only if it came during a commit of sessions like its own. Heavy sessions take turns
 * among themselves.
 *
 * A session is heavy by a single command, or by what those of one commit did together, of which
 * each is much more work than its bytes say: many of them wait in the inbox, which is bounded by
 * bytes. It is no longer when LIGHT_MIN in succession were light: one between two large ones is no
 * reason to let the next in ahead of others'. Order within a session stays.
 */
#include "broker/engine/engine_internal.h"

/* A commit of heavy sessions is shorter: the others wait for it. */
enum { COMMIT_WORK_MAX = 32768, HEAVY_COMMIT_WORK_MAX = 16384, HEAVY_WORK_MIN = 4096 };

/* Records take a microsecond or two with their part of the sync, bytes two milliseconds a MiB. */
enum { BYTES_PER_RECORD = 512, STEPS_PER_RECORD = 32 };

enum { LIGHT_MIN = 16 };

/* More work than its bytes say: a record for fewer of its bytes than that, and not by a few. */
enum { SUMMED_MIN = 256, SUMMED_BYTES_PER_RECORD = 16 };

uint64_t heavy_work(const struct engine *engine)
{
	struct core_work work = core_batch_work(engine->core);

	return work.records + work.bytes / BYTES_PER_RECORD + work.steps / STEPS_PER_RECORD;
}

static bool of_session(const struct submission *submission, uint32_t gateway, uint64_t session)
{
	return submission->command.session == session && submission->command.gateway == gateway;
}

static size_t place_of(const struct heavy *heavy, const struct submission *submission)
{
	size_t i = 0;

	while (i < heavy->count &&
	       !of_session(submission, heavy->sessions[i].gateway, heavy->sessions[i].session))
		i++;
	return i;
}

bool heavy_is(const struct heavy *heavy, const struct submission *submission)
{
	return heavy->count > 0 && submission->sink != NULL && place_of(heavy, submission) < heavy->count;
}

void heavy_begin(struct heavy *heavy)
{
	heavy->sum_count = 0;
}

/*
 * What the session has done in this commit, never less, and at most a sixteenth of the commit more: of more sessions than there is room
 * for, a new one takes the place of the one with the least, and its sum too. So one that did an
 * eighth of a commit is found, however many others did a little before it; and one that is taken for
 * such a one did a sixteenth at least.
 */
static uint64_t sum_up(struct heavy *heavy, const struct submission *submission, uint64_t work)
{
	size_t i = 0, least = 0;

	while (i < heavy->sum_count &&
	       !of_session(submission, heavy->sums[i].gateway, heavy->sums[i].session))
		i++;
	if (i == HEAVY_SESSIONS_MAX) {
		for (i = 1; i < HEAVY_SESSIONS_MAX; i++)
			least = heavy->sums[i].work < heavy->sums[least].work ? i : least;
		i = least;
		heavy->sums[i].gateway = submission->command.gateway;
		heavy->sums[i].session = submission->command.session;
	} else if (i == heavy->sum_count) {
		heavy->sums[heavy->sum_count++] =
			(struct heavy_sum){submission->command.gateway, submission->command.session, 0};
	}
	return heavy->sums[i].work += work;
}

bool heavy_command(struct engine *engine, const struct submission *submission, uint64_t work)
{
	struct heavy *heavy = &engine->heavy;
	bool is = heavy_is(heavy, submission);

	if (work >= SUMMED_MIN && work > submission->bytes / SUMMED_BYTES_PER_RECORD)
		work = sum_up(heavy, submission, work);
	if (!is && work >= HEAVY_WORK_MIN && submission->sink != NULL) {
		/* Beyond so many the one that was heavy first is a session like any other until its next. */
		if (heavy->count == HEAVY_SESSIONS_MAX)
			heavy->sessions[0] = heavy->sessions[--heavy->count];
		heavy->sessions[heavy->count++] =
			(struct heavy_session){submission->command.gateway, submission->command.session, 0};
		is = true;
	} else if (is) {
		struct heavy_session *session = &heavy->sessions[place_of(heavy, submission)];

		session->light = work < HEAVY_WORK_MIN / 4 ? session->light + 1 : 0;
		if (session->light == LIGHT_MIN)
			*session = heavy->sessions[--heavy->count];
	}
	if (is) {
		heavy->was_turn = true;
		heavy->last_gateway = submission->command.gateway;
		heavy->last_session = submission->command.session;
	}
	return heavy_work(engine) >= (is ? HEAVY_COMMIT_WORK_MAX : COMMIT_WORK_MAX);
}

/* ---- whose turn it is ---- */

static bool lane_has(const struct heavy *heavy, const struct lane *lane, bool is_heavy)
{
	const struct submission *submission = lane->head;

	while (submission != NULL && heavy_is(heavy, submission) != is_heavy)
		submission = submission->next;
	return submission != NULL;
}

/* Those whose turn it is to the front; of heavy ones the session that was last behind the others. */
static void lane_turn(const struct heavy *heavy, struct lane *lane)
{
	struct lane parts[] = {{NULL, &parts[0].head}, {NULL, &parts[1].head}, {NULL, &parts[2].head}};
	struct submission *submission;

	while ((submission = lane_pop(lane)) != NULL) {
		bool is = heavy_is(heavy, submission);
		bool last = is && of_session(submission, heavy->last_gateway, heavy->last_session);

		lane_push(&parts[is != heavy->turn ? 2 : last ? 1 : 0], submission);
	}
	for (int part = 0; part < 3; part++)
		while ((submission = lane_pop(&parts[part])) != NULL)
			lane_push(lane, submission);
}

void heavy_turn(struct engine *engine)
{
	struct heavy *heavy = &engine->heavy;
	struct taken *taken = &engine->taken;
	bool was = heavy->was_turn;

	heavy->turn = heavy->was_turn = false;
	if (heavy->count == 0 ||
	    (!lane_has(heavy, &taken->control, true) && !lane_has(heavy, &taken->data, true)))
		return;
	heavy->turn =
		!was || (!lane_has(heavy, &taken->control, false) && !lane_has(heavy, &taken->data, false));
	lane_turn(heavy, &taken->control);
	lane_turn(heavy, &taken->data);
}

void heavy_return(struct engine *engine)
{
	struct batch *batch = &engine->batch;
	struct taken *taken = &engine->taken;

	while (batch->count > batch->end) {
		struct submission *submission = batch->submissions[--batch->count];

		submission->forced_code = 0; /* admission is asked again */
		batch->bytes -= submission->bytes;
		lane_push_first(submission->control ? &taken->control : &taken->data, submission);
	}
}
