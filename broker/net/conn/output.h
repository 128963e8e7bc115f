/* SPDX-License-Identifier: Apache-2.0
 * The output of a connection, to its socket. For conn_io.c and door.c; what is appended without
 * being sent is conn_write's (state.h). */
#ifndef SLUICE_NET_OUTPUT_H
#define SLUICE_NET_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>

#include "sluice/types.h"

struct conn;

/* Appends the parts to the output, or sends some of them at once; the others are copied. */
void conn_write_parts(struct conn *conn, const struct sluice_slice *parts, size_t count);
/* Sends once, without waiting. False: the connection has ended. */
bool output_send(struct conn *conn);
/* Waits for the socket only while output is left that it can take. */
void output_wait(struct conn *conn);
void output_free(struct conn *conn); /* at its end, with what is unsent; there may be none */

#endif
