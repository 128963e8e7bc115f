/* SPDX-License-Identifier: Apache-2.0
 * Stored records and their keys: no decoder may read beyond their bytes. */
#include "broker/core/base/age.h"
#include "broker/core/base/name.h"
#include "broker/core/job/history.h"
#include "broker/core/job/live.h"
#include "broker/core/job/quarantine.h"
#include "broker/core/job/source.h"
#include "broker/core/publish/producer_cell.h"
#include "broker/core/queue/queue.h"
#include "broker/core/queue/record.h"
#include "broker/core/session/session.h"
#include "broker/core/stream/stream.h"
#include "fuzz.h"

static void item(struct sluice_slice value)
{
	struct queue_item item;

	if (queue_item_decode(value, &item) != 0)
		return;
	REQUIRE(item.dead_from.len + item.dead_reason.len + item.last_reason.len + item.body.len +
			QUEUE_ITEM_FIXED_BYTES ==
		value.len);
}

static void grant(struct sluice_slice value)
{
	struct queue_grant grant;

	if (grant_decode(value, &grant) != 0)
		return;
	REQUIRE(grant.bits <= sizeof(grant.bitmap) * 8);
}

static void live(struct sluice_slice value)
{
	struct job_live live;

	if (job_live_decode(value, &live) != 0)
		return;
	REQUIRE(live.claim < JOB_CLAIM_COUNT && job_claim_name(live.claim) != NULL);
}

/* The decoded slices lie within the value. */
static void within(struct sluice_slice value, struct sluice_slice part)
{
	const uint8_t *at = part.data, *begin = value.data;

	REQUIRE(part.len == 0 || (at >= begin && at + part.len <= begin + value.len));
}

static void texts(struct sluice_slice value)
{
	struct quarantine_value row;
	struct job_history_row history;
	struct job_record record;
	struct session session;
	struct source source;

	if (session_decode(value, &session) == 0) {
		within(value, session.name);
		within(value, session.client);
		within(value, session.principal);
		within(value, session.via);
		within(value, session.address);
	}
	if (source_decode(value, &source) == 0) {
		within(value, source.name);
		within(value, source.text);
	}
	if (job_record_decode(value, &record) == 0)
		REQUIRE(record.meta.len + record.payload.len + JOB_RECORD_HEAD_BYTES == value.len);
	if (job_history_decode(value, &history) == 0)
		within(value, history.row);
	if (quarantine_value_decode(value, &row) == 0) {
		within(value, row.row);
		within(value, row.report);
	}
}

static void cells(struct sluice_slice value)
{
	struct producer_cell producer;
	struct segment_info segment;
	struct queue_cell queue;
	struct log_cell log;
	struct age age;

	if (producer_cell_decode(value, &producer) == 0) {
		within(value, producer.name);
		within(value, producer.principal);
		within(value,
		       (struct sluice_slice){producer.answers, (size_t)producer.answer_count *
								       PRODUCER_ANSWER_BYTES});
	}
	if (segment_decode(value, 0, &segment) == 0) {
		within(value, segment.segment.subject);
		within(value, segment.segment.payload);
	}
	(void)(queue_cell_decode(value, &queue) + log_cell_decode(value, &log));
	if (age_decode(value, &age) == 0)
		REQUIRE(age.shift_count <= AGE_SHIFTS_MAX);
}

static void keys(struct sluice_slice key)
{
	struct hot_cursor_key cursor;
	struct orphan_key orphan;
	struct owned_key owned;
	struct timer_key timer;
	struct ready_key ready;
	struct name_key name;
	struct topo_key topo;
	struct hot_key hot;
	struct one_key one;
	struct two_key two;
	struct edge_name edge;
	struct sluice_slice rest;
	uint64_t stream;

	(void)key_hot_cursor_decode(key, &cursor), (void)key_orphan_decode(key, &orphan);
	(void)key_owned_decode(key, &owned), (void)key_timer_decode(key, &timer);
	(void)key_ready_decode(key, &ready), (void)key_topo_decode(key, &topo);
	(void)key_hot_decode(key, &hot), (void)key_one_decode(key, &one),
		(void)key_two_decode(key, &two);
	(void)key_is_under(key, 1, 1);
	if (!key_name_decode(key, &name))
		return;
	within(key, name.name);
	if (edge_name_decode(name.name, &edge))
		within(key, edge.pattern);
	if (cursor_name_decode(name.name, &stream, &rest))
		within(key, rest);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *own = exactly(size);

	if (size > 0)
		memcpy(own, data, size);
	item((struct sluice_slice){own, size});
	grant((struct sluice_slice){own, size});
	live((struct sluice_slice){own, size});
	texts((struct sluice_slice){own, size});
	cells((struct sluice_slice){own, size});
	keys((struct sluice_slice){own, size});
	free(own);
	return 0;
}
