/* SPDX-License-Identifier: Apache-2.0
 *
 * Commands: structs with a canonical, versioned byte encoding; the table (commands.def) is the only
 * list of them. Canonical: a decoded and re-encoded command has the same bytes, as a command log
 * requires.
 */
#ifndef SLUICE_CORE_COMMAND_H
#define SLUICE_CORE_COMMAND_H

#include <stdbool.h>

#include "protocol/frame.h"
#include "sluice.pb-c.h"

enum command_type {
#define PB(NAME, number, Message, message, permission, headroom, handler, text) \
	COMMAND_##NAME = number,
#define BIN(NAME, number, body, permission, headroom, handler, text) COMMAND_##NAME = number,
#include "broker/core/commands.def"
#undef PB
#undef BIN
};

enum headroom { HEADROOM_PUBLISH, HEADROOM_REPORT, HEADROOM_ALWAYS };

enum { TIMER_KEY_BYTES = 4 + 8 + 1 + 8 + 8 };
struct cmd_tick {
	uint32_t work_max; /* records to touch at most */
	/* Key of a timer to postpone to TIMER_PUT_OFF_MS from now instead of firing it (it met a
	 * damaged record), of TIMER_KEY_BYTES; empty: none. */
	struct sluice_slice put_off;
};
/* The first command after a start, and the first of a store. Carries what only the broker that
 * takes the lead knows, so that every store that applies it has the same clocks. */
struct cmd_boot {
	/* of the machine's boot, during which its monotone clock continues; 0: not known */
	uint64_t boot_id;
	uint64_t offset_ms; /* durable - process's monotone clock, modulo 2^64 */
	/* The durable clock was advanced by the difference of wall clocks: by away_ms; back_ms is
	 * how far the wall clock went back instead. */
	bool by_wall;
	uint64_t away_ms, back_ms;
};
struct cmd_session_open {
	struct sluice_slice name;   /* may be empty */
	struct sluice_slice client; /* free text */
	uint32_t timeout_ms;
	uint8_t secret[16]; /* random, set by the engine's caller */
	/* Version 2; absent in version 1. */
	uint8_t flags; /* enum session_flag */
	uint8_t face;  /* enum session_face */
	/* user, and the proxy that authenticated it; empty: not known */
	struct sluice_slice principal, via;
	struct sluice_slice address; /* of the peer, as text without a port; empty: not known */
};
enum session_flag {
	SESSION_EPHEMERAL = 2,
	SESSION_STANDING = 4
}; /* as in the record, where 1 means that it has ended */
enum session_face {
	SESSION_FACE_NONE,
	SESSION_FACE_NATIVE,
	SESSION_FACE_HTTP,
	SESSION_FACE_AMQP,
	SESSION_FACE_KAFKA,
	SESSION_FACE_ZOOKEEPER,
	SESSION_FACE_CONSUL,
	SESSION_FACE_LOGS,
	SESSION_FACE_PLUGIN,
	SESSION_FACE_THRIFT,
	SESSION_FACE_COUNT
};
/* Bytes of a principal, a via and an address. */
enum { SESSION_WHO_BYTES_MAX = 255, SESSION_ADDRESS_BYTES_MAX = 64 };
struct cmd_session_expire {
	uint64_t session;
};
/* Of the command's session; 0 and empty leave a member as it is. Only the broker itself may set
 * more than the timeout. */
struct cmd_session_alter {
	uint32_t timeout_ms;
	struct sluice_slice principal; /* taken only by a session that has none */
	struct sluice_slice via, address;
};
enum claim_flag {
	CLAIM_ORPHANS = 1,
	CLAIM_RESUME = 2,
	CLAIM_SESSION_LEASE = 4,
	/* the consumer reports the items that it begins (ACK_BEGUN): none is presumed begun */
	CLAIM_REPORTS = 32
};
struct cmd_claim {
	uint64_t queue; /* number */
	uint32_t max;
	uint32_t lease_ms; /* 0: the queue's */
	/* CLAIM_RESUME: redeliver what the session holds, timed leases begin anew; grant nothing
	 * new */
	uint8_t flags;
	/* RESUME continues in steps: after this grant's token, or this job's number (0: from the
	 * first), with leases up to this index (0: up to now), so that entries granted meanwhile to
	 * another consumer of the session are not delivered twice. */
	uint64_t resume_after, resume_until;
	/* Version 2; 0 in version 1. split and consumer are reserved. */
	uint16_t split;
	uint64_t consumer;
	/* The source that can judge the jobs: only its orphans are given; 0: none. */
	uint64_t source;
	/* Version 3; 0 in older ones. The consumer extends timed leases automatically for at most
	 * this long; 0: not known. Only shown. */
	uint32_t extend_max_ms;
};
struct cmd_ack {
	uint64_t queue;
	uint64_t token;
	uint8_t op; /* enum ack_op */
	uint32_t value_ms;
	uint16_t run_count;
	const uint8_t *runs; /* encoded as in the ACK frame: frame_run_at() */
	struct sluice_slice reason;
};

/* Has no time: each batch has one (core_batch_begin). */
struct command {
	uint16_t type;	  /* enum command_type */
	uint32_t gateway; /* number */
	uint64_t session; /* 0: none */
	uint64_t random;  /* set before the batch; the only randomness that apply may use */
	union {
		const ProtobufCMessage *message; /* PB commands: the struct of that message */
		const void *body;		 /* BIN commands: the struct named in the table */
	};
};

struct command_spec {
	uint16_t type;
	const char *name; /* "job_submit" style */
	const char *permission;
	enum headroom headroom;
	const ProtobufCMessageDescriptor *message; /* NULL for BIN */
	const char *text;
};
const struct command_spec *command_spec(uint16_t type); /* NULL when unknown */
const struct command_spec *command_specs(size_t *ret_count);
/* The class of one command: of its type; of a transaction, the class that stops first among its
 * operations. The type must be known. */
enum headroom command_headroom(const struct command *command);

/* Encoding: u16 type, u8 version (of the body), u32 gateway, u64 session, u64
 * random, u32 body bytes, body. size + encode write the canonical form. decode allocates the
 * command and its body (owned; command_free) and copies what it needs from the input. Errors:
 * PROTOCOL, UNKNOWN_TYPE, VERSION, LIMIT, NOMEM. Thread-safe. */
size_t command_size(const struct command *command);
/* The newest version of its body that a level of the rules has; UINT32_MAX: of all. command_encode
 * writes the newest of all. */
uint8_t command_version(uint16_t type, uint32_t level);
size_t command_encode(uint8_t *buf, const struct command *command);
int command_decode(struct sluice_slice bytes, struct command **ret,
		   const char **ret_why) SLUICE_MUST_USE;
void command_free(struct command *command); /* of command_decode / command_copy; accepts NULL */
/* A deep copy in one owner (through the codec), without unknown fields. */
int command_copy(const struct command *command, struct command **ret) SLUICE_MUST_USE;

#endif
