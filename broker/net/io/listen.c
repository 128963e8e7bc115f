/* SPDX-License-Identifier: Apache-2.0
 *
 * Listening sockets: a new connection is counted and assigned to an I/O thread. The sockets belong
 * to the first I/O thread.
 *
 * After an accept() that fails because of one connection the next one is accepted. After a failure
 * for lack of descriptors or memory, or for an unknown reason, accepting pauses, because the
 * waiting connection keeps the socket readable.
 */
#include "broker/net/io/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/net/conn/internal.h"
#include "broker/net/conn/state.h"
#include "broker/net/io/io.h"
#include "broker/net/io/listen_unix.h"
#include "broker/util/log.h"

enum {
	BACKLOG = 4096,
	ACCEPTS_AT_ONCE = 64,
	CONNECTIONS_MAX_DEFAULT = 20000,
	RETRY_MS = 1000,
	LOG_AGAIN_MS = 10000
};

struct listen_socket {
	struct listening listening;
	struct listen_socket *next;
	struct net *net;
	const struct protocol_ops *protocol;
	const void *listener;
	int fd; /* -1: closed */
	/* ---- a unix socket ---- */
	char *path; /* NULL: it is none */
	struct unix_file file;
	struct event *event;
	struct event *retry; /* accepts again, after a pause */
	uint64_t logged_ms;  /* time of the last log line about a pause */
	int logged_errno;
};

/* Errors of one connection (Linux passes on those of the network), and of no other. */
static bool is_of_one(int error)
{
	switch (error) {
	case ECONNABORTED:
	case EINTR:
	case EPROTO:
	case EPERM: /* a firewall's */
	case ENETDOWN:
	case ENOPROTOOPT:
	case EHOSTDOWN:
	case ENONET:
	case EHOSTUNREACH:
	case EOPNOTSUPP:
	case ENETUNREACH:
		return true;
	default:
		return false;
	}
}

static void pause_accept(struct listen_socket *from, int error)
{
	uint64_t now = io_now_ms();
	const struct timeval pause = {RETRY_MS / 1000, RETRY_MS % 1000 * 1000};

	if (from->logged_errno != error || from->logged_ms + LOG_AGAIN_MS <= now) {
		from->logged_ms = now;
		from->logged_errno = error;
		if (error == EMFILE || error == ENFILE)
			log_line(LOG_LEVEL_ERROR,
				 log_id("net.descriptors", "no file descriptor is left for a new "
							   "connection; it waits"),
				 log_str("error", strerror(error)),
				 log_u64("connections", atomic_load(&from->net->connections)));
		else
			log_line(LOG_LEVEL_ERROR,
				 log_id("net.accept",
					"accept() failed and is retried; connections wait"),
				 log_i64("errno", error), log_str("error", strerror(error)),
				 log_u64("retry_ms", RETRY_MS));
	}
	(void)event_del(from->event);
	(void)event_add(from->retry, &pause);
}

static bool count_below(_Atomic uint64_t *count, uint64_t max)
{
	if (atomic_fetch_add(count, 1) < max)
		return true;
	atomic_fetch_sub(count, 1);
	return false;
}

/* Counted before it is assigned: threads that accept or adopt at the same time cannot exceed a
 * bound together. conn.c counts out. */
static bool count_in(struct listen_socket *from)
{
	struct net *net = from->net;
	uint64_t max = net->config.connections_max != 0 ? net->config.connections_max
							: CONNECTIONS_MAX_DEFAULT;
	uint64_t own = from->listening.connections_max != 0 ? from->listening.connections_max : max;

	if (!count_below(&net->connections, max))
		return false;
	if (count_below(&from->listening.connections, own))
		return true;
	atomic_fetch_sub(&net->connections, 1);
	return false;
}

/* Detects a peer that is gone without closing within two minutes, for any session timeout. */
static void keep_alive(int fd)
{
	const int on = 1, idle_s = 60, interval_s = 15, count = 4;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

static void refuse_stranger(int fd)
{
	static struct log_rate rate = {.per_second = 1};
	uint64_t left_out;

	if (log_may(&rate, &left_out))
		log_line(LOG_LEVEL_WARN,
			 log_id("net.overflow_uid",
				"a connection was refused: its user is not mapped into the "
				"broker's user namespace"),
			 log_u64("left_out", left_out));
	(void)close(fd);
}

static void refuse_one(int fd)
{
	static struct log_rate rate = {.per_second = 1};
	char peer[PEER_TEXT_BYTES];
	uint64_t left_out;

	if (log_may(&rate, &left_out))
		log_line(LOG_LEVEL_WARN,
			 log_id("net.connections_max",
				"a connection was refused: connections_max is reached"),
			 log_str("peer", conn_peer(fd, peer)), log_u64("left_out", left_out));
	(void)close(fd);
}

static void on_accept(evutil_socket_t fd, short what, void *user)
{
	struct listen_socket *from = user;

	(void)what;
	if (from->net->ios[0].draining) {
		(void)event_del(from->event);
		return;
	}
	for (int n = 0; n < ACCEPTS_AT_ONCE; n++) {
		int conn_fd = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (conn_fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		if (conn_fd < 0 && is_of_one(errno))
			continue;
		if (conn_fd < 0) {
			pause_accept(from, errno);
			return;
		}
		if (from->path != NULL && unix_peer_is_unknown(conn_fd)) {
			refuse_stranger(conn_fd);
			continue;
		}
		if (!count_in(from)) {
			refuse_one(conn_fd);
			continue;
		}
		if (from->path == NULL)
			keep_alive(conn_fd);
		if (io_adopt(from->net, &(struct arrival){.protocol = from->protocol,
							  .listener = from->listener,
							  .listening = &from->listening,
							  .fd = conn_fd}) != 0) {
			pause_accept(from, ENOMEM);
			return;
		}
	}
}

static void on_retry(evutil_socket_t fd, short what, void *user)
{
	struct listen_socket *from = user;

	(void)fd;
	(void)what;
	(void)event_add(from->event, NULL);
}

static int bind_failed(const char *step, int error, const char **ret_why)
{
	static _Thread_local char why[128];

	(void)snprintf(why, sizeof(why), "%s: %s", step, strerror(error));
	*ret_why = why;
	return error == EADDRINUSE ? SLUICE_E_IN_USE : SLUICE_E_IO;
}

static int bind_to(const char *address, uint16_t port, int *ret_fd, uint16_t *ret_port,
		   const char **ret_why)
{
	struct sockaddr_storage addr = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&addr;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&addr;
	socklen_t len;
	int on = 1, fd, rc;

	if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons(port);
		len = sizeof(*v4);
	} else if (inet_pton(AF_INET6, address, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons(port);
		len = sizeof(*v6);
	} else {
		*ret_why = "the address is not numeric; expected one such as 127.0.0.1 or ::1";
		return SLUICE_E_INVAL;
	}
	fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return bind_failed("socket", errno, ret_why);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&addr, len) != 0) {
		rc = bind_failed("bind", errno, ret_why);
		(void)close(fd);
		return rc;
	}
	len = sizeof(addr);
	(void)getsockname(fd, (struct sockaddr *)&addr, &len);
	*ret_port = ntohs(addr.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
	*ret_fd = fd;
	return 0;
}

static void socket_close(struct listen_socket *socket)
{
	if (socket->event != NULL)
		event_free(socket->event);
	if (socket->retry != NULL)
		event_free(socket->retry);
	socket->event = socket->retry = NULL;
	if (socket->fd >= 0)
		(void)close(socket->fd);
	if (socket->fd >= 0 && socket->path != NULL)
		unix_remove(socket->path, &socket->file);
	socket->fd = -1;
}

static void socket_free(struct listen_socket *socket)
{
	if (socket == NULL)
		return;
	socket_close(socket);
	free(socket->path);
	free(socket);
}

static int socket_bind(struct listen_socket *socket, const struct net_listener *row,
		       uint16_t *ret_port, const char **ret_why)
{
	int rc;

	if (row->path == NULL)
		return bind_to(row->address, row->port, &socket->fd, ret_port, ret_why);
	rc = unix_bind(row->path, &socket->fd, &socket->file, ret_why);
	if (rc != 0)
		return rc;
	*ret_port = 0;
	socket->path = strdup(row->path);
	if (socket->path == NULL)
		unix_remove(row->path, &socket->file);
	return socket->path != NULL ? 0 : SLUICE_E_NOMEM;
}

int listener_open(struct net *net, const struct net_listener *row, uint16_t *ret_port,
		  const char **ret_why)
{
	struct listen_socket *opened = calloc(1, sizeof(*opened));
	int rc;

	if (opened == NULL)
		return SLUICE_E_NOMEM;
	opened->fd = -1;
	opened->net = net;
	opened->protocol = row->protocol;
	opened->listener = row->listener;
	opened->listening.connections_max = row->connections_max;
	opened->listening.tls = row->tls;
	rc = socket_bind(opened, row, ret_port, ret_why);
	if (rc == 0 && listen(opened->fd, BACKLOG) != 0)
		rc = bind_failed("listen", errno, ret_why);
	if (rc == 0) {
		opened->event = event_new(net->ios[0].base, opened->fd, EV_READ | EV_PERSIST,
					  on_accept, opened);
		opened->retry = evtimer_new(net->ios[0].base, on_retry, opened);
		if (opened->event == NULL || opened->retry == NULL ||
		    event_add(opened->event, NULL) != 0)
			rc = SLUICE_E_NOMEM;
	}
	if (rc != 0) {
		socket_free(opened);
		return rc;
	}
	opened->next = net->sockets;
	net->sockets = opened;
	return 0;
}

void listeners_close(struct net *net)
{
	for (struct listen_socket *each = net->sockets; each != NULL; each = each->next)
		socket_close(each);
}

void listeners_free(struct net *net)
{
	while (net->sockets != NULL) {
		struct listen_socket *first = net->sockets;

		net->sockets = first->next;
		socket_free(first);
	}
}
