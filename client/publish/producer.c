/* SPDX-License-Identifier: Apache-2.0
 * The producer of publishes, and that of transactions: opening, loss, and opening again. */
#include "client/base/loop.h"
#include "client/link/link.h"
#include "client/call/call.h"
#include "client/publish/producer.h"
#include "sluice.pb-c.h"

bool producer_is_gone(const sluice_client *client, int code, uint64_t session, const char *name)
{
	/* Opened by an earlier session of this client. */
	bool foreign = session != client->link->session_id;

	return code == SLUICE_E_PRODUCER_EVICTED ||
	       (code == SLUICE_E_PRODUCER_FENCED && (foreign || name[0] == 0)) ||
	       (code == SLUICE_E_OWNED && foreign);
}

bool producer_may_open(sluice_client *client, uint64_t not_before_ms)
{
	if (now_ms() >= not_before_ms)
		return true;
	client_retry(client, not_before_ms);
	return false;
}

void producer_open(sluice_client *client, const char *name, uint64_t expect, uint64_t secret,
		   call_hook_fn *opened, bool *ret_opening)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__ProducerOpen open = SLUICE__PRODUCER_OPEN__INIT;
	sluice_call options = SLUICE_CALL(.deadline_ms = -1);
	struct call *call;

	open.name = (char *)(uintptr_t)name;
	open.expect_producer = expect;
	open.secret = secret;
	request.op_case = SLUICE__REQUEST__OP_PRODUCER_OPEN;
	request.producer_open = &open;
	call = call_new(client, &request, true, &options);
	if (call == NULL) {
		client_retry(client, now_ms() + MEMORY_MS);
		return;
	}
	call->hook = opened;
	*ret_opening = true;
	calls_send(client);
}
