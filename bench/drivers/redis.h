/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared by the files of the Redis driver, highest first: redis.c (the server, the table),
 * redis_conn.c (connections under load), redis_command.c, redis_buffer.c. The head of each says
 * what it does, and why. Contracts are those of harness/driver.h.
 */
#ifndef BENCH_DRIVERS_REDIS_H
#define BENCH_DRIVERS_REDIS_H

#include "bench/harness/driver.h"

#include <stddef.h>
#include <string.h>

/* The one consumer group of a queue. */
#define REDIS_GROUP "g"

struct redisReply;

/* ---- redis_conn.c ---- */

int redis_conn_open(const struct bench_server *, const struct bench_conn_spec *,
		    struct bench_conn **ret);
void redis_conn_close(struct bench_conn *);
int redis_conn_send(struct bench_conn *, const void *bodies);
int redis_conn_poll(struct bench_conn *, int timeout_us, struct bench_progress *io);
int redis_conn_fd(const struct bench_conn *);

/* ---- redis_command.c ---- */

/* One command on a connection of its own, outside of the measurement; blocks. *ret is owned
 * (freeReplyObject); it may be an error reply whose meaning the caller knows. -1 after
 * bench_error() when there was no reply. */
int redis_command(int port, size_t argc, const char *const argv[], struct redisReply **ret);

/* ---- redis_buffer.c ---- */

/* Empty when zeroed. `data` is owned: free() it. Functions that return int return -1 after
 * bench_error() when there is no memory. */
struct redis_buffer {
	char *data;
	size_t head, len, size; /* in use: head to len */
};

/* Reserves `more` bytes after len. */
int redis_buffer_reserve(struct redis_buffer *, size_t more);
int redis_buffer_append(struct redis_buffer *, const void *data, size_t len);
/* One argument of a command. */
int redis_buffer_argument(struct redis_buffer *, const char *data, size_t len);
/* The beginning of a command of `count` arguments, and the first argc of them. */
int redis_buffer_command(struct redis_buffer *, unsigned count, const char *const argv[],
			 size_t argc);

/* Appends within reserved memory. */
static inline void redis_buffer_put(struct redis_buffer *buffer, const void *data, size_t len)
{
	memcpy(buffer->data + buffer->len, data, len);
	buffer->len += len;
}

#endif
