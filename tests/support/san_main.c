/* SPDX-License-Identifier: Apache-2.0
 *
 * A runner of Criterion's tests for sanitizer builds, in the place of libcriterion.
 *
 * Criterion cannot start under ThreadSanitizer, and under the others it calls a test passed whose
 * process then reported a leak. So sanitizer builds keep the Test() sources and Criterion's
 * headers, and link this file instead of the library. It provides the functions that the assertion
 * macros of <criterion/criterion.h> call, walks the section in which Test() leaves its pointers,
 * runs each test in a process of its own and prints TAP on standard output.
 *
 * A test passes if it returned, all its assertions held, its process ended as the test declares,
 * and neither the process nor a child of it wrote a sanitizer report. A test that ends its process
 * early (exit(0)), overruns its time or leaves processes behind fails. A test's output is not part
 * of the TAP stream, and is shown only if it fails.
 *
 * Not provided: parameterized tests, theories, redirection and the `new/assert.h` macros. A test
 * that uses one of the first two fails; the others do not link.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Default timeout of a test in seconds; sanitizers slow a test down, so its own timeout is
 * multiplied by three. */
#define TIMEOUT_DEFAULT_S 120.0
#define TIMEOUT_FACTOR 3.0
#define REASON_BYTES_MAX 512
/* How much of a test's output is searched for reports, and how much is shown of a failed one. */
#define OUTPUT_SEARCH_BYTES_MAX ((size_t)16 << 20)
#define OUTPUT_SHOWN_BYTES_MAX ((size_t)16 << 10)

enum outcome {
	OUTCOME_RUNNING, /* the state of a process that ended early */
	OUTCOME_PASSED,
	OUTCOME_FAILED,
	OUTCOME_SKIPPED,
};

/* Shared by the runner and the test's process. */
struct report {
	_Atomic int outcome;
	atomic_uint assertions;
	char skip_reason[REASON_BYTES_MAX];
};

struct totals {
	unsigned failed;
};

extern struct criterion_test *__start_cr_tst[];
extern struct criterion_test *__stop_cr_tst[];
/* Weak: a binary without a TestSuite() has no such section. */
extern struct criterion_suite *__start_cr_sts[] __attribute__((weak));
extern struct criterion_suite *__stop_cr_sts[] __attribute__((weak));

struct criterion_options criterion_options;

static struct report *report;
static struct criterion_test *current;
static struct criterion_suite *current_suite;
static jmp_buf test_exit;
static pid_t test_pid;
static pid_t test_tid;

/* Read by the sanitizers' runtimes before main(); a developer's own *SAN_OPTIONS are added. */
const char *__asan_default_options(void);
const char *__lsan_default_options(void);
const char *__tsan_default_options(void);
const char *__ubsan_default_options(void);

__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
	return "detect_stack_use_after_return=1:strict_string_checks=1";
}

__attribute__((visibility("default"))) const char *__lsan_default_options(void)
{
	return "print_suppressions=0";
}

__attribute__((visibility("default"))) const char *__tsan_default_options(void)
{
	return "second_deadlock_stack=1";
}

__attribute__((visibility("default"))) const char *__ubsan_default_options(void)
{
	return "print_stacktrace=1";
}

/* -- what the assertion macros call, in the test's process -- */

static void outcome_set(enum outcome outcome)
{
	/* A failed assertion fails the test, whatever follows it. */
	if (atomic_load(&report->outcome) != OUTCOME_FAILED)
		atomic_store(&report->outcome, (int)outcome);
}

__attribute__((noreturn)) static void test_leave(void)
{
	static bool leaving;

	/*
	 * Only the test's own thread has the frame to jump to; another thread or a forked child
	 * ends its process, and so does a fixture that fails while it cleans up.
	 */
	if (getpid() == test_pid && (pid_t)syscall(SYS_gettid) == test_tid && !leaving) {
		leaving = true;
		longjmp(test_exit, 1);
	}
	_exit(1);
}

void criterion_abort_test(void)
{
	outcome_set(OUTCOME_FAILED);
	test_leave();
}

void criterion_continue_test(void)
{
	outcome_set(OUTCOME_FAILED);
}

void criterion_test_die(const char *msg, ...)
{
	va_list args;

	va_start(args, msg);
	(void)vfprintf(stderr, msg, args);
	va_end(args);
	(void)fputc('\n', stderr);
	outcome_set(OUTCOME_FAILED);
	_exit(1);
}

void criterion_skip_test(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(report->skip_reason, sizeof(report->skip_reason), format, args);
	va_end(args);
	outcome_set(OUTCOME_SKIPPED);
	test_leave();
}

void cri_asserts_passed_incr(void)
{
	atomic_fetch_add(&report->assertions, 1);
}

void criterion_send_assert(struct criterion_assert_stats *stats)
{
	if (!stats->passed) {
		(void)fprintf(stderr, "%s:%u: assertion failed: %s\n", stats->file, stats->line,
			      stats->message != NULL ? stats->message : "");
		outcome_set(OUTCOME_FAILED);
	}
}

int cr_asprintf(char **strp, const char *fmt, ...)
{
	va_list args;
	int len;

	va_start(args, fmt);
	len = vasprintf(strp, fmt, args);
	va_end(args);
	if (len < 0)
		*strp = NULL;
	return len;
}

void cr_asprintf_free(char *strp)
{
	free(strp);
}

char *cr_translate_assert_msg(int msg_index, ...)
{
	va_list args;
	char *text;

	/* The kind of assertion is not printed: every assertion that we use passes its expression
	 * as the first argument. */
	va_start(args, msg_index);
	text = strdup(va_arg(args, const char *));
	va_end(args);
	if (text == NULL)
		abort();
	return text;
}

static void hook_call(void (*hook)(void))
{
	if (hook != NULL)
		hook();
}

void criterion_internal_test_setup(void)
{
	if (current_suite != NULL)
		hook_call(current_suite->data->init);
	hook_call(current->data->init);
}

void criterion_internal_test_main(void (*fn)(void))
{
	fn();
}

void criterion_internal_test_teardown(void)
{
	hook_call(current->data->fini);
	if (current_suite != NULL)
		hook_call(current_suite->data->fini);
}

/* -- one test -- */

__attribute__((noreturn)) static void test_process(int output_fd)
{
	(void)setpgid(0, 0);
	if (dup2(output_fd, STDOUT_FILENO) < 0 || dup2(output_fd, STDERR_FILENO) < 0)
		_exit(1);
	test_pid = getpid();
	test_tid = (pid_t)syscall(SYS_gettid);
	if (setjmp(test_exit) == 0) {
		current->test();
		outcome_set(OUTCOME_PASSED);
	} else {
		criterion_internal_test_teardown();
	}
	/* exit(), not _exit(): leaks are reported at exit, and change its code. */
	exit(0);
}

static double now_s(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double timeout_of(const struct criterion_test *test)
{
	double timeout_s = test->data->timeout;

	if (timeout_s <= 0 && current_suite != NULL)
		timeout_s = current_suite->data->timeout;
	return timeout_s > 0 ? timeout_s * TIMEOUT_FACTOR : TIMEOUT_DEFAULT_S;
}

/* Waits until `pid` ended or its time is over; true if it ended by itself. Reaps it in both
 * cases. */
static bool process_wait(pid_t pid, double timeout_s, int *ret_status)
{
	double end_s = now_s() + timeout_s;
	int pid_fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd poll_fd = {.fd = pid_fd, .events = POLLIN};
	bool ended = false;

	if (pid_fd < 0) {
		perror("# pidfd_open");
		exit(1);
	}
	for (;;) {
		double left_s = end_s - now_s();
		int ready = poll(&poll_fd, 1, left_s > 0 ? (int)(left_s * 1000) + 1 : 0);

		if (ready > 0)
			ended = true;
		else if (left_s > 0 || (ready < 0 && errno == EINTR))
			continue;
		break;
	}
	(void)close(pid_fd);
	if (!ended)
		(void)kill(-pid, SIGKILL);
	while (waitpid(pid, ret_status, 0) < 0 && errno == EINTR)
		continue;
	return ended;
}

/* Ends the processes that the test's process left in its group; true if there were any. Processes
 * that the test has killed may take a moment to end, if another process reaps them.
 */
static bool group_end(pid_t pgid)
{
	double end_s = now_s() + 1.0;

	while (kill(-pgid, 0) == 0 && now_s() < end_s)
		(void)poll(NULL, 0, 5);
	return kill(-pgid, SIGKILL) == 0;
}

/* The output of the test and of all that it started, as a string that the caller frees. */
static char *output_read(int fd)
{
	off_t size = lseek(fd, 0, SEEK_END);
	size_t len = size > 0 ? (size_t)size : 0, got = 0;
	char *text;

	if (len > OUTPUT_SEARCH_BYTES_MAX)
		len = OUTPUT_SEARCH_BYTES_MAX;
	text = malloc(len + 1);
	if (text == NULL)
		abort();
	while (got < len) {
		ssize_t n = pread(fd, text + got, len - got, (off_t)got);

		if (n <= 0)
			break;
		got += (size_t)n;
	}
	for (size_t i = 0; i < got; i++) {
		if (text[i] == '\0')
			text[i] = ' ';
	}
	text[got] = '\0';
	return text;
}

static bool has_report(const char *output)
{
	static const char *const marks[] = {
		"ERROR: AddressSanitizer",  "ERROR: LeakSanitizer",
		"WARNING: ThreadSanitizer", "FATAL: ThreadSanitizer",
		"WARNING: MemorySanitizer", ": runtime error: ",
		"Sanitizer:DEADLYSIGNAL",   "LeakSanitizer has encountered a fatal error",
	};

	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		if (strstr(output, marks[i]) != NULL)
			return true;
	}
	return false;
}

static void output_show(const char *output)
{
	size_t shown = 0;
	bool at_start = true;

	for (; output[shown] != '\0' && shown < OUTPUT_SHOWN_BYTES_MAX; shown++) {
		if (at_start)
			(void)fputs("# ", stdout);
		at_start = output[shown] == '\n';
		(void)putchar(output[shown]);
	}
	if (!at_start)
		(void)putchar('\n');
	if (output[shown] != '\0')
		(void)puts("# ... (the rest of the output is left out)");
}

/* Why the test failed, or NULL if it passed or was skipped. */
static const char *verdict(const struct criterion_test *test, bool ended, int status, bool left,
			   const char *output)
{
	int outcome = atomic_load(&report->outcome);

	if (!ended)
		return "timed out";
	if (outcome == OUTCOME_FAILED)
		return "assertion failed";
	if (has_report(output))
		return "sanitizer report";
	if (left)
		return "left processes behind";
	if (test->data->signal != 0) {
		if (WIFSIGNALED(status) && WTERMSIG(status) == test->data->signal)
			return NULL;
		return "did not raise the signal that it announced";
	}
	if (WIFSIGNALED(status))
		return strsignal(WTERMSIG(status));
	if (test->data->exit_code != 0)
		return WEXITSTATUS(status) == test->data->exit_code ? NULL : "wrong exit code";
	if (WEXITSTATUS(status) != 0)
		return "ended with an exit code other than 0";
	if (outcome == OUTCOME_RUNNING)
		return "ended its process before it returned";
	return NULL;
}

static void suite_find(const struct criterion_test *test)
{
	current_suite = NULL;
	for (struct criterion_suite **suite = __start_cr_sts; suite < __stop_cr_sts; suite++) {
		if (*suite != NULL && (*suite)->data != NULL &&
		    strcmp((*suite)->name, test->category) == 0)
			current_suite = *suite;
	}
}

static void test_run(struct criterion_test *test, unsigned number, struct totals *totals)
{
	int output_fd, status = 0;
	const char *reason;
	bool ended, left;
	double begin_s = now_s();
	char *output;
	pid_t pid;

	current = test;
	suite_find(test);
	memset(report, 0, sizeof(*report));
	if (test->data->kind_ != CR_TEST_NORMAL) {
		(void)printf("not ok %u - %s::%s parameterized tests do not run under sanitizers\n",
			     number, test->category, test->name);
		totals->failed++;
		return;
	}
	if (test->data->disabled || (current_suite != NULL && current_suite->data->disabled)) {
		(void)printf("ok %u - %s::%s # SKIP disabled\n", number, test->category,
			     test->name);
		return;
	}
	output_fd = memfd_create("output", MFD_CLOEXEC);
	(void)fflush(NULL);
	pid = output_fd < 0 ? -1 : fork();
	if (pid < 0) {
		perror("# cannot start a test");
		exit(1);
	}
	if (pid == 0)
		test_process(output_fd);
	/* In both processes, so that the group exists whichever runs first. */
	(void)setpgid(pid, pid);
	ended = process_wait(pid, timeout_of(test), &status);
	left = group_end(pid);
	output = output_read(output_fd);
	reason = verdict(test, ended, status, left, output);
	if (reason != NULL) {
		totals->failed++;
		(void)printf("not ok %u - %s::%s: %s (%.2fs)\n", number, test->category, test->name,
			     reason, now_s() - begin_s);
		output_show(output);
	} else if (atomic_load(&report->outcome) == OUTCOME_SKIPPED) {
		(void)printf("ok %u - %s::%s # SKIP %s\n", number, test->category, test->name,
			     report->skip_reason);
	} else {
		(void)printf("ok %u - %s::%s (%.2fs)\n", number, test->category, test->name,
			     now_s() - begin_s);
		if (atomic_load(&report->assertions) == 0 && test->data->signal == 0 &&
		    test->data->exit_code == 0)
			(void)printf("# note: %s::%s passed without one assertion\n",
				     test->category, test->name);
	}
	free(output);
	(void)close(output_fd);
}

static bool matches(const struct criterion_test *test, const char *filter)
{
	char name[256];

	(void)snprintf(name, sizeof(name), "%s::%s", test->category, test->name);
	return filter == NULL || strstr(name, filter) != NULL;
}

/* Arguments: those of Criterion that the build passes are accepted and ignored; `--filter TEXT`
 * selects tests by a part of their names. */
int main(int argc, char **argv)
{
	struct totals totals = {0};
	const char *filter = NULL;
	unsigned count = 0, number = 0;

	for (int i = 1; i < argc - 1; i++) {
		if (strcmp(argv[i], "--filter") == 0)
			filter = argv[i + 1];
	}
	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (report == MAP_FAILED) {
		perror("# mmap");
		return 1;
	}
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	/* The linker may leave gaps between the pointers of two files, so nulls are skipped. */
	for (struct criterion_test **test = __start_cr_tst; test < __stop_cr_tst; test++)
		count += *test != NULL && matches(*test, filter);
	(void)printf("TAP version 13\n1..%u\n", count);
	for (struct criterion_test **test = __start_cr_tst; test < __stop_cr_tst; test++) {
		if (*test != NULL && matches(*test, filter))
			test_run(*test, ++number, &totals);
	}
	(void)munmap(report, sizeof(*report));
	return totals.failed > 0 ? 1 : 0;
}
