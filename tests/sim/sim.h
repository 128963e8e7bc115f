/* SPDX-License-Identifier: Apache-2.0
 *
 * One simulated world: an engine without its thread, the clients around it and their memory. Shared
 * by the files of this folder outside the oracle. One thread; all decisions come from `random`, so
 * from the seed.
 */
#ifndef SLUICE_TESTS_SIM_SIM_H
#define SLUICE_TESTS_SIM_SIM_H

#include "broker/engine/engine.h"
#include "tests/sim/oracle.h"

enum {
	/* including ORACLE_TXN_PRODUCER; sim_target gives the targets of the others */
	PRODUCERS = 7,
	CLIENTS = 4, /* the last one holds items until its session ends */
	FREE = 3,    /* clients without a connection; the last one's session has no deadline */
	SOURCES = 2, /* from 1 on; 0 is none */
	JOBS = 12, /* at a time: a deleted job is replaced by one with a new number, or by NO_JOB */
	NO_JOB = -1,
	WILD_JOBS = 24,
	JOB_KEEP_MS = 60000,
	OPS_MAX = 65536,
	HELD_MAX = 256,
	LEASE_MS = 5000,
	SESSION_MS = 20000,
	ATTEMPTS = 5,
	BOUNDED_EVENTS = 60, /* kept in stream "r" */
	BOUNDED_MS = 8000    /* and in stream "a" */
};

/* Feeds of a client. For the wild queues, whose records are damaged now and then, only liveness is
 * checked. */
enum feed { FEED_ITEMS, FEED_JOBS, FEED_WILD, FEED_WILD_JOBS, FEEDS };

/* An operation that was sent and not answered yet. */
struct op {
	bool open;
	uint16_t type;
	int number; /* of the producer, the job or the client that it is about */
	int client; /* whose connection carries it; -1: one that does not break */
	uint64_t session;
	uint64_t seq, offset;
	uint64_t bytes; /* that it counts as; 0: its own */
	uint32_t count;
	bool control; /* the lane; set by submit */
	bool behind;  /* in the lane of publishes, so that it passes none of them */
	struct oracle_settlement settle;
	struct oracle_report report;
	bool flag; /* reset: force; cursor: back; publish: of an old epoch; source: take */
	/* The connection that submitted it; 0: none. lost: that had lost its session before */
	uint64_t connection;
	bool lost;
	bool wild;     /* for a wild queue: the oracle does not get it */
	bool wild_job; /* for the wild jobs: `number` is the job's */
};
struct held {
	uint64_t item, token, session;
	int client;
};
struct publisher {
	uint64_t id, next;
	uint32_t epoch, pending; /* events sent and not answered; 0: none */
	uint32_t losses;	 /* crashes and broken connections since they were first sent */
	bool in_flight, stale;	 /* stale: its epoch may belong to another publisher */
	uint64_t owner;		 /* session that opened it */
};
/* A transaction is sent again unchanged until it is answered. */
struct txn_plan {
	bool pending, in_flight, was_unknown;
	uint64_t number, session;
	uint32_t events, puts;
	struct oracle_settlement settle; /* token 0: none */
	int job;			 /* NO_JOB: none */
	struct oracle_report report;
	bool submit; /* of the job, instead of the report */
	bool doomed; /* its last operation is refused */
};
struct client {
	uint64_t session;    /* 0: none */
	uint64_t connection; /* number; 0: none */
	bool opening, closing, cut_off;
	uint64_t cut; /* its connection breaks before the cut-th frame from now; 0: never */
	bool resuming[FEEDS];
	int source; /* the source whose jobs it can judge; 0: none */
	/* its consumer of jobs is open; with a source, only while the session represents it */
	bool jobs_taken;
	/* its source was taken over: it consumes no more jobs on this connection */
	bool jobs_left;
	bool ephemeral; /* its sessions end with their connection */
	/* A connection that lost this session to `connection` and is not freed yet; 0: none */
	uint64_t stale, stale_session;
	bool stale_kicked;
	bool stale_jobs, stale_consumes; /* it has open: its consumer of jobs; one more */
	bool slow; /* its connection does not accept deliveries: its consumers are paused */
};

struct free_client {
	uint64_t session; /* 0: none */
	bool opening, closing;
	bool silent; /* no more signs of life */
};

struct wild_job {
	uint64_t token;
	uint32_t attempt;
	int client;
	uint8_t damage;	 /* wild_jobs.c; 0: none */
	uint64_t number; /* of the job that was damaged */
};

struct sim_spec {
	uint64_t seed, steps;
	bool lmdb;
	int plant;
	bool trace;
};

struct sim {
	struct engine_sink sink; /* first */
	struct sim_spec spec;
	struct oracle *oracle;
	struct store *store;
	struct engine *engine;
	/* mono_ms of the broker's durable clock; the process's clock is skewed against it */
	struct batch_clock now;
	uint64_t batch_bytes; /* of one commit, in this life of the broker */
	uint64_t skew_ms;
	bool failed;
	/* records are damaged in the broker's database, and not in the second one */
	bool one_sided;
	bool priority; /* the queue has priorities */
	bool sourced;  /* clients can judge the jobs of a source */
	bool drains;   /* every consumer of jobs accepts orphans, and all begin without credit */
	bool quiet;    /* the broker was driven until it was idle */
	bool answers;  /* a client has sent a request in response: the broker is not idle */
	/* everything is committed and no client receives an answer; then the broker crashes */
	bool answers_lost;
	char dir[64];
	uint64_t random, step, connections;
	uint64_t thread_events; /* that its connections have published */
	int reports;
	uint64_t queue, jobs, wild, wild_job_queue;
	uint64_t clock_ahead_ms; /* of the broker's durable clock */
	struct publisher publishers[PRODUCERS];
	struct txn_plan txn;
	struct client clients[CLIENTS];
	struct free_client frees[FREE];
	struct held held[HELD_MAX];
	struct held wild_held[HELD_MAX];
	size_t wild_count;
	struct wild_job wild_jobs[WILD_JOBS];
	size_t held_count, op_count, op_first; /* op_first: all before it are closed */
	struct {
		uint64_t token;
		uint32_t attempt;
		int client;
		bool intended;
	} job[ORACLE_JOBS_MAX];	   /* as in the last delivery */
	int slots[JOBS], jobs_end; /* numbers of the jobs known to clients, and the next one */
	/* faults.c, faults_plan.c */
	long fault_in; /* the fault_in-th call of the store from now fails; 0: none */
	bool fault_commit;
	int fault_code;
	bool kill; /* at the end of this step */
	struct outcome last;
	struct op ops[OPS_MAX];
};

/* ---- in the order of the files: each calls only those above it ---- */

/* run.c */
void must(int rc, const char *what); /* exits on a failure of the simulator itself */
uint64_t roll(struct sim *s, uint64_t n);
struct sluice_slice text(const char *t);

/* names.c */
struct target {
	const char *name;
	uint32_t gateway;
	int stream; /* of the oracle; -1: the queue */
};
const struct target *sim_target(int producer);
const char *source_name_of(int source);
int source_by_name(const char *name); /* "": 0 */
/* Consumers' tags contain a client's connection. */
uint64_t consumer_tag(const struct client *client, int number, enum feed feed);
/* The same for the oracle, over all of a client's connections. */
int consumer_number(int client, enum feed feed);

/* unreceived.c: the command's answer will not be received */
void forget(struct sim *s, struct op *op);

/* faults.c */
void faults_off(struct sim *s);
/* Around reads of the simulator itself while a call of the broker is to fail. */
void faults_pause(struct sim *s);
void faults_resume(struct sim *s);

/* broker.c */
/* The broker's threads report that they run. */
void report_running(struct sim *s);
void touch(struct sim *s, uint64_t session);
void submit(struct sim *s, struct op op, uint32_t gateway, uint64_t session, const void *body);
void boot(struct sim *s);
/* Until the engine is idle. False: the broker crashed, or will at the end of the step. */
bool drive(struct sim *s);
void shut(struct sim *s); /* permanently */

/* clients.c: actions of clients on sessions, streams and the queue */
void publish(struct sim *s, int producer);
void reopen(struct sim *s, int producer); /* under its name: its epoch grows, its sequence stays */
void settle(struct sim *s);
void take(struct sim *s, int client); /* a CLAIM of its own, beside its consumers */
void begin_all(struct sim *s);	      /* reports all recent items as begun */
void purge(struct sim *s);
/* Many large commands of two sessions that change nothing. */
void flood(struct sim *s);
void client_connect(struct sim *s, int client);
void consumers_close(struct sim *s, int client); /* all that it has open */
void client_leave(struct sim *s, int client);
void client_close(struct sim *s, int client); /* ends its session */
/* The connection breaks: frames from now on are not received; later it is closed. */
void client_cut_off(struct sim *s, int client);
void client_break(struct sim *s, int client);
/* Begins or ends the state in which its connection accepts no deliveries. */
void client_slow(struct sim *s, int client, bool slow);
/* It resumes its session while its connection is open, which is stale from then on: its commands
 * that wait, and those that it submits later, must have no effect. */
void client_return(struct sim *s, int client);
void stale_act(struct sim *s, int client);
void stale_free(struct sim *s, int client);
void credit(struct sim *s, int client, uint32_t more);
uint32_t some_credit(struct sim *s);
/* Registers its source, if it has one; consumes jobs once it may. */
void source_send(struct sim *s, int client);
void source_answered(struct sim *s, const struct op *op, const struct outcome *out);

/* free.c: clients whose sessions have no connection */
void free_do(struct sim *s, int number);
void free_opened(struct sim *s, int number, const struct outcome *out);
void free_closed(struct sim *s, int number, const struct outcome *out);

/* jobs.c: actions of clients on jobs, the cursor and transactions */
void job_do(struct sim *s);
void cursor_do(struct sim *s);
void transact(struct sim *s);

/* wild.c */
void wild_put(struct sim *s);
void wild_settle(struct sim *s);
/* One record of the wild queue becomes unreadable. */
void wild_damage(struct sim *s);

/* wild_jobs.c */
void wild_job_do(struct sim *s);
void wild_job_answered(struct sim *s, const struct op *op, const struct outcome *out);
void wild_jobs_granted(struct sim *s, const struct effect *e, int client);
void wild_job_damage(struct sim *s);
void owned_grant_damage(struct sim *s);
/* A row of a list. */
void wild_job_shown(struct sim *s, const Sluice__JobInfo *row, struct oracle_rest *rest);
void wild_jobs_audited(struct sim *s, const Sluice__Audited *audited);

/* receive.c: deliveries to clients; the engine's sink */
void on_post(struct engine_sink *sink, struct engine_release *release);
void on_consumer_closed(struct engine_sink *sink, uint64_t tag);

/* inspect.c: reads */
void inspect_sessions(struct sim *s, struct store_txn *txn);
struct oracle_counts inspect(struct sim *s, bool closely);

/* faults_plan.c */
void faults_plan(struct sim *s);

/* world.c */
void world_make(struct sim *s);
void crash(struct sim *s);

/* sim.c. One run; prints a line. False: a promise was broken. *ret_hash: of all inputs of the
 * oracle, and of the stored data at the end. */
bool sim_run(const struct sim_spec *spec, uint64_t *ret_hash);

#endif
