/* SPDX-License-Identifier: Apache-2.0
 * Encoding of the live record and the job record. */
#include <assert.h>

#include "broker/core/base/topo.h"
#include "broker/core/job/live.h"
#include "broker/util/invariant.h"

enum {
	AT_STATE = 0,
	AT_CLAIM = 1,
	AT_FLAGS = 2,
	AT_PRIORITY = 3,
	AT_ATTEMPT = 4,
	AT_LIFECYCLE = 8,
	AT_QUEUE = 12,
	AT_TOKEN = 20,
	AT_HOLDER = 28,
	AT_ENTRY = 36, /* format 1: or, of a GATED job, its due time */
	AT_HIST_LAST = 44,
	AT_HIST_INTENT = 52,
	AT_HIST_REF = 60,
	AT_HIST_REPORT = 68,
	AT_CHANGED = 76,
	/* Both formats are equal up to here. */
	AT_1_GATES = 84,
	AT_1_HIST_COUNT = 86,
	AT_1_END = 90,
	AT_HIST_COUNT = 84,
	AT_GATES_UNMET = 88,
	AT_GATES_OPEN = 92,
	AT_DUE = 96,
	AT_SOURCE = 104,
	AT_SEEN = 112,
	AT_SHARE_TAG = 120,
	AT_WAITS_IN = 128,
	AT_END = 136,
	META_STACK_BYTES = 2048,
};

static_assert((int)AT_END == (int)JOB_LIVE_BYTES && (int)AT_1_END == (int)JOB_LIVE_1_BYTES,
	      "the live record is on disk: its sizes are fixed");
static_assert(AT_1_GATES + 2 == AT_1_HIST_COUNT && AT_1_HIST_COUNT + 4 == AT_1_END &&
		      AT_WAITS_IN + 8 == AT_END,
	      "no gaps");

void job_live_encode(uint8_t *buf, const struct job_live *live)
{
	buf[AT_STATE] = live->state;
	buf[AT_CLAIM] = live->claim;
	buf[AT_FLAGS] = live->flags;
	buf[AT_PRIORITY] = live->priority;
	put_be32(buf + AT_ATTEMPT, live->attempt);
	put_be32(buf + AT_LIFECYCLE, live->lifecycle);
	put_be64(buf + AT_QUEUE, live->queue);
	put_be64(buf + AT_TOKEN, live->token);
	put_be64(buf + AT_HOLDER, live->holder);
	put_be64(buf + AT_ENTRY, live->entry);
	put_be64(buf + AT_HIST_LAST, live->hist_last);
	put_be64(buf + AT_HIST_INTENT, live->hist_intent);
	put_be64(buf + AT_HIST_REF, live->hist_ref);
	put_be64(buf + AT_HIST_REPORT, live->hist_report);
	put_be64(buf + AT_CHANGED, live->changed_ms);
	put_be32(buf + AT_HIST_COUNT, live->hist_count);
	put_be32(buf + AT_GATES_UNMET, live->gates_unmet);
	put_be32(buf + AT_GATES_OPEN, live->gates_open);
	put_be64(buf + AT_DUE, live->due_mono_ms);
	put_be64(buf + AT_SOURCE, live->source);
	put_be64(buf + AT_SEEN, live->seen);
	put_be64(buf + AT_SHARE_TAG, live->share_tag);
	put_be64(buf + AT_WAITS_IN, live->waits_in);
}

/* Fields that format 1 has elsewhere, or not at all. */
static void decode_1(const uint8_t *buf, struct job_live *ret)
{
	ret->hist_count = get_be32(buf + AT_1_HIST_COUNT);
	ret->gates_unmet = get_be16(buf + AT_1_GATES);
	ret->gates_open = 0;
	ret->due_mono_ms = ret->claim == JOB_GATED ? ret->entry : 0;
	ret->entry = ret->claim == JOB_GATED ? 0 : ret->entry;
	ret->source = ret->seen = ret->share_tag = ret->waits_in = 0;
}

static void decode_2(const uint8_t *buf, struct job_live *ret)
{
	ret->hist_count = get_be32(buf + AT_HIST_COUNT);
	ret->gates_unmet = get_be32(buf + AT_GATES_UNMET);
	ret->gates_open = get_be32(buf + AT_GATES_OPEN);
	ret->due_mono_ms = get_be64(buf + AT_DUE);
	ret->source = get_be64(buf + AT_SOURCE);
	ret->seen = get_be64(buf + AT_SEEN);
	ret->share_tag = get_be64(buf + AT_SHARE_TAG);
	ret->waits_in = get_be64(buf + AT_WAITS_IN);
}

int job_live_decode(struct sluice_slice value, struct job_live *ret)
{
	const uint8_t *buf = value.data;

	if ((value.len != JOB_LIVE_BYTES && value.len != JOB_LIVE_1_BYTES) ||
	    buf[AT_CLAIM] >= JOB_CLAIM_COUNT || (buf[AT_FLAGS] & ~JOB_FLAGS_ALL) != 0)
		return store_damaged("its content is not valid");
	ret->state = buf[AT_STATE];
	ret->claim = buf[AT_CLAIM];
	ret->flags = buf[AT_FLAGS];
	ret->priority = buf[AT_PRIORITY];
	ret->attempt = get_be32(buf + AT_ATTEMPT);
	ret->lifecycle = get_be32(buf + AT_LIFECYCLE);
	ret->queue = get_be64(buf + AT_QUEUE);
	ret->token = get_be64(buf + AT_TOKEN);
	ret->holder = get_be64(buf + AT_HOLDER);
	ret->entry = get_be64(buf + AT_ENTRY);
	ret->hist_last = get_be64(buf + AT_HIST_LAST);
	ret->hist_intent = get_be64(buf + AT_HIST_INTENT);
	ret->hist_ref = get_be64(buf + AT_HIST_REF);
	ret->hist_report = get_be64(buf + AT_HIST_REPORT);
	ret->changed_ms = get_be64(buf + AT_CHANGED);
	if (value.len == JOB_LIVE_1_BYTES)
		decode_1(buf, ret);
	else
		decode_2(buf, ret);
	return 0;
}

int job_live_get(struct store_txn *txn, uint32_t gateway, uint64_t job, struct job_live *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_one(&key, gateway, job);
	rc = store_get(txn, STORE_LIVE, key_slice(&key), &value);
	return rc != 0 ? rc : job_live_decode(value, ret);
}

/* Invariants of a live record, see live.h: a record that is put breaks none (an assertion); a
 * stored record that breaks one is damaged. An ended job keeps the time of its end in due_mono_ms,
 * and its history is deleted before it. */
#define LIVE_RULES(RULE, live)                                                                  \
	RULE((live)->claim < JOB_CLAIM_COUNT, "no such claim")                                  \
	RULE(((live)->entry != 0) == ((live)->claim == JOB_READY),                              \
	     "ready, and no entry, or an entry that is not ready")                              \
	RULE((live)->claim == JOB_NONE ||                                                       \
		     ((live)->due_mono_ms != 0) == ((live)->claim == JOB_GATED),                \
	     "delayed, and not due, or due and not delayed")                                    \
	RULE((live)->claim != JOB_LEASED || ((live)->holder != 0 && (live)->token != 0),        \
	     "leased by nobody")                                                                \
	RULE((live)->claim != JOB_ORPHANED || (live)->token != 0,                               \
	     "an orphan that was never leased")                                                 \
	RULE(((live)->claim != JOB_READY && (live)->claim != JOB_GATED) || (live)->holder == 0, \
	     "ready or delayed, and held")                                                      \
	RULE((live)->queue != 0, "no queue")                                                    \
	RULE((live)->attempt > 0, "attempt 0")                                                  \
	RULE(((live)->flags & ~JOB_FLAGS_ALL) == 0, "unknown flags")                            \
	RULE(!((live)->flags & JOB_INTENT) || (live)->hist_intent != 0 ||                       \
		     (live)->claim == JOB_NONE,                                                 \
	     "an intent without its row")                                                       \
	RULE(((live)->hist_count == 0) == ((live)->hist_last == 0),                             \
	     "a history without rows, or rows without it")                                      \
	RULE((live)->hist_intent <= (live)->hist_last, "an intent behind the last row")         \
	RULE((live)->hist_ref <= (live)->hist_last, "a reference behind the last row")          \
	RULE((live)->hist_report <= (live)->hist_last, "a report behind the last row")

const char *job_live_fault(const struct job_live *live)
{
#define LIVE_RULE_FAULT(condition, text) \
	if (!(condition))                \
		return text;
	LIVE_RULES(LIVE_RULE_FAULT, live)
#undef LIVE_RULE_FAULT
	return NULL;
}

static void live_check(uint64_t job, const struct job_live *live)
{
	invariant(job != 0, "job 0 of queue %llu", ULL(live->queue));
#define LIVE_RULE_CHECK(condition, text)                                                         \
	invariant(condition,                                                                     \
		  "job %llu: " text                                                              \
		  " (claim %u, flags %u, attempt %u, queue %llu, token %llu, holder %llu, "      \
		  "entry %llu, due %llu, %u rows: %llu, %llu, %llu, %llu)",                      \
		  ULL(job), live->claim, live->flags, live->attempt, ULL(live->queue),           \
		  ULL(live->token), ULL(live->holder), ULL(live->entry), ULL(live->due_mono_ms), \
		  live->hist_count, ULL(live->hist_last), ULL(live->hist_intent),                \
		  ULL(live->hist_ref), ULL(live->hist_report));
	LIVE_RULES(LIVE_RULE_CHECK, live)
#undef LIVE_RULE_CHECK
}

int job_live_put(struct apply *a, uint64_t job, const struct job_live *live)
{
	uint8_t buf[JOB_LIVE_BYTES];
	struct key key;

	live_check(job, live);
	key_one(&key, a->gateway, job);
	job_live_encode(buf, live);
	return store_put(a->txn, STORE_LIVE, key_slice(&key),
			 (struct sluice_slice){buf, sizeof(buf)});
}

const char *job_claim_name(uint8_t claim)
{
	static const char *const names[JOB_CLAIM_COUNT] = {"none",     "ready", "leased",
							   "orphaned", "gated", "held"};

	return claim < JOB_CLAIM_COUNT ? names[claim] : "unknown";
}

/* ---- the job record: u64 submit time, u64 index, u32 meta bytes, meta, payload ---- */

void job_record_head_encode(uint8_t head[JOB_RECORD_HEAD_BYTES], const struct job_record *record)
{
	put_be64(head, record->submit_ms);
	put_be64(head + 8, record->index);
	put_be32(head + 16, (uint32_t)record->meta.len);
}

int job_record_decode(struct sluice_slice value, struct job_record *ret)
{
	const uint8_t *at = value.data;
	size_t meta;

	if (value.len < JOB_RECORD_HEAD_BYTES)
		return store_damaged("its content is not valid");
	meta = get_be32(at + 16);
	if (meta > value.len - JOB_RECORD_HEAD_BYTES)
		return store_damaged("its content is not valid");
	ret->submit_ms = get_be64(at);
	ret->index = get_be64(at + 8);
	at += JOB_RECORD_HEAD_BYTES;
	ret->meta = (struct sluice_slice){at, meta};
	ret->payload = (struct sluice_slice){at + meta, value.len - JOB_RECORD_HEAD_BYTES - meta};
	return 0;
}

int job_record_put(struct apply *a, uint64_t job, const Sluice__JobSubmit *submit)
{
	uint8_t head[JOB_RECORD_HEAD_BYTES], stack[META_STACK_BYTES], *meta_buf = stack;
	Sluice__JobSubmit meta = *submit;
	struct iovec parts[3];
	struct key key;
	size_t bytes;

	meta.payload = (ProtobufCBinaryData){0, NULL};
	meta.base.n_unknown_fields = 0;
	bytes = sluice__job_submit__get_packed_size(&meta);
	if (bytes > sizeof(stack)) {
		meta_buf = effects_alloc(a->effects, bytes);
		if (meta_buf == NULL)
			return SLUICE_E_NOMEM;
	}
	sluice__job_submit__pack(&meta, meta_buf);
	job_record_head_encode(head, &(struct job_record){.submit_ms = a->wall_ms,
							  .index = a->index,
							  .meta = {meta_buf, bytes}});
	parts[0] = (struct iovec){head, sizeof(head)};
	parts[1] = (struct iovec){meta_buf, bytes};
	parts[2] = (struct iovec){submit->payload.data, submit->payload.len};
	key_one(&key, a->gateway, job);
	return store_putv(a->txn, STORE_JOB, key_slice(&key), parts,
			  submit->payload.len > 0 ? 3 : 2);
}

int job_record_get(struct store_txn *txn, uint32_t gateway, uint64_t job, struct job_record *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_one(&key, gateway, job);
	rc = store_get(txn, STORE_JOB, key_slice(&key), &value);
	return rc != 0 ? rc : job_record_decode(value, ret);
}

int job_record_meta(const struct job_record *record, Sluice__JobSubmit **ret)
{
	int rc;

	*ret = record_unpack(&sluice__job_submit__descriptor, record->meta, &rc);
	return rc;
}
