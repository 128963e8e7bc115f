/* SPDX-License-Identifier: Apache-2.0
 *
 * What the log has said of things that stay in the spool, so that a pass that meets them again logs
 * nothing: each is logged once, again when the cause changes, and once a day.
 *
 * Invariant: NOTES_MAX of them are known at most; beyond that one line says that there are more.
 */
#ifndef SLUICE_LOCAL_NOTES_H
#define SLUICE_LOCAL_NOTES_H

#include <stdbool.h>
#include <stdint.h>

enum { NOTES_MAX = 128, NOTE_AGAIN_MS = 86400000 };
struct note {
	uint64_t name, why; /* hashes; name 0: a free row */
	uint64_t logged_ms;
	bool met; /* in this pass */
};
struct notes {
	struct note rows[NOTES_MAX];
	bool full_logged;
};

enum note_result {
	NOTE_KNOWN, /* nothing is to be logged */
	NOTE_NEW,   /* it is to be logged */
	NOTE_FULL   /* that there are more than are known is to be logged */
};
/* Meets one, by its name and the cause for which it stays. */
enum note_result notes_meet(struct notes *notes, const char *name, const char *why,
			    uint64_t now_ms);
/* A pass is over: those that it did not meet are forgotten. */
void notes_pass_end(struct notes *notes);

#endif
