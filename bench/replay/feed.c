/* SPDX-License-Identifier: Apache-2.0
 * The client's side: submits jobs, follows their events, cancels those that the trace cancels. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "replay.h"

/* Asynchronous submits; the payload is kept until the answer. */
struct submit {
	struct replay *replay;
	struct plan *plan;
	bool txn;
};

/* ---- events, on libsluice's thread ---- */

static void count_terminal(struct replay *replay, struct plan *plan, const char *state)
{
	static const char *const lower[] = {"complete", "failed", "canceled"};
	static const char *const upper[] = {"COMPLETE", "FAILED", "CANCELED"};
	size_t *counts[] = {&replay->counts.complete, &replay->counts.failed,
			    &replay->counts.canceled};

	for (int i = 0; i < 3; i++) {
		if (strcmp(state, lower[i]) != 0)
			continue;
		if (plan->terminal_events++ == 0) {
			replay->counts.terminal++;
			(*counts[i])++;
			if (plan->active_events > 0)
				replay->counts.active--;
		}
		(void)snprintf(plan->stream_state, sizeof(plan->stream_state), "%s", upper[i]);
		return;
	}
	if (strcmp(state, "active") == 0 && plan->active_events++ == 0 &&
	    plan->terminal_events == 0)
		replay->counts.active++;
}

static void on_event(sluice_sub *sub, const sluice_delivery_view *event, void *user)
{
	struct replay *replay = user;
	const char *state = event->subject != NULL ? strrchr(event->subject, '.') : NULL;
	char id[ID_BYTES];
	struct plan *plan;

	(void)sub;
	if (event->kind != SLUICE_DELIVERY_EVENT || state == NULL || event->key.len >= sizeof(id))
		return;
	memcpy(id, event->key.data, event->key.len);
	id[event->key.len] = 0;
	(void)pthread_mutex_lock(&replay->lock);
	replay->counts.events++;
	plan = plan_find(replay, id);
	if (plan != NULL)
		count_terminal(replay, plan, state + 1);
	(void)pthread_mutex_unlock(&replay->lock);
}

void feed_open(struct replay *replay)
{
	static const char *const subjects[] = {"job.>", NULL};
	sluice_config *config = sluice_config_create();
	sluice_call patient = SLUICE_CALL(.deadline_ms = 30000);
	int rc;

	if (config == NULL || sluice_config_set(config, "address", replay->address) != 0 ||
	    sluice_config_set(config, "client", "replay") != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "300") != 0)
		fail(replay, "the client's configuration was refused");
	rc = sluice_open(config, NULL, NULL, &replay->client);
	sluice_config_destroy(config);
	if (rc == 0)
		rc = sluice_wait_connected(replay->client, 20000);
	if (rc == 0)
		rc = sluice_stream_create(replay->client,
					  &SLUICE_STREAM_SPEC(.name = "jobs", .subjects = subjects,
							      .if_not_exists = true),
					  &patient, NULL);
	if (rc == 0)
		rc = sluice_queue_create(replay->client,
					 &SLUICE_QUEUE_SPEC(.name = "runs", .jobs = true,
							    .if_not_exists = true),
					 &patient, NULL);
	if (rc == 0)
		rc = sluice_follow(replay->client,
				   &SLUICE_FOLLOW_SPEC(.stream = "jobs", .from = SLUICE_FROM_FIRST,
						       .credit = 10000, .on_delivery = on_event,
						       .user = replay),
				   &patient, &replay->sub);
	if (rc != 0)
		fail(replay, "the broker at %s: %s", replay->address, sluice_error_text(rc));
}

/* ---- submits ---- */

static void on_submitted(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct submit *submit = user;
	struct replay *replay = submit->replay;
	int code = reply != NULL ? sluice_reply_code(reply) : SLUICE_E_NOMEM;

	(void)client;
	(void)pthread_mutex_lock(&replay->lock);
	if (code == 0)
		replay->counts.submitted++;
	else
		submit->plan->submit_failed =
			true; /* the main loop tries again: a submit is idempotent */
	(void)pthread_mutex_unlock(&replay->lock);
	free(submit);
}

static void payload_write(const struct replay *replay, const struct plan *plan, char *buf,
			  size_t bytes)
{
	bool waits = plan->expect == EXPECT_CANCELED_RUNNING;
	int code = plan->expect == EXPECT_FAILED ? 1 : 0;

	/* A planted fault: the first job that should complete fails instead. */
	if (replay->options.plant == PLANT_WRONG && plan->expect == EXPECT_COMPLETE &&
	    strcmp(plan->id, replay->sample) == 0)
		code = 9;
	(void)snprintf(buf, bytes,
		       "{\"argv\":[\"%s\",\"--job\",\"%s\",\"%s\",\"1\",\"%u\",\"%s\",\"%d\"]}",
		       replay->self, replay->starts, plan->id, plan->run_ms,
		       waits ? "wait" : "exit", code);
}

bool feed_submit(struct replay *replay, struct plan *plan)
{
	char payload[3 * PATH_BYTES];
	sluice_job_spec spec = SLUICE_JOB_SPEC(.job = plan->id, .queue = "runs", .owner = "replay");
	struct submit *submit = malloc(sizeof(*submit));
	sluice_call call = SLUICE_CALL(.deadline_ms = 30000, .done = on_submitted, .user = submit);
	sluice_txn *txn = NULL;
	int rc;

	if (submit == NULL)
		fail(replay, "out of memory");
	*submit = (struct submit){replay, plan, plan->expect == EXPECT_CANCELED_WAITING};
	payload_write(replay, plan, payload, sizeof(payload));
	spec.payload = (sluice_slice){payload, strlen(payload)};
	if (!submit->txn) {
		rc = sluice_job_submit(replay->client, &spec, &call, NULL);
	} else {
		/* Cancelled before its start: both in one commit, so that the job cannot be started
		 * in between. */
		txn = sluice_txn_create();
		rc = txn == NULL ? SLUICE_E_NOMEM : sluice_txn_job_submit(txn, &spec);
		if (rc == 0)
			rc = sluice_txn_job_cancel(txn, plan->id,
						   "the trace cancels it before its start");
		if (rc == 0)
			rc = sluice_txn_commit(replay->client, txn, &call, NULL);
		sluice_txn_destroy(txn);
	}
	if (rc != 0)
		free(submit);
	return rc == 0;
}

/* ---- cancels ---- */

static void on_cancelled(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct submit *cancel = user;

	(void)client;
	if (reply == NULL || sluice_reply_code(reply) != 0) {
		(void)pthread_mutex_lock(&cancel->replay->lock);
		cancel->plan->cancel_sent = false; /* again */
		(void)pthread_mutex_unlock(&cancel->replay->lock);
	}
	free(cancel);
}

void feed_cancels(struct replay *replay)
{
	/* Cancelled only after the process has reported that it runs: its start must be recorded
	 * before it may be ended. */
	starts_read(replay);
	for (size_t i = 0; i < replay->plan_count; i++) {
		struct plan *plan = &replay->plans[i];
		struct submit *cancel;
		bool due;

		(void)pthread_mutex_lock(&replay->lock);
		due = plan->expect == EXPECT_CANCELED_RUNNING && plan->starts > 0 &&
		      plan->active_events > 0 && plan->terminal_events == 0 && !plan->cancel_sent;
		plan->cancel_sent = plan->cancel_sent || due;
		(void)pthread_mutex_unlock(&replay->lock);
		if (!due)
			continue;
		cancel = malloc(sizeof(*cancel));
		if (cancel == NULL)
			fail(replay, "out of memory");
		*cancel = (struct submit){replay, plan, false};
		if (sluice_job_cancel(replay->client, plan->id, "the trace cancels it",
				      &SLUICE_CALL(.deadline_ms = 30000, .done = on_cancelled,
						   .user = cancel),
				      NULL) != 0) {
			free(cancel);
			plan->cancel_sent = false;
		}
	}
}

void feed_close(struct replay *replay)
{
	(void)sluice_sub_close(replay->sub, 2000);
	replay->sub = NULL;
	(void)sluice_close(replay->client, true, 3000);
	replay->client = NULL;
}
