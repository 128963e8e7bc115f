/* SPDX-License-Identifier: Apache-2.0
 *
 * Events of jobs: one per change of state, published by the commit that made it.
 *
 * Subject: job.<id>.<state in lower case>, the id as one token (job_text_token()). Key: the id.
 * Body: compact JSON,
 *   {"job":"","attempt":1,"from":"","state":"","source":"","evidence":"",
 *    "exit_code":0,"token":0,"index":0,"time_ms":0}
 * always with all members, in this order; from is "" at the submit. Behind them what the evidence
 * gave:
 *   "seen_time_ms", "started_time_ms", "ended_time_ms", "memory_peak_bytes", "signal",
 *   "exited":true */
#include <stdlib.h>

#include "broker/core/base/text.h"
#include "broker/core/job/job.h"
#include "broker/core/publish/internal.h"
#include "protocol/envelope.h"

enum {
	NUMBERS_BYTES = 600,
	STACK_BYTES = 4096,
	SUBJECT_BUF_BYTES = LIMIT_SIZE(SUBJECT_BYTES_MAX) + 1
};

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

static char *put(char *at, const char *text)
{
	size_t len = strlen(text);

	memcpy(at, text, len);
	return at + len;
}

/* Faster than printf: runs several times per job, on the engine's thread. */
static char *put_number(char *at, uint64_t number)
{
	char digits[20], *from = digits + sizeof(digits);

	do {
		*--from = (char)('0' + number % 10);
		number /= 10;
	} while (number > 0);
	memcpy(at, from, (size_t)(digits + sizeof(digits) - from));
	return at + (digits + sizeof(digits) - from);
}

static char *text_member(char *at, const char *name, const char *text)
{
	at = job_text_json(put(at, name), text);
	return put(at, "\",");
}

static char *given(char *at, const char *name, uint64_t number)
{
	return number != 0 ? put_number(put(at, name), number) : at;
}

static size_t body_make(char *buf, const struct apply *a, const struct job *job, const char *from,
			const struct job_fact *fact)
{
	char *at = buf;

	*at++ = '{';
	at = text_member(at, "\"job\":\"", job->id);
	at = put_number(put(at, "\"attempt\":"), job->live.attempt);
	at = text_member(at, ",\"from\":\"", from);
	at = text_member(at, "\"state\":\"", job_state_name(job));
	at = text_member(at, "\"source\":\"", fact->source);
	at = text_member(at, "\"evidence\":\"", fact->evidence);
	at = put(at, fact->exit_code < 0 ? "\"exit_code\":-" : "\"exit_code\":");
	at = put_number(at, (uint64_t)llabs(fact->exit_code));
	at = put_number(put(at, ",\"token\":"), job->live.token);
	at = put_number(put(at, ",\"index\":"), a->index);
	at = put_number(put(at, ",\"time_ms\":"), a->wall_ms);
	at = given(at, ",\"seen_time_ms\":", fact->seen_time_ms);
	at = given(at, ",\"started_time_ms\":", fact->started_time_ms);
	at = given(at, ",\"ended_time_ms\":", fact->ended_time_ms);
	at = given(at, ",\"memory_peak_bytes\":", fact->memory_peak_bytes);
	at = given(at, ",\"signal\":", fact->signal);
	if (fact->exited)
		at = put(at, ",\"exited\":true");
	*at++ = '}';
	return (size_t)(at - buf);
}

int job_event_publish(struct apply *a, const struct job *job, const char *from,
		      const struct job_fact *fact)
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
	return publish_internal(a, (struct sluice_slice){subject, subject_bytes},
				slice_text(job->id), (struct sluice_slice){body, body_bytes});
}
