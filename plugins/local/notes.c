/* SPDX-License-Identifier: Apache-2.0
 * See notes.h. */
#include "notes.h"

#include <stddef.h>

/* FNV-1a; never 0. */
static uint64_t hash(const char *text)
{
	uint64_t hash = 14695981039346656037u;

	for (; *text != 0; text++)
		hash = (hash ^ (unsigned char)*text) * 1099511628211u;
	return hash != 0 ? hash : 1;
}

enum note_result notes_meet(struct notes *notes, const char *name, const char *why, uint64_t now_ms)
{
	const struct note met = {.name = hash(name),
				 .why = hash(why),
				 .logged_ms = now_ms,
				 .met = true};
	struct note *row = NULL;

	for (size_t i = 0; i < NOTES_MAX; i++) {
		if (notes->rows[i].name == met.name) {
			row = &notes->rows[i];
			break;
		}
		if (row == NULL && notes->rows[i].name == 0)
			row = &notes->rows[i];
	}
	if (row == NULL) {
		bool known = notes->full_logged;

		notes->full_logged = true;
		return known ? NOTE_KNOWN : NOTE_FULL;
	}
	if (row->name == met.name && row->why == met.why &&
	    now_ms - row->logged_ms < NOTE_AGAIN_MS) {
		row->met = true;
		return NOTE_KNOWN;
	}
	*row = met;
	return NOTE_NEW;
}

void notes_pass_end(struct notes *notes)
{
	for (size_t i = 0; i < NOTES_MAX; i++) {
		if (!notes->rows[i].met) {
			notes->rows[i] = (struct note){0};
			notes->full_logged = false;
		}
		notes->rows[i].met = false;
	}
}
