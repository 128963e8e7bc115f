/* SPDX-License-Identifier: Apache-2.0
 * What the broker sends: answers, and lines that begin with `*`. */
#include "tests/line/face/line.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/envelope.h"

/* For "%.*s". */
#define TEXT(slice) \
	(int)((slice).len < LINE_WORD_MAX ? (slice).len : LINE_WORD_MAX), (const char *)(slice).data
#define ULL(number) (unsigned long long)(number)

/* ---- commands and reads ---- */

static void answered(struct conn *conn)
{
	struct line *line = door_state(conn);

	if (!line->holds)
		return;
	line->holds = false;
	door_hold(conn, false);
}

void line_reply(struct conn *conn, uint64_t tag, const struct outcome *outcome,
		struct sluice_slice payload)
{
	if (outcome->code != 0)
		line_answer(conn, tag, outcome->code, outcome->text);
	else
		line_say(conn,
			 "%llu OK index=%llu id=%llu seq=%llu offset=%lld count=%u payload=%zu",
			 ULL(tag), ULL(outcome->index), ULL(outcome->id), ULL(outcome->seq),
			 (long long)outcome->offset, outcome->count, payload.len);
	answered(conn);
}

void line_session(struct conn *conn, uint64_t tag, int code, const char *text,
		  const struct door_session *session)
{
	char secret[2 * sizeof(session->secret) + 1];

	if (code != 0) {
		line_answer(conn, tag, code, text);
	} else {
		for (size_t i = 0; i < sizeof(session->secret); i++) {
			secret[2 * i] = "0123456789abcdef"[session->secret[i] >> 4];
			secret[2 * i + 1] = "0123456789abcdef"[session->secret[i] & 15];
		}
		secret[sizeof(secret) - 1] = 0;
		line_say(conn, "%llu OK session=%llu secret=%s timeout=%u", ULL(tag),
			 ULL(session->session), secret, session->timeout_ms);
	}
	answered(conn);
}

void line_in_order(struct conn *conn, uint64_t tag, int rc, const Sluice__Request *request,
		   struct message_block **block, size_t bytes)
{
	if (rc == 0 && request->op_case == SLUICE__REQUEST__OP_JOB_WAIT)
		rc = door_job_wait(conn, tag,
				   (struct sluice_slice){request->job_wait->job,
							 strlen(request->job_wait->job)},
				   request->job_wait->number, request->job_wait->timeout_ms);
	else if (rc == 0)
		rc = door_read(conn, tag, block, request, bytes);
	if (rc != 0)
		line_answer_shown(conn, tag, rc, sluice_error_text(rc), 0);
}

void line_read_done(struct conn *conn, uint64_t tag, const struct read_result *result)
{
	door_answer(conn, tag, result->rc, result->reply, result->len, result->number);
}

void line_waited(struct conn *conn, uint64_t tag, const struct job_waited *result)
{
	if (!door_is_ending(conn))
		line_answer_reply(conn, tag, result->code, result->reply, result->len,
				  result->text);
}

/* ---- consumers ---- */

static void items(struct conn *conn, const struct door_sub *of, const struct effect *effect)
{
	struct sluice_slice rest = effect->payload;

	for (uint16_t r = 0; r < effect->run_count; r++)
		for (uint32_t i = 0; i < effect->runs[r].count; i++) {
			const uint8_t *at = rest.data; /* u16 attempts, u64 time */
			struct envelope envelope;
			const char *why;

			rest = (struct sluice_slice){at + 10, rest.len - 10};
			if (envelope_next(&rest, &envelope, &why) != 0)
				return;
			line_say(conn, "* %s %llu %llu %llu %u %.*s", of->closed ? "late" : "item",
				 ULL(of->number), ULL(effect->token),
				 ULL(effect->runs[r].first + i), at[0] << 8 | at[1],
				 TEXT(envelope.body));
		}
}

void line_effect(struct conn *conn, struct sub *sub, const struct effect *effect)
{
	struct door_sub of = {0};

	if (door_is_ending(conn))
		return;
	if (sub != NULL)
		door_sub_get(sub, &of);
	switch (effect->kind) {
	case FX_GRANT:
		items(conn, &of, effect);
		return;
	case FX_JOBS:
		line_say(conn, "* jobs %llu %u", ULL(of.number), effect->count);
		return;
	case FX_RESUMED:
		line_say(conn, "* resumed %llu", ULL(of.number));
		return;
	case FX_ITEM_DAMAGED:
		line_say(conn, "* damaged %llu %llu %.*s", ULL(of.number), ULL(effect->seq),
			 TEXT(effect->name));
		return;
	case FX_JOB_CANCEL:
		line_say(conn, "* cancel %.*s", TEXT(effect->name));
		return;
	case FX_LEASE_LOST:
		line_say(conn, "* lost %.*s", TEXT(effect->name));
		return;
	case FX_SESSION_ENDED:
		line_say(conn, "* ended %llu", ULL(effect->id));
		return;
	default:
		return;
	}
}

/* ---- followers ---- */

static int events(struct sub *sub, struct door_sub *of, const struct segment *segment,
		  struct sluice_slice raw)
{
	const struct sluice_slice filter = {of->filter,
					    of->filter != NULL ? strlen(of->filter) : 0};
	struct sluice_slice subject;

	for (uint32_t i = 0; i < segment->count && of->credit > 0; i++) {
		const uint64_t offset = segment->base + i;
		struct envelope envelope;
		const char *why;
		int rc = envelope_next(&raw, &envelope, &why);
		bool wanted;

		if (rc != 0)
			return rc;
		if (offset < of->next)
			continue;
		subject = segment->subject.len > 0 ? segment->subject : envelope.subject;
		wanted = of->filter == NULL || pattern_matches(filter, subject);
		of->next = offset + 1;
		of->credit -= wanted;
		door_delivered(sub, of->next, wanted);
		if (wanted)
			line_say(of->conn, "* event %llu %llu %.*s %.*s", ULL(of->number),
				 ULL(offset), TEXT(subject), TEXT(envelope.body));
	}
	return 0;
}

int line_deliver_segment(struct sub *sub, const struct segment *segment, uint64_t *io_budget)
{
	const uint64_t cost = segment->raw_bytes + SEGMENT_READ_COST;
	struct sluice_slice raw = segment->payload;
	struct door_sub of;
	uint8_t *plain = NULL;
	const char *why;
	int rc = 0;

	door_sub_get(sub, &of);
	*io_budget -= *io_budget < cost ? *io_budget : cost;
	if (of.raw && of.next <= segment->base && of.credit >= segment->count) {
		line_say(of.conn, "* raw %llu %llu %u %u", ULL(of.number), ULL(segment->base),
			 segment->count, segment->codec);
		door_delivered(sub, segment->last + 1, segment->count);
		return 0;
	}
	if (segment->codec != BATCH_RAW) {
		rc = batch_decompress(segment->payload, segment->raw_bytes, &plain, &why);
		raw = (struct sluice_slice){plain, segment->raw_bytes};
	}
	if (rc == 0)
		rc = events(sub, &of, segment, raw);
	free(plain);
	return rc;
}

void line_gap(struct sub *sub, uint64_t to_offset)
{
	struct door_sub of;

	door_sub_get(sub, &of);
	line_say(of.conn, "* gap %llu %llu", ULL(of.number), ULL(to_offset));
}

void line_caught_up(struct sub *sub)
{
	struct door_sub of;

	door_sub_get(sub, &of);
	line_say(of.conn, "* caught_up %llu %llu", ULL(of.number), ULL(of.next));
}

void line_subscription_end(struct sub *sub, int code, const char *text)
{
	struct door_sub of;

	door_sub_get(sub, &of);
	line_say(of.conn, "* end %llu %s %s", ULL(of.number), sluice_error_name(code), text);
}
