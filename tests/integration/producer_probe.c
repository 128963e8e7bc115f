/* SPDX-License-Identifier: Apache-2.0
 * producer_probe ADDRESS [PRODUCER]: for each line on standard input, "publish", "txn" or "two"
 * (publishes that are sent together), prints the result. */
#include "tests/integration/probe.h"

static void say(const char *what, int rc)
{
	(void)printf("%s %s\n", what, sluice_error_name(rc));
	(void)fflush(stdout);
}

static void on_done(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	(void)user;
	say("done", sluice_reply_code(reply));
}

static int commit(sluice_client *client)
{
	sluice_txn *txn = sluice_txn_create();
	int rc = sluice_txn_publish(txn, &SLUICE_MESSAGE(.subject = "p.txn", .body = {"t", 1}));

	if (rc == 0)
		rc = sluice_txn_commit(client, txn, NULL, NULL);
	sluice_txn_destroy(txn);
	return rc;
}

int main(int argc, char **argv)
{
	const char *named[] = {"producer", argc > 2 ? argv[2] : "", NULL};
	sluice_client *client;
	char line[64];

	address = argc > 1 ? argv[1] : "";
	client = client_of(NULL, NULL, argc > 2 ? named : NULL);
	EQUAL(sluice_wait_connected(client, PATIENCE_MS), 0);
	(void)printf("connected\n");
	(void)fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		const sluice_message message =
			SLUICE_MESSAGE(.subject = "p.one", .body = {line, strlen(line) - 1});

		if (strcmp(line, "txn\n") == 0) {
			say("txn", commit(client));
		} else if (strcmp(line, "two\n") == 0) {
			for (int i = 0; i < 2; i++)
				EQUAL(sluice_publish(client, &message,
						     &SLUICE_CALL(.done = on_done), NULL),
				      0);
			say("flush", sluice_flush(client, PATIENCE_MS));
		} else {
			say("publish", sluice_publish(client, &message, NULL, NULL));
		}
	}
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	return atomic_load(&failures) == 0 ? 0 : 1;
}
