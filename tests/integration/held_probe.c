/* SPDX-License-Identifier: Apache-2.0
 * held_probe ADDRESS SOURCE: a scheduler of queue `runs` that prints each notification. It records
 * the intent of each delivered job, and reports the end of a job that is to be cancelled. Lines:
 * "job ID TOKEN", "again ID TOKEN" (with an intent), "cancel ID TOKEN", "lost ID TOKEN", "ended
 * ID", "gone CODE". It also holds the items of queue `work` that are delivered to it ("item TOKEN",
 * "lost - TOKEN"), one at a time, and acks the one whose lease is lost. With a third argument it
 * holds two, and the first for ten minutes. Ends with SIGTERM. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "sluice/client.h"

static struct item {
	sluice_token token;
	uint64_t seq;
} last;
static bool two;

static void say(const char *what, const char *job, sluice_token token)
{
	(void)printf("%s %s %llu\n", what, job, (unsigned long long)token);
	(void)fflush(stdout);
}

static void ended(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	(void)user;
	if (sluice_reply_code(reply) == 0)
		say("ended", sluice_reply_state(reply), 0);
}

static void done(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	(void)reply;
	(void)user;
}

static void end_job(sluice_client *client, const char *job, sluice_token token)
{
	sluice_job_report_spec spec = SLUICE_JOB_REPORT_SPEC(.job = job, .source = "probe",
							     .state = "CANCELED", .token = token);

	(void)sluice_job_report(client, &spec, &SLUICE_CALL(.deadline_ms = -1, .done = ended),
				NULL);
}

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	(void)user;
	if (notice->kind == SLUICE_NOTICE_JOB_CANCEL) {
		say("cancel", notice->job, notice->token);
		end_job(client, notice->job, notice->token);
	} else if (notice->kind == SLUICE_NOTICE_LEASE_LOST) {
		say("lost", notice->job != NULL && notice->job[0] != 0 ? notice->job : "-",
		    notice->token);
		if (notice->items > 0 && notice->token == last.token)
			(void)sluice_item_ack(notice->sub, last.token, last.seq,
					      &SLUICE_CALL(.user = SLUICE_FIRE), NULL);
	}
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	sluice_client **client = user;

	if (view->kind == SLUICE_DELIVERY_END)
		say("gone", sluice_error_name(view->code), 0);
	if (view->kind == SLUICE_DELIVERY_ITEM) {
		if (two && last.token == 0)
			(void)sluice_lease_extend(sub, view->token, 600000,
						  &SLUICE_CALL(.user = SLUICE_FIRE), NULL);
		last = (struct item){view->token, view->seq};
		say("item", "-", view->token);
	}
	if (view->kind != SLUICE_DELIVERY_JOB)
		return;
	say(view->intent ? "again" : "job", view->job, view->token);
	if (view->cancel)
		end_job(*client, view->job, view->token);
	else if (!view->intent)
		(void)sluice_job_intent(*client, view->job, view->token, view->attempt, view->job,
					&SLUICE_CALL(.deadline_ms = -1, .done = done), NULL);
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	sluice_sub *jobs = NULL, *items = NULL;
	sigset_t set;
	int number;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)pthread_sigmask(SIG_BLOCK, &set, NULL);
	two = argc == 4;
	if (argc < 3 || argc > 4 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "reconnect_min_ms", "10") != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "20") != 0 ||
	    sluice_open(config, on_notice, NULL, &client) != 0)
		return 2;
	if (sluice_consume(client,
			   &SLUICE_CONSUME_SPEC(.queue = "runs", .credit = 1000, .orphans = true,
						.source = argv[2][0] != 0 ? argv[2] : NULL,
						.on_delivery = on_delivery, .user = &client),
			   &SLUICE_CALL(.deadline_ms = 30000), &jobs) != 0 ||
	    sluice_consume(client,
			   &SLUICE_CONSUME_SPEC(.queue = "work", .credit = two ? 2 : 1,
						.lease_ms = 500, .on_delivery = on_delivery,
						.user = &client),
			   &SLUICE_CALL(.deadline_ms = 30000), &items) != 0)
		return 1;
	(void)printf("session %llu\n", (unsigned long long)sluice_session_id(client));
	(void)fflush(stdout);
	(void)sigwait(&set, &number);
	(void)sluice_close(client, false, 1000);
	sluice_config_destroy(config);
	return 0;
}
