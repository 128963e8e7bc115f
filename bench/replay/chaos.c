/* SPDX-License-Identifier: Apache-2.0
 *
 * SIGKILL for broker and scheduler. The broker at random moments; the scheduler at random moments
 * too, and, in turn, in each window between intent, start, recording and report: there it is
 * started with a pause setting, stops itself at the window, and is killed.
 */
#include "replay.h"

enum { WINDOW_KILLS_MIN = 5, WINDOW_WAIT_MS = 4000 };

static struct {
	uint64_t broker_due, scheduler_due;
	int window; /* the window in which the scheduler is to be killed; -1: at a random moment */
	uint64_t window_until;
} chaos;

bool chaos_kills_done(const struct replay *replay)
{
	return replay->broker_kills >= replay->options.kills &&
	       replay->scheduler_kills >= replay->options.kills;
}

bool chaos_done(const struct replay *replay)
{
	for (int i = 0; i < WINDOWS; i++)
		if (replay->window_kills[i] < WINDOW_KILLS_MIN)
			return false;
	return chaos_kills_done(replay);
}

static double share(uint64_t have, uint64_t want)
{
	return have >= want ? 1 : (double)have / (double)want;
}

double chaos_share(const struct replay *replay)
{
	double least = share(replay->broker_kills, replay->options.kills),
	       s = share(replay->scheduler_kills, replay->options.kills);

	least = s < least ? s : least;
	for (int i = 0; i < WINDOWS; i++) {
		s = share(replay->window_kills[i], WINDOW_KILLS_MIN);
		least = s < least ? s : least;
	}
	return least;
}

/* Every other time the window with the fewest kills; else -1: a random moment. */
static int next_window(const struct replay *replay)
{
	int least = 0;

	for (int i = 1; i < WINDOWS; i++)
		if (replay->window_kills[i] < replay->window_kills[least])
			least = i;
	if (replay->window_kills[least] >= WINDOW_KILLS_MIN && replay->scheduler_kills % 2 == 0)
		return -1;
	return replay->scheduler_kills % 3 == 2 ? -1 : least;
}

static void scheduler_again(struct replay *replay, uint64_t now)
{
	chaos.window = next_window(replay);
	scheduler_start(replay, chaos.window >= 0 ? window_names[chaos.window] : NULL);
	chaos.scheduler_due = now + 150 + rand_next(replay) % 500;
	chaos.window_until = now + WINDOW_WAIT_MS;
}

static void scheduler_turn(struct replay *replay, uint64_t now)
{
	if (chaos.window >= 0 && scheduler_paused(replay)) {
		scheduler_kill(replay);
		replay->window_kills[chaos.window]++;
	} else if (chaos.window >= 0 ? now >= chaos.window_until : now >= chaos.scheduler_due) {
		scheduler_kill(replay);
	} else {
		return;
	}
	replay->scheduler_kills++;
	scheduler_again(replay, now);
}

void chaos_turn(struct replay *replay, uint64_t now)
{
	if (chaos.broker_due == 0) {
		chaos.broker_due = now + 300;
		chaos.window = -1;
		chaos.scheduler_due = now + 500;
	}
	if (chaos_done(replay)) {
		/* The last scheduler must not stop itself. */
		if (chaos.window >= 0) {
			scheduler_kill(replay);
			replay->scheduler_kills++;
			chaos.window = -1;
			scheduler_start(replay, NULL);
		}
		return;
	}
	scheduler_turn(replay, now);
	if (now < chaos.broker_due)
		return;
	broker_kill(replay);
	replay->broker_kills++;
	broker_start(replay);
	chaos.broker_due = mono_ms() + 150 + rand_next(replay) % 600;
}
