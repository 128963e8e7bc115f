/* SPDX-License-Identifier: Apache-2.0
 * From accept() to a session: attempts of one client in their order, errors of accept(), the bound
 * of connections. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "broker/net/conn/instance.h"
#include "broker/net/conn/internal.h"
#include "broker/util/log.h"
#include "protocol/frame.h"
#include "protocol/limits.h"
#include "tests/unit/net_rig.h"

/* ---- a client's attempts to connect, in order ---- */

static int peer_open(struct rig *rig)
{
	int pair[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	cr_assert_eq(net_adopt(rig->net, &native_protocol, NULL, pair[0]), 0);
	return pair[1];
}

struct hello {
	const char *instance; /* 16 bytes; NULL: none */
	uint64_t attempt;
	const char *name;
	uint64_t session;
	uint8_t secret[16];
};

static void hello_send(int fd, const struct hello *from)
{
	Sluice__Hello hello = SLUICE__HELLO__INIT;
	uint8_t body[512], bytes[FRAME_HEADER_BYTES + sizeof(body)];
	size_t len;

	hello.version_min = hello.version_max = 1;
	hello.session_name = (char *)(uintptr_t)from->name;
	hello.session_id = from->session;
	if (from->session != 0)
		hello.session_secret =
			(ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)from->secret};
	if (from->instance != NULL)
		hello.instance = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)from->instance};
	hello.attempt = from->attempt;
	len = frame_put(bytes, FRAME_HELLO, body, sluice__hello__pack(&hello, body));
	cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
}

/* WELCOME: 0, with the session in *io; ERROR: its code; 1: closed without a frame; 2: nothing
 * came. */
static int hello_answer(struct rig *rig, int fd, struct hello *io)
{
	struct frame_header header;
	uint8_t bytes[1024];
	const char *why = "";
	ssize_t got;
	int code = 0;

	turns(rig);
	got = read(fd, bytes, sizeof(bytes));
	if (got <= 0)
		return got == 0 ? 1 : 2;
	cr_assert_eq(frame_header_decode(bytes, 1024, &header, &why), 0, "%s", why);
	if (header.type == FRAME_ERROR) {
		Sluice__Failure *failure = sluice__failure__unpack(NULL, header.body_bytes,
								   bytes + FRAME_HEADER_BYTES);

		cr_assert_not_null(failure);
		code = failure->code;
		sluice__failure__free_unpacked(failure, NULL);
	} else {
		Sluice__Welcome *welcome = sluice__welcome__unpack(NULL, header.body_bytes,
								   bytes + FRAME_HEADER_BYTES);

		cr_assert_eq(header.type, FRAME_WELCOME);
		cr_assert_not_null(welcome);
		io->session = welcome->session_id;
		memcpy(io->secret, welcome->session_secret.data, 16);
		sluice__welcome__free_unpacked(welcome, NULL);
	}
	return code;
}

static int hello_on(struct rig *rig, int fd, struct hello *io)
{
	hello_send(fd, io);
	return hello_answer(rig, fd, io);
}

Test(net, a_late_attempt_takes_no_session)
{
	struct hello one = {.instance = "0123456789abcdef", .attempt = 2, .name = "scheduler"};
	struct hello ghost = {.instance = "0123456789abcdef", .attempt = 1, .name = "scheduler"};
	struct hello other = {.instance = "fedcba9876543210", .attempt = 1, .name = "scheduler"};
	struct hello old = {.name = "scheduler"};
	struct rig rig;
	int fd[8];

	rig_open(&rig);
	for (size_t i = 0; i < 8; i++)
		fd[i] = peer_open(&rig);
	turns(&rig);
	cr_assert_eq(hello_on(&rig, fd[0], &one), 0);
	/* By the name, by id and secret, and the same attempt once more. */
	cr_expect_eq(hello_on(&rig, fd[1], &ghost), SLUICE_E_STALE_ATTEMPT);
	ghost.session = one.session;
	memcpy(ghost.secret, one.secret, 16);
	cr_expect_eq(hello_on(&rig, fd[2], &ghost), SLUICE_E_STALE_ATTEMPT);
	ghost.attempt = 2;
	cr_expect_eq(hello_on(&rig, fd[3], &ghost), SLUICE_E_STALE_ATTEMPT);
	cr_expect_eq(hello_answer(&rig, fd[0], &one), 2,
		     "the attached connection received nothing");
	/* Also for some time after the connection that was taken over has closed. */
	(void)close(fd[0]);
	turns(&rig);
	ghost.attempt = 1;
	cr_expect_eq(hello_on(&rig, fd[4], &ghost), SLUICE_E_STALE_ATTEMPT);
	one.attempt = 3;
	cr_assert_eq(hello_on(&rig, fd[5], &one), 0);
	cr_expect_eq(one.session, ghost.session, "the next attempt resumes");
	/* Another client takes the name over, and then a client without attempt numbers does. */
	cr_assert_eq(hello_on(&rig, fd[6], &other), 0);
	cr_expect_eq(hello_answer(&rig, fd[5], &one), SLUICE_E_SESSION_GONE);
	cr_assert_eq(hello_on(&rig, fd[7], &old), 0);
	cr_expect_eq(hello_answer(&rig, fd[6], &other), SLUICE_E_SESSION_GONE);
	for (size_t i = 1; i < 8; i++)
		(void)close(fd[i]);
	rig_close(&rig);
}

Test(net, a_later_attempt_takes_over_one_that_is_still_attached)
{
	struct hello one = {.instance = "0123456789abcdef", .attempt = 1, .name = "scheduler"}, two;
	struct rig rig;
	int fd[2];

	rig_open(&rig);
	for (size_t i = 0; i < 2; i++)
		fd[i] = peer_open(&rig);
	turns(&rig);
	cr_assert_eq(hello_on(&rig, fd[0], &one), 0);
	two = one;
	two.attempt = 2;
	cr_assert_eq(hello_on(&rig, fd[1], &two), 0);
	cr_expect_eq(two.session, one.session);
	cr_expect_eq(hello_answer(&rig, fd[0], &one), 1, "the older connection is closed");
	(void)close(fd[0]);
	(void)close(fd[1]);
	rig_close(&rig);
}

/* limit: INSTANCES_MAX */
Test(net, the_attempt_number_of_a_closed_client_is_kept_for_a_bounded_number_of_clients)
{
	struct instances *instances;
	struct instance *instance;
	uint8_t first[INSTANCE_BYTES] = "first", id[INSTANCE_BYTES] = "other";
	uint64_t last = 0;

	cr_assert_eq(instances_create(&instances), 0);
	cr_assert_eq(instance_enter(instances, first, 9, &instance, &last), 0);
	instance_leave(instances, instance, 9, true);
	instance_unref(instances, instance);
	for (uint32_t n = 1; n <= LIMIT_INSTANCES_MAX; n++) {
		if (n == LIMIT_INSTANCES_MAX) {
			cr_assert_eq(instance_enter(instances, first, 9, &instance, &last),
				     SLUICE_E_WRONG_STATE,
				     "it is the last one that the broker remembers");
			cr_assert_eq(last, 9);
			/* The lookup made it the newest: */
			break;
		}
		memcpy(id + 8, &n, sizeof(n));
		cr_assert_eq(instance_enter(instances, id, 1, &instance, &last), 0);
		instance_leave(instances, instance, 1, true);
		instance_unref(instances, instance);
	}
	for (uint32_t n = 1; n <= LIMIT_INSTANCES_MAX; n++) {
		uint32_t more = n + (uint32_t)LIMIT_INSTANCES_MAX;

		memcpy(id + 8, &more, sizeof(more));
		cr_assert_eq(instance_enter(instances, id, 1, &instance, &last), 0);
		instance_leave(instances, instance, 1, true);
		instance_unref(instances, instance);
	}
	cr_assert_eq(instance_enter(instances, first, 9, &instance, &last), 0, "it is forgotten");
	instance_leave(instances, instance, 9, false);
	instances_destroy(instances);
}

/* ---- accept ---- */

static int accept_errno;      /* what the next calls fail with; 0: they do not */
static unsigned accept_fails; /* how many */
static unsigned accept_called;

int accept4(int fd, __SOCKADDR_ARG addr, socklen_t *__restrict len, int flags)
{
	accept_called++;
	if (accept_errno != 0 && accept_fails > 0) {
		accept_fails--;
		errno = accept_errno;
		return -1;
	}
	return (int)syscall(SYS_accept4, fd, addr.__sockaddr__, len, flags);
}

static uint16_t listen_at_most(struct rig *rig, uint32_t max)
{
	const struct net_listener row = {.protocol = &native_protocol,
					 .address = "127.0.0.1",
					 .connections_max = max};
	const char *why = "";
	uint16_t port = 0;

	cr_assert_eq(net_listen(rig->net, &row, &port, &why), 0, "%s", why);
	return port;
}

static uint16_t listen_on(struct rig *rig)
{
	return listen_at_most(rig, 0);
}

static int connect_to(uint16_t port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	return fd;
}

static int option_of(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	cr_assert_eq(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

/* The kernel notices in two minutes that a peer has disappeared; small frames are sent at once. */
Test(net, an_accepted_connection_is_kept_alive_and_does_not_delay)
{
	struct conn *conn, *next;
	struct rig rig;
	unsigned tcp = 0;
	int fd;

	rig_open(&rig);
	fd = connect_to(listen_on(&rig));
	turns(&rig);
	HASH_ITER(hh, rig.net->ios[0].conns, conn, next) {
		if (option_of(conn->fd, SOL_SOCKET, SO_DOMAIN) != AF_INET)
			continue;
		tcp++;
		cr_expect_eq(option_of(conn->fd, SOL_SOCKET, SO_KEEPALIVE), 1);
		cr_expect_eq(option_of(conn->fd, IPPROTO_TCP, TCP_KEEPIDLE) +
				     option_of(conn->fd, IPPROTO_TCP, TCP_KEEPINTVL) *
					     option_of(conn->fd, IPPROTO_TCP, TCP_KEEPCNT),
			     120);
		cr_expect_eq(option_of(conn->fd, IPPROTO_TCP, TCP_NODELAY), 1);
	}
	cr_expect_eq(tcp, 1u);
	(void)close(fd);
	rig_close(&rig);
}

static size_t lines_of(int fd, const char *id)
{
	static char text[1 << 16];
	ssize_t got = pread(fd, text, sizeof(text) - 1, 0);
	size_t count = 0;

	cr_assert_geq(got, 0);
	text[got] = 0;
	for (const char *at = text; (at = strstr(at, id)) != NULL; at++)
		count++;
	return count;
}

Test(net, accept_continues_after_an_error_of_one_connection_and_pauses_after_others, .timeout = 60)
{
	const int of_one[] = {ECONNABORTED, EINTR, EPROTO, ENETDOWN, EHOSTUNREACH, EPERM};
	FILE *log = tmpfile();
	struct rig rig;
	uint16_t port;
	int fd[8];

	cr_assert_not_null(log);
	rig_open(&rig);
	port = listen_on(&rig);
	for (size_t i = 0; i < sizeof(of_one) / sizeof(of_one[0]); i++) {
		accept_errno = of_one[i];
		accept_fails = 3;
		fd[i] = connect_to(port);
		turns(&rig);
		cr_assert_eq(net_connections(rig.net), 2 + i, "%s: it is accepted behind them",
			     strerror(of_one[i]));
	}
	log_configure(fileno(log), LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	accept_errno = ENOBUFS;
	accept_fails = UINT32_MAX;
	accept_called = 0;
	fd[6] = connect_to(port);
	for (int n = 0; n < 1000; n++)
		turn(&rig);
	/* Once, and a second time if this took more than a second. */
	cr_expect_leq(accept_called, 30, "%u calls: it only fails", accept_called);
	for (int n = 0; n < 400 && accept_called < 3; n++) {
		turn(&rig);
		(void)nanosleep(&(struct timespec){0, 10000000},
				NULL); /* the pause uses the real clock */
	}
	cr_expect_geq(accept_called, 3, "it is tried again");
	cr_expect_eq(lines_of(fileno(log), "id=net.accept "), 1, "and logged once");
	accept_errno = 0;
	for (int n = 0; n < 1000 && net_connections(rig.net) < 8; n++) {
		turn(&rig);
		(void)nanosleep(&(struct timespec){0, 10000000}, NULL);
	}
	cr_expect_eq(net_connections(rig.net), 8, "and the waiting connection is accepted");
	log_configure(STDERR_FILENO, LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	for (size_t i = 0; i < 7; i++)
		(void)close(fd[i]);
	(void)fclose(log);
	rig_close(&rig);
}

/* limit: OUTPUT_CLOSE_BYTES_MAX */
Test(net, a_peer_that_reads_no_answers_is_closed_and_one_that_reads_no_deliveries_is_not)
{
	static uint8_t zeros[1 << 20];
	FILE *log = tmpfile();
	struct conn *conn;
	struct rig rig;

	cr_assert_not_null(log);
	log_configure(fileno(log), LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	greet(&rig);
	conn = rig.net->ios[0].conns;
	conn->delivering = true;
	for (int n = 0; n < 100; n++)
		conn_write(conn, zeros, sizeof(zeros));
	conn->delivering = false;
	cr_expect_eq(conn->unsent_answers, 0u);
	conns_flush(conn->io);
	cr_assert_gt(conn_unsent(conn), LIMIT_OUTPUT_CLOSE_BYTES_MAX);
	for (uint64_t put = 0; put < LIMIT_OUTPUT_CLOSE_BYTES_MAX; put += sizeof(zeros))
		conn_write(conn, zeros, sizeof(zeros));
	cr_expect(!conn->dead, "exactly at the bound");
	cr_expect_eq(conn->unsent_answers, LIMIT_OUTPUT_CLOSE_BYTES_MAX);
	cr_expect_eq(lines_of(fileno(log), "id=net.output "), 0u);
	conn_write(conn, zeros, 1);
	cr_expect(conn->dead, "beyond it");
	cr_expect_eq(lines_of(fileno(log), "id=net.output "), 1u);
	turns(&rig);
	cr_expect_null(rig.net->ios[0].conns);
	cr_expect_eq(atomic_load(&rig.net->unsent), 0u);
	log_configure(STDERR_FILENO, LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	(void)fclose(log);
	rig_close(&rig);
}

/* A peer that reads everything from time to time may be sent any amount. */
Test(net, answers_that_are_read_do_not_count)
{
	static uint8_t zeros[1 << 20], sink[1 << 20];
	struct conn *conn;
	struct rig rig;

	greet(&rig);
	conn = rig.net->ios[0].conns;
	for (int round = 0; round < 4; round++) {
		for (int n = 0; n < 30; n++)
			conn_write(conn, zeros, sizeof(zeros));
		conns_flush(conn->io);
		for (int n = 0; n < 100000 && conn_unsent(conn) > 0; n++) {
			(void)!read(rig.fd, sink, sizeof(sink));
			turn(&rig);
		}
		cr_assert_eq(conn->unsent_answers, 0u, "%zu", conn->unsent_answers);
	}
	cr_expect(!conn->dead);
	rig_close(&rig);
}

Test(net, simultaneous_connections_do_not_exceed_their_bound)
{
	struct rig rig;
	uint16_t port;
	int fd[20];

	connections_max = 5;
	rig_open(&rig);
	port = listen_on(&rig);
	for (size_t i = 0; i < 20; i++)
		fd[i] = connect_to(port);
	turns(&rig);
	cr_expect_eq(net_connections(rig.net), 5, "%llu",
		     (unsigned long long)net_connections(rig.net));
	cr_expect_eq(HASH_COUNT(rig.net->ios[0].conns), 5u);
	for (size_t i = 0; i < 20; i++)
		(void)close(fd[i]);
	turns(&rig);
	cr_expect_eq(net_connections(rig.net), 1, "closed connections make room");
	rig_close(&rig);
}

Test(net, a_listener_has_a_bound_of_its_own)
{
	struct rig rig;
	uint16_t narrow, wide;
	int fd[8];

	rig_open(&rig);
	narrow = listen_at_most(&rig, 2);
	wide = listen_on(&rig);
	for (size_t i = 0; i < 8; i++)
		fd[i] = connect_to(i < 6 ? narrow : wide);
	turns(&rig);
	cr_expect_eq(net_connections(rig.net), 5, "1 adopted, 2 of 6, 2 of 2: %llu",
		     (unsigned long long)net_connections(rig.net));
	for (size_t i = 0; i < 6; i++)
		(void)close(fd[i]);
	turns(&rig);
	fd[0] = connect_to(narrow);
	turns(&rig);
	cr_expect_eq(net_connections(rig.net), 4, "closed connections make room: %llu",
		     (unsigned long long)net_connections(rig.net));
	(void)close(fd[0]);
	(void)close(fd[6]);
	(void)close(fd[7]);
	rig_close(&rig);
}
