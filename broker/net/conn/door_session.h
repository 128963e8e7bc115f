/* SPDX-License-Identifier: Apache-2.0
 * The answer of a SESSION_OPEN that door_session has sent. For io/release.c. */
#ifndef SLUICE_NET_DOOR_SESSION_H
#define SLUICE_NET_DOOR_SESSION_H

#include "broker/core/effects.h"

struct conn;

/* Attaches the session and calls conn->protocol->session. */
void door_session_opened(struct conn *conn, uint64_t tag, const struct outcome *outcome);

#endif
