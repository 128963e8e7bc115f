/* SPDX-License-Identifier: Apache-2.0
 *
 * Changes to the leases of a consumer while it was disconnected. The broker redelivers all entries
 * that the session holds, in their current state, and then reports the end (NOTICE RESUMED). So
 * nothing depends on a notice that may have been lost with a connection: a cancel is delivered with
 * the job, another lease of a job has another token, and entries that were not redelivered are not
 * held any more.
 */
#include <utlist.h>

#include "client/base/hash.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/call/call.h"
#include "client/sub/sub.h"
#include "sluice.pb-c.h"

static void report_lost(sluice_client *client, const char *job, sluice_token token)
{
	client_notice(client, &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_LEASE_LOST,
					   .text = "", .job = job, .token = token));
}

void resume_job_again(sluice_sub *sub, struct held_job *held, const Sluice__JobDelivery *job)
{
	held->seen = true;
	if (!job->cancel || held->cancel)
		return;
	held->cancel = true;
	client_notice(sub->client, &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_JOB_CANCEL,
						.text = "", .job = job->job, .token = job->token));
}

void resume_older_lost(sluice_client *client, const char *job, sluice_token token)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs->all, sub, next) {
		struct held_job *held = held_job_find(sub, job);
		sluice_token older = held != NULL ? held->token : token;

		if (older >= token)
			continue;
		(void)undelivered_drop(sub, older, job);
		held_job_drop(sub, held);
		report_lost(client, job, older);
		next = client->subs->all; /* the callback may have closed subscriptions */
	}
}

void resume_cancel_notified(sluice_client *client, const char *job, sluice_token token)
{
	for (sluice_sub *sub = client->subs->all; sub != NULL; sub = sub->hh.next) {
		struct held_job *held = held_job_find(sub, job);

		if (held != NULL && held->token == token)
			held->cancel = true;
	}
}

/* ---- entries that were not redelivered ---- */

/* A report, an intent or a release of the job without an answer may be the reason why it was not
 * redelivered; the answer will show it. */
static void doubt_called(sluice_sub *sub)
{
	const struct call *call;

	DL_FOREACH(sub->client->calls->ordered, call) {
		struct held_job *held = call->job != NULL ? held_job_find(sub, call->job) : NULL;

		if (held == NULL || held->token != call->token || held->seen || held->doubted)
			continue;
		held->doubted = true;
		sub->client->subs->doubts++;
	}
}

static struct held_job *lost_jobs_take(sluice_sub *sub)
{
	struct held_job *held, *next, *lost = NULL;

	HASH_ITER(hh, sub->jobs, held, next) {
		if (held->seen || held->doubted)
			continue;
		HASH_DELETE(hh, sub->jobs, held);
		held->next_lost = lost;
		lost = held;
	}
	return lost;
}

/* A damaged entry that the session holds: it is not redelivered, and still held. In a queue of jobs
 * the number may be that of an entry, and by chance also that of a job. But only new grants have
 * entries: until RESUMED, when each job that was not redelivered is checked, the broker reports
 * jobs only. */
void resume_damage(sluice_sub *sub, uint64_t number, sluice_token token)
{
	struct held *grant = token != 0 ? held_find(sub, token) : NULL;
	struct held_job *job, *next;

	if (grant != NULL)
		grant->seen = true;
	HASH_ITER(hh, sub->jobs, job, next) {
		if (job->number == number && number != 0)
			job->seen = true;
		/* From an older broker: it could be any entry. */
		sub->resume_damaged |= job->number == 0;
	}
	sub->resume_damaged |= token == 0 && sub->held != NULL;
}

/* Redeliveries used no credit at the broker. Computes the rest beside the entries that the
 * application has, also under ended leases. */
static void credit_settle(sluice_sub *sub)
{
	uint64_t held = HASH_COUNT(sub->jobs);

	for (const struct held *grant = sub->held; grant != NULL; grant = grant->hh.next)
		held += grant->out;
	if (sub->manual_credit)
		held = 0; /* the rest is its credit already */
	sub->resuming = false;
	sub->owed = held < sub->credit ? sub->credit - (uint32_t)held : 0;
	sub->debt = held > sub->credit ? (uint32_t)held - sub->credit : 0;
}

static void lost_jobs_report(sluice_sub *sub, struct held_job *jobs)
{
	sluice_client *client = sub->client;

	while (jobs != NULL) {
		struct held_job *job = jobs;

		jobs = job->next_lost;
		(void)undelivered_drop(sub, job->token, job->job);
		report_lost(client, job->job, job->token);
		mem_free(job->job);
		mem_free(job);
	}
}

/* The callback may ack the reported entry, and others. */
static void lost_grants_report(sluice_sub *sub)
{
	struct held *grant = sub->held;

	while (grant != NULL && !sub->closing) {
		struct held *next = grant->hh.next;
		sluice_token token = next != NULL ? next->token : 0;

		if (!grant->over) {
			grant = next;
			continue;
		}
		grant->over = false;
		if (grant->out == 0)
			held_done(sub, grant);
		else
			held_lost(sub, grant, SLUICE_E_STALE_TOKEN,
				  "the lease ended while there was no connection");
		grant = token != 0 ? held_find(sub, token) : NULL;
		if (token != 0 && grant == NULL)
			grant = sub->held; /* those before it are reported already */
	}
}

/* Entries that were not redelivered have ended, or are kept permanently. Either way there is no
 * further redelivery. */
static void all_seen(sluice_sub *sub)
{
	for (struct held *grant = sub->held; grant != NULL; grant = grant->hh.next) {
		grant->over = !grant->seen && !sub->resume_damaged;
		grant->seen = true;
	}
	for (struct held_job *job = sub->jobs; job != NULL; job = job->hh.next)
		job->seen = true;
}

void resume_complete(sluice_sub *sub)
{
	struct held_job *jobs = NULL;

	if (sub->follow)
		return;
	sub->coming = false;
	doubt_called(sub);
	if (!sub->resume_damaged)
		jobs = lost_jobs_take(sub);
	all_seen(sub);
	lost_jobs_report(sub, jobs);
	lost_grants_report(sub);
	if (sub->resuming)
		credit_settle(sub);
}

void resume_call_ended(sluice_client *client, const char *job, sluice_token token)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs->all, sub, next) {
		struct held_job *held = held_job_find(sub, job);

		if (held == NULL || held->token != token || !held->doubted)
			continue;
		held_job_drop(sub, held);
		sub_release(sub, 1);
		report_lost(client, job, token);
		return;
	}
}
