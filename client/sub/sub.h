/* SPDX-License-Identifier: Apache-2.0
 * Shared by the files of subscriptions. The client's lock must be held. */
#ifndef SLUICE_CLIENT_SUB_SUB_H
#define SLUICE_CLIENT_SUB_SUB_H

#include "client/base/client.h"
#include "client/base/hash.h"
#include "client/sub/subs.h"
#include "protocol/frame.h"

/* A grant of items under one lease. */
struct held {
	sluice_token token;
	/* When to extend the lease, or, without extension, when it ends; UINT64_MAX: never. */
	uint64_t due_ms;
	uint64_t since_ms; /* since then the application has it, or has extended it itself */
	uint64_t ends_ms;  /* by this client's clock: time of grant or extension plus the lease */
	uint32_t lease_ms;
	bool lost;	/* and the application was notified */
	uint32_t out;	/* items of it not acked yet */
	uint32_t asked; /* out when the subscription was opened last */
	bool seen;	/* delivered since then. If not, the entry stays even if nothing is out */
	bool over;	/* it was not redelivered: its end is about to be reported */
	UT_hash_handle hh;
};

struct held_job {
	sluice_token token;
	uint64_t number; /* 0: not known */
	char *job;
	bool seen;   /* as of a grant */
	bool cancel; /* the application was notified */
	/* Not redelivered, while a call about it had no answer yet, which decides. */
	bool doubted;
	struct held_job *next_lost;
	UT_hash_handle hh;
};

struct sluice_delivery {
	struct sluice_delivery *prev, *next;
	sluice_delivery_view view;
	uint8_t *bytes; /* memory of the view */
};

struct ack_gather {
	struct ack_gather *prev, *next;
	sluice_token token;
	struct frame_run *runs;
	size_t count, capacity, written;
};

struct begun {
	sluice_token token;
	uint64_t seq;
};

struct sluice_sub {
	sluice_client *client;
	uint32_t number;
	UT_hash_handle hh; /* by number */
	/* ---- as requested ---- */
	bool follow;
	char *name, *cursor, *filter;
	char *source; /* consume; NULL: none */
	sluice_from from;
	uint64_t offset, time_ms;
	uint32_t credit, lease_ms;
	/* How long leases are extended without activity of the application; 0: by the lease's
	 * length. */
	uint32_t extend_max_ms;
	bool orphans, session_lease, manual_credit;
	bool reports; /* consume: items that are begun are reported */
	sluice_delivery_fn *on_delivery;
	void *user;
	/* ---- state ---- */
	bool opened, ended, closing;
	/* it was open once: its end is reported to the reader of its deliveries */
	bool was_open;
	bool source_taken; /* the broker has registered the source for this session */
	bool draining;	   /* no credit is returned any more */
	bool gives_back;   /* further deliveries are returned to the broker */
	bool leaves, left; /* leaves: the broker was asked to end it; left: it has answered */
	int end_code;
	char end_text[256];
	/* Threads that wait for it to open or for a delivery: it is freed after they have left. */
	unsigned waiters;
	sluice_sub *next_retired;
	/* An asynchronous open without an answer yet. */
	sluice_done_fn *open_done;
	void *open_user;
	uint64_t open_deadline_ms;
	uint64_t reopen_ms; /* when to retry after a temporary refusal; 0: none */
	/* ---- follow ---- */
	uint64_t next_offset; /* continues here after a reconnect */
	bool started;	      /* next_offset is known */
	/* Length of the stream as far as known: from the broker, an event or a gap. */
	uint64_t length;
	/* Number of the stream or queue, once it was open; 0: not known. */
	uint64_t thing;
	/* ---- credit ---- */
	uint32_t owed; /* to be returned */
	/* was requested for entries that other subscriptions hold: withheld from owed */
	uint32_t debt;
	/* ---- entries that the application holds or has not read yet ---- */
	struct held *held;
	struct held_job *jobs;
	uint64_t due_ms; /* lower bound of the due times in held */
	bool keeps;	 /* some of held are finished, and kept until all consumers have resumed */
	struct sluice_delivery *waiting;
	size_t waiting_count;
	struct begun *begun; /* to be reported with the next flush */
	size_t begun_count, begun_capacity;
	struct ack_gather *acks;
	/* ---- resuming ---- */
	/* entries of the queue that its session holds may still be redelivered to it */
	bool coming;
	/* Opened without credit, which is given when all held entries have been redelivered. */
	bool resuming;
	/* Since it was opened, a damaged entry was reported without its number. */
	bool resume_damaged;
	sluice_token token_max; /* of received grants: a lower one is a redelivery */
};

/* sub.c */
/* Ends the deliveries, and reports the end once. */
void sub_end(sluice_sub *sub, int code, const char *text);
void sub_stream_length(sluice_sub *sub, uint64_t length); /* notes a length of its stream */
/* Reports the result of an asynchronous open, if one is pending. May call back. */
void sub_open_report(sluice_sub *sub, int code, const char *text);
/* Closed by the application: it gets no callback from it any more. Freed now, or when no thread
 * uses it any more. */
void sub_retire(sluice_sub *sub);
void sub_free(sluice_sub *sub);
void sub_waiter_leaves(sluice_sub *sub); /* the loop frees a closed one after the last waiter */

/* open.c */
struct call *sub_open_call(sluice_sub *sub); /* without a deadline of its own; NULL: no memory */
/* The result of `call` is a subscription that was closed meanwhile: closes it at the broker. */
void sub_unwanted(sluice_client *client, const struct call *call);
struct call *sub_close_call(sluice_client *client, uint32_t number, const sluice_call *options);

/* delivery.c */
/* False: no memory, nothing was delivered. */
bool sub_deliver(sluice_sub *sub, const sluice_delivery_view *view);
/* Drops undelivered entries of a lease that has ended, or with this job: another client may have it
 * now. The application's own credit for them is returned to it. token 0: of all leases. Returns
 * their number. */
uint32_t undelivered_drop(sluice_sub *sub, sluice_token token, const char *job);

/* begin.c */
/* Reported before it returns. */
void sub_begin_now(sluice_sub *sub, sluice_token token, uint64_t seq);

/* back.c */
void sub_item_back(sluice_sub *sub, sluice_token token, uint64_t seq); /* not begun, and held */
void sub_job_back(sluice_sub *sub, const sluice_delivery_view *view);
/* Returns undelivered entries, and all further ones, to the broker. */
void sub_give_back(sluice_sub *sub);
/* Returns a grant without a consumer, of a subscription that may be gone, unless it is a
 * redelivery. */
void sub_undelivered(sluice_client *client, const struct frame_deliver *frame);

/* credit.c */
void sub_credit_back(sluice_sub *sub, uint32_t count); /* to the broker, with the next flush */
/* The same, unless the application manages the credit. */
void sub_release(sluice_sub *sub, uint32_t count);

/* ack.c */
int sub_gather_ack(sluice_sub *sub, sluice_token token, uint64_t seq);
/* Whether an ack is gathered, or sent and not answered yet: of the item, of any item of the
 * grant. */
bool sub_ack_waits(const sluice_sub *sub, sluice_token token, uint64_t seq);
bool acks_wait(const sluice_sub *sub, sluice_token token);

/* held.c */
/* NULL: none. */
struct held *held_find(sluice_sub *sub, sluice_token token);
/* False: no memory. */
bool held_add(sluice_sub *sub, sluice_token token, uint32_t lease_ms, uint32_t count);
void held_drop(sluice_sub *sub, struct held *held);
void held_done(sluice_sub *sub, struct held *held); /* no item is out, and it was redelivered */
void held_kept_drop(sluice_sub *sub); /* drops finished ones if all consumers have resumed by now */
/* One item of a grant is acked or nacked. */
void sub_item_done(sluice_sub *sub, sluice_token token);
/* `from` is closed (NULL: may be freed); its entries under token were returned or are with the
 * application: for the consumer of the queue that is being opened they are redeliveries. */
void held_gone_before(sluice_client *client, const sluice_sub *from, sluice_token token);
void held_leave(const sluice_sub *sub); /* the same, for all its entries */
/* At an open that asks for credit for the items that are out */
void held_ask(sluice_sub *sub);
/* `count` items were redelivered. */
void held_redelivered(sluice_sub *sub, struct held *held, uint32_t count);
struct held_job *held_job_find(sluice_sub *sub, const char *id);
/* NULL: no memory. */
struct held_job *held_job_add(sluice_sub *sub, const char *id, sluice_token token, uint64_t number);
void held_job_drop(sluice_sub *sub, struct held_job *job);
/* A job that this client held has ended: frees its share of the credit. token 0: of any lease. */
void sub_job_gone(sluice_client *client, const char *job, sluice_token token);
/* A session holds for all its consumers: one that resumes also receives entries of the client's
 * other consumers of the queue. */
uint32_t held_by_others(const sluice_sub *sub);
/* Job NULL: a grant of items. */
bool held_elsewhere(sluice_sub *sub, sluice_token token, const char *job);
/* Shown by the broker, in ms: how long leases are extended without activity of the application; 0:
 * they are not extended. The queue's lease is not known here: if it decides and is under a second,
 * this is an upper bound. */
uint32_t held_extend_max(const sluice_sub *sub);
/* The lease begins now, or anew. */
void held_begin(sluice_sub *sub, struct held *held);
void held_lease(sluice_sub *sub, struct held *held, uint64_t now); /* sets the next due time */
void held_due_set(sluice_sub *sub, struct held *held, uint64_t due_ms);

/* lease.c */
/* Reports the loss once; calls back. */
void held_lost(sluice_sub *sub, struct held *held, int code, const char *why);
/* Extended by the application. */
void held_extended(sluice_sub *sub, sluice_token token, uint32_t lease_ms);
void held_due(sluice_sub *sub, uint64_t now);

/* resume.c: all may call back, which may close subscriptions. */
/* The job was redelivered. */
void resume_job_again(sluice_sub *sub, struct held_job *held, const Sluice__JobDelivery *job);
/* The job was delivered under this token: its leases under lower ones have ended. */
void resume_older_lost(sluice_client *client, const char *job, sluice_token token);
/* A notice reported the cancel. */
void resume_cancel_notified(sluice_client *client, const char *job, sluice_token token);
/* A damaged item or job of the queue (NOTICE): its number, and the token of an item's lease. */
void resume_damage(sluice_sub *sub, uint64_t number, sluice_token token);
void resume_complete(sluice_sub *sub); /* entries that were not redelivered are lost */
/* A call about a job was answered, and the job has not ended by it. */
void resume_call_ended(sluice_client *client, const char *job, sluice_token token);

#endif
