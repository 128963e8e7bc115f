/* SPDX-License-Identifier: Apache-2.0
 * What the files of subscriptions share. With the client's lock held. */
#ifndef SLUICE_CLIENT_SUB_H
#define SLUICE_CLIENT_SUB_H

#include "client/internal.h"

enum { REOPEN_MS = 500 };

/* open.c */
struct call *sub_open_call(sluice_sub *sub); /* without a deadline of its own; NULL: no memory */
/* call opened what the application has closed meanwhile: nobody would take what the broker delivers. */
void sub_unwanted(sluice_client *client, const struct call *call);
struct call *sub_close_call(sluice_client *client, uint32_t number, const sluice_call *options);

/* sub.c */
void sub_end(sluice_sub *sub, int code, const char *text); /* nothing more comes; told once */
void sub_stream_length(sluice_sub *sub, uint64_t length);  /* its stream has had that many events */
/* Ends an asynchronous open, if one waits. May call back. */
void sub_open_tell(sluice_sub *sub, int code, const char *text);

/* begin.c */
void sub_begin_now(sluice_sub *sub, sluice_token token, uint64_t seq); /* reported, before what follows */

/* back.c */
void sub_item_back(sluice_sub *sub, sluice_token token, uint64_t seq); /* not begun, and held */
void sub_job_back(sluice_sub *sub, const sluice_delivery_view *view);
void sub_give_back(sluice_sub *sub); /* what waits for the application, and what comes from now on */
/* A grant that nobody takes any more, of a subscription that may be gone, goes back, unless it came before. */
void sub_undelivered(sluice_client *client, const struct frame_deliver *frame);

/* delivery.c */
bool sub_deliver(sluice_sub *sub,
		 const sluice_delivery_view *view); /* false: no memory, nothing was delivered */

/* held.c */
struct held *held_find(sluice_sub *sub, sluice_token token);			       /* NULL: none */
bool held_add(sluice_sub *sub, sluice_token token, uint32_t lease_ms, uint32_t count); /* false: no memory */
void held_drop(sluice_sub *sub, struct held *held);
void held_done(sluice_sub *sub, struct held *held); /* none of it is out, and it came */
void held_kept_drop(sluice_sub *sub); /* of those that are done with, if it came to all by now */
void held_begin(sluice_sub *sub, struct held *held);		   /* its lease begins now, or was extended */
void held_lease(sluice_sub *sub, struct held *held, uint64_t now); /* what is due of it next */
void held_due_set(sluice_sub *sub, struct held *held, uint64_t due_ms);
void sub_item_done(sluice_sub *sub, sluice_token token); /* one item of a grant is acked or nacked */
/* from is closed (NULL: it may be freed), and what came to it under token went back, or is in the
 * application's hand: to a consumer of the queue that is being opened it is nothing new. */
void held_gone_before(sluice_client *client, const sluice_sub *from, sluice_token token);
void held_leave(const sluice_sub *sub); /* the same, for all that it holds */
/* For the broker to show, in ms: without a sign of life of the application, leases are extended
 * for no longer; 0: they are not extended. The queue's lease is not known here: where that is
 * under a second and decides, this is an upper bound. */
uint32_t held_extend_max(const sluice_sub *sub);
void held_ask(sluice_sub *sub); /* the subscription is being opened, and credit asked for what is out */
void held_came(sluice_sub *sub, struct held *held,
	       uint32_t count); /* count items of it were delivered again */
struct held_job *held_job_find(sluice_sub *sub, const char *id);
struct held_job *held_job_add(sluice_sub *sub, const char *id, sluice_token token,
			      uint64_t number); /* NULL: no memory */
void held_job_drop(sluice_sub *sub, struct held_job *job);
/* One session holds for all: a consumer that resumes is given what the client's other consumers of the queue have, too. */
uint32_t held_by_others(const sluice_sub *sub);
bool held_elsewhere(sluice_sub *sub, sluice_token token, const char *job); /* job NULL: a grant of items */

/* lease.c */
/* Tells it, once; calls back. */
void held_lost(sluice_sub *sub, struct held *held, int code, const char *why);
void held_extended(sluice_sub *sub, sluice_token token, uint32_t lease_ms); /* by the application */
void held_due(sluice_sub *sub, uint64_t now);

/* resume.c. All may call back, so subscriptions may be closed after it. */
void resume_job_again(sluice_sub *sub, struct held_job *held, const Sluice__JobDelivery *job); /* it has it */
/* The job comes under this token: leases of it under lower ones are over. */
void resume_older_lost(sluice_client *client, const char *job, sluice_token token);
void resume_cancel_told(sluice_client *client, const char *job, sluice_token token); /* by a notice */
/* A damaged item or job of the queue (NOTICE): its number, and the token of an item's lease. */
void resume_damage(sluice_sub *sub, uint64_t number, sluice_token token);
void resume_complete(sluice_sub *sub); /* what did not come until now is lost */
/* A call about a job was answered, and by that the job is not over. */
void resume_call_ended(sluice_client *client, const char *job, sluice_token token);

/* delivery.c: drops what waits for the application of a lease that is over, or has job: another may have it now. Of its own credit the
 * application has that back. token 0: of all leases. Returns how many. */
uint32_t undelivered_drop(sluice_sub *sub, sluice_token token, const char *job);

/* credit.c */
void sub_credit_back(sluice_sub *sub, uint32_t count); /* to the broker, with the next flush */
void sub_release(sluice_sub *sub, uint32_t count);     /* the same, unless credit is the application's */

/* ack.c */
int sub_gather_ack(sluice_sub *sub, sluice_token token, uint64_t seq);
bool sub_ack_waits(const sluice_sub *sub, sluice_token token,
		   uint64_t seq);			   /* gathered, or sent and not answered yet */
bool acks_wait(const sluice_sub *sub, sluice_token token); /* of any of the grant's items */

#endif
