/* SPDX-License-Identifier: Apache-2.0
 * The paths of attempts' files: ids, spools and tags. For the contents of the files see
 * test_shepherd.c. */
#include <criterion/criterion.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plugins/local/attempt/attempt.h"
#include "sluice/error.h"

static char spool[64];

static void setup(void)
{
	(void)snprintf(spool, sizeof(spool), "/tmp/sluice-test-attempt-XXXXXX");
	cr_assert_not_null(mkdtemp(spool));
}

static void teardown(void)
{
	char *argv[] = {(char[]){"rm"}, (char[]){"-rf"}, spool, NULL};
	pid_t pid;

	if (posix_spawnp(&pid, "rm", NULL, NULL, argv, environ) == 0)
		(void)waitpid(pid, NULL, 0);
}

TestSuite(attempt_names, .init = setup, .fini = teardown, .timeout = 60);

Test(attempt_names, different_ids_have_different_directories_under_the_spool)
{
	static char paths[16][ATTEMPT_PATH_MAX];
	char longest[256], slashes[256], other[256], edge[256];
	const char *ids[] = {"a",    "A",	 ".",	  "..",	   "a/b", "a%2Fb", "a~b", "a~",
			     "\xff", "\xc3\xa4", longest, slashes, other, edge,	   " ",	  "%"};

	memset(longest, 'x', 255);
	memset(slashes, '/', 255);
	memcpy(other, longest, 255);
	other[254] = 'y';
	memcpy(edge, longest, 236); /* as long as the first part of the longest */
	longest[255] = slashes[255] = other[255] = edge[236] = 0;
	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		struct stat info;

		cr_assert_eq(attempt_dir(spool, ids[i], 7, "0", true, paths[i]), 0, "id %zu", i);
		cr_assert(stat(paths[i], &info) == 0 && S_ISDIR(info.st_mode), "%s", paths[i]);
		cr_assert_eq(strncmp(paths[i], spool, strlen(spool)), 0);
		cr_assert_null(strstr(paths[i], "/./"));
		cr_assert_null(strstr(paths[i], "/../"));
		for (size_t k = 0; k < i; k++)
			cr_assert_neq(strcmp(paths[i], paths[k]), 0, "ids %zu and %zu share %s", k,
				      i, paths[i]);
	}
}

/* A long id continues in a directory below its first part. That directory must not be an attempt of
 * the id that ends there. */
Test(attempt_names, no_attempt_lies_within_another)
{
	char shorter[238], longer[239], above[ATTEMPT_PATH_MAX], below[ATTEMPT_PATH_MAX];

	memset(shorter, 'x', 237);
	shorter[237] = 0;
	/* Of these ids some pairs are in the same of the 256 buckets. */
	for (int i = 0; i < 4096; i++) {
		shorter[0] = (char)('a' + i / 256);
		shorter[1] = (char)('a' + i / 16 % 16);
		shorter[2] = (char)('a' + i % 16);
		memcpy(longer, shorter, 237);
		memcpy(longer + 237, "1", 2);
		cr_assert_eq(attempt_dir(spool, shorter, 1, "0", false, above), 0);
		cr_assert_eq(attempt_dir(spool, longer, 1, "0", false, below), 0);
		cr_assert_neq(strncmp(below, above, strlen(above)), 0, "%s lies within %s", below,
			      above);
	}
}

Test(attempt_names, an_id_or_spool_beyond_its_limit_is_refused)
{
	char id[258], deep[ATTEMPT_PATH_MAX], ret[ATTEMPT_PATH_MAX] = "untouched";

	memset(id, 'x', 256);
	id[256] = 0;
	memset(deep, 'd', sizeof(deep) - 1);
	deep[0] = '/';
	deep[sizeof(deep) - 1] = 0;
	cr_expect_eq(attempt_dir(spool, id, 1, "0", false, ret), SLUICE_E_LIMIT);
	cr_expect_eq(attempt_dir(spool, "", 1, "0", false, ret), SLUICE_E_INVAL);
	cr_expect_eq(attempt_dir(deep, "a", 1, "0", false, ret), SLUICE_E_LIMIT);
	cr_expect_str_eq(ret, "untouched");
	id[255] = 0;
	cr_expect_eq(attempt_dir(spool, id, UINT32_MAX, "0", true, ret), 0);
}

Test(attempt_names, the_tag_of_an_intent_has_the_path_of_its_files)
{
	char life[ATTEMPT_LIFE_BYTES], other[ATTEMPT_LIFE_BYTES], back[ATTEMPT_LIFE_BYTES],
		tag[ATTEMPT_TAG_MAX];

	cr_assert_eq(attempt_life("0123abcd", life), 0);
	cr_assert_eq(attempt_life("0123abcd", other), 0);
	cr_expect_str_neq(life, other);
	cr_expect(attempt_life_is_of(life, "0123abcd"));
	cr_expect_not(attempt_life_is_of(life, "0123abce"));
	attempt_tag("a#1.b", 3, life, tag);
	cr_assert_eq(attempt_life_of(tag, "a#1.b", 3, back), 0, "%s", tag);
	cr_expect_str_eq(back, life);
	cr_expect_eq(attempt_life_of(tag, "a#1.b", 4, back), SLUICE_E_INVAL);
	cr_expect_eq(attempt_life_of(tag, "a", 3, back), SLUICE_E_INVAL);
	cr_expect_eq(attempt_life_of("a#3", "a", 3, back), SLUICE_E_INVAL);
	cr_expect_eq(attempt_life_of("a#3.0123456789ABCDEF01234567", "a", 3, back), SLUICE_E_INVAL);
	cr_expect_eq(attempt_life_of("a#3.0123456789abcdef0123456", "a", 3, back), SLUICE_E_INVAL);
	cr_expect_eq(attempt_life_of("", "a", 3, back), SLUICE_E_INVAL);
}

Test(attempt_names, a_spool_has_one_name_for_life)
{
	char id[ATTEMPT_SPOOL_BYTES], again[ATTEMPT_SPOOL_BYTES], path[sizeof(spool) + 8];
	FILE *file;

	cr_assert_eq(attempt_spool(spool, id), 0);
	cr_expect_eq(strlen(id), ATTEMPT_SPOOL_BYTES - 1);
	cr_assert_eq(attempt_spool(spool, again), 0);
	cr_expect_str_eq(again, id);
	(void)snprintf(path, sizeof(path), "%s/id", spool);
	cr_assert_eq(unlink(path), 0);
	cr_assert_eq(attempt_spool(spool, again), 0);
	cr_expect_str_neq(again, id, "a spool that was deleted and created again is another spool");
	for (const char *const *text = (const char *const[]){"", "0123abc\n", "0123ABCD\n",
							     "0123abcd", "0123abcd\n\n", NULL};
	     *text != NULL; text++) {
		file = fopen(path, "w");
		cr_assert_not_null(file);
		(void)fputs(*text, file);
		(void)fclose(file);
		cr_expect_eq(attempt_spool(spool, again), SLUICE_E_CORRUPT, "'%s'", *text);
	}
	cr_expect_eq(attempt_spool("/nonexistent/spool", again), SLUICE_E_IO);
}
