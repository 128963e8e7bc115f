/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads in turns. A read that needs many records releases its snapshot after READ_TURN_COST, the
 * thread serves others, and the read continues from a new snapshot at its connection's next turn. A
 * round of the loop reads READ_ROUND_COST for all connections together; the rest waits for the next
 * round.
 *
 * At most one read of a connection is under way, in order of arrival; of all connections
 * READINGS_BEGUN_MAX, which bounds the rows of unfinished answers. A connection whose output is
 * full begins none until it has drained; one under way continues, because it blocks the reads of
 * others. The beginning of a wait for a job is one of them: it reads the job.
 */
#include "broker/net/conn/reading.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/status.h"
#include "broker/net/conn/under_way.h"
#include "broker/util/invariant.h"

/* As store_txn_read_cost counts: about 2,000 small records, 1 ms. */
enum { READ_TURN_COST = 1 << 19, READ_ROUND_COST = 1 << 20, READINGS_BEGUN_MAX = 64 };

struct reading {
	struct reading *prev, *next;	/* of its connection */
	uint64_t corr;			/* the protocol's */
	struct message_block *block;	/* the request lies in it; owned */
	const Sluice__Request *request; /* NULL: the beginning of a wait */
	struct wait_spec wait;
	struct core_read *read; /* NULL: not begun */
	size_t bytes;		/* of the request, or of the job's id */
	uint64_t turns;
	uint64_t security; /* of under_way_add */
	char job[];	   /* of the wait */
};

static size_t cost_of(const struct reading *reading)
{
	return sizeof(*reading) + reading->bytes;
}

static void finish(struct io *io, struct reading *reading)
{
	io->readings_begun -= reading->read != NULL;
	core_read_end(reading->read);
	message_block_free(reading->block);
}

static void unlist(struct conn *conn)
{
	if (conn->is_reader)
		DL_DELETE2(conn->io->readers, conn, reader_prev, reader_next);
	conn->is_reader = false;
}

static void drop(struct conn *conn, struct reading *reading)
{
	under_way_done(conn->io, reading->security);
	DL_DELETE(conn->readings, reading);
	conn_request_sub(conn, cost_of(reading));
	finish(conn->io, reading);
	free(reading);
	if (conn->readings == NULL)
		unlist(conn);
}

void readings_resume(struct conn *conn)
{
	struct io *io = conn->io;

	if (conn->is_reader || conn->readings == NULL)
		return;
	conn->is_reader = true;
	DL_APPEND2(io->readers, conn, reader_prev, reader_next);
	io_again(io);
}

void readings_drop(struct conn *conn)
{
	while (conn->readings != NULL)
		drop(conn, conn->readings);
}

/* ---- a turn ---- */

/* takes reply, which is there unless rc is not 0. */
static void read_done(struct conn *conn, const struct reading *reading, int rc, uint8_t *reply,
		      size_t len, uint64_t number)
{
	struct read_result result = {.request = reading->request, .number = number};

	if (rc == 0 && reading->request->op_case == SLUICE__REQUEST__OP_STATUS_GET)
		rc = status_add(conn, &reply, &len);
	if (rc == 0) {
		result.code = core_read_code(reading->read, &result.text);
		result.reply = reply;
		result.len = len;
	} else {
		free(reply);
		result.rc = result.code = rc;
		result.text = rc == SLUICE_E_CORRUPT ? store_last_error() : sluice_error_text(rc);
	}
	conn->protocol->read_done(conn, reading->corr, &result);
}

/* True: it is answered, or the wait has begun. */
static bool turn(struct conn *conn, struct reading *reading)
{
	struct io *io = conn->io;
	struct batch_clock now = engine_clock(io->engine);
	struct store_txn *txn = NULL;
	uint8_t *reply = NULL;
	size_t len = 0;
	uint64_t number = 0;
	bool done = false;
	int rc;

	if (reading->request == NULL) {
		wait_begin(conn, reading->corr, &reading->wait);
		return true;
	}
	rc = reading->read != NULL
		     ? 0
		     : core_read_begin(conn->gateway, reading->request, &reading->read);
	io->readings_begun += reading->read != NULL && reading->turns == 0;
	reading->turns++;
	if (rc == 0)
		rc = engine_read_begin(io->engine, &txn, &number);
	if (rc == 0)
		rc = core_read_turn(reading->read, txn,
				    (struct query_clock){now.mono_ms, now.wall_ms}, READ_TURN_COST,
				    &done, &reply, &len);
	io->round_cost += txn != NULL ? store_txn_read_cost(txn) : 0;
	store_abort(txn);
	if (rc == 0 && !done)
		return false;
	read_done(conn, reading, rc, reply, len, number);
	return true;
}

void readings_run(struct io *io)
{
	/* Each connection at most once: those that cannot run are listed again. */
	struct conn *last = io->readers != NULL ? io->readers->reader_prev : NULL;

	io->round_cost = 0;
	while (io->readers != NULL && io->round_cost < READ_ROUND_COST) {
		struct conn *conn = io->readers;
		struct reading *reading = conn->readings;
		const bool was_last = conn == last;

		invariant(reading != NULL, "connection %llu is listed and reads nothing",
			  (unsigned long long)conn->id);
		unlist(conn);
		if (conn->dead || conn->closing) {
			readings_drop(conn);
		} else if (reading->read != NULL || !conn_is_full(conn)) {
			if ((reading->read != NULL || io->readings_begun < READINGS_BEGUN_MAX) &&
			    turn(conn, reading))
				drop(conn, reading);
			readings_resume(conn);
		}
		if (was_last)
			break;
	}
}

/* takes what->block. NOMEM: it is not answered. */
static int start(struct conn *conn, struct reading *what)
{
	struct io *io = conn->io;
	struct reading *reading;

	admitted(conn, "a read");
	/* Most reads are answered at once, without an allocation. */
	if (conn->readings == NULL && io->round_cost < READ_ROUND_COST &&
	    io->readings_begun < READINGS_BEGUN_MAX && turn(conn, what)) {
		finish(io, what);
		return 0;
	}
	reading = malloc(sizeof(*reading) + what->wait.job.len);
	if (reading == NULL) {
		finish(io, what);
		return SLUICE_E_NOMEM;
	}
	*reading = *what;
	if (what->wait.job.len > 0)
		reading->wait.job.data =
			memcpy(reading->job, what->wait.job.data, what->wait.job.len);
	reading->security = under_way_add(io);
	DL_APPEND(conn->readings, reading);
	conn_request_add(conn, cost_of(reading));
	readings_resume(conn);
	return 0;
}

int reading_start(struct conn *conn, uint64_t corr, struct message_block **block,
		  const Sluice__Request *request, size_t bytes)
{
	struct reading reading = {.corr = corr,
				  .block = *block,
				  .request = request,
				  .bytes = bytes};

	*block = NULL;
	return start(conn, &reading);
}

int reading_wait(struct conn *conn, uint64_t tag, const struct wait_spec *spec)
{
	struct reading reading = {.corr = tag, .wait = *spec, .bytes = spec->job.len};

	return start(conn, &reading);
}
