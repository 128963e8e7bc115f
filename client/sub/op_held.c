/* SPDX-License-Identifier: Apache-2.0
 * Typed operations on entries that this client holds or follows. An answer may show that the client
 * does not hold a job any more: the job's share of the consumer's credit is free then. */
#include "client/base/loop.h"
#include "client/base/sized.h"
#include "client/call/call.h"
#include "client/call/reply.h"
#include "client/call/request.h"
#include "client/sub/streams.h"
#include "client/sub/sub.h"
#include "sluice.pb-c.h"

int sluice_cursor_set(sluice_client *client, const char *stream, const char *cursor,
		      uint64_t next_offset, const sluice_call *call, sluice_reply **reply)
{
	Sluice__CursorSet m = SLUICE__CURSOR_SET__INIT;
	REQUEST(CURSOR_SET, cursor_set, m);

	m.stream = wire_text(stream);
	m.cursor = wire_text(cursor);
	m.offset = next_offset;
	/* The offset belongs to the stream that was read, which may be deleted while another has
	 * its name. */
	client_lock(client);
	m.stream_id = subs_stream_id(client, m.stream);
	client_unlock(client);
	return call_run(client, &request, true, call, reply);
}

static int code_of(const struct call *call)
{
	return call->reply != NULL ? call->reply->code : SLUICE_E_UNKNOWN;
}

/* over: by this answer. Otherwise the job stays held, unless it was not redelivered after a
 * reconnect. */
static void held_settle(sluice_client *client, const struct call *call, bool over)
{
	if (over)
		sub_job_gone(client, call->job, call->token);
	else if (client->subs->doubts > 0)
		resume_call_ended(client, call->job, call->token);
}

static void release_answered(sluice_client *client, struct call *call)
{
	held_settle(client, call, code_of(call) == 0 || code_of(call) == SLUICE_E_STALE_TOKEN);
}

static void intent_answered(sluice_client *client, struct call *call)
{
	held_settle(client, call,
		    code_of(call) == SLUICE_E_STALE_TOKEN || code_of(call) == SLUICE_E_CANCELLED);
}

int sluice_job_intent(sluice_client *client, const char *job, sluice_token token, uint32_t attempt,
		      const char *tag, const sluice_call *call, sluice_reply **reply)
{
	Sluice__JobIntent m = SLUICE__JOB_INTENT__INIT;
	REQUEST(JOB_INTENT, job_intent, m);

	m.job = wire_text(job);
	m.token = token;
	m.attempt = attempt;
	m.tag = wire_text(tag);
	return call_run_about(client, &request, true,
			      &(struct call_about){.job = m.job,
						   .token = token,
						   .hook = intent_answered},
			      call, reply);
}

static bool report_refused(const struct call *call)
{
	return code_of(call) == SLUICE_E_STALE_TOKEN || code_of(call) == SLUICE_E_NOT_FOUND;
}

static void reported(sluice_client *client, struct call *call)
{
	const Sluice__Reply *reply = call->reply != NULL ? call->reply->message : NULL;

	held_settle(client, call,
		    report_refused(call) ||
			    (reply != NULL && reply->code == 0 && reply->job_reported != NULL &&
			     reply->job_reported->terminal));
}

static void reported_release(sluice_client *client, struct call *call)
{
	held_settle(client, call, report_refused(call) || code_of(call) == 0);
}

int sluice_job_report(sluice_client *client, const sluice_job_report_spec *spec,
		      const sluice_call *call, sluice_reply **reply)
{
	sluice_job_report_spec own;
	int rc = job_report_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;
	REQUEST(JOB_REPORT, job_report, m);

	struct call_about about = {.job = wire_text(spec->job), .token = spec->token};

	job_report_fill(&m, spec);
	m.number = spec->number;
	if (spec->token != 0)
		about.hook = spec->release ? reported_release : reported;
	return call_run_about(client, &request, true, &about, call, reply);
}

int sluice_job_release(sluice_client *client, const char *job, sluice_token token,
		       uint32_t delay_ms, const char *reason, const sluice_call *call,
		       sluice_reply **reply)
{
	Sluice__JobRelease m = SLUICE__JOB_RELEASE__INIT;
	REQUEST(JOB_RELEASE, job_release, m);

	m.job = wire_text(job);
	m.token = token;
	m.delay_ms = delay_ms;
	m.reason = wire_text(reason);
	return call_run_about(client, &request, false,
			      &(struct call_about){.job = m.job,
						   .token = token,
						   .hook = release_answered},
			      call, reply);
}
