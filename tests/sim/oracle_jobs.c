/* SPDX-License-Identifier: Apache-2.0
 *
 * A job is a record with one holder at a time. Its lease ends with the job, a release, or its
 * session; then it is an orphan, which is leased again only by a takeover, with a higher token. An
 * intent stays for its attempt: such a job is never returned to the queue, nor ended by a cancel,
 * and only its source receives it again. Only a reset leaves a terminal state; it opens the next
 * attempt. Only the newest token and attempt can change anything. Every change of state publishes
 * one event.
 */
#include <stdio.h>
#include <string.h>

#include "tests/sim/oracle_internal.h"

static bool is_terminal(const char *state)
{
	return strcmp(state, "COMPLETE") == 0 || strcmp(state, "CANCELED") == 0 ||
	       strcmp(state, "FAILED") == 0;
}

/* From every open state to every other state, except SUBMITTED. */
static bool is_legal(const char *from, const char *to)
{
	static const char *const states[] = {"QUEUED",	 "ACTIVE",	     "COMPLETE",
					     "CANCELED", "FAILED",	     "SUSPENDED",
					     "UNKNOWN",	 "NON_CRITICAL_FAIL"};

	if (is_terminal(from) || strcmp(from, to) == 0)
		return false;
	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		if (strcmp(states[i], to) == 0)
			return true;
	}
	return false;
}

static void state_set(const struct oracle *o, struct job *j, const char *state)
{
	if (is_terminal(state) && !j->terminal)
		j->end_ms = o->now_ms;
	snprintf(j->state, sizeof(j->state), "%s", state);
	j->terminal = is_terminal(state);
	if (j->terminal)
		j->claim = ORACLE_NONE;
}

static bool certain(const struct job *j)
{
	return j->exists && !j->unknown && !j->maybe_claimed;
}

/* The effect of time and of its session's end on a claim. */
static bool claim_is(const struct oracle *o, const struct job *j, enum oracle_claim claim)
{
	if (j->claim == ORACLE_GATED) {
		bool due = o->now_ms >= j->due_ms;

		return claim == ORACLE_GATED ? !due || !j->due_known
					     : claim == ORACLE_READY && (due || !j->due_known);
	}
	if (j->claim == ORACLE_LEASED)
		return claim == ORACLE_LEASED
			       ? session_maybe(o, j->session)
			       : claim == ORACLE_ORPHANED && !session_surely(o, j->session);
	return j->claim == claim;
}

static bool leased_surely(const struct oracle *o, const struct job *j)
{
	return certain(j) && j->claim == ORACLE_LEASED && session_surely(o, j->session);
}

void oracle_job_submitted(struct oracle *o, int job)
{
	struct job *j = &o->jobs[job];

	note(o, 40, (uint64_t)job, 0);
	/* The broker may have forgotten it since the last read: then this is another job. */
	if (j->exists && j->terminal && o->now_ms - j->end_ms >= o->rules.job_keep_ms)
		j->forgotten = true;
	if (j->exists || j->unknown || j->forgotten)
		return;
	*j = (struct job){.exists = true, .attempt = 1, .claim = ORACLE_READY};
	state_set(o, j, "SUBMITTED");
}

/* ---- deliveries ---- */

/* Only the source that started a job may judge it. */
static void check_source(struct oracle *o, int job, const struct oracle_job_seen *seen, int taker,
			 bool again)
{
	const struct job *j = &o->jobs[job];
	int judges = seen->intent || again ? j->source : taker;

	if (seen->intent && seen->source != 0 && seen->source != taker)
		broken(o, "job %d of source %d was given to one that judges source %d", job,
		       seen->source, taker);
	if (certain(j) && seen->source != judges)
		broken(o, "job %d was delivered with source %d, its source is %d", job,
		       seen->source, judges);
}

static void check_delivery(struct oracle *o, int job, const struct oracle_job_seen *seen)
{
	const struct job *j = &o->jobs[job];

	if (!j->exists)
		broken(o, "job %d was delivered, and was never submitted", job);
	if (j->terminal)
		broken(o, "job %d was delivered after its end", job);
	if (seen->attempt != j->attempt || strcmp(seen->state, j->state) != 0)
		broken(o, "job %d was delivered as %s in attempt %u, it is %s in attempt %u", job,
		       seen->state, seen->attempt, j->state, j->attempt);
	if (seen->intent != j->intent || seen->cancel != j->cancel)
		broken(o, "job %d was delivered with intent %d, cancel %d; it has %d, %d", job,
		       seen->intent, seen->cancel, j->intent, j->cancel);
}

void oracle_job_claimed(struct oracle *o, int job, const struct oracle_job_seen *seen, int taker,
			bool orphan, bool again)
{
	struct job *j = &o->jobs[job];

	note(o, 41, (uint64_t)job, seen->token);
	if (j->forgotten)
		return;
	if (!j->unknown)
		check_delivery(o, job, seen);
	check_source(o, job, seen, taker, again);
	if (!orphan && !again && seen->intent)
		broken(o, "job %d has an intent, and was delivered from the queue", job);
	if (again ? seen->token < j->top_token : seen->token <= j->top_token)
		broken(o, "token %llu of job %d is not above the previous one", U(seen->token),
		       job);
	if (again && certain(j) &&
	    (!claim_is(o, j, ORACLE_LEASED) || seen->token != j->token ||
	     seen->session != j->session))
		broken(o, "job %d was redelivered to a session that does not hold it", job);
	if (!again && certain(j) && !claim_is(o, j, orphan ? ORACLE_ORPHANED : ORACLE_READY))
		broken(o, "job %d was delivered as %s, which it is not", job,
		       orphan ? "an orphan" : "one that is ready");
	j->exists = true;
	j->maybe_claimed = j->maybe_left = false; /* this session is the only holder */
	j->claim = ORACLE_LEASED;
	j->session = seen->session;
	j->source = seen->source;
	j->token = j->top_token = seen->token;
	j->attempt = seen->attempt;
	j->intent = seen->intent;
	j->cancel = seen->cancel;
	j->again = true;
	if (seen->cancel)
		j->cancel_token = seen->token;
	state_set(o, j, seen->state);
}

void oracle_job_noticed(struct oracle *o, int job, uint64_t token, bool cancel)
{
	struct job *j = &o->jobs[job];

	note(o, 54 + cancel, (uint64_t)job, token);
	if (cancel)
		j->cancel_token = token;
	else
		j->lost_notified = token;
}

/* A connected client has received the ledger's notices on the jobs it holds, and on those it no
 * longer holds. */
void jobs_at_rest(struct oracle *o)
{
	for (int i = 0; i < ORACLE_JOBS_MAX; i++) {
		struct job *j = &o->jobs[i];

		if (leased_surely(o, j) && j->cancel && j->cancel_token != j->token &&
		    jobs_consumed_by(o, j->session))
			broken(o, "session %llu holds job %d, and was not notified of its cancel",
			       U(j->session), i);
		if (j->lost_token != 0 && j->lost_notified != j->lost_token &&
		    jobs_consumed_by(o, j->lost_session))
			broken(o,
			       "session %llu was not notified that its lease of job %d has ended",
			       U(j->lost_session), i);
		j->lost_token = 0;
	}
}

void jobs_resuming(struct oracle *o, uint64_t session)
{
	for (int i = 0; i < ORACLE_JOBS_MAX; i++) {
		if (o->jobs[i].session == session)
			o->jobs[i].again = false;
	}
}

void jobs_resumed(struct oracle *o, uint64_t session)
{
	for (int i = 0; i < ORACLE_JOBS_MAX; i++) {
		struct job *j = &o->jobs[i];

		if (j->session == session && leased_surely(o, j) && !j->again)
			broken(o, "session %llu holds job %d, which was not redelivered",
			       U(session), i);
	}
}

void jobs_unreceived(struct oracle *o, uint64_t session)
{
	for (int i = 0; i < ORACLE_JOBS_MAX; i++) {
		struct job *j = &o->jobs[i];

		if (session == 0 || j->lost_session == session)
			j->lost_token = 0;

		if (!j->exists || j->terminal || leased_surely(o, j))
			continue;
		j->maybe_claimed = true;
		j->maybe_left |= session_ephemeral(o, session);
	}
}

/* ---- actions of a holder ---- */

/* Releases it before its end. */
static void release_lease(struct oracle *o, struct job *j, uint32_t delay_ms)
{
	j->claim = j->intent ? ORACLE_ORPHANED : delay_ms > 0 ? ORACLE_GATED : ORACLE_READY;
	j->due_ms = o->now_ms + delay_ms;
	j->due_known = true;
	if (!j->intent)
		j->source = 0;
}

static void check_applied(struct oracle *o, int job, const struct oracle_report *r)
{
	const struct job *j = &o->jobs[job];

	if (r->token != 0 && r->token < j->top_token)
		broken(o, "a stale token changed job %d", job);
	if (j->unknown)
		return;
	if (!j->exists)
		broken(o, "a report changed job %d, which was never submitted", job);
	if (r->attempt != j->attempt)
		broken(o, "a report on attempt %u changed job %d of attempt %u", r->attempt, job,
		       j->attempt);
	if (strcmp(j->state, r->state) == 0 && !r->release)
		return; /* in a transaction: it changes nothing */
	if (strcmp(j->state, r->state) != 0 && !is_legal(j->state, r->state))
		broken(o, "job %d went from %s to %s", job, j->state, r->state);
	if (!j->maybe_claimed && r->token != 0 &&
	    (r->token != j->token ||
	     (!claim_is(o, j, ORACLE_LEASED) && !claim_is(o, j, ORACLE_ORPHANED))))
		broken(o, "a token that belongs to no lease changed job %d", job);
}

void oracle_job_reported(struct oracle *o, int job, const struct oracle_report *r,
			 enum oracle_verdict verdict)
{
	struct job *j = &o->jobs[job];
	bool was_leased = claim_is(o, j, ORACLE_LEASED);

	note(o, 42 + verdict, (uint64_t)job, r->token);
	if (verdict == ORACLE_REFUSED && leased_surely(o, j) && r->token == j->token &&
	    r->attempt == j->attempt && is_legal(j->state, r->state))
		broken(o, "the holder of job %d was refused", job);
	if (verdict != ORACLE_APPLIED || j->forgotten)
		return;
	check_applied(o, job, r);
	state_set(o, j, r->state);
	if (!j->terminal && r->release && was_leased)
		release_lease(o, j, 0);
}

void oracle_job_intended(struct oracle *o, int job, uint64_t token, uint32_t attempt, bool done)
{
	struct job *j = &o->jobs[job];

	note(o, 45, (uint64_t)job, token + done);
	if (j->forgotten)
		return;
	if (!done) {
		if (leased_surely(o, j) && token == j->token && attempt == j->attempt &&
		    (!j->cancel || j->intent))
			broken(o, "an intent of the holder of job %d was refused", job);
		return;
	}
	if (token < j->top_token)
		broken(o, "a stale token recorded an intent for job %d", job);
	if (certain(j) &&
	    (token != j->token || attempt != j->attempt || !claim_is(o, j, ORACLE_LEASED)))
		broken(o, "an intent for job %d was accepted from a client that does not hold it",
		       job);
	if (certain(j) && j->cancel && !j->intent)
		broken(o, "an intent for job %d was accepted after its cancel", job);
	j->intent = true;
}

void oracle_job_released(struct oracle *o, int job, uint64_t token, uint32_t delay_ms,
			 enum oracle_verdict verdict)
{
	struct job *j = &o->jobs[job];

	note(o, 46 + verdict, (uint64_t)job, token);
	if (j->forgotten)
		return;
	if (verdict == ORACLE_REFUSED && leased_surely(o, j) && token == j->token && !j->intent)
		broken(o, "a release by the holder of job %d was refused", job);
	if (verdict != ORACLE_APPLIED)
		return;
	if (token < j->top_token)
		broken(o, "a stale token released job %d", job);
	if (certain(j) && (token != j->token || j->intent || !claim_is(o, j, ORACLE_LEASED)))
		broken(o,
		       "job %d was released by a client that does not hold it, or after an intent",
		       job);
	release_lease(o, j, delay_ms);
}

/* ---- actions of other clients ---- */

void oracle_job_cancelled(struct oracle *o, int job, bool terminal)
{
	struct job *j = &o->jobs[job];

	note(o, 49, (uint64_t)job, terminal);
	if (j->forgotten)
		return;
	if (!j->unknown && terminal != (j->terminal || !j->intent))
		broken(o, "a cancel of job %d %s", job,
		       terminal ? "ended it after its intent" : "did not end it");
	/* If the job may have ended without the oracle's knowledge, the answer only shows that it
	 * has ended; a cancel after the end records nothing. */
	if (j->terminal || (j->unknown && terminal))
		return;
	j->cancel = true;
	if (terminal)
		state_set(o, j, "CANCELED");
}

void oracle_job_reset(struct oracle *o, int job, bool force, uint32_t attempt, bool done)
{
	struct job *j = &o->jobs[job];

	note(o, 50, (uint64_t)job, attempt + done);
	if (j->forgotten)
		return;
	if (!done) {
		bool kept = !j->terminal || o->now_ms - j->end_ms < o->rules.job_keep_ms;

		/* The broker may have forgotten it since the last read. */
		if (j->exists && !j->unknown && kept && (force || j->terminal))
			broken(o, "a reset of job %d was refused", job);
		return;
	}
	if (leased_surely(o, j)) {
		j->lost_token = j->token;
		j->lost_session = j->session;
	}
	if (!j->unknown && (attempt != j->attempt + 1 || (!force && !j->terminal)))
		broken(o, "a reset of job %d opened attempt %u after %u", job, attempt, j->attempt);
	j->exists = true;
	j->attempt = attempt;
	j->cancel = j->intent = j->maybe_claimed = j->maybe_left = false;
	j->claim = ORACLE_READY;
	j->token = 0;
	j->source = 0;
	state_set(o, j, "SUBMITTED");
}

void oracle_job_unknown(struct oracle *o, int job)
{
	note(o, 51, (uint64_t)job, 0);
	o->jobs[job].unknown = true;
}

/* ---- events: each begins in the state in which the previous one ended ---- */

void oracle_job_events_begin(struct oracle *o)
{
	for (int i = 0; i < ORACLE_JOBS_MAX; i++) {
		o->jobs[i].event_state[0] = 0;
		o->jobs[i].event_attempt = 0;
	}
}

void oracle_job_event(struct oracle *o, int job, uint32_t attempt, const char *from,
		      const char *state)
{
	struct job *j = &o->jobs[job];
	bool opens = strcmp(state, "SUBMITTED") == 0;

	note(o, 53, (uint64_t)job, attempt);
	if (j->forgotten)
		return;
	if (strcmp(from, j->event_state) != 0)
		broken(o, "an event moves job %d from %s to %s, the previous one ended in %s", job,
		       from, state, j->event_state);
	if (attempt != j->event_attempt + opens || (!opens && !is_legal(from, state)))
		broken(o, "an event moves job %d from %s in attempt %u to %s in attempt %u", job,
		       from, j->event_attempt, state, attempt);
	snprintf(j->event_state, sizeof(j->event_state), "%s", state);
	j->event_attempt = attempt;
}

void oracle_job_events_end(struct oracle *o)
{
	o->events_read = true;
}

static void check_events(struct oracle *o, int job, const struct oracle_job_seen *seen)
{
	const struct job *j = &o->jobs[job];

	if (strcmp(seen->state, j->event_state) != 0 || seen->attempt != j->event_attempt)
		broken(o, "job %d is %s in attempt %u, after its events it is %s in attempt %u",
		       job, seen->state, seen->attempt, j->event_state, j->event_attempt);
}

/* ---- reads ---- */

/* The result of a request without an answer. Some values never go back. */
static void check_unknown(struct oracle *o, int job, const struct oracle_job_seen *seen)
{
	const struct job *j = &o->jobs[job];
	bool same = seen->attempt == j->attempt;

	if (seen->attempt < j->attempt || (same && j->token != 0 && seen->token < j->token) ||
	    (seen->token != 0 && seen->token != j->token && seen->token < j->top_token))
		broken(o, "job %d went back: attempt %u, token %llu; was %u, %llu", job,
		       seen->attempt, U(seen->token), j->attempt, U(j->token));
	if (same && j->terminal && strcmp(seen->state, j->state) != 0)
		broken(o, "job %d went from its end %s to %s", job, j->state, seen->state);
	if (same && ((j->intent && !seen->intent) || (j->cancel && !seen->cancel)))
		broken(o, "job %d lost its %s", job,
		       j->intent && !seen->intent ? "intent" : "cancel");
	if (j->exists && !j->unknown &&
	    (!same || strcmp(seen->state, j->state) != 0 || seen->intent != j->intent ||
	     seen->cancel != j->cancel))
		broken(o, "job %d is %s in attempt %u without a request", job, seen->state,
		       seen->attempt);
	if (!j->unknown && !claim_is(o, j, seen->claim) && seen->claim != ORACLE_LEASED &&
	    !(seen->claim == ORACLE_ORPHANED && j->maybe_left))
		broken(o, "the claim of job %d became %d without a request", job, (int)seen->claim);
}

static void check_certain(struct oracle *o, int job, const struct oracle_job_seen *seen)
{
	const struct job *j = &o->jobs[job];

	if (!j->exists)
		broken(o, "job %d exists and was not accepted", job);
	if (seen->attempt != j->attempt || strcmp(seen->state, j->state) != 0)
		broken(o, "job %d is %s in attempt %u; expected %s in attempt %u", job, seen->state,
		       seen->attempt, j->state, j->attempt);
	if (seen->intent != j->intent || seen->cancel != j->cancel)
		broken(o, "job %d shows intent %d, cancel %d; it has %d, %d", job, seen->intent,
		       seen->cancel, j->intent, j->cancel);
	if (!claim_is(o, j, seen->claim))
		broken(o, "job %d shows claim %d; expected %d", job, (int)seen->claim,
		       (int)j->claim);
	if (seen->token != j->token)
		broken(o, "job %d shows token %llu; expected %llu", job, U(seen->token),
		       U(j->token));
	if (seen->claim == ORACLE_LEASED && seen->session != j->session)
		broken(o, "job %d is held by %llu, not by %llu", job, U(seen->session),
		       U(j->session));
	if (seen->claim != ORACLE_NONE &&
	    seen->source != (seen->claim == ORACLE_LEASED || seen->intent ? j->source : 0))
		broken(o, "job %d is shown with source %d, its source is %d", job, seen->source,
		       j->source);
}

void oracle_jobs_drained(struct oracle *o)
{
	for (int i = 0; i < ORACLE_JOBS_MAX; i++) {
		const struct job *j = &o->jobs[i];

		if (j->exists && !j->terminal && !leased_surely(o, j))
			broken(o, "job %d is %s with claim %d, and was never delivered", i,
			       j->state, (int)j->claim);
	}
}

static bool forgotten(struct oracle *o, int job)
{
	struct job *j = &o->jobs[job];
	bool was = j->exists;

	if (was && !j->terminal)
		broken(o, "job %d was accepted and no longer exists", job);
	if (was && o->now_ms - j->end_ms < o->rules.job_keep_ms)
		broken(o, "job %d was forgotten %llu ms after its end", job,
		       U(o->now_ms - j->end_ms));
	j->exists = j->unknown = false;
	j->forgotten |= was;
	return was;
}

bool oracle_job_shown(struct oracle *o, int job, const struct oracle_job_seen *seen)
{
	struct job *j = &o->jobs[job];

	note(o, 52, (uint64_t)job, seen != NULL ? seen->attempt : 0);
	if (seen == NULL)
		return forgotten(o, job);
	if (j->forgotten) {
		bool was = j->exists;

		j->exists = j->unknown = false;
		return was;
	}
	if (o->events_read)
		check_events(o, job, seen);
	if (seen->terminal != is_terminal(seen->state))
		broken(o, "job %d: %s is shown as %s", job, seen->state,
		       seen->terminal ? "an end" : "open");
	if (seen->terminal != (seen->claim == ORACLE_NONE))
		broken(o, "job %d is %s, with claim %d", job, seen->state, (int)seen->claim);
	if (seen->claim == ORACLE_LEASED && !session_maybe(o, seen->session))
		broken(o, "job %d is held by session %llu, which has ended", job, U(seen->session));
	if (certain(j)) {
		check_certain(o, job, seen);
		j->source = seen->source;
		if (j->terminal && o->now_ms - j->end_ms >= o->rules.job_keep_ms)
			broken(o, "job %d ended %llu ms ago and is not forgotten", job,
			       U(o->now_ms - j->end_ms));
		return false;
	}
	if (!j->exists && !j->unknown)
		broken(o, "job %d exists and was not accepted", job);
	check_unknown(o, job, seen);
	if (seen->claim == ORACLE_GATED && j->claim != ORACLE_GATED)
		j->due_known = false;
	if (seen->attempt != j->attempt)
		j->terminal = false; /* after an unreceived reset: another attempt's end */
	j->exists = true;
	j->unknown = j->maybe_claimed = j->maybe_left = false;
	j->attempt = seen->attempt;
	j->token = seen->token;
	if (seen->token > j->top_token)
		j->top_token = seen->token;
	j->session = seen->session;
	j->source = seen->source;
	j->intent = seen->intent;
	j->cancel = seen->cancel;
	state_set(o, j, seen->state);
	j->claim = seen->claim;
	return false;
}
