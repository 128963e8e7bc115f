/* SPDX-License-Identifier: Apache-2.0
 *
 * broker/util: formats that never change (bytes, CRC), and log lines that a parser can read.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/util/bytes.h"
#include "broker/util/clock.h"
#include "broker/util/crc.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"

Test(bytes, integers_are_big_endian_at_any_alignment)
{
	uint8_t buffer[24];

	for (size_t offset = 0; offset < 8; offset++) {
		memset(buffer, 0xEE, sizeof(buffer));
		put_be16(buffer + offset, 0x0102);
		cr_assert_arr_eq(buffer + offset, ((uint8_t[]){1, 2, 0xEE}), 3);
		cr_assert_eq(get_be16(buffer + offset), 0x0102);
		put_be32(buffer + offset, 0xF1F2F3F4u);
		cr_assert_arr_eq(buffer + offset, ((uint8_t[]){0xF1, 0xF2, 0xF3, 0xF4, 0xEE}), 5);
		cr_assert_eq(get_be32(buffer + offset), 0xF1F2F3F4u);
		put_be64(buffer + offset, 0xF1F2F3F4F5F6F7F8u);
		cr_assert_arr_eq(buffer + offset,
				 ((uint8_t[]){0xF1, 0xF2, 0xF3, 0xF4, 0xF5, 0xF6, 0xF7, 0xF8,
					      0xEE}),
				 9);
		cr_assert_eq(get_be64(buffer + offset), 0xF1F2F3F4F5F6F7F8u);
	}
}

Test(bytes, byte_order_is_number_order)
{
	static const uint64_t rising[] =
		{0,	    1, 255, 256, 65535, 65536, 0x7FFFFFFFFFFFFFFFu, 0x8000000000000000u,
		 UINT64_MAX};
	uint8_t low[8], high[8];

	for (size_t i = 1; i < sizeof(rising) / sizeof(rising[0]); i++) {
		put_be64(low, rising[i - 1]);
		put_be64(high, rising[i]);
		cr_assert_lt(memcmp(low, high, 8), 0, "row %zu", i);
	}
}

Test(crc, is_crc32c_of_rfc_3720)
{
	uint8_t block[32];

	cr_assert_eq(crc32c("123456789", 9), 0xE3069283u);
	cr_assert_eq(crc32c(NULL, 0), 0);
	memset(block, 0, sizeof(block));
	cr_assert_eq(crc32c(block, sizeof(block)), 0x8A9136AAu);
	memset(block, 0xFF, sizeof(block));
	cr_assert_eq(crc32c(block, sizeof(block)), 0x62A8AB43u);
	for (size_t i = 0; i < sizeof(block); i++)
		block[i] = (uint8_t)i;
	cr_assert_eq(crc32c(block, sizeof(block)), 0x46DD794Eu);
}

static uint32_t crc_by_bits(const uint8_t *bytes, size_t len)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= bytes[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0);
	}
	return ~crc;
}

/* Short inputs use another code path than long ones. */
Test(crc, is_the_same_at_any_length_and_place)
{
	uint8_t bytes[700];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 151 + (i >> 3));
	for (size_t len = 0; len <= sizeof(bytes) - 8; len++)
		cr_assert_eq(crc32c(bytes + len % 8, len), crc_by_bits(bytes + len % 8, len), "%zu",
			     len);
}

Test(crc, continues_at_any_cut)
{
	static const char text[] =
		"a sluice lets a stream through only when what is behind it is ready";
	size_t len = sizeof(text) - 1;
	uint32_t whole = crc32c(text, len);

	for (size_t cut = 0; cut <= len; cut++)
		cr_assert_eq(crc32c_extend(crc32c(text, cut), text + cut, len - cut), whole,
			     "cut at %zu", cut);
}

Test(crc, finds_every_flipped_bit)
{
	uint8_t record[64] = "a record";
	uint32_t good = crc32c(record, sizeof(record));

	for (size_t bit = 0; bit < sizeof(record) * 8; bit++) {
		record[bit / 8] ^= (uint8_t)(1u << bit % 8);
		cr_assert_neq(crc32c(record, sizeof(record)), good, "bit %zu", bit);
		record[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
}

static int evaluated;

static int evaluate(int value)
{
	evaluated++;
	return value;
}

Test(invariant, one_that_holds_is_evaluated_once_and_its_values_never)
{
	evaluated = 0;
	invariant(evaluate(1) == 1, "value %d", evaluate(2));
	cr_assert_eq(evaluated, 1);
}

Test(invariant, one_that_is_broken_is_logged_with_its_values_and_ends_the_process)
{
	static const struct rlimit no_core = {0, 0};
	char text[LOG_LINE_BYTES_MAX + 1];
	size_t len = 0;
	ssize_t got;
	int ends[2], status;
	pid_t child;

	cr_assert_eq(pipe(ends), 0);
	child = fork();
	cr_assert_geq(child, 0);
	if (child == 0) {
		(void)setrlimit(RLIMIT_CORE, &no_core);
		(void)signal(SIGABRT, SIG_DFL);
		log_configure(ends[1], LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT);
		invariant(evaluated == 77, "queue %d of %s", 5, "a gateway");
		_exit(0);
	}
	(void)close(ends[1]);
	while ((got = read(ends[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)got;
	text[len] = '\0';
	(void)close(ends[0]);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "status %#x",
		  (unsigned)status);
	cr_assert_not_null(strstr(text, "level=error id=broker.invariant"), "%s", text);
	cr_assert_not_null(strstr(text, "tests/unit/test_util.c line="), "%s", text);
	cr_assert_not_null(strstr(text,
				  "expected=\"evaluated == 77\" values=\"queue 5 of a gateway\""),
			   "%s", text);
}

Test(clock, monotone_clock_does_not_go_back)
{
	uint64_t last = clock_mono_ns();

	for (int i = 0; i < 10000; i++) {
		uint64_t now = clock_mono_ns();

		cr_assert_geq(now, last);
		last = now;
	}
	cr_assert_gt(clock_wall_ms(), INT64_C(1600000000000));
}

/* Logs go to a pipe; what came is read as one string. */
static int log_pipe[2];

static void log_open(enum log_level level, enum log_format format)
{
	cr_assert_eq(pipe(log_pipe), 0);
	log_configure(log_pipe[1], level, format);
}

static char *log_close(void)
{
	static char text[65536];
	size_t len = 0;
	ssize_t n;

	log_configure(STDERR_FILENO, LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	(void)close(log_pipe[1]);
	while ((n = read(log_pipe[0], text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	(void)close(log_pipe[0]);
	text[len] = '\0';
	return text;
}

Test(log, logfmt_line_has_time_level_id_and_fields)
{
	char *text;

	log_open(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	log_line(LOG_LEVEL_WARN, log_id("store.headroom", "publishes are refused"),
		 log_u64("used", UINT64_MAX), log_i64("change", -7), log_bool("clears", true),
		 log_str("class", "publish"), log_str("path", "a b=\"c\"\n"),
		 log_str("none", NULL));
	text = log_close();
	cr_assert_eq(strncmp(text, "ts=20", 5), 0, "%s", text);
	cr_assert_str_eq(strchr(text, ' '),
			 " level=warn id=store.headroom msg=\"publishes are refused\" "
			 "used=18446744073709551615 change=-7 "
			 "clears=true class=publish path=\"a b=\\\"c\\\"\\n\" none=\"\"\n");
}

Test(log, json_line_is_json_whatever_the_bytes)
{
	json_t *line;
	json_error_t error;
	char every[256];

	for (unsigned i = 1; i < 256; i++)
		every[i - 1] = (char)i;
	every[255] = '\0';
	log_open(LOG_LEVEL_INFO, LOG_FORMAT_JSON);
	log_line(LOG_LEVEL_ERROR, log_id("test.bytes", "every byte"), log_str("every", every),
		 log_str("utf8", "\xC3\xA4 \xE2\x82\xAC \xF0\x9F\x98\x80"), log_i64("n", -1));
	line = json_loads(log_close(), 0, &error);
	cr_assert_not_null(line, "%s", error.text);
	cr_assert_str_eq(json_string_value(json_object_get(line, "utf8")),
			 "\xC3\xA4 \xE2\x82\xAC \xF0\x9F\x98\x80");
	cr_assert_str_eq(json_string_value(json_object_get(line, "id")), "test.bytes");
	cr_assert_eq(json_integer_value(json_object_get(line, "n")), -1);
	json_decref(line);
}

Test(log, level_decides)
{
	char *text;

	log_open(LOG_LEVEL_WARN, LOG_FORMAT_LOGFMT);
	cr_assert(log_enabled(LOG_LEVEL_ERROR));
	cr_assert_not(log_enabled(LOG_LEVEL_INFO));
	log_line(LOG_LEVEL_INFO, log_id("test.info", "not wanted"));
	log_line(LOG_LEVEL_WARN, log_id("test.warn", "wanted"));
	text = log_close();
	cr_assert_null(strstr(text, "test.info"));
	cr_assert_not_null(strstr(text, "test.warn"));
}

Test(log, long_line_is_cut_and_marked)
{
	static char big[LOG_LINE_BYTES_MAX * 2];
	char *text;

	memset(big, 'x', sizeof(big) - 1);
	log_open(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	log_line(LOG_LEVEL_INFO, log_id("test.long", "long"), log_str("a", big), log_str("b", big),
		 log_str("c", big), log_str("d", big), log_u64("last", 1));
	text = log_close();
	cr_assert_leq(strlen(text), (size_t)LOG_LINE_BYTES_MAX);
	cr_assert_not_null(strstr(text, "xxx...\" b="));
	cr_assert_not_null(strstr(text, " last=1 truncated=true\n"), "%s", text);
	cr_assert_null(strstr(text, " d="));
}

#define WRITERS 4
#define LINES_EACH 20

static void *writer(void *name)
{
	for (int i = 0; i < LINES_EACH; i++)
		log_line(LOG_LEVEL_INFO, log_id("test.thread", "a line"), log_str("writer", name),
			 log_str("end", "here"));
	return NULL;
}

Test(log, lines_of_threads_do_not_mix)
{
	static char names[WRITERS][2] = {"a", "b", "c", "d"};
	pthread_t threads[WRITERS];
	unsigned lines = 0;
	char *text, *save = NULL;

	log_open(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	for (int i = 0; i < WRITERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, writer, names[i]), 0);
	for (int i = 0; i < WRITERS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	text = log_close();
	for (char *line = strtok_r(text, "\n", &save); line != NULL;
	     line = strtok_r(NULL, "\n", &save), lines++) {
		cr_assert_eq(strncmp(line, "ts=", 3), 0, "%s", line);
		cr_assert_str_eq(line + strlen(line) - strlen(" end=here"), " end=here");
	}
	cr_assert_eq(lines, (unsigned)(WRITERS * LINES_EACH));
}

Test(log, keeps_errno)
{
	log_open(LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	(void)close(log_pipe[1]);
	errno = EDOM;
	log_line(LOG_LEVEL_INFO, log_id("test.closed", "nobody reads this"));
	cr_assert_eq(errno, EDOM);
	log_configure(STDERR_FILENO, LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	(void)close(log_pipe[0]);
}

/* A limit of file sizes cuts a line as a disk does that becomes full. */
Test(log, a_line_that_was_cut_has_an_end_and_what_is_missing_is_counted)
{
	FILE *file = tmpfile();
	struct rlimit whole, small;
	static char text[4096];
	ssize_t len;

	cr_assert_not_null(file);
	cr_assert_eq(getrlimit(RLIMIT_FSIZE, &whole), 0);
	small = whole;
	small.rlim_cur = 30;
	(void)signal(SIGXFSZ, SIG_IGN);
	log_configure(fileno(file), LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (int i = 0; i < 3; i++)
		log_line(LOG_LEVEL_INFO, log_id("test.cut", "there is no room for all of it"));
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &whole), 0);
	for (int i = 0; i < 2; i++)
		log_line(LOG_LEVEL_INFO, log_id("test.whole", "there is"));
	log_configure(STDERR_FILENO, LOG_LEVEL_INFO, LOG_FORMAT_LOGFMT);
	len = pread(fileno(file), text, sizeof(text) - 1, 0);
	cr_assert_gt(len, 31);
	cr_expect_eq(text[30], '\n', "%s", text);
	cr_expect_eq(strncmp(text + 31, "ts=", 3), 0, "%s", text);
	cr_expect_null(strstr(text, "test.cut"), "%s", text);
	cr_expect_not_null(strstr(text, "id=log.lost "), "%s", text);
	cr_expect_not_null(strstr(text, " lines=3\n"), "%s", text);
	cr_expect_null(strstr(strstr(text, "id=log.lost ") + 1, "id=log.lost "), "once: %s", text);
	(void)fclose(file);
}

Test(log, names_of_levels_and_formats)
{
	enum log_level level = LOG_LEVEL_DEBUG;
	enum log_format format = LOG_FORMAT_LOGFMT;

	cr_assert_eq(log_level_parse("error", &level), 0);
	cr_assert_eq(level, LOG_LEVEL_ERROR);
	cr_assert_neq(log_level_parse("loud", &level), 0);
	cr_assert_eq(level, LOG_LEVEL_ERROR);
	cr_assert_eq(log_format_parse("json", &format), 0);
	cr_assert_eq(format, LOG_FORMAT_JSON);
	cr_assert_neq(log_format_parse("xml", &format), 0);
}

Test(log, lines_that_others_cause_are_bounded_and_the_rest_is_counted)
{
	struct log_rate rate = {.per_second = 10};
	uint64_t left_out = 0, sum = 0, written = 0, told;

	for (int n = 0; n < 100000; n++) {
		if (!log_may(&rate, &told))
			continue;
		written++;
		sum += told;
	}
	left_out = atomic_load(&rate.left_out);
	cr_expect_geq(written, 10);
	cr_expect_lt(written, 10000, "%llu lines", (unsigned long long)written);
	cr_expect_eq(written + sum + left_out, 100000, "each is written or counted");
}
