/* SPDX-License-Identifier: Apache-2.0
 * resume_probe ADDRESS [fire]: holds one item and one job, waits for SIGUSR1 (the broker was killed
 * and restarted), then acks (with fire: without waiting for the answer) and reports with its
 * tokens, which must still be valid. */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sluice/client.h"

static volatile sig_atomic_t go;
static atomic_int broken, resumed;

static void on_signal(int number)
{
	go = number;
}

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)client;
	(void)user;
	if (notice->kind == SLUICE_NOTICE_DISCONNECTED)
		atomic_store(&broken, 1);
	if (notice->kind == SLUICE_NOTICE_RESUMED)
		atomic_store(&resumed, 1);
}

static int step(const char *what, int rc)
{
	if (rc != 0)
		(void)printf("%s: %s\n", what, sluice_error_name(rc));
	(void)fflush(stdout);
	return rc;
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	sluice_sub *items = NULL, *jobs = NULL;
	sluice_delivery *item = NULL, *job = NULL, *again = NULL;
	sluice_call patient = SLUICE_CALL(.deadline_ms = 30000);
	const sluice_delivery_view *view;

	(void)signal(SIGUSR1, on_signal);
	if (argc < 2 || argc > 3 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "100") != 0 ||
	    sluice_open(config, on_notice, NULL, &client) != 0)
		return 2;
	if (step("queue", sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "work"), NULL,
					      NULL)) != 0 ||
	    step("queue of jobs",
		 sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "runs", .jobs = true), NULL,
				     NULL)) != 0 ||
	    step("put",
		 sluice_publish(client,
				&SLUICE_MESSAGE(.subject = "x", .queue = "work", .body = {"1", 1}),
				NULL, NULL)) != 0 ||
	    step("submit", sluice_job_submit(client, &SLUICE_JOB_SPEC(.job = "j", .queue = "runs"),
					     NULL, NULL)) != 0 ||
	    step("consume",
		 sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "work", .credit = 5), NULL,
				&items)) != 0 ||
	    step("consume jobs",
		 sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "runs", .credit = 5), NULL,
				&jobs)) != 0 ||
	    step("item", sluice_sub_next(items, 10000, &item)) != 0 ||
	    step("job", sluice_sub_next(jobs, 10000, &job)) != 0)
		return 1;
	(void)printf("holding\n");
	(void)fflush(stdout);
	/* An ack that is sent before the client knows that the broker is gone has an unknown
	 * outcome. */
	while (!go || !atomic_load(&broken))
		(void)usleep(20000);
	view = sluice_delivery_get(item);
	if (step("ack", sluice_item_ack(items, view->token, view->seq, argc == 3 ? NULL : &patient,
					NULL)) != 0)
		return 1;
	view = sluice_delivery_get(job);
	if (step("intent", sluice_job_intent(client, "j", view->token, view->attempt, "tag",
					     &patient, NULL)) != 0)
		return 1;
	if (sluice_sub_next(items, 500, &again) == 0) {
		(void)printf("the item came a second time\n");
		return 1;
	}
	(void)printf("%s\n", atomic_load(&resumed) ? "resumed" : "no callback");
	sluice_delivery_free(item);
	sluice_delivery_free(job);
	(void)sluice_sub_close(items, 1000);
	(void)sluice_sub_close(jobs, 1000);
	(void)sluice_close(client, true, 2000);
	sluice_config_destroy(config);
	return atomic_load(&resumed) ? 0 : 1;
}
