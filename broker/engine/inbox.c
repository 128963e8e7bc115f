/* SPDX-License-Identifier: Apache-2.0
 * One mutex, held for a few pointer moves; the taker empties everything at once, so the lock is touched once per batch and once per
 * submission. */
#include "broker/engine/inbox.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

static void lane_init(struct lane *lane)
{
	lane->head = NULL;
	lane->tail = &lane->head;
}

void lane_push(struct lane *lane, struct submission *submission)
{
	submission->next = NULL;
	*lane->tail = submission;
	lane->tail = &submission->next;
}

struct submission *lane_pop(struct lane *lane)
{
	struct submission *first = lane->head;

	if (first == NULL)
		return NULL;
	lane->head = first->next;
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
	lane_init(from);
}

void taken_init(struct taken *taken)
{
	lane_init(&taken->control);
	lane_init(&taken->data);
	taken->notes = NULL;
	taken->notes_tail = &taken->notes;
}

int inbox_init(struct inbox *inbox, uint64_t bytes_max)
{
	pthread_condattr_t attr;

	if (pthread_mutex_init(&inbox->lock, NULL) != 0)
		return SLUICE_E_NOMEM;
	/* Waits are measured on the monotone clock: a clock jump must not delay a lease. */
	if (pthread_condattr_init(&attr) != 0 || pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) != 0 ||
	    pthread_cond_init(&inbox->wake, &attr) != 0) {
		(void)pthread_mutex_destroy(&inbox->lock);
		return SLUICE_E_NOMEM;
	}
	(void)pthread_condattr_destroy(&attr);
	lane_init(&inbox->control);
	lane_init(&inbox->data);
	inbox->notes = NULL;
	inbox->notes_tail = &inbox->notes;
	atomic_init(&inbox->bytes, 0);
	inbox->bytes_max = bytes_max;
	inbox->stop = false;
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
	struct note *note = inbox->notes;

	lane_drop(&inbox->control);
	lane_drop(&inbox->data);
	while (note != NULL) {
		struct note *next = note->next;

		free(note);
		note = next;
	}
	(void)pthread_cond_destroy(&inbox->wake);
	(void)pthread_mutex_destroy(&inbox->lock);
}

int inbox_put(struct inbox *inbox, struct submission *submission)
{
	/* A single command larger than the whole bound could never pass; it may when nothing else waits. */
	uint64_t before = atomic_fetch_add(&inbox->bytes, submission->bytes);
	/* Acks, cancels and the like free room: they still pass when publishes no longer do. */
	uint64_t max = submission->control ? 2 * inbox->bytes_max : inbox->bytes_max;

	if (before != 0 && before + submission->bytes > max) {
		atomic_fetch_sub(&inbox->bytes, submission->bytes);
		return SLUICE_E_BUSY;
	}
	(void)pthread_mutex_lock(&inbox->lock);
	lane_push(submission->control ? &inbox->control : &inbox->data, submission);
	(void)pthread_mutex_unlock(&inbox->lock);
	return 0;
}

void inbox_wake(struct inbox *inbox)
{
	/* Not under the lock: who is woken would wait for it. */
	(void)pthread_cond_signal(&inbox->wake);
}

int inbox_note(struct inbox *inbox, const struct note *note)
{
	struct note *copy = malloc(sizeof(*copy));

	if (copy == NULL)
		return SLUICE_E_NOMEM;
	*copy = *note;
	copy->next = NULL;
	(void)pthread_mutex_lock(&inbox->lock);
	*inbox->notes_tail = copy;
	inbox->notes_tail = &copy->next;
	(void)pthread_mutex_unlock(&inbox->lock);
	(void)pthread_cond_signal(&inbox->wake);
	return 0;
}

void inbox_take(struct inbox *inbox, struct taken *io_taken)
{
	(void)pthread_mutex_lock(&inbox->lock);
	lane_move(&io_taken->control, &inbox->control);
	lane_move(&io_taken->data, &inbox->data);
	if (inbox->notes != NULL) {
		*io_taken->notes_tail = inbox->notes;
		io_taken->notes_tail = inbox->notes_tail;
		inbox->notes = NULL;
		inbox->notes_tail = &inbox->notes;
	}
	(void)pthread_mutex_unlock(&inbox->lock);
}

void inbox_answered(struct inbox *inbox, uint64_t bytes)
{
	atomic_fetch_sub(&inbox->bytes, bytes);
}

static bool idle(const struct inbox *inbox)
{
	return inbox->control.head == NULL && inbox->data.head == NULL && inbox->notes == NULL &&
	       !inbox->stop;
}

void inbox_wait(struct inbox *inbox, uint64_t wait_ms)
{
	struct timespec until;

	(void)clock_gettime(CLOCK_MONOTONIC, &until);
	if (wait_ms > 86400000)
		wait_ms =
			86400000; /* woken at least once a day: nothing depends on it, and the sum cannot overflow */
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
