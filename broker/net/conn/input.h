/* SPDX-License-Identifier: Apache-2.0
 * The input of a connection: one read of its socket, what its protocol is given of it, and the
 * bytes that it keeps. For conn_io.c and io/io.c; conn_io.c decides when. */
#ifndef SLUICE_NET_INPUT_H
#define SLUICE_NET_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;
struct io;

size_t input_kept(const struct conn *conn); /* bytes that were read and not parsed */
/* Of the bytes that the next read may bring. 0: the connection waits. */
size_t input_max(const struct conn *conn);
/* Reads once, and gives the bytes to the protocol. False: no more bytes for now. */
bool input_read(struct conn *conn);
void input_feed(struct conn *conn); /* gives the kept bytes, of which there are some */
void input_free(struct conn *conn);
void conn_shrink(struct conn *conn); /* frees the input buffer if it is empty */
/* While memory for input is used up: closes the connections that keep a part of a frame whose rest
 * does not come. Called often. */
void conns_press(struct io *io, uint64_t now_ms);

#endif
