/* SPDX-License-Identifier: Apache-2.0
 * Counted memory for input. */
#include "broker/net/conn/bufs.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/net/conn/internal.h"
#include "broker/net/conn/state.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

/* Buffers of the thread's size that are kept for it: one that was taken is replaced at once, and
 * memory of this size is otherwise new from the system each time. */
enum { SPARE_MAX = 4 };

/* ---- counting ---- */

static void count_add(struct door_buf *buf, struct conn *conn)
{
	buf->conn = conn;
	buf->counted = true;
	DL_APPEND(conn->bufs, buf);
	conn->buf_bytes += buf->capacity;
	atomic_fetch_add_explicit(&conn->io->net->input, buf->capacity, memory_order_relaxed);
}

static void count_sub(struct door_buf *buf)
{
	struct conn *conn = buf->conn;
	uint64_t before = atomic_fetch_sub_explicit(&buf->io->net->input, buf->capacity,
						    memory_order_relaxed);

	invariant(before >= buf->capacity && (conn == NULL || conn->buf_bytes >= buf->capacity),
		  "%zu bytes of %llu are given back", buf->capacity, (unsigned long long)before);
	buf->counted = false;
	if (conn == NULL)
		return;
	conn->buf_bytes -= buf->capacity;
	DL_DELETE(conn->bufs, buf);
	buf->conn = NULL;
}

/* ---- life ---- */

static struct door_buf *plain_new(struct io *io, size_t bytes)
{
	struct door_buf *buf = malloc(sizeof(*buf) + bytes);

	if (buf == NULL)
		return NULL;
	*buf = (struct door_buf){.io = io, .capacity = bytes, .refs = 1};
	return buf;
}

struct door_buf *buf_new(struct conn *conn, size_t bytes)
{
	struct door_buf *buf = plain_new(conn->io, bytes);

	if (buf != NULL)
		count_add(buf, conn);
	return buf;
}

struct door_buf *buf_grow(struct door_buf *buf, size_t bytes)
{
	struct conn *conn = buf->conn;
	struct door_buf *grown;

	invariant(buf->refs == 1 && conn != NULL && bytes >= buf->capacity,
		  "%u references to %zu bytes", buf->refs, buf->capacity);
	count_sub(buf);
	grown = realloc(buf, sizeof(*buf) + bytes);
	if (grown != NULL)
		grown->capacity = bytes;
	count_add(grown != NULL ? grown : buf, conn);
	return grown;
}

struct door_buf *buf_fresh(struct io *io)
{
	struct door_buf *buf = io->spares;

	if (buf == NULL)
		return plain_new(io, NET_READ_BYTES);
	LL_DELETE(io->spares, buf);
	io->spare_count--;
	buf->refs = 1;
	return buf;
}

struct door_buf *buf_ref(struct door_buf *buf)
{
	invariant(buf->refs > 0 && buf->refs < UINT32_MAX, "%u references", buf->refs);
	buf->refs++;
	return buf;
}

void door_buf_unref(struct door_buf *buf)
{
	struct io *io;

	if (buf == NULL)
		return;
	io = buf->io;
	invariant(buf->refs > 0, "a buf of %zu bytes has no reference left", buf->capacity);
	if (--buf->refs > 0)
		return;
	if (buf->counted)
		count_sub(buf);
	if (buf->capacity != NET_READ_BYTES || io->spare_count >= SPARE_MAX) {
		free(buf);
		return;
	}
	io->spare_count++;
	LL_PREPEND(io->spares, buf);
}

void bufs_drop(struct conn *conn)
{
	struct door_buf *buf, *next;

	DL_FOREACH_SAFE(conn->bufs, buf, next) {
		DL_DELETE(conn->bufs, buf);
		conn->buf_bytes -= buf->capacity;
		buf->conn = NULL;
	}
}

void bufs_fini(struct io *io)
{
	while (io->spares != NULL) {
		struct door_buf *buf = io->spares;

		LL_DELETE(io->spares, buf);
		free(buf);
	}
	free(io->fresh);
	io->fresh = NULL;
}

/* ---- the calls of a protocol ---- */

/* Within the bounds of the connection and of all. Above them the connection is tried again. */
static bool may_have(struct conn *conn, size_t bytes)
{
	if (conn->pending_bytes + conn->buf_bytes + bytes <= LIMIT_CONN_PENDING_BYTES_MAX &&
	    input_room(conn->io, bytes))
		return true;
	conn_block(conn);
	return false;
}

static int counted_new(struct conn *conn, size_t bytes, struct door_buf **ret)
{
	if (!may_have(conn, bytes))
		return SLUICE_E_BUSY;
	*ret = buf_new(conn, bytes);
	return *ret != NULL ? 0 : SLUICE_E_NOMEM;
}

int door_buf_new(struct conn *conn, size_t bytes, struct door_buf **ret, void **ret_bytes)
{
	int rc;

	if (conn->dead || conn->closing)
		return SLUICE_E_CLOSED;
	if (bytes > LIMIT_CONN_PENDING_BYTES_MAX)
		return SLUICE_E_LIMIT;
	rc = counted_new(conn, bytes, ret);
	if (rc == 0)
		*ret_bytes = (*ret)->bytes;
	return rc;
}

void bufs_give(struct conn *conn, struct door_buf *input, const uint8_t *bytes, size_t len,
	       bool fresh)
{
	conn->io->given = (struct given){.conn = conn,
					 .input = input,
					 .bytes = bytes,
					 .at = bytes,
					 .len = len,
					 .fresh = fresh};
}

void bufs_given_end(struct io *io)
{
	door_buf_unref(io->given.taken);
	io->given = (struct given){.conn = NULL};
}

/* The memory itself, or, when little of it is used, a copy of the bytes. */
static int take(struct conn *conn, struct given *given)
{
	struct door_buf *input = given->input;
	int rc;

	if (given->len < input->capacity / 4) {
		rc = counted_new(conn, given->len, &given->taken);
		if (rc != 0)
			return rc;
		memcpy(given->taken->bytes, given->bytes, given->len);
		given->at = given->taken->bytes;
		return 0;
	}
	if (!given->fresh) { /* counted already */
		given->taken = buf_ref(input);
		return 0;
	}
	if (!may_have(conn, input->capacity))
		return SLUICE_E_BUSY;
	count_add(input, conn);
	given->taken = input;
	conn->io->fresh = NULL;
	return 0;
}

int door_buf_take(struct conn *conn, struct door_buf **ret, struct sluice_slice *io_part)
{
	struct given *given = &conn->io->given;
	const uint8_t *part = io_part->data;
	int rc = 0;

	invariant(given->conn == conn && part >= given->bytes &&
			  io_part->len <= (size_t)(given->bytes + given->len - part),
		  "connection %llu takes bytes that it was not given",
		  (unsigned long long)conn->id);
	if (given->taken == NULL)
		rc = take(conn, given);
	if (rc != 0)
		return rc;
	io_part->data = given->at + (part - given->bytes);
	*ret = buf_ref(given->taken);
	return 0;
}
