/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine: takes the submissions in its inbox, applies them in one write transaction, commits
 * with full sync, releases the effects, repeats. It owns the write side of the store, admission,
 * the consumers' credit, the sessions' heartbeats and the clock of the batches. No reply leaves
 * before its commit: effects are released by batch.c alone, after store_commit returned 0.
 *
 * Sinks are the I/O threads (or the simulator). Everything that a sink submits carries a tag of the
 * sink's own; answers come back with it.
 *
 * Threads: submit, consumer_*, session_*, read_begin and facts from any thread; engine_step from
 * the one thread that drives the engine (engine_start makes one).
 */
#ifndef SLUICE_ENGINE_ENGINE_H
#define SLUICE_ENGINE_ENGINE_H

#include <stdatomic.h>

#include "broker/core/core.h"

struct engine;

/* ---- releases: the effects of a batch, after its commit ---- */
struct engine_sink;
enum origin_kind { ORIGIN_NONE = 0, ORIGIN_REQUEST, ORIGIN_CONSUMER };
struct origin {
	struct engine_sink *sink; /* NULL: the engine itself */
	uint64_t tag;		  /* REQUEST: of the submission; CONSUMER: of the consumer */
	uint8_t kind;
};
/* One batch's effects, shared by all sinks. A sink handles its own (origins[effect->command].sink)
 * and those that concern every sink (LOG_GROWN, SESSION_*, JOB_*, TOPOLOGY ...). Read-only. */
struct engine_release {
	struct effects *effects;
	const struct origin *origins;
	size_t origin_count;
	uint64_t number; /* of the batch (core_batch_number): every sink receives them in order */
	uint64_t bytes;	 /* of memory */
};
/* The sink has handled a release. Any thread; the call of the last sink frees it. */
void engine_release_done(struct engine *engine, struct engine_sink *sink,
			 struct engine_release *release);

/* The bytes of the releases that a sink has not handled are bounded (LIMIT_RELEASE_LAG_BYTES_MAX).
 * Above the bound nothing is claimed for its consumers, its submissions are BUSY (in the control
 * lane: above twice the bound), and of other sinks' releases it receives only the effects that
 * concern every sink. Above twice the bound no batch begins. So a sink must never wait for the
 * engine. */
struct engine_sink {
	/* Called on the engine's thread after a commit; must not block. The sink must call
	 * engine_release_done(). */
	void (*post)(struct engine_sink *sink, struct engine_release *release);
	/* The session was attached elsewhere: close the connection that had it (tag of
	 * session_attach). Called on the engine's thread or on that of the new session_attach; must
	 * not block nor call the engine. */
	void (*kick)(struct engine_sink *sink, uint64_t tag);
	/* The last event of a consumer, once for each engine_consumer_close: every release that
	 * concerns the consumer was posted before. May be NULL. Called on the engine's thread, or
	 * on that of engine_consumer_close if the engine has not seen the consumer yet; must not
	 * block nor call the engine. */
	void (*consumer_closed)(struct engine_sink *sink, uint64_t tag);
	/* kept by the engine, 0 at first: of the releases that the sink has not handled */
	_Atomic uint64_t lag_bytes;
};

/* ---- submissions ---- */
/* One command on its way; allocated by the submitter, owned by the engine from submit on, given
 * back through destroy. */
struct submission {
	struct submission *next;
	struct command command;
	size_t bytes; /* of the command, for the batch limit */
	struct engine_sink *sink;
	uint64_t tag;
	uint64_t conn; /* the connection's tag in session_attach; 0: of none */
	/* Whose share of a commit it takes: a session's number, or another one that no session has.
	 * 0: of command.session. Within a lane the submissions of one share keep their order. */
	uint64_t share;
	bool by_sink;	 /* made by the sink because the connection ends */
	bool control;	 /* the lane ahead of publishes */
	int forced_code; /* engine: refused by admission or after a failed apply */
	int64_t guess;	 /* engine: estimated work, in records; 0: none */
	int64_t work;	 /* engine: actual work, in records */
	void (*destroy)(struct submission *submission); /* any thread */
};

struct engine_config {
	uint64_t batch_bytes_max;      /* 0: LIMIT_ENGINE_BATCH_BYTES_MAX */
	uint64_t inbox_bytes_max;      /* 0: LIMIT_INBOX_BYTES_MAX; above: submit answers BUSY */
	uint32_t publish_stop_percent; /* 0: 80; of map and disk */
	uint32_t report_stop_percent;  /* 0: 95 */
	/* 0: 32 MiB; disk held for acks, deletes, expiry; at most 1/20 of the map */
	uint64_t reserve_bytes;
	uint32_t tick_work_max; /* 0: 1,000 records */
	/* engine_create: of the machine's boot, as in cmd_boot */
	uint64_t boot_id;
	uint32_t claims_max;	/* 0: 4,096 per batch */
	bool abort_every_batch; /* simulator: apply, abort, apply again */
	/* Called on the engine's thread when it must stop acknowledging (EIO, failed commit). Never
	 * returns in the broker. */
	void (*fail_stop)(void *user, int code, const char *text);
	void *user;
};

/* Whether the engine writes: only while it leads. A follower's role comes with replicas. */
enum engine_role { ENGINE_OPEN, ENGINE_LEADS };
/* Opens: checks that this version knows the store, and writes nothing. Submissions and notes wait
 * in the inbox until the engine leads. borrows store, takes nothing. Returns 0, SCHEMA, or what the
 * store answers. */
int engine_open(const struct engine_config *config, struct store *store,
		struct engine **ret) SLUICE_MUST_USE;
/* Takes the lead: commits BOOT as the first batch, after it LEVEL_RAISE if the store has an older
 * level, and begins the timeouts of all sessions. now: the process's clocks; the durable clock is
 * its monotone one + boot->offset_ms, from now on. After an error the engine can only be destroyed.
 * Once, before engine_start; blocks for one commit. */
int engine_lead(struct engine *engine, struct batch_clock now,
		const struct cmd_boot *boot) SLUICE_MUST_USE;
/* Both, for a broker that is alone: its own store says what the clocks were (core_boot_clock). */
int engine_create(const struct engine_config *config, struct store *store, struct batch_clock now,
		  struct engine **ret) SLUICE_MUST_USE;
void engine_destroy(struct engine *engine); /* accepts NULL; the thread must have been stopped */
/* Ends the ephemeral sessions that the start has found, in commits of their own. Blocks. Called
 * once, before a port is open and before engine_start. 0 or the failure that fail_stop was called
 * with. */
int engine_end_ephemeral(struct engine *engine, struct batch_clock now) SLUICE_MUST_USE;
int engine_sink_add(struct engine *engine,
		    struct engine_sink *sink) SLUICE_MUST_USE; /* before engine_start; at most 64 */

/* Starts a thread that reads the clocks itself. stop finishes the current batch; submissions that
 * wait are given back unanswered. */
int engine_start(struct engine *engine) SLUICE_MUST_USE;
void engine_stop(struct engine *engine);
/* The broker stops soon: nothing is claimed for consumers any more. Everything else goes on. Any
 * thread. */
void engine_drain(struct engine *engine);

/* One round without a thread: handles the inbox, runs at most one batch; nothing unless it leads.
 * now: the process's clocks (mono is converted to the durable clock). *ret_wait_ms: until the next
 * deadline (UINT64_MAX: none); 0 when more waits. Returns 0 or the failure that fail_stop was
 * called with. */
int engine_step(struct engine *engine, struct batch_clock now,
		uint64_t *ret_wait_ms) SLUICE_MUST_USE;

/* 0: the engine owns it. BUSY: the inbox is full or its sink lags; LIMIT: the command is too large.
 * After an error the submission is still the caller's. */
int engine_submit(struct engine *engine, struct submission *submission) SLUICE_MUST_USE;
/* The same without a wake-up, for one of several: the caller calls engine_wake soon after the last,
 * so that an idle engine commits them together. */
int engine_submit_quietly(struct engine *engine, struct submission *submission) SLUICE_MUST_USE;
void engine_wake(struct engine *engine);

/* ---- demand: a consumer's credit becomes CLAIM commands ---- these calls keep their order with
 * submissions of the control lane. Pending changes of one consumer are merged into one note,
 * whatever their number. Each consumer that is opened is closed once. Errors: NOMEM, of
 * consumer_open and session_attach only; BUSY, of these and of consumer_credit: the inbox is full,
 * try again later. */
struct consumer_spec {
	uint32_t gateway;
	uint64_t queue;
	uint64_t session;
	uint32_t lease_ms;
	uint32_t credit;
	/* CLAIM_ORPHANS, CLAIM_SESSION_LEASE, CLAIM_REPORTS; CLAIM_RESUME: redeliver what the
	 * session holds first */
	uint8_t claim_flags;
	uint32_t extend_max_ms; /* as in cmd_claim */
	struct engine_sink *sink;
	uint64_t tag;	 /* unique in the sink */
	uint64_t conn;	 /* the connection's tag in session_attach; 0: of none */
	uint64_t source; /* as in cmd_claim */
};
int engine_consumer_open(struct engine *engine, const struct consumer_spec *spec) SLUICE_MUST_USE;
int engine_consumer_credit(struct engine *engine, struct engine_sink *sink, uint64_t tag,
			   uint32_t more) SLUICE_MUST_USE;
/* Suspends claims for it, because its connection does not read its deliveries. */
int engine_consumer_pause(struct engine *engine, struct engine_sink *sink, uint64_t tag,
			  bool paused) SLUICE_MUST_USE;
/* Nothing is claimed for it any more once the engine has seen this; then the sink's consumer_closed
 * is called. No batch is needed for it. */
int engine_consumer_close(struct engine *engine, struct engine_sink *sink,
			  uint64_t tag) SLUICE_MUST_USE;

/* ---- sessions: heartbeats touch RAM only ---- */
/* Attaches the session to a connection (an older one is kicked). While attached it does not expire:
 * the sink closes silent connections. tag: not 0, of one connection of the sink for ever.
 *
 * From the attach until the older connection has detached the session, that connection has moved:
 * its submissions (submission.conn) that enter a batch after the attach are answered SESSION_GONE
 * and not applied, and its consumers get nothing. The exception is a SESSION_CLOSE by the sink
 * (submission.by_sink) of a session that the connection did not lose. Errors: NOMEM; BUSY: try
 * again, too many connections came and went during this commit. */
int engine_session_attach(struct engine *engine, uint32_t gateway, uint64_t session,
			  struct engine_sink *sink, uint64_t tag) SLUICE_MUST_USE;
/* Detaches the session; called once for each attach, also when the connection was kicked or the
 * session has ended. A connection that was kicked submits nothing after it. The session expires
 * `timeout - idle_ms` from now, or sooner if it was never used: no command, no subscription, not
 * resumed (LIMIT_SESSION_UNUSED_MS). used: by this connection. */
int engine_session_detach(struct engine *engine, uint32_t gateway, uint64_t session,
			  struct engine_sink *sink, uint64_t tag, uint32_t idle_ms,
			  bool used) SLUICE_MUST_USE;

struct session_number {
	uint32_t gateway;
	uint64_t session;
};
/* Signs of life of sessions without a connection, all at mono_ms of the process's clock: each
 * expires its whole timeout later, unless it is standing. Memory only; does not wake the engine. A
 * sink gathers them and calls this once each 100 ms. Sessions that have ended are ignored: the
 * sink knows from FX_SESSION_ENDED that a session is gone. borrows. Any thread. 0; BUSY, NOMEM:
 * nothing was taken, try again with the next. */
int engine_session_touch(struct engine *engine, const struct session_number *sessions, size_t count,
			 uint64_t mono_ms) SLUICE_MUST_USE;
/* The calling thread runs at mono_ms of the process's clock: called each 100 ms by each sink's
 * thread. When no thread called for over a second more, the process did not run, and in that time
 * no session comes closer to its end. Without any call there are no such times. */
void engine_report_running(struct engine *engine, uint64_t mono_ms);

/* ---- reads ---- */
/* A snapshot of a commit; end with store_abort. *ret_number is the number of its batch, read out of
 * the snapshot itself: what it shows is exactly what the releases up to that number say, so a reply
 * is given when the sink has handled the release of that number, and before the next one. On an
 * error nothing is open, and the outputs stay as they are. */
int engine_read_begin(struct engine *engine, struct store_txn **ret,
		      uint64_t *ret_number) SLUICE_MUST_USE;
struct batch_clock engine_clock(
	const struct engine *engine); /* durable monotone and wall, as of now */

enum headroom_state { HEADROOM_OK, HEADROOM_PUBLISH_STOPPED, HEADROOM_REPORT_STOPPED };
enum { HEADROOM_WHY_BYTES = 224 };
struct engine_facts {
	/* commits_damaged: batches that met a damaged record and were committed all the same; what
	 * they did, a store without this damage would not have done */
	uint64_t commits, commits_damaged, commands, batches_aborted, inbox_bytes, consumers,
		sessions_attached;
	/* changes of consumers and sessions that wait for the engine: at most one per consumer or
	 * session */
	uint64_t notes;
	enum headroom_state headroom;
	char headroom_why[HEADROOM_WHY_BYTES]; /* what is full, and what to do; empty: there is room
						*/
	struct store_facts store;
};
void engine_facts_get(struct engine *engine, struct engine_facts *ret);

#endif
