/* SPDX-License-Identifier: Apache-2.0
 * Traces: what is read, what is refused with the line's number, what is accepted with a notice. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "bench/replay/swf.h"

/* A correct line without its id and submit time; and the beginning of one. */
#define REST " 5 60 4 -1 -1 4 -1 -1 1 7 -1 -1 -1 -1 -1 -1\n"
#define GOOD "1 0" REST

static char path[64];

static void setup(void)
{
	int fd;

	(void)snprintf(path, sizeof(path), "/tmp/sluice-test-swf-XXXXXX");
	fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	(void)close(fd);
}

static void teardown(void)
{
	(void)unlink(path);
}

TestSuite(swf, .init = setup, .fini = teardown, .timeout = 30);

static void put(const char *bytes, size_t len)
{
	FILE *file = fopen(path, "w");

	cr_assert_not_null(file);
	cr_assert_eq(fwrite(bytes, 1, len, file), len);
	cr_assert_eq(fclose(file), 0);
}

static struct swf read_good(const char *text)
{
	struct swf swf;
	char why[512] = "";

	put(text, strlen(text));
	cr_assert_eq(swf_read(path, 0, &swf, why, sizeof(why)), 0, "%s", why);
	return swf;
}

static void refuse(const char *bytes, size_t len, const char *part)
{
	struct swf swf;
	char why[512] = "";

	put(bytes, len);
	cr_expect_eq(swf_read(path, 0, &swf, why, sizeof(why)), -1, "'%.60s' was accepted", bytes);
	cr_expect_not_null(strstr(why, part), "'%.60s': '%s' lacks '%s'", bytes, why, part);
	cr_expect_not_null(strstr(why, path), "the file is named: '%s'", why);
	cr_expect_null(swf.jobs, "nothing is left to free");
}

/* The kinds that were seen, as bits. */
static unsigned kinds(const struct swf *swf)
{
	unsigned seen = 0;

	for (unsigned i = 0; i < SWF_NOTICE_COUNT; i++) {
		cr_expect_eq(swf->notices[i].count == 0, swf->notices[i].first_line == 0);
		seen |= swf->notices[i].count > 0 ? 1u << i : 0;
	}
	return seen;
}

Test(swf, a_job_is_read_with_its_columns)
{
	struct swf swf = read_good(
		"; Version: 2.2\n\n 17\t 300 5 60.5 4 99.25 3 4 100 3 5 7 8 9 1 2 16 3\r\n");

	cr_assert_eq(swf.count, 1);
	cr_expect_eq(swf.jobs[0].id, 17);
	cr_expect_eq(swf.jobs[0].submit_s, 300);
	cr_expect_eq(swf.jobs[0].run_s, 60);
	cr_expect_eq(swf.jobs[0].user, 7);
	cr_expect_eq(swf.jobs[0].status, 5);
	cr_expect_eq(swf.jobs[0].line, 3);
	cr_expect_eq(kinds(&swf), 1u << SWF_FRACTIONS);
	swf_free(&swf);
}

Test(swf, the_last_line_may_lack_its_newline)
{
	struct swf swf = read_good("; x\n" GOOD "2 1 5 60 4 -1 -1 4 -1 -1 1 7 -1 -1 -1 -1 -1 -1");

	cr_expect_eq(swf.count, 2);
	swf_free(&swf);
}

Test(swf, a_wrong_line_is_refused_with_its_number)
{
	static const struct {
		const char *text, *part;
	} rows[] = {
		{"; h\n" GOOD "2 0 5 60 4 -1 -1 4 -1 -1 1 7 -1 -1 -1 -1 -1\n",
		 "line 3: 17 columns; expected 18"},
		{"7\n", "line 1: 1 columns"},
		{"-1 0" REST, "line 1: the job id is missing"},
		{"; h\n1 -1" REST, "line 2: the submit time is missing"},
		{"1 -5" REST, "the submit time is missing (-5)"},
		{"x 0" REST, "line 1: column 1 is 'x'; expected a number"},
		{"1 ?" REST, "column 2 is '?'"},
		{"1 - " REST, "column 2 is '-'"},
		{"1 nan" REST, "column 2 is 'nan'"},
		{"1 0x10" REST, "column 2 is '0x10'"},
		{"1 1e3" REST, "column 2 is '1e3'"},
		{"1 1.2.3" REST, "column 2 is '1.2.3'"},
		{"99999999999999999999 0" REST, "column 1 is"},
		{"1 0 5 60 4 -1 -1 4 -1 -1 6 7 -1 -1 -1 -1 -1 -1\n",
		 "line 1: status 6; expected -1 to 5"},
		{"1 0 5 60 4 -1 -1 4 -1 -1 -2 7 -1 -1 -1 -1 -1 -1\n", "status -2"},
		{"", "there are no jobs"},
		{"; only a header\n\n", "there are no jobs"},
		{"1 caf\xe9" REST, "column 2 is 'caf\\xE9'; expected a number"},
		{"1 \x1b[2J" REST, "column 2 is '\\x1B[2J'"},
		{GOOD "\x1a 2 1" REST, "line 2: column 1 is '\\x1A'"},
		{GOOD "\xef\xbb\xbf" GOOD, "line 2: column 1 is '\\xEF\\xBB\\xBF1'"},
		{"\xff\xfe;", "this is UTF-16"},
		{"BZh91AY&SY", "this is bzip2"},
	};
	static const char nul[] =
		"; h\n" GOOD "2 0 5 60 4 -1 -1 4 -1 -1 1 7 -1 -1 -1 -1 -1 -1\0 hidden\n" GOOD;

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		refuse(rows[i].text, strlen(rows[i].text), rows[i].part);
	refuse(nul, sizeof(nul) - 1, "line 3: a NUL byte");
}

Test(swf, a_line_is_tried_at_its_limit)
{
	char text[10000] = "1 0 5 60 4 -1 -1 4 -1 -1 1 7 -1 -1 -1 -1 -1 -1 ";
	struct swf swf;

	memset(text + strlen(text), 'x', 8190 - strlen(text));
	memcpy(text + 8190, "\n", 2);
	swf = read_good(text);
	cr_expect_eq(swf.count, 1);
	cr_expect_eq(kinds(&swf) & (1u << SWF_EXTRA_COLUMNS), 1u << SWF_EXTRA_COLUMNS);
	swf_free(&swf);
	memcpy(text + 8190, "x\n", 3);
	refuse(text, strlen(text), "line 1: longer than 8190 bytes");
}

Test(swf, a_comment_may_be_longer_than_a_line)
{
	char text[20000] = "; ";
	struct swf swf;

	memset(text + 2, 'x', 12000);
	strcpy(text + 12002, "\n" GOOD);
	swf = read_good(text);
	cr_expect_eq(swf.count, 1);
	cr_expect_eq(swf.jobs[0].line, 2);
	swf_free(&swf);
}

Test(swf, lone_carriage_returns_end_lines)
{
	char text[] = "; h\r" GOOD "2 1" REST;
	struct swf swf;

	for (char *at = text; *at != 0; at++)
		*at = *at == '\n' ? '\r' : *at;
	swf = read_good(text);
	cr_expect_eq(swf.count, 2);
	cr_expect_eq(swf.jobs[1].line, 3);
	swf_free(&swf);
}

Test(swf, what_is_merely_odd_is_a_notice)
{
	static const char *const all = " 5 60 4 1 1 4 1 1 1 7 1 1 1 1 1 1";
	static const struct {
		const char *first, *rest;
		unsigned kind;
	} rows[] = {
		{"; h\n1 0", "\n", SWF_NOTICE_COUNT},
		{"1 0", "\n", SWF_NO_HEADER},
		{"; h\n1 0", " {1,2} q x\n", SWF_EXTRA_COLUMNS},
		{"; h\n1 0.5", "\n", SWF_FRACTIONS},
		{"; h\n1 .5", "\n", SWF_FRACTIONS},
		{"\xef\xbb\xbf; h\n1 0", "\n", SWF_MARKS},
		{"; h\n1 0", "\n\x1a", SWF_MARKS},
		{"; h\r1 0", "\r", SWF_NOTICE_COUNT},
		{"; h\r\n1 0", "\r\n\r\n", SWF_NOTICE_COUNT},
		{"; h\n0 9 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n1 8", "\n", SWF_DISORDER},
		{"; h\n1 0 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n1 0", "\n", SWF_DOUBLE_IDS},
		{"; h\n1 0 -1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n2 0", "\n", SWF_UNKNOWN_VALUES},
		{"; h\n1 0 1 1 1 1 1 1 1 1 -1 1 1 1 1 1 1 1\n2 0", "\n", SWF_UNKNOWN_VALUES},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char text[512];
		struct swf swf;

		(void)snprintf(text, sizeof(text), "%s%s%s", rows[i].first, all, rows[i].rest);
		swf = read_good(text);
		cr_expect_eq(kinds(&swf), rows[i].kind < SWF_NOTICE_COUNT ? 1u << rows[i].kind : 0u,
			     "%s", text);
		swf_free(&swf);
	}
}

Test(swf, a_notice_counts_and_keeps_its_first_line)
{
	struct swf swf = read_good("; h\n1 5" REST "2 4" REST "3 4" REST "4 3" REST);

	cr_expect_eq(swf.notices[SWF_DISORDER].count, 2);
	cr_expect_eq(swf.notices[SWF_DISORDER].first_line, 3);
	cr_expect_eq(swf.notices[SWF_UNKNOWN_VALUES].count, 4);
	cr_expect_eq(swf.jobs[3].submit_s, 3, "file order is kept");
	for (unsigned i = 0; i < SWF_NOTICE_COUNT; i++)
		cr_expect_gt(strlen(swf_notice_text((enum swf_notice)i)), 0);
	swf_free(&swf);
}

Test(swf, no_more_jobs_are_read_than_asked_for)
{
	static const char text[] = GOOD "2 0" REST "this is not read\n";
	struct swf swf;
	char why[512] = "";

	put(text, strlen(text));
	cr_assert_eq(swf_read(path, 2, &swf, why, sizeof(why)), 0, "%s", why);
	cr_expect_eq(swf.count, 2);
	swf_free(&swf);
	cr_expect_eq(swf_read(path, 3, &swf, why, sizeof(why)), -1);
}

Test(swf, header_lines_are_skipped_whatever_their_content)
{
	struct swf swf = read_good(
		";   --- converted ---\n; Computer: \t A b: c \r\n;Acknowledge: One\n; \n"
		";  http://not.a/key\n  ; 1 2 3\n; : no\n; Empty: \n" GOOD "; between\n2 1" REST);

	cr_expect_eq(swf.count, 2);
	cr_expect_eq(swf.jobs[1].line, 11);
	cr_expect_eq(kinds(&swf) & (1u << SWF_NO_HEADER), 0);
	swf_free(&swf);
}

Test(swf, a_gzip_file_is_read_and_a_cut_or_damaged_one_refused)
{
	enum { JOBS = 2000 };
	static char packed[JOBS * 64];
	gzFile file = gzopen(path, "wb");
	struct swf swf;
	char why[512] = "";
	size_t len;
	FILE *in;

	cr_assert_not_null(file);
	for (int i = 0; i < JOBS; i++)
		cr_assert_gt(gzprintf(file, "%d %d%s", i, i * 7919 % 100003, REST), 0);
	cr_assert_eq(gzclose(file), Z_OK);
	cr_assert_eq(swf_read(path, 0, &swf, why, sizeof(why)), 0, "%s", why);
	cr_expect_eq(swf.count, JOBS);
	swf_free(&swf);
	in = fopen(path, "r");
	cr_assert_not_null(in);
	len = fread(packed, 1, sizeof(packed), in);
	(void)fclose(in);
	cr_assert(len > 1000 && len < sizeof(packed));
	/* Cut within the data, and within the eight bytes of checksum at its end, when every job
	 * has been read already. */
	refuse(packed, len / 2, "damaged or cut gzip data after line");
	refuse(packed, len - 9, "damaged or cut gzip data after line");
	refuse(packed, len - 1, "damaged or cut gzip data after line 2000");
	packed[len - 6] ^= 0x55; /* of the CRC */
	refuse(packed, len, "damaged or cut gzip data after line");
}

Test(swf, a_file_that_cannot_be_read_is_named_with_the_cause)
{
	struct swf swf;
	char why[512] = "";

	cr_expect_eq(swf_read("/no/such/trace.swf", 0, &swf, why, sizeof(why)), -1);
	cr_expect_str_eq(why, "/no/such/trace.swf: No such file or directory");
	cr_expect_eq(swf_read("/tmp", 0, &swf, why, sizeof(why)), -1);
	cr_expect_str_eq(why, "/tmp: Is a directory");
}

/* ./dev run uses it: it has each kind of end, and the acknowledgement. */
Test(swf, the_excerpt_has_every_status_and_its_acknowledgement)
{
	size_t counts[7] = {0}, before = 0, after = 0;
	struct swf swf;
	char why[512] = "";

	cr_assert_eq(swf_read(SWF_EXCERPT, 0, &swf, why, sizeof(why)), 0, "%s", why);
	for (size_t i = 0; i < swf.count; i++) {
		const struct swf_job *job = &swf.jobs[i];

		counts[job->status + 1]++;
		before += job->status == 5 && job->run_s <= 0;
		after += job->status == 5 && job->run_s > 0;
	}
	cr_expect_geq(swf.count, 520);
	cr_expect_eq(counts[0], 20);
	cr_expect_eq(counts[1], 95);
	cr_expect_eq(counts[2], 365);
	cr_expect_eq(counts[3] + counts[4] + counts[5], 0);
	cr_expect_eq(before, 12);
	cr_expect_eq(after, 44);
	swf_free(&swf);
}
