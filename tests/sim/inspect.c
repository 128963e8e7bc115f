/* SPDX-License-Identifier: Apache-2.0
 * Reads, as administrators and clients make them: streams from first to next, counts, jobs,
 * sessions, the cursor, the dead letters, the audit. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/core/base/keys.h"
#include "broker/core/base/state.h"
#include "broker/core/job/source.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/sim/sim.h"

static void read_stream(struct sim *s, struct store_txn *txn, const struct target *target)
{
	struct stream_ref stream;
	struct segment g;
	uint64_t offset;

	must(core_stream_find(txn, target->gateway, text(target->name), &stream), "stream");
	oracle_read_begin(s->oracle, target->stream, stream.first_offset, stream.next_offset);
	offset = stream.first_offset;
	while (core_segment_read(txn, target->gateway, stream.log, offset, &g) == 0) {
		struct sluice_slice rest = g.payload;

		for (uint64_t at = g.base; rest.len > 0; at++) {
			struct envelope e;
			const char *why = "";
			char number[32];

			must(envelope_next(&rest, &e, &why), "event");
			snprintf(number, sizeof(number), "%.*s", (int)e.body.len,
				 (const char *)e.body.data);
			if (at >= offset)
				oracle_read(s->oracle, at, strtoull(number, NULL, 10));
		}
		offset = g.last + 1;
	}
	oracle_read_end(s->oracle);
}

/* A member of a job event's JSON: all members are always present. */
static void member(const char *json, const char *name, char *ret, size_t bytes)
{
	char key[24];
	const char *at;
	size_t n = 0;

	snprintf(key, sizeof(key), "\"%s\":", name);
	at = strstr(json, key);
	must(at == NULL ? SLUICE_E_INTERNAL : 0, name);
	at += strlen(key);
	at += *at == '"';
	while (n + 1 < bytes && *at != '"' && *at != ',' && *at != 0)
		ret[n++] = *at++;
	ret[n] = 0;
}

static void job_event(struct sim *s, const struct envelope *e)
{
	char json[1024], job[16], attempt[16], from[64], state[64];

	snprintf(json, sizeof(json), "%.*s", (int)e->body.len, (const char *)e->body.data);
	member(json, "job", job, sizeof(job));
	if (job[0] == 'x')
		return;
	member(json, "attempt", attempt, sizeof(attempt));
	member(json, "from", from, sizeof(from));
	member(json, "state", state, sizeof(state));
	oracle_job_event(s->oracle, atoi(job + 1), (uint32_t)atoi(attempt), from, state);
}

static void read_job_events(struct sim *s, struct store_txn *txn)
{
	struct stream_ref stream;
	struct segment g;
	uint64_t offset = 0;

	must(core_stream_find(txn, 1, text("e"), &stream), "stream");
	oracle_job_events_begin(s->oracle);
	while (core_segment_read(txn, 1, stream.log, offset, &g) == 0) {
		struct sluice_slice rest = g.payload;

		while (rest.len > 0) {
			struct envelope e;
			const char *why = "";

			must(envelope_next(&rest, &e, &why), "event");
			job_event(s, &e);
		}
		offset = g.last + 1;
	}
	oracle_job_events_end(s->oracle);
}

static Sluice__Reply *query(struct sim *s, struct store_txn *txn, const Sluice__Request *request)
{
	struct query_clock clock = {s->now.mono_ms, s->now.wall_ms}; /* no check depends on it */
	uint8_t *packed = NULL;
	size_t bytes = 0;
	Sluice__Reply *r;

	must(core_query(txn, 1, clock, request, &packed, &bytes), "query");
	r = sluice__reply__unpack(NULL, bytes, packed);
	free(packed);
	must(r == NULL ? SLUICE_E_NOMEM : 0, "reply");
	return r;
}

static struct oracle_counts counts_of(struct sim *s, struct store_txn *txn, const char *queue,
				      uint64_t *ret_orphaned)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueShow show = SLUICE__QUEUE_SHOW__INIT;
	struct oracle_counts c = {0};
	Sluice__Reply *r;

	show.name = (char *)queue;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_SHOW, request.queue_show = &show;
	r = query(s, txn, &request);
	if (r->n_queues == 1) {
		const Sluice__QueueInfo *q = r->queues[0];

		c = (struct oracle_counts){q->put,     q->ready, q->leased,
					   q->delayed, q->acked, q->dead_lettered};
		*ret_orphaned = q->orphaned;
	}
	sluice__reply__free_unpacked(r, NULL);
	return c;
}

static void inspect_dead(struct sim *s, struct store_txn *txn, uint64_t counted)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueuePeek peek = SLUICE__QUEUE_PEEK__INIT;
	bool more = true;

	peek.name = (char *)"dead-letter", peek.max = LIMIT_LIST_ROWS_MAX;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_PEEK, request.queue_peek = &peek;
	oracle_dead_begin(s->oracle);
	while (more) {
		Sluice__Reply *r = query(s, txn, &request);

		for (size_t i = 0; i < r->n_items; i++) {
			const Sluice__ItemInfo *item = r->items[i];
			char number[32];

			snprintf(number, sizeof(number), "%.*s", (int)item->body.len,
				 (const char *)item->body.data);
			oracle_dead(s->oracle, strtoull(number, NULL, 10), item->attempts);
			peek.after = item->seq;
		}
		more = r->more && r->n_items > 0;
		sluice__reply__free_unpacked(r, NULL);
	}
	oracle_dead_end(s->oracle, counted);
}

static enum oracle_claim claim_of(const char *claim)
{
	static const struct {
		const char *name;
		enum oracle_claim claim;
	} claims[] = {{"none", ORACLE_NONE},
		      {"ready", ORACLE_READY},
		      {"leased", ORACLE_LEASED},
		      {"orphaned", ORACLE_ORPHANED},
		      {"gated", ORACLE_GATED}};

	for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
		if (strcmp(claims[i].name, claim) == 0)
			return claims[i].claim;
	}
	must(SLUICE_E_INTERNAL, claim);
	return ORACLE_NONE;
}

/* A job in the result of a read. Texts are copied. */
struct job_row {
	bool exists;
	char state[64];
	struct oracle_job_seen seen;
};

static void job_row(struct job_row *row, const Sluice__JobInfo *j)
{
	*row = (struct job_row){.exists = true,
				.seen = {.terminal = j->terminal,
					 .intent = j->intent,
					 .cancel = j->cancel,
					 .attempt = j->attempt,
					 .token = j->token,
					 .session = j->holder_session,
					 .source = source_by_name(j->judge),
					 .claim = claim_of(j->claim)}};
	snprintf(row->state, sizeof(row->state), "%s", j->state);
	row->seen.state = row->state;
}

static void list_jobs(struct sim *s, struct store_txn *txn, struct job_row rows[ORACLE_JOBS_MAX],
		      struct oracle_rest *rest)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobList list = SLUICE__JOB_LIST__INIT;
	Sluice__Reply *r;

	list.max = LIMIT_LIST_ROWS_MAX;
	request.op_case = SLUICE__REQUEST__OP_JOB_LIST, request.job_list = &list;
	r = query(s, txn, &request);
	must(r->code, "the list of jobs");
	for (size_t i = 0; i < r->n_jobs; i++) {
		if (r->jobs[i]->job[0] == 'x')
			wild_job_shown(s, r->jobs[i], rest);
		else if (r->jobs[i]->job[0] == 'j')
			job_row(&rows[atoi(r->jobs[i]->job + 1)], r->jobs[i]);
	}
	sluice__reply__free_unpacked(r, NULL);
}

static void show_job(struct sim *s, struct store_txn *txn, int job, struct job_row *row)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobShow show = SLUICE__JOB_SHOW__INIT;
	Sluice__Reply *r;
	char id[16];

	snprintf(id, sizeof(id), "j%d", job);
	show.job = id;
	request.op_case = SLUICE__REQUEST__OP_JOB_SHOW, request.job_show = &show;
	r = query(s, txn, &request);
	row->exists = false;
	if (r->n_jobs == 1)
		job_row(row, r->jobs[0]);
	sluice__reply__free_unpacked(r, NULL);
}

/* The oracle no longer checks a job that was forgotten, so no client uses its number again: at the
 * end of a long run there are fewer jobs. */
static void slot_renew(struct sim *s, int job)
{
	for (int i = 0; i < JOBS; i++) {
		if (s->slots[i] == job)
			s->slots[i] = s->jobs_end < ORACLE_JOBS_MAX ? s->jobs_end++ : NO_JOB;
	}
}

/* A list of all jobs costs less than a JOB_SHOW of each, so only one of them, in turn, is also
 * shown. Counts the orphans of each source. */
static void inspect_jobs(struct sim *s, struct store_txn *txn, struct oracle_rest *rest)
{
	struct job_row rows[ORACLE_JOBS_MAX] = {{0}};
	int alone = (int)(s->step % (uint64_t)s->jobs_end);

	list_jobs(s, txn, rows, rest);
	show_job(s, txn, alone, &rows[alone]);
	for (int job = 0; job < s->jobs_end; job++) {
		if (rows[job].exists && rows[job].seen.claim == ORACLE_ORPHANED)
			rest->orphaned[rows[job].seen.source]++;
		if (oracle_job_shown(s->oracle, job, rows[job].exists ? &rows[job].seen : NULL))
			slot_renew(s, job);
	}
}

/* The broker's own check that no job is lost. */
static void audit(struct sim *s, struct store_txn *txn)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__Audit m = SLUICE__AUDIT__INIT;
	Sluice__Reply *r;

	request.op_case = SLUICE__REQUEST__OP_AUDIT, request.audit = &m;
	r = query(s, txn, &request);
	if (r->audited == NULL)
		oracle_blame(s->oracle, "the audit fails", r->code, 0);
	else
		wild_jobs_audited(s, r->audited);
	sluice__reply__free_unpacked(r, NULL);
}

static void inspect_frees(struct sim *s, struct store_txn *txn)
{
	for (int i = 0; i < FREE; i++) {
		struct free_client *client = &s->frees[i];
		struct session_ref ref;
		int rc;

		if (client->session == 0)
			continue;
		rc = core_session_find(txn, 1, client->session, &ref);
		oracle_session_shown(s->oracle, client->session, rc == 0);
		if (rc != 0)
			client->session = 0;
	}
}

void inspect_sessions(struct sim *s, struct store_txn *txn)
{
	inspect_frees(s, txn);
	for (int i = 0; i < CLIENTS; i++) {
		struct client *client = &s->clients[i];
		struct session_ref ref;
		int rc;

		if (client->session == 0)
			continue;
		rc = core_session_find(txn, 1, client->session, &ref);
		oracle_session_shown(s->oracle, client->session, rc == 0);
		if (rc != 0 && client->connection == 0)
			client->session = 0;
	}
}

/* Timers of all gateways that are due and have not fired. */
static uint64_t timers_due(struct sim *s, struct store_txn *txn)
{
	const uint64_t now_ms = s->now.mono_ms + s->clock_ahead_ms;
	struct sluice_slice found, value;
	struct store_scan *scan;
	struct timer_key timer;
	uint64_t due = 0;
	struct key key;

	key_begin(&key, 1);
	must(store_scan_begin(txn, STORE_TIMER, key_slice(&key), &scan), "timers");
	while (store_scan_next(scan, &found, &value) == 0)
		due += key_timer_decode(found, &timer) && timer.due_mono_ms <= now_ms;
	store_scan_end(scan);
	return due;
}

/* The queue and each source count the orphans, too. */
static void inspect_orphans(struct sim *s, struct store_txn *txn, const struct oracle_rest *rest,
			    uint64_t counted)
{
	struct source source;
	uint64_t number, orphans = rest->orphaned[0];

	for (int i = 1; i <= SOURCES; i++) {
		orphans += rest->orphaned[i];
		if (core_source_find(txn, 1, text(source_name_of(i)), &number) != 0)
			continue;
		must(source_get(txn, 1, number, &source), "source");
		if (source.orphans != rest->orphaned[i])
			oracle_blame(s->oracle, "a source's count of orphans is wrong",
				     (int64_t)source.orphans, (int64_t)rest->orphaned[i]);
	}
	if (orphans != counted)
		oracle_blame(s->oracle, "the queue's count of orphans is wrong", (int64_t)counted,
			     (int64_t)orphans);
}

/* The broker is idle: so nothing that a consumer waits for may be left. */
static void inspect_rest(struct sim *s, struct store_txn *txn, struct oracle_rest *rest)
{
	uint64_t orphaned = 0, none;

	if (!s->quiet)
		return;
	rest->timers_due = timers_due(s, txn);
	rest->ready[FEED_JOBS] = counts_of(s, txn, "j", &orphaned).ready;
	rest->ready[FEED_WILD] = counts_of(s, txn, "w", &none).ready;
	inspect_orphans(s, txn, rest, orphaned);
	oracle_at_rest(s->oracle, rest);
	oracle_tags_at_rest(s->oracle);
}

struct oracle_counts inspect(struct sim *s, bool closely)
{
	struct oracle_rest rest = {0};
	struct oracle_counts c;
	uint64_t none;
	struct store_txn *txn;
	uint64_t unknown = 0, offset = 0;
	struct stream_ref stream;

	must(store_begin_read(s->store, &txn), "read");
	inspect_sessions(s, txn);
	for (int i = 0; i < PRODUCERS; i++) {
		const struct target *target = sim_target(i);

		if (target->stream < 0)
			unknown += s->publishers[i].pending;
		else if (i != ORACLE_TXN_PRODUCER && (closely || roll(s, 4) == 0))
			read_stream(s, txn, target);
	}
	c = counts_of(s, txn, "q", &none);
	oracle_counts(s->oracle, &c, unknown);
	if (closely)
		read_job_events(s, txn);
	inspect_jobs(s, txn, &rest);
	rest.ready[FEED_ITEMS] = c.ready;
	inspect_rest(s, txn, &rest);
	must(core_stream_find(txn, 1, text("s"), &stream), "stream");
	if (core_cursor_find(txn, 1, stream.id, text("c"), &offset) != 0)
		offset = 0;
	oracle_cursor_shown(s->oracle, offset);
	if (closely) {
		inspect_dead(s, txn, c.dead);
		audit(s, txn);
	}
	store_abort(txn);
	return c;
}
