/* SPDX-License-Identifier: Apache-2.0
 *
 * Traces in the Standard Workload Format (Parallel Workloads Archive): 18 columns, header lines
 * begin with ';'. Plain or gzip. A wrong column count, a missing id or submit time and a damaged
 * file are errors with their line number; bytes that cannot be seen are shown as \xEF. Optional
 * values of -1, a missing header, disorder of submit times, columns beyond 18, fractions, byte
 * order marks and the DOS end-of-file mark are accepted; each kind is a notice, given once with its
 * first line and its count. Lines end in LF, CR LF or CR.
 */
#ifndef SLUICE_REPLAY_SWF_H
#define SLUICE_REPLAY_SWF_H

#include <stddef.h>
#include <stdint.h>

struct swf_job {
	int64_t id;
	int64_t submit_s; /* since the begin of the trace */
	int64_t run_s;	  /* -1: unknown */
	int64_t user;	  /* -1: unknown */
	int status; /* 0 failed, 1 completed, 2 and 3 partial, 4 partial and failed, 5 cancelled, -1
		       unknown */
	size_t line;
};
enum swf_notice {
	SWF_NO_HEADER,
	SWF_DISORDER,
	SWF_EXTRA_COLUMNS,
	SWF_UNKNOWN_VALUES,
	SWF_FRACTIONS,
	SWF_DOUBLE_IDS,
	SWF_MARKS,
	SWF_NOTICE_COUNT
};
struct swf {
	struct swf_job *jobs; /* in file order */
	size_t count;
	struct {
		size_t count, first_line;
	} notices[SWF_NOTICE_COUNT];
};
/* The text is static. */
const char *swf_notice_text(enum swf_notice notice);
/* Reads at most jobs_max jobs (0: all). 0, or -1 with *ret empty and the reason (file, line, the
 * wrong and the expected value) in why. *ret is owned: swf_free. Blocks for the file. */
int swf_read(const char *path, size_t jobs_max, struct swf *ret, char *why, size_t why_bytes);
void swf_free(struct swf *swf);

#endif
