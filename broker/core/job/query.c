/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads of the ledger: show, list, history. They run on any thread over a snapshot; every text in the reply
 * is malloc'd, as the reply's free_unpacked expects. A list goes in the order of submission (job numbers);
 * its filters look at live records only, so rows that are left out cost one small read each. */
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
	int err = job_query_find(q, m->job, &number);

	if (err != 0 || number == 0)
		return err;
	reply->jobs = malloc(sizeof(*reply->jobs));
	if (reply->jobs == NULL)
		return SLUICE_E_NOMEM;
	err = job_info_make(q, number, m->payload, &reply->jobs[0]);
	reply->n_jobs = err == 0 ? 1 : 0;
	return err;
}

/* ---- list ---- */

enum { DAMAGE_TEXT_BYTES = 300 };

struct list {
	const Sluice__JobList *m;
	uint64_t queue;		     /* 0: any */
	struct lifecycle *lifecycle; /* of the last row looked at */
	size_t max;
};

static int list_lifecycle(struct query *q, struct list *list, uint64_t id)
{
	struct lifecycle *lifecycle;
	int err;

	if (list->lifecycle != NULL && list->lifecycle->id == id)
		return 0;
	err = lifecycle_load(q->txn, q->gateway, id, &lifecycle);
	if (err != 0)
		return err == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : err;
	lifecycle_free(list->lifecycle);
	list->lifecycle = lifecycle;
	return 0;
}

static int list_wants(struct query *q, struct list *list, const struct job_live *live, bool *ret)
{
	int err;

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
	err = list_lifecycle(q, list, live->lifecycle);
	if (err == 0 && live->state >= list->lifecycle->state_count)
		err = store_damaged("its content is not valid");
	*ret = err == 0 && strcmp(list->m->state, lifecycle_state_name(list->lifecycle, live->state)) == 0;
	return err;
}

static int list_row(struct query *q, struct list *list, uint64_t number, const struct job_live *live)
{
	Sluice__Reply *reply = q->reply;
	int err = list_lifecycle(q, list, live->lifecycle);

	if (err == 0)
		err = job_info_fill(q, number, live, list->lifecycle, false, &reply->jobs[reply->n_jobs]);
	reply->n_jobs += err == 0;
	return err;
}

static int damaged_fill(struct query *q, struct list *list, uint64_t number, const struct job_live *live,
			Sluice__JobInfo *info)
{
	char text[DAMAGE_TEXT_BYTES];
	int err;

	snprintf(text, sizeof(text), "damaged: %s", store_last_error()); /* before the next read */
	err = job_info_text(&info->evidence, text);
	info->number = number;
	if (err == 0 && live != NULL && list_lifecycle(q, list, live->lifecycle) == 0 &&
	    live->state < list->lifecycle->state_count)
		err = job_info_live(q, live, list->lifecycle, info);
	if (err == 0 || err == SLUICE_E_CORRUPT)
		err = job_info_record(q, number, false, info);
	return err == SLUICE_E_CORRUPT ? 0 : err;
}

/* One damaged job does not end a list: its row says so in `evidence`, and has what can be read: the number always, by which a holder that compares
 * the list with what it has finds it there. live: NULL when that cannot be read. */
static int list_damaged(struct query *q, struct list *list, uint64_t number, const struct job_live *live)
{
	Sluice__Reply *reply = q->reply;
	Sluice__JobInfo *info = malloc(sizeof(*info));
	int err;

	if (info == NULL)
		return SLUICE_E_NOMEM;
	sluice__job_info__init(info);
	err = damaged_fill(q, list, number, live, info);
	if (err != 0)
		sluice__job_info__free_unpacked(info, NULL);
	else
		reply->jobs[reply->n_jobs++] = info;
	return err;
}

/* value: of the live record; NULL when a session's entry was found, or it cannot be read. */
static int list_visit(struct query *q, struct list *list, uint64_t number, const struct sluice_slice *value,
		      bool *ret_full)
{
	struct job_live live;
	bool wanted = true, readable;
	int err = value != NULL			 ? job_live_decode(*value, &live)
		  : list->m->holder_session != 0 ? job_live_get(q->txn, q->gateway, number, &live)
						 : SLUICE_E_CORRUPT;

	*ret_full = false;
	/* A lease of a job that is not there is damage, and not the end of the list. */
	if (err == SLUICE_E_NOT_FOUND)
		err = store_damaged("it is missing, and a session holds the job");
	readable = err == 0;
	if (readable)
		err = list_wants(q, list, &live, &wanted);
	/* What it is can then not be said: whoever looks for it should see it. */
	wanted |= err == SLUICE_E_CORRUPT;
	if (err != 0 && err != SLUICE_E_CORRUPT)
		return err;
	if (wanted && q->reply->n_jobs == list->max) {
		q->reply->more = true;
		*ret_full = true;
		return 0;
	}
	q->at.number = number;
	if (wanted && err == 0)
		err = list_row(q, list, number, &live);
	return err == SLUICE_E_CORRUPT ? list_damaged(q, list, number, readable ? &live : NULL) : err;
}

/* Jobs behind q->at.number; those that one session holds by its own entries, so that it costs as many looks as it has. */
static int list_walk(struct query *q, struct list *list)
{
	uint64_t holder = list->m->holder_session;
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct key from;
	bool full = false;
	int err;

	if (holder != 0)
		key_owned(&from, q->gateway, holder, OWNED_JOB, q->at.number + 1);
	else
		key_one(&from, q->gateway, q->at.number + 1);
	err = store_scan_begin(q->txn, holder != 0 ? STORE_OWNED : STORE_LIVE, key_slice(&from), &scan);
	if (err != 0)
		return err;
	while (err == 0 && !full && !q->again) {
		uint64_t number;
		bool readable;

		found.len = 0;
		err = store_scan_next(scan, &found, &value);
		if (err != 0 && (err != SLUICE_E_CORRUPT || found.len == 0))
			break;
		readable = err == 0;
		err = 0;
		if (holder != 0 ? !key_owned_in(found, q->gateway, holder, OWNED_JOB, &number)
				: !key_one_in(found, q->gateway, &number))
			break;
		err = list_visit(q, list, number, readable && holder == 0 ? &value : NULL, &full);
		if (err == 0 && !full)
			q->again = query_spent(q);
	}
	store_scan_end(scan);
	return err == SLUICE_E_NOT_FOUND ? 0 : err;
}

static bool claim_is_known(const char *claim)
{
	for (int i = 0; i < JOB_CLAIM_COUNT; i++)
		if (strcmp(claim, job_claim_name((uint8_t)i)) == 0)
			return true;
	return false;
}

/* Names are looked up once: q->at.number and q->at.other keep their numbers. */
static int list_filters(struct query *q, const Sluice__JobList *m)
{
	int err = 0;

	q->at.number = m->after_number;
	if (m->claim[0] != '\0' && !claim_is_known(m->claim))
		return query_refuse(q, SLUICE_E_INVAL,
				    "claim is '%.60s'; expected none, ready, leased, orphaned, gated or held",
				    m->claim);
	if (m->after[0] != '\0' && m->after_number == 0)
		err = job_query_find(q, m->after, &q->at.number);
	if (err != 0 || q->reply->code != 0 || m->queue[0] == '\0')
		return err;
	err = name_find(q->txn, q->gateway, NAME_QUEUE, slice_text(m->queue), &q->at.other);
	return err == SLUICE_E_NOT_FOUND
		       ? query_refuse(q, SLUICE_E_NOT_FOUND, "queue %.255s does not exist", m->queue)
		       : err;
}

static int job_list(struct query *q, const Sluice__JobList *m)
{
	struct list list = {.m = m, .max = rows_max(m->max)};
	int err = 0;

	if (q->at.phase == 0) {
		err = list_filters(q, m);
		if (err != 0 || q->reply->code != 0 || q->at.number == UINT64_MAX)
			return err;
		q->reply->jobs = calloc(list.max, sizeof(*q->reply->jobs));
		if (q->reply->jobs == NULL)
			return SLUICE_E_NOMEM;
		q->at.phase = 1;
	}
	list.queue = q->at.other;
	err = list_walk(q, &list);
	lifecycle_free(list.lifecycle);
	return err;
}

/* ---- history: the newest LIST_ROWS_MAX rows, oldest first ---- */

static int history_begin(struct query *q, const Sluice__JobHistory *m)
{
	struct job_live live;
	uint64_t number;
	size_t count;
	int err = job_query_find(q, m->job, &number);

	if (err != 0 || number == 0)
		return err;
	err = job_live_get(q->txn, q->gateway, number, &live);
	if (err != 0)
		return err == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : err;
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

/* Rows are forgotten from the newest back, between turns, too: the list goes on with what is
 * left of them, or ends. */
static int history_forgotten(struct query *q)
{
	struct job_live live;
	int err = job_live_get(q->txn, q->gateway, q->at.of, &live);

	if (err == 0 && live.hist_last < q->at.number)
		q->at.number = live.hist_last;
	else if (err == SLUICE_E_NOT_FOUND)
		q->at.number = 0;
	return err == SLUICE_E_NOT_FOUND ? 0 : err;
}

/* From the newest row, q->at.number, back to the other end of what there is room for. */
static int job_history(struct query *q, const Sluice__JobHistory *m)
{
	Sluice__Reply *reply = q->reply;
	struct job_history_row row;
	int err = q->at.phase == 0 ? history_begin(q, m) : 0;

	if (err == 0 && q->at.phase != 0)
		err = history_forgotten(q);
	if (err != 0 || q->at.phase == 0)
		return err;
	while (err == 0 && q->at.number != 0 && reply->n_history < q->at.other && !q->again) {
		Sluice__JobHistoryRow *loaded = NULL;

		err = job_history_load(q->txn, q->gateway, q->at.number, &loaded);
		if (loaded != NULL)
			reply->history[reply->n_history++] = loaded;
		if (err == 0)
			err = job_history_get(q->txn, q->gateway, q->at.number, &row);
		if (err == 0)
			q->at.number = row.previous;
		q->again = err == 0 && query_spent(q);
	}
	if (err != 0 || q->again)
		return err;
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
