/* SPDX-License-Identifier: Apache-2.0
 * One mutex, held for a few pointer moves; inbox_take() empties all lists at once, so the lock is
 * taken once per batch and once per submission. */
#include "broker/engine/inbox.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

#include "broker/util/invariant.h"
#include "protocol/limits.h"

void lane_init(struct lane *lane)
{
	lane->head = NULL;
	lane->tail = &lane->head;
	lane->bytes = 0;
}

void lane_push(struct lane *lane, struct submission *submission)
{
	submission->next = NULL;
	*lane->tail = submission;
	lane->tail = &submission->next;
	lane->bytes += submission->bytes;
}

void lane_push_first(struct lane *lane, struct submission *submission)
{
	submission->next = lane->head;
	if (lane->head == NULL)
		lane->tail = &submission->next;
	lane->head = submission;
	lane->bytes += submission->bytes;
}

struct submission *lane_pop(struct lane *lane)
{
	struct submission *first = lane->head;

	invariant((first == NULL) == (lane->tail == &lane->head),
		  "an empty lane has a last submission");
	if (first == NULL)
		return NULL;
	lane->head = first->next;
	lane->bytes -= first->bytes;
	if (lane->head == NULL)
		lane->tail = &lane->head;
	return first;
}

static void lane_move(struct lane *to, struct lane *from)
{
	if (from->head == NULL)
		return;
	*to->tail = from->head;
	to->tail = from->tail;
	to->bytes += from->bytes;
	lane_init(from);
}

void taken_init(struct taken *taken)
{
	lane_init(&taken->control);
	lane_init(&taken->data);
	taken->notes = NULL;
	taken->touches = (struct touches){0};
}

void taken_fini(struct taken *taken)
{
	free(taken->touches.list);
}

uint64_t taken_control_max(const struct taken *taken, uint64_t bytes_max)
{
	uint64_t half = bytes_max / 2;

	return bytes_max - (taken->data.bytes < half ? taken->data.bytes : half);
}

int inbox_init(struct inbox *inbox, uint64_t bytes_max)
{
	pthread_condattr_t attr;

	if (pthread_mutex_init(&inbox->lock, NULL) != 0)
		return SLUICE_E_NOMEM;
	/* Waits are measured on the monotone clock: a clock jump must not delay a lease. */
	if (pthread_condattr_init(&attr) != 0 ||
	    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 ||
	    pthread_cond_init(&inbox->wake, &attr) != 0) {
		(void)pthread_mutex_destroy(&inbox->lock);
		return SLUICE_E_NOMEM;
	}
	(void)pthread_condattr_destroy(&attr);
	lane_init(&inbox->control);
	lane_init(&inbox->data);
	inbox->notes = inbox->spares = NULL;
	memset(inbox->note_buckets, 0, sizeof(inbox->note_buckets));
	inbox->take = 0;
	inbox->note_count = inbox->gone = 0;
	inbox->spare_count = inbox->reserved = 0;
	inbox->touches = (struct touches){0};
	atomic_init(&inbox->bytes, 0);
	inbox->bytes_max = bytes_max;
	inbox->stop = inbox->nudged = false;
	return 0;
}

static void lane_drop(struct lane *lane)
{
	struct submission *submission;

	while ((submission = lane_pop(lane)) != NULL)
		submission->destroy(submission);
}

void inbox_fini(struct inbox *inbox)
{
	struct note *note, *next;

	lane_drop(&inbox->control);
	lane_drop(&inbox->data);
	DL_FOREACH_SAFE(inbox->notes, note, next)
		free(note);
	while ((note = inbox->spares) != NULL) {
		inbox->spares = note->bucket_next;
		free(note);
	}
	free(inbox->touches.list);
	(void)pthread_cond_destroy(&inbox->wake);
	(void)pthread_mutex_destroy(&inbox->lock);
}

int inbox_put(struct inbox *inbox, struct submission *submission)
{
	/* A single command above the whole bound could never pass; it may when the inbox is
	 * empty. */
	const uint64_t bytes = submission->bytes + SUBMISSION_BYTES;
	uint64_t before = atomic_fetch_add(&inbox->bytes, bytes);
	/* Acks, cancels and the like free room: they still pass when publishes do not. */
	uint64_t max = submission->control ? 2 * inbox->bytes_max : inbox->bytes_max;

	if (before != 0 && before + bytes > max) {
		atomic_fetch_sub(&inbox->bytes, bytes);
		return SLUICE_E_BUSY;
	}
	(void)pthread_mutex_lock(&inbox->lock);
	lane_push(submission->control ? &inbox->control : &inbox->data, submission);
	(void)pthread_mutex_unlock(&inbox->lock);
	return 0;
}

void inbox_wake(struct inbox *inbox)
{
	/* After the lock was released: the woken thread would wait for it. */
	(void)pthread_cond_signal(&inbox->wake);
}

void inbox_nudge(struct inbox *inbox)
{
	(void)pthread_mutex_lock(&inbox->lock);
	inbox->nudged = true;
	(void)pthread_cond_signal(&inbox->wake);
	(void)pthread_mutex_unlock(&inbox->lock);
}

/* ---- notes; all below with the lock held ---- */

static bool same_holder(const struct note *a, const struct note *b)
{
	return a->spec.sink == b->spec.sink && a->spec.tag == b->spec.tag;
}

/* Of one consumer, or of one session. */
static bool same(const struct note *a, const struct note *b)
{
	if (a->kind != b->kind)
		return false;
	if (a->kind == NOTE_CONSUMER)
		return same_holder(a, b);
	return a->spec.gateway == b->spec.gateway && a->spec.session == b->spec.session;
}

static struct note **bucket_of(struct inbox *inbox, const struct note *note)
{
	uint64_t mix = note->kind == NOTE_CONSUMER
			       ? (uint64_t)(uintptr_t)note->spec.sink ^ note->spec.tag
			       : note->spec.session ^ (uint64_t)note->spec.gateway << 40;
	struct note_bucket *bucket =
		&inbox->note_buckets[(mix * 0x9E3779B97F4A7C15ull >> 32) % NOTE_BUCKETS];

	if (bucket->take != inbox->take)
		*bucket = (struct note_bucket){NULL, inbox->take};
	return &bucket->first;
}

static struct note *note_find(struct inbox *inbox, const struct note *like)
{
	struct note *note = *bucket_of(inbox, like);

	while (note != NULL && !same(note, like))
		note = note->bucket_next;
	return note;
}

static void note_unlist(struct inbox *inbox, struct note *note)
{
	struct note **at = bucket_of(inbox, note);

	while (*at != note) {
		invariant(*at != NULL, "a note of kind %d is not in its bucket", (int)note->kind);
		at = &(*at)->bucket_next;
	}
	*at = note->bucket_next;
	DL_DELETE(inbox->notes, note);
	inbox->note_count--;
	atomic_fetch_sub(&inbox->bytes, NOTE_BYTES);
}

static void spare_add(struct inbox *inbox, struct note *note)
{
	note->bucket_next = inbox->spares;
	inbox->spares = note;
	inbox->spare_count++;
}

/* Memory for one more consumer or attached session. */
static int reserve(struct inbox *inbox)
{
	struct note *spare = malloc(sizeof(*spare));

	if (spare == NULL)
		return SLUICE_E_NOMEM;
	spare_add(inbox, spare);
	inbox->reserved++;
	return 0;
}

static void unreserve(struct inbox *inbox, size_t count)
{
	/* A sink may close twice what it opened once: the reserve of others stays. */
	inbox->reserved -= count < inbox->reserved ? count : inbox->reserved;
	while (inbox->spare_count > inbox->reserved) {
		struct note *spare = inbox->spares;

		inbox->spares = spare->bucket_next;
		inbox->spare_count--;
		free(spare);
	}
}

static int note_append(struct inbox *inbox, const struct note *note)
{
	struct note **bucket = bucket_of(inbox, note);
	struct note *own = inbox->spares;

	if (own != NULL) {
		inbox->spares = own->bucket_next;
		inbox->spare_count--;
	} else {
		/* Of a consumer that is not open, or of a session that is not attached. */
		own = malloc(sizeof(*own));
		if (own == NULL)
			return SLUICE_E_NOMEM;
	}
	*own = *note;
	own->bucket_next = *bucket;
	*bucket = own;
	DL_APPEND(inbox->notes, own);
	inbox->note_count++;
	atomic_fetch_add(&inbox->bytes, NOTE_BYTES);
	return 0;
}

/* The bound of the control lane. */
static bool may_append(struct inbox *inbox, const struct note *note)
{
	if (note->close || note->detach || note->pause)
		return true;
	return atomic_load(&inbox->bytes) + NOTE_BYTES <= 2 * inbox->bytes_max;
}

static void credit_add(struct note *to, uint32_t more)
{
	uint32_t most = (uint32_t)LIMIT_CREDIT_MAX;

	to->spec.credit = to->spec.credit < most && more < most - to->spec.credit
				  ? to->spec.credit + more
				  : most;
}

static void consumer_merge(struct inbox *inbox, struct note *waiting, const struct note *note,
			   bool *ret_unseen)
{
	if (note->pause) {
		waiting->pause = true;
		waiting->paused = note->paused;
	}
	credit_add(waiting, note->spec.credit);
	if (!note->close)
		return;
	if (!waiting->open) {
		waiting->close = true;
		return;
	}
	/* The engine has never seen this consumer. */
	*ret_unseen = true;
	note_unlist(inbox, waiting);
	spare_add(inbox, waiting);
	unreserve(inbox, 1);
}

/* `last` is the last pending note of the session, of any connection. The engine has not seen a
 * connection whose attach is pending, so one that is gone again needs no note, unless another
 * connection took the session from it: then its commands are to be refused. */
static int session_attach(struct inbox *inbox, struct note *last, const struct note *note)
{
	bool same_one = same_holder(last, note);

	if (!same_one && !(last->attach && last->detach))
		return note_append(inbox, note);
	if (last->detach)
		unreserve(inbox, 1);
	last->spec = note->spec;
	last->attach = true;
	last->detach = false;
	return 0;
}

static int session_detach(struct inbox *inbox, struct note *last, const struct note *note)
{
	struct note *own = last;
	bool moved = false;

	for (; own != NULL; own = own->bucket_next) {
		if (!same(own, note))
			continue;
		if (same_holder(own, note) && own->attach && !own->detach)
			break;
		moved |= own->attach;
	}
	if (own == NULL)
		return note_append(inbox, note); /* the engine knows that it has the session */
	own->detach = true;
	own->moved = moved;
	inbox->gone += moved;
	own->idle_ms = note->idle_ms;
	own->used = note->used;
	return 0;
}

static int note_put(struct inbox *inbox, const struct note *note, bool *ret_unseen)
{
	struct note *waiting = note_find(inbox, note);
	int rc = 0;

	if ((waiting == NULL || note->open || note->attach) && !may_append(inbox, note))
		return SLUICE_E_BUSY;
	if (note->attach && waiting != NULL && inbox->gone >= LIMIT_SESSION_MOVES_MAX)
		return SLUICE_E_BUSY;
	if (note->open || note->attach)
		rc = reserve(inbox);
	if (rc != 0)
		return rc;
	if (waiting == NULL || note->open)
		return note_append(inbox, note);
	if (note->kind == NOTE_SESSION)
		return note->attach ? session_attach(inbox, waiting, note)
				    : session_detach(inbox, waiting, note);
	if (!waiting->close)
		consumer_merge(inbox, waiting, note, ret_unseen);
	return 0;
}

/* ---- without the lock ---- */

int inbox_note(struct inbox *inbox, const struct note *note)
{
	bool unseen;

	return inbox_consumer_close(inbox, note, &unseen);
}

int inbox_consumer_close(struct inbox *inbox, const struct note *note, bool *ret_unseen)
{
	int rc;

	*ret_unseen = false;
	(void)pthread_mutex_lock(&inbox->lock);
	rc = note_put(inbox, note, ret_unseen);
	(void)pthread_mutex_unlock(&inbox->lock);
	if (rc == 0)
		(void)pthread_cond_signal(&inbox->wake);
	return rc;
}

void inbox_notes_done(struct inbox *inbox, struct note *notes, size_t closed)
{
	struct note *note, *next;
	uint64_t count = 0;

	(void)pthread_mutex_lock(&inbox->lock);
	DL_FOREACH_SAFE(notes, note, next) {
		spare_add(inbox, note);
		count++;
	}
	atomic_fetch_sub(&inbox->bytes, count * NOTE_BYTES);
	unreserve(inbox, closed);
	(void)pthread_mutex_unlock(&inbox->lock);
}

static int touches_reserve(struct touches *touches, size_t count)
{
	size_t capacity = touches->capacity == 0 ? 1024 : touches->capacity;
	struct touch *list;

	if (count <= touches->capacity)
		return 0;
	while (capacity < count)
		capacity *= 2;
	list = realloc(touches->list, capacity * sizeof(*list));
	if (list == NULL)
		return SLUICE_E_NOMEM;
	touches->list = list;
	touches->capacity = capacity;
	return 0;
}

int inbox_touch(struct inbox *inbox, const struct session_number *sessions, size_t count,
		uint64_t at_ms)
{
	struct touches *touches = &inbox->touches;
	int rc = SLUICE_E_BUSY;

	(void)pthread_mutex_lock(&inbox->lock);
	if (count <= LIMIT_SESSION_TOUCHES_MAX &&
	    touches->count <= LIMIT_SESSION_TOUCHES_MAX - count)
		rc = touches_reserve(touches, touches->count + count);
	for (size_t i = 0; rc == 0 && i < count; i++)
		touches->list[touches->count++] = (struct touch){.gateway = sessions[i].gateway,
								 .session = sessions[i].session,
								 .at_ms = at_ms};
	(void)pthread_mutex_unlock(&inbox->lock);
	return rc;
}

size_t inbox_notes_waiting(struct inbox *inbox)
{
	size_t count;

	(void)pthread_mutex_lock(&inbox->lock);
	count = inbox->note_count;
	(void)pthread_mutex_unlock(&inbox->lock);
	return count;
}

void inbox_take(struct inbox *inbox, struct taken *io_taken)
{
	(void)pthread_mutex_lock(&inbox->lock);
	inbox->nudged = false;
	if (inbox->touches.count > 0) {
		struct touches handled = io_taken->touches;

		io_taken->touches = inbox->touches;
		inbox->touches = handled;
	} else {
		io_taken->touches.count = 0;
	}
	inbox->touches.count = 0;
	lane_move(&io_taken->control, &inbox->control);
	lane_move(&io_taken->data, &inbox->data);
	if (inbox->notes != NULL) {
		DL_CONCAT(io_taken->notes, inbox->notes);
		inbox->notes = NULL;
		inbox->note_count = inbox->gone = 0;
		inbox->take++;
	}
	(void)pthread_mutex_unlock(&inbox->lock);
}

void inbox_answered(struct inbox *inbox, uint64_t bytes)
{
	uint64_t before;

	bytes += SUBMISSION_BYTES;
	before = atomic_fetch_sub(&inbox->bytes, bytes);
	invariant(before >= bytes, "%llu bytes wait, %llu are answered", ULL(before), ULL(bytes));
}

static bool idle(const struct inbox *inbox)
{
	return inbox->control.head == NULL && inbox->data.head == NULL && inbox->notes == NULL &&
	       !inbox->stop && !inbox->nudged;
}

void inbox_wait(struct inbox *inbox, uint64_t wait_ms)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	if (wait_ms > 86400000)
		wait_ms = 86400000; /* wakes at least once a day: the sum cannot overflow */
	until.tv_sec += (time_t)(wait_ms / 1000);
	until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_mutex_lock(&inbox->lock);
	while (idle(inbox))
		if (pthread_cond_timedwait(&inbox->wake, &inbox->lock, &until) == ETIMEDOUT)
			break;
	(void)pthread_mutex_unlock(&inbox->lock);
}

void inbox_stop(struct inbox *inbox)
{
	(void)pthread_mutex_lock(&inbox->lock);
	inbox->stop = true;
	(void)pthread_cond_signal(&inbox->wake);
	(void)pthread_mutex_unlock(&inbox->lock);
}
