/* SPDX-License-Identifier: Apache-2.0
 * Subscriptions, for the layers above: what the loop and the link's reports bring to them. */
#ifndef SLUICE_CLIENT_SUB_SUBS_H
#define SLUICE_CLIENT_SUB_SUBS_H

#include "client/base/client.h"
#include "sluice.pb-c.h"

struct subs {
	sluice_sub *all; /* by number */
	/* Closed, while the loop or another thread may still look at them. */
	sluice_sub *retired;
	sluice_token token_max; /* of the grants of items that came */
	uint32_t next_number;
	size_t doubts; /* held jobs that are doubted */
};

void subs_open(sluice_client *client); /* after a connect */
void subs_broken(sluice_client *client, bool session_lost);
/* What was not delivered to the application goes back, and no more comes; waits until the broker
 * has confirmed that. */
void subs_give_back(sluice_client *client, uint64_t deadline_ms);
void subs_flush(sluice_client *client); /* gathered acks, credit owed */
void subs_due(sluice_client *client, uint64_t now, uint64_t *io_next);
void subs_end(sluice_client *client, int code);
/* Of the retired, those that may go; all when it is closed. */
void subs_reap(sluice_client *client);
void subs_free(sluice_client *client);
/* False: there was no memory for it; the same frame comes again, and link->taken says how much of
 * it was taken. */
bool sub_on_deliver(sluice_client *client, struct sluice_slice body);
bool sub_on_notice(sluice_client *client, const Sluice__Notice *notice);

#endif
