/* SPDX-License-Identifier: Apache-2.0
 *
 * Redis Streams under load: one connection, pipelined commands, no thread.
 *
 * Commands are copied from a prefix that is formatted once. Replies go through hiredis' redisReader
 * with functions of this file, which read the bytes in place and create no objects. The client thus
 * does so little that the server, which has one thread, is the part that is measured.
 *
 * PUBLISH, PUT: XADD name * b BODY for each body. Redis has no append of several entries: a unit of
 * N is N commands, and it is answered with the last of them. Redis fsyncs once for all commands of
 * a round of its event loop, and reads about 20 KiB per round from one connection: some 120
 * commands with 100 bytes. MULTI and EXEC around a unit would make it one command with one sync.
 * For units of 100 bodies of 100 bytes that gained nothing, and no scenario has larger units; with
 * bodies of 10 KB it was four times faster, so a scenario with such units needs it here.
 *
 * FOLLOW_*: XREAD COUNT n BLOCK 0 after the last id received. The next XREAD needs that id, so only
 * one is in flight.
 *
 * WORK: XREADGROUP COUNT window BLOCK 0 >. When entries arrive, one XACK with all their ids is sent
 * together with the next XREADGROUP. A second read in flight would have to be one that does not
 * block, because the server executes nothing after a blocked read, not even acks; it made nothing
 * faster.
 *
 * An entry that was delivered to a worker stays assigned to it until acked, even after its
 * connection ends (XAUTOCLAIM would move it, and is not used). A scenario that ends a worker before
 * the queue is empty therefore needs another queue for the next worker.
 */
#include "bench/drivers/redis.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
	ID_BYTES_MAX = 48,	   /* two 64-bit numbers and a dash */
	FOLLOW_COUNT = 1000,	   /* entries of one XREAD */
	ADD_READ_BYTES = 16 << 10, /* hiredis moves its remaining input after each KiB of small
				      replies: small reads are cheaper */
	BODIES_READ_BYTES = 64 << 10,
	READS_PER_POLL =
		16, /* bounds the time of a poll(), also if input arrives faster than it is read */
	SEND_BYTES = 32 << 10, /* send() writes from this size on, so that the server can begin */
	/* Depths in XREAD's answer: [[name, [[id, [field, body]]]]]. */
	DEPTH_ID = 4,
	DEPTH_BODY = 5,
};

struct bench_conn {
	struct bench_conn_spec spec;
	char *name; /* spec.name's own copy */
	int fd;
	redisReader *reader;
	char *input; /* input_bytes */
	size_t input_bytes;
	struct redis_buffer output;

	struct redis_buffer add; /* XADD up to the body */
	unsigned in_unit; /* answered bodies of a unit whose other bodies are not answered yet */

	struct redis_buffer ids; /* XACK's arguments, gathered from the answer that is being read */
	unsigned ids_count;
	char last_id[ID_BYTES_MAX]; /* of a follower */
	bool entries;		    /* the answer that is being read is XREAD's */

	struct bench_progress *progress; /* of the poll() that is under way */
	char refused[256];		 /* an error of the server, or an invalid answer; "" */
};

/* ---- replies, as the reader finds them ---- */

/* The reader requires a result that is not NULL for each object. */
static char taken_mark;
static void *const taken = &taken_mark;

static struct bench_conn *conn_of(const redisReadTask *task)
{
	return task->privdata;
}

static int depth_of(const redisReadTask *task)
{
	return (int)(task - conn_of(task)->reader->rstack);
}

static bool adds(const struct bench_conn *conn)
{
	return conn->spec.role == BENCH_PUBLISH || conn->spec.role == BENCH_PUT;
}

static void *refuse(struct bench_conn *conn, const char *text, size_t len)
{
	if (!conn->refused[0])
		(void)snprintf(conn->refused, sizeof(conn->refused), "%.*s", (int)len, text);
	return taken;
}

static void *take_id(struct bench_conn *conn, const char *text, size_t len)
{
	if (len >= ID_BYTES_MAX)
		return refuse(conn, "an id that is too long", 22);
	if (conn->spec.role == BENCH_WORK) {
		conn->ids_count++;
		return redis_buffer_argument(&conn->ids, text, len) ? NULL : taken;
	}
	memcpy(conn->last_id, text, len);
	conn->last_id[len] = 0;
	return taken;
}

static void *take_string(const redisReadTask *task, char *text, size_t len)
{
	struct bench_conn *conn = conn_of(task);
	int depth = depth_of(task);

	if (task->type == REDIS_REPLY_ERROR)
		return refuse(conn, text, len);
	if (adds(conn)) {
		if (++conn->in_unit == conn->spec.batch) {
			conn->in_unit = 0;
			conn->progress->answered++;
		}
		return taken;
	}
	if (depth == 0)
		return refuse(conn, text, len);
	if (depth == DEPTH_BODY && task->idx == 1) {
		conn->progress->received++;
		if (conn->spec.on_body)
			conn->spec.on_body(conn->spec.user, text, len);
	} else if (depth == DEPTH_ID) {
		return take_id(conn, text, len);
	}
	return taken;
}

static void *take_array(const redisReadTask *task, int elements)
{
	struct bench_conn *conn = conn_of(task);

	if (adds(conn))
		return refuse(conn, "(an array)", 10);
	conn->entries = true;
	return taken;
}

/* XACK returns how many of the ids were pending; all of them must be, and the scenario counts. */
static void *take_integer(const redisReadTask *task, long long value)
{
	struct bench_conn *conn = conn_of(task);

	if (conn->spec.role != BENCH_WORK || value < 0)
		return refuse(conn, "(an integer)", 12);
	conn->progress->settled += (uint64_t)value;
	return taken;
}

/* No command here may be answered with nil: a read blocks until there are entries. */
static void *take_nil(const redisReadTask *task)
{
	return refuse(conn_of(task), "(nil)", 5);
}

static redisReplyObjectFunctions functions = {
	.createString = take_string,
	.createArray = take_array,
	.createInteger = take_integer,
	.createNil = take_nil,
};

/* ---- requests ---- */

static int ask_follow(struct bench_conn *conn)
{
	char count[16];
	const char *const argv[] = {"XREAD", "COUNT",	count,	    "BLOCK",
				    "0",     "STREAMS", conn->name, conn->last_id};

	(void)snprintf(count, sizeof(count), "%d", FOLLOW_COUNT);
	return redis_buffer_command(&conn->output, 8, argv, 8);
}

/* Acks of the last entries, and a request for more. */
static int ask_work(struct bench_conn *conn)
{
	const char *const ack[] = {"XACK", conn->name, REDIS_GROUP};
	char count[16], consumer[32];
	const char *const argv[] = {"XREADGROUP", "GROUP", REDIS_GROUP, consumer,   "COUNT", count,
				    "BLOCK",	  "0",	   "STREAMS",	conn->name, ">"};

	if (conn->ids_count > 0) {
		if (redis_buffer_command(&conn->output, 3 + conn->ids_count, ack, 3) ||
		    redis_buffer_append(&conn->output, conn->ids.data, conn->ids.len))
			return -1;
		conn->ids_count = 0;
		conn->ids.len = 0;
	}
	(void)snprintf(count, sizeof(count), "%u", conn->spec.window ? conn->spec.window : 1);
	(void)snprintf(consumer, sizeof(consumer), "c%d-%d", (int)getpid(), conn->fd);
	return redis_buffer_command(&conn->output, 11, argv, 11);
}

/* Writes as much as the socket accepts. */
static int flush(struct bench_conn *conn)
{
	struct redis_buffer *output = &conn->output;

	while (output->head < output->len) {
		ssize_t wrote = send(conn->fd, output->data + output->head,
				     output->len - output->head, MSG_NOSIGNAL);

		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote < 0 && errno == EAGAIN)
			return 0;
		if (wrote < 0)
			return bench_error("redis: cannot send to the server: %s", strerror(errno));
		output->head += (size_t)wrote;
	}
	output->head = output->len = 0;
	return 0;
}

int redis_conn_send(struct bench_conn *conn, const void *bodies)
{
	const char *body = bodies;
	size_t len = conn->spec.body_bytes;
	size_t each = conn->add.len + len + 2;

	if (redis_buffer_reserve(&conn->output, each * conn->spec.batch))
		return -1;
	for (unsigned i = 0; i < conn->spec.batch; i++, body += len) {
		redis_buffer_put(&conn->output, conn->add.data, conn->add.len);
		redis_buffer_put(&conn->output, body, len);
		redis_buffer_put(&conn->output, "\r\n", 2);
	}
	return conn->output.len - conn->output.head >= SEND_BYTES ? flush(conn) : 0;
}

/* ---- poll ---- */

static const char *const command_of[] = {
	[BENCH_PUBLISH] = "XADD",
	[BENCH_PUT] = "XADD",
	[BENCH_FOLLOW_NEW] = "XREAD",
	[BENCH_FOLLOW_ALL] = "XREAD",
	[BENCH_WORK] = "XREADGROUP or XACK",
};

/* Handles the complete replies; sends the next read after each that had entries. */
static int take_replies(struct bench_conn *conn)
{
	void *reply = NULL;

	for (;;) {
		conn->reader->privdata = conn;
		if (redisReaderGetReply(conn->reader, &reply) != REDIS_OK)
			return bench_error("redis: %s %s: cannot read the answer: %s",
					   command_of[conn->spec.role], conn->name,
					   conn->reader->errstr);
		if (conn->refused[0])
			return bench_error("redis: %s %s: the server answered: %s",
					   command_of[conn->spec.role], conn->name, conn->refused);
		if (!reply)
			return 0;
		if (conn->entries) {
			conn->entries = false;
			if (conn->spec.role == BENCH_WORK ? ask_work(conn) : ask_follow(conn))
				return -1;
		}
	}
}

/* Reads available input. *ret_any: there was some. */
static int take_input(struct bench_conn *conn, bool *ret_any)
{
	*ret_any = false;
	for (int i = 0; i < READS_PER_POLL; i++) {
		ssize_t got = recv(conn->fd, conn->input, conn->input_bytes, 0);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0 && errno == EAGAIN)
			return 0;
		if (got < 0)
			return bench_error("redis: cannot read from the server: %s",
					   strerror(errno));
		if (got == 0)
			return bench_error("redis: %s %s: the server has closed the connection",
					   command_of[conn->spec.role], conn->name);
		*ret_any = true;
		if (redisReaderFeed(conn->reader, conn->input, (size_t)got) != REDIS_OK)
			return bench_error("redis: no memory for an answer");
		if (take_replies(conn))
			return -1;
		if ((size_t)got < conn->input_bytes)
			return 0;
	}
	return 0;
}

int redis_conn_poll(struct bench_conn *conn, int timeout_us, struct bench_progress *io)
{
	bool any;

	conn->progress = io;
	if (flush(conn) || take_input(conn, &any))
		return -1;
	if (!any && timeout_us > 0) {
		struct pollfd wait = {.fd = conn->fd, .events = POLLIN};
		const struct timespec most = {.tv_sec = timeout_us / 1000000,
					      .tv_nsec = timeout_us % 1000000 * 1000L};

		if (conn->output.head < conn->output.len)
			wait.events |= POLLOUT;
		if (ppoll(&wait, 1, &most, NULL) < 0 && errno != EINTR)
			return bench_error("redis: cannot wait for the server: %s",
					   strerror(errno));
		if (flush(conn) || (wait.revents & ~POLLOUT && take_input(conn, &any)))
			return -1;
	}
	conn->progress = NULL;
	/* Sends the commands that the answers caused. */
	return flush(conn);
}

int redis_conn_fd(const struct bench_conn *conn)
{
	return conn->fd;
}

/* ---- open and close ---- */

/* The present last id of the stream: an XREAD after it misses no entry, however late it is sent. */
static int find_last_id(const struct bench_server *server, struct bench_conn *conn)
{
	const char *const argv[] = {"XREVRANGE", conn->name, "+", "-", "COUNT", "1"};
	redisReply *reply;
	int rc = 0;

	if (redis_command(server->port, 6, argv, &reply))
		return -1;
	if (reply->type == REDIS_REPLY_ERROR)
		rc = bench_error("redis: XREVRANGE %s: %s", conn->name, reply->str);
	else if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 1 &&
		 reply->element[0]->elements == 2 &&
		 reply->element[0]->element[0]->len < ID_BYTES_MAX)
		(void)snprintf(conn->last_id, sizeof(conn->last_id), "%s",
			       reply->element[0]->element[0]->str);
	else if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 0)
		rc = bench_error("redis: XREVRANGE %s: an invalid answer", conn->name);
	freeReplyObject(reply);
	return rc;
}

/* The common beginning of each XADD. */
static int begin_adds(struct bench_conn *conn)
{
	const char *const add[] = {"XADD", conn->name, "*", "b"};
	char length[32];

	(void)snprintf(length, sizeof(length), "$%zu\r\n", conn->spec.body_bytes);
	if (redis_buffer_command(&conn->add, 5, add, 4) ||
	    redis_buffer_append(&conn->add, length, strlen(length)))
		return -1;
	return 0;
}

/* Sends the first requests of a role. */
static int begin(const struct bench_server *server, struct bench_conn *conn)
{
	switch (conn->spec.role) {
	case BENCH_PUBLISH:
	case BENCH_PUT:
		if (conn->spec.batch == 0)
			return bench_error("redis: a unit of no bodies");
		return begin_adds(conn);
	case BENCH_FOLLOW_NEW:
		if (find_last_id(server, conn))
			return -1;
		/* fall through */
	case BENCH_FOLLOW_ALL:
		return ask_follow(conn) ? -1 : flush(conn);
	case BENCH_WORK:
		return ask_work(conn) ? -1 : flush(conn);
	}
	return bench_error("redis: an unknown role %d", (int)conn->spec.role);
}

int redis_conn_open(const struct bench_server *server, const struct bench_conn_spec *spec,
		    struct bench_conn **ret)
{
	struct bench_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return bench_error("redis: no memory for a connection");
	conn->spec = *spec;
	conn->fd = -1;
	conn->name = strdup(spec->name);
	conn->input_bytes = adds(conn) ? ADD_READ_BYTES : BODIES_READ_BYTES;
	conn->input = malloc(conn->input_bytes);
	conn->reader = redisReaderCreateWithFunctions(&functions);
	(void)snprintf(conn->last_id, sizeof(conn->last_id), "0-0");
	if (!conn->name || !conn->input || !conn->reader) {
		redis_conn_close(conn);
		return bench_error("redis: no memory for a connection");
	}
	/* The reader keeps its buffer instead of allocating one per answer. */
	conn->reader->maxbuf = 0;
	conn->fd = bench_connect(server->port);
	if (conn->fd < 0 || begin(server, conn)) {
		redis_conn_close(conn);
		return -1;
	}
	*ret = conn;
	return 0;
}

void redis_conn_close(struct bench_conn *conn)
{
	if (!conn)
		return;
	if (conn->fd >= 0)
		close(conn->fd);
	if (conn->reader)
		redisReaderFree(conn->reader);
	free(conn->output.data);
	free(conn->add.data);
	free(conn->ids.data);
	free(conn->input);
	free(conn->name);
	free(conn);
}
