/* SPDX-License-Identifier: Apache-2.0
 *
 * Idle connections: sockets that have sent HELLO, received WELCOME, and then are silent. A HELLO
 * always opens a session, so each has one, as a usual client would; its timeout is long, so that
 * the broker does not end it during the measurement.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/drivers/sluice_driver.h"
#include "protocol/frame.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "sluice.pb-c.h"
#include "sluice/version.h"

enum {
	WAVE = 256, /* under a listener's usual backlog: a SYN that is dropped costs a second */
	WAVE_MS_MAX = 30000,
	SILENT_MS = 3600 * 1000,
	HELLO_BYTES_MAX = 256,
	ANSWER_BYTES_MAX = 1024,
};

struct idle_conn {
	int fd;
	bool sent;
	size_t len;
	uint8_t answer[ANSWER_BYTES_MAX];
};

static size_t hello_make(uint8_t buf[HELLO_BYTES_MAX])
{
	Sluice__Hello hello = SLUICE__HELLO__INIT;
	struct frame_header header = {.type = FRAME_HELLO};
	char name[] = "sluice-bench-idle";

	hello.version_min = SLUICE_PROTOCOL_VERSION_MIN;
	hello.version_max = SLUICE_PROTOCOL_VERSION;
	hello.client = name;
	hello.session_timeout_ms = SILENT_MS;
	hello.heartbeat_ms = SILENT_MS;
	header.body_bytes = (uint32_t)sluice__hello__get_packed_size(&hello);
	frame_header_encode(buf, &header);
	(void)sluice__hello__pack(&hello, buf + FRAME_HEADER_BYTES);
	return FRAME_HEADER_BYTES + header.body_bytes;
}

/* The text of a broker's refusal. */
static int refused(const struct idle_conn *conn, const struct frame_header *header)
{
	struct sluice_slice body = {conn->answer + FRAME_HEADER_BYTES, header->body_bytes};
	const char *why = "";
	ProtobufCMessage *message;

	if (header->type != FRAME_ERROR)
		return bench_error("sluice: HELLO was answered by a frame of type %u",
				   header->type);
	if (message_unpack(&sluice__failure__descriptor, body, sizeof(conn->answer), &message,
			   &why) != 0)
		return bench_error("sluice: HELLO was refused by a malformed ERROR: %s", why);
	(void)bench_error("sluice: HELLO was refused: %s", ((Sluice__Failure *)message)->text);
	protobuf_c_message_free_unpacked(message, NULL);
	return -1;
}

/* 1: WELCOME has arrived; 0: it is incomplete. */
static int answer_check(const struct idle_conn *conn)
{
	struct frame_header header;
	const char *why = "";

	if (conn->len < FRAME_HEADER_BYTES)
		return 0;
	if (frame_header_decode(conn->answer, LIMIT_FRAME_BYTES_MAX, &header, &why) != 0)
		return bench_error("sluice: HELLO was answered by no frame: %s", why);
	if (FRAME_HEADER_BYTES + (size_t)header.body_bytes > sizeof(conn->answer))
		return bench_error("sluice: HELLO was answered by %u bytes", header.body_bytes);
	if (conn->len < FRAME_HEADER_BYTES + (size_t)header.body_bytes)
		return 0;
	return header.type == FRAME_WELCOME ? 1 : refused(conn, &header);
}

/* One step of one connection; 1: done, 0: call again. */
static int advance(struct idle_conn *conn, const uint8_t *hello, size_t len)
{
	ssize_t got;

	if (!conn->sent) {
		got = send(conn->fd, hello, len, MSG_NOSIGNAL);
		if (got < 0 && (errno == EAGAIN || errno == ENOTCONN))
			return 0;
		if (got != (ssize_t)len)
			return bench_error("sluice: send HELLO: %s",
					   got < 0 ? strerror(errno) : "only a part was taken");
		conn->sent = true;
		return 0;
	}
	got = recv(conn->fd, conn->answer + conn->len, sizeof(conn->answer) - conn->len, 0);
	if (got < 0 && errno == EAGAIN)
		return 0;
	if (got <= 0)
		return bench_error("sluice: await WELCOME: %s",
				   got < 0 ? strerror(errno) : "the broker closed the connection");
	conn->len += (size_t)got;
	return answer_check(conn);
}

static int wave_await(struct idle_conn *conns, unsigned count, const uint8_t *hello, size_t len)
{
	struct pollfd fds[WAVE];
	unsigned left = count;
	uint64_t until = bench_now_ns() + WAVE_MS_MAX * 1000000ull;

	for (unsigned i = 0; i < count; i++)
		fds[i] = (struct pollfd){.fd = conns[i].fd, .events = POLLOUT};
	while (left > 0) {
		if (bench_interrupted())
			return bench_error("interrupted");
		if (bench_now_ns() >= until)
			return bench_error("sluice: %u of %u HELLOs had no answer in %d s", left,
					   count, WAVE_MS_MAX / 1000);
		if (poll(fds, count, 1000) < 0 && errno != EINTR)
			return bench_error("sluice: poll: %s", strerror(errno));
		for (unsigned i = 0; i < count; i++) {
			int rc;

			if (fds[i].fd < 0 || fds[i].revents == 0)
				continue;
			rc = advance(&conns[i], hello, len);
			if (rc < 0)
				return -1;
			fds[i].events = conns[i].sent ? POLLIN : POLLOUT;
			if (rc == 1) {
				fds[i].fd = -1;
				left--;
			}
		}
	}
	return 0;
}

/* Opens count connections; *io_open counts those to be closed, also after an error. */
static int wave(const struct bench_server *server, unsigned count, int *fds, unsigned *io_open)
{
	struct idle_conn *conns = calloc(count, sizeof(*conns));
	uint8_t hello[HELLO_BYTES_MAX];
	size_t len = hello_make(hello);
	int rc = conns == NULL ? bench_error("sluice: out of memory") : 0;

	for (unsigned i = 0; i < count && rc == 0; i++) {
		conns[i].fd = bench_connect(server->port);
		rc = conns[i].fd < 0 ? bench_error("sluice: connection %u: %s", *io_open + 1,
						   strerror(errno))
				     : 0;
		if (rc == 0)
			fds[(*io_open)++] = conns[i].fd;
	}
	if (rc == 0)
		rc = wave_await(conns, count, hello, len);
	free(conns);
	return rc;
}

int sluice_driver_idle(const struct bench_server *server, unsigned count, int **ret_fds)
{
	int *fds = calloc(count > 0 ? count : 1, sizeof(*fds));
	unsigned open = 0;
	int rc = fds == NULL ? bench_error("sluice: out of memory") : 0;

	while (rc == 0 && open < count)
		rc = wave(server, count - open < WAVE ? count - open : (unsigned)WAVE, fds, &open);
	if (rc == 0) {
		*ret_fds = fds;
		return 0;
	}
	for (unsigned i = 0; i < open; i++)
		(void)close(fds[i]);
	free(fds);
	return -1;
}
