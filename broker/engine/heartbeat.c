/* SPDX-License-Identifier: Apache-2.0
 *
 * Expiry of sessions without a connection. Signs of life touch RAM only; the end is a command
 * (SESSION_EXPIRE). A session that has a connection does not expire here: its sink closes a
 * connection that is silent for too long.
 *
 * Deadlines are a heap, so that the cost of a round depends on the expired sessions only. Sessions
 * are counted by gateway and by the address that they were opened from. A session that has no
 * connection and never did anything (no command, no subscription: nothing to resume) ends soon, and
 * an address may have few of them.
 *
 * The deadline of a session without a connection moves with its signs of life (heartbeats_touch); a
 * standing one has none. All times are of engine.live_ms, the time in which the process ran.
 *
 * Invariants: a timer is in the heap if and only if it has a deadline and is not expiring; in
 * `detached` if and only if it has no sink and is not standing; in its peer's `unused` if and only
 * if it has no sink and was not used. A standing one counts as used.
 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/engine/heartbeat.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

#define NO_PLACE SIZE_MAX

static struct session_timer *session_timer_find(struct heartbeats *heartbeats, uint32_t gateway,
						uint64_t session)
{
	struct session_key key = {gateway, session};
	struct session_timer *timer;

	HASH_FIND(hh, heartbeats->timers, &key, sizeof(key), timer);
	return timer;
}

/* ---- the heap ---- */

static void place(struct heartbeats *heartbeats, struct session_timer *timer, size_t at)
{
	heartbeats->heap[at] = timer;
	timer->place = at;
}

static void sift_up(struct heartbeats *heartbeats, struct session_timer *timer)
{
	size_t at = timer->place;

	for (; at > 0 && heartbeats->heap[(at - 1) / 2]->deadline_ms > timer->deadline_ms;
	     at = (at - 1) / 2)
		place(heartbeats, heartbeats->heap[(at - 1) / 2], at);
	place(heartbeats, timer, at);
}

static void sift_down(struct heartbeats *heartbeats, struct session_timer *timer)
{
	size_t at = timer->place, child;

	while ((child = 2 * at + 1) < heartbeats->heap_count) {
		if (child + 1 < heartbeats->heap_count &&
		    heartbeats->heap[child + 1]->deadline_ms < heartbeats->heap[child]->deadline_ms)
			child++;
		if (heartbeats->heap[child]->deadline_ms >= timer->deadline_ms)
			break;
		place(heartbeats, heartbeats->heap[child], at);
		at = child;
	}
	place(heartbeats, timer, at);
}

static void next_set(struct heartbeats *heartbeats)
{
	heartbeats->next_ms =
		heartbeats->heap_count > 0 ? heartbeats->heap[0]->deadline_ms : UINT64_MAX;
}

static void deadline_clear(struct heartbeats *heartbeats, struct session_timer *timer)
{
	struct session_timer *last;
	size_t at = timer->place;

	if (at == NO_PLACE)
		return;
	invariant(at < heartbeats->heap_count && heartbeats->heap[at] == timer,
		  "session %llu is not at its place %zu of %zu",
		  (unsigned long long)timer->key.session, at, heartbeats->heap_count);
	timer->place = NO_PLACE;
	last = heartbeats->heap[--heartbeats->heap_count];
	if (last != timer) {
		place(heartbeats, last, at);
		sift_up(heartbeats, last);
		sift_down(heartbeats, last);
	}
	next_set(heartbeats);
}

/* heartbeats_add() has reserved a place. */
static void deadline_set(struct heartbeats *heartbeats, struct session_timer *timer,
			 uint64_t deadline_ms)
{
	deadline_clear(heartbeats, timer);
	timer->deadline_ms = deadline_ms;
	timer->place = heartbeats->heap_count++;
	sift_up(heartbeats, timer);
	next_set(heartbeats);
}

static int heap_reserve(struct heartbeats *heartbeats, size_t count)
{
	size_t capacity = heartbeats->heap_capacity == 0 ? 64 : heartbeats->heap_capacity;
	struct session_timer **heap;

	if (count <= heartbeats->heap_capacity)
		return 0;
	while (capacity < count)
		capacity *= 2;
	heap = realloc(heartbeats->heap, capacity * sizeof(struct session_timer *));
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

/* NULL for an unknown address: it has no bound. */
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

static void unused_add(struct session_timer *timer)
{
	if (timer->used || timer->peer == NULL)
		return;
	DL_APPEND2(timer->peer->unused, timer, unused_prev, unused_next);
	timer->peer->unused_count++;
	timer->in_unused = true;
}

static void unused_remove(struct session_timer *timer)
{
	if (!timer->in_unused)
		return;
	DL_DELETE2(timer->peer->unused, timer, unused_prev, unused_next);
	timer->peer->unused_count--;
	timer->in_unused = false;
}

/* The connection that opened a session attaches it when its thread has handled the commit. */
enum { AWAITED_MS = 10000 };

static bool is_awaited(const struct session_timer *timer, uint64_t now_ms)
{
	return timer->awaited && now_ms < timer->opened_ms + AWAITED_MS;
}

/* The oldest unused ones of the address end at its bound. One that was opened a moment ago has a
 * connection: many may be opened by one commit. */
static void unused_bound(struct heartbeats *heartbeats, struct peer *peer, uint64_t now_ms)
{
	while (peer->unused_count > LIMIT_SESSIONS_UNUSED_MAX &&
	       !is_awaited(peer->unused, now_ms)) {
		struct session_timer *oldest = peer->unused;

		unused_remove(oldest);
		deadline_set(heartbeats, oldest, now_ms);
	}
}

/* The session has no connection from now on. */
static void detached_add(struct heartbeats *heartbeats, struct session_timer *timer,
			 uint64_t deadline_ms, uint64_t now_ms)
{
	if (!timer->used && deadline_ms > now_ms + LIMIT_SESSION_UNUSED_MS)
		deadline_ms = now_ms + LIMIT_SESSION_UNUSED_MS;
	timer->sink = NULL;
	if (timer->standing)
		return;
	DL_APPEND(heartbeats->detached, timer);
	deadline_set(heartbeats, timer, deadline_ms);
	unused_add(timer);
	if (timer->peer != NULL)
		unused_bound(heartbeats, timer->peer, now_ms);
}

static void detached_remove(struct heartbeats *heartbeats, struct session_timer *timer)
{
	if (timer->sink != NULL || timer->standing)
		return;
	unused_remove(timer);
	DL_DELETE(heartbeats->detached, timer);
	deadline_clear(heartbeats, timer);
}

/* ---- sessions ---- */

int heartbeats_add(struct heartbeats *heartbeats, const struct session_seen *seen, uint64_t now_ms)
{
	struct tenant *tenant = tenant_get(heartbeats, seen->gateway);
	struct peer *peer = NULL;
	struct session_timer *timer;
	int rc = tenant == NULL ? SLUICE_E_NOMEM
				: heap_reserve(heartbeats, HASH_COUNT(heartbeats->timers) + 1);

	invariant(session_timer_find(heartbeats, seen->gateway, seen->session) == NULL,
		  "session %llu of gateway %u is there already", (unsigned long long)seen->session,
		  seen->gateway);
	if (rc == 0)
		rc = peer_get(heartbeats, seen->address, &peer);
	if (rc != 0)
		return rc;
	timer = calloc(1, sizeof(*timer));
	if (timer == NULL) {
		peer_unref(heartbeats, peer);
		return SLUICE_E_NOMEM;
	}
	timer->key = (struct session_key){seen->gateway, seen->session};
	timer->timeout_ms = seen->timeout_ms;
	timer->place = NO_PLACE;
	/* A named session counts as used: its name may be opened again later. */
	timer->used = seen->used || seen->named || seen->standing;
	timer->standing = seen->standing && !seen->ends;
	timer->ends = seen->ends;
	timer->awaited = seen->opened;
	timer->opened_ms = now_ms;
	HASH_ADD(hh, heartbeats->timers, key, sizeof(timer->key), timer);
	if (!HASHED(hh, timer)) {
		free(timer);
		peer_unref(heartbeats, peer);
		return SLUICE_E_NOMEM;
	}
	timer->tenant = tenant;
	tenant->sessions++;
	timer->peer = peer;
	if (peer != NULL)
		peer->sessions++;
	heartbeats->ending += timer->ends;
	detached_add(heartbeats, timer, timer->ends ? 0 : now_ms + seen->timeout_ms, now_ms);
	return 0;
}

static void ends_clear(struct heartbeats *heartbeats, struct session_timer *timer)
{
	heartbeats->ending -= timer->ends;
	timer->ends = false;
}

/* A session that is expiring is counted as such by its peer. */
static void peer_change(struct heartbeats *heartbeats, struct session_timer *timer,
			struct peer *peer)
{
	struct peer *before = timer->peer;

	if (before == peer)
		return;
	timer->peer = peer;
	if (peer != NULL) {
		peer->sessions++;
		peer->expiring += timer->expiring;
	}
	if (before != NULL) {
		before->sessions--;
		before->expiring -= timer->expiring;
	}
	peer_unref(heartbeats, before);
}

int heartbeats_alter(struct heartbeats *heartbeats, const struct session_seen *seen,
		     uint64_t now_ms)
{
	struct session_timer *timer = session_timer_find(heartbeats, seen->gateway, seen->session);
	struct peer *peer = NULL;
	int rc = timer != NULL ? peer_get(heartbeats, seen->address, &peer) : 0;

	if (timer == NULL || rc != 0)
		return rc;
	unused_remove(timer);
	timer->used = true;
	peer_change(heartbeats, timer, peer);
	timer->timeout_ms = seen->timeout_ms;
	/* No connection, and no end that is due: a sign of life. */
	if (timer->place != NO_PLACE && !timer->ends)
		deadline_set(heartbeats, timer, now_ms + timer->timeout_ms);
	return 0;
}

static void session_timer_drop(struct heartbeats *heartbeats, struct session_timer *timer)
{
	invariant(timer->sink == NULL || (timer->place == NO_PLACE && !timer->in_unused),
		  "session %llu is attached, and ends at %llu",
		  (unsigned long long)timer->key.session, (unsigned long long)timer->deadline_ms);
	detached_remove(heartbeats, timer);
	ends_clear(heartbeats, timer);
	HASH_DELETE(hh, heartbeats->timers, timer);
	timer->tenant->sessions--;
	timer->tenant->expiring -= timer->expiring;
	if (timer->peer != NULL) {
		timer->peer->sessions--;
		timer->peer->expiring -= timer->expiring;
		peer_unref(heartbeats, timer->peer);
	}
	free(timer);
}

void heartbeats_remove(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session)
{
	struct session_timer *timer = session_timer_find(heartbeats, gateway, session);

	if (timer != NULL)
		session_timer_drop(heartbeats, timer);
}

static void expiring_clear(struct session_timer *timer)
{
	if (!timer->expiring)
		return;
	timer->expiring = false;
	timer->tenant->expiring--;
	if (timer->peer != NULL)
		timer->peer->expiring--;
}

bool heartbeats_attach(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		       struct engine_sink *sink, uint64_t tag, struct consumer_key *ret_lost)
{
	struct session_timer *timer = session_timer_find(heartbeats, gateway, session);
	bool moved;

	if (timer == NULL)
		return false; /* it has ended meanwhile: FX_SESSION_ENDED notifies the sink */
	moved = timer->sink != NULL && (timer->sink != sink || timer->tag != tag);
	if (moved) {
		*ret_lost = (struct consumer_key){timer->sink, timer->tag};
		timer->sink->kick(timer->sink, timer->tag);
	}
	detached_remove(heartbeats, timer);
	ends_clear(heartbeats, timer);
	expiring_clear(timer); /* if its end is under way, FX_SESSION_ENDED notifies the sink */
	timer->sink = sink;
	timer->tag = tag;
	timer->awaited = false;
	return moved;
}

void heartbeats_detach(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		       struct engine_sink *sink, uint64_t tag, uint32_t idle_ms, bool used,
		       uint64_t now_ms)
{
	struct session_timer *timer = session_timer_find(heartbeats, gateway, session);

	if (timer == NULL)
		return;
	if (timer->sink != sink || timer->tag != tag)
		return; /* another connection has the session; a resumption counts as use */
	timer->used |= used;
	detached_add(heartbeats, timer,
		     now_ms + (idle_ms < timer->timeout_ms ? timer->timeout_ms - idle_ms : 0),
		     now_ms);
}

void heartbeats_touch(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		      uint64_t at_ms)
{
	struct session_timer *timer = session_timer_find(heartbeats, gateway, session);
	uint64_t deadline_ms;

	if (timer == NULL || timer->sink != NULL || timer->standing || timer->expiring ||
	    timer->ends)
		return;
	deadline_ms = at_ms + timer->timeout_ms;
	if (timer->used && deadline_ms <= timer->deadline_ms)
		return;
	detached_remove(heartbeats, timer);
	timer->used = true;
	detached_add(heartbeats, timer, deadline_ms, at_ms);
}

static void expiring_set(struct heartbeats *heartbeats, struct session_timer *timer)
{
	invariant(!timer->expiring && timer->sink == NULL,
		  "session %llu is attached, or expiring already",
		  (unsigned long long)timer->key.session);
	deadline_clear(heartbeats, timer);
	unused_remove(timer);
	ends_clear(heartbeats, timer);
	timer->expiring = true;
	timer->tenant->expiring++;
	if (timer->peer != NULL)
		timer->peer->expiring++;
}

struct session_timer *heartbeats_due(struct heartbeats *heartbeats, uint64_t now_ms)
{
	struct session_timer *timer = heartbeats->heap_count > 0 ? heartbeats->heap[0] : NULL;

	if (timer == NULL || timer->deadline_ms > now_ms)
		return NULL;
	expiring_set(heartbeats, timer);
	return timer;
}

void heartbeats_again(struct heartbeats *heartbeats, uint32_t gateway, uint64_t session,
		      uint64_t due_ms)
{
	struct session_timer *timer = session_timer_find(heartbeats, gateway, session);

	if (timer == NULL || !timer->expiring)
		return;
	expiring_clear(timer);
	deadline_set(heartbeats, timer, due_ms);
	unused_add(timer);
}

/* ---- admission ---- */

void heartbeats_batch(struct heartbeats *heartbeats)
{
	heartbeats->batch++;
	heartbeats->checks = 0;
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
	struct session_timer *timer =
		replaced != 0 ? session_timer_find(heartbeats, gateway, replaced) : NULL;
	struct tenant *tenant = tenant_get(heartbeats, gateway);
	struct peer *peer = peer_find(heartbeats, address);

	/* A session whose end is in the batch has made room for another already. */
	if (timer != NULL && !timer->expiring) {
		if (timer->peer == peer)
			peer = NULL;
		tenant = NULL;
	} else {
		timer = NULL;
	}
	if (peer != NULL && peer->sessions - peer->expiring + opening(&peer->opening, heartbeats) >=
				    LIMIT_SESSIONS_ADDRESS_MAX)
		return BOUND_ADDRESS;
	if (tenant != NULL &&
	    tenant->sessions - tenant->expiring + opening(&tenant->opening, heartbeats) >=
		    LIMIT_SESSIONS_MAX)
		return BOUND_GATEWAY;
	if (peer != NULL)
		opening_add(&peer->opening, heartbeats);
	if (tenant != NULL)
		opening_add(&tenant->opening, heartbeats);
	if (timer != NULL)
		timer->replaced = heartbeats->batch + 1;
	return BOUND_NONE;
}

/* One call asks for the property of at most OLDEST_ASKED_MAX sessions. All calls of a batch
 * together make at most CHECKS_PER_BATCH_MAX checks, and a query counts as several: at a bound
 * every SESSION_OPEN calls this. */
enum { OLDEST_ASKED_MAX = 256, CHECKS_PER_QUERY = 16, CHECKS_PER_BATCH_MAX = 65536 };

struct session_timer *heartbeats_oldest(
	struct heartbeats *heartbeats, uint32_t gateway, struct sluice_slice address,
	bool (*owns)(void *user, uint32_t gateway, uint64_t session), void *user)
{
	const struct peer *peer = peer_find(heartbeats, address);
	struct session_timer *timer, *found = NULL;
	unsigned asked = 0;

	if (address.len > 0 && peer == NULL)
		return NULL;
	DL_FOREACH(heartbeats->detached, timer) {
		if (heartbeats->checks >= CHECKS_PER_BATCH_MAX || asked == OLDEST_ASKED_MAX)
			break;
		heartbeats->checks++;
		if (timer->expiring || timer->replaced == heartbeats->batch + 1 ||
		    timer->key.gateway != gateway || (peer != NULL && timer->peer != peer))
			continue;
		if (!timer->used) {
			found = timer;
			break;
		}
		asked++;
		if (found != NULL)
			continue;
		heartbeats->checks += CHECKS_PER_QUERY;
		if (!owns(user, gateway, timer->key.session))
			found = timer;
	}
	if (found != NULL)
		expiring_set(heartbeats, found);
	return found;
}

void heartbeats_fini(struct heartbeats *heartbeats)
{
	struct session_timer *timer, *next;
	struct tenant *tenant, *next_tenant;

	HASH_ITER(hh, heartbeats->timers, timer, next)
		session_timer_drop(heartbeats, timer);
	HASH_ITER(hh, heartbeats->tenants, tenant, next_tenant) {
		HASH_DELETE(hh, heartbeats->tenants, tenant);
		free(tenant);
	}
	free(heartbeats->heap);
}
