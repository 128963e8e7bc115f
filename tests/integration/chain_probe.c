/* SPDX-License-Identifier: Apache-2.0
 * chain_probe ADDRESS: in caller-loop mode, with nothing listening at ADDRESS: a call that a
 * callback makes ends by its own deadline, although the application only polls the client's
 * descriptor. Prints what does not hold; exit code 0: all of it held. */
#include <poll.h>
#include <stdio.h>

#include "sluice/client.h"

enum { PATIENCE_MS = 20000, DEADLINE_MS = 50 };

static const sluice_message message = {.size = sizeof(sluice_message),
				       .subject = "chain.x",
				       .body = {"x", 1}};
static int begun, ended;

static void on_second(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	(void)reply;
	(void)user;
	ended++;
}

static int begin(sluice_client *client, int kind, sluice_done_fn *done, void *user)
{
	const sluice_call call =
		SLUICE_CALL(.deadline_ms = DEADLINE_MS, .done = done, .user = user);
	sluice_txn *txn;
	int rc;

	if (kind == 0)
		return sluice_publish(client, &message, &call, NULL);
	if (kind == 1)
		return sluice_object_show(client, SLUICE_OBJECT_STREAM, "chain", &call, NULL);
	txn = sluice_txn_create();
	rc = sluice_txn_publish(txn, &message);
	if (rc == 0)
		rc = sluice_txn_commit(client, txn, &call, NULL);
	sluice_txn_destroy(txn);
	return rc;
}

static void on_first(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)reply;
	if (begin(client, *(const int *)user, on_second, NULL) == 0)
		begun++;
}

/* The callback of the first of these kinds begins the second. */
static bool chain(const char *address, int first, int second)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	struct pollfd at = {.events = POLLIN};
	bool good;

	begun = ended = 0;
	if (sluice_config_set(config, "address", address) != 0 ||
	    sluice_config_set(config, "mode", "caller-loop") != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "600000") != 0 ||
	    sluice_config_set(config, "reconnect_min_ms", "600000") != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0)
		return false;
	sluice_config_destroy(config);
	good = begin(client, first, on_first, &second) == 0;
	/* A turn that waits: at its end the library notices that the deadline has passed. */
	while (good && begun == 0)
		good = sluice_process(client, PATIENCE_MS) == 0;
	at.fd = sluice_fd(client);
	while (good && ended == 0)
		good = poll(&at, 1, PATIENCE_MS) == 1 && sluice_process(client, 0) == 0;
	(void)sluice_close(client, false, 1);
	return good && ended == 1;
}

int main(int argc, char **argv)
{
	static const char *const kinds[] = {"publish", "call", "transaction"};
	int failures = 0;

	for (int first = 0; argc == 2 && first < 3; first++)
		for (int second = 0; second < 3; second++)
			if (!chain(argv[1], first, second)) {
				(void)printf("a %s begun in the callback of a %s did not end\n",
					     kinds[second], kinds[first]);
				failures++;
			}
	return argc == 2 ? failures : 2;
}
