/* SPDX-License-Identifier: Apache-2.0
 * Grants and jobs that consumers hold. A grant is kept until its items are acked or nacked, and
 * longer while it may be redelivered. */
#include <string.h>

#include "client/base/hash.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/link/link.h"
#include "client/sub/sub.h"

struct held *held_find(sluice_sub *sub, sluice_token token)
{
	struct held *held;

	HASH_FIND(hh, sub->held, &token, sizeof(token), held);
	return held;
}

void held_drop(sluice_sub *sub, struct held *held)
{
	HASH_DELETE(hh, sub->held, held);
	mem_free(held);
}

static bool shares_queue(const sluice_sub *sub, const sluice_sub *other)
{
	return other != sub && !other->follow && strcmp(other->name, sub->name) == 0;
}

static bool comes_to_others(const sluice_sub *sub)
{
	const sluice_sub *other = sub->client->subs->all;

	for (; other != NULL; other = other->hh.next)
		if (other->coming && shares_queue(sub, other))
			return true;
	return false;
}

/* A consumer of the queue that is being opened receives the entries that the session held at that
 * time; they may still arrive after their ack was sent and dropped here. */
void held_done(sluice_sub *sub, struct held *held)
{
	if (!sub->coming && !comes_to_others(sub)) {
		held_drop(sub, held);
		return;
	}
	held->due_ms = UINT64_MAX;
	sub->keeps = true;
}

void held_kept_drop(sluice_sub *sub)
{
	struct held *held, *next;

	if (!sub->keeps || sub->coming || comes_to_others(sub))
		return;
	sub->keeps = false;
	HASH_ITER(hh, sub->held, held, next)
		if (held->out == 0 && held->seen)
			held_drop(sub, held);
}

/* Without activity of the application a lease is extended for an hour. A lease of less than a
 * second requests a quick return: 16 of it are enough. */
enum { EXTEND_MAX_MS = 3600000, SHORT_LEASE_MS = 1000, SHORT_LEASES_MAX = 16 };

static uint32_t extend_max(const sluice_sub *sub, uint32_t lease_ms)
{
	if (sub->extend_max_ms != 0)
		return sub->extend_max_ms;
	return lease_ms < SHORT_LEASE_MS ? SHORT_LEASES_MAX * lease_ms : EXTEND_MAX_MS;
}

uint32_t held_extend_max(const sluice_sub *sub)
{
	if (sub->session_lease || !sub->client->config.lease_extend)
		return 0;
	return extend_max(sub, sub->lease_ms != 0 ? sub->lease_ms : SHORT_LEASE_MS);
}

void held_due_set(sluice_sub *sub, struct held *held, uint64_t due_ms)
{
	held->due_ms = due_ms;
	if (due_ms < sub->due_ms)
		sub->due_ms = due_ms;
}

/* A lease begins, or was extended: sets its next due time. */
void held_lease(sluice_sub *sub, struct held *held, uint64_t now)
{
	uint64_t stops = held->since_ms + extend_max(sub, held->lease_ms),
		 half = now + held->lease_ms / 2;

	held->ends_ms = now + held->lease_ms;
	held_due_set(sub, held,
		     sub->client->config.lease_extend && stops > half ? half : held->ends_ms);
}

void held_begin(sluice_sub *sub, struct held *held)
{
	held->due_ms = held->ends_ms = UINT64_MAX; /* of a session: it has no deadline of its own */
	if (held->lease_ms == 0)
		return;
	held->since_ms = now_ms();
	held_lease(sub, held, held->since_ms);
}

bool held_add(sluice_sub *sub, sluice_token token, uint32_t lease_ms, uint32_t count)
{
	struct held *held = mem_alloc(sizeof(*held));

	if (held == NULL)
		return false;
	held->token = token;
	HASH_ADD(hh, sub->held, token, sizeof(held->token), held);
	if (!HASHED(held)) {
		mem_free(held);
		return false;
	}
	held->lease_ms = lease_ms;
	held->out = held->asked = count;
	held->seen = true;
	held_begin(sub, held);
	return true;
}

void held_gone_before(sluice_client *client, const sluice_sub *from, sluice_token token)
{
	for (sluice_sub *other = client->subs->all; other != NULL; other = other->hh.next) {
		if (!other->coming || other == from ||
		    (from != NULL && !shares_queue(from, other)) || held_find(other, token) != NULL)
			continue;
		if (held_add(other, token, 0, 0))
			other->keeps = true;
		else
			link_lacks(client); /* the next connection only delivers held entries */
	}
}

void held_leave(const sluice_sub *sub)
{
	for (const struct held *held = sub->held; held != NULL; held = held->hh.next)
		held_gone_before(sub->client, sub, held->token);
	for (const struct held_job *job = sub->jobs; job != NULL; job = job->hh.next)
		held_gone_before(sub->client, sub, job->token);
}

void held_ask(sluice_sub *sub)
{
	struct held *held, *next;

	HASH_ITER(hh, sub->held, held, next) {
		held->asked = held->out;
		held->seen = false;
		if (held->out == 0)
			held_drop(sub, held);
	}
	for (struct held_job *job = sub->jobs; job != NULL; job = job->hh.next) {
		sub->client->subs->doubts -= job->doubted;
		job->seen = job->doubted = false;
	}
	sub->resume_damaged = false;
}

/* The application has them. Items that it has acked meanwhile were subtracted from the credit, too;
 * or, with credit of its own, were not requested. */
void held_redelivered(sluice_sub *sub, struct held *held, uint32_t count)
{
	uint32_t had = sub->manual_credit ? held->asked : held->out;

	if (count > had)
		sub_credit_back(sub, count - had);
	held->seen = true;
	if (held->out == 0)
		held_done(sub, held);
}

/* By id: one claim leases many jobs under one token. */
struct held_job *held_job_find(sluice_sub *sub, const char *id)
{
	struct held_job *job;

	HASH_FIND_STR(sub->jobs, id, job);
	return job;
}

struct held_job *held_job_add(sluice_sub *sub, const char *id, sluice_token token, uint64_t number)
{
	size_t len = strlen(id);
	struct held_job *job = mem_alloc(sizeof(*job));

	if (job == NULL || (job->job = mem_text(id, len)) == NULL) {
		mem_free(job);
		return NULL;
	}
	job->token = token;
	job->number = number;
	job->seen = true;
	HASH_ADD_KEYPTR(hh, sub->jobs, job->job, len, job);
	if (HASHED(job))
		return job;
	mem_free(job->job);
	mem_free(job);
	return NULL;
}

void held_job_drop(sluice_sub *sub, struct held_job *job)
{
	sub->client->subs->doubts -= job->doubted;
	HASH_DELETE(hh, sub->jobs, job);
	mem_free(job->job);
	mem_free(job);
}

/* A job that this client held has ended: frees its share of the credit. */
void sub_job_gone(sluice_client *client, const char *job, sluice_token token)
{
	sluice_sub *sub, *next;

	HASH_ITER(hh, client->subs->all, sub, next) {
		struct held_job *held = held_job_find(sub, job);
		bool seen, waits;

		if (held == NULL || (token != 0 && held->token != token))
			continue;
		seen = held->seen;
		waits = undelivered_drop(sub, held->token, job) != 0;
		held_job_drop(sub, held);
		if (seen && waits)
			sub_credit_back(sub, 1);
		else if (seen)
			sub_release(sub, 1);
	}
}

uint32_t held_by_others(const sluice_sub *sub)
{
	const sluice_sub *other = sub->client->subs->all;
	uint32_t count = 0;

	for (; other != NULL; other = other->hh.next) {
		if (!shares_queue(sub, other))
			continue;
		count += HASH_COUNT(other->jobs);
		for (const struct held *held = other->held; held != NULL; held = held->hh.next)
			count += held->out;
	}
	return count;
}

bool held_elsewhere(sluice_sub *sub, sluice_token token, const char *job)
{
	for (sluice_sub *other = sub->client->subs->all; other != NULL; other = other->hh.next) {
		const struct held_job *held = NULL;

		if (!shares_queue(sub, other))
			continue;
		if (job == NULL && (held_find(other, token) != NULL || acks_wait(other, token)))
			return true;
		if (job != NULL)
			held = held_job_find(other, job);
		if (held != NULL && held->token == token)
			return true;
	}
	return false;
}

void sub_item_done(sluice_sub *sub, sluice_token token)
{
	struct held *held = held_find(sub, token);

	if (held == NULL || held->out == 0)
		return;
	held->out--;
	/* Not delivered since the last opening: that credit is complete, and held_redelivered()
	 * counts what is subtracted from it. If the entry was dropped before, its redelivery would
	 * look new. */
	if (held->seen)
		sub_release(sub, 1);
	if (held->out == 0)
		held->due_ms = UINT64_MAX;
	if (held->out == 0 && held->seen)
		held_done(sub, held);
}
