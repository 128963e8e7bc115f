/* SPDX-License-Identifier: Apache-2.0
 *
 * The connections of sluice-floor-server: input goes into the batch straight from the read buffer;
 * output is one write, and bytes that the socket does not accept wait in the connection, which gets
 * nothing more until they are sent.
 */
#include "server.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LENGTH_BYTES = 4, ACK_BYTES = 8 };

void conn_accept(struct server *s)
{
	for (;;) {
		int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
			fprintf(stderr,
				"sluice-floor-server: accept: %s; waiting for a connection to "
				"close\n",
				strerror(errno));
			s->deaf = true;
			(void)epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->listener, NULL);
			return;
		}
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd < 0)
			floor_die("accept: %s", strerror(errno));
		int on = 1;
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		struct conn *c = floor_alloc(1, sizeof(*c));
		c->fd = fd;
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = c};
		if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
			floor_die("epoll_ctl: %s", strerror(errno));
	}
}

static void touch(struct server *s, struct conn *c)
{
	if (c->touched)
		return;
	c->touched = true;
	c->next_touched = s->touched;
	s->touched = c;
}

/* Ends the connection; `format` gives the reason, NULL: the peer had closed it. It stays in the
 * lists of this turn, without a descriptor. */
__attribute__((format(printf, 3, 4))) static void end(struct server *s, struct conn *c,
						      const char *format, ...)
{
	if (c->fd < 0)
		return;
	if (format) {
		va_list args;
		va_start(args, format);
		fputs("sluice-floor-server: connection closed: ", stderr);
		vfprintf(stderr, format, args);
		fputc('\n', stderr);
		va_end(args);
	}
	close(c->fd);
	c->fd = -1;
	if (c->role == FLOOR_WORK)
		table_give_back(c);
	if (c->table) {
		struct conn **at = &c->table->readers;
		while (*at && *at != c)
			at = &(*at)->next_reader;
		if (*at)
			*at = c->next_reader;
	}
	touch(s, c);
	if (s->deaf) {
		struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
		s->deaf = epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &ev) < 0;
	}
}

/* ---- out ---- */

static void want_out(struct server *s, struct conn *c, bool want)
{
	if (c->want_out == want)
		return;
	c->want_out = want;
	struct epoll_event ev = {.events = EPOLLIN | (want ? EPOLLOUT : 0u), .data.ptr = c};
	if (epoll_ctl(s->epoll, EPOLL_CTL_MOD, c->fd, &ev) < 0)
		floor_die("epoll_ctl: %s", strerror(errno));
}

static void keep(struct conn *c, const uint8_t *bytes, size_t len)
{
	if (c->out_at == c->out_end)
		c->out_at = c->out_end = 0;
	if (c->out_end + len > c->out_room) {
		c->out_room = c->out_end + len;
		c->out = realloc(c->out, c->out_room);
		if (!c->out)
			floor_die("out of memory");
	}
	memcpy(c->out + c->out_end, bytes, len);
	c->out_end += len;
}

/* false: the socket is full (the rest is kept), or the connection has ended. */
static bool put_out(struct server *s, struct conn *c, const void *bytes, size_t len)
{
	ssize_t n = c->out_at < c->out_end ? 0 : send(c->fd, bytes, len, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		end(s, c, NULL);
		return false;
	}
	size_t done = n > 0 ? (size_t)n : 0;
	if (done == len)
		return true;
	keep(c, (const uint8_t *)bytes + done, len - done);
	want_out(s, c, true);
	return false;
}

/* Delivers records until the socket is full or the turn of the others comes. */
static void deliver(struct server *s, struct conn *c)
{
	size_t turn = 0;
	while (c->fd >= 0 && c->out_at == c->out_end) {
		if (turn >= SERVER_TURN_BYTES) {
			want_out(s, c, true);
			return;
		}
		if (c->role == FLOOR_WORK ? !table_take(s, c) : !table_page(s, c->table, c->place))
			break;
		if (c->role != FLOOR_WORK)
			c->place = s->page.to;
		turn += s->page.bytes;
		if (!put_out(s, c, s->page.buf, s->page.bytes))
			return;
	}
	if (c->fd >= 0 && c->out_at == c->out_end)
		want_out(s, c, false);
}

static bool is_reader(const struct conn *c)
{
	return c->role == FLOOR_FOLLOW_NEW || c->role == FLOOR_FOLLOW_ALL || c->role == FLOOR_WORK;
}

static void answer(struct server *s, struct conn *c)
{
	/* The next answer is written only after the one that waits has been sent. */
	c->unanswered = c->out_at < c->out_end;
	if (c->unanswered)
		return;
	uint8_t frame[LENGTH_BYTES + ACK_BYTES] = {0};
	memcpy(frame + LENGTH_BYTES, &c->count, ACK_BYTES);
	if (is_reader(c))
		(void)put_out(s, c, frame, sizeof(frame));
	else
		(void)put_out(s, c, frame + LENGTH_BYTES, ACK_BYTES);
}

static void flush(struct server *s, struct conn *c)
{
	ssize_t n = send(c->fd, c->out + c->out_at, c->out_end - c->out_at, MSG_NOSIGNAL);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			end(s, c, NULL);
		return;
	}
	c->out_at += (size_t)n;
	if (c->out_at < c->out_end)
		return;
	want_out(s, c, false);
	/* `count` may include units that are not durable yet: the answer waits for the end of the
	 * turn. */
	if (c->unanswered)
		touch(s, c);
	if (is_reader(c))
		deliver(s, c);
}

void server_erase(struct server *s)
{
	for (struct conn *c = s->touched; c; c = c->next_touched) {
		if (c->fd >= 0 && c->role == FLOOR_WORK && c->count > c->erased_bytes &&
		    !table_erase(s, c))
			end(s, c, "an ack of %llu bytes, which is not the end of an item",
			    (unsigned long long)c->count);
	}
}

void server_answer(struct server *s)
{
	struct conn *c, *next;
	for (c = s->touched; c; c = next) {
		next = c->next_touched;
		c->touched = false;
		if (c->fd >= 0)
			answer(s, c);
		if (c->fd >= 0 && is_reader(c))
			deliver(s, c);
		if (c->fd < 0) {
			c->touched = true;
			c->next_touched = s->dead;
			s->dead = c;
		}
	}
	s->touched = NULL;
	for (struct table *t = s->tables; t; t = t->next) {
		if (!t->has_new)
			continue;
		t->has_new = false;
		for (c = t->readers; c; c = next) {
			next = c->next_reader;
			deliver(s, c);
		}
	}
}

void server_bury(struct server *s)
{
	struct conn *next;
	for (struct conn *c = s->dead; c; c = next) {
		next = c->next_touched;
		free(c->unit);
		free(c->out);
		free(c->held.at);
		free(c);
	}
	s->dead = NULL;
}

/* ---- in ---- */

static void hello(struct server *s, struct conn *c)
{
	struct floor_hello h;
	memcpy(&h, c->small, sizeof(h));
	bool reads =
		h.role == FLOOR_FOLLOW_NEW || h.role == FLOOR_FOLLOW_ALL || h.role == FLOOR_WORK;
	if (h.role < FLOOR_PUBLISH || h.role > FLOOR_WORK) {
		end(s, c, "a hello with role %u", h.role);
		return;
	}
	if (!h.name[0] || memchr(h.name, 0, sizeof(h.name)) == NULL) {
		end(s, c, "a hello without a name of 1 to %d bytes", FLOOR_NAME_BYTES - 1);
		return;
	}
	if (s->mode == SERVER_ECHO && reads) {
		end(s, c, "a hello of a reader, but mode echo stores nothing");
		return;
	}
	c->body_bytes = s->mode == SERVER_RECORD ? h.body_bytes : 0;
	c->window_bytes = h.window_bytes;
	c->small_have = 0;
	if (s->mode != SERVER_ECHO)
		c->table = table_open(s, h.name, h.role == FLOOR_PUT || h.role == FLOOR_WORK);
	c->role = h.role;
	if (reads) {
		c->place = h.role == FLOOR_FOLLOW_NEW ? c->table->end : 0;
		c->next_reader = c->table->readers;
		c->table->readers = c;
	}
	touch(s, c);
}

/* One unit, whole. */
static void unit(struct server *s, struct conn *c, const uint8_t *bytes, size_t len)
{
	c->count++;
	touch(s, c);
	if (s->mode == SERVER_ECHO)
		return;
	size_t each = c->body_bytes ? c->body_bytes : len;
	if (len % each) {
		end(s, c, "a unit of %zu bytes, which is not a multiple of the bodies' %zu", len,
		    each);
		return;
	}
	for (size_t at = 0; at < len; at += each)
		table_append(s, c->table, bytes + at, each);
}

static void unit_done(struct server *s, struct conn *c)
{
	c->unit_have = 0;
	size_t len = c->unit_bytes;
	c->unit_bytes = 0;
	unit(s, c, c->unit, len);
	if (c->unit_room > SERVER_TAIL_KEEP) {
		free(c->unit);
		c->unit = NULL;
		c->unit_room = 0;
	}
}

/* Handles a complete length. false: the connection has ended. */
static bool unit_begin(struct server *s, struct conn *c, uint32_t len)
{
	if (len == 0 || len > FLOOR_UNIT_BYTES_MAX) {
		end(s, c, "a unit of %u bytes; 1 to %d are allowed", len, FLOOR_UNIT_BYTES_MAX);
		return false;
	}
	c->unit_bytes = len;
	return true;
}

/* Handles the beginning of a unit whose rest has not arrived. */
static void unit_keep(struct conn *c, const uint8_t *bytes, size_t len)
{
	if (c->unit_room < c->unit_bytes) {
		free(c->unit);
		c->unit_room = c->unit_bytes;
		c->unit = floor_alloc(1, c->unit_room);
	}
	memcpy(c->unit, bytes, len);
	c->unit_have = len;
}

static void take_units(struct server *s, struct conn *c, const uint8_t *p, size_t n)
{
	while (n && c->fd >= 0) {
		if (!c->unit_bytes) {
			uint32_t len;
			if (c->small_have == 0 && n >= LENGTH_BYTES) {
				memcpy(&len, p, sizeof(len));
				p += LENGTH_BYTES;
				n -= LENGTH_BYTES;
			} else {
				c->small[c->small_have++] = *p++;
				n--;
				if (c->small_have < LENGTH_BYTES)
					continue;
				memcpy(&len, c->small, sizeof(len));
				c->small_have = 0;
			}
			if (!unit_begin(s, c, len))
				return;
		}
		if (n < c->unit_bytes) {
			if (n)
				unit_keep(c, p, n);
			return;
		}
		size_t len = c->unit_bytes;
		c->unit_bytes = 0;
		unit(s, c, p, len);
		p += len;
		n -= len;
	}
}

static void acked(struct server *s, struct conn *c)
{
	uint64_t bytes;
	memcpy(&bytes, c->small, sizeof(bytes));
	if (bytes < c->count || bytes > c->sent_bytes) {
		end(s, c, "an ack of %llu bytes; from %llu to %llu are possible",
		    (unsigned long long)bytes, (unsigned long long)c->count,
		    (unsigned long long)c->sent_bytes);
		return;
	}
	c->count = bytes;
	touch(s, c);
}

/* Hellos and acks: `size` bytes each. Returns the bytes consumed, at least 1; *ret_whole: c->small
 * is complete. */
static size_t take_small(struct conn *c, const uint8_t *p, size_t n, unsigned size, bool *ret_whole)
{
	size_t more = size - c->small_have < n ? size - c->small_have : n;
	memcpy(c->small + c->small_have, p, more);
	c->small_have += (unsigned)more;
	*ret_whole = c->small_have == size;
	return more;
}

static void take(struct server *s, struct conn *c, const uint8_t *p, size_t n)
{
	while (n && c->fd >= 0) {
		bool whole;
		if (c->role == FLOOR_PUBLISH || c->role == FLOOR_PUT) {
			take_units(s, c, p, n);
			return;
		}
		if (c->role && c->role != FLOOR_WORK) {
			end(s, c, "bytes from a follower, which must not send any");
			return;
		}
		size_t used = take_small(c, p, n, c->role ? ACK_BYTES : sizeof(struct floor_hello),
					 &whole);
		p += used;
		n -= used;
		if (!whole)
			return;
		c->small_have = 0;
		if (!c->role) {
			hello(s, c);
		} else {
			acked(s, c);
		}
	}
}

/* Reads until the socket is empty or the batch is full. The rest of a unit is read directly to its
 * place, other bytes into the read buffer. */
static void read_all(struct server *s, struct conn *c)
{
	while (c->fd >= 0 && s->batch_bytes < SERVER_BATCH_BYTES) {
		size_t rest = c->unit_have ? c->unit_bytes - c->unit_have : 0;
		ssize_t n;
		if (rest) {
			struct iovec iov[2] = {{c->unit + c->unit_have, rest},
					       {s->in, sizeof(s->in)}};
			n = readv(c->fd, iov, 2);
		} else {
			n = read(c->fd, s->in, sizeof(s->in));
		}
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			end(s, c, NULL);
			return;
		}
		size_t got = (size_t)n, want = rest + sizeof(s->in);
		s->batch_bytes += got;
		size_t first = got < rest ? got : rest;
		c->unit_have += first;
		if (rest && first == rest)
			unit_done(s, c);
		take(s, c, s->in, got - first);
		if (got < want)
			return;
	}
}

void conn_event(struct server *s, struct conn *c, uint32_t events)
{
	if (c->fd >= 0 && (events & EPOLLOUT)) {
		if (c->out_at < c->out_end)
			flush(s, c);
		else if (is_reader(c))
			deliver(s, c);
	}
	if (c->fd >= 0 && (events & ~(uint32_t)EPOLLOUT))
		read_all(s, c);
}
