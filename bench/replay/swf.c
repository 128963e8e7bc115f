/* SPDX-License-Identifier: Apache-2.0
 * See swf.h. */
#include "swf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { COLUMNS = 18, LINE_MAX_BYTES = 8191 };
enum { COL_ID = 0, COL_SUBMIT = 1, COL_RUN = 3, COL_STATUS = 10, COL_USER = 11 };

const char *swf_notice_text(enum swf_notice notice)
{
	static const char *const texts[] = {
		[SWF_NO_HEADER] = "there are no header lines",
		[SWF_DISORDER] = "submit times go back",
		[SWF_EXTRA_COLUMNS] = "lines have more than 18 columns; the rest is ignored",
		[SWF_UNKNOWN_VALUES] = "optional values are -1 (unknown)",
		[SWF_FRACTIONS] = "numbers have fractions; they are cut off",
		[SWF_DOUBLE_IDS] = "job ids repeat the one before; they get a suffix",
		[SWF_MARKS] = "a byte order mark or an end-of-file mark (\\x1A) is skipped",
	};

	return texts[notice];
}

static void notice(struct swf *swf, enum swf_notice kind, size_t line)
{
	if (swf->notices[kind].count++ == 0)
		swf->notices[kind].first_line = line;
}

/* One number; fractions are cut off. False: it is none. */
static bool number(const char *word, int64_t *ret, bool *io_fraction)
{
	char *end = NULL;

	errno = 0;
	*ret = strtoll(word, &end, 10);
	/* ".5": C's other functions write it without the zero. */
	if (end == word && word[0] == '.' && word[1] >= '0' && word[1] <= '9')
		end = (char *)(uintptr_t)word;
	else if (end == word || errno != 0)
		return false;
	if (*end == '.') {
		*io_fraction = true;
		for (end++; *end >= '0' && *end <= '9'; end++)
			continue;
	}
	return *end == 0;
}

struct line {
	const char *path;
	size_t number;
	char *why;
	size_t why_bytes;
	bool cut, nul; /* longer than its buffer; a byte of it is NUL */
};

/* A word in printable form: bytes beyond ASCII and control bytes as \xEF. */
static const char *visible(const char *word, char buf[80])
{
	size_t used = 0;

	for (size_t i = 0; word[i] != 0 && i < 30 && used < 75; i++) {
		unsigned char byte = (unsigned char)word[i];

		if (byte >= 0x20 && byte < 0x7f)
			buf[used++] = word[i];
		else
			used += (size_t)snprintf(buf + used, 5, "\\x%02X", byte);
	}
	buf[used] = 0;
	return buf;
}

static int parse_line(struct swf *swf, const struct line *at, char *text, struct swf_job *job)
{
	int64_t values[COLUMNS];
	char *save = NULL;
	size_t columns = 0;
	bool fraction = false;

	for (char *word = strtok_r(text, " \t\r\n", &save); word != NULL;
	     word = strtok_r(NULL, " \t\r\n", &save)) {
		if (columns < COLUMNS && !number(word, &values[columns], &fraction)) {
			char buf[80];

			(void)snprintf(at->why, at->why_bytes,
				       "%s, line %zu: column %zu is '%s'; expected a number",
				       at->path, at->number, columns + 1, visible(word, buf));
			return -1;
		}
		columns++;
	}
	if (columns < COLUMNS) {
		(void)snprintf(at->why, at->why_bytes, "%s, line %zu: %zu columns; expected %d",
			       at->path, at->number, columns, COLUMNS);
		return -1;
	}
	if (values[COL_ID] < 0 || values[COL_SUBMIT] < 0) {
		/* A submit time of -1 means that it is missing. */
		(void)snprintf(at->why, at->why_bytes,
			       "%s, line %zu: the %s is missing (%" PRId64
			       "); expected a number from 0",
			       at->path, at->number, values[COL_ID] < 0 ? "job id" : "submit time",
			       values[COL_ID] < 0 ? values[COL_ID] : values[COL_SUBMIT]);
		return -1;
	}
	if (values[COL_STATUS] < -1 || values[COL_STATUS] > 5) {
		(void)snprintf(at->why, at->why_bytes,
			       "%s, line %zu: status %" PRId64 "; expected -1 to 5", at->path,
			       at->number, values[COL_STATUS]);
		return -1;
	}
	if (columns > COLUMNS)
		notice(swf, SWF_EXTRA_COLUMNS, at->number);
	if (fraction)
		notice(swf, SWF_FRACTIONS, at->number);
	for (size_t i = 0; i < COLUMNS; i++) {
		if (values[i] < 0) {
			notice(swf, SWF_UNKNOWN_VALUES, at->number);
			break;
		}
	}
	*job = (struct swf_job){values[COL_ID],	  values[COL_SUBMIT],	   values[COL_RUN],
				values[COL_USER], (int)values[COL_STATUS], at->number};
	return 0;
}

static int add(struct swf *swf, const struct swf_job *job, size_t *io_capacity)
{
	if (swf->count == *io_capacity) {
		size_t capacity = *io_capacity == 0 ? 1024 : *io_capacity * 2;
		struct swf_job *jobs = realloc(swf->jobs, capacity * sizeof(*jobs));

		if (jobs == NULL)
			return -1;
		swf->jobs = jobs;
		*io_capacity = capacity;
	}
	if (swf->count > 0 && job->submit_s < swf->jobs[swf->count - 1].submit_s)
		notice(swf, SWF_DISORDER, job->line);
	if (swf->count > 0 && job->id == swf->jobs[swf->count - 1].id)
		notice(swf, SWF_DOUBLE_IDS, job->line);
	swf->jobs[swf->count++] = *job;
	return 0;
}

static int out_of_memory(const struct line *at)
{
	(void)snprintf(at->why, at->why_bytes, "out of memory");
	return -1;
}

/* One line without its end, which is LF, CR LF or, from old systems and converters, CR alone. The
 * part that does not fit is read and dropped: a comment may have any length. False: there is no
 * further line. */
static bool next_line(gzFile file, struct line *at, char text[LINE_MAX_BYTES])
{
	size_t used = 0;
	int byte = gzgetc(file);

	if (byte < 0)
		return false;
	at->number++;
	at->cut = at->nul = false;
	for (; byte >= 0 && byte != '\n' && byte != '\r'; byte = gzgetc(file)) {
		at->nul = at->nul || byte == 0;
		if (used < LINE_MAX_BYTES - 1)
			text[used++] = (char)byte;
		else
			at->cut = true;
	}
	if (byte == '\r') {
		byte = gzgetc(file);
		if (byte >= 0 && byte != '\n')
			(void)gzungetc(byte, file);
	}
	text[used] = 0;
	return true;
}

static int wrong_file(const struct line *at, const char *what)
{
	(void)snprintf(at->why, at->why_bytes,
		       "%s: %s; expected text in ASCII or UTF-8, plain or in gzip", at->path, what);
	return -1;
}

/* Skips a mark before the first line of some files. */
static int skip_mark(struct swf *swf, const struct line *at, char **io_text)
{
	if (at->number != 1)
		return 0;
	if (strncmp(*io_text, "\xef\xbb\xbf", 3) == 0) {
		notice(swf, SWF_MARKS, 1);
		*io_text += 3;
		return 0;
	}
	if (strncmp(*io_text, "\xff\xfe", 2) == 0 || strncmp(*io_text, "\xfe\xff", 2) == 0)
		return wrong_file(at, "this is UTF-16, by its byte order mark");
	if (strncmp(*io_text, "BZh", 3) == 0)
		return wrong_file(at, "this is bzip2");
	return strncmp(*io_text,
		       "\xfd"
		       "7zXZ",
		       5) == 0
		       ? wrong_file(at, "this is xz")
		       : 0;
}

/* A line that holds a job: 1; a comment, an empty one or the mark that DOS ends a file with: 0;
 * else -1. */
static int line_kind(struct swf *swf, const struct line *at, const char *text, bool *io_header)
{
	const char *begin = text + strspn(text, " \t");

	if (*begin == ';') {
		*io_header = true;
		return 0;
	}
	if (at->nul || at->cut) {
		(void)snprintf(at->why, at->why_bytes,
			       at->nul ? "%s, line %zu: a NUL byte; expected text"
				       : "%s, line %zu: longer than %d bytes",
			       at->path, at->number, LINE_MAX_BYTES - 1);
		return -1;
	}
	if (*begin == 0x1a && begin[1 + strspn(begin + 1, " \t")] == 0) {
		notice(swf, SWF_MARKS, at->number);
		return 0;
	}
	return *begin != 0;
}

static int read_lines(gzFile file, struct line *at, size_t jobs_max, struct swf *swf)
{
	char text[LINE_MAX_BYTES];
	size_t capacity = 0;
	bool header = false;

	while ((jobs_max == 0 || swf->count < jobs_max) && next_line(file, at, text)) {
		char *begin = text;
		struct swf_job job;
		int kind;

		if (skip_mark(swf, at, &begin) != 0)
			return -1;
		kind = line_kind(swf, at, begin, &header);
		if (kind < 0)
			return -1;
		if (kind == 0)
			continue;
		if (!header && swf->count == 0)
			notice(swf, SWF_NO_HEADER, at->number);
		if (parse_line(swf, at, begin, &job) != 0)
			return -1;
		if (add(swf, &job, &capacity) != 0)
			return out_of_memory(at);
	}
	return 0;
}

int swf_read(const char *path, size_t jobs_max, struct swf *ret, char *why, size_t why_bytes)
{
	struct line at = {.path = path, .why = why, .why_bytes = why_bytes};
	gzFile file = gzopen(path, "re");
	int error = 0, rc;

	memset(ret, 0, sizeof(*ret));
	if (file == NULL) {
		(void)snprintf(why, why_bytes, "%s: %s", path, strerror(errno));
		return -1;
	}
	rc = read_lines(file, &at, jobs_max, ret);
	/* Errors of the stream are checked before those of a line: if the data ends too early, so
	 * does the line. Z_BUF_ERROR: the gzip file ends too early. */
	(void)gzerror(file, &error);
	if (error == Z_ERRNO) {
		(void)snprintf(why, why_bytes, "%s: %s", path, strerror(errno));
		rc = -1;
	} else if (error < 0) {
		(void)snprintf(why, why_bytes, "%s: damaged or cut gzip data after line %zu", path,
			       at.number);
		rc = -1;
	}
	(void)gzclose(file);
	if (rc == 0 && ret->count == 0) {
		(void)snprintf(why, why_bytes, "%s: there are no jobs in it", path);
		rc = -1;
	}
	if (rc != 0)
		swf_free(ret);
	return rc;
}

void swf_free(struct swf *swf)
{
	free(swf->jobs);
	memset(swf, 0, sizeof(*swf));
}
