/* SPDX-License-Identifier: Apache-2.0
 *
 * The calls of a protocol: the only way from a protocol's folder to connections, sessions, the
 * engine and the store. What reaches the engine is admitted here and nowhere else (admit.h). The
 * answers come through the protocol's table (protocol.h).
 *
 * All calls run on the thread of the connection, inside a call of its table, and do not block. They
 * return 0 or a code of sluice/error.h. After a code nothing was taken and no answer follows. BUSY:
 * the broker is at a bound. Inside `bytes`: return what was consumed before; the same bytes are
 * given again. In another call: keep the work; `ready` INBOX follows. Slices are borrowed for
 * the call, unless it says otherwise. A connection that is ending (door_is_ending) takes nothing
 * new: CLOSED.
 *
 * Tags are the protocol's own and come back with the answer; the number of a subscription is one,
 * too, and is unique among the open ones of the connection.
 */
#ifndef SLUICE_NET_DOOR_H
#define SLUICE_NET_DOOR_H

#include "broker/core/command.h"
#include "protocol/message_block.h"
#include "sluice.pb-c.h"

struct conn;
struct door_buf;
struct sub;

/* ---- the connection ---- */
void *door_state(const struct conn *conn); /* what `accept` set */
void door_state_set(struct conn *conn, void *state);
const void *door_listener(const struct conn *conn); /* of its port */
bool door_is_ending(const struct conn *conn);
bool door_is_dead(const struct conn *conn); /* ended: nothing that is written is sent any more */

/* Facts for the log and for answers. */
enum { DOOR_PEER_BYTES = 64 };
struct door_facts {
	uint64_t thread, id; /* of the connection; unique together */
	uint32_t gateway;    /* number; 0: not entered */
	uint64_t session;    /* the attached one; 0: none */
	uint32_t session_timeout_ms;
	bool zstd; /* compressed batches may be given */
};
void door_facts(const struct conn *conn, struct door_facts *ret);
/* The peer's address and port; of a unix socket "uid:N"; "local" for a plugin of the broker. Asks
 * the system: not for the usual path. */
const char *door_peer(const struct conn *conn, char text[DOOR_PEER_BYTES]);
uint64_t door_wall_ms(const struct conn *conn);
/* The gateway's index as of the last commit; 0: none yet, or it cannot be read. */
uint64_t door_index(const struct conn *conn);

/* ---- output ---- */
/* Appends the parts to the output, which is sent at the end of the round. Of many bytes (64 KiB)
 * up to 1 MiB may be sent from the parts at once, without waiting; the rest is copied. BUSY: taken,
 * but stop; `ready` OUTPUT follows. CLOSED: the connection has ended. Output that the peer does not
 * read closes the connection at OUTPUT_CLOSE_BYTES_MAX; deliveries do not count, because the broker
 * stops granting long before. */
int door_write(struct conn *conn, const struct sluice_slice *parts, size_t count);
/* The output is at its bound: begin nothing that writes more. */
bool door_is_full(const struct conn *conn);
enum door_ready { DOOR_READY_OUTPUT = 1, DOOR_READY_INBOX };
/* Ends the connection after what was written is sent, for which the peer has DOOR_CLOSE_MS, or at
 * once. why: of static storage, for the log; the first one stays. */
enum { DOOR_CLOSE_MS = 5000 };
void door_close(struct conn *conn, const char *why);
void door_abort(struct conn *conn, const char *why);

/* ---- time ---- */
/* Ends the connection after so much silence of the peer; 0: never. A connection that the broker
 * itself does not read is not silent. Until then: the timeout of its attached session, else never.
 * Whatever is set: 10 s from the accept to door_enter. */
void door_idle(struct conn *conn, uint32_t silence_ms);
/* One per connection: `timer` is called once at this time of door_mono_ms, or up to
 * DOOR_TIMER_MS later; one that has passed: soon, not inside this call. 0: never. */
enum { DOOR_TIMER_MS = 10 };
void door_timer(struct conn *conn, uint64_t at_mono_ms);
uint64_t door_mono_ms(void);

/* ---- input ---- */
/* `bytes` is not called before so many bytes are there; 0: any number. They are contiguous then.
 * Memory for them grows with what arrives (twice what is there), not with this number, and counts
 * as pending. At most a frame with its length (FRAME_BYTES_MAX), before door_enter
 * PREAUTH_BYTES_MAX: beyond, the connection is closed; as well when `bytes` takes nothing of so
 * many and none of these calls says why. */
enum { DOOR_LENGTH_BYTES = 4 };
void door_want(struct conn *conn, size_t bytes);
/* on: no `bytes` until off; the socket is read up to CONN_HELD_BYTES_MAX, before door_enter
 * PREAUTH_BYTES_MAX, then not at all. The end of the peer closes the connection all the same, also
 * if it sent something before. off: bytes that are there may be given inside this call. */
void door_hold(struct conn *conn, bool on);
/* Whether one more frame is within the connection's bounds. `bytes` stops when not; in another call
 * `ready` INBOX follows. */
bool door_may_take(struct conn *conn);

/* ---- memory ---- */
/* Counted memory (bufs.h). It may be written until the first command with it is sent, then it is
 * only read. Each of new and take gives one reference, which the protocol drops with
 * door_buf_unref, in any call of its table; a command that was accepted has its own until it is
 * answered. BUSY: a bound is reached; LIMIT: more than CONN_PENDING_BYTES_MAX; NOMEM. */
int door_buf_new(struct conn *conn, size_t bytes, struct door_buf **ret,
		 void **ret_bytes) SLUICE_MUST_USE;
/* Inside `bytes`: takes the memory in which the given bytes lie, and consumes none of them. part:
 * some of them; afterwards it lies in *ret: when the given bytes fill less than a quarter of their
 * memory they are copied, all of them, once for all takes of one call of `bytes`. */
int door_buf_take(struct conn *conn, struct door_buf **ret,
		  struct sluice_slice *io_part) SLUICE_MUST_USE;
void door_buf_unref(struct door_buf *buf); /* accepts NULL */

/* ---- gateway and sessions ---- */
/* Binds the connection to a gateway, by name. Again, with another one: only while it has neither a
 * session nor a subscription (WRONG_STATE). NOT_FOUND. */
int door_enter(struct conn *conn, struct sluice_slice gateway) SLUICE_MUST_USE;

/* Of struct door_session_spec.instance. */
enum { DOOR_INSTANCE_BYTES = 16 };
enum door_session_how { DOOR_SESSION_OPEN = 1, DOOR_SESSION_RESUME, DOOR_SESSION_USE };
enum door_session_flag {
	/* carried by this connection: it does not expire meanwhile, and an older carrier is closed
	 */
	DOOR_SESSION_ATTACH = 1,
	/* OPEN: it ends with this connection, and at a start of the broker */
	DOOR_SESSION_EPHEMERAL = 2,
};
struct door_session_spec {
	enum door_session_how how;
	uint8_t flags;	     /* enum door_session_flag */
	uint8_t face;	     /* enum session_face */
	uint32_t timeout_ms; /* OPEN: moved into LIMIT_SESSION_TIMEOUT_MS_MIN to _MAX */
	/* RESUME: both. A wrong secret, or a session that has ended: SESSION_GONE. USE: session;
	 * DENIED if another face opened it. */
	uint64_t session;
	struct sluice_slice secret;
	struct sluice_slice name, client; /* OPEN; may be empty */
	/* The client's attempts to connect, which it counts (instance.h); empty: it does not.
	 * STALE_ATTEMPT: the client has abandoned this connection; *ret_why says more. */
	struct sluice_slice instance;
	uint64_t attempt;
};
struct door_session {
	uint64_t session;
	uint8_t secret[16];
	uint32_t timeout_ms;
};
/* From then on the connection holds the session, and effects for the session go to it. It holds
 * LIMIT_HELD_SESSIONS_MAX; beyond, the least used one that is neither attached nor ephemeral, and
 * has no consumer, is let go (LIMIT: there is none). RESUME, USE: done, *ret is filled. OPEN: a
 * command; `session` of the table follows with the tag. *ret_why is borrowed until the next call.
 * BUSY. */
int door_session(struct conn *conn, uint64_t tag, const struct door_session_spec *spec,
		 struct door_session *ret, const char **ret_why) SLUICE_MUST_USE;
/* A sign of life of a free session that it holds, memory only; given to the engine with others
 * every 100 ms. SESSION_GONE: not held. */
int door_touch(struct conn *conn, uint64_t session) SLUICE_MUST_USE;
/* Lets a session go that it holds: free ones live on for their timeout, ephemeral ones are closed.
 * SESSION_GONE. */
int door_session_drop(struct conn *conn, uint64_t session) SLUICE_MUST_USE;

/* ---- commands ---- */
enum door_lane { DOOR_DATA, DOOR_CONTROL };
enum { DOOR_QUIET = 1 }; /* answered only when refused */
/* What holds a command's struct and slices: one of the two. Taken by the call, also on error. */
struct door_block {
	void *plain; /* malloc'd */
	struct message_block *message;
	/* Holds the others of the slices, buf_bytes of the command; NULL: there are none. Borrowed:
	 * an accepted command has a reference of its own. */
	struct door_buf *buf;
	size_t buf_bytes;
};
/* Sends a command. Gateway and random of *command are the door's; session: one that the connection
 * holds, else DENIED; 0: the attached one, if there is one. bytes: of the command, for the bounds.
 * Answer: `reply`, after its commit and its other effects; the answers of one lane come in the
 * order of the calls. UNKNOWN_TYPE: none, or one that only the broker sends. Not for PUBLISH. */
int door_submit(struct conn *conn, uint64_t tag, const struct command *command,
		struct door_block block, size_t bytes, enum door_lane lane,
		unsigned flags) SLUICE_MUST_USE;
/* Sends a PUBLISH, in the data lane; session as in door_submit. Checks all that core relies on.
 * buf: the payload lies in it and is not copied (see struct door_block); NULL: publish is copied,
 * payload and all. *ret_why: of static storage. */
int door_publish(struct conn *conn, uint64_t tag, uint64_t session,
		 const struct frame_publish *publish, struct door_buf *buf,
		 const char **ret_why) SLUICE_MUST_USE;
/* Sends an ACK, in the control lane. number: of a consumer that is open, or was closed recently.
 * ack->queue is the door's. Checks the operation, the number of runs and the reason: PROTOCOL,
 * LIMIT. */
int door_ack(struct conn *conn, uint64_t tag, uint64_t number, const struct cmd_ack *ack,
	     unsigned flags) SLUICE_MUST_USE;
/* The command of a request of sluice.proto; false: the request is no command. */
bool door_request_command(const Sluice__Request *request, uint16_t *ret_type);

/* ---- reads ---- */
/* Calls `request` of the table, now or when the commands before it are answered. body: the packed
 * request, borrowed. takes block, which holds request. Before door_enter: WRONG_STATE. NOMEM. */
int door_in_order(struct conn *conn, uint64_t tag, struct sluice_slice body,
		  const Sluice__Request *request, struct message_block **block) SLUICE_MUST_USE;
/* Answers a read of sluice.proto with `read_done`, now or in turns (reading.h). Inside `request`.
 * takes block, which holds request. UNSUPPORTED: it is a job_wait. */
int door_read(struct conn *conn, uint64_t tag, struct message_block **block,
	      const Sluice__Request *request, size_t bytes) SLUICE_MUST_USE;
/* Waits until the job has ended, or for timeout_ms; 0: as long as it takes. A reset before the
 * answer could be made continues the wait. job: an id, borrowed. number: of the job, which may not
 * be another one of this id; 0: the one that there is now. Answer: one call of `waited`, in this
 * call or later, with each refusal that the wait meets in its turn, which comes behind the
 * connection's reads before it (inside `request` behind its commands, too). None if the connection
 * ends before, or the broker stops. UNSUPPORTED: the table has no `waited`. WRONG_STATE before
 * door_enter. NOMEM. */
int door_job_wait(struct conn *conn, uint64_t tag, struct sluice_slice job, uint64_t number,
		  uint64_t timeout_ms) SLUICE_MUST_USE;

/* ---- answers that show a commit ---- */
/* An answer that was made from a snapshot is given behind the last effect of the commit that it
 * shows and before the effects of the next one, and those of a connection in their order. number:
 * of the commit, as the result has it; 0: it shows none. */
/* True: it may be written now. */
bool door_answer_is_due(const struct conn *conn, uint64_t number);
/* Calls `answer` of the table with the same arguments, now or when it is due. takes reply, which
 * is malloc'd; NULL: none. */
void door_answer(struct conn *conn, uint64_t tag, int code, uint8_t *reply, size_t len,
		 uint64_t number);

/* ---- subscriptions ---- */
enum door_sub_kind { DOOR_FOLLOW, DOOR_CONSUME };
struct door_sub_spec {
	enum door_sub_kind kind;
	struct sluice_slice name; /* of a stream or queue */
	uint64_t expected_id;	  /* NOT_FOUND if the name belongs to another one by now; 0: any */
	uint32_t credit;
	/* ---- FOLLOW ---- */
	int from; /* Sluice__FollowFrom */
	uint64_t from_offset, from_time_ms;
	struct sluice_slice cursor;
	struct sluice_slice filter; /* a pattern; empty: all */
	bool raw;		    /* compressed batches are given as stored */
	/* ---- CONSUME ---- */
	uint64_t session; /* that holds what is granted; 0: the attached one */
	uint32_t lease_ms, extend_max_ms;
	uint8_t claim_flags;	    /* enum claim_flag */
	struct sluice_slice source; /* of orphans; empty: any */
	bool items_only;	    /* UNSUPPORTED for a queue of jobs */
};
struct door_subscribed {
	uint64_t id; /* of the stream or queue */
	/* the commit that it shows, after an error too; and the gateway's index */
	uint64_t number, index;
	/* FOLLOW */
	uint64_t first_offset, next_offset, start_offset;
	/* CONSUME */
	uint32_t queue_kind, lease_ms;
	char why[320]; /* after an error */
};
/* Begins a subscription; deliveries come after this call, and behind an answer that shows the same
 * commit. A consumer needs a session (WRONG_STATE) that the connection holds (DENIED). EXISTS,
 * LIMIT, INVAL, NOT_FOUND. BUSY: the source is not known yet; the same bytes are not given
 * again. */
int door_subscribe(struct conn *conn, uint64_t number, const struct door_sub_spec *spec,
		   struct door_subscribed *ret) SLUICE_MUST_USE;
/* Adds credit; above LIMIT_CREDIT_MAX in one call: LIMIT. NOT_FOUND. */
int door_credit(struct conn *conn, uint64_t number, uint32_t more) SLUICE_MUST_USE;
/* Ends it; in any call of the table. Grants that the engine made before it sees the end still reach
 * `effect`, with `closed` in the facts. NOT_FOUND; also for one that the broker is ending
 * (subscription_end). */
int door_unsubscribe(struct conn *conn, uint64_t number) SLUICE_MUST_USE;

struct door_sub {
	struct conn *conn;
	uint64_t number;
	enum door_sub_kind kind;
	uint64_t id; /* of the stream or queue */
	bool closed; /* a consumer that the protocol has ended */
	/* FOLLOW */
	uint64_t next, credit;
	bool raw;
	const char *filter; /* NULL: all */
};
void door_sub_get(const struct sub *sub, struct door_sub *ret);
/* The open one, or else a consumer that was closed recently. False: none. */
bool door_sub_find(const struct conn *conn, uint64_t number, struct door_sub *ret);
/* The cost of a segment besides its bytes: a segment that the filter excludes is read, too. */
enum { SEGMENT_READ_COST = 256 };
/* Inside deliver_segment: the follower was given `count` events and is at `next` now. */
void door_delivered(struct sub *sub, uint64_t next, uint64_t count);

#endif
