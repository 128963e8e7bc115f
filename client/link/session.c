/* SPDX-License-Identifier: Apache-2.0
 * The session as seen by the application: its number, and waiting for it. */
#include "client/base/error.h"
#include "client/base/loop.h"
#include "client/link/link.h"

int sluice_wait_connected(sluice_client *client, int deadline_ms)
{
	uint64_t deadline = deadline_of(client, deadline_ms);
	int rc = 0;

	client_lock(client);
	while (client->state != STATE_READY && rc == 0) {
		if (client->closing)
			rc = SLUICE_E_CLOSED;
		else if (client->state == STATE_FAILED)
			rc = client->fail_code;
		else if (client_on_loop(client))
			rc = SLUICE_E_WRONG_STATE;
		else if (now_ms() >= deadline)
			rc = client->link->refused_code != 0 ? client->link->refused_code
			     : client->error[0] != 0	     ? SLUICE_E_DISCONNECTED
							     : SLUICE_E_TIMEOUT;
		else
			client_wait_some(client, deadline, 50);
	}
	(void)error_set(rc, client->error);
	client_unlock(client);
	return rc;
}

uint64_t sluice_session_id(const sluice_client *client)
{
	uint64_t session;

	client_lock((sluice_client *)(uintptr_t)client);
	session = client->link->session_id;
	client_unlock((sluice_client *)(uintptr_t)client);
	return session;
}
