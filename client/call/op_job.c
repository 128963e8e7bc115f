/* SPDX-License-Identifier: Apache-2.0
 * Typed operations on cursors, jobs, sessions and status: each fills its message and makes the
 * call. Operations that can be repeated safely after a broken connection pass true. */
#include <limits.h>
#include <stdio.h>
#include <sys/random.h>
#include <time.h>

#include "client/base/loop.h"
#include "client/base/sized.h"
#include "client/call/call.h"
#include "client/call/request.h"
#include "sluice.pb-c.h"

/* ---- cursors ---- */

int sluice_cursor_delete(sluice_client *client, const char *stream, const char *cursor,
			 const sluice_call *call, sluice_reply **reply)
{
	Sluice__CursorDelete m = SLUICE__CURSOR_DELETE__INIT;
	REQUEST(CURSOR_DELETE, cursor_delete, m);

	m.stream = wire_text(stream);
	m.cursor = wire_text(cursor);
	return call_run(client, &request, false, call, reply);
}

/* ---- jobs ---- */

void job_submit_fill(Sluice__JobSubmit *m, const sluice_job_spec *spec)
{
	m->job = wire_text(spec->job);
	m->queue = wire_text(spec->queue);
	m->lifecycle = wire_text(spec->lifecycle);
	m->owner = wire_text(spec->owner);
	m->payload = wire_bytes(spec->payload);
	m->priority = spec->priority;
}

void job_report_fill(Sluice__JobReport *m, const sluice_job_report_spec *spec)
{
	m->job = wire_text(spec->job);
	m->attempt = spec->attempt;
	m->source = wire_text(spec->source);
	m->state = wire_text(spec->state);
	m->token = spec->token;
	m->scheduler_ref = wire_text(spec->scheduler_ref);
	m->evidence = wire_text(spec->evidence);
	m->exit_code = spec->exit_code;
	m->seen_time_ms = spec->seen_time_ms;
	m->release = spec->release;
	m->exited = spec->exited;
	m->signal = spec->signal;
	m->class_ = (Sluice__EvidenceClass)spec->evidence_class;
	m->started_time_ms = spec->started_time_ms;
	m->ended_time_ms = spec->ended_time_ms;
	m->memory_peak_bytes = spec->memory_peak_bytes;
}

int sluice_job_submit(sluice_client *client, const sluice_job_spec *spec, const sluice_call *call,
		      sluice_reply **reply)
{
	sluice_job_spec own;
	int rc = job_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__JobSubmit m = SLUICE__JOB_SUBMIT__INIT;
	REQUEST(JOB_SUBMIT, job_submit, m);

	job_submit_fill(&m, spec);
	return call_run(client, &request, true, call, reply);
}

int sluice_job_cancel(sluice_client *client, const char *job, const char *reason,
		      const sluice_call *call, sluice_reply **reply)
{
	Sluice__JobCancel m = SLUICE__JOB_CANCEL__INIT;
	REQUEST(JOB_CANCEL, job_cancel, m);

	m.job = wire_text(job);
	m.reason = wire_text(reason);
	return call_run(client, &request, true, call, reply);
}

int sluice_job_reset(sluice_client *client, const char *job, bool force, const char *reason,
		     const sluice_call *call, sluice_reply **reply)
{
	Sluice__JobReset m = SLUICE__JOB_RESET__INIT;
	REQUEST(JOB_RESET, job_reset, m);

	m.job = wire_text(job);
	m.force = force;
	m.reason = wire_text(reason);
	return call_run(client, &request, false, call, reply);
}

int sluice_job_show(sluice_client *client, const char *job, bool payload, const sluice_call *call,
		    sluice_reply **reply)
{
	Sluice__JobShow m = SLUICE__JOB_SHOW__INIT;
	REQUEST(JOB_SHOW, job_show, m);

	m.job = wire_text(job);
	m.payload = payload;
	return call_run(client, &request, true, call, reply);
}

int sluice_job_wait(sluice_client *client, const char *job, uint64_t number,
		    const sluice_call *call, sluice_reply **reply)
{
	sluice_call own;
	int rc = call_take(&call, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__JobWait m = SLUICE__JOB_WAIT__INIT;
	REQUEST(JOB_WAIT, job_wait, m);
	int deadline_ms = call != NULL ? call->deadline_ms : 0;
	sluice_call longer = SLUICE_CALL(.done = call != NULL ? call->done : NULL,
					 .user = call != NULL ? call->user : NULL);

	if (deadline_ms == 0)
		deadline_ms = (int)client->config.deadline_ms;
	m.job = wire_text(job);
	m.number = number;
	m.timeout_ms = deadline_ms < 0 ? 0 : (uint32_t)deadline_ms;
	/* The broker answers with the job's state at the deadline; that answer needs a moment
	 * more. */
	longer.deadline_ms = deadline_ms < 0 ? -1 : deadline_ms + 2000;
	return call_run(client, &request, true, &longer, reply);
}

int sluice_job_list(sluice_client *client, const sluice_job_filter *filter, const sluice_call *call,
		    sluice_reply **reply)
{
	sluice_job_filter own;
	int rc = job_filter_take(&filter, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__JobList m = SLUICE__JOB_LIST__INIT;
	REQUEST(JOB_LIST, job_list, m);

	if (filter != NULL) {
		m.after_number = filter->after_number;
		m.max = filter->max;
		m.state = wire_text(filter->state);
		m.queue = wire_text(filter->queue);
		m.claim = wire_text(filter->claim);
		m.open_only = filter->open_only;
		m.holder_session = filter->holder_session;
	}
	return call_run(client, &request, true, call, reply);
}

int sluice_job_history(sluice_client *client, const char *job, const sluice_call *call,
		       sluice_reply **reply)
{
	Sluice__JobHistory m = SLUICE__JOB_HISTORY__INIT;
	REQUEST(JOB_HISTORY, job_history, m);

	m.job = wire_text(job);
	return call_run(client, &request, true, call, reply);
}

int sluice_job_explain(sluice_client *client, const char *job, const sluice_call *call,
		       sluice_reply **reply)
{
	Sluice__JobExplain m = SLUICE__JOB_EXPLAIN__INIT;
	REQUEST(JOB_EXPLAIN, job_explain, m);

	m.job = wire_text(job);
	return call_run(client, &request, true, call, reply);
}

int sluice_quarantine_list(sluice_client *client, const char *job, uint64_t after, uint32_t max,
			   const sluice_call *call, sluice_reply **reply)
{
	Sluice__QuarantineList m = SLUICE__QUARANTINE_LIST__INIT;
	REQUEST(QUARANTINE_LIST, quarantine_list, m);

	m.job = wire_text(job);
	m.after = after;
	m.max = max;
	return call_run(client, &request, true, call, reply);
}

int sluice_job_audit(sluice_client *client, const sluice_job_audit_spec *spec,
		     const sluice_call *call, sluice_reply **reply)
{
	sluice_job_audit_spec own;
	int rc = job_audit_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__Audit m = SLUICE__AUDIT__INIT;
	REQUEST(AUDIT, audit, m);

	if (spec != NULL) {
		m.after_number = spec->after_number;
		m.silent_ms = spec->silent_ms;
		m.orphan_ms = spec->orphan_ms;
	}
	return call_run(client, &request, true, call, reply);
}

int sluice_job_retention_set(sluice_client *client, uint64_t keep_ms, const sluice_call *call,
			     sluice_reply **reply)
{
	Sluice__JobRetention m = SLUICE__JOB_RETENTION__INIT;
	REQUEST(JOB_RETENTION, job_retention, m);

	m.keep_ms = keep_ms;
	return call_run(client, &request, true, call, reply);
}

int sluice_source_heartbeat(sluice_client *client, const sluice_source_heartbeat_spec *spec,
			    const sluice_call *call, sluice_reply **reply)
{
	sluice_source_heartbeat_spec own;
	int rc = source_heartbeat_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__SourceSeen m = SLUICE__SOURCE_SEEN__INIT;
	REQUEST(SOURCE_SEEN, source_seen, m);

	m.source = wire_text(spec->source);
	m.ok = spec->ok;
	m.text = wire_text(spec->text);
	m.take = spec->take;
	return call_run(client, &request, true, call, reply);
}

void sluice_job_id_make(char ret[40])
{
	struct timespec now;
	uint64_t noise = 0;

	/* Milliseconds first, so that ids sort by time: random ids would scatter the ledger's name
	 * table. */
	(void)clock_gettime(CLOCK_REALTIME, &now);
	(void)!getrandom(&noise, sizeof(noise), 0);
	(void)snprintf(ret, 40, "j%012llx-%016llx",
		       (unsigned long long)now.tv_sec * 1000 +
			       (unsigned long long)now.tv_nsec / 1000000,
		       (unsigned long long)noise);
}

/* ---- status ---- */

int sluice_status(sluice_client *client, const sluice_call *call, sluice_reply **reply)
{
	Sluice__StatusGet m = SLUICE__STATUS_GET__INIT;
	REQUEST(STATUS_GET, status_get, m);

	return call_run(client, &request, true, call, reply);
}

/* Time until the deadline of a wait: at least a millisecond, as 0 means the default. */
static int time_left(uint64_t deadline)
{
	uint64_t now = now_ms(), left = deadline > now ? deadline - now : 1;

	return deadline == UINT64_MAX ? -1 : left < INT_MAX ? (int)left : INT_MAX;
}

int sluice_session_close(sluice_client *client, uint64_t session, const sluice_call *call,
			 sluice_reply **reply)
{
	Sluice__SessionClose m = SLUICE__SESSION_CLOSE__INIT;
	REQUEST(SESSION_CLOSE, session_close, m);
	uint64_t deadline = deadline_of(client, call != NULL ? call->deadline_ms : 0);
	const struct call_about about = {.deadline_ms = deadline, .closes_session = true};
	int rc;

	if (session == 0 || session == sluice_session_id(client))
		return call_refuse(SLUICE_E_INVAL, "expected another session's number", call,
				   reply);
	rc = call_blocks(call) ? sluice_wait_connected(client, time_left(deadline)) : 0;
	if (rc != 0)
		return call_refuse(rc, sluice_error_text(rc), call, reply);
	m.session = session;
	return call_run_about(client, &request, false, &about, call, reply);
}

int sluice_session_list(sluice_client *client, uint64_t after, uint32_t max,
			const sluice_call *call, sluice_reply **reply)
{
	Sluice__SessionList m = SLUICE__SESSION_LIST__INIT;
	REQUEST(SESSION_LIST, session_list, m);

	m.after = after;
	m.max = max;
	return call_run(client, &request, true, call, reply);
}
