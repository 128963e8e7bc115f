/* SPDX-License-Identifier: Apache-2.0
 *
 * See job_table.h.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "job_table.h"
#include "lifecycle_cache.h"

enum { RETRY_MS = 1000, RETRY_DOUBLINGS_MAX = 4 };

static struct job **bucket_of(struct service *service, const char *id)
{
	uint32_t hash = 2166136261u;

	for (const char *at = id; *at != 0; at++)
		hash = (hash ^ (unsigned char)*at) * 16777619u;
	return &service->buckets[hash % JOB_BUCKETS];
}

bool job_in_table(struct service *service, const char *id, uint32_t attempt)
{
	for (const struct job *job = *bucket_of(service, id); job != NULL; job = job->same_hash)
		if (job->attempt == attempt && strcmp(job->id, id) == 0)
			return true;
	return false;
}

void job_unwatch(struct job *job)
{
	if (job->starter_fd >= 0)
		(void)close(job->starter_fd);
	if (job->watch_fd >= 0)
		(void)close(job->watch_fd);
	job->starter_fd = job->watch_fd = -1;
}

void stale_attempts_free(struct job *job)
{
	free(job->stale);
	job->stale = NULL;
	job->stale_count = 0;
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
	for (struct job **at = bucket_of(service, job->id); *at != NULL; at = &(*at)->same_hash)
		if (*at == job) {
			*at = job->same_hash;
			break;
		}
	stale_attempts_free(job);
	free(job->id);
	free(job->payload);
	free(job->state);
	free(job);
}

void job_call_ended(struct job *job)
{
	job->calls--;
	if (job->dropped)
		job_free(job);
}

struct job *job_find(const struct service *service, const char *id, uint32_t attempt)
{
	struct job *job = *bucket_of((struct service *)(uintptr_t)service, id);

	for (; job != NULL; job = job->same_hash)
		if (!job->dropped && strcmp(job->id, id) == 0 &&
		    (attempt == 0 ? job->stage != STAGE_STALE : job->attempt == attempt))
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
	job->lifecycle = delivery->lifecycle != NULL
				 ? lifecycle_cache_find(service, delivery->lifecycle)
				 : NULL;
	job->id = strdup(delivery->job);
	job->state = strdup(delivery->state != NULL ? delivery->state : "");
	job->payload = malloc(delivery->body.len + 1);
	if (job->id == NULL || job->payload == NULL || job->state == NULL) {
		free(job->id);
		free(job->payload);
		free(job->state);
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
	job->same_hash = *bucket_of(service, job->id);
	*bucket_of(service, job->id) = job;
	return job;
}

void job_again(struct job *job, uint64_t pause_ms)
{
	job->retry = true;
	job->retry_ms = service_now_ms() + pause_ms;
}

void job_again_later(struct job *job)
{
	job_again(job, (uint64_t)RETRY_MS << job->retries);
	if (job->retries < RETRY_DOUBLINGS_MAX)
		job->retries++;
}
