/* SPDX-License-Identifier: Apache-2.0
 * Makes the calls of the store fail that faults_plan.c chose. */
#include <string.h>

#include "tests/sim/plants.h"
#include "tests/sim/sim.h"

static int fault(void *user, const char *operation)
{
	struct sim *s = user;

	if (s->fault_commit && strcmp(operation, "commit") == 0) {
		s->fault_commit = false;
		return s->fault_code;
	}
	return s->fault_in > 0 && --s->fault_in == 0 ? s->fault_code : 0;
}

void faults_pause(struct sim *s)
{
	store_fault_set(s->store, NULL, NULL);
}

void faults_resume(struct sim *s)
{
	if (s->fault_in > 0 || s->fault_commit)
		store_fault_set(s->store, fault, s);
}

void faults_off(struct sim *s)
{
	s->fault_in = 0;
	s->fault_commit = false;
	s->kill = false;
	if (s->store != NULL)
		store_fault_set(s->store, NULL, NULL);
	plants_kill_planned(false);
}
