/* SPDX-License-Identifier: Apache-2.0
 *
 * Which of a lifecycle's states stand for what a scheduler reports. A lifecycle may name its states
 * as it likes; the mapping comes from settings, or is chosen where only one state can be meant, and
 * is checked before it is used: a state that is not legal would put every end of a job into
 * quarantine.
 *
 * No I/O; blocks for nothing.
 */
#ifndef SLUICE_LOCAL_LIFECYCLE_H
#define SLUICE_LOCAL_LIFECYCLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum role { ROLE_ACTIVE, ROLE_COMPLETE, ROLE_FAILED, ROLE_CANCELED, ROLES };
enum { LIFECYCLE_STATES_MAX = 64 }; /* as in limits.def: LIFECYCLE_STATES_MAX */

struct lifecycle {
	char *name;
	char *states[LIFECYCLE_STATES_MAX];  /* the first is the initial one */
	uint64_t next[LIFECYCLE_STATES_MAX]; /* bits of the states that may follow */
	bool terminal[LIFECYCLE_STATES_MAX];
	size_t count;
	char *cancelled, *failed; /* where the broker's own verdicts lead; NULL: not said */
	size_t role[ROLES];	  /* index of a state; valid after lifecycle_map() */
};

/* Reads the answer to `show` of a lifecycle, as JSON (sluice_reply_json). INVAL: it is none; NOMEM.
 * Owned: lifecycle_free. */
int lifecycle_read(const char *json, struct lifecycle *ret);
void lifecycle_free(struct lifecycle *lifecycle);

/* The names of the settings, and of the default states: those of the lifecycle that comes with the
 * broker. */
const char *lifecycle_setting(enum role role);

/* Finds the state of each role. wanted[role] is a setting; NULL: not set, then it is the default
 * name if the lifecycle has it, else the only state that can be meant. INVAL: a name is no state,
 * or not legal for the role, or none is given and several or no states can be meant; why names the
 * setting and the legal states. */
int lifecycle_map(struct lifecycle *lifecycle, const char *const wanted[ROLES], char *why,
		  size_t why_bytes);
const char *lifecycle_state(const struct lifecycle *lifecycle, enum role role);
/* Whether a job in this state may go to that of the role in one step. A state that is not known:
 * true, the broker decides. */
bool lifecycle_can(const struct lifecycle *lifecycle, const char *from, enum role to);

#endif
