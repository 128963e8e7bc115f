/* SPDX-License-Identifier: Apache-2.0
 *
 * sluice-shepherd DIR [FD [output_max_kib=N] [leftovers=end|leave]]: runs the job of one attempt
 * directory and writes how it ended. It leaves its starter's session at once and keeps none of its
 * descriptors, so it survives the scheduler's death.
 *
 * The job's process takes the start mark itself, before exec; if the mark is there already, nothing
 * is run.
 * FD is a pipe to the starter: "started\n" when the mark was taken, "taken\n" when it was there,
 * "failed ERRNO TEXT\n" when nothing could be started; it closes when there is no more to say. The
 * end is awaited by watching the shepherd's process: the status is there before it is gone.
 *
 * A job is its process: when that ends, the rest of its process group is killed before the status
 * is written. Descendants outside of the group (setsid) are found, because the shepherd is a
 * subreaper: they are named in the status and, unless leftovers=leave, killed. Output (the files
 * out and err together) beyond its bound ends the job, and is cut to the bound; so does output that
 * takes a large part of a file system that is nearly full. So does a working directory below the
 * attempt's that takes such a part, and it is deleted.
 *
 * Invariants: only the shepherd of the process that has the mark writes a status; the process stays
 * a zombie until then, so its pid cannot be another's when the group is signalled.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "attempt.h"
#include "payload.h"
#include "proc.h"
#include "sluice/error.h"
#include "tree.h"

enum {
	TIMEOUT_GRACE_MS = 2000,
	RETRY_S = 1,
	SPOOL_GONE_TRIES = 10,
	TAKE_TRIES = 3,
	TEXT_BYTES = 400
};
/* Output is measured so often that it cannot outgrow the room in between at this rate. */
enum { MEASURE_MS_MIN = 50, MEASURE_MS_MAX = 2000, OUTPUT_BYTES_PER_MS = 1000 * 1000 };
/* How long a working directory may be measured; how much longer it is left alone then; how long it
 * may be deleted before the status is written; and what a status can hold. */
enum {
	WORK_MEASURE_MS = 5000,
	WORK_PAUSE_TIMES = 9,
	WORK_DELETE_MS = 60000,
	STATUS_KIB_MAX = 999999999
};
/* Rounds and pauses of ending what a job left. */
enum { LEFT_ROUNDS = 200, LEFT_PAUSE_MS = 10 };
/* Two clocks that are read one after the other, and one that is slewed. */
enum { CLOCKS_APART_MS = 1000 };
/* Where the kernel has no close_range(). */
enum { FDS_CLOSED_MAX = 65536 };

/* What the child reports to its parent over a close-on-exec pipe before exec ends it. */
enum { CHILD_NOEXEC = 1, CHILD_STARTED, CHILD_NO_MARK };
struct child_report {
	int what;
	int error;
	enum attempt_step step;
	char text[TEXT_BYTES]; /* CHILD_NO_MARK: what failed */
};

/* One run of one job. */
struct herd {
	const char *dir;
	int dir_fd; /* what that was before the job ran */
	struct payload payload;
	int starter_fd;		   /* -1: none, or all is said */
	uint64_t output_max_bytes; /* 0: no bound but the file system's */
	bool leave_leftovers;
	pid_t pid;
	bool started;
	uint64_t started_ms;	     /* wall clock */
	int64_t started_at;	     /* now_ms() */
	struct child_report failure; /* what = 0: none */
	uint64_t output_over_bytes;  /* the bound that its output exceeded; 0: did not */
	uint64_t work_over_bytes;    /* its working directory's size, when too much; 0: never */
	int64_t work_measure_at;     /* now_ms(); not before */
};

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static uint64_t wall_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* The directory that the attempts of all jobs are below: three levels up. */
static bool spool_is_gone(const char *dir)
{
	char spool[ATTEMPT_PATH_MAX + 16], *slash;
	struct stat about;

	(void)snprintf(spool, sizeof(spool), "%s", dir);
	for (int level = 0; level < 3; level++) {
		slash = strrchr(spool, '/');
		if (slash == NULL || slash == spool)
			return false;
		*slash = 0;
	}
	return stat(spool, &about) != 0 && errno == ENOENT;
}

static void write_status(const char *dir, const struct attempt_view *end)
{
	char line[ATTEMPT_STATUS_BYTES];
	int gone = 0;
	size_t len;

	len = attempt_status(end, line);
	/* A full disk must not lose the end of a job: it is written again until it is there. */
	while (attempt_write_status(dir, line, len) != 0) {
		gone = spool_is_gone(dir) ? gone + 1 : 0;
		if (gone == SPOOL_GONE_TRIES)
			return; /* the whole spool was deleted: no scheduler will read it */
		(void)sleep(RETRY_S);
	}
}

/* ---- the job's process ---- */

static int redirect(int at_fd, const char *path, int flags, int to)
{
	int fd = openat(at_fd, path, flags | O_CLOEXEC, 0600);

	if (fd < 0)
		return -1;
	return dup2(fd, to) == to ? 0 : -1;
}

static int redirect_output(int dir_fd)
{
	if (redirect(dir_fd, "err", O_WRONLY | O_CREAT | O_APPEND, STDERR_FILENO) != 0)
		return -1;
	return redirect(dir_fd, "out", O_WRONLY | O_CREAT | O_APPEND, STDOUT_FILENO);
}

static void send_report(int fd, const struct child_report *report)
{
	(void)!write(fd, report, sizeof(*report));
}

static _Noreturn void no_exec(int report_fd, enum attempt_step step, const char *what,
			      const char *name)
{
	struct child_report report = {.what = CHILD_NOEXEC, .error = errno, .step = step};

	/* err may not be open yet: then it goes to /dev/null, and the status has the number. */
	(void)dprintf(STDERR_FILENO, "sluice-shepherd: %s %s: %s\n", what, name,
		      strerror(report.error));
	send_report(report_fd, &report);
	_exit(126);
}

static _Noreturn void no_mark(int report_fd)
{
	struct child_report report = {.what = CHILD_NO_MARK, .error = attempt_errno()};

	(void)snprintf(report.text, sizeof(report.text), "%s", attempt_error());
	send_report(report_fd, &report);
	_exit(126);
}

/* As execvp() does for a file without a "#!" line, but not for one that is no text: a program for
 * another kind of known would be read by the shell. Returns with errno. */
static void exec_as_script(const char *path, char *const *argv)
{
	char **list;
	char begin[256];
	size_t count = 0;
	ssize_t got;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	got = fd < 0 ? -1 : read(fd, begin, sizeof(begin));
	if (fd >= 0)
		(void)close(fd);
	errno = ENOEXEC;
	if (got < 0 || memchr(begin, 0, (size_t)got) != NULL)
		return;
	while (argv[count] != NULL)
		count++;
	list = calloc(count + 2, sizeof(*list));
	if (list == NULL)
		return;
	list[0] = (char *)(uintptr_t) "sh";
	list[1] = (char *)(uintptr_t)path;
	for (size_t i = 1; i < count; i++)
		list[i + 1] = argv[i];
	(void)execv("/bin/sh", list);
	free(list);
}

/* Along PATH, as execvp() does. Returns with errno: EACCES if any of the places held a file that
 * may not be run. */
static void exec_program(char *const *argv)
{
	const char *path = getenv("PATH"), *end;
	char file[PATH_MAX];
	bool denied = false;

	if (strchr(argv[0], '/') != NULL) {
		(void)execv(argv[0], argv);
		if (errno == ENOEXEC)
			exec_as_script(argv[0], argv);
		return;
	}
	errno = ENOENT;
	for (path = path != NULL ? path : "/bin:/usr/bin"; argv[0][0] != 0; path = end + 1) {
		end = strchrnul(path, ':');
		if ((size_t)snprintf(file, sizeof(file), "%.*s%s%s", (int)(end - path), path,
				     end > path ? "/" : "", argv[0]) < sizeof(file))
			(void)execv(file, argv);
		else
			errno = ENAMETOOLONG;
		if (errno == ENOEXEC)
			exec_as_script(file, argv);
		denied = denied || errno == EACCES;
		if (errno != ENOENT && errno != ENOTDIR && errno != EACCES && errno != ENAMETOOLONG)
			return;
		if (*end == 0)
			break;
	}
	errno = denied ? EACCES : errno;
}

/* PWD and OLDPWD name directories of the scheduler, which are none of the job's. */
static void enter_directory(const char *dir, const char *cwd, int report_fd)
{
	char work[ATTEMPT_WORK_MAX], path[PATH_MAX];

	if (cwd == NULL)
		attempt_work(dir, work);
	if (chdir(cwd != NULL ? cwd : work) != 0)
		no_exec(report_fd, STEP_CWD, "directory", cwd != NULL ? cwd : work);
	(void)unsetenv("OLDPWD");
	if (cwd == NULL)
		cwd = getcwd(path, sizeof(path)); /* the spool's path may be relative */
	if (cwd != NULL)
		(void)setenv("PWD", cwd, 1);
	else
		(void)unsetenv("PWD");
}

static _Noreturn void child(const char *dir, int dir_fd, const struct payload *payload,
			    pid_t shepherd, int report_fd)
{
	struct attempt_view view;
	struct child_report started = {.what = CHILD_STARTED};
	int rc = SLUICE_E_IO;

	(void)setsid();
	process_default_signals();
	process_restore_files();
	process_reset_oom_score();
	/* The mark decides; this is for a status without one, which only damage can leave. */
	if (attempt_inspect(dir, &view) == 0 && view.state != ATTEMPT_NOT_STARTED)
		_exit(126);
	for (int tries = 0; tries < TAKE_TRIES && rc == SLUICE_E_IO; tries++) {
		if (tries > 0)
			(void)sleep(RETRY_S); /* room may come; else the scheduler tries again */
		/* Without its shepherd it starts nothing; the parent that it has got then lives for
		 * ever. */
		if (getppid() != shepherd)
			_exit(126);
		rc = attempt_take(dir, getpid(), shepherd);
	}
	if (rc == SLUICE_E_IO)
		no_mark(report_fd);
	if (rc != 0)
		_exit(126);
	send_report(report_fd, &started);
	if (redirect_output(dir_fd) != 0)
		no_exec(report_fd, STEP_OUTPUT, "output files of", dir);
	if (payload->stdin_path != NULL &&
	    redirect(AT_FDCWD, payload->stdin_path, O_RDONLY, STDIN_FILENO) != 0)
		no_exec(report_fd, STEP_STDIN, "input", payload->stdin_path);
	enter_directory(dir, payload->cwd, report_fd);
	for (size_t i = 0; i < payload->env_count; i++)
		(void)putenv(payload->env[i]);
	exec_program(payload->argv);
	no_exec(report_fd, STEP_EXEC, "program", payload->argv[0]);
}

/* ---- the shepherd ---- */

static void notify_starter(struct herd *herd, const char *text)
{
	if (herd->starter_fd >= 0) {
		(void)!write(herd->starter_fd, text, strlen(text));
		(void)close(herd->starter_fd);
	}
	herd->starter_fd = -1;
}

static void notify_failure(struct herd *herd, int error, const char *text)
{
	char line[TEXT_BYTES + 32];

	(void)snprintf(line, sizeof(line), "failed %d %s\n", error, text);
	notify_starter(herd, line);
}

static uint64_t file_bytes(int dir_fd, const char *name)
{
	struct stat info;

	return fstatat(dir_fd, name, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(info.st_mode)
		       ? (uint64_t)info.st_size
		       : 0;
}

/* With errno for a cause. */
static void notify_errno(struct herd *herd, const char *what)
{
	char text[TEXT_BYTES];
	int error = errno;

	(void)snprintf(text, sizeof(text), "the shepherd cannot %s: %s (%s)", what, strerror(error),
		       attempt_errno_name(error));
	notify_failure(herd, error, text);
}

/* Measures the job's output; sets output_over_bytes when it is beyond its bound. Returns the ms
 * until the next time. A file system with less than a sixteenth free is nearly full; output that
 * takes an eighth of it or more is what filled it. Smaller outputs get ENOSPC from the kernel like
 * anything else. */
static int64_t output_measure(struct herd *herd)
{
	uint64_t used = file_bytes(herd->dir_fd, "out") + file_bytes(herd->dir_fd, "err");
	uint64_t room = UINT64_MAX;
	struct statvfs fs;

	if (herd->output_max_bytes > 0) {
		if (used > herd->output_max_bytes)
			herd->output_over_bytes = herd->output_max_bytes;
		else
			room = herd->output_max_bytes - used;
	}
	if (fstatvfs(herd->dir_fd, &fs) == 0 && fs.f_blocks > 0) {
		uint64_t all = (uint64_t)fs.f_blocks * fs.f_frsize;
		uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;

		if (left < all / 16 && used >= all / 8)
			herd->output_over_bytes = all / 16;
		if (left < room)
			room = left;
	}
	room /= OUTPUT_BYTES_PER_MS;
	return room < MEASURE_MS_MIN   ? MEASURE_MS_MIN
	       : room > MEASURE_MS_MAX ? MEASURE_MS_MAX
				       : (int64_t)room;
}

/* A job's own directory is bounded only where it harms others: by the same measure as output. */
static void work_measure(struct herd *herd)
{
	const int64_t from_ms = now_ms();
	uint64_t all, bytes;
	struct statvfs fs;

	herd->work_measure_at = from_ms + MEASURE_MS_MAX;
	if (herd->payload.cwd != NULL || fstatvfs(herd->dir_fd, &fs) != 0)
		return;
	all = (uint64_t)fs.f_blocks * fs.f_frsize;
	if (all == 0 || (uint64_t)fs.f_bavail * fs.f_frsize >= all / 16)
		return;
	bytes = tree_bytes(herd->dir_fd, "work", WORK_MEASURE_MS);
	if (bytes >= all / 8)
		herd->work_over_bytes = bytes;
	/* A large one is measured for a tenth of the time at most. */
	herd->work_measure_at += WORK_PAUSE_TIMES * (now_ms() - from_ms);
}

/* It uses more than it may. */
static bool is_over(const struct herd *herd)
{
	return herd->output_over_bytes > 0 || herd->work_over_bytes > 0;
}

static void output_cut(const struct herd *herd)
{
	static const char *const names[] = {"out", "err"};

	for (size_t i = 0; i < 2; i++) {
		int fd;

		if (file_bytes(herd->dir_fd, names[i]) <= herd->output_over_bytes)
			continue;
		fd = openat(herd->dir_fd, names[i], O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0)
			continue;
		(void)!ftruncate(fd, (off_t)herd->output_over_bytes);
		(void)close(fd);
	}
}

static bool has_ended(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
	       info.si_pid == pid;
}

/* Orphans of the job that were re-parented to this subreaper and have ended. */
static void reap_orphans(pid_t pid)
{
	siginfo_t info = {0};

	while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0 &&
	       info.si_pid != pid)
		if (waitpid(info.si_pid, NULL, 0) < 0)
			return;
}

/* Waits until it has ended, or until_ms (-1: no end), or its output is beyond its bound. */
static void wait_until(struct herd *herd, int pid_fd, int64_t until_ms, bool watch_output)
{
	struct pollfd end = {.fd = pid_fd, .events = POLLIN};

	for (;;) {
		int64_t pause = watch_output ? output_measure(herd) : MEASURE_MS_MAX;
		int64_t left = until_ms < 0 ? pause : until_ms - now_ms();

		reap_orphans(herd->pid);
		if (watch_output && !has_ended(herd->pid))
			attempt_restore_mark(herd->dir, herd->pid, getpid());
		if (watch_output && now_ms() >= herd->work_measure_at)
			work_measure(herd);
		if (has_ended(herd->pid) || left <= 0 || (watch_output && is_over(herd)))
			return;
		/* Without a pidfd (no descriptors left, an old kernel) the pause is all there
		 * is. */
		if (pid_fd < 0 && pause > MEASURE_MS_MIN)
			pause = MEASURE_MS_MIN;
		(void)poll(&end, pid_fd < 0 ? 0 : 1, (int)(left < pause ? left : pause));
	}
}

/* Until it has ended or has to, and its group with it; the process itself stays a zombie. True: the
 * timeout ended it. */
static bool await_end(struct herd *herd)
{
	int pid_fd = (int)syscall(SYS_pidfd_open, herd->pid, 0);
	int64_t timeout_ms = herd->payload.timeout_ms;
	bool timed_out = false;

	wait_until(herd, pid_fd, timeout_ms > 0 ? now_ms() + timeout_ms : -1, true);
	if (!has_ended(herd->pid)) {
		timed_out = !is_over(herd);
		(void)kill(-herd->pid, SIGTERM);
		/* It continues to fill the spool: no grace. */
		if (timed_out)
			wait_until(herd, pid_fd, now_ms() + TIMEOUT_GRACE_MS, false);
	}
	(void)kill(-herd->pid, SIGKILL);
	/* A process that the kernel does not let go cannot be ended; its status is not known until
	 * it is. */
	while (!has_ended(herd->pid))
		wait_until(herd, pid_fd, -1, false);
	if (pid_fd >= 0)
		(void)close(pid_fd);
	return timed_out;
}

/* Descendants that outlived the job: named, and ended unless they are to be left. */
static void end_leftovers(const struct herd *herd, struct attempt_view *end)
{
	const struct timespec pause = {0, LEFT_PAUSE_MS * 1000000L};
	struct leftover left[LEFTOVERS_MAX];
	size_t count = leftovers_below(getpid(), herd->pid, left);

	end->left = (unsigned)count;
	leftovers_names(left, count, end->left_names);
	if (herd->leave_leftovers && !is_over(herd))
		return;
	for (int round = 0; round < LEFT_ROUNDS && count > 0; round++) {
		for (size_t i = 0; i < count; i++)
			leftover_kill(&left[i]);
		(void)nanosleep(&pause, NULL);
		reap_orphans(herd->pid);
		count = leftovers_below(getpid(), herd->pid, left);
	}
	end->left_ended = count == 0;
}

/* waitid with the usage, which libc's lacks: the process stays a zombie. */
static void end_read(pid_t pid, siginfo_t *ret_info, struct rusage *ret_usage)
{
	while (syscall(SYS_waitid, P_PID, pid, ret_info, WEXITED | WNOWAIT, ret_usage) != 0 &&
	       errno == EINTR)
		continue;
}

static void record_end(struct herd *herd)
{
	struct attempt_view end = {.started_ms = herd->started_ms};
	bool timed_out = await_end(herd);
	struct rusage usage = {0};
	siginfo_t info = {0};

	end.ended_ms = wall_ms();
	end.wall_ms = (uint64_t)(now_ms() - herd->started_at);
	/* The wall clock was set while it ran: of its two readings the later one counts. */
	if (end.started_ms + end.wall_ms > end.ended_ms + CLOCKS_APART_MS ||
	    end.started_ms + end.wall_ms + CLOCKS_APART_MS < end.ended_ms)
		end.started_ms = end.ended_ms > end.wall_ms ? end.ended_ms - end.wall_ms : 0;
	end_read(herd->pid, &info, &usage);
	end.memory_peak_bytes = (uint64_t)usage.ru_maxrss * 1024;
	end_leftovers(herd, &end);
	if (herd->output_over_bytes == 0)
		(void)output_measure(herd); /* it may have ended between two measurements */
	if (herd->output_over_bytes > 0)
		output_cut(herd);
	/* A full disk ends most jobs before it is measured (SIGBUS: by memory that is mapped from
	 * a file); what has ended well is kept. */
	if (!timed_out && !is_over(herd) &&
	    (info.si_code == CLD_EXITED ? info.si_status != 0 : info.si_status == SIGBUS))
		work_measure(herd);
	/* What is left of it goes with the attempt. */
	if (herd->work_over_bytes > 0)
		(void)tree_delete(herd->dir_fd, "work", WORK_DELETE_MS);
	if (herd->failure.what == CHILD_NOEXEC) {
		end.end = END_NOEXEC;
		end.value = herd->failure.error;
		end.step = herd->failure.step;
	} else if (herd->output_over_bytes > 0) {
		end.end = END_OUTPUT;
		end.value = (int)((herd->output_over_bytes + 1023) / 1024);
	} else if (herd->work_over_bytes > 0) {
		end.end = END_WORK;
		end.value = (int)(herd->work_over_bytes / 1024 < STATUS_KIB_MAX
					  ? herd->work_over_bytes / 1024
					  : STATUS_KIB_MAX);
	} else if (timed_out) {
		end.end = END_TIMEOUT;
		end.value = (int)((herd->payload.timeout_ms + 999) / 1000);
	} else {
		end.end = info.si_code == CLD_EXITED ? END_EXIT : END_SIGNAL;
		end.value = info.si_status;
	}
	write_status(herd->dir, &end);
	(void)waitpid(herd->pid, NULL, 0); /* no zombie for process 1 */
}

static bool has_mark(const struct herd *herd)
{
	struct attempt_view view;

	return attempt_inspect(herd->dir, &view) == 0 && view.pid == herd->pid &&
	       view.shepherd == getpid() && view.shepherd_lives; /* of this boot */
}

/* Reads what the child reports until exec or its end closes the pipe. */
static void child_reports(struct herd *herd, int fd)
{
	struct child_report report;
	ssize_t got;

	while ((got = read(fd, &report, sizeof(report))) == (ssize_t)sizeof(report) ||
	       (got < 0 && errno == EINTR)) {
		if (got < 0)
			continue;
		if (report.what == CHILD_STARTED) {
			herd->started = true;
			herd->started_ms = wall_ms();
			herd->started_at = now_ms();
			notify_starter(herd, "started\n");
		} else {
			herd->failure = report;
		}
	}
}

static int run(struct herd *herd)
{
	int pipe_fds[2];
	struct attempt_view view;
	pid_t shepherd;

	if ((herd->payload.cwd == NULL && attempt_make_work(herd->dir) != 0) ||
	    attempt_reserve(herd->dir) != 0) {
		notify_failure(herd, attempt_errno(), attempt_error());
		return 1;
	}
	if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
		notify_errno(herd, "create a pipe");
		return 1;
	}
	(void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	shepherd = getpid();
	herd->pid = fork();
	if (herd->pid == 0)
		child(herd->dir, herd->dir_fd, &herd->payload, shepherd, pipe_fds[1]);
	(void)close(pipe_fds[1]);
	if (herd->pid < 0) {
		notify_errno(herd, "fork the job's process");
		return 1;
	}
	herd->started_ms = wall_ms();
	herd->started_at = now_ms();
	child_reports(herd, pipe_fds[0]);
	(void)close(pipe_fds[0]);
	/* Killed between the mark and its report: the mark shows whose it is. */
	if (herd->started || has_mark(herd)) {
		record_end(herd);
		notify_starter(herd, "ended\n");
		return 0;
	}
	(void)waitpid(herd->pid, NULL, 0);
	if (attempt_inspect(herd->dir, &view) == 0 && view.state != ATTEMPT_NOT_STARTED)
		notify_starter(herd, "taken\n"); /* another one's; its shepherd writes the status */
	else if (herd->failure.what == CHILD_NO_MARK)
		notify_failure(herd, herd->failure.error, herd->failure.text);
	return 0;
}

/* What job.json asks for, as it came: a JSON parser would not let bytes through that are no
 * characters. INVAL or LIMIT: it cannot be run, why says so. IO, NOMEM: it cannot be read now. */
static int load(struct herd *herd, char *why, size_t why_bytes)
{
	char path[ATTEMPT_PATH_MAX + 16], *text = NULL;
	struct stat about = {0};
	ssize_t len = -1;
	int fd, rc = SLUICE_E_IO;

	herd->dir_fd = attempt_open(herd->dir);
	if (herd->dir_fd < 0)
		return SLUICE_E_IO;
	(void)snprintf(path, sizeof(path), "%s/job.json", herd->dir);
	fd = openat(herd->dir_fd, "job.json", O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &about) == 0)
		text = malloc((size_t)about.st_size + 1);
	if (text != NULL)
		len = read(fd, text, (size_t)about.st_size + 1);
	if (len >= 0)
		rc = payload_parse(text, (size_t)len, &herd->payload, why, why_bytes);
	if (rc == SLUICE_E_NOMEM)
		errno = ENOMEM;
	if (rc == SLUICE_E_IO || rc == SLUICE_E_NOMEM)
		(void)attempt_fail("open", path);
	if (fd >= 0)
		(void)close(fd);
	free(text);
	return rc;
}

/* The payload cannot be run: that is how the attempt ends, unless it has started already. */
static int refuse(struct herd *herd, const char *why)
{
	struct attempt_view end = {.end = END_NOEXEC, .value = EINVAL, .step = STEP_PAYLOAD};
	int rc = attempt_take(herd->dir, getpid(), getpid());

	if (rc == SLUICE_E_EXISTS)
		notify_starter(herd, "taken\n");
	else if (rc != 0)
		notify_failure(herd, attempt_errno(), attempt_error());
	if (rc != 0)
		return 1;
	if (redirect(herd->dir_fd, "err", O_WRONLY | O_CREAT | O_APPEND, STDERR_FILENO) == 0)
		(void)dprintf(STDERR_FILENO, "sluice-shepherd: %s\n", why);
	end.started_ms = end.ended_ms = wall_ms();
	write_status(herd->dir, &end);
	notify_starter(herd, "ended\n");
	return 1;
}

/* Away from the starter: own session, not its child, none of its descriptors (LMDB's would be
 * inherited), and ignoring the signals that end a service. Standard input and output of the job are
 * /dev/null until its own are opened. Returns where the starter's pipe is now, or -2 with errno:
 * /dev/null cannot be opened. */
static int detach(int starter_fd)
{
	static const int ignored[] = {SIGPIPE, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
	int null_fd;

	(void)setsid();
	process_default_signals(); /* SIGCHLD ignored by the starter would lose the job's end */
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		(void)signal(ignored[i], SIG_IGN);
	if (starter_fd > 3) {
		(void)dup2(starter_fd, 3);
		starter_fd = 3;
	}
	if (syscall(SYS_close_range, starter_fd == 3 ? 4 : 3, ~0u, 0) != 0)
		for (int fd = starter_fd == 3 ? 4 : 3; fd < FDS_CLOSED_MAX; fd++)
			(void)close(fd);
	if (starter_fd == 3)
		(void)fcntl(starter_fd, F_SETFD, FD_CLOEXEC);
	null_fd = open("/dev/null", O_RDWR);
	if (null_fd < 0)
		return -2;
	for (int fd = 0; fd < 3; fd++)
		if (null_fd != fd)
			(void)dup2(null_fd, fd);
	if (null_fd > 2)
		(void)close(null_fd);
	return starter_fd;
}

static bool option(struct herd *herd, const char *word)
{
	static const char output_max[] = "output_max_kib=";
	char *end = NULL;

	if (strcmp(word, "leftovers=leave") == 0 || strcmp(word, "leftovers=end") == 0) {
		herd->leave_leftovers = word[sizeof("leftovers=") - 1] == 'l';
		return true;
	}
	if (strncmp(word, output_max, sizeof(output_max) - 1) != 0)
		return false;
	herd->output_max_bytes = strtoull(word + sizeof(output_max) - 1, &end, 10) * 1024;
	return end != word + sizeof(output_max) - 1 && *end == 0;
}

int main(int argc, char **argv)
{
	static struct herd herd;
	char why[256] = "out of memory";
	bool good = argc > 1 && strlen(argv[1]) < ATTEMPT_PATH_MAX;
	pid_t pid;
	int rc;

	herd.starter_fd = argc > 2 ? atoi(argv[2]) : -1;
	good = good && (argc < 3 || herd.starter_fd >= 3);
	for (int i = 3; good && i < argc; i++)
		good = option(&herd, argv[i]);
	if (!good) {
		(void)fprintf(stderr, "usage: sluice-shepherd ATTEMPT_DIR [FD from 3 "
				      "[output_max_kib=N] [leftovers=end|leave]]\n");
		return 2;
	}
	herd.dir = argv[1];
	pid = fork();
	if (pid < 0)
		notify_errno(&herd, "fork");
	if (pid != 0)
		_exit(pid > 0 ? 0 : 1);
	rc = detach(herd.starter_fd);
	if (rc == -2) {
		notify_errno(&herd, "open /dev/null");
		return 1;
	}
	herd.starter_fd = rc;
	rc = load(&herd, why, sizeof(why));
	if (rc == SLUICE_E_INVAL || rc == SLUICE_E_LIMIT)
		return refuse(&herd, why);
	if (rc != 0) {
		notify_failure(&herd, attempt_errno(), attempt_error());
		return 1;
	}
	rc = run(&herd);
	payload_free(&herd.payload);
	return rc;
}
