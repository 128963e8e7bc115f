/* SPDX-License-Identifier: Apache-2.0
 *
 * What goes wrong in a step, rolled before it: the k-th call of the store or a commit fails (which ends the broker, unless it is only out of
 * room), everything is committed and nobody hears of it, the broker is killed after all was heard, or one client's connection breaks,
 * before any of the frames that are said to it. */
#include <string.h>

#include "tests/sim/plants.h"
#include "tests/sim/sim.h"

enum { CALLS_MAX = 250 };

static int fault(void *user, const char *operation)
{
	struct sim *s = user;

	if (s->fault_commit && strcmp(operation, "commit") == 0) {
		s->fault_commit = false;
		return s->fault_code;
	}
	return s->fault_in > 0 && --s->fault_in == 0 ? s->fault_code : 0;
}

void faults_plan(struct sim *s)
{
	int client = (int)roll(s, CLIENTS);

	s->deaf = roll(s, 30) == 0;
	s->kill = !s->deaf && roll(s, 40) == 0;
	/* Before the first frame that is said in this step, or before a later one. */
	if (!s->deaf && roll(s, 20) == 0 && s->clients[client].connection != 0) {
		s->clients[client].cut = roll(s, 8);
		if (s->clients[client].cut == 0)
			client_deafen(s, client);
	}
	if (!s->deaf && roll(s, 15) == 0) {
		s->fault_commit = roll(s, 4) == 0;
		if (!s->fault_commit)
			s->fault_in = 1 + (long)roll(s, CALLS_MAX);
		s->fault_code = roll(s, 3) == 0 ? SLUICE_E_NO_SPACE : SLUICE_E_IO;
		store_fault_set(s->store, fault, s);
	}
	plants_kill_comes(s->kill);
}

void faults_rest(struct sim *s)
{
	store_fault_set(s->store, NULL, NULL);
}

void faults_go_on(struct sim *s)
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
	plants_kill_comes(false);
}
