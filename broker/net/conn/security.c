/* SPDX-License-Identifier: Apache-2.0
 * The grace period of a change of the rules. */
#include "broker/net/conn/security.h"

#include "broker/net/conn/admit.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/protocol.h"
#include "broker/net/conn/sub.h"
#include "broker/net/conn/wait.h"
#include "broker/util/hash.h"
#include "broker/util/invariant.h"

/* The engine may be about to claim for a consumer that ends: it is under way until its last event,
 * as what the older rules have admitted. */
static void consumer_close(struct io *io, struct sub *sub, uint64_t before)
{
	sub_close(sub);
	if (!sub->leaving)
		return;
	sub->security = before;
	io->older++;
}

static void revoke(struct io *io, struct sub *sub, uint64_t before)
{
	sub_end_notify(sub, SLUICE_E_DENIED, "the right to it was taken away");
	if (sub->kind == DOOR_CONSUME)
		consumer_close(io, sub, before);
	else
		sub_close(sub);
}

/* The round's end would close them, as of the new rules. */
static void dead_close(struct io *io, struct conn *conn, uint64_t before)
{
	struct sub *sub, *next;

	HASH_ITER(hh_number, conn->subs, sub, next) {
		if (sub->kind == DOOR_CONSUME)
			consumer_close(io, sub, before);
	}
}

/* One that lost its right; NULL: there is none left. */
static struct sub *revoked_next(struct conn *conn)
{
	struct sub *sub, *next;

	HASH_ITER(hh_number, conn->subs, sub, next) {
		if (sub->checked == conn->io->security)
			continue;
		sub->checked = conn->io->security;
		if (!admit_again(conn, sub_permission(sub), sub->name))
			return sub;
	}
	return NULL;
}

void security_begin(struct io *io, uint64_t version)
{
	const uint64_t before = io->security;
	struct conn *conn, *next_conn;
	struct sub *sub;

	if (version <= before)
		return;
	io->security = version;
	io->older = io->under_way;
	HASH_ITER(hh, io->conns, conn, next_conn) {
		/* A protocol may end others meanwhile. */
		while (!conn->dead && (sub = revoked_next(conn)) != NULL)
			revoke(io, sub, before);
		if (conn->dead)
			dead_close(io, conn, before);
		else
			waits_check(conn);
	}
}

bool security_reports(struct io *io)
{
	if (io->security == io->security_reported || io->older > 0)
		return false;
	io->security_reported = io->security;
	return true;
}
