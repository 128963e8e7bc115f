/* SPDX-License-Identifier: Apache-2.0
 *
 * The held jobs against the broker's list of the jobs that this session holds, every compare_ms
 * and after each resume: a notice (cancel, lost lease) that was lost with a connection is made up
 * for by the next comparison.
 *
 *   listed and held         a cancel flag that is new here is a cancel
 *   held and not listed     asked for by id; if it is not ours any more, its lease is lost
 *   listed and not held     asked for by id; if it still is ours, it is handled as a delivery
 *
 * Rows are older than events that arrive meanwhile, so a row alone decides nothing but a cancel,
 * which is never withdrawn.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "job.h"
#include "job_kill.h"
#include "job_table.h"

enum { ROWS = 500, ASKED_MAX = 16, SOON_MS = 100 };

struct asked {
	struct service *service;
	uint32_t attempt;
	sluice_token token;
	char job[];
};

void compare_soon(struct service *service)
{
	service->compare.due_ms = service_now_ms() + SOON_MS;
}

static bool is_ours(const struct service *service, const sluice_job_info *info)
{
	return !info->terminal && strcmp(info->claim, "leased") == 0 &&
	       info->holder_session == sluice_session_id(service->client);
}

/* ---- one job, by id ---- */

static void adopt(struct service *service, const sluice_job_info *info)
{
	sluice_delivery_view delivery = {.size = sizeof(delivery),
					 .kind = SLUICE_DELIVERY_JOB,
					 .job = info->job,
					 .token = info->token,
					 .attempt = info->attempt,
					 .body = info->payload,
					 .owner = info->owner,
					 .state = info->state,
					 .tag = info->tag,
					 .scheduler_ref = info->scheduler_ref,
					 .intent = info->intent,
					 .cancel = info->cancel,
					 .redelivered = true,
					 .priority = info->priority,
					 .source = info->judge,
					 .lifecycle = info->lifecycle};

	service_log(service, SLUICE_LOG_WARN, "local.compare", NULL,
		    "the ledger lists a job of this session that the scheduler does "
		    "not know: it is added");
	job_handle_delivery(service, &delivery);
}

static void on_shown(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct asked *asked = user;
	struct service *service = asked->service;
	struct job *job = job_find(service, asked->job, asked->attempt);
	int rc = sluice_reply_code(reply);
	sluice_job_info info = SLUICE_JOB_INFO();
	bool shown = rc == 0 && sluice_reply_job(reply, 0, &info), ours;

	(void)client;
	service->compare.asked--;
	ours = shown && service->client != NULL && is_ours(service, &info);
	if (job == NULL && ours && !job_in_table(service, info.job, info.attempt)) {
		adopt(service, &info);
	} else if (job != NULL && job->token == asked->token && job->calls == 0 &&
		   job->stage != STAGE_ENDED && job->stage != STAGE_STALE &&
		   (shown || rc == SLUICE_E_NOT_FOUND) &&
		   !(ours && info.attempt == job->attempt && info.token == job->token) &&
		   (!shown || strcmp(info.claim, "orphaned") != 0)) {
		/* An orphan comes again by itself. */
		job_lease_lost(service, job->id, job->token);
	}
	free(asked);
}

static void ask(struct service *service, const char *id, uint32_t attempt, sluice_token token,
		bool payload)
{
	struct asked *asked = malloc(sizeof(*asked) + strlen(id) + 1);
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_shown, .user = asked);

	if (asked == NULL)
		return; /* the next comparison finds it again */
	*asked = (struct asked){.service = service, .attempt = attempt, .token = token};
	memcpy(asked->job, id, strlen(id) + 1);
	service->compare.asked++;
	if (sluice_job_show(service->client, id, payload, &call, NULL) != 0) {
		service->compare.asked--;
		free(asked);
	}
}

/* ---- the list ---- */

static void check_row(struct service *service, const sluice_job_info *info)
{
	struct job *job = job_find(service, info->job, info->attempt);

	if (job == NULL) {
		if (service->compare.asked == ASKED_MAX)
			compare_soon(service); /* the rest, when these are answered */
		else if (!job_in_table(service, info->job, info->attempt))
			ask(service, info->job, info->attempt, info->token, true);
		return;
	}
	if (job->token == info->token)
		job->compared = 0;
	if (info->cancel && !job->cancel) {
		service_log(service, SLUICE_LOG_WARN, "local.compare", job,
			    "the ledger has a cancel whose notice was lost: the job is "
			    "cancelled");
		job_cancel(service, job->id, job->token);
	}
}

/* Those that were held before the list was requested, and are not in it. */
static void ask_missing(struct service *service)
{
	struct compare *compare = &service->compare;

	for (struct job *job = service->jobs; job != NULL; job = job->next)
		if (job->compared == compare->number && !job->dropped &&
		    job->stage != STAGE_STALE) {
			if (compare->asked == ASKED_MAX) {
				compare_soon(service);
				return;
			}
			job->compared = 0;
			ask(service, job->id, job->attempt, job->token, false);
		}
}

static void list(struct service *service, uint64_t after);

static void on_list(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct service *service = user;
	struct compare *compare = &service->compare;
	sluice_job_info info = SLUICE_JOB_INFO();
	uint64_t last = 0;

	(void)client;
	compare->listing = false;
	if (sluice_reply_code(reply) != 0 || service->client == NULL)
		return; /* the next one */
	for (size_t i = 0; sluice_reply_job(reply, i, &info); i++) {
		last = info.number;
		/* Without its id the row is damaged: the job, if held, is asked for by id and
		 * kept. */
		if (is_ours(service, &info) && info.job[0] != '\0')
			check_row(service, &info);
	}
	if (sluice_reply_more(reply) && last > 0)
		list(service, last);
	else
		ask_missing(service);
}

static void list(struct service *service, uint64_t after)
{
	sluice_job_filter filter =
		SLUICE_JOB_FILTER(.after_number = after, .max = ROWS,
				  .queue = service->settings.queue, .claim = "leased",
				  .holder_session = sluice_session_id(service->client));
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_list, .user = service);

	service->compare.listing = sluice_job_list(service->client, &filter, &call, NULL) == 0;
}

static void on_heartbeat(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct service *service = user;
	int rc = sluice_reply_code(reply);

	(void)client;
	if (rc != 0 && rc != SLUICE_E_CLOSED && !service->stopping)
		service_log(service, SLUICE_LOG_WARN, "local.source", NULL,
			    sluice_reply_text(reply));
}

/* The heartbeat of this source, by which explain and audit judge whether it can still be asked. */
static void send_heartbeat(struct service *service)
{
	char text[64];
	unsigned long count = 0;
	sluice_source_heartbeat_spec spec =
		SLUICE_SOURCE_HEARTBEAT_SPEC(.source = service->source, .ok = true, .text = text);
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_heartbeat, .user = service);

	for (const struct job *job = service->jobs; job != NULL; job = job->next)
		count++;
	(void)snprintf(text, sizeof(text), "%lu jobs held", count);
	(void)sluice_source_heartbeat(service->client, &spec, &call, NULL);
}

void compare_turn(struct service *service, uint64_t now_ms)
{
	struct compare *compare = &service->compare;

	if (compare->due_ms > now_ms || compare->listing || compare->asked > 0 ||
	    service->consumer.phase != PHASE_OPEN)
		return;
	compare->due_ms = now_ms + service->settings.compare_ms;
	compare->number++;
	send_heartbeat(service);
	for (struct job *job = service->jobs; job != NULL; job = job->next) {
		job->compared = compare->number;
		job_wake_shepherd(job);
	}
	list(service, 0);
}
