/* SPDX-License-Identifier: Apache-2.0
 *
 * The bound on unfinished TLS handshakes (HANDSHAKES_MAX). Each holds tens of KiB before anybody
 * has logged in. Beyond the bound the oldest one of the address that has most is ended: a flood
 * from one address ends its own. Each thread has its share of the bound, so nothing is locked.
 *
 * A step of a handshake takes as long as hundreds of frames, and a peer gets one without any work
 * of its own. So those that may continue wait for their turn: a round of the loop does one step,
 * and addresses take turns.
 */
#ifndef SLUICE_NET_HANDSHAKES_H
#define SLUICE_NET_HANDSHAKES_H

#include <stdbool.h>
#include <stdint.h>

#include "sluice/error.h"

struct conn;
struct handshake_address;
struct io;

/* Embedded in what is handshaking; zeroed before its first use. */
struct handshake {
	struct handshake_address *address; /* NULL: not counted */
	uint64_t number;		   /* in order of their begin */
	struct handshake *prev, *next;	   /* of one address, the oldest first */
	struct conn *conn;		   /* set by its owner */
	bool waits;			   /* for its turn */
	struct handshake *turn_prev, *turn_next;
};

/* Counts one, from the peer of fd. NOMEM. */
int handshake_begin(struct io *io, struct handshake *handshake, int fd) SLUICE_MUST_USE;
/* Finished, one way or the other; nothing when it is not counted. */
void handshake_end(struct io *io, struct handshake *handshake);
/* The one that is to be ended because there are too many; NULL: there are not. */
struct handshake *handshake_excess(const struct io *io);
/* It may continue, and waits for its turn. Nothing when it waits already, or is not counted. */
void handshake_wait(struct io *io, struct handshake *handshake);
/* The one whose turn it is, and which does not wait any more; NULL: none waits. */
struct handshake *handshake_turn(struct io *io);

#endif
