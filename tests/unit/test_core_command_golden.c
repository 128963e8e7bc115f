/* SPDX-License-Identifier: Apache-2.0
 *
 * The canonical bytes of commands never change: each command of commands.def has golden bytes in
 * tests/data/commands, in each version of its body. They are decoded to the fields beside them, and
 * encoded to the same bytes. A command without a file fails.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/command.h"
#include "golden.h"
#include "protocol/frame.h"

enum { HEAD_BYTES = 27, COMMAND_BYTES_MAX = HEAD_BYTES + GOLDEN_BYTES_MAX };

/* ---- fields ---- */

struct head {
	uint16_t type;
	uint8_t version;
	uint32_t gateway;
	uint64_t session;
	uint64_t random;
	uint32_t body_bytes;
};
static const struct golden_member head_members[] = {N(head, type),
						    N(head, version),
						    N(head, gateway),
						    N(head, session),
						    N(head, random),
						    N(head, body_bytes),
						    {0}};

static const struct golden_member tick_members[] = {N(cmd_tick, work_max),
						    S(cmd_tick, put_off),
						    {0}};

static const struct golden_member boot_members[] = {N(cmd_boot, by_wall),   N(cmd_boot, boot_id),
						    N(cmd_boot, offset_ms), N(cmd_boot, away_ms),
						    N(cmd_boot, back_ms),   {0}};

static const struct golden_member session_open_members[] =
	{S(cmd_session_open, name),	  S(cmd_session_open, client),
	 N(cmd_session_open, timeout_ms), A(cmd_session_open, secret),
	 N(cmd_session_open, flags),	  N(cmd_session_open, face),
	 S(cmd_session_open, principal),  S(cmd_session_open, via),
	 S(cmd_session_open, address),	  {0}};

static const struct golden_member session_expire_members[] = {N(cmd_session_expire, session), {0}};

static const struct golden_member session_alter_members[] = {N(cmd_session_alter, timeout_ms),
							     S(cmd_session_alter, principal),
							     S(cmd_session_alter, via),
							     S(cmd_session_alter, address),
							     {0}};

static const struct golden_member claim_members[] = {N(cmd_claim, queue),
						     N(cmd_claim, max),
						     N(cmd_claim, lease_ms),
						     N(cmd_claim, flags),
						     N(cmd_claim, resume_after),
						     N(cmd_claim, resume_until),
						     N(cmd_claim, split),
						     N(cmd_claim, consumer),
						     N(cmd_claim, source),
						     N(cmd_claim, extend_max_ms),
						     {0}};

static const struct golden_member publish_members[] =
	{N(frame_publish, target_kind), N(frame_publish, durability),  N(frame_publish, codec),
	 N(frame_publish, flags),	N(frame_publish, producer),    N(frame_publish, epoch),
	 N(frame_publish, first_seq),	N(frame_publish, settled_seq), N(frame_publish, count),
	 N(frame_publish, time_ms),	N(frame_publish, raw_bytes),   S(frame_publish, subject),
	 S(frame_publish, target),	S(frame_publish, payload),     {0}};

/* The runs are a pointer in the command. */
struct ack {
	struct cmd_ack ack;
	struct sluice_slice runs;
};
static const struct golden_member ack_members[] = {N(ack, ack.queue),	  N(ack, ack.token),
						   N(ack, ack.op),	  N(ack, ack.value_ms),
						   N(ack, ack.run_count), S(ack, ack.reason),
						   S(ack, runs),	  {0}};

struct message {
	struct sluice_slice message;
};

union body {
	struct cmd_tick tick;
	struct cmd_boot boot;
	struct cmd_session_open session_open;
	struct cmd_session_expire session_expire;
	struct cmd_session_alter session_alter;
	struct cmd_claim claim;
	struct frame_publish publish;
	struct ack ack;
};

/* The members of a BIN command's body, and the size of its struct. */
static const struct golden_member *bin_members(uint16_t type, size_t *ret_size)
{
	switch (type) {
	case COMMAND_TICK:
		*ret_size = sizeof(struct cmd_tick);
		return tick_members;
	case COMMAND_BOOT:
		*ret_size = sizeof(struct cmd_boot);
		return boot_members;
	case COMMAND_SESSION_OPEN:
		*ret_size = sizeof(struct cmd_session_open);
		return session_open_members;
	case COMMAND_SESSION_EXPIRE:
		*ret_size = sizeof(struct cmd_session_expire);
		return session_expire_members;
	case COMMAND_SESSION_ALTER:
		*ret_size = sizeof(struct cmd_session_alter);
		return session_alter_members;
	case COMMAND_CLAIM:
		*ret_size = sizeof(struct cmd_claim);
		return claim_members;
	case COMMAND_PUBLISH:
		*ret_size = sizeof(struct frame_publish);
		return publish_members;
	case COMMAND_ACK:
		*ret_size = sizeof(struct cmd_ack);
		return ack_members;
	default:
		cr_assert_fail("command %u has a body that this test does not know", type);
		return NULL;
	}
}

/* ---- one command ---- */

static void bin_expect(const struct golden *golden, const struct golden_part *part,
		       const struct command *command)
{
	union body body;
	size_t size;
	const struct golden_member *members = bin_members(command->type, &size);

	memcpy(&body, command->body, size);
	if (command->type == COMMAND_ACK)
		body.ack.runs =
			(struct sluice_slice){body.ack.ack.runs,
					      (size_t)body.ack.ack.run_count * FRAME_RUN_BYTES};
	golden_expect(golden, part, members, &body);
}

static void message_expect(const struct golden *golden, const struct golden_part *part,
			   const struct command *command)
{
	const struct golden_member members[] = {M(message, message, *command->message->descriptor),
						{0}};
	uint8_t packed[GOLDEN_BYTES_MAX];
	size_t bytes = protobuf_c_message_get_packed_size(command->message);

	cr_assert_leq(bytes, sizeof(packed));
	(void)protobuf_c_message_pack(command->message, packed);
	golden_expect(golden, part, members, &(struct message){{packed, bytes}});
}

/* A BIN command is made from its fields alone, a message from its bytes. */
static size_t encode(const struct golden *golden, const struct head *head, struct golden_part *body,
		     const struct command *decoded, uint8_t buf[COMMAND_BYTES_MAX])
{
	struct command command = *decoded;
	union body filled;
	size_t size;

	memset(&filled, 0, sizeof(filled));
	command.gateway = head->gateway;
	command.session = head->session;
	command.random = head->random;
	if (command_spec(head->type)->message == NULL) {
		golden_fill(golden, body, bin_members(head->type, &size), &filled);
		if (head->type == COMMAND_ACK)
			filled.ack.ack.runs = filled.ack.runs.data;
		command.body = &filled;
	}
	cr_assert_leq(command_size(&command), (size_t)COMMAND_BYTES_MAX, "%s", golden->path);
	return command_encode(buf, &command);
}

static void command_is_golden(const struct command_spec *spec, struct golden *golden,
			      struct golden_part *head_part, struct golden_part *body,
			      unsigned *io_newest)
{
	static uint8_t bytes[COMMAND_BYTES_MAX], again[COMMAND_BYTES_MAX];
	struct command *decoded = NULL;
	struct head head = {0};
	const char *why = "";
	size_t len;

	golden_fill(golden, head_part, head_members, &head);
	cr_assert_eq(head_part->len, (size_t)HEAD_BYTES, "%s", golden->path);
	cr_assert(head.type == spec->type && head.version == body->format &&
			  head.body_bytes == body->len,
		  "%s: type %u, version %u, %u bytes", golden->path, head.type, head.version,
		  head.body_bytes);
	memcpy(bytes, head_part->bytes, HEAD_BYTES);
	memcpy(bytes + HEAD_BYTES, body->bytes, body->len);
	cr_assert_eq(command_decode((struct sluice_slice){bytes, HEAD_BYTES + body->len}, &decoded,
				    &why),
		     0, "%s, version %u: %s", golden->path, head.version, why);
	cr_assert(decoded->type == head.type && decoded->gateway == head.gateway &&
			  decoded->session == head.session && decoded->random == head.random,
		  "%s: the head", golden->path);
	if (spec->message == NULL)
		bin_expect(golden, body, decoded);
	else
		message_expect(golden, body, decoded);
	len = encode(golden, &head, body, decoded, again);
	*io_newest = again[2];
	if (again[2] == head.version) {
		golden_bytes(golden, head_part, (struct sluice_slice){again, HEAD_BYTES});
		golden_bytes(golden, body,
			     (struct sluice_slice){again + HEAD_BYTES, len - HEAD_BYTES});
	}
	command_free(decoded);
}

Test(core_command_golden, each_command_has_its_golden_bytes_in_each_version)
{
	size_t count;
	const struct command_spec *specs = command_specs(&count);

	for (size_t i = 0; i < count; i++) {
		struct golden *golden = golden_load(COMMAND_DATA, specs[i].name);
		unsigned newest = 0, found = 0;

		cr_assert_eq(golden->part_count % 2, 0, "%s: a head and a body each", golden->path);
		for (size_t at = 0; at < golden->part_count; at += 2) {
			struct golden_part *head = &golden->parts[at],
					   *body = &golden->parts[at + 1];

			cr_assert_str_eq(head->name, "head", "%s", golden->path);
			cr_assert_str_eq(body->name, "body", "%s", golden->path);
			command_is_golden(&specs[i], golden, head, body, &newest);
			cr_assert_lt(body->format, 32u, "%s", golden->path);
			found |= 1u << body->format;
		}
		cr_assert_eq(found, (2u << newest) - 2, "%s: versions 1 to %u each", golden->path,
			     newest);
		golden_free(golden);
	}
}
