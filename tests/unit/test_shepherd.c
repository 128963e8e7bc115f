/* SPDX-License-Identifier: Apache-2.0
 * Attempts of the local scheduler: the files, the shepherd, and the result when one of the
 * processes is killed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "plugins/local/attempt/payload.h"
#include "plugins/local/attempt/proc.h"
#include "shepherd_rig.h"
#include "sluice/error.h"

enum { STARTERS = 20 };

TestSuite(attempt, .init = setup, .fini = teardown, .timeout = 60);
TestSuite(shepherd, .init = setup, .fini = teardown, .timeout = 60);

/* ---- reading ---- */

Test(attempt, without_files_it_has_not_started)
{
	struct attempt_view view = look();

	cr_assert_eq(view.state, ATTEMPT_NOT_STARTED);
	cr_assert_null(view.fault);
	cr_assert_not(view.cancelled);
}

Test(attempt, the_mark_is_taken_once)
{
	struct attempt_view view;

	cr_assert_eq(attempt_take(dir, getpid(), getppid()), 0);
	cr_assert_eq(attempt_take(dir, getpid(), getppid()), SLUICE_E_EXISTS);
	cr_assert_eq(attempt_forbid(dir), SLUICE_E_EXISTS);
	view = look();
	cr_assert_eq(view.state, ATTEMPT_RUNNING);
	cr_assert_eq(view.pid, getpid());
	cr_assert(view.process_lives);
}

Test(attempt, a_pid_that_is_another_process_now_is_lost)
{
	char boot[17], line[128];
	uint64_t start = process_start_time(getpid());

	boot_id(boot);
	(void)snprintf(line, sizeof(line), "%d %llu 0 0 %s\n", (int)getpid(),
		       (unsigned long long)start, boot);
	put("start", line);
	cr_expect_eq(look().state, ATTEMPT_RUNNING, "the very same process");
	(void)snprintf(line, sizeof(line), "%d %llu 0 0 %s\n", (int)getpid(),
		       (unsigned long long)start + 1, boot);
	put("start", line);
	cr_expect_eq(look().state, ATTEMPT_LOST, "the same pid, another start time");
	boot[0] = boot[0] == '0' ? '1' : '0';
	(void)snprintf(line, sizeof(line), "%d %llu 0 0 %s\n", (int)getpid(),
		       (unsigned long long)start, boot);
	put("start", line);
	cr_expect_eq(look().state, ATTEMPT_LOST, "the same pid and time, another boot");
	cr_expect_null(look().fault);
}

Test(attempt, a_damaged_file_is_named_and_never_counts_as_not_started)
{
	static const char *const starts[] = {"",
					     "12",
					     "12 34 56 78",
					     "12 34 56 78 0123456789abcdef",
					     "x y z a b\n",
					     "-1 34 56 78 0123456789abcdef\n",
					     "12 34 56 78 0123456789abcdef more\n",
					     "99999999999999999999 1 1 1 0123456789abcdef\n"};
	static const char *const statuses[] = {"",
					       "exit",
					       "exit 0",
					       "exit 0 17",
					       "exit x 1700000000000\n",
					       "gone 0 1700000000000\n",
					       "exit 0 1700000000000 more\n",
					       "exit 99999999999999 1700000000000\n"};
	char path[ATTEMPT_PATH_MAX + 16];

	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		struct attempt_view view;

		put("start", starts[i]);
		view = look();
		cr_expect_eq(view.state, ATTEMPT_LOST, "start '%s': state %d", starts[i],
			     (int)view.state);
		cr_expect(view.fault != NULL && strstr(view.fault, "`start`") != NULL, "start '%s'",
			  starts[i]);
		cr_expect_eq(attempt_take(dir, getpid(), getpid()), SLUICE_E_EXISTS);
	}
	(void)snprintf(path, sizeof(path), "%s/start", dir);
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
		struct attempt_view view;

		(void)unlink(path);
		put("status", statuses[i]);
		view = look();
		cr_expect_eq(view.state, ATTEMPT_LOST, "status '%s': state %d", statuses[i],
			     (int)view.state);
		cr_expect(view.fault != NULL && strstr(view.fault, "`status`") != NULL,
			  "status '%s'", statuses[i]);
		cr_assert_eq(attempt_take(dir, getpid(), getpid()), 0);
		cr_expect_eq(look().state, ATTEMPT_RUNNING,
			     "a live process matters more than a damaged status");
	}
}

Test(attempt, a_good_status_ends_it_whatever_the_mark_holds)
{
	put("start", "damaged");
	put("status", "signal 9 1700000000000\n");
	cr_assert_eq(look().state, ATTEMPT_ENDED);
	cr_assert_eq(look().end, END_SIGNAL);
	cr_assert_eq(look().value, 9);
	cr_assert_eq(look().ended_ms, 1700000000000);
	cr_assert_not_null(look().fault);
}

Test(attempt, a_temporary_file_of_a_killed_writer_does_not_damage_the_mark)
{
	char name[64], path[ATTEMPT_PATH_MAX + 64], mark[ATTEMPT_PATH_MAX + 64];

	/* Killed between link() and unlink(): its temporary file is the mark. The same pid comes
	 * again. */
	cr_assert_eq(attempt_take(dir, getpid(), getppid()), 0);
	(void)snprintf(name, sizeof(name), "start.%d", (int)gettid());
	(void)snprintf(path, sizeof(path), "%s/%s", dir, name);
	(void)snprintf(mark, sizeof(mark), "%s/start", dir);
	cr_assert_eq(link(mark, path), 0);
	cr_assert_eq(attempt_forbid(dir), SLUICE_E_EXISTS);
	cr_assert_eq(look().state, ATTEMPT_RUNNING);
	cr_assert_eq(look().pid, getpid());
}

/* ---- what a job runs ---- */

Test(attempt, a_payload_is_taken_whole)
{
	static const char text[] = "{\"argv\": [\"a\", \"\"], \"env\": {\"K\": \"v=w\"}, \"cwd\": "
				   "\"/x\", \"stdin\": null,"
				   " \"timeout_ms\": 5}";
	struct payload payload;
	char why[256];

	cr_assert_eq(payload_parse(text, strlen(text), &payload, why, sizeof(why)), 0, "%s", why);
	cr_expect_eq(payload.argc, 2);
	cr_expect_str_eq(payload.argv[1], "");
	cr_expect_null(payload.argv[2]);
	cr_expect_str_eq(payload.env[0], "K=v=w");
	cr_expect_str_eq(payload.cwd, "/x");
	cr_expect_null(payload.stdin_path);
	cr_expect_eq(payload.timeout_ms, 5);
	payload_free(&payload);
}

Test(attempt, an_argument_may_be_any_bytes)
{
	static const struct {
		const char *json, *expected;
	} rows[] = {
		{"caf\xe9.dat", "caf\xe9.dat"},	   /* Latin-1, unchanged */
		{"caf\\udce9.dat", "caf\xe9.dat"}, /* as os.fsdecode() writes it */
		{"caf\\uDCE9\xff\\udc80", "caf\xe9\xff\x80"},
		{"\xe2\x82", "\xe2\x82"},		   /* a cut character */
		{"\xc3\xa9 \\u00e9", "\xc3\xa9 \xc3\xa9"}, /* characters stay characters */
		{"\\ud83d\\udc80",
		 "\xf0\x9f\x92\x80"},	  /* the second half of a pair stands for no byte */
		{"\\\\udce9", "\\udce9"}, /* an escaped backslash */
		{"\xf4\x8f\xba\x80", "\xf4\x8f\xba\x80"}, /* the escape of raw bytes */
		{"\\udbff\\udec1", "\xf4\x8f\xbb\x81"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char text[256], expected[64], why[256] = "";
		struct payload payload;

		(void)snprintf(text, sizeof(text),
			       "{\"argv\":[\"p\",\"%s\"],\"env\":{\"%s\":\"%s\"},\"cwd\":\"/%s\"}",
			       rows[i].json, rows[i].json, rows[i].json, rows[i].json);
		cr_assert_eq(payload_parse(text, strlen(text), &payload, why, sizeof(why)), 0,
			     "%zu: %s", i, why);
		cr_expect_str_eq(payload.argv[1], rows[i].expected);
		cr_expect_str_eq(payload.cwd + 1, rows[i].expected);
		(void)snprintf(expected, sizeof(expected), "%s=%s", rows[i].expected,
			       rows[i].expected);
		cr_expect_str_eq(payload.env[0], expected);
		payload_free(&payload);
	}
}

Test(attempt, a_wrong_payload_is_refused_with_what_was_expected)
{
	static const struct {
		const char *text, *why;
	} rows[] = {
		{"", "expected a JSON object"},
		{"{\"argv\": [\"a\"", "expected a JSON object"},
		{"[]", "not a JSON object"},
		{"{}", "argv is missing"},
		{"{\"argv\": []}", "argv is missing or empty"},
		{"{\"argv\": \"ls\"}", "expected a list of strings"},
		{"{\"argv\": [\"a\", 1]}", "word 1 of argv"},
		{"{\"argv\": [\"a\\u0000b\"]}", "expected a JSON object"},
		{"{\"argv\": [\"a\"], \"argv\": [\"b\"]}", "duplicate"},
		{"{\"argv\": [\"a\"], \"env\": []}", "env is not an object"},
		{"{\"argv\": [\"a\"], \"env\": {\"A=B\": \"\"}}", "'A=B'"},
		{"{\"argv\": [\"a\"], \"env\": {\"A\": 1}}", "'A'"},
		{"{\"argv\": [\"a\"], \"cwd\": 1}", "cwd is not a path"},
		{"{\"argv\": [\"a\"], \"cwd\": \"x\"}", "begins with '/'"},
		{"{\"argv\": [\"a\"], \"stdin\": \"x\"}", "stdin is not a path"},
		{"{\"argv\": [\"a\"], \"timeout_ms\": 0}", "from 1 to"},
		{"{\"argv\": [\"a\"], \"timeout_ms\": 1.5}", "timeout_ms"},
		{"{\"argv\": [\"a\"], \"timeout_ms\": 31536000001}", "timeout_ms"},
		{"{\"argv\": [\"a\"], \"args\": []}", "unknown member 'args'"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct payload payload;
		char why[256] = "";

		cr_expect_lt(payload_parse(rows[i].text, strlen(rows[i].text), &payload, why,
					   sizeof(why)),
			     0, "%s", rows[i].text);
		cr_expect_not_null(strstr(why, rows[i].why), "%s: '%s' lacks '%s'", rows[i].text,
				   why, rows[i].why);
	}
}

/* {"argv": [WORD, ...]} with count words of len bytes. */
static int parse_words(size_t count, size_t len)
{
	size_t size = count * (len + 3) + 32, at;
	char *text = malloc(size), why[256];
	struct payload payload;
	int rc;

	cr_assert_not_null(text);
	at = (size_t)snprintf(text, size, "{\"argv\": [");
	for (size_t i = 0; i < count; i++) {
		text[at++] = '"';
		memset(text + at, 'w', len);
		at += len;
		text[at++] = '"';
		text[at++] = i + 1 < count ? ',' : ']';
	}
	text[at++] = '}';
	rc = payload_parse(text, at, &payload, why, sizeof(why));
	if (rc == 0)
		payload_free(&payload);
	free(text);
	return rc;
}

Test(attempt, a_payload_is_tried_at_its_limits)
{
	cr_expect_eq(parse_words(PAYLOAD_ARGS_MAX, 1), 0);
	cr_expect_eq(parse_words(PAYLOAD_ARGS_MAX + 1, 1), SLUICE_E_LIMIT);
	cr_expect_eq(parse_words(1, PAYLOAD_WORD_MAX), 0);
	cr_expect_eq(parse_words(1, PAYLOAD_WORD_MAX + 1), SLUICE_E_LIMIT);
	cr_expect_eq(parse_words(8, PAYLOAD_BYTES_MAX / 8 - 1), 0);
	cr_expect_eq(parse_words(9, PAYLOAD_BYTES_MAX / 8 - 1), SLUICE_E_LIMIT);
}

/* ---- the shepherd ---- */

Test(shepherd, a_job_runs_and_its_code_and_output_are_kept)
{
	run_to_end("echo out; echo err >&2; pwd; read -r x || echo empty; exit 7");
	cr_expect_eq(look().end, END_EXIT);
	cr_expect_eq(look().value, 7);
	cr_expect_gt(look().ended_ms, 1600000000000);
	cr_expect_not_null(strstr(get("out"), "out\n"));
	cr_expect_not_null(strstr(get("out"), dir));
	cr_expect_not_null(strstr(get("out"), "empty\n"));
	cr_expect_str_eq(get("err"), "err\n");
}

Test(shepherd, env_and_stdin_reach_the_job)
{
	char text[ATTEMPT_PATH_MAX + 256];

	put("in", "a line\n");
	(void)snprintf(text, sizeof(text),
		       "{\"argv\": [\"sh\", \"-c\", \"cat; echo $K\"], \"env\": {\"K\": \"v w\"}, "
		       "\"stdin\": \"%s/in\"}",
		       dir);
	cr_assert_eq(attempt_write(dir, "job.json", text, strlen(text)), 0);
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	(void)wait_for(ATTEMPT_ENDED);
	cr_expect_str_eq(get("out"), "a line\nv w\n");
}

Test(shepherd, twenty_at_once_start_the_job_once)
{
	int fds[STARTERS], started = 0, taken = 0;
	pid_t pids[STARTERS];

	job("echo x >>starts; sleep 0.3");
	for (int i = 0; i < STARTERS; i++) {
		char *argv[] = {(char[]){SHEPHERD}, dir, (char[]){"3"}, NULL};
		posix_spawn_file_actions_t actions;
		int pipe_fds[2];

		cr_assert_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
		cr_assert_eq(posix_spawn_file_actions_init(&actions), 0);
		cr_assert_eq(posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], 3), 0);
		cr_assert_eq(posix_spawn(&pids[i], SHEPHERD, &actions, NULL, argv, environ), 0);
		(void)posix_spawn_file_actions_destroy(&actions);
		(void)close(pipe_fds[1]);
		fds[i] = pipe_fds[0];
	}
	for (int i = 0; i < STARTERS; i++) {
		const char *text = said(fds[i]);

		started += strcmp(text, "started\n") == 0;
		taken += strcmp(text, "taken\n") == 0;
		(void)waitpid(pids[i], NULL, 0);
	}
	(void)wait_for(ATTEMPT_ENDED);
	cr_expect_eq(started, 1);
	cr_expect_eq(taken, STARTERS - 1);
	cr_expect_str_eq(get("starts"), "x\n");
	cr_expect_eq(look().end, END_EXIT);
	cr_expect_eq(look().value, 0);
}

Test(shepherd, a_job_outlives_the_sigkill_of_its_starter)
{
	for (int round = 0; round < 10; round++) {
		int status;
		pid_t starter;

		cr_assert_eq(attempt_dir(spool, "starter", (uint32_t)round + 1, "0", true, dir), 0);
		job("echo x >>starts; sleep 0.05; exit 3");
		starter = fork();
		if (starter == 0) {
			char *argv[] = {(char[]){SHEPHERD}, dir, NULL};
			pid_t pid;

			(void)setpgid(0, 0);
			if (posix_spawn(&pid, SHEPHERD, NULL, NULL, argv, environ) == 0)
				(void)raise(SIGKILL); /* at once */
			_exit(1);
		}
		cr_assert_eq(waitpid(starter, &status, 0), starter);
		cr_assert(WIFSIGNALED(status));
		cr_expect_eq(wait_for(ATTEMPT_ENDED).value, 3);
		cr_expect_str_eq(get("starts"), "x\n");
	}
}

Test(shepherd, a_job_whose_shepherd_is_killed_runs_on_and_is_then_lost)
{
	struct attempt_view view;

	job("echo x >>starts; while [ ! -e go ]; do sleep 0.01; done");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	wait_for_text("starts", "x");
	view = wait_for(ATTEMPT_RUNNING);
	cr_assert(view.shepherd_lives && view.process_lives);
	cr_assert_eq(kill(view.shepherd, SIGKILL), 0);
	wait_gone(view.shepherd);
	view = look();
	cr_expect_eq(view.state, ATTEMPT_RUNNING);
	cr_expect(!view.shepherd_lives && view.process_lives);
	cr_expect_str_eq(said(shepherd_start()), "taken\n", "a second shepherd starts nothing");
	put("go", "");
	wait_gone(view.pid);
	cr_expect_eq(look().state, ATTEMPT_LOST);
	cr_expect_null(look().fault);
	cr_expect_str_eq(said(shepherd_start()), "taken\n",
			 "and a lost attempt is never run again");
	cr_expect_str_eq(get("starts"), "x\n");
	cr_expect_eq(look().state, ATTEMPT_LOST);
}

Test(shepherd, its_status_is_written_before_it_ends)
{
	for (int round = 0; round < 20; round++) {
		struct attempt_view view;

		cr_assert_eq(attempt_dir(spool, "order", (uint32_t)round + 1, "0", true, dir), 0);
		job("exit 0");
		cr_assert_str_eq(said(shepherd_start()), "started\n");
		do
			view = look();
		while (view.state == ATTEMPT_RUNNING);
		cr_assert_eq(view.state, ATTEMPT_ENDED,
			     "state %d between the job's end and its status", (int)view.state);
	}
}

Test(shepherd, it_ignores_the_signals_that_end_a_service)
{
	static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
	struct attempt_view view;

	job("echo x >>starts; while [ ! -e go ]; do sleep 0.01; done; exit 4");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	wait_for_text("starts", "x");
	view = look();
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		cr_assert_eq(kill(view.shepherd, signals[i]), 0);
	put("go", "");
	cr_expect_eq(wait_for(ATTEMPT_ENDED).value, 4);
}

Test(shepherd, what_cannot_be_executed_has_a_status_of_its_own)
{
	static const struct {
		const char *payload;
		int error;
		const char *text;
	} rows[] = {
		{"{\"argv\": [\"/no/such/program\"]}", ENOENT,
		 "program /no/such/program: No such file"},
		{"{\"argv\": [\"no-such-program\"]}", ENOENT, "program no-such-program"},
		{"{\"argv\": [\"/etc/passwd\"]}", EACCES, "Permission denied"},
		{"{\"argv\": [\"true\"], \"cwd\": \"/no/such/place\"}", ENOENT,
		 "directory /no/such/place"},
		{"{\"argv\": [\"true\"], \"stdin\": \"/no/such/input\"}", ENOENT,
		 "input /no/such/input"},
		{"{\"argv\": [1]}", EINVAL, "word 0 of argv"},
		{"not JSON", EINVAL, "expected a JSON object"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct attempt_view view;

		cr_assert_eq(attempt_dir(spool, "noexec", (uint32_t)i + 1, "0", true, dir), 0);
		put("job.json", rows[i].payload);
		(void)said(shepherd_start());
		view = wait_for(ATTEMPT_ENDED);
		cr_expect_eq(view.end, END_NOEXEC, "%s", rows[i].payload);
		cr_expect_eq(view.value, rows[i].error, "%s: %s", rows[i].payload,
			     strerror(view.value));
		cr_expect_not_null(strstr(get("err"), rows[i].text), "%s: '%s'", rows[i].payload,
				   get("err"));
		cr_expect_str_eq(said(shepherd_start()), "taken\n", "%s", rows[i].payload);
	}
}

Test(shepherd, cancel_ends_a_group_that_ignores_sigterm)
{
	struct attempt_view view;
	pid_t grandchild;

	job("trap '' TERM; sh -c 'echo $$ >>other; while :; do sleep 0.05; done' & echo x "
	    ">>starts; while :; do sleep 0.05; done");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	wait_for_text("starts", "x");
	wait_for_text("other", "\n");
	grandchild = atoi(get("other"));
	cr_assert_gt(process_start_time(grandchild), 0);
	cr_assert_eq(attempt_cancel(dir, SIGTERM), 0);
	view = look();
	cr_expect_eq(view.state, ATTEMPT_RUNNING);
	cr_expect(view.cancelled);
	cr_assert_eq(attempt_cancel(dir, SIGKILL), 0);
	view = wait_for(ATTEMPT_ENDED);
	cr_expect(view.cancelled);
	cr_expect_eq(view.end, END_SIGNAL);
	cr_expect_eq(view.value, SIGKILL);
	wait_gone(grandchild);
	cr_expect_eq(attempt_cancel(dir, SIGTERM), 0, "harmless when it has ended");
}

Test(shepherd, cancel_ends_a_job_also_when_its_mark_cannot_be_written)
{
	char path[ATTEMPT_PATH_MAX + 16];

	job("echo x >>starts; while :; do sleep 0.05; done");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	wait_for_text("starts", "x");
	for (const char *const *name = (const char *const[]){"cancel", "cancel/full", NULL};
	     *name != NULL; name++) {
		(void)snprintf(path, sizeof(path), "%s/%s", dir, *name);
		cr_assert_eq(mkdir(path, 0700), 0);
	}
	cr_expect_eq(attempt_cancel(dir, 0), SLUICE_E_IO, "the mark alone");
	cr_expect_eq(attempt_cancel(dir, SIGTERM), SLUICE_E_IO, "it says that there is no mark");
	cr_expect_eq(wait_for(ATTEMPT_ENDED).end, END_SIGNAL);
	cr_expect_eq(look().value, SIGTERM);
}

Test(shepherd, sigterm_ends_a_job_that_does_not_handle_it)
{
	job("echo x >>starts; while :; do sleep 0.05; done");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	wait_for_text("starts", "x");
	cr_assert_eq(attempt_cancel(dir, SIGTERM), 0);
	cr_expect_eq(wait_for(ATTEMPT_ENDED).end, END_SIGNAL);
	cr_expect_eq(look().value, SIGTERM);
	cr_expect(look().cancelled);
}

Test(shepherd, cancel_reaches_the_whole_group)
{
	put("inner",
	    "trap 'echo got >>other; exit' TERM; echo x >>starts; while :; do sleep 0.02; done\n");
	job("trap : TERM; sh inner & wait; wait; exit 5");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	wait_for_text("starts", "x");
	cr_assert_eq(attempt_cancel(dir, SIGTERM), 0);
	cr_expect_eq(wait_for(ATTEMPT_ENDED).end, END_EXIT);
	cr_expect_eq(look().value, 5);
	cr_expect(look().cancelled);
	cr_expect_str_eq(get("other"), "got\n");
}

Test(shepherd, what_a_job_leaves_in_its_group_ends_with_it)
{
	pid_t left;

	job("sh -c 'trap : HUP; echo $$ >>other; while :; do sleep 0.05; done' & while [ ! -s "
	    "other ]; do sleep 0.01; done");
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	cr_expect_eq(wait_for(ATTEMPT_ENDED).value, 0);
	left = atoi(get("other"));
	cr_assert_gt(left, 0);
	wait_gone(left);
	cr_expect_eq(look().end, END_EXIT);
}

Test(shepherd, a_timeout_ends_a_job_that_ignores_sigterm)
{
	static const char text[] = "{\"argv\": [\"/bin/sh\", \"-c\", \"trap '' TERM; while :; do "
				   "sleep 0.05; done\"], \"timeout_ms\": 100}";
	struct attempt_view view;

	cr_assert_eq(attempt_write(dir, "job.json", text, strlen(text)), 0);
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	view = wait_for(ATTEMPT_ENDED);
	cr_expect_eq(view.end, END_TIMEOUT);
	cr_expect_eq(view.value, 1);
	wait_gone(view.pid);
}

Test(shepherd, a_timeout_sends_sigterm_before_it_kills)
{
	char text[ATTEMPT_PATH_MAX + 256];

	put("polite", "trap 'echo got >>other; exit 0' TERM; while :; do sleep 0.02; done\n");
	(void)snprintf(text, sizeof(text),
		       "{\"argv\": [\"/bin/sh\", \"polite\"], \"cwd\": \"%s\", \"timeout_ms\": "
		       "500}",
		       dir);
	cr_assert_eq(attempt_write(dir, "job.json", text, strlen(text)), 0);
	cr_assert_str_eq(said(shepherd_start()), "started\n");
	cr_expect_eq(wait_for(ATTEMPT_ENDED).end, END_TIMEOUT);
	cr_expect_str_eq(get("other"), "got\n");
}

Test(shepherd, a_forbidden_attempt_never_starts)
{
	job("echo x >>starts");
	cr_assert_eq(attempt_forbid(dir), 0);
	cr_expect_eq(look().state, ATTEMPT_ENDED);
	cr_expect_eq(look().end, END_NEVER);
	cr_expect_str_eq(said(shepherd_start()), "taken\n");
	cr_expect_str_eq(get("starts"), "");
	cr_expect_str_eq(get("status"), "");
}

Test(shepherd, a_damaged_attempt_never_starts)
{
	static const char *const names[] = {"start", "status"};

	for (size_t i = 0; i < 2; i++) {
		cr_assert_eq(attempt_dir(spool, "damaged", (uint32_t)i + 1, "0", true, dir), 0);
		job("echo x >>starts");
		put(names[i], "exit");
		cr_expect_str_eq(said(shepherd_start()), "taken\n", "%s", names[i]);
		cr_expect_str_eq(get("starts"), "", "%s", names[i]);
		cr_expect_eq(look().state, ATTEMPT_LOST);
	}
}

Test(shepherd, a_job_inherits_no_descriptor_signal_or_session)
{
	char path[ATTEMPT_PATH_MAX + 16];
	unsigned long long blocked = 1, ignored = 1;
	int pid = 0, group = 0, session = 0, high, fd;

	/* As LMDB leaves open: descriptors without close-on-exec, a low and a high one. */
	(void)snprintf(path, sizeof(path), "%s/secret", dir);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	high = dup2(fd, 200);
	cr_assert(fd >= 0 && high == 200);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGUSR1, SIG_IGN);
	run_to_end("ls -l /proc/self/fd >fds; grep -E 'Sig(Blk|Ign)' /proc/self/status >signals; "
		   "cut -d' ' -f1,5,6 /proc/$$/stat >session");
	cr_expect_not_null(strstr(get("fds"), "/err"), "%s", get("fds"));
	cr_expect_null(strstr(get("fds"), "secret"), "%s", get("fds"));
	cr_expect_null(strstr(get("fds"), "pipe:"), "%s", get("fds"));
	cr_assert_eq(sscanf(get("signals"), "SigBlk: %llx SigIgn: %llx", &blocked, &ignored), 2,
		     "%s", get("signals"));
	cr_expect_eq(blocked, 0);
	/* 32 and 33 are the C library's own: posix_spawn() ignores them and nobody can change
	 * that. */
	cr_expect_eq(ignored & ~0x180000000ull, 0, "%llx", ignored);
	cr_assert_eq(sscanf(get("session"), "%d %d %d", &pid, &group, &session), 3);
	cr_expect_eq(pid, look().pid);
	cr_expect_eq(group, pid);
	cr_expect_eq(session, pid);
	(void)close(fd);
	(void)close(high);
}
