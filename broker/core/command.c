/* SPDX-License-Identifier: Apache-2.0
 *
 * The command codec and table. Bodies of BIN commands are laid out here, one function pair each;
 * PUBLISH's is its frame's.
 *
 * Canonical: command_decode refuses every input that command_encode would not have written (unknown
 * fields, fields out of order, defaults that were spelled out, trailing bytes), so equal commands
 * have equal bytes.
 */
#include "broker/core/command.h"

#include <stdlib.h>
#include <string.h>

#include "broker/util/bytes.h"
#include "protocol/limits.h"
#include "protocol/message.h"

enum { COMMAND_HEAD_BYTES = 2 + 1 + 4 + 8 + 8 + 4 };

/* PB commands have the name of their message. */
#define NAME_TICK "tick"
#define NAME_BOOT "boot"
#define NAME_SESSION_OPEN "session_open"
#define NAME_SESSION_EXPIRE "session_expire"
#define NAME_SESSION_ALTER "session_alter"
#define NAME_PUBLISH "publish"
#define NAME_CLAIM "claim"
#define NAME_ACK "ack"

static const struct command_spec specs[] = {
#define PB(NAME, number, Message, message, permission, headroom, handler, text) \
	{number, #message, permission, HEADROOM_##headroom, &sluice__##message##__descriptor, text},
#define BIN(NAME, number, body, permission, headroom, handler, text) \
	{number, NAME_##NAME, permission, HEADROOM_##headroom, NULL, text},
#include "broker/core/commands.def"
#undef PB
#undef BIN
};
enum { SPEC_COUNT = sizeof(specs) / sizeof(specs[0]) };

const struct command_spec *command_specs(size_t *ret_count)
{
	*ret_count = SPEC_COUNT;
	return specs;
}

static enum headroom op_headroom(const Sluice__TxnOp *op)
{
	switch (op->op_case) {
	case SLUICE__TXN_OP__OP_PUBLISH:
		return command_spec(COMMAND_PUBLISH)->headroom;
	case SLUICE__TXN_OP__OP_ACK:
	case SLUICE__TXN_OP__OP_NACK:
		return command_spec(COMMAND_ACK)->headroom;
	case SLUICE__TXN_OP__OP_JOB_SUBMIT:
		return command_spec(COMMAND_JOB_SUBMIT)->headroom;
	case SLUICE__TXN_OP__OP_JOB_INTENT:
		return command_spec(COMMAND_JOB_INTENT)->headroom;
	case SLUICE__TXN_OP__OP_JOB_REPORT:
		return command_spec(COMMAND_JOB_REPORT)->headroom;
	case SLUICE__TXN_OP__OP_JOB_CANCEL:
		return command_spec(COMMAND_JOB_CANCEL)->headroom;
	case SLUICE__TXN_OP__OP_JOB_RESET:
		return command_spec(COMMAND_JOB_RESET)->headroom;
	case SLUICE__TXN_OP__OP_CURSOR_SET:
		return command_spec(COMMAND_CURSOR_SET)->headroom;
	case SLUICE__TXN_OP__OP_CHECK_JOB:
		return HEADROOM_ALWAYS; /* a read */
	default:
		return HEADROOM_REPORT; /* it is refused by apply */
	}
}

enum headroom command_headroom(const struct command *command)
{
	const Sluice__Txn *txn = (const Sluice__Txn *)command->message;
	enum headroom class = HEADROOM_ALWAYS;

	if (command->type != COMMAND_TXN)
		return command_spec(command->type)->headroom;
	for (size_t i = 0; i < txn->n_ops && class != HEADROOM_PUBLISH; i++) {
		enum headroom op = op_headroom(txn->ops[i]);

		class = op < class ? op : class;
	}
	return class;
}

const struct command_spec *command_spec(uint16_t type)
{
	/* The table is ordered by number. */
	size_t low = 0, high = SPEC_COUNT;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (specs[middle].type < type)
			low = middle + 1;
		else
			high = middle;
	}
	return low < SPEC_COUNT && specs[low].type == type ? &specs[low] : NULL;
}

/* ---- BIN bodies ---- */

enum {
	CLAIM_1_BYTES = 8 + 4 + 4 + 1 + 8 + 8,
	CLAIM_2_BYTES = CLAIM_1_BYTES + 2 + 8 + 8,
	CLAIM_BYTES = CLAIM_2_BYTES + 4,
	BOOT_BYTES = 1 + 4 * 8
};

/* Versions after the first, and the level of the rules that brought them (levels.def): whoever
 * applies a level's commands can read them. */
static const struct {
	uint16_t type;
	uint8_t version;
	uint8_t level;
} versions[] = {
	{COMMAND_SESSION_OPEN, 2, 0},
	{COMMAND_CLAIM, 2, 0},
	{COMMAND_CLAIM, 3, 0},
};

uint8_t command_version(uint16_t type, uint32_t level)
{
	uint8_t version = 1;

	for (size_t i = 0; i < sizeof(versions) / sizeof(versions[0]); i++) {
		if (versions[i].type == type && versions[i].level <= level)
			version = versions[i].version;
	}
	return version;
}

/* The version that is written; all from 1 on can be read. */
static uint8_t version_of(uint16_t type)
{
	return command_version(type, UINT32_MAX);
}

/* Members of version 2, after those of version 1. */
enum { SESSION_OPEN_MORE = 1 + 1 + 2 + 2 + 2 };
/* Without its texts. */
enum { SESSION_ALTER_BYTES = 4 + 2 + 2 + 2 };

static size_t bin_size(uint16_t type, const void *body)
{
	switch (type) {
	case COMMAND_TICK:
		return 4 + ((const struct cmd_tick *)body)->put_off.len;
	case COMMAND_BOOT:
		return BOOT_BYTES;
	case COMMAND_SESSION_OPEN: {
		const struct cmd_session_open *open = body;

		return 16 + 4 + 2 + 2 + open->name.len + open->client.len + SESSION_OPEN_MORE +
		       open->principal.len + open->via.len + open->address.len;
	}
	case COMMAND_SESSION_EXPIRE:
		return 8;
	case COMMAND_SESSION_ALTER: {
		const struct cmd_session_alter *alter = body;

		return SESSION_ALTER_BYTES + alter->principal.len + alter->via.len +
		       alter->address.len;
	}
	case COMMAND_PUBLISH:
		return frame_publish_size(body);
	case COMMAND_CLAIM:
		return CLAIM_BYTES;
	case COMMAND_ACK: {
		const struct cmd_ack *ack = body;

		return 8 + 8 + 1 + 4 + 2 + 2 + (size_t)ack->run_count * FRAME_RUN_BYTES +
		       ack->reason.len;
	}
	default:
		return 0;
	}
}

static uint8_t *put_bytes(uint8_t *at, const void *data, size_t len)
{
	if (len > 0)
		memcpy(at, data, len);
	return at + len;
}

static void session_open_encode(uint8_t *at, const struct cmd_session_open *open)
{
	at = put_bytes(at, open->secret, sizeof(open->secret));
	put_be32(at, open->timeout_ms);
	put_be16(at + 4, (uint16_t)open->name.len);
	put_be16(at + 6, (uint16_t)open->client.len);
	at = put_bytes(at + 8, open->name.data, open->name.len);
	at = put_bytes(at, open->client.data, open->client.len);
	at[0] = open->flags;
	at[1] = open->face;
	put_be16(at + 2, (uint16_t)open->principal.len);
	put_be16(at + 4, (uint16_t)open->via.len);
	put_be16(at + 6, (uint16_t)open->address.len);
	at = put_bytes(at + SESSION_OPEN_MORE, open->principal.data, open->principal.len);
	at = put_bytes(at, open->via.data, open->via.len);
	(void)put_bytes(at, open->address.data, open->address.len);
}

static void session_alter_encode(uint8_t *at, const struct cmd_session_alter *alter)
{
	put_be32(at, alter->timeout_ms);
	put_be16(at + 4, (uint16_t)alter->principal.len);
	at = put_bytes(at + 6, alter->principal.data, alter->principal.len);
	put_be16(at, (uint16_t)alter->via.len);
	put_be16(at + 2, (uint16_t)alter->address.len);
	at = put_bytes(at + 4, alter->via.data, alter->via.len);
	(void)put_bytes(at, alter->address.data, alter->address.len);
}

static void claim_encode(uint8_t *at, const struct cmd_claim *claim)
{
	put_be64(at, claim->queue);
	put_be32(at + 8, claim->max);
	put_be32(at + 12, claim->lease_ms);
	at[16] = claim->flags;
	put_be64(at + 17, claim->resume_after);
	put_be64(at + 25, claim->resume_until);
	put_be16(at + 33, claim->split);
	put_be64(at + 35, claim->consumer);
	put_be64(at + 43, claim->source);
	put_be32(at + 51, claim->extend_max_ms);
}

static void ack_encode(uint8_t *at, const struct cmd_ack *ack)
{
	put_be64(at, ack->queue);
	put_be64(at + 8, ack->token);
	at[16] = ack->op;
	put_be32(at + 17, ack->value_ms);
	put_be16(at + 21, (uint16_t)ack->reason.len);
	put_be16(at + 23, ack->run_count);
	at = put_bytes(at + 25, ack->runs, (size_t)ack->run_count * FRAME_RUN_BYTES);
	(void)put_bytes(at, ack->reason.data, ack->reason.len);
}

static void tick_encode(uint8_t *at, const struct cmd_tick *tick)
{
	put_be32(at, tick->work_max);
	(void)put_bytes(at + 4, tick->put_off.data, tick->put_off.len);
}

static void boot_encode(uint8_t *at, const struct cmd_boot *boot)
{
	at[0] = boot->by_wall;
	put_be64(at + 1, boot->boot_id);
	put_be64(at + 9, boot->offset_ms);
	put_be64(at + 17, boot->away_ms);
	put_be64(at + 25, boot->back_ms);
}

static void bin_encode(uint8_t *at, uint16_t type, const void *body)
{
	switch (type) {
	case COMMAND_TICK:
		tick_encode(at, body);
		break;
	case COMMAND_BOOT:
		boot_encode(at, body);
		break;
	case COMMAND_SESSION_OPEN:
		session_open_encode(at, body);
		break;
	case COMMAND_SESSION_EXPIRE:
		put_be64(at, ((const struct cmd_session_expire *)body)->session);
		break;
	case COMMAND_SESSION_ALTER:
		session_alter_encode(at, body);
		break;
	case COMMAND_PUBLISH:
		(void)frame_publish_encode(at, body);
		break;
	case COMMAND_CLAIM:
		claim_encode(at, body);
		break;
	case COMMAND_ACK:
		ack_encode(at, body);
		break;
	default:
		break;
	}
}

/* A decoded command, its BIN body and the bytes that the body borrows from are one allocation. */
struct owned {
	struct command command;
	union {
		struct cmd_tick tick;
		struct cmd_boot boot;
		struct cmd_session_open session_open;
		struct cmd_session_expire session_expire;
		struct cmd_session_alter session_alter;
		struct frame_publish publish;
		struct cmd_claim claim;
		struct cmd_ack ack;
	} body;
	uint8_t bytes[];
};

static int bad(const char **ret_why, int code, const char *why)
{
	*ret_why = why;
	return code;
}

static int session_open_more(const uint8_t *at, size_t len, struct cmd_session_open *ret,
			     const char **ret_why)
{
	size_t principal, via, address;

	if (len < SESSION_OPEN_MORE)
		return bad(ret_why, SLUICE_E_PROTOCOL,
			   "session_open: body of version 2 is too short");
	principal = get_be16(at + 2);
	via = get_be16(at + 4);
	address = get_be16(at + 6);
	if (len != SESSION_OPEN_MORE + principal + via + address)
		return bad(ret_why, SLUICE_E_PROTOCOL, "session_open: lengths do not add up");
	ret->flags = at[0];
	ret->face = at[1];
	at += SESSION_OPEN_MORE;
	ret->principal = (struct sluice_slice){at, principal};
	ret->via = (struct sluice_slice){at + principal, via};
	ret->address = (struct sluice_slice){at + principal + via, address};
	return 0;
}

static int session_open_decode(const uint8_t *at, size_t len, uint8_t version,
			       struct cmd_session_open *ret, const char **ret_why)
{
	size_t name, client, first;

	if (len < 24)
		return bad(ret_why, SLUICE_E_PROTOCOL, "session_open: body is too short");
	name = get_be16(at + 20);
	client = get_be16(at + 22);
	first = 24 + name + client;
	if (version == 1 ? len != first : len < first)
		return bad(ret_why, SLUICE_E_PROTOCOL, "session_open: lengths do not add up");
	memcpy(ret->secret, at, sizeof(ret->secret));
	ret->timeout_ms = get_be32(at + 16);
	ret->name = (struct sluice_slice){at + 24, name};
	ret->client = (struct sluice_slice){at + 24 + name, client};
	return version == 1 ? 0 : session_open_more(at + first, len - first, ret, ret_why);
}

static int session_alter_decode(const uint8_t *at, size_t len, struct cmd_session_alter *ret,
				const char **ret_why)
{
	size_t principal, via, address;

	if (len < SESSION_ALTER_BYTES)
		return bad(ret_why, SLUICE_E_PROTOCOL, "session_alter: body is too short");
	principal = get_be16(at + 4);
	if (len < SESSION_ALTER_BYTES + principal)
		return bad(ret_why, SLUICE_E_PROTOCOL, "session_alter: lengths do not add up");
	via = get_be16(at + 6 + principal);
	address = get_be16(at + 8 + principal);
	if (len != SESSION_ALTER_BYTES + principal + via + address)
		return bad(ret_why, SLUICE_E_PROTOCOL, "session_alter: lengths do not add up");
	ret->timeout_ms = get_be32(at);
	ret->principal = (struct sluice_slice){at + 6, principal};
	at += SESSION_ALTER_BYTES + principal;
	ret->via = (struct sluice_slice){at, via};
	ret->address = (struct sluice_slice){at + via, address};
	return 0;
}

static int ack_decode(const uint8_t *at, size_t len, struct cmd_ack *ret, const char **ret_why)
{
	size_t reason, runs;

	if (len < 25)
		return bad(ret_why, SLUICE_E_PROTOCOL, "ack: body is too short");
	reason = get_be16(at + 21);
	runs = get_be16(at + 23);
	if (runs > LIMIT_ACK_RUNS_MAX)
		return bad(ret_why, SLUICE_E_LIMIT, "ack: too many runs");
	if (len != 25 + runs * FRAME_RUN_BYTES + reason)
		return bad(ret_why, SLUICE_E_PROTOCOL, "ack: lengths do not add up");
	ret->queue = get_be64(at);
	ret->token = get_be64(at + 8);
	ret->op = at[16];
	ret->value_ms = get_be32(at + 17);
	ret->run_count = (uint16_t)runs;
	ret->runs = at + 25;
	ret->reason = (struct sluice_slice){at + 25 + runs * FRAME_RUN_BYTES, reason};
	return 0;
}

static int claim_decode(const uint8_t *at, size_t len, uint8_t version, struct cmd_claim *ret,
			const char **ret_why)
{
	static const uint8_t bytes[] = {0, CLAIM_1_BYTES, CLAIM_2_BYTES, CLAIM_BYTES};

	if (len != bytes[version])
		return bad(ret_why, SLUICE_E_PROTOCOL,
			   "claim: body is not 55 bytes (version 2: 51, version 1: 33)");
	*ret = (struct cmd_claim){.queue = get_be64(at),
				  .max = get_be32(at + 8),
				  .lease_ms = get_be32(at + 12),
				  .flags = at[16],
				  .resume_after = get_be64(at + 17),
				  .resume_until = get_be64(at + 25)};
	if (version == 1)
		return 0;
	ret->split = get_be16(at + 33);
	ret->consumer = get_be64(at + 35);
	ret->source = get_be64(at + 43);
	if (version > 2)
		ret->extend_max_ms = get_be32(at + 51);
	return 0;
}

static int boot_decode(const uint8_t *at, size_t len, struct cmd_boot *ret, const char **ret_why)
{
	if (len != BOOT_BYTES)
		return bad(ret_why, SLUICE_E_PROTOCOL, "boot: body is not 33 bytes");
	if (at[0] > 1)
		return bad(ret_why, SLUICE_E_PROTOCOL, "boot: unknown flags");
	*ret = (struct cmd_boot){.boot_id = get_be64(at + 1),
				 .offset_ms = get_be64(at + 9),
				 .by_wall = at[0] != 0,
				 .away_ms = get_be64(at + 17),
				 .back_ms = get_be64(at + 25)};
	return 0;
}

static int bin_decode(struct owned *owned, size_t len, uint8_t version, const char **ret_why)
{
	const uint8_t *at = owned->bytes;

	owned->command.body = &owned->body;
	switch (owned->command.type) {
	case COMMAND_TICK:
		if (len != 4 && len != 4 + TIMER_KEY_BYTES)
			return bad(ret_why, SLUICE_E_PROTOCOL, "tick: body is not 4 or 33 bytes");
		owned->body.tick.work_max = get_be32(at);
		owned->body.tick.put_off = (struct sluice_slice){at + 4, len - 4};
		return 0;
	case COMMAND_BOOT:
		return boot_decode(at, len, &owned->body.boot, ret_why);
	case COMMAND_SESSION_OPEN:
		return session_open_decode(at, len, version, &owned->body.session_open, ret_why);
	case COMMAND_SESSION_EXPIRE:
		if (len != 8)
			return bad(ret_why, SLUICE_E_PROTOCOL,
				   "session_expire: body is not 8 bytes");
		owned->body.session_expire.session = get_be64(at);
		return 0;
	case COMMAND_SESSION_ALTER:
		return session_alter_decode(at, len, &owned->body.session_alter, ret_why);
	case COMMAND_PUBLISH:
		return frame_publish_decode((struct sluice_slice){at, len}, &owned->body.publish,
					    ret_why);
	case COMMAND_CLAIM:
		return claim_decode(at, len, version, &owned->body.claim, ret_why);
	case COMMAND_ACK:
		return ack_decode(at, len, &owned->body.ack, ret_why);
	default:
		return bad(ret_why, SLUICE_E_UNKNOWN_TYPE, "unknown command type");
	}
}

/* ---- PB bodies ---- */

/* Unknown fields, strings with a NUL inside, defaults on the wire: all of them pack to other bytes
 * than were read. */
static bool packs_as(const ProtobufCMessage *message, const uint8_t *bytes, size_t len)
{
	uint8_t *packed;
	bool same;

	if (protobuf_c_message_get_packed_size(message) != len)
		return false;
	packed = malloc(len + 1);
	if (packed == NULL)
		return false;
	(void)protobuf_c_message_pack(message, packed);
	same = memcmp(packed, bytes, len) == 0;
	free(packed);
	return same;
}

static int message_decode(struct owned *owned, const ProtobufCMessageDescriptor *descriptor,
			  size_t len, bool strict, const char **ret_why)
{
	ProtobufCMessage *message = NULL;
	const char *why = NULL;
	int rc = message_unpack(descriptor, (struct sluice_slice){owned->bytes, len},
				LIMIT_COMMAND_BYTES_MAX, &message, &why);

	if (rc != 0)
		return bad(ret_why, rc, why);
	if (strict && !packs_as(message, owned->bytes, len)) {
		protobuf_c_message_free_unpacked(message, NULL);
		return bad(ret_why, SLUICE_E_PROTOCOL, "the body is not in canonical form");
	}
	owned->command.message = message;
	return 0;
}

/* ---- commands ---- */

size_t command_size(const struct command *command)
{
	const struct command_spec *spec = command_spec(command->type);

	if (spec == NULL)
		return 0;
	return COMMAND_HEAD_BYTES + (spec->message != NULL
					     ? protobuf_c_message_get_packed_size(command->message)
					     : bin_size(command->type, command->body));
}

size_t command_encode(uint8_t *buf, const struct command *command)
{
	const struct command_spec *spec = command_spec(command->type);
	size_t bytes = command_size(command);

	if (spec == NULL)
		return 0;
	put_be16(buf, command->type);
	buf[2] = version_of(command->type);
	put_be32(buf + 3, command->gateway);
	put_be64(buf + 7, command->session);
	put_be64(buf + 15, command->random);
	put_be32(buf + 23, (uint32_t)(bytes - COMMAND_HEAD_BYTES));
	if (spec->message != NULL)
		(void)protobuf_c_message_pack(command->message, buf + COMMAND_HEAD_BYTES);
	else
		bin_encode(buf + COMMAND_HEAD_BYTES, command->type, command->body);
	return bytes;
}

static int head_check(struct sluice_slice bytes, const struct command_spec **ret_spec,
		      const char **ret_why)
{
	const uint8_t *at = bytes.data;
	uint64_t body_max;
	uint32_t body;

	if (bytes.len < COMMAND_HEAD_BYTES)
		return bad(ret_why, SLUICE_E_PROTOCOL, "a command is at least 27 bytes");
	*ret_spec = command_spec(get_be16(at));
	if (*ret_spec == NULL)
		return bad(ret_why, SLUICE_E_UNKNOWN_TYPE, "unknown command type");
	if (at[2] == 0 || at[2] > version_of((*ret_spec)->type))
		return bad(ret_why, SLUICE_E_VERSION, "unknown version of the command encoding");
	body = get_be32(at + 23);
	if (body != bytes.len - COMMAND_HEAD_BYTES)
		return bad(ret_why, SLUICE_E_PROTOCOL,
			   "the command's length does not fit its body");
	body_max =
		get_be16(at) == COMMAND_PUBLISH ? LIMIT_FRAME_BYTES_MAX : LIMIT_COMMAND_BYTES_MAX;
	if (body > body_max)
		return bad(ret_why, SLUICE_E_LIMIT, "the command is longer than its limit");
	return 0;
}

static int decode(struct sluice_slice bytes, bool strict, struct command **ret,
		  const char **ret_why)
{
	const struct command_spec *spec = NULL;
	const uint8_t *at = bytes.data;
	struct owned *owned;
	size_t body;
	int rc = head_check(bytes, &spec, ret_why);

	if (rc != 0)
		return rc;
	body = bytes.len - COMMAND_HEAD_BYTES;
	owned = malloc(sizeof(*owned) + body);
	if (owned == NULL)
		return SLUICE_E_NOMEM;
	memset(owned, 0, sizeof(*owned));
	memcpy(owned->bytes, at + COMMAND_HEAD_BYTES, body);
	owned->command = (struct command){.type = spec->type,
					  .gateway = get_be32(at + 3),
					  .session = get_be64(at + 7),
					  .random = get_be64(at + 15)};
	rc = spec->message != NULL ? message_decode(owned, spec->message, body, strict, ret_why)
				   : bin_decode(owned, body, at[2], ret_why);
	if (rc != 0) {
		free(owned);
		return rc;
	}
	*ret = &owned->command;
	return 0;
}

int command_decode(struct sluice_slice bytes, struct command **ret, const char **ret_why)
{
	const char *why = NULL;
	int rc = decode(bytes, true, ret, &why);

	if (rc != 0 && ret_why != NULL)
		*ret_why = why != NULL ? why : "out of memory";
	return rc;
}

void command_free(struct command *command)
{
	const struct command_spec *spec;

	if (command == NULL)
		return;
	spec = command_spec(command->type);
	if (spec != NULL && spec->message != NULL)
		protobuf_c_message_free_unpacked((ProtobufCMessage *)(uintptr_t)command->message,
						 NULL);
	free(command);
}

int command_copy(const struct command *command, struct command **ret)
{
	size_t bytes = command_size(command);
	const char *why = NULL;
	uint8_t *encoded;
	int rc;

	if (bytes == 0)
		return SLUICE_E_UNKNOWN_TYPE;
	encoded = malloc(bytes);
	if (encoded == NULL)
		return SLUICE_E_NOMEM;
	(void)command_encode(encoded, command);
	rc = decode((struct sluice_slice){encoded, bytes}, false, ret, &why);
	free(encoded);
	return rc;
}
