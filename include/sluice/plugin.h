/* SPDX-License-Identifier: Apache-2.0
 *
 * Plugin ABI. A plugin is a shared object that exports one const symbol, SLUICE_PLUGIN_SYMBOL of type struct sluice_plugin.
 *
 * Compatibility: abi_major must be the host's; abi_minor may not exceed the host's; struct_size must cover the fields of that minor.
 * Structs are append-only; a field is there when the struct_size that its owner gave covers it. No libevent type appears here.
 * ABI changelog: 1.0 first version. 1.1 SLUICE_EFFECT_DAMAGED; a follower that ends has an answer, too.
 *
 * A plugin is a guest of its host's process. init, fini and run return by themselves: the host waits for init without a bound (its log's last line
 * names the plugin), and for run at its end for stop_ms. A crash in a plugin is a crash of its process, so what may crash runs under
 * `sluice-plugin`. When fini is called, no thread of the plugin may be running any more. The same file may be given more than once: one image in
 * memory, and one init, run and fini for each, with a host of its own; fini in the order of init.
 *
 * Children. The host waits for no process that it did not start. In it SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 are blocked and SIGPIPE, SIGXFSZ and
 * SIGTTOU ignored, and the soft limit of open files may be raised: a child undoes all of it before it executes a program of others. The limit from before
 * is restored by fork(); for other ways to start a child it is in the environment as SLUICE_NOFILE_SOFT (decimal; absent: not raised), which the child
 * removes. Variables of a service manager are gone from the environment.
 *
 * Service plugins are clients: init gets a connected transport (one end of a socket that speaks the native protocol) and uses client.h.
 * The same .so runs inside the broker or under `sluice-plugin`; it cannot tell. Listener plugins are the server side of a foreign
 * protocol; THAT HALF IS UNSTABLE until three protocols use it.
 */
#ifndef SLUICE_PLUGIN_H
#define SLUICE_PLUGIN_H

#include <stdbool.h>

#include "sluice/error.h"
#include "sluice/types.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SLUICE_PLUGIN_ABI_MAJOR 1
#define SLUICE_PLUGIN_ABI_MINOR 1
#define SLUICE_PLUGIN_SYMBOL sluice_plugin_v1

enum sluice_plugin_kind {
	SLUICE_PLUGIN_SERVICE = 1,
	SLUICE_PLUGIN_LISTENER = 2,
	SLUICE_PLUGIN_AUTH = 3
};
enum sluice_log_level { SLUICE_LOG_DEBUG, SLUICE_LOG_INFO, SLUICE_LOG_WARN, SLUICE_LOG_ERROR };

/* What the host offers to every plugin, from init to the end of fini. Thread-safe: any thread of the plugin. NULL for id or text is taken for empty. */
struct sluice_host {
	size_t struct_size;
	/* One line; id is a stable message id ("local.started"). The only way a plugin may log. */
	void (*log)(void *host, enum sluice_log_level level, const char *id, const char *text);
	/* A setting of the plugin's section; NULL when absent. Borrowed for the plugin's life. The broker itself looks at kind (listener | service), port
	 * (listeners) and stop_ms (services, 10000: how long its end waits for run). */
	const char *(*setting)(void *host, const char *key);
	void *host; /* first argument of the calls */
};

/* ---- service ---- */
struct sluice_service_ops {
	size_t struct_size;
	/* Needed. Runs the service on a thread of its own (or as the main of sluice-plugin) until stop_fd becomes readable or it fails. address is where to
	 * connect ("host:port"; inside the broker also transport_fd >= 0, a connected socket that the plugin then owns). Returns 0 or a code. */
	int (*run)(const struct sluice_host *host, const char *address, int transport_fd,
		   int stop_fd);
};

/* ---- listener (unstable) ---- */
typedef struct sluice_conn sluice_conn; /* the host's: socket, TLS, buffers */

enum sluice_listener_effect_kind {
	SLUICE_EFFECT_ANSWER, /* of a publish, ack or consume: code, text, tag. A consumer or follower that ends later has another one, with a code */
	SLUICE_EFFECT_ITEM,   /* one item of a consumer: token, seq, subject, body */
	SLUICE_EFFECT_EVENT,  /* one event of a follower: offset, subject, body */
	SLUICE_EFFECT_WRITABLE, /* output drained below its low mark */
	SLUICE_EFFECT_DAMAGED /* an item of a consumer is damaged and was skipped; the consumer goes on: tag, seq, code, text */
};
struct sluice_listener_effect {
	size_t struct_size;
	enum sluice_listener_effect_kind kind;
	uint64_t tag; /* what the plugin gave with the call */
	int code;
	const char *text;
	sluice_token token;
	uint64_t seq;
	uint64_t offset;
	uint32_t attempts;
	struct sluice_slice subject, key, body;
	sluice_time_ms time_ms;
};
/* Host calls of a listener. Only on the connection's I/O thread, which is the one that calls the listener's ops. None blocks. Slices are
 * borrowed for the call. Codes as in error.h; BUSY: stop reading, SLUICE_EFFECT_WRITABLE follows; CLOSED: the connection is at its end. */
struct sluice_listener_host {
	size_t struct_size;
	int (*write)(sluice_conn *conn, const void *bytes, size_t len);
	void (*close)(sluice_conn *conn, const char *why); /* after what was written is flushed */
	/* Opens the durable session of this connection; needed before consume. */
	int (*session)(sluice_conn *conn, const char *gateway, uint32_t timeout_ms, uint64_t tag);
	int (*publish)(sluice_conn *conn, uint64_t tag, struct sluice_slice subject,
		       struct sluice_slice queue, struct sluice_slice body);
	int (*consume)(sluice_conn *conn, uint64_t tag, struct sluice_slice queue, uint32_t credit,
		       uint32_t lease_ms);
	int (*credit)(sluice_conn *conn, uint64_t consumer_tag, uint32_t more);
	int (*ack)(sluice_conn *conn, uint64_t tag, uint64_t consumer_tag, sluice_token token,
		   uint64_t seq, bool done);
	int (*follow)(sluice_conn *conn, uint64_t tag, struct sluice_slice stream, uint64_t offset,
		      uint32_t credit);
	/* Native control message: a frame REQUEST body (SPEC.md); the answer is SLUICE_EFFECT_ANSWER with the Reply in body or a code,
	 * before the call returns or later. */
	int (*request)(sluice_conn *conn, uint64_t tag, struct sluice_slice request);
};
/* All are needed. */
struct sluice_listener_ops {
	size_t struct_size;
	const char *protocol; /* "line" */
	uint16_t default_port;
	/* *ret_state is the plugin's per-connection state. A code closes the connection; closed comes for a state that was set all the same. */
	int (*accept)(const struct sluice_listener_host *host, sluice_conn *conn, void **ret_state);
	/* Bytes came. Returns how many were consumed (the rest comes again with more), or a negative code to close the connection. */
	long (*bytes)(void *state, const void *bytes, size_t len);
	void (*effect)(void *state, const struct sluice_listener_effect *effect);
	void (*closed)(void *state); /* frees state; no host call after */
};

struct sluice_plugin {
	size_t struct_size;
	uint16_t abi_major;
	uint16_t abi_minor;
	uint32_t kind; /* enum sluice_plugin_kind */
	const char *name;
	const char *version;
	/* init after loading, before ops are used: 0 or a code, which refuses the plugin (no fini then). fini at the end. May be NULL. */
	int (*init)(const struct sluice_host *host);
	void (*fini)(void);
	const void *ops; /* struct sluice_service_ops or sluice_listener_ops */
};
/* What the plugin defines. Declared here so that it is exported, also from C++, where a const object is local to its file by default. */
SLUICE_API extern const struct sluice_plugin SLUICE_PLUGIN_SYMBOL;

#ifdef __cplusplus
}
#endif

#endif
