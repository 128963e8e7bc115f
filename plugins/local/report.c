/* SPDX-License-Identifier: Apache-2.0
 *
 * Reports of a job to the broker: that it runs, that it waits and for what, and how it ended. Names
 * of states are those of its lifecycle.
 *
 * Invariants: an end is kept, and reported again, until the broker has applied it or refuses it for
 * good; one that was put into quarantine is not applied. A text never costs an end: a report that
 * is refused because of its text is sent again without it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "attempt/payload.h"
#include "job_table.h"
#include "lifecycle_cache.h"
#include "report.h"

enum { EVIDENCE_BYTES = 900, QUARANTINE_PAUSE_MS = 1000, QUARANTINE_DOUBLINGS_MAX = 9 };

/* Bytes of one well-formed UTF-8 character; 0: there is none. */
static size_t character(const unsigned char *at)
{
	size_t more = at[0] < 0x80		      ? 0
		      : at[0] >= 0xc2 && at[0] < 0xe0 ? 1
		      : at[0] >= 0xe0 && at[0] < 0xf0 ? 2
		      : at[0] >= 0xf0 && at[0] < 0xf5 ? 3
						      : 4;

	if (more == 4 || (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
	    (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
		return 0;
	for (size_t i = 1; i <= more; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	return more + 1;
}

/* Fixed buffers cut characters in two, and names of programs may hold any byte. */
static void make_utf8(char *text)
{
	for (char *at = text; *at != 0;) {
		size_t bytes = character((unsigned char *)at);

		if (bytes == 0)
			*at = '?';
		at += bytes == 0 ? 1 : bytes;
	}
}

static uint64_t wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* False: no answer will come, because the client is closing; the next holder reports. */
static bool send(struct job *job, sluice_job_report_spec *spec, sluice_done_fn *done)
{
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = done, .user = job);
	char evidence[EVIDENCE_BYTES];

	if (spec->evidence != NULL) {
		(void)snprintf(evidence, sizeof(evidence), "%s",
			       job->no_evidence ? "" : spec->evidence);
		make_utf8(evidence);
		spec->evidence = evidence;
	}
	spec->job = job->id;
	spec->attempt = job->attempt;
	spec->source = job->service->source;
	spec->token = job->token;
	job->calls++;
	if (sluice_job_report(job->service->client, spec, &call, NULL) == 0)
		return true;
	job_call_ended(job);
	return false;
}

static void set_state(struct job *job, const char *state)
{
	char *copy = strdup(state);

	if (copy == NULL)
		return;
	free(job->state);
	job->state = copy;
}

/* ---- it runs, it waits ---- */

static void on_progress(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	int rc = sluice_reply_code(reply);

	(void)client;
	if (rc != 0 && rc != SLUICE_E_CLOSED)
		service_log(job->service, SLUICE_LOG_WARN, "local.report_refused", job,
			    sluice_reply_text(reply));
	if (sluice_error_retriable(rc) && job->stage == STAGE_RUNNING) {
		job->stage = STAGE_SPAWNED;
		job_again_later(job);
	}
	job_call_ended(job);
}

static void send_active(struct job *job, const char *ref, uint64_t started_ms)
{
	sluice_job_report_spec spec =
		SLUICE_JOB_REPORT_SPEC(.state = lifecycle_state(job_lifecycle(job), ROLE_ACTIVE),
				       .scheduler_ref = ref, .evidence = "its process has started",
				       .evidence_class = SLUICE_EVIDENCE_ACTIVE,
				       .started_time_ms = started_ms, .seen_time_ms = started_ms);

	(void)send(job, &spec, on_progress);
	set_state(job, lifecycle_state(job_lifecycle(job), ROLE_ACTIVE));
}

void report_running(struct job *job, const struct attempt_view *view)
{
	char ref[64];

	if (job->stage == STAGE_RUNNING)
		return;
	window_pause(job, WINDOW_START, "start");
	job->stage = STAGE_RUNNING;
	job->retries = 0;
	(void)snprintf(ref, sizeof(ref), "pid %d", (int)view->pid);
	send_active(job, ref, view->started_ms);
}

static void on_waiting(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;

	if (sluice_reply_code(reply) == 0 &&
	    sluice_reply_disposition(reply) != SLUICE_DISPOSITION_QUARANTINED)
		job->waiting_for = job->waiting_asked;
	job->waiting_asked = 0;
	on_progress(client, reply, user);
}

/* One report at a time: another cause is reported after the answer, by the next try of the same
 * job. */
void report_waiting(struct job *job, const char *cause)
{
	sluice_job_report_spec spec =
		SLUICE_JOB_REPORT_SPEC(.evidence = cause, .seen_time_ms = wall_ms());
	uint32_t hash = 2166136261u;

	for (const char *at = cause; *at != 0; at++)
		hash = (hash ^ (unsigned char)*at) * 16777619u;
	if (job->stage == STAGE_STALE || job->dropped || hash == job->waiting_for ||
	    job->waiting_asked != 0)
		return;
	job->waiting_asked = hash != 0 ? hash : 1;
	if (!send(job, &spec, on_waiting))
		job->waiting_asked = 0;
}

void report_spool_failure(struct job *job, const char *cause)
{
	char text[ATTEMPT_ERROR_BYTES + 64];

	(void)snprintf(text, sizeof(text), "cannot %s; retrying",
		       cause != NULL ? cause : attempt_error());
	service_log(job->service, SLUICE_LOG_ERROR, "local.spool", job, text);
	report_waiting(job, text);
	job_again_later(job);
}

/* ---- it ended ---- */

static void on_lifecycle(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	struct cached_lifecycle *cached;
	char why[512] = "";
	int rc = sluice_reply_code(reply);

	(void)client;
	if (rc == 0)
		rc = lifecycle_cache_put(job->service, reply, false, &cached, why, sizeof(why));
	if (rc == 0)
		job->lifecycle = cached;
	else if (rc == SLUICE_E_INVAL)
		service_log(job->service, SLUICE_LOG_ERROR, "local.lifecycle", job, why);
	job_call_ended(job);
}

/* After a quarantine: whose the job is now, and what its lifecycle is. */
static void on_shown(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_lifecycle, .user = job);
	int rc = sluice_reply_code(reply);
	sluice_job_info info = SLUICE_JOB_INFO();

	if (rc == SLUICE_E_NOT_FOUND) {
		job->dropped = true;
	} else if (rc == 0 && sluice_reply_job(reply, 0, &info)) {
		job->dropped =
			info.terminal || info.attempt != job->attempt || info.token != job->token;
		if (!job->dropped) {
			set_state(job, info.state);
			job->calls++;
			if (sluice_object_show(client, SLUICE_OBJECT_LIFECYCLE, info.lifecycle,
					       &call, NULL) != 0)
				job->calls--;
		}
	}
	if (job->dropped)
		service_log(job->service, SLUICE_LOG_WARN, "local.report_late", job,
			    "the report of its end was quarantined: the job has ended, has "
			    "another holder, or is at a later attempt");
	job_call_ended(job);
}

static void handle_quarantine(struct job *job, const sluice_reply *reply)
{
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_shown, .user = job);
	unsigned doublings =
		job->retries < QUARANTINE_DOUBLINGS_MAX ? job->retries : QUARANTINE_DOUBLINGS_MAX;
	char text[400];

	(void)snprintf(text, sizeof(text),
		       "the report of its end was quarantined: %.300s; it is kept and "
		       "sent again",
		       sluice_reply_text(reply));
	service_log(job->service, SLUICE_LOG_ERROR, "local.report_quarantined", job, text);
	job->retries++;
	job->stage = STAGE_INTENT; /* its files are inspected once more */
	job_again(job, (uint64_t)QUARANTINE_PAUSE_MS << doublings);
	job->calls++;
	if (sluice_job_show(job->service->client, job->id, false, &call, NULL) != 0)
		job->calls--;
}

/* Refused for good: the lease is gone, or there is nothing to report on. */
static bool is_settled(int code)
{
	return code == SLUICE_E_STALE_TOKEN || code == SLUICE_E_STALE_ATTEMPT ||
	       code == SLUICE_E_NOT_FOUND || code == SLUICE_E_SESSION_GONE ||
	       code == SLUICE_E_WRONG_STATE || code == SLUICE_E_CLOSED;
}

static void on_final(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct job *job = user;
	int rc = sluice_reply_code(reply);

	(void)client;
	if (rc != 0 && rc != SLUICE_E_CLOSED)
		service_log(job->service, SLUICE_LOG_WARN, "local.report_refused", job,
			    sluice_reply_text(reply));
	if (rc == 0 && sluice_reply_disposition(reply) != SLUICE_DISPOSITION_QUARANTINED) {
		attempt_mark_reported(job->dir);
		job->dropped = true;
	} else if (rc == 0 && job->asked_token == job->token) {
		handle_quarantine(job, reply);
	} else if (is_settled(rc) && job->asked_token == job->token) {
		job->dropped = true;
	} else {
		/* Refused for now; or under the token of a lease that is gone, while there is
		 * another. */
		job->no_evidence = job->no_evidence || rc == SLUICE_E_INVAL || rc == SLUICE_E_LIMIT;
		job->stage = STAGE_INTENT;
		job_again_later(job);
	}
	job_call_ended(job);
}

/* What the status file says of the end. Times are the shepherd's: an end that is reported after an
 * outage has its own. */
static void end_fill(sluice_job_report_spec *spec, const struct attempt_view *view)
{
	spec->exited = view->end == END_EXIT;
	spec->exit_code = spec->exited ? view->value : 0;
	spec->signal = view->end == END_SIGNAL ? (uint32_t)view->value : 0;
	spec->started_time_ms = view->started_ms;
	spec->ended_time_ms = view->ended_ms;
	spec->memory_peak_bytes = view->memory_peak_bytes;
	spec->seen_time_ms = view->ended_ms;
}

static void send_final(struct job *job, enum role role, const char *evidence,
		       const struct attempt_view *view)
{
	static const sluice_evidence_class classes[ROLES] = {[ROLE_ACTIVE] = SLUICE_EVIDENCE_ACTIVE,
							     [ROLE_COMPLETE] = SLUICE_EVIDENCE_OK,
							     [ROLE_FAILED] = SLUICE_EVIDENCE_FAIL,
							     [ROLE_CANCELED] =
								     SLUICE_EVIDENCE_CANCEL};
	const struct lifecycle *lifecycle = job_lifecycle(job);
	sluice_job_report_spec spec =
		SLUICE_JOB_REPORT_SPEC(.state = lifecycle_state(lifecycle, role),
				       .evidence = evidence, .evidence_class = classes[role]);

	/* A lifecycle may let a job end only after it was active. */
	if (!lifecycle_can(lifecycle, job->state, role) &&
	    lifecycle_can(lifecycle, job->state, ROLE_ACTIVE))
		send_active(job, NULL, view != NULL ? view->started_ms : 0);
	if (view != NULL)
		end_fill(&spec, view);
	/* The same time in each repetition: the broker knows by it that the report is the same. */
	if (spec.seen_time_ms == 0) {
		job->seen_ms = job->seen_ms != 0 ? job->seen_ms : wall_ms();
		spec.seen_time_ms = job->seen_ms;
	}
	job->stage = STAGE_ENDED;
	job->asked_token = job->token;
	(void)send(job, &spec, on_final);
}

void report_final(struct job *job, enum role role, const char *evidence)
{
	send_final(job, role, evidence, NULL);
}

/* The kernel's bound of both together: what they have, and what sets it. */
static void too_long_text(const struct payload *payload, char *ret, size_t ret_bytes)
{
	struct rlimit stack = {0};
	size_t inherited = 0;

	for (char **at = environ; *at != NULL; at++)
		inherited += strlen(*at) + 1;
	(void)getrlimit(RLIMIT_STACK, &stack);
	(void)snprintf(ret, ret_bytes,
		       "; argv and env of the payload have %zu bytes, the scheduler's environment "
		       "%zu; expected at "
		       "most a quarter of the stack limit, which is %llu KiB (ulimit -s of the "
		       "scheduler)",
		       payload->bytes, inherited, (unsigned long long)stack.rlim_cur / 1024);
}

/* "its working directory /x: No such file or directory (ENOENT)". */
static void step_text(const struct job *job, const struct attempt_view *view, char *ret,
		      size_t ret_bytes)
{
	static const char *const steps[] = {[STEP_NONE] = "the program",
					    [STEP_PAYLOAD] = "the payload",
					    [STEP_OUTPUT] = "its output files in the spool",
					    [STEP_STDIN] = "its standard input",
					    [STEP_CWD] = "its working directory",
					    [STEP_EXEC] = "the program"};
	char why[256], work[ATTEMPT_WORK_MAX], more[256] = "";
	struct payload payload;
	const char *name = "";
	bool parsed =
		payload_parse(job->payload, job->payload_len, &payload, why, sizeof(why)) == 0;

	attempt_work(job->dir, work);
	if (parsed && view->step == STEP_EXEC && view->value == E2BIG)
		too_long_text(&payload, more, sizeof(more));
	if (parsed && view->step == STEP_STDIN && payload.stdin_path != NULL)
		name = payload.stdin_path;
	else if (parsed && view->step == STEP_CWD)
		name = payload.cwd != NULL ? payload.cwd : work;
	else if (parsed && (view->step == STEP_EXEC || view->step == STEP_NONE))
		name = payload.argv[0];
	if (view->step == STEP_PAYLOAD && !parsed)
		(void)snprintf(ret, ret_bytes, "not started: %s", why);
	else
		(void)snprintf(ret, ret_bytes, "not started: %s%s%.200s: %s (%s)%s",
			       steps[view->step], name[0] != 0 ? " " : "", name,
			       strerror(view->value), attempt_errno_name(view->value), more);
	if (parsed)
		payload_free(&payload);
}

/* The name of the signal: the report has the number in a field of its own. */
static void signal_text(int number, char *ret, size_t ret_bytes)
{
	const char *name = sigabbrev_np(number);

	if (name != NULL)
		(void)snprintf(ret, ret_bytes, "ended by SIG%s (%s)", name, strsignal(number));
	else
		(void)snprintf(ret, ret_bytes, "ended by SIGRTMIN%+d", number - SIGRTMIN);
}

static void end_text(const struct job *job, const struct attempt_view *view, char *ret,
		     size_t ret_bytes)
{
	switch (view->end) {
	case END_EXIT:
		if (view->started_ms == 0) /* a status of format 1 */
			(void)snprintf(ret, ret_bytes, "its process ended");
		else
			(void)snprintf(ret, ret_bytes, "its process ended after %llu.%03llu s",
				       (unsigned long long)view->wall_ms / 1000,
				       (unsigned long long)view->wall_ms % 1000);
		return;
	case END_SIGNAL:
		signal_text(view->value, ret, ret_bytes);
		return;
	case END_NOEXEC:
		step_text(job, view, ret, ret_bytes);
		return;
	case END_TIMEOUT:
		(void)snprintf(ret, ret_bytes,
			       "ended by its timeout of %d s (timeout_ms of its payload)",
			       view->value);
		return;
	case END_OUTPUT:
		(void)snprintf(ret, ret_bytes,
			       "ended because its output exceeded %d KiB, to which it was cut "
			       "(setting "
			       "output_max_kib, %llu KiB; or less where the spool was nearly full)",
			       view->value,
			       (unsigned long long)job->service->settings.output_max_kib);
		return;
	case END_WORK:
		(void)snprintf(ret, ret_bytes,
			       "ended because its working directory had %d KiB and the spool's "
			       "disk was nearly "
			       "full; the directory was deleted (a job may name another one: cwd "
			       "of its payload)",
			       view->value);
		return;
	case END_NEVER:
		(void)snprintf(ret, ret_bytes, "its process was never started");
		return;
	}
}

void report_end(struct job *job, const struct attempt_view *view)
{
	/* The mark of its cancel may have had no room. */
	bool cancelled = view->cancelled || job->cancel;
	char evidence[EVIDENCE_BYTES];
	enum role role = cancelled ? ROLE_CANCELED : ROLE_FAILED;
	size_t len;

	if (job->stage == STAGE_ENDED || job->dropped)
		return;
	window_pause(job, WINDOW_RECORD, "record");
	end_text(job, view, evidence, sizeof(evidence));
	len = strlen(evidence);
	if (cancelled)
		len += (size_t)snprintf(evidence + len, sizeof(evidence) - len,
					", cancel was requested");
	if (view->left > 0 && len < sizeof(evidence))
		len += (size_t)snprintf(evidence + len, sizeof(evidence) - len,
					"; %u of its processes outlived it and %s: %s", view->left,
					view->left_ended ? "were ended" : "live on",
					view->left_names);
	if (view->replaced[0] != 0 && len < sizeof(evidence)) {
		(void)snprintf(evidence + len, sizeof(evidence) - len,
			       "; in the place of its attempt's directory was %s, which was not "
			       "followed",
			       view->replaced);
		service_log(job->service, SLUICE_LOG_WARN, "local.replaced", job,
			    evidence + len + 2);
	}
	if (view->end == END_EXIT && view->value == 0)
		role = ROLE_COMPLETE;
	else if (view->end == END_NOEXEC || view->end == END_TIMEOUT || view->end == END_OUTPUT)
		role = ROLE_FAILED;
	send_final(job, role, evidence, view);
}
