/* SPDX-License-Identifier: Apache-2.0
 *
 * Work of a commit. A batch is bounded by the bytes of its commands, but a publish of 140 KB may be 100,000 items, and a hundred of them one
 * batch. A commit ends when so much work was done; what is left goes back to its lane, behind the others' when the session that did the work
 * has more: such a session's commands then have commits of their own, in turns with everybody else's.
 *
 * A session is heavy by a single command, and no longer when one was light. Order within a session stays.
 */
#include "broker/engine/engine_internal.h"

enum { COMMIT_WORK_MAX = 65536, HEAVY_WORK_MIN = 32768, BYTES_PER_RECORD = 1024 };

uint64_t heavy_work(const struct engine *engine)
{
	struct core_work work = core_batch_work(engine->core);

	return work.records + work.bytes / BYTES_PER_RECORD;
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

bool heavy_command(struct engine *engine, const struct submission *submission, uint64_t work)
{
	struct heavy *heavy = &engine->heavy;
	bool is = heavy_is(heavy, submission);

	if (!is && work >= HEAVY_WORK_MIN && submission->sink != NULL) {
		/* Beyond so many the one that was heavy first is a session like any other until its next. */
		if (heavy->count == HEAVY_SESSIONS_MAX)
			heavy->sessions[0] = heavy->sessions[--heavy->count];
		heavy->sessions[heavy->count++] =
			(struct heavy_session){submission->command.gateway, submission->command.session};
	} else if (is && work < HEAVY_WORK_MIN / 4) {
		heavy->sessions[place_of(heavy, submission)] = heavy->sessions[--heavy->count];
	}
	return heavy_work(engine) >= COMMIT_WORK_MAX;
}

static bool same_session(const struct submission *a, const struct submission *b)
{
	return a->command.gateway == b->command.gateway && a->command.session == b->command.session;
}

void heavy_return(struct engine *engine, const struct submission *last)
{
	struct batch *batch = &engine->batch;
	struct lane *data = &engine->taken.data, others, own;
	struct submission *submission;

	while (batch->count > batch->end) {
		submission = batch->submissions[--batch->count];
		submission->forced_code = 0; /* admission is asked again */
		batch->bytes -= submission->bytes;
		lane_push_first(submission->control ? &engine->taken.control : data, submission);
	}
	if (!heavy_is(&engine->heavy, last))
		return;
	others = own = (struct lane){NULL, NULL};
	others.tail = &others.head;
	own.tail = &own.head;
	while ((submission = lane_pop(data)) != NULL)
		lane_push(same_session(submission, last) ? &own : &others, submission);
	while ((submission = lane_pop(&others)) != NULL)
		lane_push(data, submission);
	while ((submission = lane_pop(&own)) != NULL)
		lane_push(data, submission);
}
