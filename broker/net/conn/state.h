/* SPDX-License-Identifier: Apache-2.0
 * Operations on a connection that any file of conn/, io/ and the protocols may call at any time:
 * output, reading, its end. state.c changes flags and lists and calls none of them back. */
#ifndef SLUICE_NET_STATE_H
#define SLUICE_NET_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sluice/error.h"

struct conn;
struct io;

/* ---- the thread ---- */
uint64_t io_now_ms(void);
/* Another round is due immediately after the sockets were served. */
void io_again(struct io *io);
uint64_t random_u64(struct io *io);
struct conn *conn_find(struct io *io, uint64_t id);
uint64_t conn_session(const struct conn *conn); /* its attached one; 0: none */

/* ---- the end of a connection ---- */
/* why: of static storage, for the log; the first one stays. */
void conn_close_soon(struct conn *conn, const char *why); /* after written output is flushed */
void conn_kill(struct conn *conn, const char *why);	  /* now: freed at the end of the round */

/* Whether its protocol may begin something: 0; CLOSED: it is ending; WRONG_STATE: it has not
 * entered a gateway. */
int conn_may_begin(const struct conn *conn) SLUICE_MUST_USE;

/* ---- output ---- */
void conn_write(struct conn *conn, const void *bytes, size_t len);
size_t conn_unsent(const struct conn *conn);
/* No more output for now: its own bound is reached, or the bound of all connections while it has
 * more than FAIR_BYTES. */
bool conn_is_full(const struct conn *conn);
void conn_unlist(struct conn *conn); /* removes it from io->unflushed */

/* ---- input ---- */
/* Whether one more frame is within the bounds of pending commands and unsent output. */
bool conn_may_take(const struct conn *conn);
/* A request of so many bytes waits in the broker, and does not any more. */
void conn_request_add(struct conn *conn, size_t bytes);
void conn_request_sub(struct conn *conn, size_t bytes);
/* Whether all connections together may have so many bytes more of input and requests. */
bool input_room(const struct io *io, size_t bytes);
/* Of one frame, with its length. */
size_t conn_frame_max(const struct conn *conn);
/* The protocol refused bytes: they are passed to it again soon, with or without new ones. */
void conn_block(struct conn *conn);
void conn_stop_reading(struct conn *conn);
/* One that is not read from waits for memory, or not. */
void conn_starve(struct conn *conn, bool starved);
void conn_reading_set(struct conn *conn, bool reading); /* the flag and the list; not the event */

/* The peer's address and port for the log; of a unix socket the user, "uid:N"; "local" in a socket
 * pair; "-" when it has none. Asks the system: not for the usual path. */
enum { PEER_TEXT_BYTES = 64 };
const char *conn_peer(int fd, char text[PEER_TEXT_BYTES]);

#endif
