/* SPDX-License-Identifier: Apache-2.0
 *
 * The oracle's own state, time, the first broken promise, and sessions; it calls no other file of
 * the oracle. Includes nothing of the broker: the rules are written a second time, independently.
 *
 * A session lives while it is attached, and for exactly its timeout after that or after the last
 * sign of life: reads come after the broker has run at the same time. An ephemeral one
 * ends with its connection, a standing one only when it is closed. Time in which the process did
 * not run does not count. A connection that lost its session to another has no more effect.
 */
#include "tests/sim/oracle.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/oracle_internal.h"

void broken(struct oracle *o, const char *format, ...)
{
	va_list args;

	if (o->broken)
		return;
	o->broken = true;
	va_start(args, format);
	vsnprintf(o->why, sizeof(o->why), format, args);
	va_end(args);
}

void note(struct oracle *o, uint64_t a, uint64_t b, uint64_t c)
{
	const uint64_t parts[] = {a, b, c};

	if (o->trace)
		fprintf(stderr, "%llu: %llu %llu %llu\n", U(o->now_ms), U(a), U(b), U(c));

	for (size_t i = 0; i < 3; i++) {
		for (int shift = 0; shift < 64; shift += 8) {
			o->hash ^= parts[i] >> shift & 255;
			o->hash *= 1099511628211u;
		}
	}
}

struct oracle *oracle_create(const struct oracle_rules *rules)
{
	struct oracle *o = calloc(1, sizeof(*o));

	if (o != NULL) {
		o->commits.sent = calloc(ORACLE_COMMANDS_MAX, sizeof(*o->commits.sent));
		o->commits.answers = calloc(ORACLE_COMMANDS_MAX, sizeof(*o->commits.answers));
		if (o->commits.sent == NULL || o->commits.answers == NULL) {
			oracle_destroy(o);
			return NULL;
		}
		o->hash = 14695981039346656037u;
		o->rules = *rules;
	}
	return o;
}

void oracle_destroy(struct oracle *o)
{
	if (o == NULL)
		return;
	free(o->commits.sent);
	free(o->commits.answers);
	free(o);
}

const char *oracle_why(const struct oracle *o)
{
	return o->broken ? o->why : NULL;
}

uint64_t oracle_hash(const struct oracle *o)
{
	return o->hash;
}

void oracle_trace(struct oracle *o)
{
	o->trace = true;
}

void oracle_time(struct oracle *o, uint64_t now_ms)
{
	note(o, 1, now_ms, 0);
	o->events_read = false;
	o->before_ms = o->now_ms;
	o->now_ms = now_ms;
}

void oracle_blame(struct oracle *o, const char *what, int64_t a, int64_t b)
{
	broken(o, "%s (%" PRId64 ", %" PRId64 ")", what, a, b);
}

/* ---- sessions ---- */

static struct session *find(struct oracle *o, uint64_t id)
{
	for (uint32_t i = o->session_count; i > 0; i--) {
		if (o->sessions[i - 1].id == id)
			return &o->sessions[i - 1];
	}
	return NULL;
}

bool session_surely(const struct oracle *o, uint64_t id)
{
	const struct session *s = find((struct oracle *)o, id);

	return s != NULL && s->open && !s->maybe_ended && !s->left &&
	       (s->attached || o->now_ms < s->deadline_ms);
}

bool session_maybe(const struct oracle *o, uint64_t id)
{
	const struct session *s = find((struct oracle *)o, id);

	/* Commands that were sent before the connection ended are applied before the session ends,
	 * at the same time. */
	return s != NULL && s->open &&
	       (s->attached || o->now_ms < s->deadline_ms ||
		(s->left && o->now_ms == s->deadline_ms));
}

bool session_maybe_before(const struct oracle *o, uint64_t id)
{
	const struct session *s = find((struct oracle *)o, id);

	return s != NULL && s->open && (s->attached || o->before_ms < s->deadline_ms);
}

bool session_ephemeral(const struct oracle *o, uint64_t id)
{
	for (uint32_t i = 0; i < o->session_count; i++) {
		if (o->sessions[i].kind == ORACLE_EPHEMERAL && (id == 0 || o->sessions[i].id == id))
			return true;
	}
	return false;
}

static uint64_t deadline_of(const struct oracle *o, enum oracle_session_kind kind)
{
	return kind == ORACLE_STANDING ? UINT64_MAX : o->now_ms + o->rules.session_ms;
}

void oracle_session_opened(struct oracle *o, uint64_t id, enum oracle_session_kind kind)
{
	note(o, 20, id, kind);
	if (find(o, id) != NULL)
		broken(o, "session %llu was opened twice", U(id));
	if (o->session_count == ORACLE_SESSIONS_MAX)
		broken(o, "there are more sessions than the oracle can keep");
	else
		o->sessions[o->session_count++] =
			(struct session){.id = id,
					 .open = true,
					 .kind = kind,
					 .deadline_ms = deadline_of(o, kind)};
}

void oracle_session_attached(struct oracle *o, uint64_t id)
{
	struct session *s = find(o, id);

	note(o, 21, id, 0);
	if (s == NULL)
		return;
	/* It may be resumed until the broker has run after its deadline. The end of an
	 * ephemeral one is shown by reads. */
	if (!s->open || (!s->attached && !s->maybe_ended && s->kind != ORACLE_EPHEMERAL &&
			 s->deadline_ms <= o->before_ms))
		broken(o, "session %llu still lives after its end", U(id));
	s->attached = true;
}

void oracle_session_detached(struct oracle *o, uint64_t id)
{
	struct session *s = find(o, id);

	note(o, 22, id, 0);
	if (s == NULL)
		return;
	s->attached = false;
	s->left = s->kind == ORACLE_EPHEMERAL;
	s->deadline_ms = s->left ? o->now_ms : deadline_of(o, s->kind);
}

void oracle_session_touched(struct oracle *o, uint64_t id)
{
	struct session *s = find(o, id);

	note(o, 70, id, 0);
	/* The broker has had no turn since the last time. */
	if (s != NULL && s->open && !s->attached && s->deadline_ms > o->before_ms)
		s->deadline_ms = deadline_of(o, s->kind);
}

void oracle_stopped(struct oracle *o, uint64_t ms)
{
	note(o, 71, ms, 0);
	for (uint32_t i = 0; i < o->session_count; i++) {
		struct session *s = &o->sessions[i];

		if (!s->attached && s->deadline_ms != UINT64_MAX)
			s->deadline_ms += ms;
	}
}

void oracle_lost_answered(struct oracle *o, bool gone)
{
	note(o, 72, gone, 0);
	if (!gone)
		broken(o, "a command of a connection that lost its session was applied");
}

void oracle_session_closed(struct oracle *o, uint64_t id)
{
	struct session *s = find(o, id);

	note(o, 23, id, 0);
	if (s == NULL)
		return;
	if (!session_maybe(o, id))
		broken(o, "session %llu was closed after its end", U(id));
	s->open = false;
}

void oracle_session_close_unknown(struct oracle *o, uint64_t id)
{
	struct session *s = find(o, id);

	note(o, 24, id, 0);
	if (s != NULL)
		s->maybe_ended = true;
}

void oracle_session_shown(struct oracle *o, uint64_t id, bool exists)
{
	struct session *s = find(o, id);

	note(o, 25, id, exists);
	if (s == NULL)
		return;
	if (exists && (s->left || !session_maybe(o, id)))
		broken(o, "session %llu still lives after its end", U(id));
	if (!exists && session_surely(o, id))
		broken(o, "session %llu ended too early", U(id));
	s->open = exists;
	s->maybe_ended = false;
}

/* ---- consumers, as the rules of jobs need them; see oracle_demand.c ---- */

bool jobs_consumed_by(const struct oracle *o, uint64_t session)
{
	for (int i = 0; i < ORACLE_CONSUMERS_MAX; i++) {
		const struct consumer *c = &o->consumers[i];

		if (c->open && c->feed == 1 && c->session == session && !c->paused && !c->resumes)
			return true;
	}
	return false;
}
