/* SPDX-License-Identifier: Apache-2.0
 * The answer of a SESSION_OPEN that door_session has sent. For io/release.c. */
#ifndef SLUICE_NET_DOOR_SESSION_H
#define SLUICE_NET_DOOR_SESSION_H

#include "broker/core/effects.h"

struct conn;
struct io;
struct pending;

/* The connection holds the session; calls conn->protocol->session. secret: the payload of the
 * answer. */
void door_session_opened(struct conn *conn, const struct pending *pending,
			 const struct outcome *outcome, struct sluice_slice secret);
/* Its connection is gone: an ephemeral one is closed. */
void door_session_unclaimed(struct io *io, const struct pending *pending,
			    const struct outcome *outcome);

#endif
