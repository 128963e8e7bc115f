/* SPDX-License-Identifier: Apache-2.0
 * The facts of the engine and of the process in the reply to status_get. For reading.c. */
#ifndef SLUICE_NET_STATUS_H
#define SLUICE_NET_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include "sluice/error.h"

struct conn;

/* Completes a packed Reply of status_get, which has core's part; a refusal stays as it is. Replaces
 * *io_reply, which is malloc'd. NOMEM: it is as before. */
int status_add(struct conn *conn, uint8_t **io_reply, size_t *io_len) SLUICE_MUST_USE;

#endif
