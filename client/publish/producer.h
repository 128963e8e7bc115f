/* SPDX-License-Identifier: Apache-2.0
 * The producer of batches or transactions. */
#ifndef SLUICE_CLIENT_PUBLISH_PRODUCER_H
#define SLUICE_CLIENT_PUBLISH_PRODUCER_H

#include "client/call/call.h"

enum { PRODUCER_REOPEN_MS = 500 };

/* Opens a producer, named or of the session itself (""), or, if expect is not 0, that one again;
 * opened handles the answer, and *ret_opening is set until then. Without memory nothing is sent or
 * set: the next send tries again. */
void producer_open(sluice_client *client, const char *name, uint64_t expect, uint64_t secret,
		   call_hook_fn *opened, bool *ret_opening);
/* Whether a publish or transaction was refused because of its producer: its record was evicted, or
 * belongs to a session that has ended. Then another producer is opened. A fenced producer with a
 * name belongs to another client now. */
bool producer_is_gone(const sluice_client *client, int code, uint64_t session, const char *name);
/* At once, or after a pause since the last refusal or eviction; false: not yet, the loop will call
 * again. */
bool producer_may_open(sluice_client *client, uint64_t not_before_ms);

#endif
