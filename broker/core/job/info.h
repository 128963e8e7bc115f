/* SPDX-License-Identifier: Apache-2.0
 * JobInfo: the data of a job from its record, its live state and its history. */
#ifndef SLUICE_CORE_JOB_INFO_H
#define SLUICE_CORE_JOB_INFO_H

#include "broker/core/job/job.h"

/* *at is malloc'd text, or the empty string of protobuf-c. */
int job_info_text(char **at, const char *text) SLUICE_MUST_USE;
int job_info_record(struct query *q, uint64_t number, bool payload,
		    Sluice__JobInfo *info) SLUICE_MUST_USE;
int job_info_live(struct query *q, const struct job_live *live, const struct lifecycle *lifecycle,
		  Sluice__JobInfo *info) SLUICE_MUST_USE;
int job_info_fill(struct query *q, uint64_t number, const struct job_live *live,
		  const struct lifecycle *lifecycle, bool payload,
		  Sluice__JobInfo **ret) SLUICE_MUST_USE;

#endif
