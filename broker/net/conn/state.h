/* SPDX-License-Identifier: Apache-2.0
 *
 * What any file of conn/, io/ and the protocols may do to a connection or ask about it, at any
 * time: output, reading, its end. state.c changes flags and lists and calls nobody.
 */
#ifndef SLUICE_NET_STATE_H
#define SLUICE_NET_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conn;
struct io;

/* ---- the thread ---- */
uint64_t io_now_ms(void);
/* Another round is due at once, after what the sockets have. */
void io_again(struct io *io);
uint64_t random_u64(struct io *io);
struct conn *conn_find(struct io *io, uint64_t id);
/* Connections that have a session of this hash; listed by session_next. */
struct conn **conn_session_list(struct io *io, uint64_t session);

/* ---- the end of a connection ---- */
/* why: of static storage, for the log; the first one stays. */
void conn_close_soon(struct conn *conn, const char *why); /* after what was written is flushed */
void conn_kill(struct conn *conn, const char *why);	  /* now: freed at the end of the round */

/* ---- output ---- */
void conn_write(struct conn *conn, const void *bytes, size_t len);
size_t conn_unsent(const struct conn *conn);
/* No more output for now: its own bound is reached, or the bound of all connections and it has more
 * than a little. When it has drained, conn->protocol->writable is called. */
bool conn_is_full(const struct conn *conn);
void conn_unlist(struct conn *conn); /* takes it out of io->unflushed */

/* ---- input ---- */
/* One more frame: what is pending and unsent is within the bounds. */
bool conn_may_take(const struct conn *conn);
/* The bytes that a protocol has just refused to take are given to it again soon, whether others
 * come or not. */
void conn_block(struct conn *conn);
void conn_stop_reading(struct conn *conn);
void conn_reading_set(struct conn *conn, bool reading); /* the flag and the list; not the event */

/* The peer's address for the log, "-" when it has none. Asks the system: not for the usual path. */
enum { PEER_TEXT_BYTES = 64 };
const char *conn_peer(int fd, char text[PEER_TEXT_BYTES]);

#endif
