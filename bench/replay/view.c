/* SPDX-License-Identifier: Apache-2.0
 * Output for people: progress during the run, and the comparison at its end. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "replay.h"

enum { BAR = 30, DISAGREEMENTS_MAX = 10 };

static const char *color(const struct replay *replay, const char *code)
{
	return replay->tty && getenv("NO_COLOR") == NULL ? code : "";
}

void view_progress(struct replay *replay, bool last)
{
	uint64_t now = mono_ms(), elapsed = now - replay->begin_ms;
	struct counts counts;
	char bar[BAR + 1], kills[96] = "";
	size_t filled;

	if (!last && now < replay->drawn_ms + (replay->tty ? 100 : 2000))
		return;
	replay->drawn_ms = now;
	(void)pthread_mutex_lock(&replay->lock);
	counts = replay->counts;
	(void)pthread_mutex_unlock(&replay->lock);
	filled = counts.terminal * BAR / replay->plan_count;
	memset(bar, '.', BAR);
	memset(bar, '#', filled);
	bar[BAR] = 0;
	if (replay->options.kill)
		(void)snprintf(kills, sizeof(kills),
			       "  kills: broker %" PRIu64 ", scheduler %" PRIu64,
			       replay->broker_kills, replay->scheduler_kills);
	(void)printf("%s[%s] %3zu%%  submitted %zu  active %zu  complete %zu  failed %zu  canceled "
		     "%zu  %" PRIu64 " events, %" PRIu64 "/s%s%s",
		     replay->tty ? "\r\033[K" : "", bar, counts.terminal * 100 / replay->plan_count,
		     counts.submitted, counts.active, counts.complete, counts.failed,
		     counts.canceled, counts.events,
		     elapsed > 0 ? counts.events * 1000 / elapsed : 0, kills,
		     replay->tty && !last ? "" : "\n");
	(void)fflush(stdout);
}

/* ---- the comparison ---- */

struct tally {
	size_t ledger, stream, starts, lost, twice, double_starts, wrong, reported;
};

static void disagree(struct replay *replay, struct tally *tally, const struct plan *plan,
		     const char *what)
{
	if (tally->reported++ < DISAGREEMENTS_MAX)
		(void)printf("  %s%s%s: %s (trace %s, ledger %s, stream %s in %u terminal events, "
			     "%u starts)\n",
			     color(replay, "\033[31m"), plan->id, color(replay, "\033[0m"), what,
			     expect_state(plan->expect),
			     plan->ledger_rows > 0 ? plan->ledger_state : "nothing",
			     plan->terminal_events > 0 ? plan->stream_state : "nothing",
			     plan->terminal_events, plan->starts);
}

static void compare(struct replay *replay, const struct plan *plan, struct tally *tally)
{
	const char *want = expect_state(plan->expect);
	uint32_t starts = plan->expect == EXPECT_CANCELED_WAITING ? 0 : 1;

	tally->ledger += plan->ledger_rows == 1 && plan->ledger_terminal &&
			 strcmp(plan->ledger_state, want) == 0;
	tally->stream += plan->terminal_events == 1 && strcmp(plan->stream_state, want) == 0;
	tally->starts += plan->starts == starts;
	if (plan->ledger_rows == 0 || plan->terminal_events == 0 || !plan->ledger_terminal) {
		tally->lost++;
		disagree(replay, tally, plan, "lost");
	} else if (plan->terminal_events > 1) {
		tally->twice++;
		disagree(replay, tally, plan, "has two terminal states");
	} else if (plan->starts > starts) {
		tally->double_starts++;
		disagree(replay, tally, plan, "was started more than once in one attempt");
	} else if (strcmp(plan->ledger_state, want) != 0 || strcmp(plan->stream_state, want) != 0 ||
		   plan->starts < starts) {
		tally->wrong++;
		disagree(replay, tally, plan, "has another outcome than the trace");
	}
}

static void view_kills(const struct replay *replay)
{
	if (!replay->options.kill)
		return;
	(void)printf("  SIGKILL       broker %" PRIu64 ", scheduler %" PRIu64
		     "; in the windows intent-start %" PRIu64 ", start-recording %" PRIu64
		     ", recording-report %" PRIu64 " (seed %" PRIu64 ")\n",
		     replay->broker_kills, replay->scheduler_kills, replay->window_kills[0],
		     replay->window_kills[1], replay->window_kills[2], replay->options.seed);
}

bool view_summary(struct replay *replay)
{
	struct tally tally = {0};
	size_t n = replay->plan_count;
	bool good;

	(void)printf("\nDo the four accounts agree?\n");
	for (size_t i = 0; i < n; i++)
		compare(replay, &replay->plans[i], &tally);
	(void)printf("  trace         %zu jobs: %s\n", n, replay->options.trace_path);
	(void)printf("  ledger        %zu of %zu in the trace's terminal state; audit: %" PRIu64
		     " findings; quarantine: %" PRIu64 "\n",
		     tally.ledger, n, replay->findings, replay->quarantined);
	(void)printf("  event stream  %zu of %zu with exactly one terminal event, the same one; "
		     "%" PRIu64 " events in all\n",
		     tally.stream, n, replay->counts.events);
	(void)printf("  processes     %zu of %zu started as often as they should (once; never, if "
		     "cancelled before)\n",
		     tally.starts, n);
	view_kills(replay);
	good = tally.ledger == n && tally.stream == n && tally.starts == n && replay->findings == 0;
	if (good && replay->options.kill && !chaos_done(replay)) {
		(void)printf("%sAll agree, but there were fewer kills than requested.%s\n",
			     color(replay, "\033[31m"), color(replay, "\033[0m"));
		return false;
	}
	if (good)
		(void)printf("%sThey agree: no job lost, none with two terminal states, none "
			     "started twice.%s\n",
			     color(replay, "\033[32m"), color(replay, "\033[0m"));
	else
		(void)printf("%sThey DISAGREE: %zu lost, %zu with two terminal states, %zu started "
			     "twice, %zu with another outcome, %" PRIu64 " audit findings.%s\n",
			     color(replay, "\033[31m"), tally.lost, tally.twice,
			     tally.double_starts, tally.wrong, replay->findings,
			     color(replay, "\033[0m"));
	return good;
}

void view_explain(struct replay *replay)
{
	sluice_reply *reply = NULL;

	if (sluice_job_explain(replay->client, replay->sample, NULL, &reply) == 0) {
		(void)printf("\n$ sluice job explain %s\n", replay->sample);
		for (size_t i = 0; sluice_reply_line(reply, i) != NULL; i++)
			(void)printf("  %s\n", sluice_reply_line(reply, i));
	}
	sluice_reply_free(reply);
}
