/* SPDX-License-Identifier: Apache-2.0
 *
 * Reads answered from a snapshot, and what status_get adds to it: the facts of the engine.
 */
#include "broker/net/native/native.h"

#include <stdio.h>
#include <stdlib.h>

#include "sluice/version.h"

enum { HEADROOM_TEXT_BYTES = HEADROOM_WHY_BYTES + 160 };

/* What is refused, what is full, and what to do. */
static void headroom_text(char buf[HEADROOM_TEXT_BYTES], const struct engine_facts *facts)
{
	static const char *const refused[] = {
		"",
		"publishes are refused, all else goes on",
		("publishes, job submits and reports, and what else makes the store grow are refused; acks, "
		 "cancels, deletes, purges and retention go on"),
	};

	(void)snprintf(buf, HEADROOM_TEXT_BYTES, "%s%s%s", refused[facts->headroom],
		       facts->headroom != HEADROOM_OK && facts->headroom_why[0] != 0 ? ": " : "",
		       facts->headroom != HEADROOM_OK ? facts->headroom_why : "");
}

int native_status_add(struct conn *conn, uint8_t **io_reply, size_t *io_len)
{
	static const char *const headroom[] = {"ok", "publish-stopped", "report-stopped"};
	Sluice__Reply *reply = sluice__reply__unpack(NULL, *io_len, *io_reply);
	struct engine_facts facts;
	Sluice__Status *status;
	uint8_t *bytes;
	char server[] = "sluiced", version[] = SLUICE_VERSION, durability[] = "sync", *old[5];
	char why[HEADROOM_TEXT_BYTES];

	if (reply == NULL || reply->status == NULL) {
		if (reply != NULL)
			sluice__reply__free_unpacked(reply, NULL);
		return reply == NULL ? SLUICE_E_NOMEM : 0;
	}
	status = reply->status;
	engine_facts_get(conn->io->engine, &facts);
	old[0] = status->server;
	old[1] = status->version;
	old[2] = status->durability;
	old[3] = status->headroom;
	old[4] = status->headroom_text;
	headroom_text(why, &facts);
	status->headroom_text = why;
	status->server = server;
	status->version = version;
	status->durability = durability;
	status->headroom = (char *)(uintptr_t)headroom[facts.headroom];
	status->uptime_ms = net_uptime_ms();
	status->connections = net_connections(conn->io->net);
	status->commits = facts.commits;
	status->commands = facts.commands;
	status->store_used_bytes = facts.store.used_bytes;
	status->store_map_bytes = facts.store.map_bytes;
	status->disk_free_bytes = facts.store.disk_free_bytes;
	status->disk_ahead_bytes = facts.store.ahead_bytes;
	status->oldest_reader_ms = facts.store.oldest_reader_ms;
	status->wall_time_ms = engine_clock(conn->io->engine).wall_ms;
	bytes = malloc(sluice__reply__get_packed_size(reply) + 1);
	if (bytes != NULL) {
		free(*io_reply);
		*io_reply = bytes;
		*io_len = sluice__reply__pack(reply, bytes);
	}
	status->server = old[0];
	status->version = old[1];
	status->durability = old[2];
	status->headroom = old[3];
	status->headroom_text = old[4];
	sluice__reply__free_unpacked(reply, NULL);
	return bytes != NULL ? 0 : SLUICE_E_NOMEM;
}

int native_query(struct conn *conn, const Sluice__Request *request, uint8_t **ret_reply, size_t *ret_len,
		 uint64_t *ret_sequence)
{
	struct store_txn *txn = NULL;
	struct batch_clock now = engine_clock(conn->io->engine);
	int rc = engine_read_begin(conn->io->engine, &txn, ret_sequence);

	if (rc != 0)
		return rc;
	rc = core_query(txn, conn->gateway, (struct query_clock){now.mono_ms, now.wall_ms}, request,
			ret_reply, ret_len);
	conn->io->round_cost += store_txn_read_cost(txn);
	store_abort(txn);
	return rc;
}
