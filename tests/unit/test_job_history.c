/* SPDX-License-Identifier: Apache-2.0
 * The broker encodes history rows with its own code: to the bytes that protobuf-c would write, for
 * all fields. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/job/history.h"

static uint64_t state = 7;

static uint64_t chance(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Small numbers, large ones, and the largest. */
static uint64_t number(void)
{
	return chance() % 8 == 0 ? UINT64_MAX : chance() >> (chance() % 64);
}

/* Sets a field through the descriptor, so that a field which is added later is tried as well. */
static void set(Sluice__JobHistoryRow *row, const ProtobufCFieldDescriptor *field,
		char texts[][400], unsigned i)
{
	void *member = (uint8_t *)row + field->offset;

	switch (field->type) {
	case PROTOBUF_C_TYPE_STRING:
		memset(texts[i], 'a' + (int)(i % 26), 399);
		texts[i][chance() % 399] = 0;
		*(char **)member = texts[i];
		break;
	case PROTOBUF_C_TYPE_UINT64:
		*(uint64_t *)member = number();
		break;
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_SINT32:
		*(uint32_t *)member = (uint32_t)number();
		break;
	case PROTOBUF_C_TYPE_BOOL:
		*(protobuf_c_boolean *)member = 1;
		break;
	case PROTOBUF_C_TYPE_ENUM:
		*(int *)member = (int)(chance() % 9) - 1;
		break;
	default:
		cr_assert_fail("field %s is of a kind that this test does not know", field->name);
	}
}

Test(job_history, rows_are_packed_as_protobuf_does)
{
	static char texts[32][400];
	const ProtobufCMessageDescriptor *descriptor = &sluice__job_history_row__descriptor;

	cr_assert_leq(descriptor->n_fields, 32);
	for (int n = 0; n < 20000; n++) {
		Sluice__JobHistoryRow row = SLUICE__JOB_HISTORY_ROW__INIT;
		uint8_t ours[16384], theirs[16384];
		size_t bytes;

		for (unsigned i = 0; i < descriptor->n_fields; i++)
			if (n == 1 || (n > 1 && chance() % 3 == 0))
				set(&row, &descriptor->fields[i], texts, i);
		bytes = job_history_pack(ours, &row);
		cr_assert_leq(bytes, job_history_pack_max(&row));
		cr_assert_eq(bytes, sluice__job_history_row__pack(&row, theirs), "row %d", n);
		cr_assert(memcmp(ours, theirs, bytes) == 0, "row %d", n);
	}
}
