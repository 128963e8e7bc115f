/* SPDX-License-Identifier: Apache-2.0
 *
 * A timer wheel: many deadlines, of which few are due. Setting, moving and removing one is O(1); a
 * pass costs the slots whose time has come and their entries, for any number of others. One thread.
 */
#ifndef SLUICE_NET_WHEEL_H
#define SLUICE_NET_WHEEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A deadline further away than one turn (102 s) is visited once per turn. */
enum { WHEEL_SLOTS = 1024, WHEEL_TICK_MS = 100 };

/* Embedded in the object that has the deadline; zeroed before its first use. */
struct wheel_entry {
	struct wheel_entry *prev, *next;
	uint64_t due_ms; /* monotone */
	uint32_t list;	 /* index in wheel.lists; only while set */
	bool set;
};
struct wheel {
	/* the last: entries of a slot whose time has come, not yet checked */
	struct wheel_entry *lists[WHEEL_SLOTS + 1];
	uint64_t tick; /* the next one to check */
	size_t count;
	uint64_t visited; /* entries that wheel_due has checked, for tests */
};

void wheel_init(struct wheel *wheel, uint64_t now_ms);
/* Sets or moves a deadline. One that has passed already is due at the next pass. */
void wheel_set(struct wheel *wheel, struct wheel_entry *entry, uint64_t due_ms);
void wheel_remove(struct wheel *wheel, struct wheel_entry *entry); /* nothing when it is not set */
/* Removes and returns one whose deadline is not after now_ms, at most WHEEL_TICK_MS late; NULL:
 * none. */
struct wheel_entry *wheel_due(struct wheel *wheel, uint64_t now_ms);

#endif
