/* SPDX-License-Identifier: Apache-2.0
 *
 * Sessions without a connection run out. Signs of life touch RAM only; the end is a command (SESSION_EXPIRE). A session whose
 * connection lives does not expire here: its sink closes a connection that is silent for too long.
 *
 * Deadlines are a heap, so that a round costs what is due and not what there is. Sessions are counted by gateway and by the address that they were
 * opened from. One without a connection that never did anything (no command, no subscription: nothing that a resumption would find) ends soon, and
 * an address has few of them.
 *
 * Invariants: a beat is in the heap if and only if it has a deadline and is not expiring; in `detached` if and only if it has no sink; in its
 * peer's `unused` if and only if it has no sink and was not used.
 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/engine/heartbeat.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

#define NO_PLACE SIZE_MAX

static struct beat *beat_find(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session)
{
	struct session_key key = {gateway, session};
	struct beat *beat;

	HASH_FIND(hh, heartbeats->beats, &key, sizeof(key), beat);
	return beat;
}

/* ---- the heap ---- */

static void place(struct heartbeats *heartbeats, struct beat *beat, size_t at)
{
	heartbeats->heap[at] = beat;
	beat->place = at;
}

static void sift_up(struct heartbeats *heartbeats, struct beat *beat)
{
	size_t at = beat->place;

	for (; at > 0 && heartbeats->heap[(at - 1) / 2]->deadline_ms > beat->deadline_ms; at = (at - 1) / 2)
		place(heartbeats, heartbeats->heap[(at - 1) / 2], at);
	place(heartbeats, beat, at);
}

static void sift_down(struct heartbeats *heartbeats, struct beat *beat)
{
	size_t at = beat->place, child;

	while ((child = 2 * at + 1) < heartbeats->heap_count) {
		if (child + 1 < heartbeats->heap_count &&
		    heartbeats->heap[child + 1]->deadline_ms < heartbeats->heap[child]->deadline_ms)
			child++;
		if (heartbeats->heap[child]->deadline_ms >= beat->deadline_ms)
			break;
		place(heartbeats, heartbeats->heap[child], at);
		at = child;
	}
	place(heartbeats, beat, at);
}

static void next_set(struct heartbeats *heartbeats)
{
	heartbeats->next_ms = heartbeats->heap_count > 0 ? heartbeats->heap[0]->deadline_ms : UINT64_MAX;
}

static void deadline_clear(struct heartbeats *heartbeats, struct beat *beat)
{
	struct beat *last;
	size_t at = beat->place;

	if (at == NO_PLACE)
		return;
	invariant(at < heartbeats->heap_count && heartbeats->heap[at] == beat,
		  "session %llu is not at its place %zu of %zu", (unsigned long long)beat->key.session, at,
		  heartbeats->heap_count);
	beat->place = NO_PLACE;
	last = heartbeats->heap[--heartbeats->heap_count];
	if (last != beat) {
		place(heartbeats, last, at);
		sift_up(heartbeats, last);
		sift_down(heartbeats, last);
	}
	next_set(heartbeats);
}

/* There is room: heartbeats_add() has made it. */
static void deadline_set(struct heartbeats *heartbeats, struct beat *beat, uint64_t deadline_ms)
{
	deadline_clear(heartbeats, beat);
	beat->deadline_ms = deadline_ms;
	beat->place = heartbeats->heap_count++;
	sift_up(heartbeats, beat);
	next_set(heartbeats);
}

static int heap_reserve(struct heartbeats *heartbeats, size_t count)
{
	size_t capacity = heartbeats->heap_capacity == 0 ? 64 : heartbeats->heap_capacity;
	struct beat **heap;

	if (count <= heartbeats->heap_capacity)
		return 0;
	while (capacity < count)
		capacity *= 2;
	heap = realloc(heartbeats->heap, capacity * sizeof(struct beat *));
	if (heap == NULL)
		return SLUICE_E_NOMEM;
	heartbeats->heap = heap;
	heartbeats->heap_capacity = capacity;
	return 0;
}

/* ---- by gateway, by address ---- */

static struct peer *peer_find(struct heartbeats *heartbeats, struct sluice_slice address)
{
	struct peer *peer = NULL;

	if (address.len > 0)
		HASH_FIND(hh, heartbeats->peers, address.data, address.len, peer);
	return peer;
}

/* The one of an address that is not known is NULL: it has no bound. */
static int peer_get(struct heartbeats *heartbeats, struct sluice_slice address, struct peer **ret)
{
	*ret = peer_find(heartbeats, address);
	if (*ret != NULL || address.len == 0)
		return 0;
	*ret = calloc(1, sizeof(**ret) + address.len);
	if (*ret == NULL)
		return SLUICE_E_NOMEM;
	memcpy((*ret)->address, address.data, address.len);
	HASH_ADD_KEYPTR(hh, heartbeats->peers, (*ret)->address, address.len, *ret);
	if (HASHED(hh, *ret))
		return 0;
	free(*ret);
	return SLUICE_E_NOMEM;
}

static void peer_unref(struct heartbeats *heartbeats, struct peer *peer)
{
	if (peer == NULL || peer->sessions > 0)
		return;
	HASH_DELETE(hh, heartbeats->peers, peer);
	free(peer);
}

static struct tenant *tenant_get(struct heartbeats *heartbeats, uint64_t gateway)
{
	struct tenant *tenant;

	HASH_FIND(hh, heartbeats->tenants, &gateway, sizeof(gateway), tenant);
	if (tenant != NULL)
		return tenant;
	tenant = calloc(1, sizeof(*tenant));
	if (tenant == NULL)
		return NULL;
	tenant->gateway = gateway;
	HASH_ADD(hh, heartbeats->tenants, gateway, sizeof(tenant->gateway), tenant);
	if (HASHED(hh, tenant))
		return tenant;
	free(tenant);
	return NULL;
}

static void unused_add(struct beat *beat)
{
	if (beat->used || beat->peer == NULL)
		return;
	DL_APPEND2(beat->peer->unused, beat, unused_prev, unused_next);
	beat->peer->unused_count++;
	beat->in_unused = true;
}

static void unused_remove(struct beat *beat)
{
	if (!beat->in_unused)
		return;
	DL_DELETE2(beat->peer->unused, beat, unused_prev, unused_next);
	beat->peer->unused_count--;
	beat->in_unused = false;
}

/* It has no connection from now on. */
static void detached_add(struct heartbeats *heartbeats, struct beat *beat, uint64_t deadline_ms,
			 uint64_t now_ms)
{
	struct beat *oldest;

	if (!beat->used && deadline_ms > now_ms + LIMIT_SESSION_UNUSED_MS)
		deadline_ms = now_ms + LIMIT_SESSION_UNUSED_MS;
	DL_APPEND(heartbeats->detached, beat);
	beat->sink = NULL;
	deadline_set(heartbeats, beat, deadline_ms);
	unused_add(beat);
	if (beat->peer == NULL || beat->peer->unused_count <= LIMIT_SESSIONS_UNUSED_MAX)
		return;
	oldest = beat->peer->unused;
	unused_remove(oldest);
	deadline_set(heartbeats, oldest, now_ms);
}

static void detached_remove(struct heartbeats *heartbeats, struct beat *beat)
{
	if (beat->sink != NULL)
		return;
	unused_remove(beat);
	DL_DELETE(heartbeats->detached, beat);
	deadline_clear(heartbeats, beat);
}

/* ---- sessions ---- */

int heartbeats_add(struct heartbeats *heartbeats, const struct session_seen *seen, uint64_t now_ms)
{
	struct tenant *tenant = tenant_get(heartbeats, seen->gateway);
	struct peer *peer = NULL;
	struct beat *beat;
	int rc =
		tenant == NULL ? SLUICE_E_NOMEM : heap_reserve(heartbeats, HASH_COUNT(heartbeats->beats) + 1);

	invariant(beat_find(heartbeats, seen->gateway, seen->session) == NULL,
		  "session %llu of gateway %u is there already", (unsigned long long)seen->session,
		  seen->gateway);
	if (rc == 0)
		rc = peer_get(heartbeats, seen->address, &peer);
	if (rc != 0)
		return rc;
	beat = calloc(1, sizeof(*beat));
	if (beat == NULL) {
		peer_unref(heartbeats, peer);
		return SLUICE_E_NOMEM;
	}
	beat->key = (struct session_key){seen->gateway, seen->session};
	beat->timeout_ms = seen->timeout_ms;
	beat->place = NO_PLACE;
	/* A name is a promise to whoever opens it next. */
	beat->used = seen->used || seen->named;
	HASH_ADD(hh, heartbeats->beats, key, sizeof(beat->key), beat);
	if (!HASHED(hh, beat)) {
		free(beat);
		peer_unref(heartbeats, peer);
		return SLUICE_E_NOMEM;
	}
	beat->tenant = tenant;
	tenant->sessions++;
	beat->peer = peer;
	if (peer != NULL)
		peer->sessions++;
	detached_add(heartbeats, beat, now_ms + seen->timeout_ms, now_ms);
	return 0;
}

static void beat_drop(struct heartbeats *heartbeats, struct beat *beat)
{
	invariant(beat->sink == NULL || (beat->place == NO_PLACE && !beat->in_unused),
		  "session %llu is attached, and ends at %llu", (unsigned long long)beat->key.session,
		  (unsigned long long)beat->deadline_ms);
	detached_remove(heartbeats, beat);
	HASH_DELETE(hh, heartbeats->beats, beat);
	beat->tenant->sessions--;
	beat->tenant->expiring -= beat->expiring;
	if (beat->peer != NULL) {
		beat->peer->sessions--;
		beat->peer->expiring -= beat->expiring;
		peer_unref(heartbeats, beat->peer);
	}
	free(beat);
}

void heartbeats_remove(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session)
{
	struct beat *beat = beat_find(heartbeats, gateway, session);

	if (beat != NULL)
		beat_drop(heartbeats, beat);
}

static void expiring_clear(struct beat *beat)
{
	if (!beat->expiring)
		return;
	beat->expiring = false;
	beat->tenant->expiring--;
	if (beat->peer != NULL)
		beat->peer->expiring--;
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
	detached_remove(heartbeats, beat);
	expiring_clear(beat); /* if its end is under way, the sink is notified of it by FX_SESSION_ENDED */
	beat->sink = sink;
	beat->tag = tag;
	return moved;
}

void heartbeats_detach(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		       struct engine_sink *sink, uint64_t tag, uint32_t idle_ms, bool used, uint64_t now_ms)
{
	struct beat *beat = beat_find(heartbeats, gateway, session);

	if (beat == NULL)
		return;
	if (beat->sink != sink || beat->tag != tag)
		return; /* another connection has it, and one that resumes uses it */
	beat->used |= used;
	detached_add(heartbeats, beat, now_ms + (idle_ms < beat->timeout_ms ? beat->timeout_ms - idle_ms : 0),
		     now_ms);
}

static void expiring_set(struct heartbeats *heartbeats, struct beat *beat)
{
	invariant(!beat->expiring && beat->sink == NULL, "session %llu is attached, or expiring already",
		  (unsigned long long)beat->key.session);
	deadline_clear(heartbeats, beat);
	unused_remove(beat);
	beat->expiring = true;
	beat->tenant->expiring++;
	if (beat->peer != NULL)
		beat->peer->expiring++;
}

struct beat *heartbeats_due(struct heartbeats *heartbeats, uint64_t now_ms)
{
	struct beat *beat = heartbeats->heap_count > 0 ? heartbeats->heap[0] : NULL;

	if (beat == NULL || beat->deadline_ms > now_ms)
		return NULL;
	expiring_set(heartbeats, beat);
	return beat;
}

void heartbeats_again(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session, uint64_t due_ms)
{
	struct beat *beat = beat_find(heartbeats, gateway, session);

	if (beat == NULL || !beat->expiring)
		return;
	expiring_clear(beat);
	deadline_set(heartbeats, beat, due_ms);
	unused_add(beat);
}

/* ---- admission ---- */

void heartbeats_batch(struct heartbeats *heartbeats)
{
	heartbeats->batch++;
	heartbeats->looks = 0;
}

static uint64_t opening(const struct opening *opening, const struct heartbeats *heartbeats)
{
	return opening->batch == heartbeats->batch ? opening->count : 0;
}

static void opening_add(struct opening *opening, const struct heartbeats *heartbeats)
{
	if (opening->batch != heartbeats->batch)
		*opening = (struct opening){heartbeats->batch, 0};
	opening->count++;
}

enum session_bound heartbeats_admit(struct heartbeats *heartbeats, uint32_t gateway,
				    struct sluice_slice address, uint64_t replaced)
{
	struct beat *beat = replaced != 0 ? beat_find(heartbeats, gateway, replaced) : NULL;
	struct tenant *tenant = tenant_get(heartbeats, gateway);
	struct peer *peer = peer_find(heartbeats, address);

	/* One whose end is in the batch has made room for another already. */
	if (beat != NULL && !beat->expiring) {
		if (beat->peer == peer)
			peer = NULL;
		tenant = NULL;
	} else {
		beat = NULL;
	}
	if (peer != NULL && peer->sessions - peer->expiring + opening(&peer->opening, heartbeats) >=
				    LIMIT_SESSIONS_ADDRESS_MAX)
		return BOUND_ADDRESS;
	if (tenant != NULL &&
	    tenant->sessions - tenant->expiring + opening(&tenant->opening, heartbeats) >= LIMIT_SESSIONS_MAX)
		return BOUND_GATEWAY;
	if (peer != NULL)
		opening_add(&peer->opening, heartbeats);
	if (tenant != NULL)
		opening_add(&tenant->opening, heartbeats);
	if (beat != NULL)
		beat->replaced = heartbeats->batch + 1;
	return BOUND_NONE;
}

/* Of sessions that may give way a call asks for this many what they own. All calls of a batch together look at so many sessions, of which one that
 * is asked counts as several: at a bound every SESSION_OPEN calls. */
enum { OLDEST_ASKED_MAX = 256, ASKED_LOOKS = 16, LOOKS_PER_BATCH_MAX = 65536 };

struct beat *heartbeats_oldest(struct heartbeats *heartbeats, uint32_t gateway, struct sluice_slice address,
			       bool (*owns)(void *user, uint32_t gateway, uint64_t session), void *user)
{
	const struct peer *peer = peer_find(heartbeats, address);
	struct beat *beat, *found = NULL;
	unsigned asked = 0;

	if (address.len > 0 && peer == NULL)
		return NULL;
	DL_FOREACH(heartbeats->detached, beat) {
		if (heartbeats->looks >= LOOKS_PER_BATCH_MAX || asked == OLDEST_ASKED_MAX)
			break;
		heartbeats->looks++;
		if (beat->expiring || beat->replaced == heartbeats->batch + 1 ||
		    beat->key.gateway != gateway || (peer != NULL && beat->peer != peer))
			continue;
		if (!beat->used) {
			found = beat;
			break;
		}
		asked++;
		if (found != NULL)
			continue;
		heartbeats->looks += ASKED_LOOKS;
		if (!owns(user, gateway, beat->key.session))
			found = beat;
	}
	if (found != NULL)
		expiring_set(heartbeats, found);
	return found;
}

void heartbeats_fini(struct heartbeats *heartbeats)
{
	struct beat *beat, *next;
	struct tenant *tenant, *next_tenant;

	HASH_ITER(hh, heartbeats->beats, beat, next)
		beat_drop(heartbeats, beat);
	HASH_ITER(hh, heartbeats->tenants, tenant, next_tenant) {
		HASH_DELETE(hh, heartbeats->tenants, tenant);
		free(tenant);
	}
	free(heartbeats->heap);
}
