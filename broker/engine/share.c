/* SPDX-License-Identifier: Apache-2.0
 *
 * Selects the sessions whose commands a batch takes. A batch is bounded by the bytes of its
 * commands, but a publish of 140 KB may be 100,000 items. So a commit ends at a bound of work.
 * Commands left over from the batch, and those that do not fit into one, wait here by session,
 * until no session has had more than a share.
 *
 * Sessions take turns in rounds. In each, a session may do QUANTUM of work; after a large command
 * it is skipped in as many rounds as that was worth. A session that is within its share, and whose
 * next command is estimated to be small, does not wait for its turn: it is taken at once (soon),
 * and so is each session that was not seen lately. After a batch with large commands the next batch
 * takes only sessions of `soon`. So a small request waits for the current commit and for a short
 * one, for any number of sessions with large commands, of commands that they send ahead, and also
 * where none of them is large. Only new sessions, and sessions within their shares, are ahead of
 * it. No session waits for ever: each second batch continues the round.
 *
 * The work of a command is estimated by its bytes and by the session's last commands; the share is
 * charged with the actual work. Order within each lane of a session stays.
 *
 * Control goes ahead of data. While data waits, it takes at most half of a batch, of its bytes and
 * of its estimated work, and about half of the work of a session: neither a flood of control by
 * others nor its own keeps a session's data out.
 */
#include "broker/engine/share.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/util/hash.h"
#include "broker/util/invariant.h"

/* A commit with large commands is shorter, since others wait for it. */
enum { COMMIT_WORK_MAX = 32768, LARGE_COMMIT_WORK_MAX = 16384 };

/* LONG_WORK: a commit that delays others noticeably. SMALL: work that delays nobody noticeably. */
enum { QUANTUM = 512, SMALL = 64, LONG_WORK = 16384 };

/* While `later` is empty, a batch counts as IDLE_ROUNDS rounds. It checks at most IDLE_CHECKS idle
 * sessions. */
enum { IDLE_ROUNDS = 8, IDLE_CHECKS = 64 };

/* PEAK_FADES: after this many small commands a large one has little weight. KEPT_BATCHES: batches
 * for which an idle session is kept. */
enum { PEAK_FADES = 16, KEPT_BATCHES = 256 };

static int64_t guess_of(const struct share *share, const struct submission *submission)
{
	int64_t by_bytes = 1 + (int64_t)(submission->bytes / BYTES_PER_RECORD);

	return share->guess > by_bytes ? share->guess : by_bytes;
}

static bool is_soon(const struct share *share, const struct submission *next)
{
	return share->left > 0 && share->peak <= SMALL && guess_of(share, next) <= SMALL;
}

/* ---- places ---- */

/* Appends it to that list; SHARE_APART: to none. */
static void place(struct shares *shares, struct share *share, enum share_place to)
{
	if (share->place != SHARE_APART)
		DL_DELETE(shares->lists[share->place], share);
	if (to != SHARE_APART)
		DL_APPEND(shares->lists[to], share);
	if (share->place == SHARE_LATER) {
		shares->waiting_later -= share->waiting;
		shares->data_later -= share->data_waiting;
	}
	if (to == SHARE_LATER) {
		shares->waiting_later += share->waiting;
		shares->data_later += share->data_waiting;
	}
	share->place = to;
}

static void waiting_add(struct shares *shares, struct share *share,
			const struct submission *submission, int by)
{
	const size_t data = submission->control ? 0 : (size_t)by;

	share->waiting += (size_t)by;
	share->data_waiting += data;
	shares->waiting += (size_t)by;
	shares->data_waiting += data;
	if (share->place != SHARE_LATER)
		return;
	shares->waiting_later += (size_t)by;
	shares->data_later += data;
}

static void share_init(struct share *share, uint64_t round)
{
	lane_init(&share->control);
	lane_init(&share->data);
	share->left = QUANTUM;
	share->round = round;
	share->place = SHARE_APART;
}

/* Adds its shares of the rounds since then. */
static void refill(const struct shares *shares, struct share *share)
{
	uint64_t rounds = shares->round - share->round;

	share->round = shares->round;
	if (rounds > (uint64_t)(QUANTUM - share->left) / QUANTUM)
		share->left = QUANTUM;
	else
		share->left += (int64_t)rounds * QUANTUM;
}

static struct session_key key_of(const struct submission *submission)
{
	return (struct session_key){submission->command.gateway,
				    submission->share != 0 ? submission->share
							   : submission->command.session};
}

static bool same_key(struct session_key a, struct session_key b)
{
	return a.session == b.session && a.gateway == b.gateway;
}

static struct share *share_of(struct shares *shares, const struct submission *submission)
{
	struct session_key key = key_of(submission);
	struct share *share;

	HASH_FIND(hh, shares->all, &key, sizeof(key), share);
	if (share != NULL)
		return share;
	if (shares->rest.waiting > 0)
		return &shares->rest; /* another share of the session may follow */
	share = calloc(1, sizeof(*share));
	if (share == NULL)
		return &shares->rest;
	share->key = key;
	share_init(share, shares->round);
	HASH_ADD(hh, shares->all, key, sizeof(share->key), share);
	if (HASHED(hh, share))
		return share;
	free(share);
	return &shares->rest;
}

static void share_drop(struct shares *shares, struct share *share)
{
	place(shares, share, SHARE_APART);
	HASH_DEL(shares->all, share);
	free(share);
}

void shares_init(struct shares *shares)
{
	*shares = (struct shares){0};
	share_init(&shares->rest, 0);
	place(shares, &shares->rest, SHARE_LATER);
}

void shares_fini(struct shares *shares)
{
	struct share *share, *next;

	HASH_ITER(hh, shares->all, share, next)
		share_drop(shares, share);
}

/* ---- pending entries ---- */

static void soon_first(struct shares *shares, struct share *share)
{
	DL_DELETE(shares->lists[SHARE_SOON], share);
	DL_PREPEND(shares->lists[SHARE_SOON], share);
}

/* A session has pending commands again. One that is known to have small commands is ahead of
 * others. */
static void enter(struct shares *shares, struct share *share, const struct submission *submission)
{
	refill(shares, share);
	if (share != &shares->rest && is_soon(share, submission)) {
		place(shares, share, SHARE_SOON);
		if (share->guess != 0)
			soon_first(shares, share);
	} else if (share->place != SHARE_LATER) {
		place(shares, share, SHARE_LATER);
	}
}

static struct lane *lane_of(struct share *share, const struct submission *submission)
{
	return submission->control ? &share->control : &share->data;
}

static void sort(struct shares *shares, struct lane *lane)
{
	struct submission *submission;
	struct share *share = NULL;

	while ((submission = lane_pop(lane)) != NULL) {
		if (share == NULL || !same_key(share->key, key_of(submission)))
			share = share_of(shares, submission);
		if (share->waiting == 0)
			enter(shares, share, submission);
		lane_push(lane_of(share, submission), submission);
		waiting_add(shares, share, submission, 1);
	}
}

/* ---- a batch ---- */

struct choice {
	struct taken *taken;
	int64_t work;	      /* budget of estimated work that is left */
	int64_t control_work; /* of that, for control while data waits */
	uint64_t bytes, bytes_max;
	uint64_t control_bytes;
	const size_t *data_waiting; /* where the batch looks for commands: of soon and later, or of
				       later */
	size_t count;
	bool large, full;
};

static void budget_add(struct choice *choice, int64_t work)
{
	choice->work += work;
	choice->control_work += work / 2;
}

/* Whether the first control command of the session may go ahead of data that waits. */
static bool control_may(const struct choice *choice, const struct share *share)
{
	if (*choice->data_waiting == 0)
		return true;
	if (choice->control_work <= 0 || (share->data.head != NULL && share->ahead >= QUANTUM / 2))
		return false;
	return choice->control_bytes == 0 ||
	       choice->control_bytes + share->control.head->bytes <= choice->bytes_max / 2;
}

/* The session's next command; NULL: none, or only control, and its part of the batch is used up. */
static struct submission *next_of(const struct choice *choice, const struct share *share)
{
	if (share->control.head != NULL && control_may(choice, share))
		return share->control.head;
	return share->data.head;
}

static void take(struct shares *shares, struct choice *choice, struct share *share,
		 struct submission *next)
{
	next->guess = guess_of(share, next);
	waiting_add(shares, share, next, -1);
	(void)lane_pop(lane_of(share, next));
	share->left -= next->guess;
	choice->work -= next->guess;
	choice->bytes += next->bytes;
	choice->count++;
	if (!next->control) {
		share->ahead = share->ahead > next->guess ? share->ahead - next->guess : 0;
		lane_push(&choice->taken->data, next);
		return;
	}
	if (share->data.head != NULL)
		share->ahead += next->guess;
	choice->control_work -= next->guess;
	choice->control_bytes += next->bytes;
	lane_push(&choice->taken->control, next);
}

/* Takes as many of the session's commands as its share and the batch allow; one command if there is
 * no estimate. The first command of a batch is always taken, and so is the first of `later`:
 * otherwise those of `soon` would keep a large one out of every batch. */
static bool serve(struct shares *shares, struct choice *choice, struct share *share, bool always)
{
	const size_t before = choice->count;
	struct submission *next;

	while (share->left > 0 && (next = next_of(choice, share)) != NULL &&
	       (share->place == SHARE_LATER || is_soon(share, next))) {
		if (!choice->large && (share->peak > SMALL || guess_of(share, next) > SMALL)) {
			choice->large = true;
			budget_add(choice, LARGE_COMMIT_WORK_MAX - COMMIT_WORK_MAX);
		}
		always = always || choice->count == 0;
		choice->full = choice->work <= 0 ||
			       (choice->bytes + next->bytes > choice->bytes_max && !always);
		if (choice->full)
			break;
		always = false;
		take(shares, choice, share, next);
		if (share->guess == 0 && share->place == SHARE_SOON)
			break;
	}
	return choice->count > before;
}

static void serve_soon(struct shares *shares, struct choice *choice)
{
	struct share *share;

	choice->data_waiting = &shares->data_waiting;
	while ((share = shares->lists[SHARE_SOON]) != NULL) {
		const struct submission *next;

		refill(shares, share);
		(void)serve(shares, choice, share, false);
		if (choice->full)
			return;
		next = next_of(choice, share);
		place(shares, share,
		      share->waiting == 0		     ? SHARE_IDLE
		      : next != NULL && is_soon(share, next) ? SHARE_SOON
							     : SHARE_LATER);
	}
}

/* Rounds continue until the batch is full. A complete round in which no session could do anything
 * determines how many such rounds to skip. */
static void serve_later(struct shares *shares, struct choice *choice)
{
	int64_t nearest = INT64_MIN;
	bool first = true, any = false, whole = false;

	choice->data_waiting = &shares->data_later;
	while (shares->waiting_later > 0) {
		struct share *share = shares->lists[SHARE_LATER];

		refill(shares, share);
		if (serve(shares, choice, share, first)) {
			first = false;
			any = true;
		}
		if (choice->full)
			return;
		if (next_of(choice, share) != NULL && share->left > nearest)
			nearest = share->left;
		place(shares, share,
		      share->waiting > 0 || share == &shares->rest ? SHARE_LATER : SHARE_IDLE);
		if (share != &shares->rest)
			continue;
		shares->round += any || !whole ? 1 : (uint64_t)(-nearest / QUANTUM) + 1;
		nearest = INT64_MIN;
		any = false;
		whole = true;
	}
}

/* Drops a session that has its whole share and was not seen for a while: it equals a new one. */
static void drop_unseen(struct shares *shares)
{
	struct share *share;

	if (shares->waiting_later == 0)
		shares->round += IDLE_ROUNDS;
	for (int checked = 0; checked < IDLE_CHECKS && (share = shares->lists[SHARE_IDLE]) != NULL;
	     checked++) {
		if (shares->batches - share->seen <= KEPT_BATCHES)
			return;
		refill(shares, share);
		if (share->left >= QUANTUM)
			share_drop(shares, share);
		else
			place(shares, share, SHARE_IDLE);
	}
}

void shares_choose(struct shares *shares, struct taken *taken, uint64_t bytes_max)
{
	struct choice choice = {.taken = taken, .bytes_max = bytes_max};
	bool was_large = shares->large;

	shares->sorted = shares->all != NULL || shares->rest.waiting > 0 || was_large;
	shares->large = false;
	if (!shares->sorted)
		return;
	shares->batches++;
	sort(shares, &taken->control);
	sort(shares, &taken->data);
	drop_unseen(shares);
	budget_add(&choice, COMMIT_WORK_MAX);
	if (shares->lists[SHARE_SOON] != NULL && (was_large || shares->waiting_later == 0)) {
		serve_soon(shares, &choice);
		if (choice.count > 0)
			return;
	}
	budget_add(&choice, LARGE_COMMIT_WORK_MAX / 2 - COMMIT_WORK_MAX);
	serve_soon(shares, &choice);
	budget_add(&choice, COMMIT_WORK_MAX - LARGE_COMMIT_WORK_MAX / 2);
	choice.full = false;
	serve_later(shares, &choice);
	shares->large = choice.large;
	invariant(choice.count > 0 || shares->waiting == 0, "%zu commands wait, and none is taken",
		  shares->waiting);
}

bool shares_enough(const struct shares *shares, uint64_t work)
{
	return work >= (shares->large ? LARGE_COMMIT_WORK_MAX : COMMIT_WORK_MAX);
}

/* ---- after a commit ---- */

/* Returns the excess of a charge. */
static void give(struct share *share, int64_t work)
{
	share->left += work;
	if (share->left > QUANTUM)
		share->left = QUANTUM; /* it was charged in an earlier round */
}

/* `count` consecutive commands of one session. */
static void charge(struct shares *shares, struct submission *const *done, size_t count,
		   int64_t work)
{
	struct share *share;

	if (!shares->sorted && work < SMALL)
		return;
	share = share_of(shares, done[0]);
	refill(shares, share);
	for (size_t i = 0; i < count; i++) {
		work -= done[i]->guess;
		share->guess = (share->guess + done[i]->work + 1) / 2;
		share->peak -= share->peak / PEAK_FADES;
		share->peak = done[i]->work > share->peak ? done[i]->work : share->peak;
	}
	share->seen = shares->batches;
	give(share, -work);
	if (share->place == SHARE_APART || share->place == SHARE_IDLE)
		place(shares, share, SHARE_IDLE); /* last in the list */
}

static bool same_session(const struct submission *a, const struct submission *b)
{
	return same_key(key_of(a), key_of(b));
}

void shares_charge(struct shares *shares, struct submission *const *done, size_t count,
		   uint64_t work)
{
	size_t next;

	if (!shares->sorted && work < LONG_WORK)
		return;
	shares->large = shares->large || !shares->sorted;
	for (size_t i = 0; i < count; i = next) {
		int64_t sum = 0;

		for (next = i; next < count && same_session(done[i], done[next]); next++) {
			/* A refused command costs work, too. */
			if (done[next]->work == 0)
				done[next]->work = 1;
			sum += done[next]->work;
		}
		if (done[i]->sink != NULL)
			charge(shares, done + i, next - i, sum);
	}
}

void shares_return(struct shares *shares, struct taken *taken, struct submission *submission)
{
	struct share *share;

	if (!shares->sorted) {
		lane_push_first(submission->control ? &taken->control : &taken->data, submission);
		return;
	}
	share = share_of(shares, submission);
	give(share, submission->guess);
	if (submission->control)
		share->ahead =
			share->ahead > submission->guess ? share->ahead - submission->guess : 0;
	submission->guess = 0;
	if (share->waiting == 0)
		enter(shares, share, submission);
	if (share->place == SHARE_SOON)
		soon_first(shares, share);
	lane_push_first(lane_of(share, submission), submission);
	waiting_add(shares, share, submission, 1);
}

void shares_each(const struct shares *shares, void (*each)(void *user, const struct lane *lane),
		 void *user)
{
	const struct share *share = &shares->rest;

	while (share != NULL) {
		each(user, &share->control);
		each(user, &share->data);
		share = share == &shares->rest ? shares->all : share->hh.next;
	}
}

struct submission *shares_pop(struct shares *shares)
{
	struct share *share = shares->rest.waiting > 0 ? &shares->rest : shares->all;
	struct submission *submission;

	while (share != NULL && share->waiting == 0)
		share = share->hh.next;
	if (share == NULL)
		return NULL;
	submission = share->control.head != NULL ? share->control.head : share->data.head;
	waiting_add(shares, share, submission, -1);
	return lane_pop(lane_of(share, submission));
}
