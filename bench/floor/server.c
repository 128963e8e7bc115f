/* SPDX-License-Identifier: Apache-2.0
 *
 * sluice-floor-server: stores the bytes that arrive over loopback in bare LMDB with full sync, and
 * nothing else: the upper limit for a broker on this store.
 *
 * The loop: read all available input into one transaction; commit; answer; deliver; again. See
 * README.md and wire.h.
 */
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	AGE_ROUNDS_MAX = 100000,
	LISTEN_BACKLOG = 4096,
	GATHER_NS = 100000,
	GATHER_BYTES_MIN = 8 << 10, /* waits for input only if the batch before had this size */
	GATHER_BYTES_MAX = 2 << 20, /* or less than this: above, a commit's fixed cost is small */
	MALLOC_KEEP_BYTES = 1 << 30,
};

struct options {
	const char *dir;
	enum server_mode mode;
	int port;     /* -1: not given */
	uint64_t age; /* rounds of churn; 0: serve */
};

static const char *const mode_names[] = {"record", "segment", "echo", NULL};

static void usage(FILE *out)
{
	fprintf(out, "usage: sluice-floor-server --dir DIR --listen-port PORT [--mode "
		     "record|segment|echo]\n"
		     "       sluice-floor-server --dir DIR --age ROUNDS\n\n"
		     "Bare LMDB behind bare sockets on 127.0.0.1; prints `ready PORT`.\n"
		     "--age makes an aged store and ends.\n");
}

static bool number(const char *text, uint64_t max, uint64_t *ret)
{
	char *end;
	errno = 0;
	unsigned long long v = strtoull(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || v > max)
		return false;
	*ret = v;
	return true;
}

/* 0, or 2 after an explanation. */
static int parse(int argc, char **argv, struct options *ret)
{
	static const struct option longs[] = {
		{"dir", required_argument, NULL, 'd'},
		{"listen-port", required_argument, NULL, 'p'},
		{"mode", required_argument, NULL, 'm'},
		{"age", required_argument, NULL, 'a'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	*ret = (struct options){.port = -1};
	int c;
	uint64_t v;
	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		switch (c) {
		case 'd':
			ret->dir = optarg;
			break;
		case 'p':
			if (!number(optarg, 65535, &v))
				return fprintf(stderr,
					       "sluice-floor-server: --listen-port %s: 0 to "
					       "65535\n",
					       optarg),
				       2;
			ret->port = (int)v;
			break;
		case 'm':
			for (ret->mode = 0;
			     mode_names[ret->mode] && strcmp(mode_names[ret->mode], optarg) != 0;)
				ret->mode++;
			if (!mode_names[ret->mode])
				return fprintf(stderr,
					       "sluice-floor-server: --mode %s: record, segment or "
					       "echo\n",
					       optarg),
				       2;
			break;
		case 'a':
			if (!number(optarg, AGE_ROUNDS_MAX, &ret->age) || !ret->age)
				return fprintf(stderr, "sluice-floor-server: --age %s: 1 to %d\n",
					       optarg, AGE_ROUNDS_MAX),
				       2;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			usage(stderr);
			return 2;
		}
	}
	if (optind < argc || !ret->dir || (ret->age == 0) == (ret->port < 0)) {
		usage(stderr);
		return 2;
	}
	return 0;
}

static void age(const char *dir, uint64_t rounds)
{
	static struct floor_store store;
	char path[FLOOR_PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s/floor.mdb", dir);
	if (n < 0 || (size_t)n >= sizeof(path))
		floor_die("the directory's name is too long");
	floor_store_create(&store, path, true);
	floor_store_age(&store, rounds);
	floor_store_close(&store);
	printf("aged: file %llu bytes, live %llu, free pages %llu in %llu runs\n",
	       (unsigned long long)store.age.file_bytes, (unsigned long long)store.age.live_bytes,
	       (unsigned long long)store.age.free_pages, (unsigned long long)store.age.free_runs);
}

/* Listens; returns the port. */
static int start_listening(struct server *s, int port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)port),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int on = 1;
	s->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (s->listener < 0 || s->epoll < 0)
		floor_die("socket: %s", strerror(errno));
	(void)setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(s->listener, (struct sockaddr *)&addr, len) < 0 ||
	    listen(s->listener, LISTEN_BACKLOG) < 0 ||
	    getsockname(s->listener, (struct sockaddr *)&addr, &len) < 0)
		floor_die("listen on 127.0.0.1 port %d: %s", port, strerror(errno));
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};
	if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->listener, &ev) < 0)
		floor_die("epoll_ctl: %s", strerror(errno));
	return ntohs(addr.sin_port);
}

/* Reads available input; false: nothing within the timeout (-1: without limit). */
static bool take_events(struct server *s, int64_t timeout_ns)
{
	struct epoll_event events[SERVER_EVENTS];
	struct timespec ts = {0, (long)timeout_ns};
	int n = epoll_pwait2(s->epoll, events, SERVER_EVENTS, timeout_ns < 0 ? NULL : &ts, NULL);
	if (n < 0 && errno != EINTR)
		floor_die("epoll_wait: %s", strerror(errno));
	for (int i = 0; i < n; i++) {
		if (events[i].data.ptr)
			conn_event(s, events[i].data.ptr, events[i].events);
		else
			conn_accept(s);
	}
	return n > 0;
}

/* How long to wait for more input, ns. A client whose full window was answered sends as many units
 * again at once, and one commit for them is better than two. So a batch that is smaller than the
 * one before waits a little, if the earlier one was larger than what a steady rate delivers during
 * a commit. */
static int64_t patience(const struct server *s, uint64_t *until)
{
	if (!s->txn || s->last_bytes < GATHER_BYTES_MIN || s->last_bytes > GATHER_BYTES_MAX ||
	    s->batch_bytes >= s->last_bytes)
		return 0;
	uint64_t now = floor_now_ns();
	if (!*until)
		*until = now + GATHER_NS;
	return now < *until ? (int64_t)(*until - now) : 0;
}

static void turn(struct server *s)
{
	uint64_t until = 0;
	(void)take_events(s, s->touched ? 0 : -1);
	while (s->mode != SERVER_ECHO && s->touched && s->batch_bytes < SERVER_BATCH_BYTES &&
	       take_events(s, patience(s, &until)))
		;
	server_erase(s);
	if (s->txn)
		server_commit(s);
	server_answer(s);
	server_reader_end(s);
	server_bury(s);
	s->last_bytes = s->batch_bytes;
	s->batch_bytes = 0;
}

int main(int argc, char **argv)
{
	static struct server server;
	struct options opt;
	int rc = parse(argc, argv, &opt);
	if (rc)
		return rc;
	signal(SIGPIPE, SIG_IGN);
	if (opt.age) {
		age(opt.dir, opt.age);
		return 0;
	}
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	/* LMDB frees the pages of large values after each commit: if they were returned to the
	 * kernel, each commit would fault them in again. */
	(void)mallopt(M_MMAP_THRESHOLD, MALLOC_KEEP_BYTES);
	(void)mallopt(M_TRIM_THRESHOLD, MALLOC_KEEP_BYTES);
	server.mode = opt.mode;
	if (opt.mode != SERVER_ECHO)
		server_store_open(&server, opt.dir);
	server.page.room = SERVER_PAGE_BYTES;
	server.page.buf = floor_alloc(1, server.page.room);
	printf("ready %d\n", start_listening(&server, opt.port));
	fflush(stdout);
	for (;;)
		turn(&server);
}
