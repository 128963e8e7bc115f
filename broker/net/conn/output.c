/* SPDX-License-Identifier: Apache-2.0
 * The output of a connection, to its socket. */
#include "broker/net/conn/output.h"

#include <errno.h>

#include "broker/net/conn/internal.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/wire.h"
#include "broker/util/invariant.h"

enum {
	WRITE_BYTES_MAX = 1 << 18, /* at once */
	/* Of parts that are sent from where they lie; fewer are copied and sent with the others of
	 * the round. */
	DIRECT_BYTES_MIN = 1 << 16,
	DIRECT_BYTES_MAX = 1 << 20,
	PIECES_MAX = 128 /* of one system call */
};

static void unsent_sub(struct conn *conn, uint64_t bytes)
{
	uint64_t before =
		atomic_fetch_sub_explicit(&conn->io->net->unsent, bytes, memory_order_relaxed);

	invariant(before >= bytes, "%llu bytes of all are unsent, %llu of connection %llu",
		  (unsigned long long)before, (unsigned long long)bytes,
		  (unsigned long long)conn->id);
}

/* Bytes of the output, at its beginning, were sent. */
static void unsent_drain(struct conn *conn, size_t sent)
{
	const size_t unsent = conn_unsent(conn);

	if (sent == 0)
		return;
	(void)evbuffer_drain(conn->out, sent);
	unsent_sub(conn, sent);
	/* Estimated as if answers and deliveries were mixed evenly; exact whenever all is sent. */
	conn->unsent_answers -=
		(size_t)((double)conn->unsent_answers * (double)sent / (double)unsent);
	if (sent == unsent)
		conn->unsent_answers = 0;
}

/* The pieces of the output, up to so many of them and of bytes; returns their number. */
static int unsent_pieces(const struct conn *conn, struct iovec *pieces, int count, size_t bytes)
{
	int found = evbuffer_peek(conn->out, (ev_ssize_t)bytes, NULL, pieces, count), used = 0;

	for (; used < found && used < count && bytes > 0; used++) {
		if (pieces[used].iov_len > bytes)
			pieces[used].iov_len = bytes;
		bytes -= pieces[used].iov_len;
	}
	return used;
}

/* Sends the pieces, at once and without waiting; returns how many bytes. */
static size_t send_pieces(struct conn *conn, struct iovec *pieces, int count)
{
	ssize_t sent = conn->wire->write(conn, pieces, count);

	if (sent >= 0)
		return (size_t)sent;
	if (errno != EAGAIN && errno != EINTR)
		conn_kill(conn, "the peer reset it");
	return 0;
}

/* False: the connection has ended. */
bool output_send(struct conn *conn)
{
	struct iovec pieces[PIECES_MAX];
	int count;

	if (conn_unsent(conn) == 0 && !conn->wire_waits)
		return true;
	count = unsent_pieces(conn, pieces, PIECES_MAX, WRITE_BYTES_MAX);
	unsent_drain(conn, send_pieces(conn, pieces, count));
	return !conn->dead;
}

/* ---- without a copy ---- */

/* The output, and the parts behind it, as far as the socket takes them now; returns how many bytes
 * of the parts. */
static size_t send_direct(struct conn *conn, const struct sluice_slice *parts, size_t count)
{
	struct iovec pieces[PIECES_MAX];
	const size_t before = conn_unsent(conn);
	int used = unsent_pieces(conn, pieces, PIECES_MAX / 2, DIRECT_BYTES_MAX);
	size_t bytes = 0, sent;

	for (int i = 0; i < used; i++)
		bytes += pieces[i].iov_len;
	if (bytes < before)
		return 0; /* the output alone is more */
	for (size_t i = 0; i < count && used < PIECES_MAX && bytes < DIRECT_BYTES_MAX; i++) {
		size_t len = parts[i].len < DIRECT_BYTES_MAX - bytes ? parts[i].len
								     : DIRECT_BYTES_MAX - bytes;

		pieces[used++] = (struct iovec){(void *)(uintptr_t)parts[i].data, len};
		bytes += len;
	}
	sent = send_pieces(conn, pieces, used);
	unsent_drain(conn, sent < before ? sent : before);
	return sent > before ? sent - before : 0;
}

void conn_write_parts(struct conn *conn, const struct sluice_slice *parts, size_t count)
{
	size_t bytes = 0, sent = 0;

	for (size_t i = 0; i < count; i++)
		bytes += parts[i].len;
	/* What waits until the output is no longer full goes on when the socket takes more: some of
	 * it has to be left, as conns_flush() leaves it. */
	if (bytes >= DIRECT_BYTES_MIN && !conn->writing && !conn->dead && !conn_is_full(conn))
		sent = send_direct(conn, parts, count);
	for (size_t i = 0; i < count; i++) {
		size_t skipped = sent < parts[i].len ? sent : parts[i].len;

		sent -= skipped;
		if (skipped < parts[i].len)
			conn_write(conn, (const uint8_t *)parts[i].data + skipped,
				   parts[i].len - skipped);
	}
}

/* Waits for the socket only while output is left that it can take. */
void output_wait(struct conn *conn)
{
	bool waits = conn->wire_waits || (conn_unsent(conn) > 0 && !conn->handshaking);

	if (waits == conn->writing)
		return;
	conn->writing = waits;
	if ((waits ? event_add(conn->writable, NULL) : event_del(conn->writable)) != 0)
		conn_kill(conn, "the loop refused its socket");
}

void output_free(struct conn *conn)
{
	if (conn->out == NULL)
		return;
	unsent_sub(conn, conn_unsent(conn));
	evbuffer_free(conn->out);
}
