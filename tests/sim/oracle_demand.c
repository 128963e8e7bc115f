/* SPDX-License-Identifier: Apache-2.0
 *
 * Consumers and their credit. A consumer with credit that is not paused is willing. While the
 * broker is idle, nothing is ready where a consumer is willing, no orphan waits where one that
 * accepts orphans is willing, and no timer is due. No consumer receives more than its credit,
 * except redeliveries at a resume, nor anything while it is paused.
 *
 * An orphan that waits for its own source is given to no other. One session at a time represents a
 * source, until the session has ended or another one requests a takeover.
 */
#include "tests/sim/oracle_internal.h"

void oracle_consumer_opened(struct oracle *o, int consumer, int feed, bool orphans, int source,
			    uint64_t session, uint32_t credit)
{
	note(o, 60, (uint64_t)consumer, credit);
	o->consumers[consumer] = (struct consumer){.open = true,
						   .orphans = orphans,
						   .feed = feed,
						   .source = source,
						   .session = session,
						   .credit = credit,
						   .resumes = true};
	if (feed == 0)
		items_resuming(o, session);
	else if (feed == 1)
		jobs_resuming(o, session);
}

void oracle_consumer_credited(struct oracle *o, int consumer, uint32_t more)
{
	struct consumer *c = &o->consumers[consumer];

	note(o, 61, (uint64_t)consumer, more);
	c->credit = more > ORACLE_CREDIT_MAX - c->credit ? ORACLE_CREDIT_MAX : c->credit + more;
}

void oracle_consumer_paused(struct oracle *o, int consumer, bool paused)
{
	note(o, 62, (uint64_t)consumer, paused);
	o->consumers[consumer].paused = paused;
}

void oracle_consumer_given(struct oracle *o, int consumer, uint32_t count)
{
	struct consumer *c = &o->consumers[consumer];

	note(o, 63, (uint64_t)consumer, count);
	if (c->paused)
		broken(o, "consumer %d is paused and received %u", consumer, count);
	if (!c->resumes && count > c->credit)
		broken(o, "consumer %d has credit for %u and received %u", consumer, c->credit,
		       count);
	c->credit -= count < c->credit ? count : c->credit;
}

void oracle_consumer_resumed(struct oracle *o, int consumer)
{
	o->consumers[consumer].resumes = false;
}

void oracle_consumer_ended(struct oracle *o, int consumer)
{
	note(o, 64, (uint64_t)consumer, 0);
	o->consumers[consumer].open = false;
}

void oracle_consumer_closed(struct oracle *o, int consumer)
{
	note(o, 65, (uint64_t)consumer, 0);
	o->consumers[consumer].open = false;
}

void oracle_at_rest(struct oracle *o, const struct oracle_rest *rest)
{
	for (int i = 0; i < ORACLE_CONSUMERS_MAX; i++) {
		const struct consumer *c = &o->consumers[i];

		if (!c->open || c->paused)
			continue;
		if (c->resumes)
			broken(o, "consumer %d has not yet received all that its session holds", i);
		if (c->credit > 0 && rest->ready[c->feed] > 0)
			broken(o, "%llu are ready where consumer %d has credit for %u",
			       U(rest->ready[c->feed]), i, c->credit);
		if (c->credit > 0 && c->feed == 1 && c->orphans &&
		    (rest->orphaned[0] > 0 || rest->orphaned[c->source] > 0))
			broken(o,
			       "%llu orphans wait where consumer %d accepts them and has credit "
			       "for %u",
			       U(rest->orphaned[0] +
				 (c->source != 0 ? rest->orphaned[c->source] : 0)),
			       i, c->credit);
	}
	for (int i = 0; i < ORACLE_CONSUMERS_MAX; i++) {
		const struct consumer *c = &o->consumers[i];

		if (c->open && !c->paused && c->credit > 0 && c->feed == 3 && c->orphans &&
		    rest->wild_orphaned > 0)
			broken(o,
			       "%llu wild orphans wait where consumer %d accepts them and has "
			       "credit for %u",
			       U(rest->wild_orphaned), i, c->credit);
	}
	if (rest->timers_due > 0)
		broken(o, "%llu timers are due and have not fired", U(rest->timers_due));
	jobs_at_rest(o);
}

void oracle_wild_leased(struct oracle *o, uint64_t session)
{
	if (!session_maybe(o, session))
		broken(o, "a wild job is leased to session %llu, which has ended", U(session));
}

/* ---- sources ---- */

void oracle_source_answered(struct oracle *o, int source, uint64_t session, bool take,
			    enum oracle_source answer)
{
	struct source *s = &o->sources[source];
	bool others = s->session != 0 && s->session != session;

	note(o, 66 + answer, (uint64_t)source, session);
	if (answer == ORACLE_SESSION_ENDED) {
		if (session_surely(o, session))
			broken(o, "session %llu lives, and was not allowed to represent source %d",
			       U(session), source);
		return;
	}
	if (answer == ORACLE_REPRESENTS) {
		if (!s->unknown && others && !take && session_surely(o, s->session))
			broken(o, "session %llu represents source %d, without a takeover from %llu",
			       U(session), source, U(s->session));
		/* An unanswered request may have been applied before or after this one. */
		*s = (struct source){.session = session,
				     .unknown = s->unknown && s->unknown_ms == o->now_ms,
				     .unknown_ms = s->unknown_ms};
	} else if (take || (!s->unknown && (!others || !session_maybe(o, s->session)))) {
		broken(o,
		       "session %llu was not allowed to represent source %d, which no other "
		       "session has",
		       U(session), source);
	}
}

void oracle_source_unknown(struct oracle *o, int source, uint64_t session)
{
	note(o, 69, (uint64_t)source, session);
	o->sources[source].unknown = true;
	o->sources[source].unknown_ms = o->now_ms;
}
