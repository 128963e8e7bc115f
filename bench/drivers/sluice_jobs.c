/* SPDX-License-Identifier: Apache-2.0
 *
 * Full job lives: submit, claim, intent, four reports (QUEUED, ACTIVE, SUSPENDED, COMPLETE). Each
 * command is sent after the answer to the one before, so each step is durable when the next begins.
 *
 * `active` lives are under way at any time, from the first submit until the clock stops: when one
 * ends, the next is submitted in its place. Lives that are under way when the clock stops are
 * completed, outside of the measurement.
 *
 * The lives begin in groups, one group per command of a life, each one command later than the group
 * before. If all began at once, they would stay in the same phase and end in bursts. A measurement
 * of fewer lives than `active` never reaches a steady state.
 *
 * Two connections, one thread: one submits, claims and reports; the other follows the stream of job
 * events and must receive every event.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <uthash.h>

#include "bench/drivers/sluice_driver.h"

#define JOB_STREAM "bench-job-events"
#define JOB_QUEUE "bench-jobs"

enum {
	FOLLOW_CREDIT = 20000,
	STALLED_MS_MAX = 60000,
	REPORTS = 4,
	COMMANDS_OF_LIFE = 3 + REPORTS, /* submit, claim, intent */
	EVENTS_OF_LIFE = 1 + REPORTS,	/* SUBMITTED too */
};

static const char *const reports[REPORTS] = {"QUEUED", "ACTIVE", "SUSPENDED", "COMPLETE"};

/* A slot for one life under way. */
struct life {
	struct run *run;
	char job[40];
	sluice_token token;
	uint32_t attempt;
	unsigned reported; /* reports that were answered */
	UT_hash_handle hh;
};

struct run {
	const struct bench_jobs_spec *spec;
	struct sluice_fault fault;
	sluice_client *client, *watcher;
	struct life *lives; /* spec->active of them */
	struct life *by_job;
	char *payload;
	unsigned groups; /* that have begun, of COMMANDS_OF_LIFE */
	uint64_t submitted, ended, commands, events;
	uint64_t started_ns, stopped_ns; /* 0: not yet */
};

static void group_begin(struct run *run);

/* A command of that life is on disk. The first life sets the pace of the groups. */
static void counted(struct life *life)
{
	struct run *run = life->run;

	run->commands++;
	if (life == run->lives && run->groups < COMMANDS_OF_LIFE)
		group_begin(run);
}

static bool answered(struct life *life, const sluice_reply *reply, const char *what)
{
	if (sluice_reply_code(reply) != 0) {
		sluice_fault_set(&life->run->fault, "%s of job %s: %s", what, life->job,
				 sluice_reply_text(reply));
		return false;
	}
	counted(life);
	return true;
}

/* The call itself; an immediate refusal is a failure as well. */
static void sent(struct life *life, int rc, const char *what)
{
	if (rc != 0)
		sluice_fault_set(&life->run->fault, "%s of job %s: %s", what, life->job,
				 sluice_error_text(rc));
}

/* ---- a life, last step first ---- */

static void life_begin(struct life *life);

static void life_end(struct life *life)
{
	struct run *run = life->run;
	uint64_t warm = run->spec->warm;

	HASH_DELETE(hh, run->by_job, life);
	run->ended++;
	if (run->ended == warm) {
		run->spec->started(run->spec->user);
		run->started_ns = bench_now_ns();
	}
	if (run->ended == warm + run->spec->lives) {
		run->stopped_ns = bench_now_ns();
		run->spec->stopped(run->spec->user);
	}
	if (run->stopped_ns == 0)
		life_begin(life);
}

static void life_report(struct life *life);

static void on_reported(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct life *life = user;

	(void)client;
	if (!answered(life, reply, reports[life->reported]))
		return;
	if (sluice_reply_disposition(reply) != SLUICE_DISPOSITION_APPLIED) {
		sluice_fault_set(&life->run->fault, "%s of job %s was not applied; it is %s",
				 reports[life->reported], life->job, sluice_reply_state(reply));
		return;
	}
	if (++life->reported == REPORTS)
		life_end(life);
	else
		life_report(life);
}

static void life_report(struct life *life)
{
	sluice_job_report_spec spec =
		SLUICE_JOB_REPORT_SPEC(.job = life->job, .attempt = life->attempt,
				       .token = life->token, .source = "bench",
				       .state = reports[life->reported]);
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_reported, .user = life);

	sent(life, sluice_job_report(life->run->client, &spec, &call, NULL), spec.state);
}

static void on_intended(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	if (answered(user, reply, "intent"))
		life_report(user);
}

static void on_job(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_intended);
	struct run *run = user;
	struct life *life;

	(void)sub;
	if (view->kind == SLUICE_DELIVERY_END)
		sluice_fault_set(&run->fault, "the consumer of %s ended: %s", JOB_QUEUE,
				 view->text);
	if (view->kind != SLUICE_DELIVERY_JOB)
		return;
	HASH_FIND_STR(run->by_job, view->job, life);
	if (life == NULL || life->token != 0) {
		sluice_fault_set(&run->fault, "job %s was delivered, which is not under way",
				 view->job);
		return;
	}
	life->token = view->token;
	life->attempt = view->attempt;
	counted(life); /* the claim: it is on disk before the delivery */
	call.user = life;
	/* The job's id serves as tag: it is unique and can be found again. */
	sent(life,
	     sluice_job_intent(run->client, life->job, life->token, life->attempt, life->job, &call,
			       NULL),
	     "intent");
}

static void on_submitted(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	(void)answered(user, reply, "submit");
}

static void life_begin(struct life *life)
{
	struct run *run = life->run;
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_submitted, .user = life);
	sluice_job_spec spec =
		SLUICE_JOB_SPEC(.job = life->job, .queue = JOB_QUEUE, .owner = "bench",
				.payload = {run->payload, run->spec->payload_bytes});

	life->token = 0;
	life->reported = 0;
	sluice_job_id_make(life->job);
	HASH_ADD_STR(run->by_job, job, life);
	run->submitted++;
	sent(life, sluice_job_submit(run->client, &spec, &call, NULL), "submit");
}

static void group_begin(struct run *run)
{
	uint64_t active = run->spec->active, from = active * run->groups / COMMANDS_OF_LIFE;

	run->groups++;
	for (uint64_t i = from; i < active * run->groups / COMMANDS_OF_LIFE; i++)
		life_begin(&run->lives[i]);
}

/* ---- the run ---- */

static void on_event(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	struct run *run = user;

	(void)sub;
	if (view->kind == SLUICE_DELIVERY_EVENT)
		run->events++;
	else if (view->kind == SLUICE_DELIVERY_GAP || view->kind == SLUICE_DELIVERY_END)
		sluice_fault_set(&run->fault, "the follower of job events %s",
				 view->kind == SLUICE_DELIVERY_GAP ? "has a gap" : view->text);
}

/* One turn for each client with input. */
static int turn(struct run *run)
{
	sluice_client *clients[] = {run->client, run->watcher};
	struct pollfd fds[2];

	for (int i = 0; i < 2; i++)
		fds[i] = (struct pollfd){.fd = sluice_fd(clients[i]), .events = POLLIN};
	(void)poll(fds, 2, 1000); /* interrupted or not: descriptors with input are handled */
	for (int i = 0; i < 2; i++) {
		int rc = fds[i].revents != 0 ? sluice_process(clients[i], 0) : 0;

		if (rc != 0)
			return bench_error("sluice: jobs: %s", sluice_error_text(rc));
	}
	return sluice_fault_check(&run->fault);
}

static bool finished(const struct run *run)
{
	return run->stopped_ns != 0 && run->ended == run->submitted &&
	       run->events >= run->submitted * EVENTS_OF_LIFE;
}

static int run_to_end(struct run *run)
{
	uint64_t commands = 0, events = 0, moved_ns = bench_now_ns();

	/* With fewer lives than groups the first life is in the last group. */
	do
		group_begin(run);
	while (run->submitted == 0);
	/* Nothing has been sent yet: the first turn does it. */
	if (sluice_process(run->client, 0) != 0)
		return bench_error("sluice: jobs: the client does not run");
	while (!finished(run)) {
		if (turn(run) != 0)
			return -1;
		if (bench_interrupted())
			return bench_error("interrupted");
		if (run->commands != commands || run->events != events)
			moved_ns = bench_now_ns();
		commands = run->commands;
		events = run->events;
		if (bench_now_ns() - moved_ns > STALLED_MS_MAX * 1000000ull)
			return bench_error(
				"sluice: jobs: nothing came for %d s: %llu lives were submitted, "
				"%llu ended, %llu events came",
				STALLED_MS_MAX / 1000, (unsigned long long)run->submitted,
				(unsigned long long)run->ended, (unsigned long long)run->events);
	}
	return 0;
}

static int subscribe(struct run *run)
{
	sluice_follow_spec follow =
		SLUICE_FOLLOW_SPEC(.stream = JOB_STREAM, .from = SLUICE_FROM_NEW,
				   .credit = FOLLOW_CREDIT, .on_delivery = on_event, .user = run);
	sluice_consume_spec consume =
		SLUICE_CONSUME_SPEC(.queue = JOB_QUEUE, .credit = run->spec->active,
				    .on_delivery = on_job, .user = run);
	sluice_sub *sub;
	int rc = sluice_follow(run->watcher, &follow, NULL, &sub);

	if (rc == 0)
		rc = sluice_consume(run->client, &consume, NULL, &sub);
	return rc == 0 ? 0
		       : bench_error("sluice: jobs: subscribe: %s: %s", sluice_error_text(rc),
				     sluice_last_error(NULL));
}

static int run_begin(struct run *run, const struct bench_server *server)
{
	static const char *const subjects[] = {"job.>", NULL};

	run->lives = calloc(run->spec->active, sizeof(*run->lives));
	run->payload = malloc(run->spec->payload_bytes + 1);
	if (run->lives == NULL || run->payload == NULL)
		return bench_error("sluice: out of memory");
	memset(run->payload, 'p', run->spec->payload_bytes);
	for (unsigned i = 0; i < run->spec->active; i++)
		run->lives[i].run = run;
	if (sluice_client_begin(server, NULL, &run->fault, &run->client) != 0 ||
	    sluice_client_begin(server, NULL, &run->fault, &run->watcher) != 0 ||
	    sluice_stream_make(run->client, JOB_STREAM, subjects) != 0 ||
	    sluice_queue_make(run->client, JOB_QUEUE, true) != 0)
		return -1;
	return subscribe(run);
}

int sluice_driver_jobs(const struct bench_server *server, const struct bench_jobs_spec *spec,
		       struct bench_jobs_result *ret)
{
	struct run run = {.spec = spec};
	int rc;

	if (spec->active == 0 || spec->lives == 0)
		return bench_error("sluice: jobs: neither active nor lives can be 0");
	rc = run_begin(&run, server);
	if (rc == 0 && spec->warm == 0) {
		spec->started(spec->user);
		run.started_ns = bench_now_ns();
	}
	if (rc == 0)
		rc = run_to_end(&run);
	if (rc == 0)
		*ret = (struct bench_jobs_result){.lives = spec->lives,
						  .events = run.events,
						  .events_expected = run.submitted * EVENTS_OF_LIFE,
						  .seconds = (double)(run.stopped_ns -
								      run.started_ns) /
							     1e9};
	sluice_client_end(run.client);
	sluice_client_end(run.watcher);
	HASH_CLEAR(hh, run.by_job);
	free(run.lives);
	free(run.payload);
	return rc;
}
