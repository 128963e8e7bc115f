/* SPDX-License-Identifier: Apache-2.0
 * Parts of the `sluice` command: text for terminals, and points of time. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/cli/time_parse.h"
#include "client/cli/visible.h"

/* The same text in one piece and byte by byte has the same result. */
static void shown(const char *bytes, size_t len, const char *expected)
{
	for (int pieces = 0; pieces < 2; pieces++) {
		struct visible visible = {0};
		char *text = NULL;
		size_t text_len;
		FILE *to = open_memstream(&text, &text_len);

		cr_assert_not_null(to);
		for (size_t at = 0; at < len; at += pieces ? 1 : len)
			visible_write(&visible, to, bytes + at, pieces ? 1 : len);
		visible_end(&visible, to);
		(void)fclose(to);
		cr_expect_str_eq(text, expected);
		free(text);
	}
}
#define SHOWN(literal, expected) shown(literal, sizeof(literal) - 1, expected)

Test(cli, a_terminal_gets_no_control_characters)
{
	SHOWN("plain\ttext\n", "plain\ttext\n");
	SHOWN("J\xc3\xbcrgen \xe2\x82\xac \xf0\x9f\x9a\xb0",
	      "J\xc3\xbcrgen \xe2\x82\xac \xf0\x9f\x9a\xb0");
	SHOWN("\x1b[2J\x07\r\b\x7f", "\\x1b[2J\\x07\\x0d\\x08\\x7f");
	SHOWN("a\0b", "a\\x00b");
	SHOWN("\xc2\x9b"
	      "31m",
	      "\\u009b31m"); /* the one-byte form of ESC [ */
	SHOWN("\x9b"
	      "31m",
	      "\\x9b31m");
	SHOWN("caf\xe9.dat", "caf\\xe9.dat");
	SHOWN("\xe2\x82", "\\xe2\\x82");
	SHOWN("\xe2\x82\n", "\\xe2\\x82\n");
	SHOWN("\xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80",
	      "\\xc0\\xaf \\xed\\xa0\\x80 \\xf4\\x90\\x80\\x80");
	SHOWN("a\xe2\x80\xae"
	      "b",
	      "a\\u202eb"); /* writes from right to left */
}

static void parsed(const char *text, uint64_t expected_ms)
{
	uint64_t ms = 0;

	cr_expect(time_parse(text, &ms), "%s is refused", text);
	cr_expect_eq(ms, expected_ms, "%s is %llu", text, (unsigned long long)ms);
}

static void no_time(const char *text)
{
	uint64_t ms;

	cr_expect_not(time_parse(text, &ms), "%s is accepted", text);
}

Test(cli, times_are_those_of_rfc_3339)
{
	cr_assert_eq(setenv("TZ", "Europe/Berlin", 1), 0);
	tzset();
	parsed("2026-11-24T10:30:05Z", 1795516205000);
	parsed("2026-11-24t10:30:05z", 1795516205000);
	parsed("2026-11-24 10:30:05Z", 1795516205000);
	parsed("2026-11-24T10:30Z", 1795516200000);
	parsed("2026-11-24T10:30:05.25Z", 1795516205250);
	parsed("2026-11-24T10:30:05,123456789Z", 1795516205123);
	parsed("2026-11-24T12:30:05+02:00", 1795516205000);
	parsed("2026-11-24T05:00:05-05:30", 1795516205000);
	parsed("2026-11-24T11:30:05", 1795516205000); /* local */
	parsed("2026-11-24", 1795474800000);
	parsed("2024-02-29T00:00Z", 1709164800000);
	parsed("2016-12-31T23:59:60Z", 1483228799000); /* a leap second */
	parsed("1970-01-01T00:00Z", 0);
	parsed("1970-01-01T01:00+01:00", 0);
}

Test(cli, a_time_that_does_not_exist_is_refused)
{
	cr_assert_eq(setenv("TZ", "Europe/Berlin", 1), 0);
	tzset();
	no_time("2026-02-30");
	no_time("2026-02-29T00:00Z");
	no_time("2026-04-31");
	no_time("2026-13-01");
	no_time("2026-11-24T24:00Z");
	no_time("2026-11-24T10:60Z");
	no_time("2026-11-24T10:30:61Z");
	no_time("2026-03-29T02:30"); /* skipped by summer time */
	no_time("1970-01-01T00:00+01:00");
	no_time("1969-12-31");
	no_time("2026-11-24T");
	no_time("2026-11-24T10");
	no_time("2026-11-24T10:30:");
	no_time("2026-11-24T10:30:05.Z");
	no_time("2026-11-24T10:30+2");
	no_time("2026-11-24T10:30 Z");
	no_time("2026-11-24Z");
	no_time("2026-1-1");
	no_time(" 2026-11-24");
	no_time("yesterday");
	no_time("");
}
