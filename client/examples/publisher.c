/* SPDX-License-Identifier: Apache-2.0
 *
 * Publishes numbered events to stream "events" and counts the answers.
 *
 *   cc publisher.c $(pkg-config --cflags --libs sluice) -o publisher
 *   ./publisher 127.0.0.1:7584 1000
 *
 * The publishes are asynchronous: the library gathers them into batches, and each one gets its
 * own answer. Answer 0 means that the event is on disk. After a lost connection the library sends
 * what has no answer again, and the broker recognises what it already has: no event is lost, none
 * is stored twice.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sluice/client.h>

struct count {
	unsigned long stored, failed;
};

/* On the library's thread, once for each publish. */
static void on_answer(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct count *count = user;

	(void)client;
	if (sluice_reply_code(reply) == 0) {
		count->stored++;
		return;
	}
	count->failed++;
	(void)fprintf(stderr, "not stored: %s\n", sluice_reply_text(reply));
}

static int publish_all(sluice_client *client, unsigned long events, struct count *count)
{
	/* Each publish fails when it is not stored within a minute. */
	const sluice_call call =
		SLUICE_CALL(.deadline_ms = 60000, .done = on_answer, .user = count);
	char body[32];
	int rc = 0;

	for (unsigned long i = 1; i <= events && rc == 0; i++) {
		int len = snprintf(body, sizeof(body), "event %lu", i);
		sluice_message message =
			SLUICE_MESSAGE(.subject = "demo.count", .body = {body, (size_t)len});

		rc = sluice_publish(client, &message, &call, NULL);
		/* The publish buffer is full: wait until it is empty, then try this event again. */
		if (rc == SLUICE_E_BUFFER_FULL) {
			rc = sluice_flush(client, 60000);
			i--;
		}
	}
	if (rc == 0)
		rc = sluice_flush(client, 60000); /* returns when every publish has its answer */
	return rc;
}

int main(int argc, char **argv)
{
	const char *subjects[] = {"demo.>", NULL};
	struct count count = {0};
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	int rc = config != NULL ? 0 : SLUICE_E_NOMEM;

	if (rc == 0)
		rc = sluice_config_set(config, "address", argc > 1 ? argv[1] : "127.0.0.1:7584");
	if (rc == 0)
		rc = sluice_open(config, NULL, NULL, &client);
	if (rc == 0) {
		sluice_stream_spec stream =
			SLUICE_STREAM_SPEC(.name = "events", .subjects = subjects,
					   .if_not_exists = true);

		rc = sluice_stream_create(client, &stream, NULL, NULL);
	}
	if (rc == 0)
		rc = publish_all(client, argc > 2 ? strtoul(argv[2], NULL, 10) : 10, &count);
	if (rc != 0)
		(void)fprintf(stderr, "publisher: %s\n", sluice_last_error(client));
	(void)sluice_close(client, true, 5000); /* publishes that are still open end as CLOSED */
	sluice_config_destroy(config);
	(void)printf("%lu stored, %lu failed\n", count.stored, count.failed);
	return sluice_error_exit_code(rc);
}
