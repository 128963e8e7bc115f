/* SPDX-License-Identifier: Apache-2.0
 * ghost_probe ADDRESS NAME: connects with a session name, prints "connected", and after SIGUSR1
 * whether a call still works and which notices came since, CONNECTED and others. An attempt to
 * connect is abandoned after 700 ms. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "sluice/client.h"

static volatile sig_atomic_t go;
static atomic_int connected, others;

static void on_signal(int number)
{
	go = number;
}

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)client;
	(void)user;
	if (notice->kind == SLUICE_NOTICE_CONNECTED)
		atomic_fetch_add(&connected, 1);
	else
		atomic_fetch_add(&others, 1);
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	int rc;

	(void)signal(SIGUSR1, on_signal);
	if (argc != 3 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "session", argv[2]) != 0 ||
	    sluice_config_set(config, "connect_timeout_ms", "700") != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "100") != 0 ||
	    sluice_open(config, on_notice, NULL, &client) != 0)
		return 2;
	rc = sluice_wait_connected(client, 30000);
	(void)printf("%s\n", rc == 0 ? "connected" : sluice_error_name(rc));
	(void)fflush(stdout);
	while (rc == 0 && !go)
		(void)usleep(20000);
	if (rc == 0)
		rc = sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "alive"), NULL, NULL);
	(void)printf("%s, %d connected, %d others\n", rc == 0 ? "alive" : sluice_error_name(rc),
		     atomic_load(&connected), atomic_load(&others));
	(void)sluice_close(client, false, 0);
	sluice_config_destroy(config);
	return rc != 0;
}
