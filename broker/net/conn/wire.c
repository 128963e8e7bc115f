/* SPDX-License-Identifier: Apache-2.0
 * Plain bytes on a socket. */
#include "broker/net/conn/wire.h"

#include <sys/socket.h>

#include "broker/net/conn/internal.h"

static int plain_open(struct conn *conn)
{
	(void)conn;
	return 0;
}

static ssize_t plain_read(struct conn *conn, struct iovec *rooms, int count)
{
	return readv(conn->fd, rooms, count);
}

static ssize_t plain_write(struct conn *conn, struct iovec *pieces, int count)
{
	const struct msghdr message = {.msg_iov = pieces, .msg_iovlen = (size_t)count};

	return sendmsg(conn->fd, &message, MSG_NOSIGNAL);
}

static bool plain_pending(const struct conn *conn)
{
	(void)conn;
	return false;
}

static void plain_end(struct conn *conn)
{
	(void)shutdown(conn->fd, SHUT_WR);
}

static void plain_close(struct conn *conn)
{
	(void)conn;
}

const struct wire_ops wire_plain = {
	.name = "plain",
	.open = plain_open,
	.read = plain_read,
	.write = plain_write,
	.pending = plain_pending,
	.end = plain_end,
	.close = plain_close,
};
