/* SPDX-License-Identifier: Apache-2.0
 *
 * Publishing. A batch whose events all go to the same targets is stored in streams as it was sent,
 * compressed or not; a batch with subjects per event is split into runs with the same targets.
 * Queues store each event by itself.
 *
 * A batch is checked completely, routed, and its room checked before its first write: it is refused
 * or done as a whole.
 */
#include <stdlib.h>

#include "broker/core/base/name.h"
#include "broker/core/base/state.h"
#include "broker/core/publish/producer.h"
#include "broker/core/publish/publish.h"
#include "broker/core/queue/queue.h"
#include "broker/core/router/image.h"
#include "broker/core/stream/stream.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

#define NO_OFFSET UINT64_MAX

struct publish {
	struct apply *a;
	const struct frame_publish *m;
	struct sluice_slice raw;
	uint64_t time_ms;
	uint32_t delay_ms;
	int64_t time_max;
	struct outcome *out;
	/* targets of all events, or of the current run, in core->targets */
	size_t target_count;
	size_t queues_most, streams_most; /* of one event */
};

static struct route_target *targets_of(const struct publish *p)
{
	return (struct route_target *)p->a->core->targets.data;
}

static int targets_keep(struct publish *p, const struct route_target *targets, size_t count)
{
	int rc = scratch_reserve(&p->a->core->targets, (count + 1) * sizeof(*targets));

	if (rc != 0)
		return rc;
	if (count > 0)
		memcpy(p->a->core->targets.data, targets, count * sizeof(*targets));
	p->target_count = count;
	return 0;
}

/* The answer names the first target that an event reached. */
static void reached(struct publish *p, uint64_t offset)
{
	if (p->out->offset == NO_OFFSET)
		p->out->offset = offset;
}

/* ---- writes ---- */

/* Consecutive events of the batch that go to the same targets. */
struct run {
	uint32_t first, count;
	const uint8_t *from;
	size_t bytes;
	int64_t time_max;
};

static struct queue_put_event *puts_of(const struct publish *p)
{
	return (struct queue_put_event *)p->a->core->puts.data;
}

/* The run's events as queues store them: each with its subject. ret->bytes is the batch, or a
 * buffer of core. */
static int puts_make(struct publish *p, const struct run *run, struct queue_put_run *ret)
{
	struct sluice_slice rest = {run->from, run->bytes};
	struct scratch *whole = &p->a->core->envelope;
	bool hoisted = p->m->subject.len > 0;
	const char *why = NULL;
	size_t at = 0;
	int rc = scratch_reserve(&p->a->core->puts, run->count * sizeof(struct queue_put_event));

	for (uint32_t i = 0; i < run->count && rc == 0; i++) {
		struct queue_put_event *put = &puts_of(p)[i];
		struct envelope envelope;

		rc = envelope_next(&rest, &envelope, &why);
		if (rc != 0)
			break;
		*put = (struct queue_put_event){.at = (size_t)((const uint8_t *)
								       envelope.encoded.data -
							       run->from),
						.bytes = envelope.encoded.len,
						.priority = envelope.priority};
		if (!hoisted)
			continue;
		envelope.subject = p->m->subject;
		rc = scratch_reserve(whole, at + envelope_size_max(&envelope));
		if (rc == 0) {
			put->at = at;
			put->bytes = envelope_encode(whole->data + at, &envelope);
			at += put->bytes;
		}
	}
	*ret = (struct queue_put_run){.events = puts_of(p),
				      .count = run->count,
				      .bytes = hoisted ? whole->data : run->from,
				      .time_ms = p->time_ms,
				      .delay_ms = p->delay_ms};
	return rc;
}

/* Queue by queue, so that neighbouring records are written together. */
static int run_to_queues(struct publish *p, const struct run *run)
{
	struct queue_put_run puts;
	bool made = false;
	int rc = 0;

	for (size_t i = 0; i < p->target_count && run->count > 0 && rc == 0; i++) {
		uint64_t seq;

		if (targets_of(p)[i].kind != SLUICE__TARGET_KIND__TARGET_QUEUE)
			continue;
		if (!made)
			rc = puts_make(p, run, &puts);
		made = true;
		if (rc == 0)
			rc = queue_put_run(p->a, targets_of(p)[i].id, &puts, &seq);
		if (rc == 0)
			reached(p, seq);
	}
	return rc;
}

static int run_to_streams(struct publish *p, const struct run *run)
{
	const struct frame_publish *m = p->m;
	bool whole = run->count == m->count;
	struct append_spec spec = {.subject = m->subject,
				   .payload = whole ? m->payload
						    : (struct sluice_slice){run->from, run->bytes},
				   .codec = whole ? m->codec : BATCH_RAW,
				   .raw_bytes = whole ? m->raw_bytes : (uint32_t)run->bytes,
				   .count = run->count,
				   .time_ms = p->time_ms,
				   .time_delta_max_ms = run->time_max,
				   .producer = m->producer,
				   .epoch = m->epoch,
				   .first_seq = m->first_seq + (m->producer != 0 ? run->first : 0)};

	for (size_t i = 0; i < p->target_count && run->count > 0; i++) {
		uint64_t offset;
		int rc;

		if (targets_of(p)[i].kind != SLUICE__TARGET_KIND__TARGET_STREAM)
			continue;
		rc = stream_append(p->a, targets_of(p)[i].id, &spec, &offset);
		if (rc != 0)
			return rc;
		reached(p, offset);
	}
	return 0;
}

static int run_write(struct publish *p, const struct run *run)
{
	int rc = run_to_streams(p, run);

	return rc != 0 ? rc : run_to_queues(p, run);
}

/* ---- bounds on the puts of one command ---- */

static size_t queue_count(const struct publish *p)
{
	size_t count = 0;

	for (size_t i = 0; i < p->target_count; i++)
		count += targets_of(p)[i].kind == SLUICE__TARGET_KIND__TARGET_QUEUE;
	return count;
}

static void targets_most(struct publish *p)
{
	size_t queues = queue_count(p), streams = p->target_count - queues;

	p->queues_most = queues > p->queues_most ? queues : p->queues_most;
	p->streams_most = streams > p->streams_most ? streams : p->streams_most;
}

/* Adds a run's records and bytes to those of the batch: an item per event and queue, a segment per
 * stream. */
static void amount_add(const struct publish *p, const struct run *run, struct core_work *io)
{
	uint64_t queues = queue_count(p), streams = p->target_count - queues;

	io->records += run->count * queues + streams;
	io->bytes += (run->bytes + (uint64_t)run->count * p->m->subject.len) * queues +
		     run->bytes * streams;
}

/* Both are products without another limit: events x queues, bytes x targets. */
static int amount_check(const struct publish *p, const struct core_work *more, struct outcome *out)
{
	struct core_work before = core_command_work(p->a->core);
	const char *and_before =
		before.records > 0 ? " with the transaction's operations before" : "";

	if (before.records + more->records > LIMIT_PUBLISH_PUTS_MAX)
		return refuse(out, SLUICE_E_LIMIT,
			      "%u events, each to at most %zu queues and %zu streams: counted as "
			      "%llu records%s; "
			      "at most %llu in one command: publish fewer at once, or bind fewer",
			      p->m->count, p->queues_most, p->streams_most,
			      (unsigned long long)(before.records + more->records), and_before,
			      (unsigned long long)LIMIT_PUBLISH_PUTS_MAX);
	if (before.bytes + more->bytes > LIMIT_PUBLISH_PUT_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT,
			      "%zu bytes, each to at most %zu queues and %zu streams: %llu "
			      "bytes%s; at most "
			      "%llu in one command: publish fewer at once, or bind fewer",
			      p->raw.len, p->queues_most, p->streams_most,
			      (unsigned long long)(before.bytes + more->bytes), and_before,
			      (unsigned long long)LIMIT_PUBLISH_PUT_BYTES_MAX);
	return 0;
}

/* ---- one set of targets ---- */

enum { REACHED_RECORDS = 5 };

/* Checks for room for count events in a queue; *io->records grows by their records. */
static int room_check(struct publish *p, uint64_t queue, uint64_t count, struct core_work *io)
{
	uint32_t each;
	int rc = queue_room_check_records(p->a, queue, SLUICE__QUEUE_KIND__QUEUE_ITEMS,
					  (uint32_t)count, &each, p->out);

	/* amount_add has counted the items themselves. Each queue costs a page of the store;
	 * further items cost little. */
	io->records += count * (each - 1 + (p->delay_ms > 0)) + REACHED_RECORDS;
	return rc;
}

static int publish_together(struct publish *p)
{
	struct run run = {.count = p->m->count,
			  .from = p->raw.data,
			  .bytes = p->raw.len,
			  .time_max = p->time_max};
	struct core_work amount = {0};
	int rc = 0;

	if (p->target_count == 0 && (p->m->flags & PUBLISH_MANDATORY) != 0)
		return refuse(p->out, SLUICE_E_NO_ROUTE, "nothing is bound to subject '%.*s'",
			      (int)p->m->subject.len, (const char *)p->m->subject.data);
	targets_most(p);
	amount_add(p, &run, &amount);
	rc = amount_check(p, &amount, p->out);
	for (size_t i = 0; i < p->target_count && rc == 0 && !refused(p->out); i++) {
		if (targets_of(p)[i].kind == SLUICE__TARGET_KIND__TARGET_QUEUE)
			rc = room_check(p, targets_of(p)[i].id, p->m->count, &amount);
	}
	if (rc == 0 && !refused(p->out))
		rc = amount_check(p, &amount, p->out);
	return rc != 0 || refused(p->out) ? rc : run_write(p, &run);
}

/* ---- subjects per event ---- */

/* The number of items for a queue; one entry per run and queue, merged after sorting. */
struct queue_need {
	uint64_t queue;
	uint64_t count;
};

struct needs {
	struct queue_need *needs;
	size_t count, capacity;
};

static int need_add(struct needs *needs, uint64_t queue, uint32_t count)
{
	if (needs->count == needs->capacity) {
		size_t capacity = needs->capacity == 0 ? 16 : needs->capacity * 2;
		struct queue_need *grown = realloc(needs->needs, capacity * sizeof(*grown));

		if (grown == NULL)
			return SLUICE_E_NOMEM;
		needs->needs = grown;
		needs->capacity = capacity;
	}
	needs->needs[needs->count++] = (struct queue_need){queue, count};
	return 0;
}

static int need_compare(const void *left, const void *right)
{
	uint64_t a = ((const struct queue_need *)left)->queue,
		 b = ((const struct queue_need *)right)->queue;

	return a < b ? -1 : a > b;
}

static int needs_check(struct publish *p, struct needs *needs, struct core_work *io)
{
	size_t i = 0;
	int rc = 0;

	if (needs->count > 1)
		qsort(needs->needs, needs->count, sizeof(*needs->needs), need_compare);
	while (i < needs->count && rc == 0 && !refused(p->out)) {
		uint64_t queue = needs->needs[i].queue, count = 0;

		for (; i < needs->count && needs->needs[i].queue == queue; i++)
			count += needs->needs[i].count;
		rc = room_check(p, queue, count, io);
	}
	return rc;
}

static bool same_targets(const struct publish *p, const struct route_target *targets, size_t count)
{
	if (count != p->target_count)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (targets[i].kind != targets_of(p)[i].kind ||
		    targets[i].id != targets_of(p)[i].id)
			return false;
	}
	return true;
}

/* The events from *io_rest on with the same targets, which are put into core->targets. */
struct runs {
	struct sluice_slice rest;
	uint32_t at;		     /* event */
	bool check;		     /* the first pass */
	struct sluice_slice subject; /* of the run's last event */
	struct run run;
};

/* Many patterns may have the beginning of a subject and match nothing: the search is counted as
 * work, too. */
static int steps_check(const struct publish *p)
{
	uint64_t steps = core_command_work(p->a->core).steps;

	if (steps <= LIMIT_ROUTE_STEPS_MAX)
		return 0;
	return refuse(p->out, SLUICE_E_LIMIT,
		      "%u events, whose subjects share prefixes with many patterns: "
		      "finding their targets took more than %llu steps in one command: "
		      "publish fewer at once, or bind fewer patterns",
		      p->m->count, (unsigned long long)LIMIT_ROUTE_STEPS_MAX);
}

/* The targets of an event; when it has the same subject as the one before, they are in
 * core->targets already. */
static int route_event(struct publish *p, struct runs *runs, struct sluice_slice subject,
		       const struct route_target **ret, size_t *ret_count)
{
	int rc;

	if (runs->run.count > 0 && subject.len == runs->subject.len &&
	    memcmp(subject.data, runs->subject.data, subject.len) == 0) {
		*ret = targets_of(p);
		*ret_count = p->target_count;
		return 0;
	}
	runs->subject = subject;
	rc = router_route(p->a, 0, subject, ret, ret_count);
	return rc != 0 || !runs->check ? rc : steps_check(p);
}

static int run_next(struct publish *p, struct runs *runs)
{
	const char *why = NULL;
	int rc = 0;

	runs->run = (struct run){.first = runs->at, .from = runs->rest.data, .time_max = INT64_MIN};
	while (runs->at < p->m->count) {
		struct sluice_slice rest = runs->rest;
		const struct route_target *targets;
		struct envelope envelope;
		size_t count;

		rc = envelope_next(&rest, &envelope, &why);
		if (rc == 0)
			rc = route_event(p, runs, envelope.subject, &targets, &count);
		if (rc != 0 || (runs->check && refused(p->out)))
			return rc;
		if (count == 0 && runs->check && (p->m->flags & PUBLISH_MANDATORY) != 0)
			return refuse(p->out, SLUICE_E_NO_ROUTE,
				      "nothing is bound to subject '%.*s' of event %u",
				      (int)envelope.subject.len,
				      (const char *)envelope.subject.data, runs->at);
		if (runs->run.count > 0 && !same_targets(p, targets, count))
			return 0;
		if (runs->run.count == 0)
			rc = targets_keep(p, targets, count);
		if (rc != 0)
			return rc;
		runs->run.count++;
		runs->run.bytes += envelope.encoded.len;
		runs->run.time_max = envelope.time_delta_ms > runs->run.time_max
					     ? envelope.time_delta_ms
					     : runs->run.time_max;
		runs->rest = rest;
		runs->at++;
		if (runs->check && runs->run.count * count > LIMIT_PUBLISH_PUTS_MAX)
			return 0; /* above the bound already */
	}
	return 0;
}

/* First pass: all checks that can refuse the batch. It ends where the bound is exceeded, which
 * bounds its own work, too. */
static int check_each(struct publish *p, struct needs *needs)
{
	struct runs runs = {.rest = p->raw, .check = true};
	struct core_work amount = {0};
	int rc = 0;

	while (rc == 0 && !refused(p->out) && runs.at < p->m->count) {
		rc = run_next(p, &runs);
		if (rc != 0 || refused(p->out))
			return rc;
		targets_most(p);
		amount_add(p, &runs.run, &amount);
		rc = amount_check(p, &amount, p->out);
		for (size_t i = 0; rc == 0 && !refused(p->out) && i < p->target_count; i++) {
			if (targets_of(p)[i].kind == SLUICE__TARGET_KIND__TARGET_QUEUE)
				rc = need_add(needs, targets_of(p)[i].id, runs.run.count);
		}
	}
	if (rc == 0 && !refused(p->out))
		rc = needs_check(p, needs, &amount);
	return rc != 0 || refused(p->out) ? rc : amount_check(p, &amount, p->out);
}

/* Second pass. */
static int write_each(struct publish *p)
{
	struct runs runs = {.rest = p->raw};
	int rc = 0;

	while (rc == 0 && runs.at < p->m->count) {
		rc = run_next(p, &runs);
		if (rc == 0)
			rc = run_write(p, &runs.run);
	}
	return rc;
}

static int publish_each(struct publish *p)
{
	struct needs needs = {NULL, 0, 0};
	int rc = check_each(p, &needs);

	free(needs.needs);
	return rc != 0 || refused(p->out) ? rc : write_each(p);
}

/* ---- the batch ---- */

static int head_check(const struct frame_publish *m, struct outcome *out)
{
	const char *why = NULL;
	int rc;

	if (m->count == 0)
		return refuse(out, SLUICE_E_INVAL, "the batch has no events");
	if (m->count > LIMIT_BATCH_EVENTS_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the batch has %u events; at most %llu",
			      m->count, (unsigned long long)LIMIT_BATCH_EVENTS_MAX);
	if (m->raw_bytes > LIMIT_BATCH_RAW_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the batch has %u bytes; at most %llu",
			      m->raw_bytes, (unsigned long long)LIMIT_BATCH_RAW_BYTES_MAX);
	if (m->target_kind > PUBLISH_TO_STREAM || m->codec > BATCH_ZSTD ||
	    (m->codec == BATCH_RAW && m->raw_bytes != m->payload.len))
		return refuse(out, SLUICE_E_PROTOCOL,
			      "target kind %u, codec %u, %u bytes: not a publish of this version",
			      m->target_kind, m->codec, m->raw_bytes);
	if (m->subject.len == 0)
		return 0;
	rc = subject_check(m->subject, &why);
	return rc != 0 ? refuse(out, rc, "subject: %s", why) : 0;
}

/* Targets of a batch that has the same ones for all events. */
static int targets_find(struct publish *p)
{
	const struct frame_publish *m = p->m;
	const struct route_target *targets;
	struct route_target target;
	struct queue_ref queue;
	size_t count;
	int rc;

	if (m->target_kind == PUBLISH_TO_SUBJECT) {
		rc = router_route(p->a, 0, m->subject, &targets, &count);
		if (rc == 0)
			rc = steps_check(p);
		return rc != 0 || refused(p->out) ? rc : targets_keep(p, targets, count);
	}
	if (m->target_kind == PUBLISH_TO_QUEUE) {
		rc = core_queue_find(p->a->txn, p->a->gateway, m->target, &queue);
		target = (struct route_target){SLUICE__TARGET_KIND__TARGET_QUEUE, queue.id};
	} else {
		target.kind = SLUICE__TARGET_KIND__TARGET_STREAM;
		rc = name_find(p->a->txn, p->a->gateway, NAME_STREAM, m->target, &target.id);
	}
	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(p->out, rc, "%s '%.*s' does not exist",
			      m->target_kind == PUBLISH_TO_QUEUE ? "queue" : "stream",
			      (int)(m->target.len < 200 ? m->target.len : 200),
			      (const char *)m->target.data);
	return rc != 0 ? rc : targets_keep(p, &target, 1);
}

static int publish_checked(struct publish *p)
{
	const struct frame_publish *m = p->m;
	const char *why = NULL;
	int rc = batch_check(p->raw, m->count, m->subject.len > 0, NULL, &p->time_max, &why);

	if (rc != 0)
		return refuse(p->out, rc, "events: %s", why);
	if (m->target_kind == PUBLISH_TO_SUBJECT && m->subject.len == 0)
		return publish_each(p);
	rc = targets_find(p);
	return rc != 0 || refused(p->out) ? rc : publish_together(p);
}

int publish_batch(struct apply *a, const struct frame_publish *m, uint32_t delay_ms,
		  struct outcome *out)
{
	struct publish p = {.a = a, .m = m, .raw = m->payload, .delay_ms = delay_ms, .out = out};
	const char *why = NULL;
	uint8_t *raw = NULL;
	int rc;

	out->offset = NO_OFFSET;
	rc = head_check(m, out);
	if (rc != 0 || refused(out))
		return rc;
	p.time_ms = m->time_ms != 0 ? m->time_ms : a->wall_ms;
	if (m->codec == BATCH_ZSTD) {
		rc = batch_decompress(m->payload, m->raw_bytes, &raw, &why);
		if (rc == SLUICE_E_NOMEM)
			return rc;
		if (rc != 0)
			return refuse(out, rc, "events: %s", why);
		p.raw = (struct sluice_slice){raw, m->raw_bytes};
	}
	rc = publish_checked(&p);
	free(raw);
	return rc;
}

int publish_apply(struct apply *a, const struct frame_publish *m, struct outcome *out)
{
	struct producer_call call = {m->producer, m->epoch, m->first_seq, m->count, m->settled_seq};
	int rc;

	out->kind = OUT_PUBLISHED;
	out->seq = m->first_seq;
	out->count = m->count;
	out->offset = NO_OFFSET;
	if (m->producer == 0)
		return publish_batch(a, m, 0, out);
	rc = producer_begin(a, &call, out);
	if (rc != 0 || refused(out) || out->duplicate)
		return rc;
	rc = publish_batch(a, m, 0, out);
	return rc != 0 ? rc : producer_end(a, &call, out);
}
