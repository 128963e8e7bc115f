/* SPDX-License-Identifier: Apache-2.0
 * lost_probe ADDRESS: publishes, commits a transaction, waits until its third session is open,
 * publishes again; prints the result of each. */
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "sluice/client.h"

static atomic_int lost;

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)client;
	(void)user;
	if (notice->kind == SLUICE_NOTICE_SESSION_LOST)
		atomic_fetch_add(&lost, 1);
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_message message = SLUICE_MESSAGE(.subject = "a.b", .body = {"x", 1});
	sluice_call call = SLUICE_CALL(.deadline_ms = 60000);
	sluice_txn *txn = sluice_txn_create();
	sluice_client *client = NULL;

	if (argc != 2 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "connect_timeout_ms", "60000") != 0 ||
	    sluice_open(config, on_notice, NULL, &client) != 0 ||
	    sluice_txn_publish(txn, &message) != 0)
		return 2;
	(void)printf("publish %s\n",
		     sluice_error_name(sluice_publish(client, &message, &call, NULL)));
	(void)printf("transaction %s\n",
		     sluice_error_name(sluice_txn_commit(client, txn, &call, NULL)));
	while (atomic_load(&lost) < 3)
		(void)usleep(5000);
	(void)printf("publish %s\n",
		     sluice_error_name(sluice_publish(client, &message, &call, NULL)));
	(void)sluice_close(client, true, 2000);
	sluice_txn_destroy(txn);
	sluice_config_destroy(config);
	return 0;
}
