/* SPDX-License-Identifier: Apache-2.0
 * The dispatch of a release to connections. For io.c. */
#ifndef SLUICE_NET_RELEASE_H
#define SLUICE_NET_RELEASE_H

struct engine_release;
struct io;

/* Passes its effects to the connections that they concern, then returns the release to the
 * engine. */
void release_handle(struct io *io, struct engine_release *release);

#endif
