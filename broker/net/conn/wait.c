/* SPDX-License-Identifier: Apache-2.0
 *
 * Waits for the end of a job, or a deadline. Waiters are listed by job, so the end of a job costs
 * its own waiters and no others, and by connection, which drops them when it ends.
 */
#include "broker/net/conn/wait.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/answer.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/state.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"
#include "protocol/text.h"
#include "protocol/utf8.h"

/* The key is the gateway's number and the job's id. */
enum { KEY_HEAD_BYTES = sizeof(uint32_t) };

/* A job and its waiters. */
struct waited {
	UT_hash_handle hh;
	struct waiter *waiters;
	size_t key_bytes;
	char key[]; /* terminated */
};

struct waiter {
	struct wheel_entry due; /* first member: the wheel returns it */
	struct waiter *prev, *next;
	struct waiter *conn_prev, *conn_next;
	struct waited *waited;
	struct conn *conn;
	uint64_t tag;
	uint64_t number; /* of the job: the id may belong to another job when the answer is made */
};

static const char *job_of(const struct waiter *waiter)
{
	return waiter->waited->key + KEY_HEAD_BYTES;
}

static struct waited *waited_find(struct io *io, uint32_t gateway, struct sluice_slice job)
{
	char key[KEY_HEAD_BYTES + LIMIT_SIZE(NAME_BYTES_MAX)];
	struct waited *waited;

	if (job.len > LIMIT_NAME_BYTES_MAX)
		return NULL;
	memcpy(key, &gateway, KEY_HEAD_BYTES);
	memcpy(key + KEY_HEAD_BYTES, job.data, job.len);
	HASH_FIND(hh, io->waited, key, KEY_HEAD_BYTES + job.len, waited);
	return waited;
}

static struct waited *waited_get(struct io *io, uint32_t gateway, const char *job)
{
	size_t len = strlen(job);
	struct waited *waited = waited_find(io, gateway, (struct sluice_slice){job, len});

	if (waited != NULL)
		return waited;
	waited = calloc(1, sizeof(*waited) + KEY_HEAD_BYTES + len + 1);
	if (waited == NULL)
		return NULL;
	waited->key_bytes = KEY_HEAD_BYTES + len;
	memcpy(waited->key, &gateway, KEY_HEAD_BYTES);
	memcpy(waited->key + KEY_HEAD_BYTES, job, len);
	HASH_ADD_KEYPTR(hh, io->waited, waited->key, waited->key_bytes, waited);
	if (HASHED(hh, waited))
		return waited;
	free(waited);
	return NULL;
}

/* Unlists it; the entry of the job is freed with its last waiter. */
static void waiter_drop(struct waiter *waiter)
{
	struct conn *conn = waiter->conn;
	struct waited *waited = waiter->waited;

	invariant(conn->waiter_count > 0, "connection %llu has no waiters",
		  (unsigned long long)conn->id);
	wheel_remove(&conn->io->waits, &waiter->due);
	DL_DELETE2(conn->waiters, waiter, conn_prev, conn_next);
	conn->waiter_count--;
	DL_DELETE(waited->waiters, waiter);
	free(waiter);
	if (waited->waiters != NULL)
		return;
	HASH_DELETE(hh, conn->io->waited, waited);
	free(waited);
}

/* number: of the job. timeout_ms 0: none. */
static int add(struct conn *conn, uint64_t tag, const char *job, uint64_t number,
	       uint64_t timeout_ms)
{
	struct waiter *waiter = calloc(1, sizeof(*waiter));
	struct waited *waited = waiter != NULL ? waited_get(conn->io, conn->gateway, job) : NULL;

	if (waited == NULL) {
		free(waiter);
		return SLUICE_E_NOMEM;
	}
	waiter->conn = conn;
	waiter->tag = tag;
	waiter->number = number;
	waiter->waited = waited;
	DL_APPEND(waited->waiters, waiter);
	DL_APPEND2(conn->waiters, waiter, conn_prev, conn_next);
	conn->waiter_count++;
	if (timeout_ms != 0)
		wheel_set(&conn->io->waits, &waiter->due, io_now_ms() + timeout_ms);
	return 0;
}

void waits_drop(struct conn *conn)
{
	while (conn->waiters != NULL)
		waiter_drop(conn->waiters);
}

/* ---- the job ---- */

/* As in one snapshot. */
struct job_shown {
	int rc;		      /* not 0: it could not be read */
	Sluice__Reply *reply; /* to a job_show; NULL after an error */
	uint8_t *bytes;	      /* the same, packed; NULL after an error */
	size_t len;
	uint64_t shows;	 /* number of its commit, as of engine_read_begin; 0: no snapshot */
	uint64_t number; /* of the job with this id; 0: none */
	bool terminal;	 /* it has ended, or there is none */
};

static int query(struct conn *conn, const Sluice__Request *request, struct job_shown *ret)
{
	struct store_txn *txn = NULL;
	struct batch_clock now = engine_clock(conn->io->engine);
	int rc = engine_read_begin(conn->io->engine, &txn, &ret->shows);

	if (rc != 0)
		return rc;
	rc = core_query(txn, conn->gateway, (struct query_clock){now.mono_ms, now.wall_ms}, request,
			&ret->bytes, &ret->len);
	conn->io->round_cost += store_txn_read_cost(txn);
	store_abort(txn);
	return rc;
}

static void job_show(struct conn *conn, const char *job, struct job_shown *ret)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobShow show = SLUICE__JOB_SHOW__INIT;

	*ret = (struct job_shown){0};
	show.job = (char *)(uintptr_t)job;
	request.op_case = SLUICE__REQUEST__OP_JOB_SHOW;
	request.job_show = &show;
	ret->rc = query(conn, &request, ret);
	if (ret->rc != 0)
		return;
	ret->reply = sluice__reply__unpack(NULL, ret->len, ret->bytes);
	if (ret->reply == NULL) {
		free(ret->bytes);
		ret->bytes = NULL;
		ret->rc = SLUICE_E_NOMEM; /* the broker has packed it itself */
		return;
	}
	ret->number = ret->reply->n_jobs == 1 ? ret->reply->jobs[0]->number : 0;
	ret->terminal =
		ret->reply->code != 0 || (ret->reply->n_jobs == 1 && ret->reply->jobs[0]->terminal);
}

static void shown_free(struct job_shown *shown)
{
	if (shown->reply != NULL)
		sluice__reply__free_unpacked(shown->reply, NULL);
	free(shown->bytes);
}

/* ---- answers ---- */

enum { REFUSAL_BYTES = 320 };

/* shows: of struct job_shown; 0: the refusal shows no commit. */
__attribute__((format(printf, 5, 6))) static void refuse(struct conn *conn, uint64_t tag,
							 uint64_t shows, int code,
							 const char *format, ...)
{
	char text[REFUSAL_BYTES];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_repair(text);
	answer_wait(conn, tag, &(struct job_waited){.code = code, .text = text}, shows);
}

static void answer_ended(struct conn *conn, uint64_t tag, const struct job_shown *shown)
{
	answer_wait(conn, tag,
		    &(struct job_waited){.code = shown->reply->code,
					 .text = shown->reply->text,
					 .reply = shown->bytes,
					 .len = shown->len},
		    shown->shows);
}

/* The job as it is, with the code TIMEOUT. */
static void answer_timeout(struct conn *conn, uint64_t tag, const struct job_shown *shown)
{
	char text[] = "the job has not ended in time; the reply has its present state", *old;
	struct job_waited waited = {.code = SLUICE_E_TIMEOUT, .text = text};
	uint8_t *bytes;

	old = shown->reply->text;
	shown->reply->code = SLUICE_E_TIMEOUT;
	shown->reply->text = text;
	bytes = malloc(sluice__reply__get_packed_size(shown->reply) + 1);
	if (bytes != NULL) {
		waited.reply = bytes;
		waited.len = sluice__reply__pack(shown->reply, bytes);
		answer_wait(conn, tag, &waited, shown->shows);
	} else {
		conn_kill(conn, "no memory for an answer");
	}
	free(bytes);
	shown->reply->code = 0;
	shown->reply->text = old;
}

/* True: there is no job of that number (0: any) to answer with, and the wait was refused. */
static bool refused(struct conn *conn, uint64_t tag, const char *job, uint64_t number,
		    const struct job_shown *shown)
{
	/* The text has the key of the record that job_show() found damaged. */
	if (shown->rc != 0)
		refuse(conn, tag, shown->shows, shown->rc, "%s",
		       shown->rc == SLUICE_E_CORRUPT ? store_last_error()
						     : sluice_error_text(shown->rc));
	else if (number != 0 && number != shown->number)
		refuse(conn, tag, shown->shows, SLUICE_E_NOT_FOUND,
		       "job %s of number %llu was forgotten", job, (unsigned long long)number);
	else
		return false;
	return true;
}

/* ---- the wait ---- */

static void begin(struct conn *conn, uint64_t tag, const char *job, const struct wait_spec *spec)
{
	struct job_shown shown;

	int rc = 0;

	job_show(conn, job, &shown);
	if (refused(conn, tag, job, spec->number, &shown)) {
		shown_free(&shown);
		return;
	}
	/* The end cannot be missed: this thread handles effects of commits after the snapshot
	 * later. */
	if (shown.terminal)
		answer_ended(conn, tag, &shown);
	else
		rc = add(conn, tag, job, shown.number, spec->timeout_ms);
	if (rc != 0)
		refuse(conn, tag, 0, rc, "%s", sluice_error_text(rc));
	shown_free(&shown);
}

void wait_begin(struct conn *conn, uint64_t tag, const struct wait_spec *spec)
{
	char job[LIMIT_SIZE(NAME_BYTES_MAX) + 1];

	/* Refused: a connection that is not read from because it waits could not even send a sign
	 * of life. */
	if (conn->waiter_count >= LIMIT_INFLIGHT_REQUESTS_MAX) {
		refuse(conn, tag, 0, SLUICE_E_BUSY,
		       "this connection waits for %llu jobs already, the maximum",
		       (unsigned long long)conn->waiter_count);
		return;
	}
	if (spec->job.len > LIMIT_NAME_BYTES_MAX) {
		refuse(conn, tag, 0, SLUICE_E_LIMIT,
		       "the job id has %zu bytes; expected at most %llu", spec->job.len,
		       (unsigned long long)LIMIT_NAME_BYTES_MAX);
		return;
	}
	if (!utf8_valid(spec->job)) {
		refuse(conn, tag, 0, SLUICE_E_INVAL,
		       "the job id has a NUL, or bytes that are no UTF-8");
		return;
	}
	if (spec->job.len > 0)
		memcpy(job, spec->job.data, spec->job.len);
	job[spec->job.len] = 0;
	begin(conn, tag, job, spec);
}

static void end(const struct waiter *waiter, const struct job_shown *shown)
{
	if (refused(waiter->conn, waiter->tag, job_of(waiter), waiter->number, shown))
		return;
	if (shown->terminal)
		answer_ended(waiter->conn, waiter->tag, shown);
	else
		answer_timeout(waiter->conn, waiter->tag, shown);
}

/* The job was reset since it ended: the wait is for its next end. */
static bool is_open_again(const struct waiter *waiter, const struct job_shown *shown)
{
	return shown->rc == 0 && !shown->terminal && shown->number == waiter->number;
}

void waits_check(struct conn *conn)
{
	struct waiter *waiter, *next;

	DL_FOREACH_SAFE2(conn->waiters, waiter, next, conn_next)
	{
		const char *job = job_of(waiter);

		if (admit_again(conn, "job.show", (struct sluice_slice){job, strlen(job)}))
			continue;
		refuse(conn, waiter->tag, 0, SLUICE_E_DENIED, "the right to it was taken away");
		waiter_drop(waiter);
	}
}

void waits_job_ended(struct io *io, const struct effect *effect)
{
	struct waited *waited = waited_find(io, effect->gateway, effect->name);
	struct waiter *waiter, *next;
	struct job_shown shown;

	if (waited == NULL)
		return;
	/* Read once for all waiters: their answers are the same. */
	job_show(waited->waiters->conn, job_of(waited->waiters), &shown);
	/* waiter_drop() of the last one frees `waited`. */
	DL_FOREACH_SAFE(waited->waiters, waiter, next) {
		io->waiters_visited++;
		if (is_open_again(waiter, &shown))
			continue;
		end(waiter, &shown);
		waiter_drop(waiter);
	}
	shown_free(&shown);
}

/* Many deadlines may fall together: other connections are served in between. */
enum { DUE_AT_ONCE = 256 };

void waits_due(struct io *io, uint64_t now_ms)
{
	for (int n = 0; n < DUE_AT_ONCE; n++) {
		struct wheel_entry *due = wheel_due(&io->waits, now_ms);
		struct waiter *waiter = (struct waiter *)due;
		struct job_shown shown;

		if (due == NULL)
			return;
		job_show(waiter->conn, job_of(waiter), &shown);
		end(waiter, &shown);
		shown_free(&shown);
		waiter_drop(waiter);
	}
	io_again(io);
}
