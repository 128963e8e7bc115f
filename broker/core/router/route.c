/* SPDX-License-Identifier: Apache-2.0
 *
 * Matches a subject with an image: walks the trie from a router, sorts the targets found, and keeps
 * a small cache from subject to targets. The image is read, not changed, but for the marks that a
 * walk leaves at the routers that it reached. */
#include <stdlib.h>

#include "broker/core/router/internal.h"
#include "broker/core/router/router.h"
#include "broker/util/crc.h"
#include "protocol/limits.h"

struct walk {
	struct router_cache *cache;
	struct router_image *image;
	uint64_t number;
	struct sluice_slice subject;
	uint32_t depth;
	size_t matches;
	uint64_t steps; /* nodes and edges visited: depends on present edges only, not on removed
			   ones */
	int failed;
};

static void router_walk(struct walk *walk, uint64_t router);

static void collect(struct walk *walk, uint32_t edge_at)
{
	struct router_cache *cache = walk->cache;

	for (; edge_at != 0 && walk->failed == 0; edge_at = walk->image->edges[edge_at - 1].next) {
		const struct image_edge *edge = &walk->image->edges[edge_at - 1];

		walk->steps++;
		if (edge->target_kind == SLUICE__TARGET_KIND__TARGET_ROUTER) {
			router_walk(walk, edge->target);
			continue;
		}
		if (cache->found_count == cache->found_capacity) {
			size_t capacity =
				cache->found_capacity == 0 ? 64 : cache->found_capacity * 2;
			struct route_target *found =
				realloc(cache->found, capacity * sizeof(*found));

			if (found == NULL) {
				walk->failed = SLUICE_E_NOMEM;
				return;
			}
			cache->found = found;
			cache->found_capacity = capacity;
		}
		cache->found[cache->found_count++] =
			(struct route_target){edge->target_kind, edge->target};
		walk->matches++;
	}
}

/* Recursion is as deep as the subject has tokens. */
static void subject_walk(struct walk *walk, uint32_t at, struct sluice_slice rest)
{
	const struct trie_node *node = &walk->image->trie->nodes[at];
	struct sluice_slice token;
	uint32_t child;

	walk->steps++;
	if (rest.data == NULL) {
		collect(walk, node->edges);
		return;
	}
	collect(walk, node->rest);
	token = trie_token_next(&rest);
	child = trie_child_find(walk->image->trie, at, token);
	if (child != 0 && walk->image->trie->nodes[child].live > 0)
		subject_walk(walk, child, rest);
	if (node->star != 0 && walk->image->trie->nodes[node->star].live > 0)
		subject_walk(walk, node->star, rest);
}

/* Depth is bounded by ROUTER_DEPTH_MAX, which binds enforce. A router that many edges lead to is
 * walked once: its targets are the same each time, and edges x edges over eight routers would be
 * unbounded. */
static void router_walk(struct walk *walk, uint64_t id)
{
	struct image_router *router =
		(struct image_router *)(uintptr_t)router_image_find(walk->image, id);
	size_t before = walk->matches;
	uint32_t child;

	if (router == NULL || walk->depth >= LIMIT_ROUTER_DEPTH_MAX)
		return;
	if (router->walk == walk->number) {
		walk->matches += router->matched;
		return;
	}
	router->walk = walk->number;
	router->matched = false;
	walk->depth++;
	switch (router->kind) {
	case SLUICE__ROUTER_KIND__ROUTER_SUBJECT:
		subject_walk(walk, router->root, walk->subject);
		break;
	case SLUICE__ROUTER_KIND__ROUTER_DIRECT:
		child = trie_child_find(walk->image->trie, router->root, walk->subject);
		if (child != 0)
			collect(walk, walk->image->trie->nodes[child].edges);
		break;
	default:
		collect(walk, walk->image->trie->nodes[router->root].rest);
		break;
	}
	if (walk->matches == before && router->alternate != 0)
		router_walk(walk, router->alternate);
	router->matched = walk->matches > before;
	walk->depth--;
}

static int target_compare(const void *left, const void *right)
{
	const struct route_target *a = left, *b = right;

	if (a->kind != b->kind)
		return a->kind < b->kind ? -1 : 1;
	if (a->id != b->id)
		return a->id < b->id ? -1 : 1;
	return 0;
}

/* Lists of edges are ordered, usually the newest first: an ordered list needs no sort. 1:
 * ascending, -1: descending, 0: neither. */
static int found_order(const struct router_cache *cache)
{
	int order = target_compare(&cache->found[1], &cache->found[0]);

	for (size_t i = 2; i < cache->found_count && order != 0; i++) {
		if (target_compare(&cache->found[i], &cache->found[i - 1]) != order)
			order = 0;
	}
	return order;
}

static void found_sort(struct router_cache *cache)
{
	size_t kept = 0, count = cache->found_count;
	int order = count < 2 ? 1 : found_order(cache);

	for (size_t i = 0; order < 0 && i < count / 2; i++) {
		struct route_target other = cache->found[count - 1 - i];

		cache->found[count - 1 - i] = cache->found[i];
		cache->found[i] = other;
	}
	if (order != 0)
		return;
	qsort(cache->found, count, sizeof(*cache->found), target_compare);
	for (size_t i = 0; i < count; i++) {
		if (i == 0 || target_compare(&cache->found[i], &cache->found[kept - 1]) != 0)
			cache->found[kept++] = cache->found[i];
	}
	cache->found_count = kept;
}

int router_route(struct apply *a, uint64_t router, struct sluice_slice subject,
		 const struct route_target **ret, size_t *ret_count)
{
	struct router_cache *cache = a->core->routers;
	struct router_image *image;
	struct route_slot *slot;
	struct walk walk;
	uint32_t hash;
	int rc = router_image_get(a, &image);

	if (rc != 0)
		return rc;
	if (router == 0)
		router = ROUTER_DEFAULT;
	hash = crc32c(subject.data, subject.len) ^ (uint32_t)router * UINT32_C(2654435761);
	slot = &image->slots[hash % ROUTE_SLOT_COUNT];
	if (slot->router == router && slot->generation == image->generation && slot->hash == hash &&
	    slot->subject_bytes == subject.len &&
	    memcmp(slot->subject, subject.data, subject.len) == 0) {
		/* As if it were not cached: refusals must not depend on the state of the cache. */
		a->core->work.steps += slot->steps;
		*ret = slot->targets;
		*ret_count = slot->count;
		return 0;
	}
	cache->found_count = 0;
	walk = (struct walk){.cache = cache,
			     .image = image,
			     .subject = subject,
			     .number = ++cache->walks};
	router_walk(&walk, router);
	a->core->work.steps += walk.steps;
	if (walk.failed != 0)
		return walk.failed;
	found_sort(cache);
	*ret = cache->found;
	*ret_count = cache->found_count;
	if (cache->found_count <= ROUTER_TARGETS_MAX_CACHED &&
	    subject.len <= ROUTE_SUBJECT_BYTES_CACHED) {
		slot->router = router;
		slot->generation = image->generation;
		slot->hash = hash;
		slot->subject_bytes = (uint16_t)subject.len;
		slot->steps = (uint32_t)walk.steps;
		slot->count = (uint16_t)cache->found_count;
		memcpy(slot->subject, subject.data, subject.len);
		if (cache->found_count > 0)
			memcpy(slot->targets, cache->found,
			       cache->found_count * sizeof(*cache->found));
	}
	return 0;
}
