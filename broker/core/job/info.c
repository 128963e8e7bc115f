/* SPDX-License-Identifier: Apache-2.0
 * JobInfo: the data of a job from its record, its live state and its history. */
#include <stdlib.h>

#include "broker/core/base/name.h"
#include "broker/core/base/reply.h"
#include "broker/core/job/history.h"
#include "broker/core/job/info.h"
#include "broker/core/job/source.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/session/session.h"

int job_info_text(char **at, const char *text)
{
	char *copy = text[0] != '\0' ? strdup(text) : *at;

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	*at = copy;
	return 0;
}

int job_query_find(struct query *q, const char *id, uint64_t *ret)
{
	int rc = name_find(q->txn, q->gateway, NAME_JOB, slice_text(id), ret);

	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	*ret = 0;
	return query_refuse(q, SLUICE_E_NOT_FOUND, "job %.255s does not exist", id);
}

/* The row of the last report. */
static int info_report(const Sluice__JobHistoryRow *report, Sluice__JobInfo *info)
{
	int rc = job_info_text(&info->evidence, report->evidence);

	info->exit_code = report->exit_code;
	info->exited = report->exited || report->exit_code != 0;
	info->seen_time_ms = report->seen_time_ms;
	info->started_time_ms = report->started_time_ms;
	info->ended_time_ms = info->terminal ? report->ended_time_ms : 0;
	info->memory_peak_bytes = report->memory_peak_bytes;
	info->signal = report->signal;
	info->class_ = report->class_;
	return rc != 0 ? rc : job_info_text(&info->source, report->source);
}

static int info_history(struct query *q, const struct job_live *live, Sluice__JobInfo *info)
{
	Sluice__JobHistoryRow *intent = NULL, *ref = NULL, *report = NULL, *last = NULL;
	int rc = job_history_load(q->txn, q->gateway, live->hist_intent, &intent);

	if (rc == 0)
		rc = job_history_load(q->txn, q->gateway, live->hist_ref, &ref);
	if (rc == 0)
		rc = job_history_load(q->txn, q->gateway, live->hist_report, &report);
	if (rc == 0)
		rc = job_history_load(q->txn, q->gateway, live->hist_last, &last);
	if (rc == 0 && intent != NULL)
		rc = job_info_text(&info->tag, intent->evidence);
	if (rc == 0 && ref != NULL)
		rc = job_info_text(&info->scheduler_ref, ref->scheduler_ref);
	if (rc == 0 && report != NULL)
		rc = info_report(report, info);
	if (info->terminal && info->ended_time_ms == 0)
		info->ended_time_ms = info->change_time_ms;
	if (last != NULL)
		info->index = last->index;
	sluice__job_history_row__free_unpacked(intent, NULL);
	sluice__job_history_row__free_unpacked(ref, NULL);
	sluice__job_history_row__free_unpacked(report, NULL);
	sluice__job_history_row__free_unpacked(last, NULL);
	return rc;
}

int job_info_record(struct query *q, uint64_t number, bool payload, Sluice__JobInfo *info)
{
	struct job_record record;
	Sluice__JobSubmit *meta;
	int rc = job_record_get(q->txn, q->gateway, number, &record);

	if (rc == 0)
		rc = job_record_meta(&record, &meta);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	info->submit_time_ms = record.submit_ms;
	rc = job_info_text(&info->job, meta->job);
	if (rc == 0)
		rc = job_info_text(&info->queue, meta->queue);
	if (rc == 0)
		rc = job_info_text(&info->owner, meta->owner);
	sluice__job_submit__free_unpacked(meta, NULL);
	if (rc != 0 || !payload || record.payload.len == 0)
		return rc;
	info->payload.data = malloc(record.payload.len);
	if (info->payload.data == NULL)
		return SLUICE_E_NOMEM;
	memcpy(info->payload.data, record.payload.data, record.payload.len);
	info->payload.len = record.payload.len;
	return 0;
}

/* The name of a live session; "" otherwise. */
static int holder_name(struct query *q, uint64_t session, char **at)
{
	char *name;
	int rc = session_label(q->txn, q->gateway, session, &name);

	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc == 0)
		rc = job_info_text(at, name);
	if (rc == 0)
		free(name);
	return rc;
}

int job_info_live(struct query *q, const struct job_live *live, const struct lifecycle *lifecycle,
		  Sluice__JobInfo *info)
{
	char judge[SOURCE_NAME_BYTES];
	int rc = job_info_text(&info->lifecycle, lifecycle->config->name);

	if (rc == 0)
		rc = job_info_text(&info->state, lifecycle_state_name(lifecycle, live->state));
	if (rc == 0)
		rc = job_info_text(&info->claim, job_claim_name(live->claim));
	if (rc == 0 && live->holder != 0)
		rc = holder_name(q, live->holder, &info->holder);
	if (rc == 0 && live->source != 0) {
		rc = source_name_get(q->txn, q->gateway, live->source, judge);
		if (rc == 0)
			rc = job_info_text(&info->judge, judge);
	}
	info->terminal = lifecycle_is_terminal(lifecycle, live->state);
	info->attempt = live->attempt;
	info->token = live->token;
	info->holder_session =
		live->claim == JOB_LEASED || live->claim == JOB_ORPHANED ? live->holder : 0;
	info->cancel = (live->flags & JOB_CANCEL) != 0;
	info->intent = (live->flags & JOB_INTENT) != 0;
	info->priority = live->priority;
	info->change_time_ms = live->changed_ms;
	return rc;
}

int job_info_fill(struct query *q, uint64_t number, const struct job_live *live,
		  const struct lifecycle *lifecycle, bool payload, Sluice__JobInfo **ret)
{
	Sluice__JobInfo *info = malloc(sizeof(*info));
	int rc;

	if (info == NULL)
		return SLUICE_E_NOMEM;
	sluice__job_info__init(info);
	info->number = number;
	rc = live->state < lifecycle->state_count ? job_info_live(q, live, lifecycle, info)
						  : store_damaged("its content is not valid");
	if (rc == 0)
		rc = job_info_record(q, number, payload, info);
	if (rc == 0)
		rc = info_history(q, live, info);
	if (rc != 0) {
		sluice__job_info__free_unpacked(info, NULL);
		return rc;
	}
	*ret = info;
	return 0;
}

int job_info_make(struct query *q, uint64_t number, bool payload, Sluice__JobInfo **ret)
{
	struct lifecycle *lifecycle;
	struct job_live live;
	int rc = job_live_get(q->txn, q->gateway, number, &live);

	if (rc == 0)
		rc = lifecycle_load(q->txn, q->gateway, live.lifecycle, &lifecycle);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	rc = job_info_fill(q, number, &live, lifecycle, payload, ret);
	lifecycle_free(lifecycle);
	return rc;
}
