/* SPDX-License-Identifier: Apache-2.0
 *
 * One job from claim to report. The order is the point: durable INTENT, then the start (taken by the job's
 * process itself), then the record, then the end. After a death anywhere in between, job_taken() of the next
 * holder looks at the attempt's files first.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "payload.h"
#include "service.h"

enum { KILL_GRACE_MS = 2000, RETRY_MS = 1000, RETRY_DOUBLINGS_MAX = 4 };

static void reconcile(struct job *job);
static void report_end(struct job *job, const struct attempt_view *view);

uint64_t service_now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

void service_log(struct service *service, enum sluice_log_level level, const char *id, const struct job *job,
		 const char *text)
{
	char line[512];

	(void)snprintf(line, sizeof(line), "%s%s%s", job != NULL ? job->id : "", job != NULL ? ": " : "",
		       text);
	service->host->log(service->host->host, level, id, line);
}

/* For the fault rig: leaves a note and stops; SIGKILL is what comes next. */
static void window_pause(struct job *job, enum window window, const char *name)
{
	char note[ATTEMPT_PATH_MAX];
	int fd;

	if (job->service->pause != window)
		return;
	(void)snprintf(note, sizeof(note), "%s/paused", job->service->spool);
	fd = open(note, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0) {
		(void)dprintf(fd, "%s %d %s\n", name, (int)getpid(), job->id);
		(void)close(fd);
	}
	(void)raise(SIGSTOP);
}

/* ---- the table ---- */

void job_unwatch(struct job *job)
{
	if (job->starter_fd >= 0)
		(void)close(job->starter_fd);
	if (job->watch_fd >= 0)
		(void)close(job->watch_fd);
	job->starter_fd = job->watch_fd = -1;
}

void job_free(struct job *job)
{
	struct service *service = job->service;

	job_unwatch(job);
	if (job->calls > 0) {
		job->dropped = true;
		return;
	}
	if (job->prev != NULL)
		job->prev->next = job->next;
	else
		service->jobs = job->next;
	if (job->next != NULL)
		job->next->prev = job->prev;
	formers_free(job);
	free(job->id);
	free(job->payload);
	free(job);
}

struct job *job_find(const struct service *service, const char *id, uint32_t attempt)
{
	for (struct job *job = service->jobs; job != NULL; job = job->next)
		if (!job->dropped && strcmp(job->id, id) == 0 &&
		    (attempt == 0 ? job->stage != STAGE_FORMER : job->attempt == attempt))
			return job;
	return NULL;
}

struct job *job_new(struct service *service, const sluice_delivery_view *delivery)
{
	struct job *job = calloc(1, sizeof(*job));

	if (job == NULL)
		return NULL;
	job->service = service;
	job->starter_fd = job->watch_fd = -1;
	job->attempt = delivery->attempt;
	job->token = delivery->token;
	job->cancel = delivery->cancel;
	job->had_intent = delivery->intent;
	job->id = strdup(delivery->job);
	job->payload = malloc(delivery->body.len + 1);
	if (job->id == NULL || job->payload == NULL) {
		free(job->id);
		free(job->payload);
		free(job);
		return NULL;
	}
	if (delivery->body.len > 0)
		memcpy(job->payload, delivery->body.data, delivery->body.len);
	job->payload_len = delivery->body.len;
	job->next = service->jobs;
	if (job->next != NULL)
		job->next->prev = job;
	service->jobs = job;
	return job;
}

void job_again(struct job *job, uint64_t pause_ms)
{
	job->again = true;
	job->retry_ms = service_now_ms() + pause_ms;
}

/* What could not be done now, for want of room here or at the broker, is done again; so is the log's line. */
void job_again_later(struct job *job)
{
	job_again(job, (uint64_t)RETRY_MS << job->retries);
	if (job->retries < RETRY_DOUBLINGS_MAX)
		job->retries++;
}

/* IO: the spool has no room, or is another one now, or not mounted: what is not in that says nothing, and what is made in it is not found again. */
static int make_dir(struct job *job)
{
	if (0 != attempt_spool_check(job->service->spool, job->service->spool_id))
		return SLUICE_E_IO;
	return attempt_dir(job->service->spool, job->id, job->attempt, job->life, true, job->dir);
}

void job_no_spool(struct job *job)
{
	service_log(job->service, SLUICE_LOG_ERROR, "local.spool", job,
		    "its spool has no room, or is not there; it is tried again");
	job_again_later(job);
}

/* ---- reports ---- */

static void call_ended(struct job *job)
{
	job->calls--;
	if (job->dropped)
		job_free(job);
}

static void on_final(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	int code = sluice_reply_code(reply);

	(void)client;
	if (code != 0 && code != SLUICE_E_CLOSED)
		service_log(job->service, SLUICE_LOG_WARN, "local.report_refused", job,
			    sluice_reply_text(reply));
	if (code == 0 && sluice_reply_disposition(reply) != SLUICE_QUARANTINED)
		sweep_reported(job->dir);
	/* Refused for now; or under the token of a lease that is gone, while there is another. */
	if (sluice_error_retriable(code) || (code != 0 && job->asked != job->token)) {
		job->stage = STAGE_INTENT; /* its files say it once more */
		job_again_later(job);
	} else {
		job->dropped = true;
	}
	call_ended(job);
}

static void on_progress(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	int code = sluice_reply_code(reply);

	(void)client;
	if (code != 0 && code != SLUICE_E_CLOSED)
		service_log(job->service, SLUICE_LOG_WARN, "local.report_refused", job,
			    sluice_reply_text(reply));
	if (sluice_error_retriable(code) && job->stage == STAGE_RUNNING) {
		job->stage = STAGE_SPAWNED;
		job_again_later(job);
	}
	call_ended(job);
}

static void report(struct job *job, const char *state, const char *ref, const char *evidence, int exit_code,
		   sluice_done_fn *done)
{
	sluice_job_report_spec spec = {.job = job->id,
				       .attempt = job->attempt,
				       .source = job->service->source,
				       .state = state,
				       .token = job->token,
				       .scheduler_ref = ref,
				       .evidence = evidence,
				       .exit_code = exit_code};
	sluice_call call = {.deadline_ms = -1, .done = done, .user = job};

	job->calls++;
	if (sluice_job_report(job->service->client, &spec, &call, NULL) != 0)
		call_ended(
			job); /* the client is closing: the lease is orphaned and the next holder reports */
}

static void report_final(struct job *job, const char *state, const char *evidence, int exit_code)
{
	job->stage = STAGE_ENDED;
	job->asked = job->token;
	report(job, state, NULL, evidence, exit_code, on_final);
}

static void report_end(struct job *job, const struct attempt_view *view)
{
	/* Its mark of the cancel may have had no room. */
	bool cancelled = view->cancelled || job->cancel;
	char evidence[256];

	if (job->stage == STAGE_ENDED || job->dropped)
		return;
	window_pause(job, WINDOW_RECORD, "record");
	switch (view->end) {
	case END_EXIT:
		(void)snprintf(evidence, sizeof(evidence), "its process ended%s",
			       cancelled ? ", cancel was asked for" : "");
		report_final(job,
			     view->value == 0 ? "COMPLETE"
			     : cancelled      ? "CANCELED"
					      : "FAILED",
			     evidence, view->value);
		return;
	case END_SIGNAL:
		(void)snprintf(evidence, sizeof(evidence), "signal %d (%s)%s", view->value,
			       strsignal(view->value), cancelled ? ", cancel was asked for" : "");
		report_final(job, cancelled ? "CANCELED" : "FAILED", evidence, 128 + view->value);
		return;
	case END_NOEXEC:
		(void)snprintf(evidence, sizeof(evidence), "the program could not be started: %s",
			       strerror(view->value));
		report_final(job, "FAILED", evidence, 127);
		return;
	case END_TIMEOUT:
		(void)snprintf(evidence, sizeof(evidence), "ended by its timeout of %d s", view->value);
		report_final(job, "FAILED", evidence, 124);
		return;
	case END_OUTPUT:
		(void)snprintf(evidence, sizeof(evidence), "ended by its output of more than %d KiB",
			       view->value);
		report_final(job, "FAILED", evidence, 124);
		return;
	case END_NEVER:
		report_final(job, cancelled ? "CANCELED" : "FAILED", "its process was never started", 0);
		return;
	}
}

/* ---- watching ---- */

static int watch_add(struct job *job, int fd, bool starter)
{
	struct epoll_event event = {.events = EPOLLIN,
				    .data.u64 = (uint64_t)(uintptr_t)job | (starter ? 1u : 0u)};

	return epoll_ctl(job->service->epoll_fd, EPOLL_CTL_ADD, fd, &event);
}

static void watch(struct job *job, const struct attempt_view *view)
{
	pid_t pid = view->shepherd_lives ? view->shepherd : view->pid;

	if (job->watch_fd >= 0)
		return;
	job->watch_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (job->watch_fd >= 0 && watch_add(job, job->watch_fd, false) == 0)
		return;
	/* It ended between the look and now: look again with the next round. */
	if (job->watch_fd >= 0)
		(void)close(job->watch_fd);
	job->watch_fd = -1;
}

static void record_running(struct job *job, const struct attempt_view *view)
{
	char ref[64];

	if (job->stage == STAGE_RUNNING)
		return;
	window_pause(job, WINDOW_START, "start");
	job->stage = STAGE_RUNNING;
	(void)snprintf(ref, sizeof(ref), "pid %d", (int)view->pid);
	report(job, "ACTIVE", ref, "its process has started", 0, on_progress);
}

static void end_softly(struct job *job)
{
	bool running = job->stage == STAGE_RUNNING;

	/* One that is being started is signalled when it runs: its time to end by itself begins then. */
	if (running && job->kill_ms == 0)
		job->kill_ms = service_now_ms();
	if (attempt_cancel(job->dir, running ? SIGTERM : 0) != 0)
		service_log(job->service, SLUICE_LOG_ERROR, "local.cancel", job,
			    "the mark of its cancel could not be written, or its process not be signalled");
}

/* ---- spawning ---- */

static int spawn(struct job *job)
{
	static char fd_text[] = "3";
	char *argv[] = {job->service->shepherd, job->dir, fd_text, NULL};
	posix_spawn_file_actions_t actions;
	int pipe_fds[2], rc;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK) != 0)
		return errno;
	/* The pipe is 3 and nothing is open above it: inside the broker LMDB's descriptor would be inherited. */
	rc = posix_spawn_file_actions_init(&actions);
	if (rc == 0)
		rc = posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 3);
	if (rc == 0)
		rc = posix_spawn_file_actions_addclosefrom_np(&actions, 4);
	if (rc == 0)
		rc = posix_spawn(&pid, job->service->shepherd, &actions, NULL, argv, environ);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)close(pipe_fds[1]);
	if (rc != 0) {
		(void)close(pipe_fds[0]);
		return rc;
	}
	/* It leaves for a session of its own at once; its first process is reaped in the loop. */
	service_child(job->service, pid);
	job->starter_fd = pipe_fds[0];
	job->stage = STAGE_SPAWNED;
	if (watch_add(job, job->starter_fd, true) != 0) {
		(void)close(job->starter_fd);
		job->starter_fd = -1;
	}
	return 0;
}

/* Before an attempt that has not started is reported as over: the shepherd of a scheduler that died may be
 * about to start it, so the mark is taken away from it. False: it has started, or the mark cannot be written;
 * it is looked at again. */
static bool never_starts(struct job *job)
{
	int rc = attempt_forbid(job->dir);

	if (rc != 0 && rc != SLUICE_E_EXISTS) {
		service_log(job->service, SLUICE_LOG_ERROR, "local.spool", job,
			    "its start mark cannot be written; it is tried again");
		job_again_later(job);
	}
	return rc == 0;
}

static void start(struct job *job)
{
	struct payload payload;
	char why[256];
	int rc;

	window_pause(job, WINDOW_INTENT, "intent");
	if (job->cancel) {
		if (attempt_cancel(job->dir, 0) == 0 && never_starts(job))
			report_final(job, "CANCELED",
				     "cancelled after the intent, before its process was started", 0);
		return;
	}
	rc = payload_parse(job->payload, job->payload_len, &payload, why, sizeof(why));
	if (rc != 0) {
		report_final(job, "FAILED", why, 0);
		return;
	}
	payload_free(&payload);
	rc = attempt_write(job->dir, "job.json", job->payload, job->payload_len);
	if (rc == 0)
		rc = spawn(job);
	if (rc != 0) {
		(void)snprintf(why, sizeof(why), "the shepherd could not be started: %s",
			       rc > 0 ? strerror(rc) : sluice_error_text(rc));
		if (never_starts(job))
			report_final(job, "FAILED", why, 0);
	}
}

/* ---- after the intent: look, then act ---- */

static void reconcile(struct job *job)
{
	struct attempt_view view;
	char evidence[256];

	if (job->dropped || job->stage == STAGE_ENDED || job->stage == STAGE_FORMER)
		return;
	if (attempt_look(job->dir, &view) != 0) {
		service_log(job->service, SLUICE_LOG_ERROR, "local.spool", job,
			    "its files cannot be read; it is looked at again");
		job_again_later(job);
		return;
	}
	switch (view.state) {
	case ATTEMPT_NOT_STARTED:
		if (job->starter_fd >= 0)
			return;
		if (make_dir(job) != 0)
			job_no_spool(job);
		else if (job->stage == STAGE_RUNNING)
			report_final(job, "FAILED", "lost: it was started, and its files are gone", 0);
		else
			start(job); /* nobody took the mark, and only one ever can */
		return;
	case ATTEMPT_RUNNING:
		record_running(job, &view);
		watch(job, &view);
		if (job->cancel)
			end_softly(job);
		return;
	case ATTEMPT_ENDED:
		report_end(job, &view);
		return;
	case ATTEMPT_LOST:
		(void)snprintf(evidence, sizeof(evidence), "lost: it was started, its process is gone and %s",
			       view.fault != NULL ? view.fault : "nobody saw how it ended");
		report_final(job, "FAILED", evidence, 0);
		return;
	}
}

void job_starter_said(struct job *job)
{
	char text[32];
	ssize_t got = read(job->starter_fd, text, sizeof(text));

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	(void)close(job->starter_fd); /* said all it has to say, or died */
	job->starter_fd = -1;
	if ((got <= 0 || text[0] == 'f') && job->stage == STAGE_SPAWNED) {
		struct attempt_view view;

		/* Died before it said anything. If the mark is not there it is tried again by the next look;
		 * do not loop. */
		if (attempt_look(job->dir, &view) == 0 && view.state == ATTEMPT_NOT_STARTED) {
			if (never_starts(job))
				report_final(job, "FAILED", "the shepherd ended before it started anything",
					     0);
			return;
		}
	}
	reconcile(job);
}

void job_watch_ended(struct job *job)
{
	(void)close(job->watch_fd);
	job->watch_fd = -1;
	reconcile(job);
}

/* ---- intent ---- */

static void on_intent(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	int code = sluice_reply_code(reply);

	(void)client;
	if (job->dropped || job->stage != STAGE_CLAIMED) {
		call_ended(job); /* it came again meanwhile, under another token, with its intent */
		return;
	}
	if (code == 0) {
		job->stage = STAGE_INTENT;
		reconcile(job);
	} else if (job->asked != job->token) {
		job_again_later(job); /* the lease that it was asked under is gone, and there is another */
	} else if (sluice_error_retriable(code)) {
		service_log(job->service, SLUICE_LOG_WARN, "local.intent_refused", job,
			    sluice_reply_text(reply));
		job_again_later(job);
	} else {
		if (code != SLUICE_E_CANCELLED && code != SLUICE_E_CLOSED)
			service_log(job->service, SLUICE_LOG_WARN, "local.intent_refused", job,
				    sluice_reply_text(reply));
		job->dropped = true; /* cancelled before, or another's now: nothing was started */
		(void)rmdir(job->dir);
	}
	call_ended(job);
}

static void ask_intent(struct job *job)
{
	char tag[ATTEMPT_TAG_MAX];
	sluice_call call = {.deadline_ms = -1, .done = on_intent, .user = job};

	attempt_tag(job->id, job->attempt, job->life, tag);
	job->asked = job->token;
	job->calls++;
	if (sluice_job_intent(job->service->client, job->id, job->token, job->attempt, tag, &call, NULL) !=
	    0) {
		job->dropped = true;
		call_ended(job);
	}
}

/* From the claim to the intent, or to a look at what an earlier holder's came to. */
static void begin(struct job *job)
{
	if (make_dir(job) != 0) {
		job_no_spool(job);
	} else if (job->had_intent) {
		job->stage = STAGE_INTENT;
		reconcile(job);
	} else if (!former_wait(job)) {
		ask_intent(job);
	}
}

/* Ours already, under an older token (a new session took it over). False: it is not, or not any more; another one's intent may have been
 * recorded meanwhile. */
static bool take_again(struct job *job, const sluice_delivery_view *delivery)
{
	char tag[ATTEMPT_TAG_MAX];

	attempt_tag(job->id, job->attempt, job->life, tag);
	if (job->stage == STAGE_FORMER || (delivery->intent && strcmp(delivery->tag, tag) != 0)) {
		job->dropped = true;
		return false;
	}
	job->token = delivery->token;
	job->cancel = job->cancel || delivery->cancel;
	if (delivery->intent && job->stage == STAGE_CLAIMED)
		job->stage = STAGE_INTENT;
	/* Without an intent nothing is started: the answer to the one under way asks again under the new token. */
	if (job->stage != STAGE_CLAIMED)
		reconcile(job);
	return true;
}

void job_taken(struct service *service, const sluice_delivery_view *delivery)
{
	struct job *job = job_find(service, delivery->job, delivery->attempt);

	if (job != NULL && take_again(job, delivery))
		return;
	job = job_new(service, delivery);
	if (job != NULL && delivery->intent &&
	    (attempt_life_of(delivery->tag, delivery->job, delivery->attempt, job->life) != 0 ||
	     !attempt_life_is_of(job->life, service->spool_id))) {
		/* Nothing here tells what became of it, and to start it could be the second time. */
		service_log(
			service, SLUICE_LOG_ERROR, "local.foreign_intent", job,
			"its intent is another scheduler's, or of another spool; it stays leased and is left to a person");
		job->dropped = true;
		return;
	}
	if (job == NULL || (!delivery->intent && attempt_life(service->spool_id, job->life) != 0)) {
		service_log(service, SLUICE_LOG_ERROR, "local.memory", job,
			    "no memory for it; its lease stays and it is taken over by the next instance");
		if (job != NULL)
			job_free(job);
		return;
	}
	begin(job);
}

/* ---- cancel, lost leases, time ---- */

void job_cancel(struct service *service, const char *id, sluice_token token)
{
	struct job *job = job_find(service, id, 0);

	if (job == NULL || (token != 0 && job->token != token))
		return;
	job->cancel = true;
	if (job->stage == STAGE_RUNNING || job->stage == STAGE_SPAWNED)
		end_softly(job);
}

void job_lease_lost(struct service *service, const char *id, sluice_token token)
{
	struct job *job = job_find(service, id, 0);

	if (job == NULL || job->token != token || job->stage == STAGE_ENDED)
		return;
	service_log(service, SLUICE_LOG_INFO, "local.lease_lost", job, "the lease is gone; it is let go");
	former_let_go(job);
}

void jobs_due(struct service *service, uint64_t now_ms)
{
	struct job *next;

	for (struct job *job = service->jobs; job != NULL; job = next) {
		next = job->next;
		if (job->dropped) {
			job_free(job);
			continue;
		}
		if (job->kill_ms != 0 && !job->killed_hard && job->kill_ms + KILL_GRACE_MS <= now_ms &&
		    job->stage == STAGE_RUNNING) {
			job->killed_hard = true;
			(void)attempt_cancel(job->dir, SIGKILL);
		}
		/* Nothing tells of it: its watch could not be set; or something is to be done again. */
		if (job->calls > 0 || job->retry_ms > now_ms || job->stage == STAGE_ENDED ||
		    (!job->again && (job->watch_fd >= 0 || job->starter_fd >= 0)))
			continue;
		job->again = false;
		if (job->stage == STAGE_FORMER)
			former_go_on(job);
		else if (job->stage == STAGE_CLAIMED)
			begin(job);
		else
			reconcile(job);
	}
}
