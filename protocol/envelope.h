/* SPDX-License-Identifier: Apache-2.0
 *
 * Event envelopes and batches. An envelope is one msgpack array of 2 to 7 elements, trailing
 * defaults left out:
 *   [time delta ms (int, may be negative), body (bin), key (bin|nil), id (bin|nil),
 *    headers (map str->str|nil), subject (str|nil; only where the batch has none, and always in
 *    items), priority (uint 1..255)]
 * Empty keys, ids, subjects and maps are nil (or left out), header names are not empty; header text
 * is valid UTF-8 (batch_check). A batch payload is envelopes one after the other.
 *
 * Walking is bounded code of our own (msgpack_unpack allocates from declared counts); packing uses
 * msgpack's encoding rules, shortest form required and checked, so that equal events have equal
 * bytes. Decoded slices borrow from the input. Pure, thread-safe. Errors: SLUICE_E_PROTOCOL,
 * SLUICE_E_LIMIT with *ret_why.
 */
#ifndef SLUICE_PROTOCOL_ENVELOPE_H
#define SLUICE_PROTOCOL_ENVELOPE_H

#include <stdbool.h>

#include "protocol/frame.h"
#include "sluice/types.h"

struct envelope {
	int64_t time_delta_ms;
	struct sluice_slice body;
	struct sluice_slice key;
	struct sluice_slice id;
	struct sluice_slice headers; /* the encoded map, empty when there is none */
	struct sluice_slice subject;
	uint8_t priority;
	struct sluice_slice encoded; /* decode only: the whole envelope */
};

/* Decodes the envelope at the front of *io_rest and advances it. */
int envelope_next(struct sluice_slice *io_rest, struct envelope *ret, const char **ret_why);
/* The same for the most common form alone: a time delta of 0 to 127 ms (its second byte) and a body
 * of under 64 KiB, no more. Its length, or 0: it has another form, or something is wrong. */
size_t envelope_plain(struct sluice_slice rest, struct sluice_slice *ret_body);
size_t envelope_size_max(const struct envelope *envelope);
/* Returns bytes written, at most envelope_size_max(). */
size_t envelope_encode(uint8_t *buf, const struct envelope *envelope);

/* The same of an envelope that is a body and no more: at most ENVELOPE_PLAIN_HEAD_MAX bytes and the
 * body. */
enum { ENVELOPE_PLAIN_HEAD_MAX = 7 };
size_t envelope_plain_encode(uint8_t *buf, struct sluice_slice body);

/* Walks an encoded header map; *io_pos starts as 0. Returns 1 and a pair, 0 at the end, or an
 * error. */
int envelope_header_next(struct sluice_slice headers, size_t *io_pos, struct sluice_slice *ret_name,
			 struct sluice_slice *ret_value);
/* Appends to a caller's buffer the encoded map of n pairs. Returns bytes; with buf NULL only the
 * size. */
size_t envelope_headers_encode(uint8_t *buf, const struct sluice_slice *names,
			       const struct sluice_slice *values, size_t n);

/* Checks a whole raw payload: exactly count envelopes, every limit, each with a valid subject iff
 * the batch has none. A bad subject of an event gives INVAL or LIMIT, as subject_check() does.
 * ret_time_min/max (may be NULL) get the smallest and largest time delta. */
int batch_check(struct sluice_slice raw, uint32_t count, bool batch_has_subject,
		int64_t *ret_time_min, int64_t *ret_time_max, const char **ret_why);

/* zstd, bounded by the caller: raw_bytes is checked against BATCH_RAW_BYTES_MAX before anything is
 * allocated, and the payload must be one zstd frame that states its content size and decompresses
 * to exactly that. *ret_raw is malloc'd, owned by the caller. */
int batch_decompress(struct sluice_slice payload, uint32_t raw_bytes, uint8_t **ret_raw,
		     const char **ret_why);
/* Returns bytes written, or 0 when it would not be smaller than raw (or buf_bytes is too small). */
size_t batch_compress(uint8_t *buf, size_t buf_bytes, struct sluice_slice raw);

/* Subjects: dotted tokens, none empty, no control characters or spaces, valid UTF-8, no '*' or '>'
 * in a subject; in a pattern '*' is a whole token and '>' the last one. */
int subject_check(struct sluice_slice subject, const char **ret_why);
int pattern_check(struct sluice_slice pattern, const char **ret_why);
bool pattern_matches(struct sluice_slice pattern, struct sluice_slice subject);
/* Names (streams, queues, jobs ...): 1 to NAME_BYTES_MAX bytes, valid UTF-8, no control characters,
 * no leading or trailing space. */
int name_check(struct sluice_slice name, const char **ret_why);

#endif
