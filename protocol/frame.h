/* SPDX-License-Identifier: Apache-2.0
 *
 * Frames of the native protocol: bytes <-> structs, no sockets, no allocation on decode.
 *
 * Every frame: u32 length of what follows | u8 type | u8 flags | u32 correlation | body. Integers
 * are big-endian. Decoded structs borrow from the input buffer. Decoders return 0 or
 * SLUICE_E_PROTOCOL / SLUICE_E_LIMIT and then *ret_why (static text) names what was wrong. All
 * functions are pure and thread-safe.
 */
#ifndef SLUICE_PROTOCOL_FRAME_H
#define SLUICE_PROTOCOL_FRAME_H

#include <stdbool.h>

#include "sluice/error.h"
#include "sluice/types.h"

enum frame_type {
	/* client to broker */
	FRAME_HELLO = 1,   /* protobuf Hello */
	FRAME_REQUEST = 2, /* protobuf Request */
	FRAME_PUBLISH = 3, /* struct frame_publish */
	FRAME_ACK = 4,	   /* struct frame_ack */
	FRAME_CREDIT = 5,  /* struct frame_credit */
	FRAME_PING = 6,	   /* empty */
	FRAME_GOODBYE = 7, /* empty: the session stays until its timeout; SessionClose ends it */
	/* broker to client */
	FRAME_WELCOME = 65,   /* protobuf Welcome */
	FRAME_REPLY = 66,     /* protobuf Reply */
	FRAME_PUBLISHED = 67, /* struct frame_published, one or more */
	FRAME_DELIVER = 68,   /* struct frame_deliver */
	FRAME_NOTICE = 69,    /* protobuf Notice */
	FRAME_PONG = 70,      /* empty */
	FRAME_ERROR = 71,     /* protobuf Failure */
	FRAME_ACKED = 72,     /* struct frame_acked */
};

enum {
	FRAME_HEADER_BYTES = 10,   /* length, type, flags, correlation */
	FRAME_LENGTH_OVERHEAD = 6, /* what the length counts besides the body */
};

struct frame_header {
	uint32_t body_bytes;
	uint8_t type;
	uint8_t flags; /* 0 in version 1; others are refused */
	uint32_t corr;
};

/* Needs FRAME_HEADER_BYTES at buf. Refuses a length under FRAME_LENGTH_OVERHEAD or over
 * frame_bytes_max. */
int frame_header_decode(const uint8_t *buf, uint64_t frame_bytes_max, struct frame_header *ret,
			const char **ret_why);
void frame_header_encode(uint8_t *buf, const struct frame_header *header);

enum publish_target { PUBLISH_TO_SUBJECT = 0, PUBLISH_TO_QUEUE = 1, PUBLISH_TO_STREAM = 2 };
enum durability { DURABILITY_SYNC = 0, DURABILITY_RELAXED = 1 };
enum batch_codec { BATCH_RAW = 0, BATCH_ZSTD = 1 };
enum publish_flag { PUBLISH_MANDATORY = 1 };

/* Body of PUBLISH, in this order: u8 target_kind, u8 durability, u8 codec, u8 flags, u64 producer,
 * u32 epoch, u64 first_seq, u64 settled_seq, u32 count, u64 time_ms, u32 raw_bytes, u16 subject
 * len, u16 target len, subject, target, payload to the end of the frame. This is also the canonical
 * body of the PUBLISH command. */
enum { FRAME_PUBLISH_FIXED_BYTES = 4 + 8 + 4 + 8 + 8 + 4 + 8 + 4 + 2 + 2 };
struct frame_publish {
	uint8_t target_kind;
	uint8_t durability;
	uint8_t codec;
	uint8_t flags;
	uint64_t producer; /* 0: none; at-least-once without deduplication, seq fields are 0 */
	uint32_t epoch;
	uint64_t first_seq;   /* of the batch's first event; the producer's sequence starts at 1 */
	uint64_t settled_seq; /* the client has the answers of everything up to here */
	uint32_t count;
	uint64_t time_ms;   /* base of the events' times; 0: the broker's time at the commit */
	uint32_t raw_bytes; /* of the payload before compression */
	struct sluice_slice subject; /* empty: each event carries its own */
	struct sluice_slice target;  /* queue or stream name */
	struct sluice_slice payload; /* envelopes one after the other, maybe compressed as one */
};
int frame_publish_decode(struct sluice_slice body, struct frame_publish *ret, const char **ret_why);
/* What decode checks besides the lengths. PROTOCOL, LIMIT. */
int frame_publish_check(const struct frame_publish *publish, const char **ret_why);
size_t frame_publish_size(const struct frame_publish *publish); /* body bytes */
size_t frame_publish_encode(uint8_t *buf,
			    const struct frame_publish *publish); /* returns bytes written */

/* Body of PUBLISHED: u16 n, then n times: i32 code, u64 first_seq, u32 count, u64 index, u64
 * offset, u8 flags, u16 text len, text. corr is that of the first; an answer is matched by
 * (producer of the connection, first_seq), or by corr when producer is 0 (then n is 1). */
enum published_flag { PUBLISHED_DUPLICATE = 1, PUBLISHED_RELAXED = 2 };
struct frame_published {
	int32_t code;
	uint64_t producer; /* not in the frame: the sender's own; decode gives 0 */
	uint64_t first_seq;
	uint32_t count;
	uint64_t index;
	uint64_t offset; /* of the first event in the first stream or queue reached; ~0 when none */
	uint8_t flags;
	struct sluice_slice text;
};
enum { FRAME_PUBLISHED_FIXED_BYTES = 4 + 8 + 4 + 8 + 8 + 1 + 2 };
int frame_published_decode(struct sluice_slice *io_body, struct frame_published *ret,
			   const char **ret_why);
size_t frame_published_size(const struct frame_published *published);
size_t frame_published_encode(uint8_t *buf, const struct frame_published *published);

/* A run of consecutive numbers. */
struct frame_run {
	uint64_t first;
	uint32_t count;
};

enum deliver_kind { DELIVER_EVENTS = 0, DELIVER_ITEMS = 1, DELIVER_JOBS = 2 };

/* Body of DELIVER: u32 subscription, u8 kind, u8 codec, u64 base, u64 token, u32 count, u32
 * lease_ms, u64 time_ms, u32 raw_bytes, u16 nruns, u16 subject len, runs (u64 first, u32 count),
 * subject, payload.
 * EVENTS: base = offset of the first event of the stored batch; runs name the offsets that the
 * payload's
 *   envelopes have, in order; no runs: base, base + 1, ... Offsets may have gaps.
 * ITEMS: token and lease_ms of the grant; runs name the sequence numbers, in order; each envelope
 * is preceded
 *   by u16 attempts (made before this one) and u64 put time, and has its own subject. time_ms is 0.
 * JOBS: payload is protobuf JobDeliveries; base 0, no runs. */
enum {
	FRAME_DELIVER_FIXED_BYTES = 4 + 1 + 1 + 8 + 8 + 4 + 4 + 8 + 4 + 2 + 2,
	FRAME_RUN_BYTES = 12
};
struct frame_deliver {
	uint32_t subscription;
	uint8_t kind;
	uint8_t codec;
	uint64_t base;
	uint64_t token;
	uint32_t count;
	uint32_t lease_ms;
	uint64_t time_ms;
	uint32_t raw_bytes;
	uint16_t run_count;
	const uint8_t *runs; /* encoded: frame_run_at() */
	struct sluice_slice subject;
	struct sluice_slice payload;
};
int frame_deliver_decode(struct sluice_slice body, struct frame_deliver *ret, const char **ret_why);
/* Everything before the payload; runs taken from run_array (deliver->run_count of them). Returns
 * bytes written. */
size_t frame_deliver_head_size(const struct frame_deliver *deliver);
size_t frame_deliver_head_encode(uint8_t *buf, const struct frame_deliver *deliver,
				 const struct frame_run *run_array);
struct frame_run frame_run_at(const uint8_t *runs, size_t i);

enum ack_op {
	ACK_DONE = 0,
	ACK_NACK = 1,
	ACK_EXTEND = 2,
	ACK_REJECT = 3,
	ACK_RENEW = 4,
	ACK_RELEASE = 5,
	ACK_BEGUN = 6
};
static inline bool ack_op_known(uint8_t op)
{
	return op <= ACK_BEGUN;
}
/* Body of ACK: u32 subscription, u8 op, u64 token, u32 value_ms (NACK, RELEASE: delay; EXTEND,
 * RENEW: lease from now), u16 reason len, u16 nruns, runs, reason. corr 0: no ACKED is sent unless
 * it is refused. EXTEND, RENEW and RELEASE without runs: the whole grant. */
enum { FRAME_ACK_FIXED_BYTES = 4 + 1 + 8 + 4 + 2 + 2 };
struct frame_ack {
	uint32_t subscription;
	uint8_t op;
	uint64_t token;
	uint32_t value_ms;
	uint16_t run_count;
	const uint8_t *runs;
	struct sluice_slice reason;
};
int frame_ack_decode(struct sluice_slice body, struct frame_ack *ret, const char **ret_why);
/* What decode checks besides the lengths. PROTOCOL, LIMIT. */
int frame_ack_check(uint8_t op, uint16_t run_count, struct sluice_slice reason,
		    const char **ret_why);
size_t frame_ack_size(const struct frame_ack *ack);
size_t frame_ack_encode(uint8_t *buf, const struct frame_ack *ack,
			const struct frame_run *run_array);

/* Body of ACKED: i32 code, u64 index, u32 affected, u16 text len, text. */
struct frame_acked {
	int32_t code;
	uint64_t index;
	uint32_t affected;
	struct sluice_slice text;
};
enum { FRAME_ACKED_FIXED_BYTES = 4 + 8 + 4 + 2 };
int frame_acked_decode(struct sluice_slice body, struct frame_acked *ret, const char **ret_why);
size_t frame_acked_size(const struct frame_acked *acked);
size_t frame_acked_encode(uint8_t *buf, const struct frame_acked *acked);

/* Body of CREDIT: u32 subscription, u32 more. */
enum { FRAME_CREDIT_BYTES = 8 };
struct frame_credit {
	uint32_t subscription;
	uint32_t more;
};
int frame_credit_decode(struct sluice_slice body, struct frame_credit *ret, const char **ret_why);
void frame_credit_encode(uint8_t *buf, const struct frame_credit *credit);

#endif
