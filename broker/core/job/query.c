/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads of the ledger: show, list, history. They run on any thread over a snapshot; every text in
 * the reply is malloc'd, as the reply's free_unpacked expects. A list is in order of submission
 * (job numbers); its filters read only live records, so each excluded row costs one small read.
 */
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/name.h"
#include "broker/core/base/reply.h"
#include "broker/core/job/history.h"
#include "broker/core/job/info.h"
#include "broker/core/job/quarantine.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "broker/core/session/session.h"
#include "protocol/limits.h"

/* ---- one job ---- */

static int job_show(struct query *q, const Sluice__JobShow *m)
{
	Sluice__Reply *reply = q->reply;
	uint64_t number;
	int rc = job_query_find(q, m->job, &number);

	if (rc != 0 || number == 0)
		return rc;
	reply->jobs = malloc(sizeof(*reply->jobs));
	if (reply->jobs == NULL)
		return SLUICE_E_NOMEM;
	rc = job_info_make(q, number, m->payload, &reply->jobs[0]);
	reply->n_jobs = rc == 0 ? 1 : 0;
	return rc;
}

/* ---- list ---- */

enum { DAMAGE_TEXT_BYTES = 300 };

struct list {
	const Sluice__JobList *m;
	uint64_t queue;		     /* 0: any */
	struct lifecycle *lifecycle; /* of the last row */
	size_t max;
};

static int list_lifecycle(struct query *q, struct list *list, uint64_t id)
{
	struct lifecycle *lifecycle;
	int rc;

	if (list->lifecycle != NULL && list->lifecycle->id == id)
		return 0;
	rc = lifecycle_load(q->txn, q->gateway, id, &lifecycle);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	lifecycle_free(list->lifecycle);
	list->lifecycle = lifecycle;
	return 0;
}

static int list_wants(struct query *q, struct list *list, const struct job_live *live, bool *ret)
{
	int rc;

	*ret = false;
	if (list->queue != 0 && live->queue != list->queue)
		return 0;
	if (list->m->claim[0] != '\0' && strcmp(list->m->claim, job_claim_name(live->claim)) != 0)
		return 0;
	if (list->m->open_only && live->claim == JOB_NONE)
		return 0;
	*ret = true;
	if (list->m->state[0] == '\0')
		return 0;
	rc = list_lifecycle(q, list, live->lifecycle);
	if (rc == 0 && live->state >= list->lifecycle->state_count)
		rc = store_damaged("its content is not valid");
	*ret = rc == 0 &&
	       strcmp(list->m->state, lifecycle_state_name(list->lifecycle, live->state)) == 0;
	return rc;
}

static int list_row(struct query *q, struct list *list, uint64_t number,
		    const struct job_live *live)
{
	Sluice__Reply *reply = q->reply;
	int rc = list_lifecycle(q, list, live->lifecycle);

	if (rc == 0)
		rc = job_info_fill(q, number, live, list->lifecycle, false,
				   &reply->jobs[reply->n_jobs]);
	reply->n_jobs += rc == 0;
	return rc;
}

static int damaged_fill(struct query *q, struct list *list, uint64_t number,
			const struct job_live *live, Sluice__JobInfo *info)
{
	char text[DAMAGE_TEXT_BYTES];
	int rc;

	snprintf(text, sizeof(text), "damaged: %s", store_last_error()); /* before the next read */
	rc = job_info_text(&info->evidence, text);
	info->number = number;
	if (rc == 0 && live != NULL && list_lifecycle(q, list, live->lifecycle) == 0 &&
	    live->state < list->lifecycle->state_count)
		rc = job_info_live(q, live, list->lifecycle, info);
	if (rc == 0 || rc == SLUICE_E_CORRUPT)
		rc = job_info_record(q, number, false, info);
	return rc == SLUICE_E_CORRUPT ? 0 : rc;
}

/* A damaged job does not end a list: its row says so in `evidence`, and has the readable data:
 * always the number, with which a holder finds the job when it compares the list with its own.
 * live: NULL when it cannot be read. */
static int list_damaged(struct query *q, struct list *list, uint64_t number,
			const struct job_live *live)
{
	Sluice__Reply *reply = q->reply;
	Sluice__JobInfo *info = malloc(sizeof(*info));
	int rc;

	if (info == NULL)
		return SLUICE_E_NOMEM;
	sluice__job_info__init(info);
	rc = damaged_fill(q, list, number, live, info);
	if (rc != 0)
		sluice__job_info__free_unpacked(info, NULL);
	else
		reply->jobs[reply->n_jobs++] = info;
	return rc;
}

/* value: of the live record; NULL when the entry of a session was found, or it cannot be read. */
static int list_visit(struct query *q, struct list *list, uint64_t number,
		      const struct sluice_slice *value, bool *ret_full)
{
	struct job_live live;
	bool wanted = true, readable;
	int rc = value != NULL			? job_live_decode(*value, &live)
		 : list->m->holder_session != 0 ? job_live_get(q->txn, q->gateway, number, &live)
						: SLUICE_E_CORRUPT;

	*ret_full = false;
	/* A lease of a missing job is damage, and does not end the list. */
	if (rc == SLUICE_E_NOT_FOUND)
		rc = store_damaged("it is missing, and a session holds the job");
	readable = rc == 0;
	if (readable)
		rc = list_wants(q, list, &live, &wanted);
	/* The state is not known then: a filtered list includes the job. */
	wanted |= rc == SLUICE_E_CORRUPT;
	if (rc != 0 && rc != SLUICE_E_CORRUPT)
		return rc;
	if (wanted && q->reply->n_jobs == list->max) {
		q->reply->more = true;
		*ret_full = true;
		return 0;
	}
	q->at.number = number;
	if (wanted && rc == 0)
		rc = list_row(q, list, number, &live);
	return rc == SLUICE_E_CORRUPT ? list_damaged(q, list, number, readable ? &live : NULL) : rc;
}

/* Jobs after q->at.number; those of one session by its own entries, so that the cost depends on
 * their number only. */
static int list_walk(struct query *q, struct list *list)
{
	uint64_t holder = list->m->holder_session;
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct key from;
	bool full = false;
	int rc;

	if (holder != 0)
		key_owned(&from, q->gateway, holder, OWNED_JOB, q->at.number + 1);
	else
		key_one(&from, q->gateway, q->at.number + 1);
	rc = store_scan_begin(q->txn, holder != 0 ? STORE_OWNED : STORE_LIVE, key_slice(&from),
			      &scan);
	if (rc != 0)
		return rc;
	while (rc == 0 && !full && !q->again) {
		uint64_t number;
		bool readable;

		found.len = 0;
		rc = store_scan_next(scan, &found, &value);
		if (rc != 0 && (rc != SLUICE_E_CORRUPT || found.len == 0))
			break;
		readable = rc == 0;
		rc = 0;
		if (holder != 0 ? !key_owned_in(found, q->gateway, holder, OWNED_JOB, &number)
				: !key_one_in(found, q->gateway, &number))
			break;
		rc = list_visit(q, list, number, readable && holder == 0 ? &value : NULL, &full);
		if (rc == 0 && !full)
			q->again = query_spent(q);
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static bool claim_is_known(const char *claim)
{
	for (int i = 0; i < JOB_CLAIM_COUNT; i++)
		if (strcmp(claim, job_claim_name((uint8_t)i)) == 0)
			return true;
	return false;
}

/* Names are looked up once: q->at.number and q->at.other keep the numbers. */
static int list_filters(struct query *q, const Sluice__JobList *m)
{
	int rc = 0;

	q->at.number = m->after_number;
	if (m->claim[0] != '\0' && !claim_is_known(m->claim))
		return query_refuse(q, SLUICE_E_INVAL,
				    "claim is '%.60s'; expected none, ready, leased, orphaned, "
				    "gated or held",
				    m->claim);
	if (m->after[0] != '\0' && m->after_number == 0)
		rc = job_query_find(q, m->after, &q->at.number);
	if (rc != 0 || q->reply->code != 0 || m->queue[0] == '\0')
		return rc;
	rc = name_find(q->txn, q->gateway, NAME_QUEUE, slice_text(m->queue), &q->at.other);
	return rc == SLUICE_E_NOT_FOUND ? query_refuse(q, SLUICE_E_NOT_FOUND,
						       "queue %.255s does not exist", m->queue)
					: rc;
}

static int job_list(struct query *q, const Sluice__JobList *m)
{
	struct list list = {.m = m, .max = rows_max(m->max)};
	int rc = 0;

	if (q->at.phase == 0) {
		rc = list_filters(q, m);
		if (rc != 0 || q->reply->code != 0 || q->at.number == UINT64_MAX)
			return rc;
		q->reply->jobs = calloc(list.max, sizeof(*q->reply->jobs));
		if (q->reply->jobs == NULL)
			return SLUICE_E_NOMEM;
		q->at.phase = 1;
	}
	list.queue = q->at.other;
	rc = list_walk(q, &list);
	lifecycle_free(list.lifecycle);
	return rc;
}

/* ---- history: the newest LIST_ROWS_MAX rows, oldest first ---- */

static int history_begin(struct query *q, const Sluice__JobHistory *m)
{
	struct job_live live;
	uint64_t number;
	size_t count;
	int rc = job_query_find(q, m->job, &number);

	if (rc != 0 || number == 0)
		return rc;
	rc = job_live_get(q->txn, q->gateway, number, &live);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	count = live.hist_count < LIMIT_LIST_ROWS_MAX ? live.hist_count : LIMIT_LIST_ROWS_MAX;
	q->reply->history = calloc(count + 1, sizeof(*q->reply->history));
	if (q->reply->history == NULL)
		return SLUICE_E_NOMEM;
	q->at.phase = 1;
	q->at.number = live.hist_last;
	q->at.other = count;
	q->at.of = number;
	return 0;
}

/* Rows are deleted from the newest back, between turns, too: the list continues with the remaining
 * ones, or ends. */
static int history_forgotten(struct query *q)
{
	struct job_live live;
	int rc = job_live_get(q->txn, q->gateway, q->at.of, &live);

	if (rc == 0 && live.hist_last < q->at.number)
		q->at.number = live.hist_last;
	else if (rc == SLUICE_E_NOT_FOUND)
		q->at.number = 0;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* From the newest row, q->at.number, back, as many rows as fit. */
static int job_history(struct query *q, const Sluice__JobHistory *m)
{
	Sluice__Reply *reply = q->reply;
	struct job_history_row row;
	int rc = q->at.phase == 0 ? history_begin(q, m) : 0;

	if (rc == 0 && q->at.phase != 0)
		rc = history_forgotten(q);
	if (rc != 0 || q->at.phase == 0)
		return rc;
	while (rc == 0 && q->at.number != 0 && reply->n_history < q->at.other && !q->again) {
		Sluice__JobHistoryRow *loaded = NULL;

		rc = job_history_load(q->txn, q->gateway, q->at.number, &loaded);
		if (loaded != NULL)
			reply->history[reply->n_history++] = loaded;
		if (rc == 0)
			rc = job_history_get(q->txn, q->gateway, q->at.number, &row);
		if (rc == 0)
			q->at.number = row.previous;
		q->again = rc == 0 && query_spent(q);
	}
	if (rc != 0 || q->again)
		return rc;
	reply->more = q->at.number != 0;
	for (size_t i = 0; i < reply->n_history / 2; i++) {
		Sluice__JobHistoryRow *swap = reply->history[i];

		reply->history[i] = reply->history[reply->n_history - 1 - i];
		reply->history[reply->n_history - 1 - i] = swap;
	}
	return 0;
}

int job_query(struct query *q, const Sluice__Request *request)
{
	switch (request->op_case) {
	case SLUICE__REQUEST__OP_JOB_SHOW:
		return job_show(q, request->job_show);
	case SLUICE__REQUEST__OP_JOB_LIST:
		return job_list(q, request->job_list);
	case SLUICE__REQUEST__OP_JOB_HISTORY:
		return job_history(q, request->job_history);
	case SLUICE__REQUEST__OP_JOB_EXPLAIN:
		return job_explain(q, request->job_explain);
	case SLUICE__REQUEST__OP_AUDIT:
		return audit_query(q, request->audit);
	case SLUICE__REQUEST__OP_QUARANTINE_LIST:
		return quarantine_list(q, request->quarantine_list);
	default:
		return SLUICE_E_UNSUPPORTED;
	}
}
