/* SPDX-License-Identifier: Apache-2.0
 *
 * Waits for the end of a job, or a deadline. Waiters are listed by job, so the end of a job costs
 * its own waiters and no others, and by connection, which drops them when it ends.
 */
#include "broker/net/conn/wait.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/state.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

/* The key is the gateway's number and the job's id. */
enum { KEY_HEAD_BYTES = sizeof(uint32_t) };

struct waited {
	UT_hash_handle hh;
	struct waiter *waiters;
	size_t key_bytes;
	char key[]; /* terminated */
};

const char *wait_job(const struct waiter *waiter)
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

int wait_add(struct conn *conn, uint32_t corr, const char *job, uint64_t number,
	     uint64_t timeout_ms)
{
	struct waiter *waiter = calloc(1, sizeof(*waiter));
	struct waited *waited = waiter != NULL ? waited_get(conn->io, conn->gateway, job) : NULL;

	if (waited == NULL) {
		free(waiter);
		return SLUICE_E_NOMEM;
	}
	waiter->conn = conn;
	waiter->corr = corr;
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

static int query(struct conn *conn, const Sluice__Request *request, struct job_shown *ret)
{
	struct store_txn *txn = NULL;
	struct batch_clock now = engine_clock(conn->io->engine);
	int rc = engine_read_begin(conn->io->engine, &txn, &ret->shows);

	if (rc != 0)
		return rc;
	rc = core_query(txn, conn->gateway, (struct query_clock){now.mono_ms, now.wall_ms}, request,
			&ret->reply, &ret->len);
	conn->io->round_cost += store_txn_read_cost(txn);
	store_abort(txn);
	return rc;
}

void job_show(struct conn *conn, const char *job, struct job_shown *ret)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobShow show = SLUICE__JOB_SHOW__INIT;
	Sluice__Reply *reply;

	*ret = (struct job_shown){0};
	show.job = (char *)(uintptr_t)job;
	request.op_case = SLUICE__REQUEST__OP_JOB_SHOW;
	request.job_show = &show;
	ret->rc = query(conn, &request, ret);
	if (ret->rc != 0)
		return;
	reply = sluice__reply__unpack(NULL, ret->len, ret->reply);
	if (reply == NULL) {
		free(ret->reply);
		ret->reply = NULL;
		ret->rc = SLUICE_E_NOMEM; /* the broker has packed it itself */
		return;
	}
	ret->number = reply->n_jobs == 1 ? reply->jobs[0]->number : 0;
	ret->terminal = reply->code != 0 || (reply->n_jobs == 1 && reply->jobs[0]->terminal);
	sluice__reply__free_unpacked(reply, NULL);
}

/* The job was reset since it ended: the wait is for its next end. */
static bool is_open_again(const struct waiter *waiter, const struct job_shown *shown)
{
	return shown->rc == 0 && !shown->terminal && shown->number == waiter->number;
}

void waits_job_ended(struct io *io, const struct effect *effect)
{
	struct waited *waited = waited_find(io, effect->gateway, effect->name);
	struct waiter *waiter, *next;
	struct job_shown shown;

	if (waited == NULL)
		return;
	/* Read once for all waiters: their answers are the same. */
	job_show(waited->waiters->conn, wait_job(waited->waiters), &shown);
	/* waiter_drop() of the last one frees `waited`. */
	DL_FOREACH_SAFE(waited->waiters, waiter, next) {
		io->waiters_visited++;
		if (is_open_again(waiter, &shown))
			continue;
		waiter->conn->protocol->job_ended(waiter, &shown);
		waiter_drop(waiter);
	}
	free(shown.reply);
}

/* Many deadlines may fall together: other connections are served in between. */
enum { DUE_AT_ONCE = 256 };

void waits_due(struct io *io, uint64_t now_ms)
{
	struct wheel_entry *due;

	for (int n = 0; n < DUE_AT_ONCE; n++) {
		struct job_shown shown;
		struct waiter *waiter;

		due = wheel_due(&io->waits, now_ms);
		if (due == NULL)
			return;
		waiter = (struct waiter *)due;
		job_show(waiter->conn, wait_job(waiter), &shown);
		waiter->conn->protocol->wait_timeout(waiter, &shown);
		free(shown.reply);
		waiter_drop(waiter);
	}
	io_again(io);
}
