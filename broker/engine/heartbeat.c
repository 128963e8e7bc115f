/* SPDX-License-Identifier: Apache-2.0
 * Sessions without a connection run out. Signs of life touch RAM only; the end is a command (SESSION_EXPIRE). A session whose
 * connection lives does not expire here: its sink closes a connection that is silent for too long. */
#include <stdlib.h>
#include <string.h>

#include "broker/engine/engine_internal.h"
#include "broker/util/invariant.h"

static struct beat *beat_find(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session)
{
	struct beat_key key = {gateway, session};
	struct beat *beat;

	HASH_FIND(hh, heartbeats->beats, &key, sizeof(key), beat);
	return beat;
}

static void deadline_set(struct heartbeats *heartbeats, struct beat *beat, uint64_t deadline_ms)
{
	beat->deadline_ms = deadline_ms;
	if (deadline_ms < heartbeats->next_ms)
		heartbeats->next_ms = deadline_ms;
}

int heartbeats_add(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session, uint32_t timeout_ms,
		   uint64_t now_ms)
{
	struct beat *beat = beat_find(heartbeats, gateway, session);

	if (beat == NULL) {
		beat = calloc(1, sizeof(*beat));
		if (beat == NULL)
			return SLUICE_E_NOMEM;
		beat->key = (struct beat_key){gateway, session};
		HASH_ADD(hh, heartbeats->beats, key, sizeof(beat->key), beat);
		if (!HASHED(hh, beat)) {
			free(beat);
			return SLUICE_E_NOMEM;
		}
	}
	beat->timeout_ms = timeout_ms;
	beat->expiring = false;
	if (beat->sink == NULL)
		deadline_set(heartbeats, beat, now_ms + timeout_ms);
	return 0;
}

void heartbeats_remove(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session)
{
	struct beat *beat = beat_find(heartbeats, gateway, session);

	if (beat == NULL)
		return;
	invariant(beat->sink == NULL || beat->deadline_ms == UINT64_MAX,
		  "session %llu is attached, and ends at %llu", ULL(session), ULL(beat->deadline_ms));
	HASH_DELETE(hh, heartbeats->beats, beat);
	free(beat);
}

bool heartbeats_attach(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		       struct engine_sink *sink, uint64_t tag)
{
	struct beat *beat = beat_find(heartbeats, gateway, session);

	bool moved;

	if (beat == NULL)
		return false; /* ended meanwhile: the sink hears of it by FX_SESSION_ENDED */
	moved = beat->sink != NULL && (beat->sink != sink || beat->tag != tag);
	if (moved)
		beat->sink->kick(beat->sink, beat->tag);
	beat->sink = sink;
	beat->tag = tag;
	beat->deadline_ms = UINT64_MAX;
	return moved;
}

void heartbeats_detach(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		       struct engine_sink *sink, uint64_t tag, uint32_t idle_ms, uint64_t now_ms)
{
	struct beat *beat = beat_find(heartbeats, gateway, session);

	if (beat == NULL || beat->sink != sink || beat->tag != tag)
		return; /* another connection has it */
	beat->sink = NULL;
	deadline_set(heartbeats, beat,
		     now_ms + (idle_ms < beat->timeout_ms ? beat->timeout_ms - idle_ms : 0));
}

struct beat *heartbeats_due(struct heartbeats *heartbeats, uint64_t now_ms)
{
	struct beat *beat, *next;
	uint64_t earliest = UINT64_MAX;

	if (heartbeats->next_ms > now_ms)
		return NULL;
	HASH_ITER(hh, heartbeats->beats, beat, next) {
		if (beat->expiring)
			continue;
		if (beat->deadline_ms <= now_ms) {
			invariant(beat->sink == NULL, "session %llu is attached, and expires",
				  ULL(beat->key.session));
			beat->expiring = true;
			return beat; /* next_ms stays: there may be more */
		}
		if (beat->deadline_ms < earliest)
			earliest = beat->deadline_ms;
	}
	heartbeats->next_ms = earliest;
	return NULL;
}

void heartbeats_fini(struct heartbeats *heartbeats)
{
	struct beat *beat, *next;

	HASH_ITER(hh, heartbeats->beats, beat, next) {
		HASH_DELETE(hh, heartbeats->beats, beat);
		free(beat);
	}
}
