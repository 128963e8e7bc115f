/* SPDX-License-Identifier: Apache-2.0
 *
 * The ABI of plugins.
 *
 * A plugin is a shared object that exports one const symbol, SLUICE_PLUGIN_SYMBOL, of type struct
 * sluice_plugin. Its host is the broker, or the program sluice-plugin.
 *
 * COMPATIBILITY. The host refuses a plugin unless abi_major is its own, abi_minor is not above its
 *   own, and each struct has at least the members of the first minor. Structs only grow at their
 *   end: a member is there if the struct_size that the struct's owner gave covers it, so each side
 *   checks that before it uses a member of a later minor. No type of another library appears here.
 *   1.0 first version.
 *   1.1 SLUICE_EFFECT_DAMAGED; a follower that ends has an answer, too.
 *
 * LIFE. The host calls init, then uses ops, then calls fini. A plugin is a guest in the host's
 *   process: init, fini and run have to return. The host waits for init without a limit (the last
 *   line of its log names the plugin), and for run at its end for stop_ms. No thread of the plugin
 *   may be running when fini is called. A crash of a plugin is a crash of its process; a plugin
 *   that may crash runs under sluice-plugin. The same file may be loaded more than once: there is
 *   one image in memory, and init, run and fini once for each, with a host of its own; fini in the
 *   order of init.
 *
 * CHILDREN. The host waits only for processes that it started. In it SIGTERM, SIGINT, SIGHUP,
 *   SIGUSR1 and SIGUSR2 are blocked, SIGPIPE, SIGXFSZ and SIGTTOU are ignored, and the soft limit
 *   of open files may be raised. A child undoes all of this before it executes another program.
 *   fork() restores the limit; for other ways to start a child it is in the environment as
 *   SLUICE_NOFILE_SOFT (decimal; absent: not raised), which the child removes. The variables of a
 *   service manager are removed from the environment.
 *
 * KINDS. A service is a client: it gets a connected socket and uses client.h. The same file runs in
 *   the broker and under sluice-plugin, and cannot tell which. A listener is the server's side of
 *   another protocol; THAT PART IS UNSTABLE until three protocols use it.
 *
 * A function returns 0 or a negative code of error.h, unless its comment says otherwise. Pointers
 * that a function gets are borrowed for the call, unless its comment says otherwise.
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
	SLUICE_PLUGIN_AUTH = 3 /* not loaded by any host yet */
};
enum sluice_log_level { SLUICE_LOG_DEBUG, SLUICE_LOG_INFO, SLUICE_LOG_WARN, SLUICE_LOG_ERROR };

/* What the host offers to every plugin, from init until the end of fini. Any thread of the plugin
 * may call these functions. */
struct sluice_host {
	size_t struct_size;
	/* Logs one line, which is the only way in which a plugin may log. id is a stable message id
	 * ("local.started"). id and text may be NULL and are then empty. host is the member below.
	 * Does not block and cannot fail. */
	void (*log)(void *host, enum sluice_log_level level, const char *id, const char *text);
	/* A setting of the plugin's section, or NULL. Borrowed for the plugin's life. The broker
	 * uses some keys itself: kind ("listener" or "service"), port and connections_max (of
	 * listeners), stop_ms (of services: how long its end waits for run; 10,000). Does not
	 * block. */
	const char *(*setting)(void *host, const char *key);
	void *host; /* the first argument of both */
};

/* ---- services ---- */

struct sluice_service_ops {
	size_t struct_size;
	/* Needed. Runs the service, on a thread of its own or as the main thread of sluice-plugin,
	 * until stop_fd becomes readable or the service fails. address is where to connect
	 * ("host:port"). In the broker transport_fd is a connected socket, which the plugin owns
	 * and may use instead; otherwise it is -1. The host keeps stop_fd. */
	int (*run)(const struct sluice_host *host, const char *address, int transport_fd,
		   int stop_fd);
};

/* ---- listeners (unstable) ---- */

/* A connection: its socket and buffers are the host's. */
typedef struct sluice_conn sluice_conn;

enum sluice_listener_effect_kind {
	/* Of a publish, ack or consume: tag, code, text. Once more, with a code, for a consumer or
	 * follower that ends later. */
	SLUICE_EFFECT_ANSWER,
	SLUICE_EFFECT_ITEM,	/* an item of a consumer: token, seq, subject, body */
	SLUICE_EFFECT_EVENT,	/* an event of a follower: offset, subject, body */
	SLUICE_EFFECT_WRITABLE, /* the output has drained below its low mark */
	/* An item of a consumer is damaged and was skipped: tag, seq, code, text. The consumer goes
	 * on. */
	SLUICE_EFFECT_DAMAGED
};
/* Members that a kind does not have are 0 or NULL. */
struct sluice_listener_effect {
	size_t struct_size;
	enum sluice_listener_effect_kind kind;
	uint64_t tag; /* as the plugin gave it with the call */
	int code;
	const char *text;
	sluice_token token;
	uint64_t seq;
	uint64_t offset;
	uint32_t attempts; /* failed ones before this */
	struct sluice_slice subject, key, body;
	sluice_time_ms time_ms;
};

/* Calls of the host, to be made on the connection's I/O thread only, which is the thread that calls
 * the listener's ops. None blocks. BUSY: stop reading, SLUICE_EFFECT_WRITABLE follows. CLOSED: the
 * connection is at its end. tag comes back with the effects of the call. */
struct sluice_listener_host {
	size_t struct_size;
	/* Copies the bytes into the connection's output. */
	int (*write)(sluice_conn *conn, const void *bytes, size_t len);
	/* Closes the connection after what was written is sent; why is for the log. */
	void (*close)(sluice_conn *conn, const char *why);
	/* Opens the durable session of this connection; needed before consume. */
	int (*session)(sluice_conn *conn, const char *gateway, uint32_t timeout_ms, uint64_t tag);
	/* Publishes one message; queue may be empty. */
	int (*publish)(sluice_conn *conn, uint64_t tag, struct sluice_slice subject,
		       struct sluice_slice queue, struct sluice_slice body);
	/* Opens a consumer with credit for `credit` items; lease_ms 0: the queue's. */
	int (*consume)(sluice_conn *conn, uint64_t tag, struct sluice_slice queue, uint32_t credit,
		       uint32_t lease_ms);
	/* Gives a consumer or follower credit for more. */
	int (*credit)(sluice_conn *conn, uint64_t consumer_tag, uint32_t more);
	/* Settles an item: done, or failed and to be delivered again. */
	int (*ack)(sluice_conn *conn, uint64_t tag, uint64_t consumer_tag, sluice_token token,
		   uint64_t seq, bool done);
	/* Opens a follower of a stream at an offset. */
	int (*follow)(sluice_conn *conn, uint64_t tag, struct sluice_slice stream, uint64_t offset,
		      uint32_t credit);
	/* Sends a control message, the body of a REQUEST frame (SPEC.md). SLUICE_EFFECT_ANSWER has
	 * the Reply in body, or a code; it comes before this call returns, or later. */
	int (*request)(sluice_conn *conn, uint64_t tag, struct sluice_slice request);
};

/* All are needed. They are called on the connection's I/O thread and must not block. */
struct sluice_listener_ops {
	size_t struct_size;
	const char *protocol; /* its name, "line" */
	uint16_t default_port;
	/* A connection was accepted. *ret_state is the plugin's, for the connection. A code closes
	 * the connection; closed is called if *ret_state was set all the same. host is valid until
	 * closed. */
	int (*accept)(const struct sluice_listener_host *host, sluice_conn *conn, void **ret_state);
	/* Bytes have come. Returns how many of them were consumed, the rest comes again with more;
	 * or a negative code, which closes the connection. */
	long (*bytes)(void *state, const void *bytes, size_t len);
	void (*effect)(void *state, const struct sluice_listener_effect *effect);
	/* The connection is gone. Frees state; no host call may follow. */
	void (*closed)(void *state);
};

/* ---- the plugin ---- */

struct sluice_plugin {
	size_t struct_size;
	uint16_t abi_major;
	uint16_t abi_minor;
	uint32_t kind; /* enum sluice_plugin_kind */
	const char *name;
	const char *version;
	/* Called after loading, before ops are used. A code refuses the plugin, and fini is not
	 * called. host is valid until the end of fini. May be NULL. */
	int (*init)(const struct sluice_host *host);
	void (*fini)(void); /* may be NULL */
	const void *ops;    /* struct sluice_service_ops or struct sluice_listener_ops */
};
/* What the plugin defines. Declared here so that it is exported, also from C++, where a const
 * object is local to its file by default. */
SLUICE_API extern const struct sluice_plugin SLUICE_PLUGIN_SYMBOL;

#ifdef __cplusplus
}
#endif

#endif
