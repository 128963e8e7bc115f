/* SPDX-License-Identifier: Apache-2.0
 *
 * Publishing. A batch whose events all go to the same targets is stored in streams as it was sent, compressed
 * or not; a batch with subjects per event is cut into runs with the same targets. Queues get each event by
 * itself.
 *
 * A batch is checked whole, routed and given room before its first write: it is refused as a whole or done as
 * a whole.
 */
#include "broker/core/publish.h"

#include <stdlib.h>

#include "broker/core/producer.h"
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
	/* targets of all events, or of the run at hand, in core->targets */
	size_t target_count;
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

/* The first place that an event reached is what the answer names. */
static void reached(struct publish *p, uint64_t offset)
{
	if (p->out->offset == NO_OFFSET)
		p->out->offset = offset;
}

/* ---- writes ---- */

int publish_item(struct apply *a, uint64_t queue, const struct envelope *envelope,
		 struct sluice_slice subject, uint64_t time_ms, uint32_t delay_ms, uint64_t *ret_seq)
{
	struct queue_put_spec spec = {.envelope = envelope->encoded,
				      .time_ms = time_ms,
				      .priority = envelope->priority,
				      .delay_ms = delay_ms};

	if (envelope->subject.len == 0) {
		struct scratch *scratch = &a->core->envelope;
		struct envelope whole = *envelope;
		int rc;

		whole.subject = subject;
		rc = scratch_reserve(scratch, envelope_size_max(&whole));
		if (rc != 0)
			return rc;
		spec.envelope = (struct sluice_slice){scratch->data, envelope_encode(scratch->data, &whole)};
	}
	return queue_put(a, queue, &spec, ret_seq);
}

static int event_to_queues(struct publish *p, const struct envelope *envelope,
			   const struct route_target *targets, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t seq;
		int rc;

		if (targets[i].kind != SLUICE__TARGET_KIND__TARGET_QUEUE)
			continue;
		rc = publish_item(p->a, targets[i].id, envelope, p->m->subject, p->time_ms, p->delay_ms,
				  &seq);
		if (rc != 0)
			return rc;
		reached(p, seq);
	}
	return 0;
}

/* Consecutive events of the batch that go to the same targets. */
struct run {
	uint32_t first, count;
	const uint8_t *from;
	size_t bytes;
	int64_t time_max;
};

static int run_to_streams(struct publish *p, const struct run *run)
{
	const struct frame_publish *m = p->m;
	bool whole = run->count == m->count;
	struct append_spec spec = {.subject = m->subject,
				   .payload =
					   whole ? m->payload : (struct sluice_slice){run->from, run->bytes},
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

/* ---- one set of targets ---- */

static int room_check(struct publish *p)
{
	for (size_t i = 0; i < p->target_count; i++) {
		int rc;

		if (targets_of(p)[i].kind != SLUICE__TARGET_KIND__TARGET_QUEUE)
			continue;
		rc = queue_room_check(p->a, targets_of(p)[i].id, SLUICE__QUEUE_KIND__QUEUE_ITEMS, p->m->count,
				      p->out);
		if (rc != 0 || refused(p->out))
			return rc;
	}
	return 0;
}

static bool has_queue(const struct publish *p)
{
	for (size_t i = 0; i < p->target_count; i++) {
		if (targets_of(p)[i].kind == SLUICE__TARGET_KIND__TARGET_QUEUE)
			return true;
	}
	return false;
}

static int publish_together(struct publish *p)
{
	struct run run = {.count = p->m->count, .time_max = p->time_max};
	struct sluice_slice rest = p->raw;
	const char *why = NULL;
	int rc;

	if (p->target_count == 0 && (p->m->flags & PUBLISH_MANDATORY) != 0)
		return refuse(p->out, SLUICE_E_NO_ROUTE, "nothing is bound to subject '%.*s'",
			      (int)p->m->subject.len, (const char *)p->m->subject.data);
	rc = room_check(p);
	if (rc != 0 || refused(p->out))
		return rc;
	rc = run_to_streams(p, &run);
	for (uint32_t i = 0; rc == 0 && i < p->m->count && has_queue(p); i++) {
		struct envelope envelope;

		rc = envelope_next(&rest, &envelope, &why);
		if (rc == 0)
			rc = event_to_queues(p, &envelope, targets_of(p), p->target_count);
	}
	return rc;
}

/* ---- subjects per event ---- */

struct queue_need {
	uint64_t queue;
	uint32_t count;
};

struct needs {
	struct queue_need *needs;
	size_t count, capacity;
};

static int need_add(struct needs *needs, uint64_t queue)
{
	for (size_t i = needs->count; i > 0; i--) {
		if (needs->needs[i - 1].queue == queue) {
			needs->needs[i - 1].count++;
			return 0;
		}
	}
	if (needs->count == needs->capacity) {
		size_t capacity = needs->capacity == 0 ? 16 : needs->capacity * 2;
		struct queue_need *grown = realloc(needs->needs, capacity * sizeof(*grown));

		if (grown == NULL)
			return SLUICE_E_NOMEM;
		needs->needs = grown;
		needs->capacity = capacity;
	}
	needs->needs[needs->count++] = (struct queue_need){queue, 1};
	return 0;
}

/* First pass: everything that can refuse the batch. */
static int check_each(struct publish *p, struct needs *needs)
{
	struct sluice_slice rest = p->raw;
	const char *why = NULL;
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < p->m->count; i++) {
		const struct route_target *targets;
		struct envelope envelope;
		size_t count;

		rc = envelope_next(&rest, &envelope, &why);
		if (rc == 0)
			rc = router_route(p->a, 0, envelope.subject, &targets, &count);
		if (rc == 0 && count == 0 && (p->m->flags & PUBLISH_MANDATORY) != 0)
			return refuse(p->out, SLUICE_E_NO_ROUTE,
				      "nothing is bound to subject '%.*s' of event %u",
				      (int)envelope.subject.len, (const char *)envelope.subject.data, i);
		for (size_t t = 0; rc == 0 && t < count; t++) {
			if (targets[t].kind == SLUICE__TARGET_KIND__TARGET_QUEUE)
				rc = need_add(needs, targets[t].id);
		}
	}
	for (size_t i = 0; rc == 0 && i < needs->count && !refused(p->out); i++)
		rc = queue_room_check(p->a, needs->needs[i].queue, SLUICE__QUEUE_KIND__QUEUE_ITEMS,
				      needs->needs[i].count, p->out);
	return rc;
}

static bool same_targets(const struct publish *p, const struct route_target *targets, size_t count)
{
	if (count != p->target_count)
		return false;
	for (size_t i = 0; i < count; i++) {
		if (targets[i].kind != targets_of(p)[i].kind || targets[i].id != targets_of(p)[i].id)
			return false;
	}
	return true;
}

/* Second pass: queues event by event, streams run by run. */
static int write_each(struct publish *p)
{
	struct run run = {.from = p->raw.data, .time_max = INT64_MIN};
	struct sluice_slice rest = p->raw;
	const char *why = NULL;
	int rc = 0;

	p->target_count = 0;
	for (uint32_t i = 0; rc == 0 && i < p->m->count; i++) {
		const struct route_target *targets;
		struct envelope envelope;
		size_t count;

		rc = envelope_next(&rest, &envelope, &why);
		if (rc == 0)
			rc = router_route(p->a, 0, envelope.subject, &targets, &count);
		if (rc == 0 && !same_targets(p, targets, count)) {
			rc = run_to_streams(p, &run);
			run = (struct run){.first = i, .from = envelope.encoded.data, .time_max = INT64_MIN};
			if (rc == 0)
				rc = targets_keep(p, targets, count);
		}
		if (rc != 0)
			return rc;
		run.count++;
		run.bytes += envelope.encoded.len;
		run.time_max = envelope.time_delta_ms > run.time_max ? envelope.time_delta_ms : run.time_max;
		rc = event_to_queues(p, &envelope, targets_of(p), p->target_count);
	}
	return rc != 0 ? rc : run_to_streams(p, &run);
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
		return refuse(out, SLUICE_E_LIMIT, "the batch has %u events; at most %llu", m->count,
			      (unsigned long long)LIMIT_BATCH_EVENTS_MAX);
	if (m->raw_bytes > LIMIT_BATCH_RAW_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the batch has %u bytes; at most %llu", m->raw_bytes,
			      (unsigned long long)LIMIT_BATCH_RAW_BYTES_MAX);
	if (m->target_kind > PUBLISH_TO_STREAM || m->codec > BATCH_ZSTD ||
	    (m->codec == BATCH_RAW && m->raw_bytes != m->payload.len))
		return refuse(out, SLUICE_E_PROTOCOL,
			      "target kind %u, codec %u, %u bytes: not a publish of this version",
			      m->target_kind, m->codec, m->raw_bytes);
	if (m->subject.len == 0)
		return 0;
	rc = subject_check(m->subject, &why);
	return rc == 0 ? 0 : refuse(out, rc, "subject: %s", why);
}

/* Targets of a batch that has one set of them. */
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
		return rc != 0 ? rc : targets_keep(p, targets, count);
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
			      (int)(m->target.len < 200 ? m->target.len : 200), (const char *)m->target.data);
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

int publish_batch(struct apply *a, const struct frame_publish *m, uint32_t delay_ms, struct outcome *out)
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
