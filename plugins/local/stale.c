/* SPDX-License-Identifier: Apache-2.0
 *
 * Stale attempts: a reset ended them in the broker's books, but they may still run here. Their
 * processes are ended, SIGTERM first, before the next attempt starts. They are found in three ways:
 * the lease of a held job was lost, and the broker shows a later attempt; the next attempt is
 * claimed; the sweep found one.
 *
 * The job's history says which attempts are its own, by the tags of its intents. It does not matter
 * which scheduler started them, or when, or what else is in the spool. If another holder took the
 * lease within the attempt, the process is that holder's: nothing is ended.
 *
 * Invariants: an attempt counts as over only when it can never start any more: there is a status,
 * or a start mark without a process, or the mark is taken away from it. The next attempt waits for
 * one that cannot be inspected or does not die. Signals go only to the group of a process that its
 * start mark names by boot, pid and start time.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attempt/attempt.h"
#include "stale.h"
#include "job_kill.h"
#include "job_table.h"
#include "report.h"

/* CHECKS_PER_TURN: each may sync some directories. *_LOGGED: after that many an error is logged. */
enum {
	CHECK_MS = 100,
	GRACE_MS = 2000,
	CHECKS_PER_TURN = 16,
	SIGNALS_LOGGED = 3,
	CHECKS_LOGGED = 50
};

struct stale_attempt {
	uint32_t attempt;
	char life[ATTEMPT_LIFE_BYTES];
	unsigned checks;      /* that found processes which outlived it */
	unsigned signals;     /* rounds: the first one SIGTERM, then SIGKILL */
	uint64_t signaled_ms; /* when the last one was */
};

static int add(struct job *job, uint32_t attempt, const char *life)
{
	struct stale_attempt *list = realloc(job->stale, (job->stale_count + 1) * sizeof(*list));

	if (list == NULL)
		return SLUICE_E_NOMEM;
	job->stale = list;
	list[job->stale_count] = (struct stale_attempt){.attempt = attempt};
	memcpy(list[job->stale_count++].life, life, ATTEMPT_LIFE_BYTES);
	return 0;
}

/* ---- ending ---- */

static void signal_round(struct job *job, struct stale_attempt *stale, const char *dir,
			 bool was_asked)
{
	uint64_t now_ms = service_now_ms();

	if (stale->signals > 0 && stale->signaled_ms + GRACE_MS > now_ms)
		return;
	if (stale->signals == 0)
		service_log(job->service, SLUICE_LOG_INFO, "local.stale_attempt", job,
			    "an earlier attempt of the job still runs after a reset: it is "
			    "ended");
	/* Many programs end at once at a second SIGTERM: one that had it gets the rest of its
	 * time. */
	if (stale->signals > 0 || !was_asked)
		(void)attempt_cancel(dir, stale->signals == 0 ? SIGTERM : SIGKILL);
	stale->signaled_ms = now_ms;
	if (++stale->signals == SIGNALS_LOGGED)
		service_log(job->service, SLUICE_LOG_ERROR, "local.stale_attempt_alive", job,
			    "an earlier attempt of the job does not end by SIGKILL, or its "
			    "status cannot be written; the next attempt waits");
}

/* 0: it is over for good. WRONG_STATE: it lives. IO: that is not known. */
static int end_one(struct job *job, struct stale_attempt *stale)
{
	char dir[ATTEMPT_PATH_MAX], names[LEFTOVER_NAMES_BYTES];
	struct attempt_view view;
	/* Made, for the mark: a scheduler that was stopped behind its intent makes it again
	 * itself. */
	int rc = attempt_dir(job->service->settings.spool, job->id, stale->attempt, stale->life,
			     true, dir);

	/* Something else is in its place: a shepherd that lives restores it soon. */
	if (rc == SLUICE_E_IO && attempt_errno() == ENOTDIR)
		rc = attempt_dir(job->service->settings.spool, job->id, stale->attempt, stale->life,
				 false, dir);
	if (rc == 0)
		rc = attempt_inspect(dir, &view);
	if (rc == 0 && view.state == ATTEMPT_NOT_STARTED) {
		rc = attempt_forbid(dir);
		if (rc == 0)
			return 0;
		if (rc == SLUICE_E_EXISTS)
			rc = attempt_inspect(dir, &view);
	}
	if (rc != 0)
		return SLUICE_E_IO;
	/* Without its shepherd, processes that left its group were not ended. */
	if (view.state == ATTEMPT_LOST && !job->service->settings.leave_leftovers &&
	    job_leftovers(job, stale->attempt, stale->life, names) > 0) {
		if (++stale->checks == CHECKS_LOGGED)
			service_log(job->service, SLUICE_LOG_ERROR, "local.stale_attempt_alive",
				    job,
				    "processes of an earlier attempt of the job do not end by "
				    "SIGKILL; the next attempt waits");
		return SLUICE_E_WRONG_STATE;
	}
	if (view.state == ATTEMPT_ENDED || view.state == ATTEMPT_LOST)
		return 0;
	if (view.state == ATTEMPT_RUNNING)
		signal_round(job, stale, dir, view.cancelled);
	return SLUICE_E_WRONG_STATE;
}

/* True: none is left. Otherwise jobs_due() calls again. */
static bool end_all(struct job *job)
{
	const struct service *service = job->service;
	bool unknown = attempt_spool_check(service->settings.spool, service->spool_id) != 0;
	size_t checked = 0;

	for (size_t i = 0; !unknown && i < job->stale_count && checked < CHECKS_PER_TURN;
	     checked++) {
		int rc = end_one(job, &job->stale[i]);

		if (rc == 0)
			job->stale[i] = job->stale[--job->stale_count];
		else
			i++;
		unknown = rc == SLUICE_E_IO;
	}
	if (job->stale_count == 0)
		return true;
	if (unknown)
		report_spool_failure(job, NULL);
	else
		job_again(job, CHECK_MS);
	return false;
}

/* ---- before the next attempt ---- */

static int find(struct job *job, const sluice_reply *reply)
{
	char life[ATTEMPT_LIFE_BYTES];
	sluice_job_history_row row = SLUICE_JOB_HISTORY_ROW();
	int rc = 0;

	stale_attempts_free(job);
	for (size_t i = 0; rc == 0 && sluice_reply_history(reply, i, &row); i++)
		if (strcmp(row.event, "intent") == 0 && row.attempt < job->attempt &&
		    attempt_life_of(row.evidence, job->id, row.attempt, life) == 0 &&
		    attempt_life_is_of(life, job->service->spool_id))
			rc = add(job, row.attempt, life);
	return rc;
}

static void on_history(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	int rc = sluice_reply_code(reply);

	(void)client;
	job->calls--;
	if (job->dropped || job->stage != STAGE_CLAIMED)
		return; /* jobs_due() frees it, or has gone on */
	if (rc == 0)
		rc = find(job, reply);
	/* A job that is forgotten gets no intent either. */
	if (rc == 0 || rc == SLUICE_E_NOT_FOUND) {
		job->stale_known = true;
		job_again(job, 0);
		return;
	}
	if (rc != SLUICE_E_CLOSED)
		service_log(job->service, SLUICE_LOG_WARN, "local.history_refused", job,
			    "the remains of the job's earlier attempts are not known; the "
			    "query is repeated");
	job_again_later(job);
}

bool stale_wait(struct job *job)
{
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_history, .user = job);

	if (job->attempt <= 1)
		return false;
	if (job->stale_known)
		return !end_all(job);
	job->calls++;
	if (sluice_job_history(job->service->client, job->id, &call, NULL) != 0) {
		job->calls--; /* the client is closing */
		job_again_later(job);
	}
	return true;
}

/* ---- of a held job, or found by the sweep ---- */

static void on_shown(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	int rc = sluice_reply_code(reply);
	sluice_job_info info = SLUICE_JOB_INFO();

	(void)client;
	job->calls--;
	if (job->dropped)
		return;
	if (sluice_error_retriable(rc)) {
		job_again_later(job);
		return;
	}
	job->stale_known = rc == 0 && sluice_reply_job(reply, 0, &info) &&
			   info.attempt > job->attempt && add(job, job->attempt, job->life) == 0;
	if (job->stale_known)
		job_again(job, 0);
	else
		job->dropped = true; /* another holder's; or the sweep meets it again */
}

void stale_continue(struct job *job)
{
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_shown, .user = job);

	if (job->stale_known) {
		job->dropped = end_all(job);
		return;
	}
	job->calls++;
	if (sluice_job_show(job->service->client, job->id, false, &call, NULL) != 0) {
		job->calls--;
		job->dropped = true;
	}
}

void stale_release(struct job *job)
{
	/* Until its intent it has started nothing; those before it are the next claim's, or the
	 * sweep's. */
	bool started_nothing = job->stage == STAGE_CLAIMED && !job->had_intent;

	job_unwatch(job);
	job->stage = STAGE_STALE;
	stale_attempts_free(job);
	job->stale_known = false;
	job->dropped = started_nothing;
	job_again(job, 0);
}

void stale_adopt(struct service *service, const char *id, uint32_t attempt, const char *life)
{
	sluice_delivery_view delivery = {.size = sizeof(delivery),
					 .kind = SLUICE_DELIVERY_JOB,
					 .job = id,
					 .attempt = attempt};
	struct job *job = job_find(service, id, attempt);

	if (job != NULL && job->stage == STAGE_STALE)
		return;
	if (job != NULL && strcmp(job->life, life) == 0) {
		stale_release(job);
		return;
	}
	job = job_new(service, &delivery);
	if (job == NULL)
		return; /* the next pass meets it again */
	memcpy(job->life, life, ATTEMPT_LIFE_BYTES);
	job->stage = STAGE_STALE;
	job->stale_known = add(job, attempt, life) == 0;
	job->dropped = !job->stale_known;
	job_again(job, 0);
}
