/* SPDX-License-Identifier: Apache-2.0
 * What sub.c, sub_api.c and delivery.c share. With the client's lock held. */
#ifndef SLUICE_CLIENT_SUB_H
#define SLUICE_CLIENT_SUB_H

#include "client/internal.h"

enum { REOPEN_MS = 500 };

/* The request that opens it, without a deadline of its own; NULL: no memory. */
struct call *sub_open_call(sluice_sub *sub);
/* A copy that owns everything that the view points to; NULL: no memory. */
sluice_delivery *delivery_copy(const sluice_delivery_view *view);
/* Ends an asynchronous open, if one waits. May call back. */
void sub_open_tell(sluice_sub *sub, int code, const char *text);
/* An asynchronous open that waited too long; a refusal for now that is tried again. */
void sub_open_due(sluice_sub *sub, uint64_t now, uint64_t *io_next);
/* call opened what the application has closed meanwhile: nobody would take what the broker delivers. */
void sub_unwanted(sluice_client *client, const struct call *call);
int sub_gather_ack(sluice_sub *sub, sluice_token token, uint64_t seq);
void sub_item_done(sluice_sub *sub, sluice_token token); /* one item of a grant is acked or nacked */
void sub_deliver(sluice_sub *sub, const sluice_delivery_view *view);
void sub_error_set(int code, const char *text); /* what sluice_sub_error() says; text "": that of the code */

#endif
