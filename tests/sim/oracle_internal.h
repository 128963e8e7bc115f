/* SPDX-License-Identifier: Apache-2.0
 * Shared by the oracle_*.c files only. */
#ifndef SLUICE_TESTS_SIM_ORACLE_INTERNAL_H
#define SLUICE_TESTS_SIM_ORACLE_INTERNAL_H

#include "tests/sim/oracle.h"

struct event {
	uint64_t body;	   /* 0: not known */
	uint64_t early_ms; /* appended no earlier than this */
	uint64_t late_ms;  /* and no later */
	bool answered;	   /* a publisher received this offset */
};
struct stream {
	uint64_t first, next; /* as in the last read */
	struct event events[ORACLE_EVENTS_MAX];
};
struct producer {
	uint64_t sent, answered;     /* highest number */
	uint64_t last_from, last_ms; /* first number and time of the last send */
	uint64_t in_read;	     /* the number that a read must show next; 0: any */
};
struct txn {
	uint32_t events, puts, in_read;
	uint64_t sent_ms;
	bool done, refused; /* neither: unknown */
};

enum item_state { ITEM_NONE, ITEM_WAITS, ITEM_HELD, ITEM_ACKED, ITEM_PURGED };
struct item {
	enum item_state state;
	uint64_t body;
	uint64_t token, session; /* the last that was received */
	bool session_lease;
	/* HELD: the holder requested it and got no answer. Renewed: it may be held under a token
	 * that the holder does not know, and not under the one that it has. */
	bool maybe_acked, maybe_nacked, maybe_renewed;
	uint64_t mine_until_ms; /* timed lease: other sessions get the item no earlier */
	uint64_t gone_by_ms;	/* timed lease: it has ended by then */
	uint64_t not_before_ms; /* WAITS: the delay may be over from here on */
	uint64_t not_after_ms;	/* WAITS: the delay is over */
	/* until then an unreceived grant may hold it */
	uint64_t unreceived_until_ms;
	uint64_t unreceived_session;	 /* or while this session lives */
	uint32_t grants_min, grants_max; /* bounds of the attempts counted at its next grant */
	bool begun;			 /* reported as begun under the token */
	bool again, dead, maybe_purged;
};

struct session {
	uint64_t id;
	bool open, attached, maybe_ended;
	enum oracle_session_kind kind;
	bool left;	      /* ephemeral, and its connection has ended: it is attached in vain */
	uint64_t deadline_ms; /* not attached */
};

struct consumer {
	bool open, paused, orphans;
	bool resumes; /* its first deliveries are redeliveries, which need no credit */
	int feed, source;
	uint64_t session;
	uint32_t credit;
};

/* A command that was sent and not answered, or that the current commit answers. */
struct sent {
	uint32_t command;
	uint64_t sender, bytes;
	bool control, answered;
};
struct commits {
	uint64_t batch_bytes;
	struct sent *sent; /* in the order in which they were sent */
	uint32_t sent_count;
	uint32_t *answers; /* positions in `sent`, of the current commit */
	uint32_t answer_count;
};

struct source {
	uint64_t session; /* that represents it; 0: none */
	bool unknown;	  /* another session may have taken it over since */
	uint64_t unknown_ms;
};

struct job {
	bool exists;
	/* it existed and is no longer checked: a late retry may create it anew */
	bool forgotten;
	bool unknown;	    /* a request was not answered: the next read shows the result */
	bool maybe_claimed; /* it may have been granted without being received, */
	bool maybe_left;    /* and to an ephemeral session, which has ended */
	char state[64];
	bool terminal, cancel, intent, due_known, again;
	enum oracle_claim claim;
	uint64_t due_ms; /* GATED */
	uint64_t end_ms; /* terminal: time of the end */
	uint64_t token, top_token, session;
	/* the source that judges the attempt: while it is leased, and with an intent also after the
	 * lease; 0: none */
	int source;
	uint32_t attempt;
	uint64_t cancel_token; /* its holder with this token was notified of the cancel */
	/* this lease has ended, and its session is to be notified; 0: none */
	uint64_t lost_token, lost_session;
	uint64_t lost_notified; /* the last one that was notified */
	char event_state[64];	/* after the last event that was read */
	uint32_t event_attempt;
};

struct lane {
	bool used, control;
	uint64_t session;
	uint64_t answered; /* the last command that was */
};

/* An effect that a connection is owed. */
struct due {
	uint64_t key, release;
};

/* Releases are numbered as they are posted. */
struct thread {
	uint64_t posted, handled;
	uint64_t index[ORACLE_RELEASES_MAX]; /* after that release */
	struct due due[ORACLE_DUE_MAX];
	uint32_t due_count;
	struct {
		uint64_t read, index; /* the last that was answered, and what it showed */
	} conns[ORACLE_CONNS_MAX];
};

struct oracle {
	char why[512];
	bool broken, trace;
	uint64_t hash, now_ms, before_ms, crash_ms, loss_ms,
		top_token; /* before: the previous time; loss: crash or broken connection */
	struct oracle_rules rules;
	/* streams */
	struct stream streams[ORACLE_STREAMS_MAX];
	struct producer producers[ORACLE_PRODUCERS_MAX];
	struct stream *reading;
	uint64_t read_next;
	uint64_t cursor;
	/* an unanswered request may have moved it; back: also backward */
	bool cursor_unknown, cursor_back;
	struct txn txns[ORACLE_TXNS_MAX];
	uint64_t txn_end, txn_puts_done;
	/* queue */
	struct item items[ORACLE_ITEMS_MAX];
	uint64_t item_end, dead_listed;
	uint64_t purged, put_shown;
	bool purge_unknown, any_purge, breaks;
	uint64_t first_given; /* the last item of a first delivery */
	/* while this session lives it may hold items that no client received; 0: none */
	uint64_t unreceived_session;
	struct consumer consumers[ORACLE_CONSUMERS_MAX];
	struct source sources[ORACLE_SOURCES_MAX];
	/* answers: by session, open addressing */
	struct lane lanes[ORACLE_LANES_MAX];
	uint32_t lane_count;
	struct thread thread;
	struct commits commits;
	/* consumers by tag: opened; of those, closed and not ended */
	struct tag {
		uint64_t tag;
		bool closed;
	} tags[ORACLE_CONSUMERS_MAX * 8];
	uint32_t tag_count;
	/* sessions, jobs */
	struct session sessions[ORACLE_SESSIONS_MAX];
	uint32_t session_count;
	bool events_read; /* and there was no event since */
	struct job jobs[ORACLE_JOBS_MAX];
};

/* ---- in the order of the files: each calls only those above it ---- */

/* oracle.c */
void broken(struct oracle *o, const char *format, ...) __attribute__((format(printf, 2, 3)));
void note(struct oracle *o, uint64_t a, uint64_t b, uint64_t c);
/* Whether a session certainly lives; whether it may live. Both are false for a session that the
 * oracle does not know. */
bool session_surely(const struct oracle *o, uint64_t session);
bool session_maybe(const struct oracle *o, uint64_t session);
/* The same, before the deadlines between the previous time and now. */
bool session_maybe_before(const struct oracle *o, uint64_t session);
/* Of this session, or (0) of any. */
bool session_ephemeral(const struct oracle *o, uint64_t session);
/* Whether a consumer of jobs of this session is open: then it received all notices of its jobs. */
bool jobs_consumed_by(const struct oracle *o, uint64_t session);

/* oracle_stream.c */
void txn_is_done(struct oracle *o, uint64_t txn); /* its reply or one of its effects was received */
bool body_of_txn(uint64_t body, uint64_t *ret_txn);

/* oracle_queue.c, oracle_jobs.c. session 0: the broker crashed. */
void items_unreceived(struct oracle *o, uint64_t session, uint64_t leases_by_session);
void jobs_unreceived(struct oracle *o, uint64_t session);
/* From now on the session's entries are redelivered. At most two sessions at a time. */
void items_resuming(struct oracle *o, uint64_t session);
void jobs_resuming(struct oracle *o, uint64_t session);
void items_resumed(struct oracle *o, uint64_t session);
void jobs_resumed(struct oracle *o, uint64_t session);
void jobs_at_rest(struct oracle *o);

/* oracle_demand.c, oracle_order.c, oracle_commits.c, oracle_loss.c: no other file of the oracle
 * calls them */

#define U(x) ((unsigned long long)(x))

#endif
