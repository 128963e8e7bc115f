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

enum { COLUMNS = 18, LINE_MAX_BYTES = 8192 };
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
	if (end == word || errno != 0)
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
};

static int parse_line(struct swf *swf, const struct line *at, char *text, struct swf_job *job)
{
	int64_t values[COLUMNS];
	char *save = NULL;
	size_t columns = 0;
	bool fraction = false;

	for (char *word = strtok_r(text, " \t\r\n", &save); word != NULL;
	     word = strtok_r(NULL, " \t\r\n", &save)) {
		if (columns < COLUMNS && !number(word, &values[columns], &fraction)) {
			(void)snprintf(at->why, at->why_bytes,
				       "%s, line %zu: column %zu is '%.30s'; expected a number", at->path,
				       at->number, columns + 1, word);
			return -1;
		}
		columns++;
	}
	if (columns < COLUMNS) {
		(void)snprintf(at->why, at->why_bytes, "%s, line %zu: %zu columns; expected %d", at->path,
			       at->number, columns, COLUMNS);
		return -1;
	}
	if (values[COL_ID] < 0 || values[COL_SUBMIT] < 0) {
		/* A submit time of -1 is a missing one. */
		(void)snprintf(at->why, at->why_bytes,
			       "%s, line %zu: the %s is missing (%" PRId64 "); expected a number from 0",
			       at->path, at->number, values[COL_ID] < 0 ? "job id" : "submit time",
			       values[COL_ID] < 0 ? values[COL_ID] : values[COL_SUBMIT]);
		return -1;
	}
	if (values[COL_STATUS] < -1 || values[COL_STATUS] > 5) {
		(void)snprintf(at->why, at->why_bytes, "%s, line %zu: status %" PRId64 "; expected -1 to 5",
			       at->path, at->number, values[COL_STATUS]);
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

/* gzgets() stops at a newline, at the end, when the buffer is full, and cannot say that it read a NUL. */
static int check_line(gzFile file, const struct line *at, const char *text)
{
	size_t len = strlen(text);

	if (len > 0 && text[len - 1] == '\n')
		return 0;
	if (len == LINE_MAX_BYTES - 1)
		(void)snprintf(at->why, at->why_bytes, "%s, line %zu: longer than %d bytes", at->path,
			       at->number, LINE_MAX_BYTES - 2);
	else if (!gzeof(file))
		(void)snprintf(at->why, at->why_bytes, "%s, line %zu: a NUL byte; expected text", at->path,
			       at->number);
	else
		return 0;
	return -1;
}

static int read_lines(gzFile file, struct line *at, size_t jobs_max, struct swf *swf)
{
	char text[LINE_MAX_BYTES];
	size_t capacity = 0;
	bool header = false;

	while ((jobs_max == 0 || swf->count < jobs_max) && gzgets(file, text, sizeof(text)) != NULL) {
		struct swf_job job;

		at->number++;
		if (check_line(file, at, text) != 0)
			return -1;
		if (text[strspn(text, " \t\r\n")] == 0)
			continue;
		if (text[strspn(text, " \t")] == ';') {
			header = true;
			continue;
		}
		if (!header && swf->count == 0)
			notice(swf, SWF_NO_HEADER, at->number);
		if (parse_line(swf, at, text, &job) != 0)
			return -1;
		if (add(swf, &job, &capacity) != 0)
			return out_of_memory(at);
	}
	return 0;
}

int swf_read(const char *path, size_t jobs_max, struct swf *ret, char *why, size_t why_bytes)
{
	struct line at = {path, 0, why, why_bytes};
	gzFile file = gzopen(path, "re");
	int error = 0, rc;

	memset(ret, 0, sizeof(*ret));
	if (file == NULL) {
		(void)snprintf(why, why_bytes, "%s: %s", path, strerror(errno));
		return -1;
	}
	rc = read_lines(file, &at, jobs_max, ret);
	/* Of the stream before that of a line: where the data ends too early, the line does as well. Z_BUF_ERROR is a
	 * gzip file that ends too early. */
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
