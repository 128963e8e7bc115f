/* SPDX-License-Identifier: Apache-2.0
 *
 * The state of the local scheduler: the held jobs, each in one stage, and what every file of the
 * service needs: log, clock, the end with a failure.
 *
 *   CLAIMED --intent--> INTENT --spawn--> SPAWNED --start mark--> RUNNING --status--> ENDED
 *
 * A job leaves the table when the broker has accepted the report of its end. STALE: its lease was
 * lost, or the sweep found it; its process is ended if a reset ended the attempt, and left alone if
 * another holder has the attempt.
 *
 * Everything runs on the thread of local_run(); libsluice calls back from sluice_process().
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
/* Where a fault rig has the process stop itself, to kill it there: between intent and start,
 * between start and record, between record and report. */
enum window { WINDOW_NONE, WINDOW_INTENT, WINDOW_START, WINDOW_RECORD };

struct service;
struct stale_attempt;	 /* stale.c */
struct tree;		 /* attempt/tree.h */
struct cached_lifecycle; /* lifecycle_cache.c */

struct job {
	struct job *prev, *next, *same_hash;
	struct service *service;
	char *id;
	uint32_t attempt;
	enum stage stage;
	sluice_token token;
	sluice_token asked_token; /* of the last intent, or of the last report of the end */
	uint32_t calls;		  /* not answered yet: the struct stays until they are */
	bool dropped;		  /* not ours any more: nothing is reported */

	/* The attempt and its files. */
	char life[ATTEMPT_LIFE_BYTES]; /* as in the tag of its intent */
	char dir[ATTEMPT_PATH_MAX];
	char *payload;
	size_t payload_len;
	bool had_intent; /* of an earlier holder: its files are inspected before a start */
	bool started;	 /* its shepherd reported that the start mark is taken */
	unsigned absent; /* inspections in a row that found no mark, although it has started */

	/* Its process. */
	int starter_fd;	    /* the shepherd's pipe; -1: none */
	int watch_fd;	    /* pidfd of the shepherd or of the job's process; -1: none */
	bool shepherd_lost; /* its process runs, and its shepherd was killed */
	bool timed_out;	    /* the shepherd is lost, and the scheduler enforced the timeout */
	bool cancel;	    /* requested */
	uint64_t kill_ms;   /* time of the last signal, SIGTERM first, then SIGKILL; 0: none */
	unsigned kills;	    /* number of SIGKILLs */

	/* The next try. */
	bool retry;	   /* jobs_due() takes the next step at retry_ms */
	uint64_t retry_ms; /* not before */
	unsigned retries;  /* doublings of the pause */

	/* Attempts that have to end before the next one starts; of a STALE job, its own. */
	struct stale_attempt *stale; /* owned */
	size_t stale_count;
	bool stale_known; /* all of them are in `stale` */

	/* What the broker knows of it. */
	char *state;			    /* the last one known */
	struct cached_lifecycle *lifecycle; /* borrowed from the service; NULL: the queue's */
	uint64_t seen_ms;	/* wall clock, when an end without a status was seen; 0: not yet */
	uint32_t waiting_for;	/* hash of the cause that the broker has as evidence; 0: none */
	uint32_t waiting_asked; /* hash of the cause whose report is not answered yet; 0: none */
	bool no_evidence;	/* a report was refused as invalid: evidence is left out */
	uint64_t compared;	/* number of the comparison that began while it was held */
};

/* compare.c */
struct compare {
	uint64_t due_ms; /* of the next comparison */
	uint64_t number; /* of comparisons that began */
	unsigned asked;	 /* questions that are not answered yet */
	bool listing;	 /* more rows are to come */
};

/* sweep.c */
struct sweep {
	uint64_t due_ms; /* of the next pass */
	unsigned next;	 /* bucket of the pass */
	DIR *bucket;	 /* being read; NULL: none */
	unsigned asked;	 /* questions that are not answered yet */
	uint64_t in_pass, deleted;
	int64_t clock_apart_ms;	      /* the wall clock minus the boot clock, as believed */
	int64_t clock_claim_ms;	      /* the same, since the wall clock was set */
	int64_t clock_claim_since_ms; /* on the boot clock; 0: the wall clock was not set */
	DIR *spool;		      /* being read for trees to delete; NULL: not */
	bool none_gone;		      /* no tree is to be deleted */
	bool gone_again;	      /* the spool is to be read once more */
	struct tree *tree;	      /* being deleted; NULL: none */
	uint64_t tree_ms;	      /* when its deletion began */
	char tree_name[256];	      /* in the spool */
	struct notes notes;	      /* logged names of what stays in the spool */
};

/* settings.c; README.md describes each. */
struct settings {
	char spool[512], shepherd[1024], queue[256], session[256], source[256];
	const char *roles[ROLES]; /* borrowed from the host; NULL: not set */
	uint64_t keep_ms, compare_ms, give_up_ms, output_max_kib;
	uint64_t slots, session_timeout_ms;
	bool leave_leftovers;
	enum window pause;
};

/* consumer.c */
enum phase { PHASE_WAITING, PHASE_ASKING, PHASE_OPEN };
struct consumer {
	enum phase phase;
	uint64_t due_ms;     /* WAITING: of the next try */
	uint64_t since_ms;   /* when it was last open; 0: it is open */
	unsigned waits;	     /* tries in a row that failed */
	char cause[256];     /* of the last failure */
	char lifecycle[256]; /* name of the queue's lifecycle */
	unsigned life;	     /* counts clients and tries: an answer to an earlier one is ignored */
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
	pid_t *starters;			  /* shepherds' first processes, not reaped yet */
	size_t starter_count, starter_capacity;
	struct sweep sweep;
	struct consumer consumer;
	struct compare compare;
	bool has_transport; /* the client was given its socket, and does not connect again */
	bool check_client;  /* it was disconnected, perhaps for good */
	bool stopping;
	int result; /* 0: the end was requested; else the failure that ended the service */
};

/* Milliseconds of a clock that cannot be set. */
uint64_t service_now_ms(void);
/* Writes one line to the host's log. job: the line begins with its id; NULL: it does not. */
void service_log(struct service *service, enum sluice_log_level level, const char *id,
		 const struct job *job, const char *text);
/* Ends the service with a failure, which is logged. Without effect if it is ending already. */
void service_fail(struct service *service, int code, const char *id, const char *text);
/* For fault rigs: if the setting `pause` names this window, leaves a note in the spool and stops
 * the process by SIGSTOP. */
void window_pause(struct job *job, enum window window, const char *name);

#endif
