/* SPDX-License-Identifier: Apache-2.0
 *
 * One job from claim to report. The order matters: durable INTENT, then the start (the job's
 * process takes the start mark itself), then the record, then the end. If the scheduler dies
 * anywhere in between, job_handle_delivery() of the next holder inspects the attempt's files first.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attempt/payload.h"
#include "attempt/proc.h"
#include "stale.h"
#include "job.h"
#include "job_kill.h"
#include "job_spawn.h"
#include "job_table.h"
#include "report.h"

enum { CHECK_MS = 1000, ABSENT_CHECKS = 3 };

/* IO: the spool has no room, is not mounted, or is another one now. A missing file means nothing
 * there, and a new one would not be found again. */
static int make_dir(struct job *job)
{
	int rc = attempt_spool_check(job->service->settings.spool, job->service->spool_id);

	return rc != 0 ? rc
		       : attempt_dir(job->service->settings.spool, job->id, job->attempt, job->life,
				     true, job->dir);
}

/* ---- starting ---- */

/* Takes the start mark before an attempt that has not started is reported as over: the shepherd of
 * a scheduler that died may be about to start it. False: it has started, or the mark cannot be
 * written; the attempt is inspected again. */
static bool forbid_start(struct job *job)
{
	int rc = attempt_forbid(job->dir);

	if (rc != 0 && rc != SLUICE_E_EXISTS)
		report_spool_failure(job, NULL);
	return rc == 0;
}

/* The machine cannot start it now, which is not the job's failure: it waits, and that is
 * reported. */
static void start_failed(struct job *job, const char *step, int error)
{
	char text[ATTEMPT_ERROR_BYTES];

	(void)snprintf(text, sizeof(text), "not started yet, retrying: cannot %s: %s (%s)", step,
		       strerror(error), attempt_errno_name(error));
	service_log(job->service, SLUICE_LOG_ERROR, "local.start", job, text);
	report_waiting(job, text);
	job_again_later(job);
}

static void start(struct job *job)
{
	char why[256], tag[ATTEMPT_TAG_MAX];
	struct payload payload;
	const char *step;
	int rc;

	window_pause(job, WINDOW_INTENT, "intent");
	if (job->cancel) {
		if (attempt_cancel(job->dir, 0) == 0 && forbid_start(job))
			report_final(job, ROLE_CANCELED,
				     "cancelled after the intent, before its process was started");
		return;
	}
	rc = payload_parse(job->payload, job->payload_len, &payload, why, sizeof(why));
	if (rc == SLUICE_E_NOMEM) {
		start_failed(job, "read its payload", ENOMEM);
		return;
	}
	if (rc != 0) {
		if (forbid_start(job))
			report_final(job, ROLE_FAILED, why);
		return;
	}
	payload_free(&payload);
	attempt_tag(job->id, job->attempt, job->life, tag);
	attempt_write_tag(job->dir, tag);
	if (attempt_write(job->dir, "job.json", job->payload, job->payload_len) != 0) {
		report_spool_failure(job, NULL);
		return;
	}
	rc = job_spawn(job, &step);
	if (rc != 0)
		start_failed(job, step, rc);
}

/* ---- after the intent: inspect, then act ---- */

static int64_t timeout_of(const struct job *job)
{
	struct payload payload;
	int64_t timeout_ms;
	char why[256];

	if (payload_parse(job->payload, job->payload_len, &payload, why, sizeof(why)) != 0)
		return 0;
	timeout_ms = payload.timeout_ms;
	payload_free(&payload);
	return timeout_ms;
}

/* The process runs and its shepherd was killed. The process is not ended: its work may be of use,
 * although its exit code will not be known. The scheduler enforces its timeout. */
static void handle_shepherd_loss(struct job *job, const struct attempt_view *view)
{
	static const char text[] = "its shepherd was killed: its process continues, but its exit "
				   "status will not be known, and its output is no longer limited";
	const int64_t timeout_ms = timeout_of(job),
		      left_ms = timeout_ms - (int64_t)process_age_ms(view->pid);

	if (!job->shepherd_lost)
		service_log(job->service, SLUICE_LOG_ERROR, "local.shepherd", job, text);
	job->shepherd_lost = true;
	report_waiting(job, text);
	if (timeout_ms == 0)
		return;
	if (left_ms > 0) {
		job_again(job,
			  job->watch_fd >= 0 || left_ms < CHECK_MS ? (uint64_t)left_ms : CHECK_MS);
		return;
	}
	job->timed_out = true;
	if (job->kill_ms == 0 && attempt_signal(job->dir, SIGTERM) != 0)
		service_log(job->service, SLUICE_LOG_ERROR, "local.cancel", job, attempt_error());
	if (job->kill_ms == 0)
		job->kill_ms = service_now_ms();
}

/* There is neither process nor status: the shepherd was killed. */
static void report_lost(struct job *job, const struct attempt_view *view)
{
	char evidence[700], names[LEFTOVER_NAMES_BYTES];
	bool cancelled = view->cancelled || job->cancel;
	bool leave = job->service->settings.leave_leftovers;
	size_t count, len;

	count = job_leftovers(job, job->attempt, job->life, names);
	len = (size_t)snprintf(evidence, sizeof(evidence),
			       "lost: it was started, %sits process is gone and %s",
			       job->shepherd_lost ? "its shepherd was killed, " : "",
			       view->fault != NULL ? view->fault : "its exit status is not known");
	if (job->timed_out)
		len += (size_t)
			snprintf(evidence + len, sizeof(evidence) - len,
				 "; ended by its timeout of %lld ms (timeout_ms of its payload)",
				 (long long)timeout_of(job));
	if (cancelled)
		len += (size_t)snprintf(evidence + len, sizeof(evidence) - len,
					", cancel was requested");
	if (count > 0)
		(void)snprintf(evidence + len, sizeof(evidence) - len,
			       "; %zu of its processes %s: %s", count,
			       leave ? "live on" : "outlived it and were ended", names);
	report_final(job, cancelled ? ROLE_CANCELED : ROLE_FAILED, evidence);
}

/* A job may delete its own start mark, also before an inspection found it. A start would then be
 * the second one. */
static bool has_started(const struct job *job)
{
	struct leftover left[LEFTOVERS_MAX];
	char mark[ATTEMPT_TAG_MAX + 16] = "SLUICE_TAG=";

	if (job->stage == STAGE_RUNNING || job->started)
		return true;
	/* What an earlier holder's shepherd reported is not known. One that is about to take the
	 * mark is waited for, too. */
	attempt_tag(job->id, job->attempt, job->life, mark + strlen(mark));
	return job->had_intent && job->absent < ABSENT_CHECKS && leftovers_marked(mark, left) > 0;
}

/* Directory or mark are missing. The shepherd restores them, unless it was killed. */
static void handle_absent(struct job *job, struct attempt_view *view)
{
	if (job->absent++ < ABSENT_CHECKS) {
		if (view->no_directory)
			report_spool_failure(job, attempt_error());
		else
			job_again_later(job);
		return;
	}
	if (view->fault == NULL)
		view->fault = "its files are gone";
	report_lost(job, view);
}

static void job_reconcile(struct job *job)
{
	struct attempt_view view;

	if (job->dropped || job->stage == STAGE_ENDED || job->stage == STAGE_STALE)
		return;
	if (attempt_inspect(job->dir, &view) != 0) {
		report_spool_failure(job, NULL);
		return;
	}
	switch (view.state) {
	case ATTEMPT_NOT_STARTED:
		if (job->starter_fd >= 0)
			return;
		if (make_dir(job) != 0)
			report_spool_failure(job, NULL);
		else if (has_started(job))
			handle_absent(job, &view);
		else
			start(job); /* no process took the mark, and only one ever can */
		return;
	case ATTEMPT_RUNNING:
		job->absent = 0;
		report_running(job, &view);
		job_watch(job, &view);
		if (view.process_lives && !view.shepherd_lives)
			handle_shepherd_loss(job, &view);
		if (job->cancel)
			job_terminate(job);
		return;
	case ATTEMPT_ENDED:
		report_end(job, &view);
		return;
	case ATTEMPT_LOST:
		if (view.no_directory)
			handle_absent(job, &view);
		else
			report_lost(job, &view);
		return;
	}
}

/* The shepherd ended and the attempt has not started. It reports the cause as "failed ERRNO
 * TEXT". */
static void starter_failed(struct job *job, char *text)
{
	char line[ATTEMPT_ERROR_BYTES + 32], *at = NULL, *end;
	long error = strncmp(text, "failed ", 7) == 0 ? strtol(text + 7, &at, 10) : 0;

	end = at != NULL ? strchr(at, '\n') : NULL;
	if (end != NULL)
		*end = 0;
	if (error != 0 && at != NULL && *at == ' ')
		(void)snprintf(line, sizeof(line), "not started yet, retrying: %s", at + 1);
	else
		(void)snprintf(line, sizeof(line),
			       "not started yet, retrying: the shepherd ended before it started "
			       "anything");
	service_log(job->service, SLUICE_LOG_ERROR, "local.start", job, line);
	report_waiting(job, line);
	job_again_later(job);
}

void job_handle_starter(struct job *job)
{
	char text[ATTEMPT_ERROR_BYTES] = "";
	ssize_t got = read(job->starter_fd, text, sizeof(text) - 1);
	struct attempt_view view;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	(void)close(job->starter_fd); /* it has reported everything, or died */
	job->starter_fd = -1;
	job->started = job->started || (got > 0 && (strncmp(text, "started\n", 8) == 0 ||
						    strncmp(text, "taken\n", 6) == 0));
	if ((got <= 0 || strncmp(text, "failed ", 7) == 0) && job->stage == STAGE_SPAWNED &&
	    !job->dropped && attempt_inspect(job->dir, &view) == 0 &&
	    view.state == ATTEMPT_NOT_STARTED) {
		if (job->cancel)
			job_again(job, 0);
		else
			starter_failed(job, text);
		return;
	}
	job_reconcile(job);
}

void job_handle_exit(struct job *job)
{
	(void)close(job->watch_fd);
	job->watch_fd = -1;
	job_reconcile(job);
}

/* ---- intent ---- */

static void on_intent(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	int rc = sluice_reply_code(reply);

	(void)client;
	if (job->dropped || job->stage != STAGE_CLAIMED) {
		job_call_ended(job); /* delivered again meanwhile, with its intent */
		return;
	}
	if (rc == 0) {
		job->stage = STAGE_INTENT;
		job_reconcile(job);
	} else if (job->asked_token != job->token) {
		job_again_later(job); /* asked under a lease that another one replaced */
	} else if (sluice_error_retriable(rc)) {
		service_log(job->service, SLUICE_LOG_WARN, "local.intent_refused", job,
			    sluice_reply_text(reply));
		job_again_later(job);
	} else {
		if (rc != SLUICE_E_CANCELLED && rc != SLUICE_E_CLOSED)
			service_log(job->service, SLUICE_LOG_WARN, "local.intent_refused", job,
				    sluice_reply_text(reply));
		job->dropped = true; /* cancelled before, or another's now: nothing was started */
		(void)rmdir(job->dir);
	}
	job_call_ended(job);
}

static void ask_intent(struct job *job)
{
	char tag[ATTEMPT_TAG_MAX];
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_intent, .user = job);

	attempt_tag(job->id, job->attempt, job->life, tag);
	job->asked_token = job->token;
	job->calls++;
	if (sluice_job_intent(job->service->client, job->id, job->token, job->attempt, tag, &call,
			      NULL) != 0) {
		job->dropped = true;
		job_call_ended(job);
	}
}

/* From the claim to the intent; or to an inspection, after an earlier holder's intent. */
static void begin(struct job *job)
{
	if ((job->life[0] == 0 && attempt_life(job->service->spool_id, job->life) != 0) ||
	    make_dir(job) != 0) {
		report_spool_failure(job, NULL);
	} else if (job->had_intent) {
		job->stage = STAGE_INTENT;
		job_reconcile(job);
	} else if (!stale_wait(job)) {
		ask_intent(job);
	}
}

/* It is held already, under an older token (a new session took it over). False: it is not, or
 * not any more; another scheduler's intent may have been recorded meanwhile. */
static bool renew_lease(struct job *job, const sluice_delivery_view *delivery)
{
	char tag[ATTEMPT_TAG_MAX];

	attempt_tag(job->id, job->attempt, job->life, tag);
	if (job->stage == STAGE_STALE || (delivery->intent && strcmp(delivery->tag, tag) != 0)) {
		job->dropped = true;
		return false;
	}
	job->token = delivery->token;
	job->cancel = job->cancel || delivery->cancel;
	if (delivery->intent && job->stage == STAGE_CLAIMED)
		job->stage = STAGE_INTENT;
	/* Without an intent nothing is started: the answer to the one under way asks again under
	 * the new token. */
	if (job->stage != STAGE_CLAIMED)
		job_reconcile(job);
	return true;
}

void job_handle_delivery(struct service *service, const sluice_delivery_view *delivery)
{
	struct job *job = job_find(service, delivery->job, delivery->attempt);

	if (job != NULL && renew_lease(job, delivery))
		return;
	job = job_new(service, delivery);
	if (job != NULL && delivery->intent &&
	    (attempt_life_of(delivery->tag, delivery->job, delivery->attempt, job->life) != 0 ||
	     !attempt_life_is_of(job->life, service->spool_id))) {
		/* What became of it is not known here, and to start it could be the second time. */
		service_log(service, SLUICE_LOG_ERROR, "local.foreign_intent", job,
			    "its intent belongs to another scheduler or another spool; it "
			    "stays leased until an operator ends it");
		job->dropped = true;
		return;
	}
	if (job == NULL) {
		service_log(service, SLUICE_LOG_ERROR, "local.memory", job,
			    "no memory for it; its lease stays, and the next comparison finds it");
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
		job_terminate(job);
}

void job_lease_lost(struct service *service, const char *id, sluice_token token)
{
	struct job *job = job_find(service, id, 0);

	if (job == NULL || job->token != token || job->stage == STAGE_ENDED)
		return;
	service_log(service, SLUICE_LOG_INFO, "local.lease_lost", job,
		    "its lease has ended; the job is dropped");
	stale_release(job);
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
		job_kill_due(job, now_ms);
		/* A job without a watch is checked each time; others when their retry is due. */
		if (job->calls > 0 || job->retry_ms > now_ms || job->stage == STAGE_ENDED ||
		    (!job->retry && (job->watch_fd >= 0 || job->starter_fd >= 0)))
			continue;
		job->retry = false;
		if (job->stage == STAGE_STALE)
			stale_continue(job);
		else if (job->stage == STAGE_CLAIMED)
			begin(job);
		else
			job_reconcile(job);
	}
}
