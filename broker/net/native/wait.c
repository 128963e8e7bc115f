/* SPDX-License-Identifier: Apache-2.0
 * job_wait: a request that is answered at the end of the job, or at its deadline. conn/wait.c keeps
 * the waits. */
#include "broker/net/native/native.h"

#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/answer.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/wait.h"
#include "protocol/limits.h"

/* The text has the key of the record that job_show() found damaged. */
static void refuse_unread(struct conn *conn, uint32_t corr, const struct job_shown *shown)
{
	native_refuse_shown(conn, corr, shown->shows, shown->rc, "%s",
			    shown->rc == SLUICE_E_CORRUPT ? store_last_error()
							  : sluice_error_text(shown->rc));
}

static void refuse_forgotten(struct conn *conn, uint32_t corr, const struct job_shown *shown,
			     const char *job, uint64_t number)
{
	native_refuse_shown(conn, corr, shown->shows, SLUICE_E_NOT_FOUND,
			    "job %s of number %llu was forgotten", job, (unsigned long long)number);
}

/* True: there is no job to answer with, and the request was refused. */
static bool refused(const struct waiter *waiter, const struct job_shown *shown)
{
	if (shown->rc != 0)
		refuse_unread(waiter->conn, waiter->corr, shown);
	else if (waiter->number != shown->number)
		refuse_forgotten(waiter->conn, waiter->corr, shown, wait_job(waiter),
				 waiter->number);
	else
		return false;
	return true;
}

/* The job as it is, with the code TIMEOUT. */
void native_wait_timeout(const struct waiter *waiter, const struct job_shown *shown)
{
	Sluice__Reply *reply;
	char text[] = "the job has not ended in time; the reply has its present state";

	if (refused(waiter, shown))
		return;
	reply = sluice__reply__unpack(NULL, shown->len, shown->reply);
	if (reply == NULL) {
		conn_kill(waiter->conn, "no memory for an answer");
		return;
	}
	if (!shown->terminal) {
		char *old = reply->text;

		reply->code = SLUICE_E_TIMEOUT;
		reply->text = text;
		native_reply_shown(waiter->conn, waiter->corr, shown->shows, reply);
		reply->text = old;
	} else {
		native_reply_shown(waiter->conn, waiter->corr, shown->shows, reply);
	}
	sluice__reply__free_unpacked(reply, NULL);
}

void native_job_wait(struct conn *conn, uint32_t corr, const Sluice__JobWait *m)
{
	struct job_shown shown;

	/* Refused: a connection that is not read from because it waits could not even send a
	 * PING. */
	if (conn->waiter_count >= LIMIT_INFLIGHT_REQUESTS_MAX) {
		native_refuse_shown(conn, corr, 0, SLUICE_E_BUSY,
				    "this connection waits for %llu jobs already, the maximum",
				    (unsigned long long)conn->waiter_count);
		return;
	}
	if (strlen(m->job) > LIMIT_NAME_BYTES_MAX) {
		native_refuse_shown(conn, corr, 0, SLUICE_E_LIMIT,
				    "the job id has %zu bytes; expected at most %llu",
				    strlen(m->job), (unsigned long long)LIMIT_NAME_BYTES_MAX);
		return;
	}
	job_show(conn, m->job, &shown);
	if (shown.rc != 0) {
		refuse_unread(conn, corr, &shown);
		return;
	}
	if (m->number != 0 && m->number != shown.number) {
		free(shown.reply);
		refuse_forgotten(conn, corr, &shown, m->job, m->number);
		return;
	}
	if (shown.terminal) {
		answer_when_released(conn, corr, 0, shown.reply, shown.len, shown.shows);
		return;
	}
	free(shown.reply);
	/* The end cannot be missed: this thread handles effects of commits after the snapshot
	 * later. */
	if (wait_add(conn, corr, m->job, shown.number, m->timeout_ms) != 0)
		native_refuse_shown(conn, corr, 0, SLUICE_E_BUSY,
				    "the broker is out of memory; try again");
}

void native_job_ended(const struct waiter *waiter, const struct job_shown *shown)
{
	uint8_t *copy;

	if (refused(waiter, shown))
		return;
	copy = malloc(shown->len + 1);
	if (copy == NULL) {
		conn_kill(waiter->conn, "no memory for an answer");
		return;
	}
	memcpy(copy, shown->reply, shown->len);
	answer_when_released(waiter->conn, waiter->corr, 0, copy, shown->len, shown->shows);
}
