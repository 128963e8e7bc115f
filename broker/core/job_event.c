/* SPDX-License-Identifier: Apache-2.0
 *
 * Events of jobs: one per change of state, published by the commit that made it.
 *
 * Subject: job.<id>.<state in lower case>, the id as one token (job_text_token()). Key: the id. Body: compact
 * JSON,
 *   {"job":"","attempt":1,"from":"","state":"","source":"","evidence":"",
 *    "exit_code":0,"token":0,"index":0,"time_ms":0}
 * always with all members, in this order; from is "" at the submit. */
#include "broker/core/job_ledger.h"

#include <stdio.h>

enum { NUMBERS_BYTES = 300, STACK_BYTES = 4096, SUBJECT_BUF_BYTES = 256 };

static size_t subject_make(char *buf, const struct job *job)
{
	char *at = buf;

	memcpy(at, "job.", 4);
	at += 4;
	at += job_text_token(at, job->id, job->number);
	*at++ = '.';
	for (const char *c = job_state_name(job); *c != '\0'; c++)
		*at++ = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
	return (size_t)(at - buf);
}

static char *text_member(char *at, const char *name, const char *text)
{
	at += sprintf(at, "\"%s\":\"", name);
	at = job_text_json(at, text);
	memcpy(at, "\",", 2);
	return at + 2;
}

static size_t body_make(char *buf, const struct apply *a, const struct job *job, const char *from,
			const struct job_fact *fact)
{
	char *at = buf;

	*at++ = '{';
	at = text_member(at, "job", job->id);
	at += sprintf(at, "\"attempt\":%u,", job->live.attempt);
	at = text_member(at, "from", from);
	at = text_member(at, "state", job_state_name(job));
	at = text_member(at, "source", fact->source);
	at = text_member(at, "evidence", fact->evidence);
	at += sprintf(at, "\"exit_code\":%d,\"token\":%llu,\"index\":%llu,\"time_ms\":%llu}", fact->exit_code,
		      (unsigned long long)job->live.token, (unsigned long long)a->index,
		      (unsigned long long)a->wall_ms);
	return (size_t)(at - buf);
}

int job_event_publish(struct apply *a, const struct job *job, const char *from, const struct job_fact *fact)
{
	char subject[SUBJECT_BUF_BYTES], stack[STACK_BYTES], *body = stack;
	size_t worst, subject_bytes, body_bytes;

	if (job->id == NULL)
		return 0;
	worst = NUMBERS_BYTES + 6 * (strlen(job->id) + strlen(from) + strlen(job_state_name(job)) +
				     strlen(fact->source) + strlen(fact->evidence));
	if (worst > sizeof(stack)) {
		body = effects_alloc(a->effects, worst);
		if (body == NULL)
			return SLUICE_E_NOMEM;
	}
	subject_bytes = subject_make(subject, job);
	body_bytes = body_make(body, a, job, from, fact);
	return publish_internal(a, (struct sluice_slice){subject, subject_bytes}, slice_text(job->id),
				(struct sluice_slice){body, body_bytes});
}
