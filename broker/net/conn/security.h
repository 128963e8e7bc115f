/* SPDX-License-Identifier: Apache-2.0
 *
 * A change of the rules that takes rights away, on one thread: its connections are judged by the
 * new rules from then on, subscriptions without a right end, and when nothing is under way any more
 * that an older rule admitted, the thread reports. So whoever changed the rules knows when nothing
 * of the older ones is applied or granted any more, at no cost to a command. For io/ and for what
 * is under way.
 */
#ifndef SLUICE_NET_SECURITY_H
#define SLUICE_NET_SECURITY_H

#include <stdbool.h>
#include <stdint.h>

struct io;

/* The rules have changed. Subscriptions that lost their right end (DENIED). */
void security_begin(struct io *io, uint64_t version);
/* True, once for each version: nothing of an older version is under way. */
bool security_reports(struct io *io);

#endif
