/* SPDX-License-Identifier: Apache-2.0
 *
 * Tests that must fail: test_support.py runs them by name and looks for the verdict. A runner that
 * passes one of them would pass a real fault as well. Not part of any suite.
 */
#include <criterion/criterion.h>

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

/* Not constants for the compiler, which could remove the faults otherwise. */
static volatile int one = 1;
static void *volatile kept;
static int shared;

Test(planted, passes)
{
	cr_assert_eq(one, 1);
}

Test(planted, asserts_nothing)
{
}

Test(planted, is_skipped)
{
	cr_skip_test("for this %s", "reason");
}

Test(planted, fails)
{
	cr_assert_eq(one, 2, "one is %d", one);
}

Test(planted, fails_and_goes_on)
{
	cr_expect_eq(one, 2);
	cr_assert_eq(one, 1);
}

Test(planted, leaves_early)
{
	cr_assert_eq(one, 1);
	exit(0);
}

Test(planted, aborts)
{
	abort();
}

Test(planted, aborts_as_announced, .signal = SIGABRT)
{
	abort();
}

Test(planted, overruns, .timeout = 0.1)
{
	(void)fork();
	for (;;)
		(void)pause();
}

Test(planted, leaves_a_process)
{
	pid_t pid = fork();

	if (pid == 0) {
		for (;;)
			(void)pause();
	}
	cr_assert_gt(pid, 0);
}

static void cleanup_fails(void)
{
	cr_assert_eq(one, 2, "cleanup");
}

Test(planted, fails_in_cleanup, .fini = cleanup_fails)
{
	cr_assert_eq(one, 1);
}

Test(planted, leaks)
{
	kept = malloc(100);
	cr_assert_not_null(kept);
	kept = NULL;
}

Test(planted, overflows)
{
	char *bytes = malloc(8);

	cr_assert_not_null(bytes);
	bytes[7 + one] = 1;
	kept = bytes;
	free(bytes);
}

Test(planted, is_undefined)
{
	int sum = INT_MAX;

	sum += one;
	cr_assert_lt(sum, INT_MAX);
}

static void *touch(void *none)
{
	for (int i = 0; i < 10000; i++)
		shared++;
	return none;
}

Test(planted, races)
{
	pthread_t first, second;

	cr_assert_eq(pthread_create(&first, NULL, touch, NULL), 0);
	cr_assert_eq(pthread_create(&second, NULL, touch, NULL), 0);
	(void)pthread_join(first, NULL);
	(void)pthread_join(second, NULL);
	cr_assert_gt(shared, 0);
}
