/* SPDX-License-Identifier: Apache-2.0
 * A client of sluice-floor-server (../floor/wire.h). A unit is copied once, into the buffer of one
 * write; received bodies are passed on from the read buffer. */
#include "floor.h"
#include "../floor/wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	/* send() writes when this much is buffered, so that the server works meanwhile */
	FLUSH_BYTES = 64 << 10,
	IN_BYTES = 256 << 10,
	READS_MAX = 16, /* per poll(), so that a follower of a whole log returns in between */
	HELLO_TIMEOUT_MS = 30000,
	LENGTH_BYTES = 4,
	COUNT_BYTES = 8,
};

struct bench_conn {
	int fd;
	struct bench_conn_spec spec;
	size_t unit_bytes;
	bool full; /* the socket took less than it was given */
	uint8_t *out;
	size_t out_at, out_end, out_room;
	uint8_t *in;
	size_t in_at, in_end, in_room;
	uint64_t answered;		/* as the server counts: units, or bytes acked */
	uint64_t item_bytes, ack_bytes; /* WORK: received; the last ack sent */
};

static bool is_reader(enum bench_role role)
{
	return role != BENCH_PUBLISH && role != BENCH_PUT;
}

static int connect_hello(int port, const struct bench_conn_spec *spec,
			 const struct floor_hello *hello)
{
	int fd = bench_connect(port);
	if (fd < 0)
		return -1;
	uint8_t answer[LENGTH_BYTES + COUNT_BYTES];
	size_t want = is_reader(spec->role) ? sizeof(answer) : COUNT_BYTES, have = 0;
	if (send(fd, hello, sizeof(*hello), MSG_NOSIGNAL) != (ssize_t)sizeof(*hello)) {
		close(fd);
		return bench_error("floor: the hello was not taken: %s", strerror(errno));
	}
	while (have < want) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int rc = poll(&p, 1, HELLO_TIMEOUT_MS);
		ssize_t n = rc > 0 ? recv(fd, answer + have, want - have, 0) : 0;
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0) {
			close(fd);
			return bench_error("floor: the hello was not answered; %s",
					   rc > 0 ? "the connection ended" : "time over");
		}
		have += (size_t)n;
	}
	return fd;
}

int floor_wire_connect(int port, const struct bench_conn_spec *spec)
{
	static const uint32_t roles[] = {
		[BENCH_PUBLISH] = FLOOR_PUBLISH,
		[BENCH_PUT] = FLOOR_PUT,
		[BENCH_FOLLOW_NEW] = FLOOR_FOLLOW_NEW,
		[BENCH_FOLLOW_ALL] = FLOOR_FOLLOW_ALL,
		[BENCH_WORK] = FLOOR_WORK,
	};
	struct floor_hello hello = {
		.role = roles[spec->role],
		.body_bytes = (uint32_t)spec->body_bytes,
		.window_bytes = (uint64_t)spec->window * spec->body_bytes,
	};
	if (strlen(spec->name) >= sizeof(hello.name))
		return bench_error("floor: the name %s is longer than %zu bytes", spec->name,
				   sizeof(hello.name) - 1);
	memcpy(hello.name, spec->name, strlen(spec->name));
	return connect_hello(port, spec, &hello);
}

int floor_wire_open(const struct bench_server *server, const struct bench_conn_spec *spec,
		    struct bench_conn **ret)
{
	size_t unit_bytes = (size_t)spec->batch * spec->body_bytes;
	if (!is_reader(spec->role) && (unit_bytes == 0 || unit_bytes > FLOOR_UNIT_BYTES_MAX))
		return bench_error("floor: a unit of %zu bytes; 1 to %d are possible", unit_bytes,
				   FLOOR_UNIT_BYTES_MAX);
	if (is_reader(spec->role) && spec->body_bytes == 0)
		return bench_error("floor: bodies of 0 bytes");
	struct bench_conn *c = calloc(1, sizeof(*c));
	uint8_t *in = malloc(IN_BYTES);
	int fd = c && in ? floor_wire_connect(server->port, spec) : bench_error("out of memory");
	if (fd < 0) {
		free(in);
		free(c);
		return -1;
	}
	*c = (struct bench_conn){.fd = fd,
				 .spec = *spec,
				 .unit_bytes = unit_bytes,
				 .in = in,
				 .in_room = IN_BYTES};
	*ret = c;
	return 0;
}

void floor_wire_close(struct bench_conn *c)
{
	if (!c)
		return;
	close(c->fd);
	free(c->in);
	free(c->out);
	free(c);
}

int floor_wire_fd(const struct bench_conn *c)
{
	return c->fd;
}

static int flush(struct bench_conn *c)
{
	c->full = false;
	while (c->out_at < c->out_end) {
		ssize_t n = send(c->fd, c->out + c->out_at, c->out_end - c->out_at, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN) {
			c->full = true;
			return 0;
		}
		if (n < 0)
			return bench_error("floor: send: %s", strerror(errno));
		c->out_at += (size_t)n;
	}
	c->out_at = c->out_end = 0;
	return 0;
}

/* Room for `len` bytes at the end of the buffer; NULL after bench_error(). */
static uint8_t *out_room(struct bench_conn *c, size_t len)
{
	if (c->out_at && c->out_end + len > c->out_room) {
		memmove(c->out, c->out + c->out_at, c->out_end - c->out_at);
		c->out_end -= c->out_at;
		c->out_at = 0;
	}
	if (c->out_end + len > c->out_room) {
		size_t room = 2 * (c->out_end + len);
		uint8_t *out = realloc(c->out, room);
		if (!out) {
			bench_error("out of memory for %zu bytes", room);
			return NULL;
		}
		c->out = out;
		c->out_room = room;
	}
	uint8_t *p = c->out + c->out_end;
	c->out_end += len;
	return p;
}

int floor_wire_send(struct bench_conn *c, const void *bodies)
{
	uint32_t len = (uint32_t)c->unit_bytes;
	uint8_t *p = out_room(c, LENGTH_BYTES + len);
	if (!p)
		return -1;
	memcpy(p, &len, LENGTH_BYTES);
	memcpy(p + LENGTH_BYTES, bodies, len);
	return c->out_end - c->out_at >= FLUSH_BYTES && !c->full ? flush(c) : 0;
}

/* ---- deliveries ---- */

/* Answers to a publisher are cumulative: only the last whole one counts. */
static void take_answers(struct bench_conn *c, struct bench_progress *io)
{
	size_t whole = (c->in_end - c->in_at) / COUNT_BYTES * COUNT_BYTES;
	if (!whole)
		return;
	uint64_t count;
	memcpy(&count, c->in + c->in_at + whole - COUNT_BYTES, COUNT_BYTES);
	io->answered += count - c->answered;
	c->answered = count;
	c->in_at += whole;
}

static void take_record(struct bench_conn *c, const uint8_t *p, size_t len,
			struct bench_progress *io)
{
	size_t each = c->spec.body_bytes;
	for (size_t at = 0; at < len; at += each) {
		if (c->spec.on_body)
			c->spec.on_body(c->spec.user, p + at, each);
		io->received++;
	}
	c->item_bytes += len;
}

static int take_records(struct bench_conn *c, struct bench_progress *io)
{
	uint32_t len;
	while (c->in_end - c->in_at >= LENGTH_BYTES) {
		memcpy(&len, c->in + c->in_at, sizeof(len));
		size_t need = LENGTH_BYTES + (len ? len : COUNT_BYTES);
		if (len > FLOOR_UNIT_BYTES_MAX || len % c->spec.body_bytes)
			return bench_error("floor: a record of %u bytes came; bodies have %zu", len,
					   c->spec.body_bytes);
		if (need > c->in_room) {
			uint8_t *in = realloc(c->in, need);
			if (!in)
				return bench_error("out of memory for %zu bytes", need);
			c->in = in;
			c->in_room = need;
		}
		if (c->in_end - c->in_at < need)
			return 0;
		const uint8_t *p = c->in + c->in_at + LENGTH_BYTES;
		c->in_at += need;
		if (len) {
			take_record(c, p, len, io);
			continue;
		}
		uint64_t bytes;
		memcpy(&bytes, p, sizeof(bytes));
		io->settled += (bytes - c->answered) / c->spec.body_bytes;
		c->answered = bytes;
	}
	return 0;
}

/* Reads once. *ret_more: the buffer was filled, so there may be more. */
static int take(struct bench_conn *c, struct bench_progress *io, bool *ret_more)
{
	if (c->in_at) {
		memmove(c->in, c->in + c->in_at, c->in_end - c->in_at);
		c->in_end -= c->in_at;
		c->in_at = 0;
	}
	size_t room = c->in_room - c->in_end;
	ssize_t n = recv(c->fd, c->in + c->in_end, room, 0);
	*ret_more = n > 0 && (size_t)n == room;
	if (n < 0)
		return errno == EAGAIN || errno == EINTR
			       ? 0
			       : bench_error("floor: recv: %s", strerror(errno));
	if (n == 0)
		return bench_error("floor: the server closed the connection; its log says why");
	c->in_end += (size_t)n;
	if (is_reader(c->spec.role))
		return take_records(c, io);
	take_answers(c, io);
	return 0;
}

static int ack(struct bench_conn *c)
{
	if (c->spec.role != BENCH_WORK || c->item_bytes == c->ack_bytes)
		return 0;
	uint8_t *p = out_room(c, COUNT_BYTES);
	if (!p)
		return -1;
	memcpy(p, &c->item_bytes, COUNT_BYTES);
	c->ack_bytes = c->item_bytes;
	return 0;
}

int floor_wire_poll(struct bench_conn *c, int timeout_us, struct bench_progress *io)
{
	bool more = true;
	if (flush(c) < 0)
		return -1;
	if (timeout_us > 0) {
		struct pollfd p = {.fd = c->fd,
				   .events = (short)(POLLIN | (c->full ? POLLOUT : 0))};
		struct timespec ts = {timeout_us / 1000000, timeout_us % 1000000 * 1000L};
		if (ppoll(&p, 1, &ts, NULL) < 0 && errno != EINTR)
			return bench_error("floor: poll: %s", strerror(errno));
		if (p.revents & POLLOUT && flush(c) < 0)
			return -1;
		more = (p.revents & ~POLLOUT) != 0;
	}
	for (unsigned n = 0; more && n < READS_MAX; n++) {
		if (take(c, io, &more) < 0)
			return -1;
	}
	if (ack(c) < 0)
		return -1;
	return flush(c);
}
