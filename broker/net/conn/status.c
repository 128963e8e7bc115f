/* SPDX-License-Identifier: Apache-2.0
 * The facts of the engine and of the process in the reply to status_get. */
#include "broker/net/conn/status.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/net/conn/internal.h"
#include "broker/net/conn/state.h"
#include "sluice.pb-c.h"
#include "sluice/version.h"

enum { HEADROOM_TEXT_BYTES = HEADROOM_WHY_BYTES + 160 };

/* What is refused, what is full, and how to make room. */
static void headroom_text(char buf[HEADROOM_TEXT_BYTES], const struct engine_facts *facts)
{
	static const char *const refused[] = {
		"",
		"publishes are refused, everything else continues",
		("publishes, job submits and reports, and other commands that grow "
		 "the store are refused; acks, cancels, deletes, purges and "
		 "retention continue"),
	};

	(void)snprintf(buf, HEADROOM_TEXT_BYTES, "%s%s%s", refused[facts->headroom],
		       facts->headroom != HEADROOM_OK && facts->headroom_why[0] != 0 ? ": " : "",
		       facts->headroom != HEADROOM_OK ? facts->headroom_why : "");
}

int status_add(struct conn *conn, uint8_t **io_reply, size_t *io_len)
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
	status->uptime_ms = io_now_ms() - conn->io->net->started_ms;
	status->connections = atomic_load(&conn->io->net->connections);
	status->commits = facts.commits;
	status->commits_damaged = facts.commits_damaged;
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
