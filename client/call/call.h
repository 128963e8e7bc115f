/* SPDX-License-Identifier: Apache-2.0
 * Calls: a request, or an ACK, and its answer. */
#ifndef SLUICE_CLIENT_CALL_CALL_H
#define SLUICE_CLIENT_CALL_CALL_H

#include "client/base/client.h"
#include "client/base/hash.h"
#include "client/call/reply.h"

struct call;
typedef void call_hook_fn(sluice_client *client, struct call *call);
struct call {
	uint32_t corr;
	uint64_t number;  /* request id: never reused */
	uint8_t frame;	  /* type of its frame: REQUEST, or ACK */
	uint8_t *request; /* packed Request, or the frame's body */
	size_t request_len;
	bool repeatable;     /* may be sent again after the connection broke */
	bool one_connection; /* makes no sense on another one */
	bool sent;
	bool was_sent;	      /* on an earlier connection: it may have been done */
	uint64_t deadline_ms; /* UINT64_MAX: none */
	sluice_done_fn *done;
	void *user;
	bool finished;
	sluice_reply *reply;
	int code;      /* of a waiting publish; valid also when there was no memory for its reply */
	bool blocking; /* its owner waits and frees it */
	/* Called at its end, before done. */
	call_hook_fn *hook;
	void *hook_user;
	/* Of a call that may end a lease: the job, stored behind the request, and its token. */
	const char *job;
	sluice_token token;
	uint32_t sub_number;	  /* of a call that opens a subscription */
	bool closes_session;	  /* names a session: an older broker would end the caller's own */
	struct call *prev, *next; /* in order of creation */
	UT_hash_handle hh;
};

struct calls {
	struct call *by_corr; /* by correlation number, sent or not */
	struct call *ordered; /* the same, in order */
	/* Start of the search for an unsent call: all before it are sent; NULL: all are. */
	struct call *unsent;
	uint64_t due_ms; /* lower bound of the calls' deadlines */
	uint64_t next_request;
};

/* How a call is made: blocking, with a callback, or neither: then a refusal is reported as an
 * event. */
static inline bool call_fires(const sluice_call *call)
{
	return call != NULL && call->done == NULL && call->user == SLUICE_FIRE;
}
static inline bool call_blocks(const sluice_call *call)
{
	return call == NULL || (call->done == NULL && call->user != SLUICE_FIRE);
}
/* The callback of a call without callback and waiter. */
void call_done_ignored(sluice_client *client, const sluice_reply *reply, void *user);

/* Whether a call may begin, with the lock held; if not, why gets the reason, or "" when the code is
 * enough. */
int call_may(const sluice_client *client, const sluice_call *options, char *why, size_t why_bytes);
struct call *call_new(sluice_client *client, const Sluice__Request *request, bool repeatable,
		      const sluice_call *options);
struct call *call_new_frame(sluice_client *client, uint8_t frame, uint8_t *body, size_t len,
			    const sluice_call *options); /* takes body on success */
void call_deadline_set(sluice_client *client, struct call *call, uint64_t deadline_ms);
void call_first(sluice_client *client, struct call *call); /* to be sent before all others */
void call_finish(sluice_client *client, struct call *call, sluice_reply *reply); /* takes reply */
/* REPLY; false: no memory, to be passed again later. */
bool call_on_reply(sluice_client *client, uint32_t corr, struct sluice_slice body);
/* ACKED, the answer to a call whose frame is an ACK; corr 0: a refusal without a waiting call. */
bool call_on_acked(sluice_client *client, uint32_t corr, struct sluice_slice body);
/* Waits for a call that its caller made with the lock held, and keeps the lock. Returns the reply's
 * code; *ret_reply as in a blocking call. */
int call_wait(sluice_client *client, struct call *call, sluice_reply **ret_reply);
/* Waits for a call that its caller made with the lock held, unless it is asynchronous; unlocks. */
int call_settle(sluice_client *client, struct call *call, const sluice_call *options,
		sluice_reply **ret_reply);
/* A refusal by the library itself, like one of the broker; asynchronous: the code only. Returns
 * code; why "": the code's text. */
int call_refuse(int code, const char *why, const sluice_call *options, sluice_reply **ret_reply);
/* The same, with the text of error_set(). */
int call_refuse_set(int code, const sluice_call *options, sluice_reply **ret_reply);
/* The common end of every operation: makes the call and waits, or not. */
int call_run(sluice_client *client, const Sluice__Request *request, bool repeatable,
	     const sluice_call *options, sluice_reply **ret_reply);
/* The same; hook gets the finished call first, with its job and token. */
struct call_about {
	const char *job;
	sluice_token token;
	call_hook_fn *hook;   /* NULL: none */
	uint64_t deadline_ms; /* replaces the options'; 0: theirs */
	bool closes_session;
};
int call_run_about(sluice_client *client, const Sluice__Request *request, bool repeatable,
		   const struct call_about *about, const sluice_call *options,
		   sluice_reply **ret_reply);

void calls_send(sluice_client *client);
void calls_due(sluice_client *client, uint64_t now, uint64_t *io_next);
bool calls_wait(const sluice_client *client); /* whether a sent one has no answer yet */
/* Sent ones: to be repeated, or their outcome is unknown */
void calls_broken(sluice_client *client);
/* The broker has not taken the sent ones, and will not: they are as good as unsent. */
void calls_untaken(sluice_client *client);
/* After a connect, before anything is sent: ends calls that this broker would misunderstand. */
void calls_check(sluice_client *client);
void calls_end(sluice_client *client, int code, const char *text);

#endif
