/* SPDX-License-Identifier: Apache-2.0
 * Around a job of the local scheduler: what it inherits, its limits, the processes and files that
 * it leaves, and the report when it cannot be started. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plugins/local/attempt/proc.h"
#include "shepherd_rig.h"
#include "sluice/error.h"

enum { NOBODY = 65534 };

TestSuite(shepherd_job, .init = setup, .fini = teardown, .timeout = 60);

Test(shepherd_job, a_status_is_read_back_as_it_was_written)
{
	struct attempt_view end = {.end = END_NOEXEC,
				   .value = 2,
				   .step = STEP_CWD,
				   .started_ms = 1700000000001,
				   .ended_ms = 1700000000002,
				   .wall_ms = 3,
				   .memory_peak_bytes = 4096,
				   .left = 2,
				   .left_ended = true,
				   .left_names = "a(1),b(2)"},
			    view;
	char text[ATTEMPT_STATUS_BYTES];

	for (int round = 0; round < END_NEVER; round++) {
		end.end = (enum attempt_end)round;
		cr_assert_gt(attempt_status(&end, text), 0);
		put("status", text);
		view = look();
		cr_expect_null(view.fault);
		cr_expect_eq(view.end, end.end);
		cr_expect_eq(view.value, 2);
		cr_expect_eq(view.step, STEP_CWD);
		cr_expect_eq(view.started_ms, end.started_ms);
		cr_expect_eq(view.ended_ms, end.ended_ms);
		cr_expect_eq(view.wall_ms, 3);
		cr_expect_eq(view.memory_peak_bytes, 4096);
		cr_expect_eq(view.left, 2);
		cr_expect(view.left_ended);
		cr_expect_str_eq(view.left_names, "a(1),b(2)");
	}
	/* Every cut of it is damage, and never reads as another end. */
	for (size_t len = 0; len < strlen(text); len++) {
		char cut[ATTEMPT_STATUS_BYTES];

		memcpy(cut, text, len);
		cut[len] = 0;
		put("status", cut);
		cr_expect_eq(look().state, ATTEMPT_LOST, "'%s'", cut);
	}
}

Test(shepherd_job, a_failure_names_its_step_its_file_and_its_cause)
{
	char nowhere[] = "/proc/none/spool", path[ATTEMPT_PATH_MAX], id[ATTEMPT_SPOOL_BYTES], *deep;

	cr_expect_eq(attempt_dir(nowhere, "job", 1, "0", true, path), SLUICE_E_IO);
	cr_expect_not_null(strstr(attempt_error(), "open directory /proc/none/spool"), "%s",
			   attempt_error());
	cr_expect_not_null(strstr(attempt_error(), "(ENOENT)"), "%s", attempt_error());
	cr_expect_eq(attempt_errno(), ENOENT);
	cr_expect_eq(attempt_write("/dev/null", "job.json", "x", 1), SLUICE_E_IO);
	cr_expect_not_null(strstr(attempt_error(),
				  "open directory (a link or a file is in its place) /dev/null"),
			   "%s", attempt_error());
	cr_expect_not_null(strstr(attempt_error(), "(ENOTDIR)"), "%s", attempt_error());
	cr_expect_eq(attempt_spool_check(spool, "01234567"), SLUICE_E_IO, "it has no name");
	cr_expect_not_null(strstr(attempt_error(), "read the file `id` of the spool"), "%s",
			   attempt_error());
	cr_expect_eq(attempt_spool(spool, id), 0);
	cr_expect_eq(attempt_spool_check(spool, id), 0);
	cr_expect_eq(attempt_spool_check(spool, "01234567"), SLUICE_E_IO);
	cr_expect_not_null(strstr(attempt_error(), "another one now"), "%s", attempt_error());
	deep = malloc(ATTEMPT_PATH_MAX + 1);
	cr_assert_not_null(deep);
	memset(deep, 'x', ATTEMPT_PATH_MAX);
	deep[0] = '/';
	deep[ATTEMPT_PATH_MAX] = 0;
	cr_expect_eq(attempt_dir(deep, "job", 1, "0", true, path), SLUICE_E_LIMIT);
	cr_expect_not_null(strstr(attempt_error(), "(ENAMETOOLONG)"), "%s", attempt_error());
	free(deep);
}

/* ---- what is measured ---- */

Test(shepherd_job, times_and_peak_memory_are_in_the_status)
{
	struct attempt_view view;
	struct timespec now;

	run_to_end("x=$(head -c 20000000 /dev/zero | tr '\\\\0' x); echo ${#x}; sleep 0.05");
	view = look();
	(void)clock_gettime(CLOCK_REALTIME, &now);
	cr_expect_str_eq(get("out"), "20000000\n");
	cr_expect_gt(view.memory_peak_bytes, 20000000);
	cr_expect_lt(view.memory_peak_bytes, 2000000000);
	cr_expect_geq(view.wall_ms, 50);
	cr_expect_leq(view.started_ms, view.ended_ms);
	cr_expect_gt(view.started_ms, 1700000000000);
	cr_expect_leq(view.ended_ms, (uint64_t)now.tv_sec * 1000 + 1000);
	cr_expect_eq(view.left, 0);
}

/* ---- what a job leaves behind ---- */

Test(shepherd_job, what_left_the_group_is_named_and_ended)
{
	struct attempt_view view;
	pid_t left;

	job("setsid sh -c 'echo $$ >>other; exec sleep 1000' & while [ ! -s other ]; do sleep "
	    "0.01; done; exit 6");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	view = wait_for(ATTEMPT_ENDED);
	left = atoi(get("other"));
	cr_expect_eq(view.value, 6);
	cr_expect_eq(view.left, 1);
	cr_expect(view.left_ended);
	cr_expect_not_null(strstr(view.left_names, "("), "%s", view.left_names);
	cr_expect_eq(process_start_time(left), 0, "it ended before the status was written");
}

Test(shepherd_job, what_forks_again_and_again_is_ended_too)
{
	struct attempt_view view;

	/* Each one starts the next in a session of its own, and ends. */
	put("run", "echo $$ >>other\n[ $(wc -l <other) -gt 400 ] && exit\nsetsid sh run &\n");
	job("setsid sh run & while [ ! -s other ]; do sleep 0.01; done; exit 0");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	view = wait_for(ATTEMPT_ENDED);
	cr_expect(view.left == 0 || view.left_ended);
}

Test(shepherd_job, what_left_the_group_stays_if_that_is_set)
{
	struct attempt_view view;
	pid_t left;

	job("setsid sh -c 'echo $$ >>other; exec sleep 1000' & while [ ! -s other ]; do sleep "
	    "0.01; done");
	cr_assert_str_eq(said(shepherd_start_with("leftovers=leave", NULL)), "started\n");
	view = wait_for(ATTEMPT_ENDED);
	left = atoi(get("other"));
	cr_expect_eq(view.left, 1);
	cr_expect_not(view.left_ended);
	cr_expect_neq(process_start_time(left), 0);
	(void)kill(left, SIGKILL);
}

Test(shepherd_job, processes_of_an_attempt_are_found_by_their_environment)
{
	struct leftover left[LEFTOVERS_MAX];
	struct attempt_view view;
	char mark[64];
	size_t count;

	(void)snprintf(mark, sizeof(mark), "SLUICE_TAG=test-%d", (int)getpid());
	cr_assert_eq(putenv(mark), 0);
	job("setsid sh -c 'echo $$ >>other; exec sleep 1000' & while [ ! -s other ]; do sleep "
	    "0.01; done; echo x >>starts; sleep 1000");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	wait_for_text("starts", "x");
	view = look();
	(void)kill(view.shepherd, SIGKILL);
	(void)kill(-view.pid, SIGKILL);
	wait_gone(view.shepherd);
	wait_gone(view.pid);
	cr_assert_eq(unsetenv("SLUICE_TAG"), 0);
	cr_expect_eq(look().state, ATTEMPT_LOST);
	/* During its exec a process has no environment; others of the group may still be ending. */
	for (int ms = 0; (count = leftovers_marked(mark, left)) != 1 && ms < 20000; ms += 2)
		pause_ms(2);
	cr_assert_eq(count, 1);
	cr_expect_eq(left[0].pid, atoi(get("other")));
	leftover_kill(&left[0]);
	wait_gone(left[0].pid);
	cr_expect_eq(leftovers_marked(mark, left), 0);
}

/* ---- its working directory ---- */

/* Its job.json, without a cwd. */
static void job_without_cwd(const char *script)
{
	char text[2048];

	(void)snprintf(text, sizeof(text), "{\"argv\": [\"/bin/sh\", \"-c\", \"%s\"]}", script);
	cr_assert_eq(attempt_write(dir, "job.json", text, strlen(text)), 0);
}

Test(shepherd_job, without_cwd_it_runs_in_a_directory_of_its_own)
{
	char want[2 * ATTEMPT_PATH_MAX + 64], stays[ATTEMPT_PATH_MAX + 16];
	struct attempt_view view;

	/* The scheduler's working directory, also in its environment. */
	(void)snprintf(stays, sizeof(stays), "%s/stays", spool);
	cr_assert_eq(mkdir(stays, 0700), 0);
	cr_assert_eq(chdir(stays), 0);
	cr_assert_eq(setenv("PWD", stays, 1), 0);
	cr_assert_eq(setenv("OLDPWD", spool, 1), 0);
	cr_assert_eq(setenv("HOME", "/some/home", 1), 0);
	job_without_cwd(
		"pwd; printenv PWD HOME; printenv OLDPWD; stat -c %a .; echo x >file; exit 3");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	view = wait_for(ATTEMPT_ENDED);
	cr_expect_eq(view.end, END_EXIT);
	cr_expect_eq(view.value, 3);
	(void)snprintf(want, sizeof(want), "%s/work\n%s/work\n/some/home\n700\n", dir, dir);
	cr_expect_str_eq(get("out"), want);
	cr_expect_str_eq(get("work/file"), "x\n", "what it left is kept with its output");
	cr_assert_eq(chdir("/"), 0);
}

Test(shepherd_job, the_end_of_a_job_is_known_whatever_files_it_deletes)
{
	static const char *const scripts[] = {
		/* Only its own directory: without one it would be the starter's. */
		"case $PWD in */work) rm -rf $PWD;; esac; exit 6",
		"case $PWD in */work) rm -rf ${PWD%/work};; esac; exit 6",
		"case $PWD in */work) rm -rf ${PWD%/*/work};; esac; exit 6",
		"exec 0>&- 1>&- 2>&-; exit 6",
		"rm -f ../status* ../out ../err; exit 6",
	};

	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		struct attempt_view view;

		cr_assert_eq(attempt_dir(spool, "takes", (uint32_t)i + 1, "0", true, dir), 0);
		job_without_cwd(scripts[i]);
		cr_assert_str_eq(said(shepherd_start()), "started\n");
		view = wait_for(ATTEMPT_ENDED);
		cr_expect_eq(view.end, END_EXIT, "%s", scripts[i]);
		cr_expect_eq(view.value, 6, "%s", scripts[i]);
	}
}

/* Otherwise it would try without an end to write a status that nobody can read. */
Test(shepherd_job, a_shepherd_whose_spool_was_deleted_ends)
{
	pid_t shepherd;

	job_without_cwd("while [ ! -e ../go ]; do sleep 0.01; done; "
			"case $PWD in */work) rm -rf ${PWD%/*/*/*/work};; esac; exit 6");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	shepherd = wait_for(ATTEMPT_RUNNING).shepherd;
	cr_assert_gt(shepherd, 1);
	put("go", "");
	wait_gone(shepherd);
	cr_expect_neq(access(spool, F_OK), 0, "it was not made again");
}

Test(shepherd_job, a_directory_whose_rights_it_took_away_gets_its_status)
{
	struct attempt_view view;

	/* Root needs no rights. */
	if (geteuid() == 0) {
		for (char *slash = dir + strlen(spool); slash != NULL;
		     slash = strchr(slash + 1, '/')) {
			*slash = 0;
			cr_assert_eq(chown(dir, NOBODY, NOBODY), 0);
			*slash = '/';
		}
		cr_assert_eq(chown(dir, NOBODY, NOBODY), 0);
		cr_assert_eq(setresuid(NOBODY, NOBODY, NOBODY), 0);
	}
	if (access(SHEPHERD, X_OK) != 0)
		cr_skip_test("only root may read the build tree");
	job_without_cwd("chmod 0 ..; exit 6");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	/* Until then its state cannot be read. */
	for (int ms = 0;
	     (attempt_inspect(dir, &view) != 0 || view.state != ATTEMPT_ENDED) && ms < 20000;
	     ms += 2)
		pause_ms(2);
	cr_expect_eq(wait_for(ATTEMPT_ENDED).value, 6);
}

/* ---- output ---- */

Test(shepherd_job, output_beyond_its_bound_ends_the_job_and_is_cut)
{
	static const char *const scripts[] =
		{"trap '' TERM; while :; do echo a line of output; done",
		 "while :; do echo a line of output >&2; done", "head -c 300000 /dev/zero; exit 0"};

	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		struct attempt_view view;

		cr_assert_eq(attempt_dir(spool, "loud", (uint32_t)i + 1, "0", true, dir), 0);
		job(scripts[i]);
		cr_assert_str_eq(said(shepherd_start_with("output_max_kib=256", "leftovers=end")),
				 "started\n");
		view = wait_for(ATTEMPT_ENDED);
		cr_expect_eq(view.end, END_OUTPUT, "%s", scripts[i]);
		cr_expect_eq(view.value, 256);
		for (const char *const *name = (const char *const[]){"out", "err", NULL};
		     *name != NULL; name++) {
			char path[ATTEMPT_PATH_MAX + 16];
			struct stat info;

			(void)snprintf(path, sizeof(path), "%s/%s", dir, *name);
			cr_assert_eq(stat(path, &info), 0);
			cr_expect_leq(info.st_size, 256 * 1024, "%s of %s", *name, scripts[i]);
		}
	}
}

static off_t size_of(const char *top, const char *name)
{
	char path[2 * ATTEMPT_PATH_MAX];
	struct stat info;

	(void)snprintf(path, sizeof(path), "%s/%s", top, name);
	cr_assert_eq(stat(path, &info), 0, "%s", path);
	return info.st_size;
}

/* The target of a link in the place of the attempt's directory is neither measured nor cut. */
Test(shepherd_job, output_is_measured_and_cut_where_it_was_opened)
{
	char other[RIG_SPOOL_BYTES + 16], moved[RIG_SPOOL_BYTES + 16], path[RIG_SPOOL_BYTES + 32];
	struct attempt_view view;
	int fd;

	(void)snprintf(other, sizeof(other), "%s/other", spool);
	cr_assert_eq(mkdir(other, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/out", other);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	cr_assert_eq(ftruncate(fd, 600000), 0);
	(void)close(fd);
	(void)snprintf(moved, sizeof(moved), "%s/moved", spool);
	cr_assert_eq(setenv("DIR", dir, 1) + setenv("MOVED", moved, 1) + setenv("OTHER", other, 1),
		     0);
	/* The shepherd may bring the directory back between the two. */
	job("mv $DIR $MOVED; until [ -L $DIR ]; do rm -rf $DIR; ln -s $OTHER $DIR; done; head -c "
	    "300000 /dev/zero");
	cr_assert_str_eq(said(shepherd_start_with("output_max_kib=256", NULL)), "started\n");
	view = wait_for(ATTEMPT_ENDED);
	cr_expect_eq(view.end, END_OUTPUT);
	cr_expect_eq(size_of(other, "out"), 600000);
	cr_expect_eq(size_of(moved, "out"), 256 * 1024);
}

/* No link is followed, nothing blocks, and an attempt whose mark cannot be read counts as
 * started. */
Test(shepherd_job, what_a_job_puts_in_the_place_of_a_mark_or_status_is_damage)
{
	static const char *const names[] = {"start", "status"};
	char path[ATTEMPT_PATH_MAX + 16];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		for (int kind = 0; kind < 2; kind++) {
			cr_assert_eq(kind == 0 ? mkfifo(path, 0600) : symlink("/dev/zero", path),
				     0);
			cr_expect_eq(look().state, ATTEMPT_LOST);
			cr_expect_not_null(look().fault);
			cr_assert_eq(remove(path), 0);
			cr_expect_eq(look().state, ATTEMPT_NOT_STARTED);
		}
	}
}

/* A small disk for the spool, visible to this test and the processes that it starts; skips the test
 * where none can be mounted. */
static void small_disk(void)
{
	enum { DISK_BYTES = 16 * 1024 * 1024 };
	char options[32];

	(void)snprintf(options, sizeof(options), "size=%d", DISK_BYTES);
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("none", spool, "tmpfs", 0, options) != 0) {
		int error = errno;

		teardown(); /* a skipped test has none */
		cr_skip_test("nothing can be mounted here: %s", strerror(error));
	}
	cr_assert_eq(attempt_dir(spool, "job/1", 1, "0", true, dir), 0);
}

Test(shepherd_job, a_working_directory_that_fills_the_disk_ends_the_job_and_is_deleted)
{
	static const struct {
		const char *script;
		enum attempt_end end;
	} rows[] = {{"head -c 40000000 /dev/zero >big; sleep 1000", END_WORK},
		    {"mkdir -p a/b; head -c 40000000 /dev/zero >a/b/big; exit 3",
		     END_WORK}, /* it may be deleted before it is measured */
		    {"for i in $(seq 40); do mkdir d; cd d; done; head -c 40000000 /dev/zero >big; "
		     "sleep 1000",
		     END_WORK},
		    {"head -c 15500000 /dev/zero >big; exit 0", END_EXIT}};

	small_disk();
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct attempt_view view;
		char path[ATTEMPT_WORK_MAX];

		cr_assert_eq(attempt_dir(spool, "big", (uint32_t)i + 1, "0", true, dir), 0);
		job_without_cwd(rows[i].script);
		cr_assert_str_eq(said(shepherd_start()), "started\n");
		view = wait_for(ATTEMPT_ENDED);
		attempt_work(dir, path);
		cr_expect_eq(view.end, rows[i].end, "%s", rows[i].script);
		cr_expect_eq(access(path, F_OK) == 0, view.end == END_EXIT, "%s", rows[i].script);
		if (view.end == END_WORK)
			cr_expect_gt(view.value, 16 * 1024 / 8);
	}
	cr_expect_eq(umount2(spool, MNT_DETACH), 0);
}

Test(shepherd_job, a_status_has_its_room_on_a_disk_that_is_full)
{
	char path[RIG_SPOOL_BYTES + 16], command[2 * ATTEMPT_PATH_MAX + 32];
	static char block[4096];
	int fd;

	small_disk();
	job_without_cwd("while [ ! -e ../go ]; do sleep 0.01; done; exit 7");
	put("go.new", "");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	/* Not a file of the job: only the room is used. */
	(void)snprintf(path, sizeof(path), "%s/other", spool);
	fd = open(path, O_WRONLY | O_CREAT, 0600);
	while (write(fd, block, sizeof(block)) > 0)
		continue;
	cr_expect_eq(errno, ENOSPC);
	(void)close(fd);
	(void)snprintf(command, sizeof(command), "mv '%s/go.new' '%s/go'", dir, dir);
	cr_assert_eq(system(command), 0);
	cr_expect_eq(wait_for(ATTEMPT_ENDED).value, 7);
	cr_expect_eq(look().end, END_EXIT);
	cr_expect_eq(umount2(spool, MNT_DETACH), 0);
}

Test(shepherd_job, output_of_exactly_its_bound_is_accepted)
{
	job("head -c 262144 /dev/zero; exit 0");
	cr_assert_str_eq(said(shepherd_start_with("output_max_kib=256", NULL)), "started\n");
	cr_expect_eq(wait_for(ATTEMPT_ENDED).end, END_EXIT);
}

/* ---- what a job inherits ---- */

Test(shepherd_job, a_job_inherits_no_descriptor_limit_signal_or_variable_of_its_starter)
{
	struct rlimit raised, soft = {0};
	struct sigaction ignore = {.sa_handler = SIG_IGN};
	sigset_t all;
	int spare = open("/dev/zero", O_RDONLY);
	char want[32];

	cr_assert_gt(spare, 2);
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &raised), 0);
	soft = raised;
	soft.rlim_cur = raised.rlim_max < 500 ? raised.rlim_max : 500;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &soft), 0);
	/* As a host that raised its own limit does: plugin.h. */
	cr_assert_eq(setenv("SLUICE_NOFILE_SOFT", "77", 1), 0);
	for (int sig = 1; sig < 32; sig++)
		(void)sigaction(sig, &ignore, NULL);
	(void)signal(SIGCHLD, SIG_DFL); /* this program waits for its children */
	(void)sigfillset(&all);
	(void)sigprocmask(SIG_BLOCK, &all, NULL);
	job("ulimit -Sn; echo ${SLUICE_NOFILE_SOFT-none}; ls /proc/self/fd | wc -l; grep -E "
	    "'^Sig(Blk|Ign|Cgt)' /proc/self/status");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	(void)wait_for(ATTEMPT_ENDED);
	(void)sigprocmask(SIG_UNBLOCK, &all, NULL);
	(void)snprintf(want, sizeof(want), "77\nnone\n4\n"); /* 0 to 2, and that of ls itself */
	cr_expect_eq(strncmp(get("out"), want, strlen(want)), 0, "%s", get("out"));
	cr_expect_not_null(strstr(get("out"), "SigBlk:\t0000000000000000"), "%s", get("out"));
	cr_expect_not_null(strstr(get("out"), "SigIgn:\t0000000000000000"), "%s", get("out"));
	(void)close(spare);
}

Test(shepherd_job, a_job_gets_standard_descriptors_also_when_its_starter_has_none)
{
	char *argv[] = {(char[]){SHEPHERD}, dir, NULL};
	posix_spawn_file_actions_t actions;
	pid_t pid;

	job("for n in 0 1 2; do readlink /proc/self/fd/$n | sed 's!.*/!!'; done");
	cr_assert_eq(posix_spawn_file_actions_init(&actions), 0);
	for (int fd = 0; fd < 3; fd++)
		cr_assert_eq(posix_spawn_file_actions_addclose(&actions, fd), 0);
	cr_assert_eq(posix_spawn(&pid, SHEPHERD, &actions, NULL, argv, environ), 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)waitpid(pid, NULL, 0);
	(void)wait_for(ATTEMPT_ENDED);
	/* The first readlink of each is a child of the shell: 0 and 2 are the job's, 1 is the pipe
	 * to sed. */
	cr_expect_not_null(strstr(get("out"), "null\n"), "%s", get("out"));
	cr_expect_not_null(strstr(get("out"), "err\n"), "%s", get("out"));
}

/* ---- refusals ---- */

Test(shepherd_job, a_program_for_another_machine_is_not_read_by_the_shell)
{
	char path[ATTEMPT_PATH_MAX + 16], text[ATTEMPT_PATH_MAX + 64];
	struct attempt_view view;

	cr_assert_eq(attempt_write(dir, "alien", "\177ELF\0\1echo", 10), 0);
	(void)snprintf(path, sizeof(path), "%s/alien", dir);
	cr_assert_eq(chmod(path, 0700), 0);
	(void)snprintf(text, sizeof(text), "{\"argv\": [\"%s\"]}", path);
	cr_assert_eq(attempt_write(dir, "job.json", text, strlen(text)), 0);
	(void)said(shepherd_start());
	view = wait_for(ATTEMPT_ENDED);
	cr_expect_eq(view.end, END_NOEXEC);
	cr_expect_eq(view.value, ENOEXEC);
	cr_expect_eq(view.step, STEP_EXEC);
}

Test(shepherd_job, a_script_without_a_first_line_is_read_by_the_shell)
{
	char path[ATTEMPT_PATH_MAX + 16], text[ATTEMPT_PATH_MAX + 64];

	put("script", "echo \"$0 $1\"; exit 5\n");
	(void)snprintf(path, sizeof(path), "%s/script", dir);
	cr_assert_eq(chmod(path, 0700), 0);
	(void)snprintf(text, sizeof(text), "{\"argv\": [\"%s\", \"one\"]}", path);
	cr_assert_eq(attempt_write(dir, "job.json", text, strlen(text)), 0);
	(void)said(shepherd_start());
	cr_expect_eq(wait_for(ATTEMPT_ENDED).value, 5);
	cr_expect_not_null(strstr(get("out"), "/script one\n"), "%s", get("out"));
}

Test(shepherd_job, arguments_beyond_the_kernels_bound_are_a_failure_of_the_program)
{
	enum { STACK_BYTES = 512 * 1024, WORDS = 4, WORD_BYTES = 60000 };
	struct rlimit stack;
	struct attempt_view view;
	size_t len;
	char *text = malloc(WORDS * (WORD_BYTES + 4) + 64);

	cr_assert_not_null(text);
	len = (size_t)sprintf(text, "{\"argv\": [\"/bin/true\"");
	for (int i = 0; i < WORDS; i++) {
		len += (size_t)sprintf(text + len, ", \"");
		memset(text + len, 'w', WORD_BYTES);
		len += WORD_BYTES;
		text[len++] = '"';
	}
	len += (size_t)sprintf(text + len, "]}");
	cr_assert_eq(attempt_write(dir, "job.json", text, len), 0);
	free(text);
	/* A quarter of it is the bound. */
	cr_assert_eq(getrlimit(RLIMIT_STACK, &stack), 0);
	stack.rlim_cur = STACK_BYTES;
	cr_assert_eq(setrlimit(RLIMIT_STACK, &stack), 0);
	(void)said(shepherd_start());
	view = wait_for(ATTEMPT_ENDED);
	cr_expect_eq(view.end, END_NOEXEC);
	cr_expect_eq(view.value, E2BIG);
	cr_expect_eq(view.step, STEP_EXEC);
	cr_expect_not_null(strstr(get("err"), "program /bin/true: Argument list too long"), "%s",
			   get("err"));
}

Test(shepherd_job, a_cause_that_prevents_a_start_is_reported_and_leaves_no_mark)
{
	char path[ATTEMPT_PATH_MAX + 16], script[3 * ATTEMPT_PATH_MAX];
	char *argv[] = {(char[]){"sh"}, (char[]){"-c"}, script, NULL};
	posix_spawn_file_actions_t actions;
	const char *text;
	pid_t pid;

	/* No file to read. */
	text = said(shepherd_start());
	cr_expect_not_null(strstr(text, "failed 2 open "), "%s", text);
	cr_expect_not_null(strstr(text, "job.json: No such file or directory (ENOENT)"), "%s",
			   text);
	cr_expect_eq(look().state, ATTEMPT_NOT_STARTED);
	/* No descriptors. */
	job("echo x >>starts");
	(void)snprintf(script, sizeof(script), "ulimit -Sn 5; exec '%s' '%s' 3 3>'%s/said'",
		       SHEPHERD, dir, dir);
	cr_assert_eq(posix_spawn_file_actions_init(&actions), 0);
	cr_assert_eq(posix_spawn_file_actions_addclosefrom_np(&actions, 3), 0);
	cr_assert_eq(posix_spawnp(&pid, "sh", &actions, NULL, argv, environ), 0);
	(void)posix_spawn_file_actions_destroy(&actions);
	(void)waitpid(pid, NULL, 0);
	wait_for_text("said", "\n");
	cr_expect_not_null(strstr(get("said"), "failed 24 "), "%s", get("said"));
	cr_expect_eq(look().state, ATTEMPT_NOT_STARTED);
	/* Then it can start. */
	cr_expect_str_eq(said(shepherd_start()), "started\n");
	(void)wait_for(ATTEMPT_ENDED);
	(void)snprintf(path, sizeof(path), "%s/starts", dir);
	cr_expect_eq(access(path, F_OK), 0);
}
