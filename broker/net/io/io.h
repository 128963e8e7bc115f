/* SPDX-License-Identifier: Apache-2.0
 * An I/O thread: its loop and the notes that other threads send it. For net.c and listen.c. */
#ifndef SLUICE_NET_IO_H
#define SLUICE_NET_IO_H

#include "sluice/error.h"

struct arrival;
struct io;
struct net;

int io_init(struct io *io, struct net *net) SLUICE_MUST_USE;
int io_start(struct io *io) SLUICE_MUST_USE; /* its thread */
/* Waits for the thread's end; no effect when it does not run */
void io_stop(struct io *io);
void io_fini(struct io *io);
/* Its connections are not read any more, and told so; when all that was read is answered and sent,
 * net->drain_left is one less. Any thread. */
void io_drain(struct io *io, uint64_t within_ms);
/* Its connections are judged by rules of this version from now on (security.h). Any thread. */
void io_security(struct io *io, uint64_t version);

/* Assigns a connected socket to one of the threads. takes its descriptor, which is closed on NOMEM.
 * Any thread. */
int io_adopt(struct net *net, const struct arrival *arrival) SLUICE_MUST_USE;

#endif
