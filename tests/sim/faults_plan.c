/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults of a step, chosen before it: the k-th call of the store or a commit fails (which ends the
 * broker, except for NO_SPACE), everything is committed and no client gets an answer, the broker is
 * killed after all answers were received, or one client's connection breaks before any of the
 * frames that are sent to it.
 */
#include "tests/sim/plants.h"
#include "tests/sim/sim.h"

enum { CALLS_MAX = 250 };

void faults_plan(struct sim *s)
{
	int client = (int)roll(s, CLIENTS);

	s->answers_lost = roll(s, 30) == 0;
	s->kill = !s->answers_lost && roll(s, 40) == 0;
	/* Before the first frame of this step, or before a later one. */
	if (!s->answers_lost && roll(s, 20) == 0 && s->clients[client].connection != 0) {
		s->clients[client].cut = roll(s, 8);
		if (s->clients[client].cut == 0)
			client_cut_off(s, client);
	}
	if (!s->answers_lost && roll(s, 15) == 0) {
		s->fault_commit = roll(s, 4) == 0;
		if (!s->fault_commit)
			s->fault_in = 1 + (long)roll(s, CALLS_MAX);
		s->fault_code = roll(s, 3) == 0 ? SLUICE_E_NO_SPACE : SLUICE_E_IO;
		faults_resume(s);
	}
	plants_kill_planned(s->kill);
}
