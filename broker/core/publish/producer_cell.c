/* SPDX-License-Identifier: Apache-2.0
 * The record of a producer: bytes <-> structs. See producer_cell.h. */
#include "broker/core/publish/producer_cell.h"

enum { AT_EPOCH = 0, AT_LAST_SEQ = 4, AT_USED = 12, AT_ANSWERS = 20, AT_NAME_BYTES = 22 };

void producer_answer_encode(uint8_t buf[PRODUCER_ANSWER_BYTES],
			    const struct producer_answer *answer)
{
	put_be64(buf, answer->first_seq);
	put_be32(buf + 8, answer->count);
	put_be32(buf + 12, (uint32_t)answer->code);
	put_be64(buf + 16, answer->index);
	put_be64(buf + 24, answer->offset);
	put_be32(buf + 32, answer->failed);
}

void producer_answer_decode(const uint8_t buf[PRODUCER_ANSWER_BYTES], struct producer_answer *ret)
{
	*ret = (struct producer_answer){.first_seq = get_be64(buf),
					.count = get_be32(buf + 8),
					.code = (int32_t)get_be32(buf + 12),
					.index = get_be64(buf + 16),
					.offset = get_be64(buf + 24),
					.failed = get_be32(buf + 32)};
}

size_t producer_cell_encode(uint8_t *buf, const struct producer_cell *cell,
			    const struct producer_answer *more)
{
	uint8_t *at = buf + PRODUCER_CELL_FIXED_BYTES;

	put_be32(buf + AT_EPOCH, cell->epoch);
	put_be64(buf + AT_LAST_SEQ, cell->last_seq);
	put_be64(buf + AT_USED, cell->used_mono_ms);
	put_be16(buf + AT_ANSWERS, (uint16_t)(cell->answer_count + (more != NULL)));
	buf[AT_NAME_BYTES] = (uint8_t)cell->name.len;
	if (cell->name.len > 0)
		memcpy(at, cell->name.data, cell->name.len);
	at += cell->name.len;
	if (cell->answer_count > 0)
		memcpy(at, cell->answers, (size_t)cell->answer_count * PRODUCER_ANSWER_BYTES);
	at += (size_t)cell->answer_count * PRODUCER_ANSWER_BYTES;
	if (more != NULL) {
		producer_answer_encode(at, more);
		at += PRODUCER_ANSWER_BYTES;
	}
	put_be64(at, cell->owner);
	put_be64(at + 8, cell->secret);
	at += PRODUCER_CELL_OWNER_BYTES;
	if (cell->principal.len == 0)
		return (size_t)(at - buf);
	put_be16(at, (uint16_t)cell->principal.len);
	memcpy(at + 2, cell->principal.data, cell->principal.len);
	return (size_t)(at + 2 + cell->principal.len - buf);
}

int producer_cell_decode(struct sluice_slice value, struct producer_cell *ret)
{
	const uint8_t *at = value.data;
	size_t old, owned, principal;

	if (value.len < PRODUCER_CELL_FIXED_BYTES)
		return store_damaged("its content is not valid");
	old = PRODUCER_CELL_FIXED_BYTES + at[AT_NAME_BYTES] +
	      (size_t)get_be16(at + AT_ANSWERS) * PRODUCER_ANSWER_BYTES;
	owned = old + PRODUCER_CELL_OWNER_BYTES;
	principal = value.len >= owned + PRODUCER_CELL_PRINCIPAL_BYTES ? get_be16(at + owned) : 0;
	if (value.len != old && value.len != owned &&
	    (principal == 0 || value.len != owned + PRODUCER_CELL_PRINCIPAL_BYTES + principal))
		return store_damaged("its content is not valid");
	*ret = (struct producer_cell){.epoch = get_be32(at + AT_EPOCH),
				      .last_seq = get_be64(at + AT_LAST_SEQ),
				      .used_mono_ms = get_be64(at + AT_USED),
				      .answer_count = get_be16(at + AT_ANSWERS),
				      .name = {at + PRODUCER_CELL_FIXED_BYTES, at[AT_NAME_BYTES]},
				      .answers =
					      at + PRODUCER_CELL_FIXED_BYTES + at[AT_NAME_BYTES]};
	if (value.len != old) {
		ret->owner = get_be64(at + old);
		ret->secret = get_be64(at + old + 8);
	}
	if (value.len > owned)
		ret->principal = (struct sluice_slice){at + owned + PRODUCER_CELL_PRINCIPAL_BYTES,
						       principal};
	return 0;
}
