/* SPDX-License-Identifier: Apache-2.0
 *
 * job_wait: a request whose answer is the job's end, or its deadline. Waiters are listed by job, so the end of a job costs its own
 * waiters and no others, and by connection, which gives them up with it.
 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/native/native.h"
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

struct waiter {
	struct wheel_entry due; /* first: the wheel gives it back */
	struct waiter *prev, *next;
	struct waiter *conn_prev, *conn_next;
	struct waited *waited;
	struct conn *conn;
	uint32_t corr;
	uint64_t number; /* of the job: its id may be another's when the answer is made */
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

/* Unlists it; the job's entry goes with its last waiter. */
static void waiter_drop(struct waiter *waiter)
{
	struct conn *conn = waiter->conn;
	struct waited *waited = waiter->waited;

	invariant(conn->waiter_count > 0, "connection %llu has no waiters", (unsigned long long)conn->id);
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

/* ---- answers ---- */

/* *ret_number: of the job that has the id; 0: none has. On an error *ret_reply stays as it is. */
static int job_read(struct conn *conn, const char *job, uint8_t **ret_reply, size_t *ret_len,
		    uint64_t *ret_sequence, bool *ret_terminal, uint64_t *ret_number)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobShow show = SLUICE__JOB_SHOW__INIT;
	Sluice__Reply *reply;
	uint8_t *bytes = NULL;
	int rc;

	show.job = (char *)(uintptr_t)job;
	request.op_case = SLUICE__REQUEST__OP_JOB_SHOW;
	request.job_show = &show;
	rc = native_query(conn, &request, &bytes, ret_len, ret_sequence);
	if (rc != 0)
		return rc;
	reply = sluice__reply__unpack(NULL, *ret_len, bytes);
	if (reply == NULL) {
		free(bytes);
		return SLUICE_E_NOMEM; /* the broker has packed it itself */
	}
	*ret_reply = bytes;
	*ret_number = reply->n_jobs == 1 ? reply->jobs[0]->number : 0;
	*ret_terminal = reply->code != 0 || (reply->n_jobs == 1 && reply->jobs[0]->terminal);
	sluice__reply__free_unpacked(reply, NULL);
	return 0;
}

/* With the record that job_read() has met, if that is damaged. */
static void refuse_unread(struct conn *conn, uint32_t corr, int rc)
{
	native_refuse(conn, corr, rc, "%s",
		      rc == SLUICE_E_CORRUPT ? store_last_error() : sluice_error_text(rc));
}

static void refuse_forgotten(struct conn *conn, uint32_t corr, const char *job, uint64_t number)
{
	native_refuse(conn, corr, SLUICE_E_NOT_FOUND, "job %s of number %llu was forgotten", job,
		      (unsigned long long)number);
}

/* The job as it is, with the code TIMEOUT. */
static void answer_timeout(struct conn *conn, uint32_t corr, const char *job, uint64_t wanted)
{
	uint8_t *bytes = NULL;
	size_t len = 0;
	uint64_t sequence = 0, number = 0;
	bool terminal = false;
	Sluice__Reply *reply;
	char text[] = "the job has not ended in time; this is how it stands";
	int rc;

	rc = job_read(conn, job, &bytes, &len, &sequence, &terminal, &number);
	if (rc != 0) {
		refuse_unread(conn, corr, rc);
		return;
	}
	if (number != wanted) {
		free(bytes);
		refuse_forgotten(conn, corr, job, wanted);
		return;
	}
	reply = sluice__reply__unpack(NULL, len, bytes);
	free(bytes);
	if (reply == NULL) {
		conn_kill(conn, "no memory for an answer");
		return;
	}
	if (!terminal) {
		char *old = reply->text;

		reply->code = SLUICE_E_TIMEOUT;
		reply->text = text;
		native_message(conn, FRAME_REPLY, corr, &reply->base);
		reply->text = old;
	} else {
		native_message(conn, FRAME_REPLY, corr, &reply->base);
	}
	sluice__reply__free_unpacked(reply, NULL);
}

/* ---- the calls ---- */

void native_job_wait(struct conn *conn, uint32_t corr, const Sluice__JobWait *m)
{
	struct waiter *waiter;
	struct waited *waited;
	uint8_t *reply = NULL;
	size_t len = 0;
	uint64_t sequence = 0, number = 0;
	bool terminal = false;
	int rc;

	/* Refused instead of not read from: a connection that only waits could not even send a PING. */
	if (conn->waiter_count >= LIMIT_INFLIGHT_REQUESTS_MAX) {
		native_refuse(conn, corr, SLUICE_E_BUSY,
			      "this connection waits for %llu jobs already; expected at most as many",
			      (unsigned long long)conn->waiter_count);
		return;
	}
	if (strlen(m->job) > LIMIT_NAME_BYTES_MAX) {
		native_refuse(conn, corr, SLUICE_E_LIMIT, "the job id has %zu bytes; expected at most %llu",
			      strlen(m->job), (unsigned long long)LIMIT_NAME_BYTES_MAX);
		return;
	}
	rc = job_read(conn, m->job, &reply, &len, &sequence, &terminal, &number);
	if (rc != 0) {
		refuse_unread(conn, corr, rc);
		return;
	}
	if (m->number != 0 && m->number != number) {
		free(reply);
		refuse_forgotten(conn, corr, m->job, m->number);
		return;
	}
	if (terminal) {
		answer_when_released(conn, corr, reply, len, sequence);
		return;
	}
	free(reply);
	/* Its end cannot be missed: effects of commits after the snapshot are handled by this thread after this. */
	waiter = calloc(1, sizeof(*waiter));
	waited = waiter != NULL ? waited_get(conn->io, conn->gateway, m->job) : NULL;
	if (waited == NULL) {
		free(waiter);
		native_refuse(conn, corr, SLUICE_E_BUSY, "the broker is out of memory; try again");
		return;
	}
	waiter->conn = conn;
	waiter->corr = corr;
	waiter->number = number;
	waiter->waited = waited;
	DL_APPEND(waited->waiters, waiter);
	DL_APPEND2(conn->waiters, waiter, conn_prev, conn_next);
	conn->waiter_count++;
	if (m->timeout_ms != 0)
		wheel_set(&conn->io->waits, &waiter->due, io_now_ms() + m->timeout_ms);
}

/* The job is read once for all of them: their answers are the same. */
static void answer_ended(struct waiter *waiter, const uint8_t *reply, size_t len, uint64_t sequence)
{
	struct conn *conn = waiter->conn;
	uint8_t *copy = malloc(len + 1);

	if (copy == NULL) {
		refuse_unread(conn, waiter->corr, SLUICE_E_NOMEM);
		return;
	}
	memcpy(copy, reply, len);
	answer_when_released(conn, waiter->corr, copy, len, sequence);
}

void native_job_ended(struct io *io, const struct effect *effect)
{
	struct waited *waited = waited_find(io, effect->gateway, effect->name);
	struct waiter *waiter, *next;
	uint8_t *reply = NULL;
	size_t len = 0;
	uint64_t sequence = 0, number = 0;
	bool terminal = false;
	int rc;

	if (waited == NULL)
		return;
	rc = job_read(waited->waiters->conn, job_of(waited->waiters), &reply, &len, &sequence, &terminal,
		      &number);
	/* The last one takes `waited` with it. */
	DL_FOREACH_SAFE(waited->waiters, waiter, next) {
		io->waiters_visited++;
		if (rc != 0)
			refuse_unread(waiter->conn, waiter->corr, rc);
		else if (waiter->number != number)
			refuse_forgotten(waiter->conn, waiter->corr, job_of(waiter), waiter->number);
		else
			answer_ended(waiter, reply, len, sequence);
		waiter_drop(waiter);
	}
	free(reply);
}

/* Many deadlines may come together: others are served in between. */
enum { DUE_AT_ONCE = 256 };

void native_waits_due(struct io *io, uint64_t now_ms)
{
	struct wheel_entry *due;

	for (int n = 0; n < DUE_AT_ONCE; n++) {
		struct waiter *waiter;

		due = wheel_due(&io->waits, now_ms);
		if (due == NULL)
			return;
		waiter = (struct waiter *)due;
		answer_timeout(waiter->conn, waiter->corr, job_of(waiter), waiter->number);
		waiter_drop(waiter);
	}
	io_again(io);
}

void native_waits_drop(struct conn *conn)
{
	while (conn->waiters != NULL)
		waiter_drop(conn->waiters);
}
