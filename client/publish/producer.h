/* SPDX-License-Identifier: Apache-2.0
 * The producer under which batches or transactions go. */
#ifndef SLUICE_CLIENT_PUBLISH_PRODUCER_H
#define SLUICE_CLIENT_PUBLISH_PRODUCER_H

#include "client/call/call.h"

enum { PRODUCER_REOPEN_MS = 500 };

/* Asks for a producer, named or of the session's own (""), or, expect not 0, for that one again;
 * opened sees the answer, and *ret_opening is set until then. Without memory nothing is asked and
 * set: it is tried again with the next send. */
void producer_open(sluice_client *client, const char *name, uint64_t expect, uint64_t secret,
		   call_hook_fn *opened, bool *ret_opening);
/* Whether a publish or transaction was refused for its producer, and not for itself: the record was
 * evicted, or belongs to a session that has ended. Another one is opened then. A fenced one with a
 * name is another client's now. */
bool producer_is_gone(const sluice_client *client, int code, uint64_t session, const char *name);
/* At once, or when enough time has passed since the last refusal or eviction; false: not yet, the
 * loop comes back. */
bool producer_may_open(sluice_client *client, uint64_t not_before_ms);

#endif
