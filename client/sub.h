/* SPDX-License-Identifier: Apache-2.0
 * What sub.c and sub_api.c share. With the client's lock held. */
#ifndef SLUICE_CLIENT_SUB_H
#define SLUICE_CLIENT_SUB_H

#include "client/internal.h"

struct call *sub_open_call(sluice_sub *sub, const sluice_call *options);
int sub_gather_ack(sluice_sub *sub, sluice_token token, uint64_t seq);
void sub_item_done(sluice_sub *sub, sluice_token token); /* one item of a grant is acked or nacked */
void sub_deliver(sluice_sub *sub, const sluice_delivery_view *view);

#endif
