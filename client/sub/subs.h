/* SPDX-License-Identifier: Apache-2.0
 * Subscriptions, for the upper layers: handlers of events of the loop and the link. */
#ifndef SLUICE_CLIENT_SUB_SUBS_H
#define SLUICE_CLIENT_SUB_SUBS_H

#include "client/base/client.h"
#include "sluice.pb-c.h"

struct subs {
	sluice_sub *all; /* by number */
	/* Closed, while the loop or another thread may still use them. */
	sluice_sub *retired;
	sluice_token token_max; /* of received grants of items */
	uint32_t next_number;
	size_t doubts; /* number of held jobs in doubt */
};

void subs_open(sluice_client *client); /* after a connect */
void subs_broken(sluice_client *client, bool session_lost);
/* Returns undelivered entries to the broker and stops deliveries; waits until the broker has
 * confirmed that. */
void subs_give_back(sluice_client *client, uint64_t deadline_ms);
void subs_flush(sluice_client *client); /* gathered acks, credit owed */
void subs_due(sluice_client *client, uint64_t now, uint64_t *io_next);
void subs_end(sluice_client *client, int code);
/* Frees retired subscriptions that are not in use; all when it is closed. */
void subs_reap(sluice_client *client);
void subs_free(sluice_client *client);
/* False: no memory; the same frame is passed again, and link->taken counts the entries that were
 * handled. */
bool sub_on_deliver(sluice_client *client, struct sluice_slice body);
bool sub_on_notice(sluice_client *client, const Sluice__Notice *notice);

#endif
