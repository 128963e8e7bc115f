/* SPDX-License-Identifier: Apache-2.0
 *
 * A connection is listed from the moment another one takes one of its sessions. Its commands may
 * wait for longer than it lives: for a batch with room, or for their session's share. So a freed
 * connection stays listed until its waiting commands, which are counted once, have been answered.
 */
#include "broker/engine/moved.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/util/invariant.h"
#include "broker/util/memory.h"

struct moved_session {
	struct moved_session *next;
	uint32_t gateway;
	uint64_t session;
	bool detached;
};

static struct moved_conn *find(const struct moved *moved, struct engine_sink *sink, uint64_t conn)
{
	struct consumer_key key = {sink, conn};
	struct moved_conn *found;

	HASH_FIND(hh, moved->conns, &key, sizeof(key), found);
	return found;
}

static struct moved_session *find_lost(const struct moved_conn *conn, uint32_t gateway,
				       uint64_t session)
{
	struct moved_session *lost = conn->lost;

	while (lost != NULL && (lost->session != session || lost->gateway != gateway))
		lost = lost->next;
	return lost;
}

static struct moved_conn *need(struct moved *moved, struct engine_sink *sink, uint64_t conn)
{
	struct moved_conn *found = find(moved, sink, conn);

	if (found != NULL)
		return found;
	found = calloc(1, sizeof(*found));
	if (found == NULL)
		memory_fail_stop("a session that has moved");
	found->key = (struct consumer_key){sink, conn};
	HASH_ADD(hh, moved->conns, key, sizeof(found->key), found);
	if (!HASHED(hh, found))
		memory_fail_stop("a session that has moved");
	return found;
}

static void drop(struct moved *moved, struct moved_conn *conn)
{
	struct moved_session *lost, *next;

	LL_FOREACH_SAFE(conn->lost, lost, next)
		free(lost);
	HASH_DELETE(hh, moved->conns, conn);
	free(conn);
}

void moved_add(struct moved *moved, struct engine_sink *sink, uint64_t conn, uint32_t gateway,
	       uint64_t session)
{
	struct moved_conn *to = need(moved, sink, conn);
	struct moved_session *lost = find_lost(to, gateway, session);

	if (lost != NULL && !lost->detached)
		return;
	if (lost == NULL) {
		lost = malloc(sizeof(*lost));
		if (lost == NULL)
			memory_fail_stop("a session that has moved");
		lost->gateway = gateway;
		lost->session = session;
		LL_PREPEND(to->lost, lost);
	}
	lost->detached = false;
	to->attached++;
	to->counted = false;
	to->waiting = 0;
}

void moved_detached(struct moved *moved, struct engine_sink *sink, uint64_t conn, uint32_t gateway,
		    uint64_t session)
{
	struct moved_conn *from = find(moved, sink, conn);
	struct moved_session *lost = from != NULL ? find_lost(from, gateway, session) : NULL;

	if (lost == NULL || lost->detached)
		return;
	lost->detached = true;
	if (--from->attached == 0)
		moved->uncounted = true;
}

void moved_gone(struct moved *moved, struct engine_sink *sink, uint64_t conn, uint32_t gateway,
		uint64_t session)
{
	moved_add(moved, sink, conn, gateway, session);
	moved_detached(moved, sink, conn, gateway, session);
}

bool moved_has(const struct moved *moved, struct engine_sink *sink, uint64_t conn)
{
	return moved->conns != NULL && find(moved, sink, conn) != NULL;
}

static bool ends_another(const struct moved_conn *conn, const struct submission *submission)
{
	const struct command *command = &submission->command;
	const Sluice__SessionClose *close = command->body;

	return submission->by_sink && command->type == COMMAND_SESSION_CLOSE &&
	       find_lost(conn, command->gateway,
			 close->session != 0 ? close->session : command->session) == NULL;
}

bool moved_refuses(const struct moved *moved, const struct submission *submission)
{
	const struct moved_conn *conn = find(moved, submission->sink, submission->conn);

	return conn != NULL && !ends_another(conn, submission);
}

void moved_count(struct moved *moved, const struct submission *submission)
{
	struct moved_conn *conn = find(moved, submission->sink, submission->conn);

	if (conn != NULL && conn->attached == 0 && !conn->counted)
		conn->waiting++;
}

void moved_counted(struct moved *moved)
{
	struct moved_conn *conn, *next;

	HASH_ITER(hh, moved->conns, conn, next) {
		if (conn->attached > 0)
			continue;
		conn->counted = true;
		if (conn->waiting == 0)
			drop(moved, conn);
	}
	moved->uncounted = false;
}

void moved_answered(struct moved *moved, const struct submission *submission)
{
	struct moved_conn *conn = find(moved, submission->sink, submission->conn);

	if (conn == NULL || !conn->counted)
		return;
	invariant(conn->waiting > 0,
		  "connection %llu is freed, and more of it is answered than waited",
		  ULL(conn->key.tag));
	if (--conn->waiting == 0)
		drop(moved, conn);
}

void moved_fini(struct moved *moved)
{
	struct moved_conn *conn, *next;

	HASH_ITER(hh, moved->conns, conn, next)
		drop(moved, conn);
}
