/* SPDX-License-Identifier: Apache-2.0
 * The native protocol, between its files. */
#ifndef SLUICE_NET_NATIVE_H
#define SLUICE_NET_NATIVE_H

#include "broker/net/conn/door.h"
#include "broker/net/conn/protocol.h"
#include "protocol/frame.h"

struct conn;

/* The state of a connection. */
struct native {
	struct conn *conn;
	bool greeted;	      /* HELLO was accepted */
	bool topology_data;   /* topology requests are in the lane of publishes */
	Sluice__Hello *hello; /* while a session is being opened */
};

/* The frame that answers a command: PUBLISHED, ACKED or REPLY; and what a request has done when it
 * arrived. With the correlation number of its frame it is a tag of door.h. */
enum native_what {
	NATIVE_REPLY = 1,
	NATIVE_PUBLISHED,
	NATIVE_ACKED,
	NATIVE_NOTHING, /* a command of the broker itself */
	NATIVE_CLOSED	/* SubscriptionClose: the consumer is closed already */
};
static inline uint64_t native_tag(enum native_what what, uint32_t corr)
{
	return (uint64_t)what << 32 | corr;
}

/* ---- frame.c: frames out ---- */
void native_frame(struct conn *conn, uint8_t type, uint32_t corr, const void *body, size_t len);
void native_message(struct conn *conn, uint8_t type, uint32_t corr,
		    const ProtobufCMessage *message);
/* ERROR frame, then the connection is closed. Returns -1, as the bytes op does. */
long native_fail(struct conn *conn, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
void native_refuse(struct conn *conn, uint32_t corr, int code, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
/* The REPLY of what is answered among the reads, in their order: when what it shows was released.
 * number: of the commit; 0: it shows none. */
void native_reply_shown(struct conn *conn, uint32_t corr, uint64_t number,
			const Sluice__Reply *reply);
void native_refuse_shown(struct conn *conn, uint32_t corr, uint64_t number, int code,
			 const char *format, ...) __attribute__((format(printf, 5, 6)));
void native_notice(struct conn *conn, Sluice__NoticeKind kind, uint64_t number, uint64_t offset,
		   uint64_t to_offset, int code, const char *text);
/* NOMEM becomes BUSY, with a text for it: a request that was not accepted may be retried. */
int native_no_memory_is_busy(int code, const char **io_text);
/* For the log at level debug; bounded. */
void native_log_refused(const struct conn *conn, uint64_t corr, int code, const char *text);

/* ---- session.c, request.c: each handles one frame. 0; 1: the inbox was full, the frame is given
 * again; or -1 after native_fail. ---- */
int native_hello(struct native *native, struct sluice_slice body);
int native_request(struct conn *conn, uint32_t corr, struct sluice_slice body);
void native_session(struct conn *conn, uint64_t tag, int code, const char *text,
		    const struct door_session *session);
void native_stop(struct conn *conn, uint64_t within_ms);
void native_drained(struct conn *conn);
void native_in_order(struct conn *conn, uint64_t tag, int rc, const Sluice__Request *request,
		     struct message_block **block, size_t bytes);

/* ---- subscribe.c ---- */
void native_follow_open(struct conn *conn, uint32_t corr, const Sluice__FollowOpen *m);
void native_consume_open(struct conn *conn, uint32_t corr, const Sluice__ConsumeOpen *m);
void native_subscription_close(struct conn *conn, uint64_t tag, const Sluice__SubscriptionClose *m);
/* Runs when the frame arrives; its answer is sent in its turn. Commands after it give items back,
 * which must not be granted to the same consumer again. True: it was a consumer, now closed. */
bool native_close_at_once(struct conn *conn, const Sluice__SubscriptionClose *m);

/* ---- query.c ---- */
void native_read_done(struct conn *conn, uint64_t corr, const struct read_result *result);
void native_answer(struct conn *conn, uint64_t corr, int code, const uint8_t *reply, size_t len);
void native_waited(struct conn *conn, uint64_t corr, const struct job_waited *result);

/* ---- deliver.c ---- */
void native_effect(struct conn *conn, struct sub *sub, const struct effect *effect);
int native_deliver_segment(struct sub *sub, const struct segment *segment, uint64_t *io_budget);
void native_gap(struct sub *sub, uint64_t to_offset);
void native_caught_up(struct sub *sub);
void native_subscription_end(struct sub *sub, int code, const char *text);

/* ---- reply.c: the body of a command's REPLY; returns its length ---- */
/* Upper bound for the texts of an outcome and all its numbers. */
enum { NATIVE_REPLY_BYTES_MAX = 1024 };
size_t native_reply_encode(uint8_t buf[NATIVE_REPLY_BYTES_MAX], const struct outcome *outcome);

#endif
