/* SPDX-License-Identifier: Apache-2.0
 *
 * Work of a commit. A batch is bounded by the bytes of its commands, but a publish of 140 KB may be 100,000 items, and a hundred of them one
 * batch. A commit ends when so much work was done; what is left goes back to its lane, behind the others' when the session that did the work
 * has more: such a session's commands then have commits of their own, in turns with everybody else's. Those of sessions that are not heavy
 * wait for one such commit beside the one that is being made, however many sessions are heavy.
 *
 * A session is heavy by a single command, or by what those of one commit did together, of which each is much more work than its bytes say: many of
 * them wait in the inbox, which is bounded by bytes. It is no longer when LIGHT_MIN in succession were light: one between
 * two large ones is no reason to let the next in ahead of others'. Order within a session stays.
 */
#include "broker/engine/engine_internal.h"

enum { COMMIT_WORK_MAX = 65536, HEAVY_WORK_MIN = 32768, BYTES_PER_RECORD = 1024, STEPS_PER_RECORD = 32 };

enum { LIGHT_MIN = 16 };

/* More work than its bytes say: a record for fewer of its bytes than that, and not by a few. */
enum { SUMMED_MIN = 256, SUMMED_BYTES_PER_RECORD = 16 };

uint64_t heavy_work(const struct engine *engine)
{
	struct core_work work = core_batch_work(engine->core);

	return work.records + work.bytes / BYTES_PER_RECORD + work.steps / STEPS_PER_RECORD;
}

static size_t place_of(const struct heavy *heavy, const struct submission *submission)
{
	size_t i = 0;

	while (i < heavy->count && (heavy->sessions[i].session != submission->command.session ||
				    heavy->sessions[i].gateway != submission->command.gateway))
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
 * for, a new one takes the place of the one with the least, and its sum too. So one that did half of a commit is found, however many
 * others did a little before it; and who is taken for one did three eighths at least.
 */
static uint64_t sum_up(struct heavy *heavy, const struct submission *submission, uint64_t work)
{
	size_t i = 0, least = 0;

	while (i < heavy->sum_count && (heavy->sums[i].session != submission->command.session ||
					heavy->sums[i].gateway != submission->command.gateway))
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
	} else if (is) {
		struct heavy_session *session = &heavy->sessions[place_of(heavy, submission)];

		session->light = work < HEAVY_WORK_MIN / 4 ? session->light + 1 : 0;
		if (session->light == LIGHT_MIN)
			*session = heavy->sessions[--heavy->count];
	}
	return heavy_work(engine) >= COMMIT_WORK_MAX;
}

static bool same_session(const struct submission *a, const struct submission *b)
{
	return a->command.gateway == b->command.gateway && a->command.session == b->command.session;
}

/* The session's own behind all others', and those of sessions that are not heavy first: they would
 * wait for one commit of each heavy session otherwise. What comes meanwhile is behind the heavy
 * ones, so these have their turn, too. */
static void lane_turn(const struct heavy *heavy, struct lane *lane, const struct submission *last)
{
	struct lane parts[] = {{NULL, &parts[0].head}, {NULL, &parts[1].head}, {NULL, &parts[2].head}};
	struct submission *submission;

	while ((submission = lane_pop(lane)) != NULL) {
		int part = same_session(submission, last)		? 2
			   : place_of(heavy, submission) < heavy->count ? 1
									: 0;

		lane_push(&parts[part], submission);
	}
	for (int part = 0; part < 3; part++)
		while ((submission = lane_pop(&parts[part])) != NULL)
			lane_push(lane, submission);
}

void heavy_return(struct engine *engine, const struct submission *last)
{
	struct batch *batch = &engine->batch;
	struct taken *taken = &engine->taken;

	while (batch->count > batch->end) {
		struct submission *submission = batch->submissions[--batch->count];

		submission->forced_code = 0; /* admission is asked again */
		batch->bytes -= submission->bytes;
		lane_push_first(submission->control ? &taken->control : &taken->data, submission);
	}
	if (!heavy_is(&engine->heavy, last))
		return;
	lane_turn(&engine->heavy, &taken->control, last);
	lane_turn(&engine->heavy, &taken->data, last);
}
