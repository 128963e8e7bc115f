/* SPDX-License-Identifier: Apache-2.0
 *
 * A client: the state that every layer may use. State of one layer is a struct in that layer's
 * header; client.c allocates all of them together.
 *
 * One lock per client; the loop holds it while it works and releases it only to wait. Callbacks are
 * called with the lock held by the loop's thread (it is recursive), so they may make asynchronous
 * calls; a blocking call from a callback is refused.
 */
#ifndef SLUICE_CLIENT_BASE_CLIENT_H
#define SLUICE_CLIENT_BASE_CLIENT_H

#include <pthread.h>

#include "client/base/error.h"
#include "protocol/limits.h"
#include "sluice/client.h"

enum client_tls { TLS_AUTO, TLS_VERIFY_FULL, TLS_OFF };
enum client_mode { MODE_OWN_THREAD, MODE_CALLER_LOOP };
struct sluice_config {
	char address[512], client[256], tls_ca[1024];
	char gateway[LIMIT_SIZE(NAME_BYTES_MAX) + 1], session[LIMIT_SIZE(NAME_BYTES_MAX) + 1],
		producer[LIMIT_SIZE(NAME_BYTES_MAX) + 1];
	uint32_t session_timeout_ms, deadline_ms, connect_timeout_ms;
	uint32_t reconnect_min_ms, reconnect_max_ms, batch_events, lease_extend_max_ms;
	uint64_t buffer_bytes, batch_bytes;
	enum client_mode mode;
	enum client_tls tls;
	bool reconnect, buffer_block, zstd, lease_extend;
	int transport_fd;
};

enum client_state {
	STATE_IDLE,
	STATE_RESOLVING,
	STATE_CONNECTING,
	STATE_HELLO,
	STATE_READY,
	STATE_STOPPING, /* the broker stops: it still answers, and nothing is sent to it */
	STATE_WAITING,	/* for the next try */
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
	unsigned users; /* threads between lock and unlock, including waiting ones */
	int epoll_fd, wake_fd, timer_fd;
	bool woken;
	bool again;	   /* a callback created work: the next turn handles it first */
	uint64_t timer_ms; /* when timer_fd wakes the loop; UINT64_MAX: never */
	/* When to retry what lacked memory or waits for another condition; UINT64_MAX: never. */
	uint64_t retry_ms;
	/* One turn of the loop with the lock held; waits up to timeout_ms. Set by client.c. */
	void (*turn)(sluice_client *client, int timeout_ms);
	/* The connection's state, set by the link. */
	enum client_state state;
	int fail_code;
	char error[TEXT_MAX]; /* reason why there is no connection */
	/* ---- state of the layers ---- */
	struct link *link;
	struct calls *calls;
	struct publisher *publisher;
	struct transactor *transactor;
	struct subs *subs;
};

#endif
