/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker's promises, as a naive model that shares nothing with it: a stream is a list, a queue
 * is a list with holders, a job is a record, a session a deadline. Its inputs are the clients'
 * requests, their answers and the results of reads. oracle_time() sets the time of the calls after
 * it. "Unknown" means sent and not answered; "unreceived" means possibly sent by the broker without
 * being received: both add legal results, until an answer or a read shows which of them happened.
 * The first broken promise is kept as a text. One thread; never blocks; all arrays have fixed
 * bounds.
 */
#ifndef SLUICE_TESTS_SIM_ORACLE_H
#define SLUICE_TESTS_SIM_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

enum {
	ORACLE_STREAMS_MAX = 4,
	ORACLE_PRODUCERS_MAX = 8,
	ORACLE_EVENTS_MAX = 8192, /* of a stream */
	ORACLE_ITEMS_MAX = 8192,
	ORACLE_TXNS_MAX = 2048,
	ORACLE_JOBS_MAX = 256,
	ORACLE_SESSIONS_MAX = 1024,
	ORACLE_CONSUMERS_MAX = 32,
	ORACLE_COMMANDS_MAX = 65536,
	ORACLE_SOURCES_MAX = 4,
	ORACLE_CREDIT_MAX = 1000000, /* the model counts no higher */
	ORACLE_LANES_MAX = 4096,
	ORACLE_RELEASES_MAX = 4096, /* that the thread has not handled */
	ORACLE_DUE_MAX = 4096,
	ORACLE_CONNS_MAX = 4,
	/* Bodies are numbers: producer * ORACLE_BODY + its sequence number, from 1. Those of
	 * transactions come from this producer; the number is the transaction's * ORACLE_TXN_PARTS
	 * + the part, first the events, then the puts. */
	ORACLE_BODY = 1000000,
	ORACLE_TXN_PRODUCER = 5,
	ORACLE_TXN_PARTS = 8
};

struct oracle;

struct oracle_rules {
	uint32_t lease_ms, attempts_max, session_ms;
	uint32_t job_keep_ms; /* how long an ended job is shown */
	/* the queue delivers items in the order of their puts, until they are returned */
	bool fifo;
	struct {
		uint64_t keep_events, keep_ms; /* 0: all */
	} streams[ORACLE_STREAMS_MAX];
};
struct oracle *oracle_create(const struct oracle_rules *rules); /* owned; NULL: out of memory */
void oracle_destroy(struct oracle *oracle);			/* accepts NULL */
const char *oracle_why(const struct oracle *oracle);		/* NULL: all promises were kept */
uint64_t oracle_hash(const struct oracle *oracle);		/* of all inputs, in order */
void oracle_trace(struct oracle *oracle);			/* prints all further inputs */
void oracle_time(struct oracle *oracle, uint64_t now_ms); /* before the other calls of a step */
/* Reports a violation that the caller found, and that no rule of the oracle covers. */
void oracle_blame(struct oracle *oracle, const char *what, int64_t a, int64_t b);
/* The broker crashed, and was started again at the same time. Call it after the calls *_unknown of
 * all operations in flight. `leases_by_session`: a session that may have been granted items for its
 * whole life without receiving them; 0: none. */
void oracle_crashed(struct oracle *oracle, uint64_t leases_by_session);
/* A connection breaks: until oracle_lost, what is granted to it is not received. */
void oracle_breaks(struct oracle *oracle);
/* The same as oracle_crashed for one broken connection: only its session may have missed frames. */
void oracle_lost(struct oracle *oracle, uint64_t session, bool leases_by_session);

/* ---- answers ---- of the commands of one session in one of its lanes. id: grows with each
 * command that is sent. */
void oracle_lane_answered(struct oracle *oracle, uint64_t session, bool control, uint64_t id);

/* ---- a thread of connections ---- Each commit gives it a release with the effects of the commit,
 * which it handles later. Commits are told apart by the gateway's index after them. */
/* A thread that has handled all that is committed: at the broker's start. */
void oracle_thread_began(struct oracle *oracle, uint64_t index);
void oracle_thread_posted(struct oracle *oracle, uint64_t index);
/* An effect of the last posted commit, for one of its connections. key: unique among those that are
 * not given. */
void oracle_thread_due(struct oracle *oracle, uint64_t key);
void oracle_thread_handles(struct oracle *oracle); /* the next release: its effects follow */
void oracle_thread_given(struct oracle *oracle, uint64_t key);
/* The answer of a read. id: grows with each read of its connection, 0: in no order; index: as of
 * what it shows, 0: it was refused. */
void oracle_thread_shown(struct oracle *oracle, int conn, uint64_t id, uint64_t index);
/* It has nothing to do. unanswered: requests that wait for nothing but an answer. */
void oracle_thread_at_rest(struct oracle *oracle, uint64_t unanswered);

/* ---- sessions ---- An opened session is not attached yet. */
enum oracle_session_kind {
	ORACLE_FREE,
	ORACLE_EPHEMERAL, /* ends with its connection, or with the broker */
	ORACLE_STANDING	  /* ends when it is closed */
};
void oracle_session_opened(struct oracle *oracle, uint64_t session, enum oracle_session_kind kind);
/* A sign of life of one that is not attached. */
void oracle_session_touched(struct oracle *oracle, uint64_t session);
/* The process did not run for this time, until now. */
void oracle_stopped(struct oracle *oracle, uint64_t ms);
/* The answer to a command of a connection that had lost its session before the command entered a
 * batch. gone: SESSION_GONE. */
void oracle_lost_answered(struct oracle *oracle, bool gone);
void oracle_session_attached(struct oracle *oracle, uint64_t session);
void oracle_session_detached(struct oracle *oracle, uint64_t session);
void oracle_session_closed(struct oracle *oracle, uint64_t session);
void oracle_session_close_unknown(struct oracle *oracle, uint64_t session);
void oracle_session_shown(struct oracle *oracle, uint64_t session, bool exists);
/* All items (jobs: all jobs) that the session holds were redelivered. */
void oracle_resumed(struct oracle *oracle, uint64_t session, bool jobs);

/* ---- consumers ---- Their numbers contain the client's. feed: 0 items, 1 jobs, 2 and 3 the wild
 * queues. Each is opened with credit. */
/* source: the source whose jobs the consumer can judge; 0: none. */
void oracle_consumer_opened(struct oracle *oracle, int consumer, int feed, bool orphans, int source,
			    uint64_t session, uint32_t credit);
void oracle_consumer_credited(struct oracle *oracle, int consumer, uint32_t more);
void oracle_consumer_paused(struct oracle *oracle, int consumer, bool paused);
void oracle_consumer_given(struct oracle *oracle, int consumer, uint32_t count);
void oracle_consumer_resumed(struct oracle *oracle, int consumer);
void oracle_consumer_ended(struct oracle *oracle, int consumer); /* reported by the broker */
void oracle_consumer_closed(struct oracle *oracle, int consumer);
/* Results of reads while the broker is idle. */
struct oracle_rest {
	uint64_t ready[4]; /* items or jobs that can be claimed, of each feed */
	/* jobs that wait for that source; 0: for any consumer */
	uint64_t orphaned[ORACLE_SOURCES_MAX];
	uint64_t wild_orphaned; /* of feed 3 */
	uint64_t timers_due;
};
void oracle_at_rest(struct oracle *oracle, const struct oracle_rest *rest);
/* A job unknown to the oracle is leased to the session. */
void oracle_wild_leased(struct oracle *oracle, uint64_t session);

/* ---- the way of a consumer's last event ---- tag: unique for each consumer that is opened. It
 * ends once, after it was closed, and nothing is given to it after that. */
void oracle_tag_opened(struct oracle *oracle, uint64_t tag);
void oracle_tag_closed(struct oracle *oracle, uint64_t tag);
void oracle_tag_given(struct oracle *oracle, uint64_t tag);
void oracle_tag_ended(struct oracle *oracle, uint64_t tag);
/* The broker is idle: all that were closed have ended. */
void oracle_tags_at_rest(struct oracle *oracle);

/* ---- the way into a commit ---- Commands are numbered in the order in which they are sent.
 * batch_bytes: the bound of one commit, in this life of the broker. */
void oracle_commits_begin(struct oracle *oracle, uint64_t batch_bytes);
/* Commands of the same `sender` and lane keep their order. */
void oracle_command_sent(struct oracle *oracle, uint32_t command, uint64_t sender, bool control,
			 uint64_t bytes);
/* Of one commit, in the order of its answers; also those that nobody receives. */
void oracle_command_answered(struct oracle *oracle, uint32_t command);
void oracle_commit_ended(struct oracle *oracle);

/* ---- sources ---- Numbered from 1. One session at a time represents a source. */
enum oracle_source { ORACLE_REPRESENTS, ORACLE_ANOTHER_REPRESENTS, ORACLE_SESSION_ENDED };
void oracle_source_answered(struct oracle *oracle, int source, uint64_t session, bool take,
			    enum oracle_source answer);
void oracle_source_unknown(struct oracle *oracle, int source, uint64_t session);

/* ---- streams, cursors ---- oracle_sent: before the first attempt to send it. */
void oracle_sent(struct oracle *oracle, int producer, uint64_t seq, uint32_t count);
void oracle_published(struct oracle *oracle, int stream, int producer, uint64_t seq, uint32_t count,
		      uint64_t offset);
/* The producer was opened anew: its last sequence number in the answer. */
void oracle_reopened(struct oracle *oracle, int producer, uint64_t last_seq);
void oracle_read_begin(struct oracle *oracle, int stream, uint64_t first, uint64_t next);
void oracle_read(struct oracle *oracle, uint64_t offset, uint64_t body);
void oracle_read_end(struct oracle *oracle);
void oracle_cursor_set(struct oracle *oracle, uint64_t offset, bool back, bool done);
void oracle_cursor_unknown(struct oracle *oracle, uint64_t offset, bool back);
void oracle_cursor_shown(struct oracle *oracle, uint64_t offset); /* 0: it does not exist */

/* ---- transactions ---- Their operations are reported by the calls for single operations, as done
 * or as unknown; those of a refused transaction are not reported. */
void oracle_txn_sent(struct oracle *oracle, uint64_t txn, uint32_t events, uint32_t puts);
void oracle_txn_answered(struct oracle *oracle, uint64_t txn, bool done);

/* ---- the queue ---- An item's number is its sequence in the queue. losses: crashes and broken
 * connections between the first attempt to send the put and its answer. */
void oracle_put(struct oracle *oracle, uint64_t item, uint64_t body, uint32_t losses);
struct oracle_grant {
	uint64_t item, body, token, session;
	uint32_t attempts; /* failed attempts, as delivered */
	uint32_t lease_ms; /* as answered; 0: as long as the session */
	bool again;	   /* the session resumes: it may hold the item already */
};
void oracle_granted(struct oracle *oracle, const struct oracle_grant *grant);
enum oracle_settle {
	ORACLE_ACK,
	ORACLE_NACK,
	ORACLE_EXTEND,
	ORACLE_RELEASE,
	ORACLE_BEGUN,
	ORACLE_REJECT,
	ORACLE_RENEW
};
struct oracle_settlement {
	uint64_t item, token, session; /* of the caller */
	enum oracle_settle how;
	uint32_t value_ms; /* delay, or lease */
	uint64_t renewed;  /* RENEW, done: the token in the answer */
};
/* retried: an earlier attempt was not answered, and may have been applied then. */
void oracle_settled(struct oracle *oracle, const struct oracle_settlement *s, bool done,
		    bool retried);
void oracle_settle_unknown(struct oracle *oracle, const struct oracle_settlement *s);
/* A purge removes ready items; count: their number. */
void oracle_purged(struct oracle *oracle, uint64_t count);
void oracle_purge_unknown(struct oracle *oracle);
struct oracle_counts {
	uint64_t put, ready, leased, delayed, acked, dead;
};
/* put_unknown: items whose put is not answered, without those of transactions. */
void oracle_counts(struct oracle *oracle, const struct oracle_counts *shown, uint64_t put_unknown);
void oracle_dead_begin(struct oracle *oracle);
void oracle_dead(struct oracle *oracle, uint64_t body,
		 uint32_t attempts);			       /* a row of the dead-letter queue */
void oracle_dead_end(struct oracle *oracle, uint64_t counted); /* counted: by the queue */
/* Call it when no item will return to the queue any more. */
void oracle_drained(struct oracle *oracle, const struct oracle_counts *shown);

/* ---- jobs ---- */
enum oracle_claim { ORACLE_NONE, ORACLE_READY, ORACLE_LEASED, ORACLE_ORPHANED, ORACLE_GATED };
struct oracle_job_seen { /* contents of a delivery or a read */
	const char *state;
	bool terminal, intent, cancel;
	uint32_t attempt;
	uint64_t token, session;
	int source;		 /* the source that judges it; 0: none */
	enum oracle_claim claim; /* only in a read */
};
void oracle_job_submitted(struct oracle *oracle, int job);
/* taker: the source of the consumer that received it. */
void oracle_job_claimed(struct oracle *oracle, int job, const struct oracle_job_seen *seen,
			int taker, bool orphan, bool again);
struct oracle_report {
	uint64_t token; /* 0: the reporter holds no lease */
	uint32_t attempt;
	const char *state;
	bool release;
	int serial; /* unique, so that no report looks like another's retry */
};
enum oracle_verdict { ORACLE_APPLIED, ORACLE_DUPLICATE, ORACLE_REFUSED };
void oracle_job_reported(struct oracle *oracle, int job, const struct oracle_report *report,
			 enum oracle_verdict verdict);
void oracle_job_intended(struct oracle *oracle, int job, uint64_t token, uint32_t attempt,
			 bool done);
void oracle_job_released(struct oracle *oracle, int job, uint64_t token, uint32_t delay_ms,
			 enum oracle_verdict verdict);
void oracle_job_cancelled(struct oracle *oracle, int job, bool terminal);
void oracle_job_reset(struct oracle *oracle, int job, bool force, uint32_t attempt, bool done);
void oracle_job_unknown(struct oracle *oracle, int job);
/* The holder's session was notified of a cancel, or that its lease has ended. */
void oracle_job_noticed(struct oracle *oracle, int job, uint64_t token, bool cancel);
/* A read of all job events, in order. The end comes before the jobs are shown. */
void oracle_job_events_begin(struct oracle *oracle);
void oracle_job_event(struct oracle *oracle, int job, uint32_t attempt, const char *from,
		      const char *state);
void oracle_job_events_end(struct oracle *oracle);
/* Every consumer of jobs, with or without orphans, has requested more than there are. */
void oracle_jobs_drained(struct oracle *oracle);
/* seen NULL: there is no such job. True: it existed, and was deleted when it was due. Do not use
 * its number again. */
bool oracle_job_shown(struct oracle *oracle, int job, const struct oracle_job_seen *seen);

#endif
