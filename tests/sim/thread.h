/* SPDX-License-Identifier: Apache-2.0
 *
 * A thread of the broker with two connections, as part of the simulated world: the code of
 * broker/net between an engine's releases and the frames that a client receives. One at a time.
 */
#ifndef SLUICE_TESTS_SIM_THREAD_H
#define SLUICE_TESTS_SIM_THREAD_H

#include "tests/sim/sim.h"

void thread_begin(struct sim *s); /* of an engine that has just begun */
void thread_end(struct sim *s);	  /* before the engine is destroyed */
/* Its connections send something, and it handles some of what was posted. */
void thread_turn(struct sim *s);
/* The engine has nothing to do: the thread handles all. */
void thread_rest(struct sim *s);

#endif
