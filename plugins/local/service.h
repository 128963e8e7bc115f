/* SPDX-License-Identifier: Apache-2.0
 *
 * The local scheduler's insides: a table of jobs in hand, each in one stage.
 *
 *   CLAIMED --intent--> INTENT --spawn--> SPAWNED --start mark--> RUNNING --status--> ENDED --report--> gone
 *
 * FORMER is one whose lease was lost, or that the sweep has met: after a reset its process is ended, otherwise it is another's.
 *
 * All of it runs on one thread, the one in local_run(); libsluice's callbacks come from inside
 * sluice_process().
 */
#ifndef SLUICE_LOCAL_SERVICE_H
#define SLUICE_LOCAL_SERVICE_H

#include <dirent.h>

#include "attempt/attempt.h"
#include "lifecycle.h"
#include "notes.h"
#include "attempt/proc.h"
#include "sluice/client.h"
#include "sluice/plugin.h"

enum { JOB_BUCKETS = 1024 };
enum stage { STAGE_CLAIMED, STAGE_INTENT, STAGE_SPAWNED, STAGE_RUNNING, STAGE_ENDED, STAGE_FORMER };
/* Where a fault rig wants the process to stop itself, to be killed there: between intent and start, start and
 * recording, recording and report. */
enum window { WINDOW_NONE, WINDOW_INTENT, WINDOW_START, WINDOW_RECORD };

struct service;
struct former;		/* former.c */
struct tree;		/* tree.h */
struct known_lifecycle; /* known.c: a lifecycle that was read */
struct job {
	struct job *prev, *next, *same_hash;
	struct service *service;
	char *id;
	sluice_token token;
	sluice_token asked; /* that of the last intent, or report of its end */
	uint32_t attempt;
	enum stage stage;
	bool cancel;	  /* asked for */
	bool alone;	  /* its process runs, and its shepherd was killed */
	bool timed_out;	  /* alone, and ended by its timeout from here */
	bool dropped;	  /* not ours any more: nothing is reported */
	bool had_intent;  /* of an earlier holder: look what became of it before anything is started */
	bool started;	  /* its shepherd said that somebody has the start mark */
	unsigned absent;  /* looks in a row that found no mark, although it has started */
	uint64_t kill_ms; /* when the last signal was sent, SIGTERM first; SIGKILL follows, again and again */
	unsigned kills;	  /* so many of these */
	bool again;	  /* something is to be done again, at retry_ms */
	uint64_t retry_ms;	/* not looked at before */
	bool formers_known;	/* they are all in formers */
	struct former *formers; /* owned: attempts that have to end first; of a FORMER one, itself */
	size_t former_count;
	unsigned retries;	       /* so many doublings of the pause */
	int starter_fd;		       /* the shepherd's pipe; -1: none */
	int watch_fd;		       /* pidfd of the shepherd or the job's process; -1: none */
	uint32_t calls;		       /* under way: the struct stays until they are answered */
	char life[ATTEMPT_LIFE_BYTES]; /* of the attempt, as its intent's tag has it */
	char dir[ATTEMPT_PATH_MAX];
	char *payload;
	size_t payload_len;
	char *state;		       /* the last one known of */
	struct known_lifecycle *known; /* its lifecycle; NULL: the queue's. Borrowed from the service */
	uint64_t seen_ms;	       /* wall clock; when an end that has no status was seen; 0: not */
	uint32_t waiting_for;	       /* hash of the cause that the broker has as evidence; 0: none */
	uint32_t waiting_asked;	       /* hash of the one whose report is not answered yet; 0: none */
	bool plain;	   /* its last report was refused as invalid: without evidence from now on */
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
	struct known_lifecycle *knowns; /* owned; the queue's is known */
	struct known_lifecycle *known;
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

/* settings.c: INVAL, LIMIT or NOT_FOUND; the log says which setting, and what was expected. */
int settings_read(struct service *service);

/* service.c */
/* Ends the service with a failure, named in the log. Code and cause are what a person finds of it. */
void service_fail(struct service *service, int code, const char *id, const char *text);

/* consumer.c */
void consumer_turn(struct service *service, uint64_t now_ms);		/* tries when it is time */
void consumer_lost(struct service *service, int code, const char *why); /* its subscription or client ended */

/* known.c */
const struct lifecycle *job_lifecycle(const struct job *job);
/* Takes an answer to `show` of a lifecycle in and maps its states; *ret is the service's. INVAL: why says what was
 * expected. Settings that do not fit a lifecycle that is not the queue's are left out. */
int known_take(struct service *service, const sluice_reply *reply, bool is_queues,
	       struct known_lifecycle **ret, char *why, size_t why_bytes);
/* One that was read before; NULL: none of the name. */
struct known_lifecycle *known_find(const struct service *service, const char *name);
void known_free_all(struct service *service);
const struct lifecycle *known_lifecycle_of(const struct known_lifecycle *known);

/* report.c: what the broker is told of a job. */
void report_running(struct job *job, const struct attempt_view *view);
void report_end(struct job *job, const struct attempt_view *view);
/* An end without a process of its own: role, and why. */
void report_final(struct job *job, enum role role, const char *evidence);
/* Evidence that it waits, and for what; once for each cause. */
void report_waiting(struct job *job, const char *cause);
void call_ended(struct job *job);

/* compare.c: the table against the ledger. */
void compare_soon(struct service *service);
void compare_turn(struct service *service, uint64_t now_ms);

/* service_job.c: what happens to one job. */
void job_taken(struct service *service, const sluice_delivery_view *delivery);
void job_starter_said(struct job *job);
void job_watch_ended(struct job *job);
void job_cancel(struct service *service, const char *id, sluice_token token);
void job_lease_lost(struct service *service, const char *id, sluice_token token);
void jobs_due(struct service *service, uint64_t now_ms);
void job_free(struct job *job);
/* Processes of an attempt that has neither process nor status any more, found by their environment;
 * ended unless they are to be left. Returns their number. Reads all of /proc. */
size_t job_leftovers(const struct job *job, uint32_t attempt, const char *life,
		     char ret_names[LEFTOVER_NAMES_BYTES]);
/* A job can stop its parent, which then sees no end and holds no timeout. */
void job_wake_shepherd(const struct job *job);
/* The job in hand, of this attempt (0: of any); NULL: none. */
struct job *job_find(const struct service *service, const char *id, uint32_t attempt);
/* Also one whose last answer is still awaited. */
bool job_in_table(struct service *service, const char *id, uint32_t attempt);

/* job_table.c */
/* In hand from now on, CLAIMED; NULL: no memory. */
struct job *job_new(struct service *service, const sluice_delivery_view *delivery);
/* jobs_due() goes on with it then; or after a pause that doubles; the third one reports the cause, which is that of
 * attempt_error() when NULL. */
void job_again(struct job *job, uint64_t pause_ms);
void job_again_later(struct job *job);
void job_no_spool(struct job *job, const char *cause);
void job_unwatch(struct job *job);
void job_reconcile(struct job *job); /* looks at its files, then does what they ask for */
void window_pause(struct job *job, enum window window, const char *name);

/* former.c. All return at once; jobs_due() goes on with what has to be waited for. */
/* Before the intent: true while a former attempt of it may run, or is not known of. */
bool former_wait(struct job *job);
void former_let_go(struct job *job); /* its lease was lost: it becomes FORMER */
void former_go_on(struct job *job);  /* a FORMER one */
/* A running attempt that a reset has ended: it is FORMER from now on. */
void former_found(struct service *service, const char *id, uint32_t attempt, const char *life);
void formers_free(struct job *job);

/* sweep.c */
bool sweep_is_busy(const struct service *service);	   /* its next turn should come soon */
void sweep_turn(struct service *service, uint64_t now_ms); /* some of it; reads directories, does not sync */
void sweep_reported(const char *dir);			   /* the attempt's last report was accepted */
void sweep_end(struct service *service);
/* Notes a child that ends by itself at once; without memory for that it is waited for here. */
void service_child(struct service *service, pid_t pid);
uint64_t service_now_ms(void);
void service_log(struct service *service, enum sluice_log_level level, const char *id, const struct job *job,
		 const char *text);

#endif
