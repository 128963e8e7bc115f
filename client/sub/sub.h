/* SPDX-License-Identifier: Apache-2.0
 * What the files of subscriptions share. With the client's lock held. */
#ifndef SLUICE_CLIENT_SUB_SUB_H
#define SLUICE_CLIENT_SUB_SUB_H

#include "client/base/client.h"
#include "client/base/hash.h"
#include "client/sub/subs.h"
#include "protocol/frame.h"

/* A grant of items under one lease. */
struct held {
	sluice_token token;
	/* When to extend it, or, if it is not extended, when it ends; UINT64_MAX: never. */
	uint64_t due_ms;
	uint64_t since_ms; /* the application has it, or has extended it itself, since then */
	uint64_t ends_ms;  /* by this client's clock: granted or extended, and a lease later */
	uint32_t lease_ms;
	bool lost;	/* and the application was told so */
	uint32_t out;	/* items of it not acked yet */
	uint32_t asked; /* out when the subscription was opened last */
	bool seen;	/* delivered since then. If not, it stays here even if nothing is out */
	bool over;	/* it did not come again: its end is about to be told */
	UT_hash_handle hh;
};

struct held_job {
	sluice_token token;
	uint64_t number; /* 0: the broker did not say */
	char *job;
	bool seen;   /* as of a grant */
	bool cancel; /* the application was told */
	/* Did not come again, and a call about it had no answer yet, which will tell. */
	bool doubted;
	struct held_job *next_lost;
	UT_hash_handle hh;
};

struct sluice_delivery {
	struct sluice_delivery *prev, *next;
	sluice_delivery_view view;
	uint8_t *bytes; /* what the view points into */
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
	/* As it was asked for. */
	bool follow;
	char *name, *cursor, *filter;
	char *source; /* consume; NULL: none */
	sluice_from from;
	uint64_t offset, time_ms;
	uint32_t credit, lease_ms;
	/* How long leases are extended without a word of the application; 0: by the lease's
	 * length. */
	uint32_t extend_max_ms;
	bool orphans, session_lease, manual_credit;
	bool reports; /* consume: what is begun is reported */
	sluice_delivery_fn *on_delivery;
	void *user;
	/* Its life. */
	bool opened, ended, closing;
	bool was_open;	   /* once: its end belongs to whoever reads its deliveries */
	bool source_taken; /* the broker knows that this session speaks for it */
	bool draining;	   /* no credit is given back any more */
	bool gives_back;   /* what comes still goes back to the broker */
	bool leaves, left; /* the broker was asked to end it: not answered yet; at all */
	int end_code;
	char end_text[256];
	/* Threads that wait for it to open or for a delivery: it is freed after they left. */
	unsigned waiters;
	sluice_sub *next_retired;
	/* An asynchronous open that has no answer yet. */
	sluice_done_fn *open_done;
	void *open_user;
	uint64_t open_deadline_ms;
	uint64_t reopen_ms; /* 0, or when to try again after a refusal for now */
	/* Follow. */
	uint64_t next_offset; /* where to go on after a reconnect */
	bool started;	      /* next_offset is known */
	/* The stream has had that many, as the broker said or an event or a gap showed. */
	uint64_t length;
	/* Number of the stream or queue, once it was open; 0: the broker does not tell. */
	uint64_t thing;
	/* Credit. */
	uint32_t owed; /* to give back */
	uint32_t debt; /* was asked for what other subscriptions hold: that much is kept first */
	/* What the application has, or has not taken yet. */
	struct held *held;
	struct held_job *jobs;
	uint64_t due_ms; /* none of held is due before; it may be earlier than needed */
	bool keeps;	 /* some of held are done with, and known until it has come to all */
	struct sluice_delivery *waiting;
	size_t waiting_count;
	struct begun *begun; /* to be reported with the next flush */
	size_t begun_count, begun_capacity;
	struct ack_gather *acks;
	/* Resuming. */
	bool coming; /* what its session holds of the queue may still come to it */
	/* Opened without credit: it is given when all that is held has come again. */
	bool resuming;
	/* Since it was opened, something was damaged, not named well enough. */
	bool resume_damaged;
	sluice_token token_max; /* of the grants that came: a lower one comes again */
};

/* sub.c */
void sub_end(sluice_sub *sub, int code, const char *text); /* nothing more comes; told once */
void sub_stream_length(sluice_sub *sub, uint64_t length);  /* its stream has had that many events */
/* Ends an asynchronous open, if one waits. May call back. */
void sub_open_report(sluice_sub *sub, int code, const char *text);
/* Closed by the application: no callback comes from it any more. Freed now, or when nobody looks at
 * it any more. */
void sub_retire(sluice_sub *sub);
void sub_free(sluice_sub *sub);
void sub_waiter_leaves(sluice_sub *sub); /* the loop frees a closed one after the last */

/* open.c */
struct call *sub_open_call(sluice_sub *sub); /* without a deadline of its own; NULL: no memory */
/* call opened what is closed meanwhile: nobody would take what the broker delivers. */
void sub_unwanted(sluice_client *client, const struct call *call);
struct call *sub_close_call(sluice_client *client, uint32_t number, const sluice_call *options);

/* delivery.c */
/* False: no memory, nothing was delivered. */
bool sub_deliver(sluice_sub *sub, const sluice_delivery_view *view);
/* Drops what waits for the application of a lease that is over, or has job: another may have it
 * now. Of its own credit the application has that back. token 0: of all leases. Returns how
 * many. */
uint32_t undelivered_drop(sluice_sub *sub, sluice_token token, const char *job);

/* begin.c */
/* Reported before it returns. */
void sub_begin_now(sluice_sub *sub, sluice_token token, uint64_t seq);

/* back.c */
void sub_item_back(sluice_sub *sub, sluice_token token, uint64_t seq); /* not begun, and held */
void sub_job_back(sluice_sub *sub, const sluice_delivery_view *view);
/* What waits for the application, and what comes from now on. */
void sub_give_back(sluice_sub *sub);
/* A grant that nobody takes any more, of a subscription that may be gone, goes back, unless it came
 * before. */
void sub_undelivered(sluice_client *client, const struct frame_deliver *frame);

/* credit.c */
void sub_credit_back(sluice_sub *sub, uint32_t count); /* to the broker, with the next flush */
/* The same, unless credit is the application's. */
void sub_release(sluice_sub *sub, uint32_t count);

/* ack.c */
int sub_gather_ack(sluice_sub *sub, sluice_token token, uint64_t seq);
/* Gathered, or sent and not answered yet: of the item, of any item of the grant. */
bool sub_ack_waits(const sluice_sub *sub, sluice_token token, uint64_t seq);
bool acks_wait(const sluice_sub *sub, sluice_token token);

/* held.c */
/* NULL: none. */
struct held *held_find(sluice_sub *sub, sluice_token token);
/* False: no memory. */
bool held_add(sluice_sub *sub, sluice_token token, uint32_t lease_ms, uint32_t count);
void held_drop(sluice_sub *sub, struct held *held);
void held_done(sluice_sub *sub, struct held *held); /* none of it is out, and it came */
void held_kept_drop(sluice_sub *sub); /* of those that are done with, if it came to all by now */
/* One item of a grant is acked or nacked. */
void sub_item_done(sluice_sub *sub, sluice_token token);
/* from is closed (NULL: it may be freed), and what came to it under token went back, or is in the
 * application's hand: to a consumer of the queue that is being opened it is nothing new. */
void held_gone_before(sluice_client *client, const sluice_sub *from, sluice_token token);
void held_leave(const sluice_sub *sub); /* the same, for all that it holds */
void held_ask(sluice_sub *sub);		/* it is being opened, and credit asked for what is out */
/* Count items, delivered again. */
void held_redelivered(sluice_sub *sub, struct held *held, uint32_t count);
struct held_job *held_job_find(sluice_sub *sub, const char *id);
/* NULL: no memory. */
struct held_job *held_job_add(sluice_sub *sub, const char *id, sluice_token token, uint64_t number);
void held_job_drop(sluice_sub *sub, struct held_job *job);
/* A job that this client held is over: its place in the credit is free. token 0: of any lease. */
void sub_job_gone(sluice_client *client, const char *job, sluice_token token);
/* One session holds for all: a consumer that resumes is given what the client's other consumers of
 * the queue have, too. */
uint32_t held_by_others(const sluice_sub *sub);
/* Job NULL: a grant of items. */
bool held_elsewhere(sluice_sub *sub, sluice_token token, const char *job);
/* For the broker to show, in ms: without a sign of life of the application, leases are extended
 * for no longer; 0: they are not extended. The queue's lease is not known here: where that is
 * under a second and decides, this is an upper bound. */
uint32_t held_extend_max(const sluice_sub *sub);
/* Its lease begins now, or anew. */
void held_begin(sluice_sub *sub, struct held *held);
void held_lease(sluice_sub *sub, struct held *held, uint64_t now); /* what is due of it next */
void held_due_set(sluice_sub *sub, struct held *held, uint64_t due_ms);

/* lease.c */
/* Told once; calls back. */
void held_lost(sluice_sub *sub, struct held *held, int code, const char *why);
/* By the application. */
void held_extended(sluice_sub *sub, sluice_token token, uint32_t lease_ms);
void held_due(sluice_sub *sub, uint64_t now);

/* resume.c. All may call back, so subscriptions may be closed after it. */
/* It has it. */
void resume_job_again(sluice_sub *sub, struct held_job *held, const Sluice__JobDelivery *job);
/* The job comes under this token: leases of it under lower ones are over. */
void resume_older_lost(sluice_client *client, const char *job, sluice_token token);
/* By a notice. */
void resume_cancel_notified(sluice_client *client, const char *job, sluice_token token);
/* A damaged item or job of the queue (NOTICE): its number, and the token of an item's lease. */
void resume_damage(sluice_sub *sub, uint64_t number, sluice_token token);
void resume_complete(sluice_sub *sub); /* what did not come until now is lost */
/* A call about a job was answered, and by that the job is not over. */
void resume_call_ended(sluice_client *client, const char *job, sluice_token token);

#endif
