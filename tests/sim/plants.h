/* SPDX-License-Identifier: Apache-2.0
 *
 * Planted bugs. The simulator's executable is linked with --wrap, so that some functions of core and store are called through plants.c,
 * which does them wrong as long as a plant is set; the broker's own code holds no hook. What a plant spoils depends on the command
 * alone, so a batch that is replayed is spoiled again in the same way. One plant at a time; not thread-safe.
 */
#ifndef SLUICE_TESTS_SIM_PLANTS_H
#define SLUICE_TESTS_SIM_PLANTS_H

#include <stdbool.h>

/* The linker sends calls of `name` to __wrap_name, and those of __real_name to the broker's. meson.build has the list of names. Both are
 * declared as the broker's header has it, for the linker would not see that it has changed. */
#define WRAP(type, name, ...)           \
	__typeof__(name) __real_##name; \
	__typeof__(name) __wrap_##name; \
	type __wrap_##name(__VA_ARGS__)

int plants_find(const char *name);  /* -1: there is none of the name */
const char *plants_name(int plant); /* NULL: beyond the last. 0 is "none" */
const char *plants_text(int plant); /* what it does */
void plants_set(int plant);
void plants_claims_max(unsigned max); /* claims of one batch, in this life of the broker; 0: many */
void plants_kill_comes(bool comes);   /* the broker is killed at the end of this step */

#endif
