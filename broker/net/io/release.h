/* SPDX-License-Identifier: Apache-2.0
 * The dispatch of a release to connections. For io.c. */
#ifndef SLUICE_NET_RELEASE_H
#define SLUICE_NET_RELEASE_H

struct engine_release;
struct io;

/* Gives its effects to the connections that they concern, and the release back to the engine. */
void release_handle(struct io *io, struct engine_release *release);

#endif
