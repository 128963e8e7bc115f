/* SPDX-License-Identifier: Apache-2.0
 *
 * A client: what every layer may see of it. What one layer knows of a client is a struct of that
 * layer's header; client.c allocates all of them together.
 *
 * One lock per client; the loop holds it while it works and lets go of it only to wait. Callbacks
 * are called with the lock held by the loop's thread (it is recursive), so they may make
 * asynchronous calls; a blocking call from a callback is refused.
 */
#ifndef SLUICE_CLIENT_BASE_CLIENT_H
#define SLUICE_CLIENT_BASE_CLIENT_H

#include <pthread.h>

#include "client/base/error.h"
#include "protocol/limits.h"
#include "sluice/client.h"

enum client_mode { MODE_OWN_THREAD, MODE_CALLER_LOOP };
struct sluice_config {
	char address[512], client[256];
	char gateway[LIMIT_SIZE(NAME_BYTES_MAX) + 1], session[LIMIT_SIZE(NAME_BYTES_MAX) + 1],
		producer[LIMIT_SIZE(NAME_BYTES_MAX) + 1];
	uint32_t session_timeout_ms, deadline_ms, connect_timeout_ms;
	uint32_t reconnect_min_ms, reconnect_max_ms, batch_events, lease_extend_max_ms;
	uint64_t buffer_bytes, batch_bytes;
	enum client_mode mode;
	bool reconnect, buffer_block, zstd, lease_extend;
	int transport_fd;
};

enum client_state {
	STATE_IDLE,
	STATE_RESOLVING,
	STATE_CONNECTING,
	STATE_HELLO,
	STATE_READY,
	STATE_WAITING, /* for the next try */
	STATE_FAILED
};

struct sluice_client {
	struct sluice_config config;
	sluice_notice_fn *on_notice;
	void *user;
	/* The loop. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool thread_runs, stopping, closing;
	unsigned users; /* threads between lock and unlock, those that wait included */
	int epoll_fd, wake_fd, timer_fd;
	bool woken;
	bool again;	   /* a callback made work: the next turn begins with it */
	uint64_t timer_ms; /* when timer_fd wakes the loop; UINT64_MAX: not */
	/* What lacked memory, or waits for something else, is tried again; UINT64_MAX: nothing. */
	uint64_t retry_ms;
	/* One turn of the loop with the lock held; waits up to timeout_ms. Set by client.c. */
	void (*turn)(sluice_client *client, int timeout_ms);
	/* The connection's state, set by the link. */
	enum client_state state;
	int fail_code;
	char error[TEXT_MAX]; /* why there is no connection */
	/* What each layer knows. */
	struct link *link;
	struct calls *calls;
	struct publisher *publisher;
	struct transactor *transactor;
	struct subs *subs;
};

#endif
