/* SPDX-License-Identifier: Apache-2.0
 *
 * pub_load ADDRESS ACKS COUNT WINDOW: publishes the numbers 1 to COUNT to subject load.n, WINDOW of
 * them in flight, across failures of the broker, and writes each acknowledged number at once as a
 * line to the file ACKS. Ends with 0 when every number has its answer, with 1 when one was refused.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sluice/client.h"

static atomic_ulong in_flight;
static atomic_int refused;
static int acks;

static void on_done(sluice_client *client, const sluice_reply *reply, void *user)
{
	char line[32];
	int len = snprintf(line, sizeof(line), "%lu\n", (unsigned long)(uintptr_t)user);

	(void)client;
	if (reply != NULL && sluice_reply_code(reply) == 0) {
		if (write(acks, line, (size_t)len) != len)
			abort();
	} else if (reply == NULL || sluice_reply_code(reply) != SLUICE_E_UNKNOWN) {
		(void)fprintf(stderr, "%lu: %s\n", (unsigned long)(uintptr_t)user,
			      reply != NULL ? sluice_reply_text(reply) : "no memory");
		atomic_store(&refused, 1);
	}
	atomic_fetch_sub(&in_flight, 1);
}

static sluice_client *open_client(const char *address)
{
	static const char *const subjects[] = {"load.>", NULL};
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	sluice_call patient = SLUICE_CALL(.deadline_ms = 60000);

	if (config == NULL || sluice_config_set(config, "address", address) != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "100") != 0 ||
	    sluice_config_set(config, "batch_events", "50") != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0)
		exit(2);
	sluice_config_destroy(config);
	if (sluice_stream_create(client,
				 &SLUICE_STREAM_SPEC(.name = "load", .subjects = subjects,
						     .if_not_exists = true),
				 &patient, NULL) != 0)
		exit(2);
	return client;
}

int main(int argc, char **argv)
{
	unsigned long count, window;
	sluice_client *client;

	if (argc != 5)
		return 2;
	acks = open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	count = strtoul(argv[3], NULL, 10);
	window = strtoul(argv[4], NULL, 10);
	if (acks < 0)
		return 2;
	client = open_client(argv[1]);
	for (unsigned long n = 1; n <= count; n++) {
		char body[32];
		sluice_call call = SLUICE_CALL(.deadline_ms = 60000, .done = on_done,
					       .user = (void *)(uintptr_t)n);
		sluice_message message = SLUICE_MESSAGE(.subject = "load.n", .body = {body, 0});

		message.body.len = (size_t)snprintf(body, sizeof(body), "%lu", n);
		while (atomic_load(&in_flight) >= window)
			(void)usleep(200);
		atomic_fetch_add(&in_flight, 1);
		if (sluice_publish(client, &message, &call, NULL) != 0)
			return 1;
	}
	(void)sluice_flush(client, 60000);
	(void)sluice_close(client, true, 2000);
	return atomic_load(&refused);
}
