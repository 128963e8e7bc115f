/* SPDX-License-Identifier: Apache-2.0
 *
 * An attempt of a job on this machine, as files. One directory an attempt:
 * SPOOL/xx/JOB/ATTEMPT.LIFE. JOB is escaped; xx are two hex digits of its hash, so that no
 * directory grows too large. LIFE is random, and part of the tag of the attempt's intent: a job's
 * id may come again, in a new store or after the old job was forgotten, and the files of the old
 * attempt of that number must not count for the new one. LIFE begins with the content of the file
 * SPOOL/id: a spool that was deleted and made again, or another one, has no information about the
 * attempt and is not asked. In the directory:
 *   tag       the tag of its intent; it identifies a directory that the job moved
 *   job.json  what to run
 *   start     the start mark, taken by the job's process itself before exec, so that an attempt
 *             starts at most once, whatever tries to start it.
 *             "PID START SHEPHERD SHEPHERD_START BOOT\n": START are the kernel's start times, since
 *             pids are used again. PID 0: a scheduler took it, and no process ever can
 *   status    how it ended, by rename. Format 2 (inspect.c also reads the one before it,
 *             "WORD NUMBER ENDED_MS\n"): "2 WORD NUMBER ENDED_MS STARTED_MS WALL_MS PEAK_BYTES
 *             STEP LEFT ended|live NAMES\n". WORD NUMBER is "exit CODE", "signal N",
 *             "noexec ERRNO", "timeout SECONDS", "output KIB" (the bound that its output exceeded)
 *             or "work KIB" (the size of its working directory when the disk was nearly full). STEP
 *             is the step that failed of a noexec; LEFT processes outlived it, named by NAMES
 *   cancel    its end was requested
 *   out, err  its output
 *   work      its working directory, unless the payload names another one
 *   reserve   room on the disk for its status, until that is written
 *   reported  the scheduler's last report was accepted
 *   replaced  a link or a file that the job put in the place of this directory; not followed
 *
 * The mark is a file made whole and synced under another name, then link()ed: like O_CREAT|O_EXCL
 * only one of several wins, but no reader, and no power cut, ever finds it half written. (With
 * open, write, sync under its own name, a scheduler that reads in between takes an attempt for lost
 * while it starts.)
 *
 * All functions may be called from any thread, keep no state and block only for local files. Errors
 * are codes of error.h.
 *
 * Each function is in the file of its level, lowest first: error.c (attempt_error), dir.c (the way
 * to the directory), attempt.c (its files), reported.c, inspect.c (the judgement over the files),
 * cancel.c (signals).
 */
#ifndef SLUICE_LOCAL_ATTEMPT_H
#define SLUICE_LOCAL_ATTEMPT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Job ids are at most 255 bytes, of any value but 0. */
enum {
	ATTEMPT_PATH_MAX = 1536,
	ATTEMPT_JOB_MAX = 255,
	ATTEMPT_STATUS_BYTES = 512,
	ATTEMPT_ERROR_BYTES = 512
};

/* Why this thread's last function of this header returned IO, until the next failure: "create
 * /spool/.../start.17: No space left on device (ENOSPC)"; and its errno. */
const char *attempt_error(void);
int attempt_errno(void);
const char *attempt_errno_name(int error); /* "ENOSPC" */
/* Sets both from errno; returns IO. */
int attempt_fail(const char *step, const char *path);

/* Which spool it is: 8 hex digits and NUL, made when it has none yet. CORRUPT: its file `id` is
 * damaged; IO: errno says why. */
enum { ATTEMPT_SPOOL_BYTES = 9 };
int attempt_spool(const char *spool, char ret[ATTEMPT_SPOOL_BYTES]);
/* 0: it is still this one; IO: it is another one, or not there. Makes none. */
int attempt_spool_check(const char *spool, const char id[ATTEMPT_SPOOL_BYTES]);

/* The tag of an attempt's intent, and back from one. */
enum { ATTEMPT_LIFE_BYTES = 25, ATTEMPT_TAG_MAX = ATTEMPT_JOB_MAX + 40 };
/* A new one: the spool's 8 hex digits, 16 random ones and NUL; IO. */
int attempt_life(const char spool_id[ATTEMPT_SPOOL_BYTES], char ret[ATTEMPT_LIFE_BYTES]);
bool attempt_life_is_of(const char life[ATTEMPT_LIFE_BYTES],
			const char spool_id[ATTEMPT_SPOOL_BYTES]);
void attempt_tag(const char *job, uint32_t attempt, const char *life, char ret[ATTEMPT_TAG_MAX]);
/* INVAL: it is no such tag of this attempt, so the intent is another scheduler's. */
int attempt_life_of(const char *tag, const char *job, uint32_t attempt,
		    char ret[ATTEMPT_LIFE_BYTES]);

/* The file `tag` of a directory: which job and attempt it is of. NOT_FOUND: there is none that is
 * valid and of this spool. */
void attempt_write_tag(const char *dir, const char *tag);
int attempt_read_tag(int dir_fd, const char spool_id[ATTEMPT_SPOOL_BYTES],
		     char ret_job[ATTEMPT_JOB_MAX + 1], uint32_t *ret_attempt,
		     char ret_life[ATTEMPT_LIFE_BYTES]);

/* The attempt's directory, made when it does not exist. LIMIT: the spool path or the id is too
 * long; INVAL: no id. */
int attempt_dir(const char *spool, const char *job, uint32_t attempt, const char *life, bool make,
		char ret[ATTEMPT_PATH_MAX]);

/* Opens it (O_PATH), not through a symbolic link below the spool: a job may have put one in the
 * place of its directory, or of one above it. -1: attempt_error(); attempt_errno() is ENOTDIR when
 * there is something else in its place. */
int attempt_open(const char *dir);
/* The same of anything below the spool. */
int attempt_open_in(const char *spool, const char *path);
/* Restores the directory that its job took away, or its rights. A link or a file that stands in
 * its place is moved into it as `replaced`. IO. */
#define ATTEMPT_REPLACED "replaced"
int attempt_restore(const char *dir);
/* Length of the spool's path, with which that of the directory begins. */
size_t attempt_spool_len(const char *dir);

/* Reads one directory name of a job's path back, behind the job_len bytes of the id that are there.
 * INVAL: it is no such name. */
int attempt_job_part(const char *name, char job[ATTEMPT_JOB_MAX + 1], size_t job_len,
		     size_t *ret_len);

enum attempt_state {
	ATTEMPT_NOT_STARTED, /* no start mark */
	ATTEMPT_RUNNING,     /* its process or its shepherd lives */
	ATTEMPT_ENDED,	     /* there is a status, or the mark was taken so that nothing can run */
	ATTEMPT_LOST,	     /* a start mark with neither process nor status: not run again */
};
enum attempt_end { END_EXIT, END_SIGNAL, END_NOEXEC, END_TIMEOUT, END_OUTPUT, END_WORK, END_NEVER };
/* What of a start failed. */
enum attempt_step { STEP_NONE, STEP_PAYLOAD, STEP_OUTPUT, STEP_STDIN, STEP_CWD, STEP_EXEC };
struct attempt_view {
	enum attempt_state state;
	pid_t pid, shepherd; /* of a start mark; 0: unreadable */
	bool shepherd_lives, process_lives;
	bool cancelled;	    /* the cancel mark is there */
	bool no_directory;  /* something else is in its place; a living shepherd restores it */
	const char *fault;  /* static: the damaged file, and what was expected; NULL: none */
	char replaced[200]; /* "a symbolic link to /x", which was in its place; "": none */

	/* Of a status. */
	enum attempt_end end;
	int value; /* exit code, signal, errno, timeout in s, bound or size in KiB */
	enum attempt_step step;
	uint64_t started_ms, ended_ms; /* wall clock; 0: not known (format 1) */
	uint64_t wall_ms;	       /* between them, by a clock that does not jump */
	uint64_t memory_peak_bytes;    /* of its largest process, as waited for; 0: not known */
	unsigned left;		       /* processes that outlived it, outside of its group */
	bool left_ended;	       /* and were ended */
	char left_names[200];	       /* "sleep(17),sh(18)"; without spaces */
};
/* Reads the attempt's files and checks its processes. A damaged start mark or status counts as
 * started: such an attempt is LOST (or stays RUNNING), with a fault, and never NOT_STARTED; nor is
 * one that has something else in the place of its directory. IO: attempt_errno(). */
int attempt_inspect(const char *dir, struct attempt_view *ret);
/* The same of an open directory; dir is for errors. */
int attempt_inspect_at(int dir_fd, const char *dir, struct attempt_view *ret);

/* Takes the start mark for a process under its shepherd, durably, with the directories above it.
 * EXISTS: it is taken. IO: it may be there all the same: inspect the attempt. */
int attempt_take(const char *dir, pid_t pid, pid_t shepherd);
/* For its shepherd: restores the directory and the mark if the job took them away. */
void attempt_restore_mark(const char *dir, pid_t pid, pid_t shepherd);
/* Takes the start mark so that no process ever can; the attempt is then ENDED (END_NEVER). Before
 * an attempt that has not started is reported as over: another scheduler's shepherd may be about to
 * start it. EXISTS: it has started. */
int attempt_forbid(const char *dir);

/* Asks for its end: leaves the cancel mark, then sends signal to the process group (0: the mark
 * alone). Harmless when it has ended. IO: no mark, on a full disk say; the signal was sent all the
 * same if its process is known. */
int attempt_cancel(const char *dir, int signal);
/* The signal alone; harmless when it has ended. IO. */
int attempt_signal(const char *dir, int signal);

/* Writes a whole file by rename, synced. For job.json and status. */
int attempt_write(const char *dir, const char *name, const void *bytes, size_t len);
/* The beginning of a file of a directory (whose name is for errors), terminated; "" of a link.
 * NOT_FOUND: there is none. IO. */
int attempt_read_at(int dir_fd, const char *dir, const char *name, char *buf, size_t buf_bytes);
/* Marks that the attempt's last report was accepted. Not durable: without it the directory is only
 * kept longer. */
void attempt_mark_reported(const char *dir);
/* Whether it has that mark; also of a directory below the spool that was moved. */
bool attempt_is_reported(const char *spool, const char *dir);

/* The attempt's own working directory, made when it is not there. IO. */
int attempt_make_work(const char *dir);
enum { ATTEMPT_WORK_MAX = ATTEMPT_PATH_MAX + 16 };
void attempt_work(const char *dir, char ret[ATTEMPT_WORK_MAX]);
/* Takes room for the status from the disk, so that a full one does not keep the end of a job
 * from its scheduler. IO. */
int attempt_reserve(const char *dir);
/* attempt_write() of the status; into the room that was reserved when there is no other. A
 * directory that the job took away, or its rights, is restored. The status is missing or whole. */
int attempt_write_status(const char *dir, const char *line, size_t len);
/* The text of a status file, of the view's second part; its length. The end is not END_NEVER. */
size_t attempt_status(const struct attempt_view *view, char ret[ATTEMPT_STATUS_BYTES]);

#endif
