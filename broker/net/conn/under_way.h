/* SPDX-License-Identifier: Apache-2.0
 * What a thread has under way that was admitted: commands, reads, answers, and consumers that
 * were closed. For what is under way; security.h waits for it. */
#ifndef SLUICE_NET_UNDER_WAY_H
#define SLUICE_NET_UNDER_WAY_H

#include <stdint.h>

struct io;

/* Returns the version of the rules, for under_way_done at its end. */
uint64_t under_way_add(struct io *io);
void under_way_done(struct io *io, uint64_t version);

#endif
