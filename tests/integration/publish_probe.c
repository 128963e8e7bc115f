/* SPDX-License-Identifier: Apache-2.0
 * publish_probe ADDRESS: publishes "first" with a deadline of 1.5 s, prints the result, then
 * publishes "second" and prints its result. */
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "sluice/client.h"

static atomic_int ended;

static void on_end(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	(void)user;
	(void)printf("first %s\n", sluice_error_name(sluice_reply_code(reply)));
	(void)fflush(stdout);
	atomic_store(&ended, 1);
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_message message = SLUICE_MESSAGE(.subject = "a.b", .body = {"first", 5});
	sluice_call call = SLUICE_CALL(.deadline_ms = 1500, .done = on_end),
		    patient = SLUICE_CALL(.deadline_ms = 60000);
	sluice_client *client = NULL;

	/* The test's broker makes it wait: an attempt to connect must not time out meanwhile. */
	if (argc != 2 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "connect_timeout_ms", "60000") != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0 ||
	    sluice_publish(client, &message, &call, NULL) != 0)
		return 2;
	while (!atomic_load(&ended))
		(void)usleep(5000);
	message.body = (sluice_slice){"second", 6};
	(void)printf("second %s\n",
		     sluice_error_name(sluice_publish(client, &message, &patient, NULL)));
	(void)sluice_close(client, true, 2000);
	sluice_config_destroy(config);
	return 0;
}
