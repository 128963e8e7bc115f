/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of one client's attempts to connect. A client may give a connection up whose bytes still reach the broker, late: through a
 * tunnel, a load balancer, or because the broker itself stood still. Its HELLO must not take the session from the connection that the
 * client made after it. So each client names itself (16 random bytes a process and client) and counts its attempts, and an attempt
 * that is not larger than the last one taken is refused.
 *
 * Any thread.
 */
#ifndef SLUICE_NET_INSTANCE_H
#define SLUICE_NET_INSTANCE_H

#include <stdint.h>

#include "sluice/error.h"
#include "sluice/types.h"

enum { INSTANCE_BYTES = 16 };

struct instances;
struct instance; /* one client, as long as a connection of it is there, and for some time after */

int instances_create(struct instances **ret) SLUICE_MUST_USE;
void instances_destroy(struct instances *instances); /* accepts NULL; no connection refers to one any more */

/* Holds the order of all attempts from here to instance_leave: what is done in between, taking a session, happens in the same order. So it
 * must be short. id: INSTANCE_BYTES. WRONG_STATE: the attempt comes late, *ret_last is the one that was taken; NOMEM. In both cases
 * nothing is held. */
int instance_enter(struct instances *instances, const uint8_t *id, uint64_t attempt, struct instance **ret,
		   uint64_t *ret_last) SLUICE_MUST_USE;
/* taken: the attempt is the last one now, and *ret of instance_enter is the connection's, to be given back with instance_unref. Otherwise
 * it is as if it had never come. */
void instance_leave(struct instances *instances, struct instance *instance, uint64_t attempt, bool taken);
void instance_unref(struct instances *instances, struct instance *instance); /* accepts NULL */

#endif
