/* SPDX-License-Identifier: Apache-2.0
 * Deadlines of subscriptions: pending openings, leases. */
#include "client/base/hash.h"
#include "client/sub/sub.h"

static void sub_open_due(sluice_sub *sub, uint64_t now, uint64_t *io_next)
{
	if (sub->open_done != NULL && sub->open_deadline_ms <= now)
		sub_open_report(sub, SLUICE_E_TIMEOUT,
				"not opened before the deadline; it still may be");
	else if (sub->open_done != NULL && sub->open_deadline_ms < *io_next)
		*io_next = sub->open_deadline_ms;
	if (sub->reopen_ms == 0 || sub->opened || sub->ended || sub->closing ||
	    sub->client->state != STATE_READY)
		return;
	if (sub->reopen_ms <= now)
		(void)sub_open_call(sub);
	else if (sub->reopen_ms < *io_next)
		*io_next = sub->reopen_ms;
}

void subs_due(sluice_client *client, uint64_t now, uint64_t *io_next)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs->all, sub, next) {
		sub_open_due(sub, now, io_next);
		/* Not each turn: it may hold thousands. */
		if (sub->due_ms <= now)
			held_due(sub, now);
		*io_next = sub->due_ms < *io_next ? sub->due_ms : *io_next;
	}
}
