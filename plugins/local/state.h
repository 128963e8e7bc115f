/* SPDX-License-Identifier: Apache-2.0
 *
 * The local scheduler's insides: a table of jobs in hand, each in one stage.
 *
 *   CLAIMED --intent--> INTENT --spawn--> SPAWNED --start mark--> RUNNING --status--> ENDED --report--> gone
 *
 * STALE is one whose lease was lost, or that the sweep has met: after a reset its process is ended, otherwise it is another's.
 *
 * All of it runs on one thread, the one in local_run(); libsluice's callbacks come from inside
 * sluice_process().
 */
#ifndef SLUICE_LOCAL_STATE_H
#define SLUICE_LOCAL_STATE_H

#include <dirent.h>

#include "attempt/attempt.h"
#include "lifecycle.h"
#include "notes.h"
#include "sluice/client.h"
#include "sluice/plugin.h"

enum { JOB_BUCKETS = 1024 };
enum stage { STAGE_CLAIMED, STAGE_INTENT, STAGE_SPAWNED, STAGE_RUNNING, STAGE_ENDED, STAGE_STALE };
/* Where a fault rig wants the process to stop itself, to be killed there: between intent and start, start and
 * recording, recording and report. */
enum window { WINDOW_NONE, WINDOW_INTENT, WINDOW_START, WINDOW_RECORD };

struct service;
struct stale_attempt;	 /* stale.c */
struct tree;		 /* tree.h */
struct cached_lifecycle; /* lifecycle_cache.c: a lifecycle that was read */
struct job {
	struct job *prev, *next, *same_hash;
	struct service *service;
	char *id;
	sluice_token token;
	sluice_token asked_token; /* that of the last intent, or report of its end */
	uint32_t attempt;
	enum stage stage;
	bool cancel;	    /* asked for */
	bool shepherd_lost; /* its process runs, and its shepherd was killed */
	bool timed_out;	    /* alone, and ended by its timeout from here */
	bool dropped;	    /* not ours any more: nothing is reported */
	bool had_intent;    /* of an earlier holder: look what became of it before anything is started */
	bool started;	    /* its shepherd said that somebody has the start mark */
	unsigned absent;    /* looks in a row that found no mark, although it has started */
	uint64_t kill_ms; /* when the last signal was sent, SIGTERM first; SIGKILL follows, again and again */
	unsigned kills;	  /* so many of these */
	bool retry;	  /* something is to be done again, at retry_ms */
	uint64_t retry_ms;	     /* not looked at before */
	bool stale_known;	     /* they are all in `stale` */
	struct stale_attempt *stale; /* owned: attempts that have to end first; of a STALE one, itself */
	size_t stale_count;
	unsigned retries;	       /* so many doublings of the pause */
	int starter_fd;		       /* the shepherd's pipe; -1: none */
	int watch_fd;		       /* pidfd of the shepherd or the job's process; -1: none */
	uint32_t calls;		       /* under way: the struct stays until they are answered */
	char life[ATTEMPT_LIFE_BYTES]; /* of the attempt, as its intent's tag has it */
	char dir[ATTEMPT_PATH_MAX];
	char *payload;
	size_t payload_len;
	char *state;			    /* the last one known of */
	struct cached_lifecycle *lifecycle; /* NULL: the queue's. Borrowed from the service */
	uint64_t seen_ms;		    /* wall clock; when an end that has no status was seen; 0: not */
	uint32_t waiting_for;		    /* hash of the cause that the broker has as evidence; 0: none */
	uint32_t waiting_asked;		    /* hash of the one whose report is not answered yet; 0: none */
	bool no_evidence;  /* its last report was refused as invalid: without evidence from now on */
	uint64_t compared; /* in hand before this comparison with the ledger began */
};

/* compare.c */
struct compare {
	uint64_t due_ms; /* of the next comparison */
	uint64_t number; /* of those that began */
	unsigned asked;	 /* questions under way */
	bool listing;	 /* rows are still to come */
};

/* sweep.c: attempts that nobody needs any more are deleted. */
struct sweep {
	uint64_t due_ms; /* of the next pass */
	unsigned next;	 /* bucket of the pass */
	DIR *bucket;	 /* being read; NULL: none */
	unsigned asked;	 /* questions under way */
	uint64_t in_pass, deleted;
	int64_t clock_apart_ms;	      /* the wall clock before that of the boot, as believed */
	int64_t clock_claim_ms;	      /* the same, as it says since it was set */
	int64_t clock_claim_since_ms; /* by the clock of the boot; 0: it was not set */
	DIR *spool;		      /* being read for what is to be deleted; NULL: not */
	bool none_gone;		      /* nothing is to be deleted */
	bool gone_again;	      /* the spool is to be read once more */
	struct tree *tree;	      /* being deleted; NULL: none */
	uint64_t tree_ms;	      /* since then */
	char tree_name[256];	      /* in the spool */
	struct notes notes;	      /* of what stays in the spool */
};

/* settings.c */
struct settings {
	char spool[512], shepherd[1024], queue[256], session[256], source[256];
	const char *roles[ROLES]; /* borrowed from the host; NULL: not set */
	uint64_t keep_ms, compare_ms, give_up_ms, output_max_kib;
	uint64_t slots, session_timeout_ms;
	bool leave_leftovers;
	enum window pause;
};

/* consumer.c: from a connection to the queue's deliveries, and back there after each loss. */
enum phase { PHASE_WAITING, PHASE_ASKING, PHASE_OPEN };
struct consumer {
	enum phase phase;
	uint64_t due_ms;     /* WAITING: of the next try */
	uint64_t since_ms;   /* not open since then; 0: it is */
	unsigned waits;	     /* so many tries failed in a row */
	char cause[256];     /* why the last one failed */
	char lifecycle[256]; /* name of the queue's lifecycle */
	unsigned life;	     /* of the client: answers of a former one count for nothing */
};

struct service {
	const struct sluice_host *host;
	struct settings settings;
	const char *address;
	sluice_client *client;
	sluice_sub *sub;
	int epoll_fd, stop_fd;
	char spool_id[ATTEMPT_SPOOL_BYTES];
	char source[300];
	struct job *jobs, *buckets[JOB_BUCKETS];
	struct cached_lifecycle *lifecycles;	  /* owned */
	struct cached_lifecycle *queue_lifecycle; /* one of them */
	pid_t *starters; /* shepherds' first processes, to be reaped: these and no other, the broker has more children */
	size_t starter_count, starter_capacity;
	struct sweep sweep;
	struct consumer consumer;
	struct compare compare;
	bool has_transport; /* the client has a socket that it was given, and does not connect again */
	bool check_client;  /* it was disconnected, perhaps for good */
	bool stopping;
	int result; /* of the end; 0: it was asked for */
};

/* Milliseconds of a clock that cannot be set. */
uint64_t service_now_ms(void);
/* Writes one line to the host's log. job: the line begins with its id; NULL: it does not. */
void service_log(struct service *service, enum sluice_log_level level, const char *id, const struct job *job,
		 const char *text);
/* Ends the service with a failure, which is logged. Without effect if it is ending already. */
void service_fail(struct service *service, int code, const char *id, const char *text);
/* For fault rigs: if the setting `pause` names this window, leaves a note in the spool and stops
 * the process by SIGSTOP. */
void window_pause(struct job *job, enum window window, const char *name);

#endif
