/* SPDX-License-Identifier: Apache-2.0
 * Subjects, patterns, names; the status code table. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "protocol/limits.h"
#include "protocol_vectors.h"

static int subject(const char *s)
{
	const char *why = NULL;
	int rc = subject_check(text(s), &why);

	cr_assert((rc == 0) == (why == NULL), "%s", s);
	return rc;
}

static int pattern(const char *s)
{
	const char *why = NULL;
	int rc = pattern_check(text(s), &why);

	cr_assert((rc == 0) == (why == NULL), "%s", s);
	return rc;
}

static int name(const char *s, size_t len)
{
	const char *why = NULL;
	int rc = name_check((struct sluice_slice){s, len}, &why);

	cr_assert((rc == 0) == (why == NULL));
	return rc;
}

Test(subject, tokens_are_there_and_plain)
{
	static const char *const good[] = {"a",
					   "a.b",
					   "job.4711.active",
					   "J\xc3\xb6.b.\xe2\x82\xac",
					   "#%40.$",
					   "\xf0\x9f\x9a\xb0"};
	static const char *const bad[] = {"",	  ".",	    ".a",	"a.",	   "a..b", "a b",
					  "a.\t", "a.\x7f", "*",	"a.*",	   ">",	   "a.>",
					  "x*",	  "\xff",   "\xc2\x85", "\xc0\xae"};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert(subject(good[i]) == 0, "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert(subject(bad[i]) == SLUICE_E_INVAL, "%s", bad[i]);
	{
		const char *why = NULL;

		cr_assert(subject_check((struct sluice_slice){"a\0b", 3}, &why) == SLUICE_E_INVAL);
	}
}

Test(subject, patterns_have_whole_tokens_and_an_end)
{
	static const char *const good[] = {"a", "*", ">", "a.*", "*.b", "*.*.>", "a.*.c.>"};
	static const char *const bad[] = {"",	   "a*", "*a",	 "**",	 ">.a",
					  "a.>.b", ">>", "a.b>", "a..>", "a.> "};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		cr_assert(pattern(good[i]) == 0, "%s", good[i]);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_assert(pattern(bad[i]) == SLUICE_E_INVAL, "%s", bad[i]);
}

Test(subject, limits_at_their_edges)
{
	char s[300];

	/* limit: SUBJECT_BYTES_MAX */
	memset(s, 'x', sizeof(s));
	s[LIMIT_SUBJECT_BYTES_MAX] = 0;
	cr_assert(subject(s) == 0 && pattern(s) == 0);
	s[LIMIT_SUBJECT_BYTES_MAX] = 'x';
	s[LIMIT_SUBJECT_BYTES_MAX + 1] = 0;
	cr_assert(subject(s) == SLUICE_E_LIMIT && pattern(s) == SLUICE_E_LIMIT);
	/* limit: SUBJECT_TOKENS_MAX */
	for (size_t i = 0; i < LIMIT_SUBJECT_TOKENS_MAX; i++)
		memcpy(s + 2 * i, "t.", 2);
	s[2 * LIMIT_SUBJECT_TOKENS_MAX - 1] = 0;
	cr_assert(subject(s) == 0 && pattern(s) == 0);
	memcpy(s + 2 * LIMIT_SUBJECT_TOKENS_MAX - 1, ".t", 3);
	cr_assert(subject(s) == SLUICE_E_LIMIT && pattern(s) == SLUICE_E_LIMIT);
}

/* The rule of SPEC.md, written down another way: token lists and recursion. */
static bool oracle(const char *p, const char *s)
{
	size_t p_len = strcspn(p, "."), s_len = strcspn(s, ".");
	bool p_ends = p[p_len] == 0, s_ends = s[s_len] == 0;

	if (p_len == 1 && p[0] == '>')
		return true;
	if (!(p_len == 1 && p[0] == '*') && (p_len != s_len || strncmp(p, s, p_len) != 0))
		return false;
	if (p_ends || s_ends)
		return p_ends && s_ends;
	return oracle(p + p_len + 1, s + s_len + 1);
}

Test(subject, matching_agrees_with_an_oracle_on_all_short_ones)
{
	static const char *const tokens[] = {"a", "b", "ab", "*", ">"};
	static char patterns[5 + 25 + 125 + 625][16], subjects[3 + 9 + 27 + 81][16];
	size_t n_patterns = 0, n_subjects = 0, matched = 0;

	for (size_t length = 1; length <= 4; length++) {
		size_t combinations = 1;

		for (size_t i = 0; i < length; i++)
			combinations *= 5;
		for (size_t c = 0; c < combinations; c++) {
			char *out = patterns[n_patterns];
			bool wild = false;

			out[0] = 0;
			for (size_t i = 0, rest = c; i < length; i++, rest /= 5) {
				if (i > 0)
					strcat(out, ".");
				strcat(out, tokens[rest % 5]);
				wild = wild || rest % 5 >= 3;
			}
			if (pattern(out) != 0)
				continue;
			n_patterns++;
			if (!wild)
				strcpy(subjects[n_subjects++], out);
		}
	}
	cr_assert(n_subjects == 120);
	for (size_t p = 0; p < n_patterns; p++) {
		for (size_t s = 0; s < n_subjects; s++) {
			bool expected = oracle(patterns[p], subjects[s]);

			cr_assert(pattern_matches(text(patterns[p]), text(subjects[s])) == expected,
				  "'%s' and '%s'", patterns[p], subjects[s]);
			matched += expected;
		}
	}
	cr_assert(matched > n_subjects && matched < n_patterns * n_subjects);
}

Test(name, is_text_without_edges)
{
	char s[300];

	cr_assert(name("a", 1) == 0 && name("a b", 3) == 0 && name("a/b.*>", 6) == 0 &&
		  name("\xc3\xa4", 2) == 0);
	cr_assert(name("", 0) == SLUICE_E_INVAL && name(" a", 2) == SLUICE_E_INVAL &&
		  name("a ", 2) == SLUICE_E_INVAL);
	cr_assert(name("a\nb", 3) == SLUICE_E_INVAL && name("a\0b", 3) == SLUICE_E_INVAL &&
		  name("\xe4", 1) == SLUICE_E_INVAL);
	/* limit: NAME_BYTES_MAX */
	memset(s, 'n', sizeof(s));
	cr_assert(name(s, LIMIT_NAME_BYTES_MAX) == 0 &&
		  name(s, LIMIT_NAME_BYTES_MAX + 1) == SLUICE_E_LIMIT);
}

Test(error, table_has_a_name_a_text_and_an_exit_code_for_each)
{
	static const int codes[] = {
#define CODE(name, code, exit, retriable, text) SLUICE_E_##name,
		SLUICE_ERRORS(CODE)
#undef CODE
	};
	size_t count = sizeof(codes) / sizeof(codes[0]);

	for (size_t i = 0; i < count; i++) {
		cr_assert(codes[i] < 0 && sluice_error_exit_code(codes[i]) > 0 &&
			  sluice_error_text(codes[i])[0] != 0);
		for (size_t k = 0; k < i; k++)
			cr_assert(codes[i] != codes[k] && strcmp(sluice_error_name(codes[i]),
								 sluice_error_name(codes[k])) != 0);
	}
	cr_assert_str_eq(sluice_error_name(SLUICE_E_STALE_TOKEN), "STALE_TOKEN");
	/* Numbers, exit codes and retriability are a contract: scripts and clients keep them. */
	cr_assert(SLUICE_E_BAD_VERSION == -29 && SLUICE_E_NO_CHILDREN == -30 &&
		  SLUICE_E_NOT_EMPTY == -31 && SLUICE_E_BAD_ACL == -32 && SLUICE_E_QUOTA == -33 &&
		  SLUICE_E_NOT_LEADER == -34 && SLUICE_E_UNAVAILABLE == -35 &&
		  SLUICE_E_BEHIND == -36);
	cr_assert(sluice_error_exit_code(SLUICE_E_NOT_EMPTY) == 5 &&
		  sluice_error_exit_code(SLUICE_E_BAD_ACL) == 2 &&
		  sluice_error_exit_code(SLUICE_E_QUOTA) == 7 &&
		  sluice_error_exit_code(SLUICE_E_BEHIND) == 10);
	cr_assert(!sluice_error_retriable(SLUICE_E_BAD_ACL) &&
		  sluice_error_retriable(SLUICE_E_QUOTA) &&
		  sluice_error_retriable(SLUICE_E_NOT_LEADER) &&
		  sluice_error_retriable(SLUICE_E_UNAVAILABLE) &&
		  sluice_error_retriable(SLUICE_E_BEHIND));
	cr_assert(sluice_error_retriable(SLUICE_E_BUSY) &&
		  !sluice_error_retriable(SLUICE_E_CONFLICT));
	cr_assert(sluice_error_exit_code(0) == 0);
	cr_assert_str_eq(sluice_error_name(-9999), "INTERNAL");
	cr_assert_str_eq(sluice_error_text(-9999), "unknown error");
	cr_assert(sluice_error_exit_code(-9999) == 13 && !sluice_error_retriable(-9999));
}

Test(limits, rows_are_the_constants)
{
	size_t count = 0;
	const struct limit_row *rows = limit_rows(&count);

	cr_assert(count > 20);
	for (size_t i = 0; i < count; i++) {
		cr_assert(rows[i].value > 0 && rows[i].unit[0] != 0 && rows[i].text[0] != 0, "%s",
			  rows[i].name);
		for (size_t k = 0; k < i; k++)
			cr_assert(strcmp(rows[i].name, rows[k].name) != 0);
	}
	cr_assert_str_eq(rows[0].name, "FRAME_BYTES_MAX");
	cr_assert(rows[0].value == LIMIT_FRAME_BYTES_MAX);
}
