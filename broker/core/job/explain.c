/* SPDX-License-Identifier: Apache-2.0
 * explain: one call that describes, in sentences, the situation of a job: its holder and since
 * when, what it waits for, which limit blocks it, and what happens next. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/base/reply.h"
#include "broker/core/job/history.h"
#include "broker/core/job/source.h"
#include "broker/core/queue/record.h"
#include "protocol/text.h"

enum { LINES_MAX = 16, LINE_BYTES_MAX = 1500, EXIT_BYTES = 32 };

struct lines {
	char **texts;
	size_t count;
	int rc;
};

static void line(struct lines *lines, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
static void line(struct lines *lines, const char *format, ...)
{
	char text[LINE_BYTES_MAX];
	va_list args;

	if (lines->rc != 0 || lines->count == LINES_MAX)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_repair(text);
	lines->texts[lines->count] = strdup(text);
	if (lines->texts[lines->count] == NULL)
		lines->rc = SLUICE_E_NOMEM;
	else
		lines->count++;
}

const char *job_age(char buf[AGE_BYTES], uint64_t ms)
{
	if (ms < 120000)
		snprintf(buf, AGE_BYTES, "%llu.%01llu s", (unsigned long long)(ms / 1000),
			 (unsigned long long)(ms % 1000 / 100));
	else if (ms < 7200000)
		snprintf(buf, AGE_BYTES, "%llu min", (unsigned long long)(ms / 60000));
	else if (ms < 172800000)
		snprintf(buf, AGE_BYTES, "%llu h", (unsigned long long)(ms / 3600000));
	else
		snprintf(buf, AGE_BYTES, "%llu days", (unsigned long long)(ms / 86400000));
	return buf;
}

static const char *since(char *buf, const struct query *q, uint64_t wall_ms)
{
	return job_age(buf, q->clock.wall_ms > wall_ms ? q->clock.wall_ms - wall_ms : 0);
}

static bool makes_claim(const Sluice__JobHistoryRow *row)
{
	static const char *const events[] = {"claim",	"takeover", "orphan",
					     "release", "submit",   "reset"};

	for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
		if (strcmp(row->event, events[i]) == 0)
			return true;
	return false;
}

/* Reads the row *io_n, and sets *io_n to the one before; 0 once it was the row of the claim, whose
 * time is then in *io_ms. */
static int claim_row(struct query *q, uint64_t *io_n, uint64_t *io_ms)
{
	struct job_history_row at;
	Sluice__JobHistoryRow *row;
	int rc = job_history_get(q->txn, q->gateway, *io_n, &at);

	if (rc == 0)
		rc = job_history_load(q->txn, q->gateway, *io_n, &row);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	*io_n = at.previous;
	if (makes_claim(row)) {
		*io_ms = row->time_ms;
		*io_n = 0;
	}
	sluice__job_history_row__free_unpacked(row, NULL);
	return 0;
}

enum { CLAIM_ROWS_MAX = 1000 };

/* Time of the claim: the search for it, its position, and its result, over several turns. */
struct search {
	uint64_t newest; /* row at its beginning */
	uint64_t at;	 /* next row to read; 0: finished */
	uint64_t ms;	 /* begin of the claim */
	uint32_t rows;
};

/* Time when the current claim began: from its newest row, at most a thousand rows back. With
 * q->again it is not known yet. Rows recorded between turns are newer, and read when the others are
 * done. */
static int claim_began(struct query *q, const struct job_live *live, struct search *search)
{
	uint64_t n = live->hist_last, ms = 0;
	int rc = 0;

	/* Rows are deleted from the newest back. */
	if (search->at > live->hist_last)
		search->at = live->hist_last;
	while (rc == 0 && search->at != 0 && search->rows++ < CLAIM_ROWS_MAX) {
		rc = claim_row(q, &search->at, &search->ms);
		q->again = rc == 0 && search->at != 0 && query_spent(q);
		if (q->again)
			return 0;
	}
	for (int rows = 0; rc == 0 && n > search->newest && rows < CLAIM_ROWS_MAX; rows++)
		rc = claim_row(q, &n, &ms);
	if (ms != 0)
		search->ms = ms;
	return rc;
}

static int explain_ready(struct query *q, struct lines *lines, const struct job_live *live,
			 const Sluice__JobInfo *info, const char *waited)
{
	struct queue_cell cell;
	int rc = queue_cell_get(q->txn, q->gateway, live->queue, &cell);

	if (rc != 0)
		return rc;
	line(lines,
	     "It is ready in queue %s since %s, as entry %llu of a queue with %llu ready and %llu "
	     "leased jobs.",
	     info->queue, waited, (unsigned long long)live->entry, (unsigned long long)cell.ready,
	     (unsigned long long)cell.leased);
	if (cell.priority)
		line(lines, "The queue is ordered by priority; this job has %u of 255.",
		     live->priority);
	line(lines,
	     "Next: it is delivered to a consumer of queue %s that has credit. "
	     "If nothing happens, no consumer has credit: see the queue.",
	     info->queue);
	return 0;
}

/* The source that can judge the attempt, and when it was last seen; for an orphan, how many wait
 * with it. */
static int explain_source(struct query *q, struct lines *lines, const struct job_live *live,
			  const Sluice__JobInfo *info)
{
	char seen[AGE_BYTES], waiting[AGE_BYTES];
	struct source source;
	int rc;

	if (live->source == 0)
		return 0;
	rc = source_get(q->txn, q->gateway, live->source, &source);
	if (rc != 0)
		return rc;
	since(seen, q, source.seen_ms);
	if (live->claim == JOB_ORPHANED)
		line(lines,
		     "Only source %s can judge it: its last heartbeat was %s ago, from "
		     "session %llu. %llu orphaned jobs wait for it, since %s.",
		     info->judge, seen, (unsigned long long)source.session,
		     (unsigned long long)source.orphans, since(waiting, q, source.waiting_ms));
	else
		line(lines,
		     "Source %s judges it: its last heartbeat was %s ago, from session "
		     "%llu%s.",
		     info->judge, seen, (unsigned long long)source.session,
		     source.session == live->holder ? ""
						    : ", which is not the holder: the holder "
						      "cannot judge the job any more");
	return 0;
}

static void explain_next(struct lines *lines, const struct job_live *live,
			 const Sluice__JobInfo *info)
{
	if (live->claim == JOB_LEASED)
		line(lines,
		     "Next: its holder reports%s. If the holder's session ends, the job is "
		     "orphaned, not queued again.",
		     info->tag[0] != '\0' ? "" : " an intent, or releases it");
	else if (live->source != 0)
		line(lines,
		     "Next: a consumer of source %s takes it over with a higher token "
		     "and determines the state of the work; if the source is gone for "
		     "good, report evidence or reset the job.",
		     info->judge);
	else
		line(lines, "Next: a consumer that takes orphans takes it over with a higher "
			    "token and determines the state of the work; or a client reports "
			    "evidence.");
}

static void explain_held(struct lines *lines, const struct job_live *live,
			 const Sluice__JobInfo *info, const char *held)
{
	const char *tag = live->flags & JOB_INTENT ? info->tag : "";

	if (live->claim == JOB_LEASED)
		line(lines,
		     "It is held by session %llu%s%s%s since %s, under token %llu; the lease has "
		     "no "
		     "deadline.",
		     (unsigned long long)live->holder, info->holder[0] != '\0' ? " (" : "",
		     info->holder, info->holder[0] != '\0' ? ")" : "", held,
		     (unsigned long long)live->token);
	else
		line(lines,
		     "It is orphaned since %s: session %llu held it under token %llu "
		     "and released it or ended.",
		     held, (unsigned long long)live->holder, (unsigned long long)live->token);
	if (tag[0] != '\0')
		line(lines, "The intent to start it is recorded with tag %s: the work may exist.",
		     tag);
	else
		line(lines, "No intent is recorded in this attempt: the work was not started under "
			    "this lease.");
	if (info->scheduler_ref[0] != '\0')
		line(lines, "Its scheduler reference is %s.", info->scheduler_ref);
}

static void explain_end(struct lines *lines, const Sluice__JobInfo *info)
{
	line(lines, "%s is a terminal state: no report changes it. Only a reset opens attempt %u.",
	     info->state, info->attempt + 1);
}

/* Without an exit code none is shown: a failed job did not end with 0. */
static const char *exit_text(char buf[EXIT_BYTES], const Sluice__JobInfo *info)
{
	buf[0] = 0;
	if (info->signal != 0)
		snprintf(buf, EXIT_BYTES, ", signal %u", info->signal);
	else if (info->exited)
		snprintf(buf, EXIT_BYTES, ", exit code %d", info->exit_code);
	return buf;
}

static int explain_lines(struct query *q, struct lines *lines, const struct job_live *live,
			 const Sluice__JobInfo *info, uint64_t began)
{
	char changed[AGE_BYTES], held[AGE_BYTES], left[AGE_BYTES], exited[EXIT_BYTES],
		said[AGE_BYTES];
	struct job_history_brief last;
	int rc = 0;

	line(lines, "Job %s is %s in attempt %u, since %s.", info->job, info->state, info->attempt,
	     since(changed, q, live->changed_ms));
	since(held, q, began);
	switch ((enum job_claim)live->claim) {
	case JOB_NONE:
		explain_end(lines, info);
		break;
	case JOB_READY:
		rc = explain_ready(q, lines, live, info, held);
		break;
	case JOB_LEASED:
	case JOB_ORPHANED:
		explain_held(lines, live, info, held);
		rc = job_history_brief(q->txn, q->gateway, live->hist_last, &last);
		if (rc == 0)
			line(lines, "Its last record was made %s ago.",
			     since(said, q, last.time_ms));
		if (rc == 0)
			rc = explain_source(q, lines, live, info);
		explain_next(lines, live, info);
		break;
	case JOB_GATED:
		job_age(left, live->due_mono_ms > q->clock.mono_ms
				      ? live->due_mono_ms - q->clock.mono_ms
				      : 0);
		line(lines, "It was released with a delay %s ago; it goes back to queue %s in %s.",
		     held, info->queue, left);
		break;
	case JOB_HELD:
	case JOB_CLAIM_COUNT:
		line(lines, "It is held.");
		break;
	}
	if (!info->terminal && info->cancel)
		line(lines, "Cancel was requested: %s.",
		     info->intent ? "the holder was notified, and evidence ends the job"
				  : "an intent is refused");
	if (info->source[0] != '\0')
		line(lines, "Last report: from %s%s%s%s.", info->source,
		     info->evidence[0] != '\0' ? ": " : "", info->evidence,
		     exit_text(exited, info));
	return rc;
}

static int search_begin(struct query *q, const char *id)
{
	struct search *search;
	struct job_live live;
	uint64_t number;
	int rc = job_query_find(q, id, &number);

	if (rc != 0 || number == 0)
		return rc;
	rc = job_live_get(q->txn, q->gateway, number, &live);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	search = calloc(1, sizeof(*search));
	if (search == NULL)
		return SLUICE_E_NOMEM;
	*search = (struct search){live.hist_last, live.hist_last, live.changed_ms, 0};
	q->at.state = search;
	q->at.state_free = free;
	q->at.of = number;
	return 0;
}

static int explain(struct query *q, const struct job_live *live, uint64_t began)
{
	Sluice__JobExplained *explained = malloc(sizeof(*explained));
	struct lines lines = {0};
	int rc;

	if (explained == NULL)
		return SLUICE_E_NOMEM;
	sluice__job_explained__init(explained);
	q->reply->explained = explained;
	lines.texts = calloc(LINES_MAX, sizeof(*lines.texts));
	explained->lines = lines.texts;
	rc = lines.texts != NULL ? job_info_make(q, q->at.of, false, &explained->job)
				 : SLUICE_E_NOMEM;
	if (rc == 0)
		rc = explain_lines(q, &lines, live, explained->job, began);
	explained->n_lines = lines.count;
	return rc != 0 ? rc : lines.rc;
}

int job_explain(struct query *q, const Sluice__JobExplain *m)
{
	struct search *search;
	struct job_live live;
	int rc = q->at.state == NULL ? search_begin(q, m->job) : 0;

	search = q->at.state;
	if (rc != 0 || search == NULL)
		return rc;
	rc = job_live_get(q->txn, q->gateway, q->at.of, &live);
	if (rc == SLUICE_E_NOT_FOUND)
		return query_refuse(q, rc, "job %.255s was forgotten", m->job);
	if (rc == 0)
		rc = claim_began(q, &live, search);
	return rc != 0 || q->again ? rc : explain(q, &live, search->ms);
}
