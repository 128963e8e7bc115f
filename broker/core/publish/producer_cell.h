/* SPDX-License-Identifier: Apache-2.0
 *
 * The record of a producer, with the answers that its client has not settled. producer.h explains
 * their meaning.
 *
 * Cell: u32 epoch, u64 last sequence, u64 monotone time of the last use, u16 answers, u8 name
 * bytes, name, answers, u64 session that owns it, u64 secret, u16 principal bytes, principal.
 * Answer: u64 first sequence, u32 count, i32 code, u64 index, u64 offset, u32 failed operation
 * (transactions).
 *
 * A cell of format 1 ends with the answers. It was written by a broker without owners: read as
 * owner 0 ("not owned") and secret 0 (none). The first session that uses it, with its number and
 * epoch, becomes its owner. A cell of format 2 ends with the secret. It is written for a producer
 * whose principal is not known, also by this broker.
 */
#ifndef SLUICE_CORE_PUBLISH_PRODUCER_CELL_H
#define SLUICE_CORE_PUBLISH_PRODUCER_CELL_H

#include "broker/core/base/apply.h"

enum {
	PRODUCER_CELL_FIXED_BYTES = 4 + 8 + 8 + 2 + 1,
	PRODUCER_CELL_OWNER_BYTES = 8 + 8,
	PRODUCER_CELL_PRINCIPAL_BYTES = 2, /* without its text */
	PRODUCER_ANSWER_BYTES = 8 + 4 + 4 + 8 + 8 + 4
};

struct producer_cell {
	uint32_t epoch;
	uint64_t last_seq;
	uint64_t used_mono_ms;
	uint16_t answer_count;
	struct sluice_slice name; /* at most 255 bytes */
	const uint8_t *answers;	  /* encoded, in the order of their numbers */
	uint64_t owner;		  /* session; 0: none yet */
	uint64_t secret;	  /* 0: none */
	/* Of the owner's session when it became the owner; the last one known. Empty: none. */
	struct sluice_slice principal;
};

struct producer_answer {
	uint64_t first_seq;
	uint32_t count;
	int32_t code; /* 0, or the code of the refusal */
	uint64_t index;
	uint64_t offset;
	uint32_t failed; /* operation of a transaction */
};
void producer_answer_encode(uint8_t buf[PRODUCER_ANSWER_BYTES],
			    const struct producer_answer *answer);
void producer_answer_decode(const uint8_t buf[PRODUCER_ANSWER_BYTES], struct producer_answer *ret);

/* Size of producer_cell_encode() without `more`. */
static inline size_t producer_cell_bytes(const struct producer_cell *cell)
{
	return PRODUCER_CELL_FIXED_BYTES + cell->name.len +
	       (size_t)cell->answer_count * PRODUCER_ANSWER_BYTES + PRODUCER_CELL_OWNER_BYTES +
	       (cell->principal.len > 0 ? PRODUCER_CELL_PRINCIPAL_BYTES + cell->principal.len : 0);
}
/* Returns the bytes written. more: one more answer after those of the cell; NULL: none. */
size_t producer_cell_encode(uint8_t *buf, const struct producer_cell *cell,
			    const struct producer_answer *more);
/* Name, answers and principal are borrowed from the value. CORRUPT. */
int producer_cell_decode(struct sluice_slice value, struct producer_cell *ret) SLUICE_MUST_USE;

#endif
