/* SPDX-License-Identifier: Apache-2.0
 * Transactions have a producer of their own and are sent one at a time: each is settled before the
 * next. */
#ifndef SLUICE_CLIENT_PUBLISH_TXN_H
#define SLUICE_CLIENT_PUBLISH_TXN_H

#include "client/base/client.h"

struct pending_txn;
struct transactor {
	uint64_t producer, secret, seq, session; /* session: that opened it */
	uint32_t epoch;
	bool opening, open;
	bool again;	  /* as in struct publisher */
	uint64_t open_ms; /* no open before this time */
	struct pending_txn *waiting;
};

void txns_send(sluice_client *client);
void txns_session_lost(sluice_client *client);
void txns_due(sluice_client *client, uint64_t now, uint64_t *io_next);
void txns_end(sluice_client *client, int code);

#endif
