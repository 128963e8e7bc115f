/* SPDX-License-Identifier: Apache-2.0
 * The REPLY of each kind of outcome: the same bytes as protobuf-c writes, with each member in its
 * place. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "broker/net/native/native.h"
#include "protocol/limits.h"
#include "protocol/message.h"

/* owned; the unpacked bytes. Fails the test unless packing gives the same bytes */
static Sluice__Reply *said(const struct outcome *outcome)
{
	uint8_t bytes[NATIVE_REPLY_BYTES_MAX], again[NATIVE_REPLY_BYTES_MAX];
	size_t len = native_reply_encode(bytes, outcome);
	ProtobufCMessage *message = NULL;
	const char *why = "";

	cr_assert(len <= sizeof(bytes));
	cr_assert_eq(message_unpack(&sluice__reply__descriptor, (struct sluice_slice){bytes, len},
				    LIMIT_COMMAND_BYTES_MAX, &message, &why),
		     0, "%s", why);
	cr_assert_eq(protobuf_c_message_get_packed_size(message), len);
	(void)protobuf_c_message_pack(message, again);
	cr_assert_eq(memcmp(bytes, again, len), 0);
	return (Sluice__Reply *)message;
}

static struct outcome outcome_of(enum outcome_kind kind, int code)
{
	struct outcome outcome = {.code = code,
				  .kind = (uint16_t)kind,
				  .index = UINT64_MAX,
				  .id = 1ull << 40,
				  .count = UINT32_MAX,
				  .seq = 300,
				  .epoch = 7,
				  .attempt = 3,
				  .detail = UINT16_MAX,
				  .duplicate = true,
				  .terminal = true};

	memset(outcome.state, 's', sizeof(outcome.state) - 1);
	memset(outcome.text, 't', sizeof(outcome.text) - 1);
	return outcome;
}

Test(net_reply, head_members)
{
	static const int codes[] = {0, -1, -63, -64, -65, -8192, INT32_MIN, INT32_MAX};

	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		struct outcome outcome = {.code = codes[i],
					  .index = i * 1000,
					  .detail = (uint16_t)(i * 9000)};
		Sluice__Reply *reply = said(&outcome);

		cr_assert_eq(reply->code, codes[i]);
		cr_assert_eq(reply->index, i * 1000);
		cr_assert_eq(reply->detail, i * 9000);
		cr_assert_str_eq(reply->text, "");
		cr_assert(reply->job_submitted == NULL && reply->job_reported == NULL &&
			  reply->txn_done == NULL);
		sluice__reply__free_unpacked(reply, NULL);
	}
}

Test(net_reply, each_kind_at_its_largest)
{
	struct outcome outcome = outcome_of(OUT_REPORTED, -5);
	Sluice__Reply *reply;

	outcome.disposition = SLUICE__DISPOSITION__QUARANTINED;
	reply = said(&outcome);
	cr_assert(reply->code == -5 && reply->index == UINT64_MAX && strlen(reply->text) == 255 &&
		  reply->detail == UINT16_MAX);
	cr_assert(reply->job_reported->disposition == SLUICE__DISPOSITION__QUARANTINED &&
		  reply->job_reported->attempt == 3 && reply->job_reported->terminal);
	cr_assert(strlen(reply->job_reported->state) == 63 &&
		  strlen(reply->job_reported->reason) == 255);
	sluice__reply__free_unpacked(reply, NULL);

	outcome = outcome_of(OUT_PRODUCER, 0);
	reply = said(&outcome);
	cr_assert(reply->producer_opened->producer == 1ull << 40 &&
		  reply->producer_opened->epoch == 7 && reply->producer_opened->last_seq == 300);
	sluice__reply__free_unpacked(reply, NULL);

	outcome = outcome_of(OUT_SUBMITTED, 0);
	reply = said(&outcome);
	cr_assert(reply->job_submitted->number == 1ull << 40 && reply->job_submitted->duplicate &&
		  reply->job_submitted->attempt == 3 && strlen(reply->job_submitted->state) == 63);
	sluice__reply__free_unpacked(reply, NULL);

	outcome = outcome_of(OUT_CANCELLED, 0);
	reply = said(&outcome);
	cr_assert(reply->job_cancelled->terminal && strlen(reply->job_cancelled->state) == 63);
	sluice__reply__free_unpacked(reply, NULL);

	outcome = outcome_of(OUT_RESET, 0);
	reply = said(&outcome);
	cr_assert_eq(reply->job_reset->attempt, 3);
	sluice__reply__free_unpacked(reply, NULL);

	outcome = outcome_of(OUT_TXN, -5);
	reply = said(&outcome);
	cr_assert(reply->txn_done->failed_op == UINT32_MAX && reply->txn_done->duplicate);
	sluice__reply__free_unpacked(reply, NULL);

	outcome = outcome_of(OUT_ACKED, 0);
	reply = said(&outcome);
	cr_assert_eq(reply->affected, UINT32_MAX);
	sluice__reply__free_unpacked(reply, NULL);
}
