/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of one client's attempts to connect. The bytes of a connection that its client has
 * abandoned may reach the broker late: through a tunnel, a load balancer, or after a pause of the
 * broker itself. Its HELLO must not take the session from the connection that the client made
 * later. So each client names itself (16 random bytes per process and client) and counts its
 * attempts; an attempt that is not larger than the last accepted one is refused.
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
struct instance; /* one client: exists while it has a connection, and for some time after */

int instances_create(struct instances **ret) SLUICE_MUST_USE;
/* Accepts NULL; no connection may refer to an instance any more */
void instances_destroy(struct instances *instances);

/* Locks the order of all attempts until instance_leave: taking a session in between happens in the
 * same order, and must be short. id: INSTANCE_BYTES. WRONG_STATE: the attempt is late, *ret_last is
 * the accepted one; NOMEM. After an error nothing is locked. */
int instance_enter(struct instances *instances, const uint8_t *id, uint64_t attempt,
		   struct instance **ret, uint64_t *ret_last) SLUICE_MUST_USE;
/* taken: the attempt becomes the last accepted one, and *ret of instance_enter belongs to the
 * connection, which releases it with instance_unref. Otherwise the attempt leaves no trace. */
void instance_leave(struct instances *instances, struct instance *instance, uint64_t attempt,
		    bool taken);
void instance_unref(struct instances *instances, struct instance *instance); /* accepts NULL */

#endif
