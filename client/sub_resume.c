/* SPDX-License-Identifier: Apache-2.0
 *
 * What changed about the leases of a consumer while its connection was away. The broker gives again all that the session holds, as it stands
 * now, and then says that this was all (NOTICE RESUMED). So nothing depends on a notice that may have been lost with a connection: a cancel
 * comes with the job, another lease of a job has another token, and what did not come again is not held any more.
 */
#include <utlist.h>

#include "client/sub.h"

static void tell_lost(sluice_client *client, const char *job, sluice_token token)
{
	client_event(client, &(sluice_event){.kind = SLUICE_EVENT_LEASE_LOST,
					     .text = "",
					     .job = job,
					     .token = token});
}

void resume_job_again(sluice_sub *sub, struct held_job *held, const Sluice__JobDelivery *job)
{
	held->seen = true;
	if (!job->cancel || held->cancel)
		return;
	held->cancel = true;
	client_event(sub->client, &(sluice_event){.kind = SLUICE_EVENT_JOB_CANCEL,
						  .text = "",
						  .job = job->job,
						  .token = job->token});
}

void resume_older_lost(sluice_client *client, const char *job, sluice_token token)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs, sub, next) {
		struct held_job *held = held_job_find(sub, job);
		sluice_token older = held != NULL ? held->token : token;

		if (older >= token)
			continue;
		(void)undelivered_drop(sub, older, job);
		held_job_drop(sub, held);
		tell_lost(client, job, older);
		next = client->subs; /* the callback may have closed some */
	}
}

void resume_cancel_told(sluice_client *client, const char *job, sluice_token token)
{
	for (sluice_sub *sub = client->subs; sub != NULL; sub = sub->hh.next) {
		struct held_job *held = held_job_find(sub, job);

		if (held != NULL && held->token == token)
			held->cancel = true;
	}
}

/* ---- what did not come again ---- */

/* A report, an intent or a release of a job that has no answer: it may be why the job did not come, and its answer will tell. */
static void doubt_called(sluice_sub *sub)
{
	const struct call *call;

	DL_FOREACH(sub->client->ordered, call) {
		struct held_job *held = call->job != NULL ? held_job_find(sub, call->job) : NULL;

		if (held == NULL || held->token != call->token || held->seen || held->doubted)
			continue;
		held->doubted = true;
		sub->client->doubts++;
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

static struct held *lost_grants_take(sluice_sub *sub)
{
	struct held *held, *next, *lost = NULL;

	HASH_ITER(hh, sub->held, held, next) {
		if (held->seen)
			continue;
		HASH_DELETE(hh, sub->held, held);
		held->next = lost;
		lost = held;
	}
	return lost;
}

/* Credit of the application's own was asked for with what it held on top. What did not come must not be filled by others. */
static void credit_keep(sluice_sub *sub, uint32_t count)
{
	if (sub->manual_credit)
		sub->debt += count;
}

void resume_complete(sluice_sub *sub)
{
	sluice_client *client = sub->client;
	struct held_job *jobs, *job;
	struct held *grants, *grant;

	/* What is damaged is held and does not come, and the broker names it by its number only. */
	if (sub->follow || sub->resume_damaged)
		return;
	doubt_called(sub);
	jobs = lost_jobs_take(sub);
	grants = lost_grants_take(sub);
	while ((job = jobs) != NULL) {
		jobs = job->next_lost;
		credit_keep(sub, 1 - undelivered_drop(sub, job->token, job->job));
		tell_lost(client, job->job, job->token);
		mem_free(job->job);
		mem_free(job);
	}
	while ((grant = grants) != NULL) {
		grants = grant->next;
		grant->out -= undelivered_drop(sub, grant->token, NULL);
		credit_keep(sub, grant->out);
		if (grant->out > 0)
			held_lost(sub, grant, SLUICE_E_STALE_TOKEN,
				  "the lease ended while there was no connection");
		mem_free(grant);
	}
}

void resume_call_ended(sluice_client *client, const char *job, sluice_token token)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs, sub, next) {
		struct held_job *held = held_job_find(sub, job);

		if (held == NULL || held->token != token || !held->doubted)
			continue;
		held_job_drop(sub, held);
		credit_keep(sub, 1);
		tell_lost(client, job, token);
		return;
	}
}
