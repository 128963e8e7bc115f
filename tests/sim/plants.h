/* SPDX-License-Identifier: Apache-2.0
 *
 * Planted bugs. The simulator's executable is linked with --wrap, so that some functions of the
 * broker are called through plants.c and plants_engine.c, which change them while a plant is set;
 * the broker's own code has no hook. The effect of a plant depends on the command alone, so it is
 * the same when a batch is replayed. One plant at a time; not thread-safe.
 */
#ifndef SLUICE_TESTS_SIM_PLANTS_H
#define SLUICE_TESTS_SIM_PLANTS_H

#include <stdbool.h>

/* The linker redirects calls of `name` to __wrap_name, and those of __real_name to the broker's
 * function. meson.build has the list of names. Both are declared with the broker's prototype,
 * because the linker would not notice a change. */
#define WRAP(type, name, ...)           \
	__typeof__(name) __real_##name; \
	__typeof__(name) __wrap_##name; \
	type __wrap_##name(__VA_ARGS__)

int plants_find(const char *name);  /* -1: none with this name */
const char *plants_name(int plant); /* NULL: after the last. 0 is "none" */
const char *plants_text(int plant); /* its effect */
bool plants_shadowed(int plant);    /* the second database (shadow.h) must find it */
bool plants_one_sided(int plant);   /* damage does not reach the second database */
void plants_set(int plant);
/* Claims of one batch, in this life of the broker; 0: unlimited */
void plants_claims_max(unsigned max);
/* At the end of a round of the thread. */
struct io;
void plants_round_end(struct io *io);
void plants_kill_planned(bool planned); /* the broker is killed at the end of this step */

#endif
