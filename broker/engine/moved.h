/* SPDX-License-Identifier: Apache-2.0
 *
 * Connections that lost a session to another connection and are not freed yet. What such a
 * connection has submitted is refused (SESSION_GONE) from the take-over on. For engine.c, batch.c
 * and struct engine; the engine's thread only.
 *
 * The list is empty nearly always, so callers check `conns` first: then a command costs one
 * branch.
 */
#ifndef SLUICE_ENGINE_MOVED_H
#define SLUICE_ENGINE_MOVED_H

#include "broker/engine/demand.h"

struct moved_session;
struct moved_conn {
	struct consumer_key key; /* sink and number of the connection */
	struct moved_session *lost;
	size_t attached; /* of `lost`: the sink has not detached them yet; 0: the conn is freed */
	bool counted;	 /* freed, and `waiting` is known */
	size_t waiting;	 /* submissions that have not entered a batch for good */
	UT_hash_handle hh;
};
struct moved {
	struct moved_conn *conns;
	bool uncounted; /* some are freed and not counted */
};

/* The connection `conn` of the sink lost this session. Ends the process if there is no memory. */
void moved_add(struct moved *moved, struct engine_sink *sink, uint64_t conn, uint32_t gateway,
	       uint64_t session);
/* It has detached it: it is freed when that was the last one that it lost. Nothing if the
 * connection did not lose it. */
void moved_detached(struct moved *moved, struct engine_sink *sink, uint64_t conn, uint32_t gateway,
		    uint64_t session);
/* Lost and detached before the engine knew that the connection had it. */
void moved_gone(struct moved *moved, struct engine_sink *sink, uint64_t conn, uint32_t gateway,
		uint64_t session);
bool moved_has(const struct moved *moved, struct engine_sink *sink, uint64_t conn);
/* Whether the submission is to be refused. Not a SESSION_CLOSE by the sink of a session that its
 * connection did not lose: the sink closes ephemeral sessions when a connection ends. */
bool moved_refuses(const struct moved *moved, const struct submission *submission);

/* A freed connection submits nothing more. It is forgotten when the last of its submissions was
 * answered: moved_count() for each that waits, then moved_counted(), and moved_answered() for each
 * that was answered. */
void moved_count(struct moved *moved, const struct submission *submission);
void moved_counted(struct moved *moved);
void moved_answered(struct moved *moved, const struct submission *submission);
void moved_fini(struct moved *moved);

#endif
