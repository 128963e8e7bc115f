/* SPDX-License-Identifier: Apache-2.0
 *
 * The RAM image of routers: a trie of pattern tokens over all routers of a gateway, and a small
 * cache from subject to targets. Direct routers use the trie with the whole pattern as one token;
 * fanout routers have all edges at their root.
 *
 * Invariant: the contents of the image are a function of the store at its version, independent of
 * order of arrival and of hash order: targets are sorted by (kind, id).
 *
 * A removed edge leaves its lists but not the arrays, because tokens of the trie point into its
 * pattern, and an aborted batch restores it; when removed edges outnumber the others, the image is
 * rebuilt.
 */
#include <stdlib.h>

#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/state.h"
#include "broker/core/base/topo.h"
#include "broker/core/router/image.h"
#include "broker/core/router/router.h"
#include "broker/util/crc.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

enum { SLOT_COUNT = 1024, SUBJECT_BYTES_CACHED = 255, GONE_MIN = 1024 };

struct trie_node {
	uint32_t up;	/* parent; 0: this is a root */
	uint32_t live;	/* edges here or below: a walk skips a node without any */
	uint32_t star;	/* child for '*'; 0: none */
	uint32_t edges; /* of patterns that end here; 1-based index of an edge, 0: none */
	uint32_t rest;	/* of patterns that end with '>' after this node, and of a fanout's root */
};

struct trie_child {
	uint32_t parent; /* 0: the place is free */
	uint32_t node;
	struct sluice_slice token; /* in an edge's pattern */
};

struct trie {
	struct trie_node *nodes; /* 0 is not used */
	size_t node_count, node_capacity;
	struct trie_child *children; /* open addressing */
	size_t child_count, child_capacity;
};

struct route_slot {
	uint64_t router; /* 0: empty */
	uint64_t generation;
	uint32_t hash;
	uint32_t steps;
	uint16_t subject_bytes;
	uint16_t count;
	struct route_target targets[ROUTER_TARGETS_MAX_CACHED];
	uint8_t subject[SUBJECT_BYTES_CACHED];
};

struct router_cache {
	struct router_image **images; /* by gateway number */
	size_t image_count;
	struct route_target *found; /* of the last route */
	size_t found_count, found_capacity;
	uint64_t walks;
};

/* ---- trie ---- */

static int node_new(struct trie *trie, uint32_t up, uint32_t *ret)
{
	if (trie->node_count == trie->node_capacity) {
		size_t capacity = trie->node_capacity == 0 ? 64 : trie->node_capacity * 2;
		struct trie_node *nodes = realloc(trie->nodes, capacity * sizeof(*nodes));

		if (nodes == NULL)
			return SLUICE_E_NOMEM;
		trie->nodes = nodes;
		trie->node_capacity = capacity;
	}
	if (trie->node_count == 0)
		trie->nodes[trie->node_count++] = (struct trie_node){0};
	trie->nodes[trie->node_count] = (struct trie_node){.up = up};
	*ret = (uint32_t)trie->node_count++;
	return 0;
}

static struct trie_child *child_place(struct trie_child *children, size_t capacity, uint32_t parent,
				      struct sluice_slice token)
{
	size_t at = crc32c(token.data, token.len) + parent * UINT32_C(2654435761);

	for (;; at++) {
		struct trie_child *child = &children[at & (capacity - 1)];

		if (child->parent == 0)
			return child;
		if (child->parent == parent && child->token.len == token.len &&
		    memcmp(child->token.data, token.data, token.len) == 0)
			return child;
	}
}

static int children_grow(struct trie *trie)
{
	size_t capacity = trie->child_capacity == 0 ? 128 : trie->child_capacity * 2;
	struct trie_child *children;

	if (trie->child_count * 2 < trie->child_capacity)
		return 0;
	children = calloc(capacity, sizeof(*children));
	if (children == NULL)
		return SLUICE_E_NOMEM;
	for (size_t i = 0; i < trie->child_capacity; i++) {
		const struct trie_child *child = &trie->children[i];

		if (child->parent != 0)
			*child_place(children, capacity, child->parent, child->token) = *child;
	}
	free(trie->children);
	trie->children = children;
	trie->child_capacity = capacity;
	return 0;
}

static uint32_t child_find(const struct trie *trie, uint32_t parent, struct sluice_slice token)
{
	return trie->child_capacity == 0
		       ? 0
		       : child_place(trie->children, trie->child_capacity, parent, token)->node;
}

static int child_get(struct trie *trie, uint32_t parent, struct sluice_slice token, uint32_t *ret)
{
	struct trie_child *child;
	int rc = children_grow(trie);

	if (rc != 0)
		return rc;
	child = child_place(trie->children, trie->child_capacity, parent, token);
	if (child->parent == 0) {
		uint32_t node;

		rc = node_new(trie, parent, &node);
		if (rc != 0)
			return rc;
		*child = (struct trie_child){parent, node, token};
		trie->child_count++;
	}
	*ret = child->node;
	return 0;
}

/* Splits the first dotted token off. */
static struct sluice_slice token_next(struct sluice_slice *io_rest)
{
	const char *data = io_rest->data;
	const char *dot = memchr(data, '.', io_rest->len);
	struct sluice_slice token = {data, dot == NULL ? io_rest->len : (size_t)(dot - data)};

	*io_rest = dot == NULL ? (struct sluice_slice){NULL, 0}
			       : (struct sluice_slice){dot + 1, io_rest->len - token.len - 1};
	return token;
}

static uint32_t *edge_list(struct router_image *image, const struct image_edge *edge)
{
	struct trie_node *node = &image->trie->nodes[edge->node];

	return edge->rest ? &node->rest : &node->edges;
}

static void edge_link(struct router_image *image, uint32_t edge_at)
{
	struct image_edge *edge = &image->edges[edge_at];
	uint32_t *list = edge_list(image, edge);

	edge->next = *list;
	edge->prev = 0;
	if (edge->next != 0)
		image->edges[edge->next - 1].prev = edge_at + 1;
	*list = edge_at + 1;
	for (uint32_t node = edge->node; node != 0; node = image->trie->nodes[node].up)
		image->trie->nodes[node].live++;
	image->generation++;
}

static int edge_insert(struct router_image *image, const struct image_router *router,
		       uint32_t edge_at)
{
	struct image_edge *edge = &image->edges[edge_at];
	struct sluice_slice rest = {edge->pattern, edge->pattern_bytes};
	struct trie *trie = image->trie;
	uint32_t node = router->root;
	bool tail = router->kind == SLUICE__ROUTER_KIND__ROUTER_FANOUT;
	int rc = 0;

	if (router->kind == SLUICE__ROUTER_KIND__ROUTER_DIRECT)
		rc = child_get(trie, node, rest, &node);
	while (rc == 0 && router->kind == SLUICE__ROUTER_KIND__ROUTER_SUBJECT &&
	       rest.data != NULL && !tail) {
		struct sluice_slice token = token_next(&rest);
		char first = token.len == 1 ? *(const char *)token.data : 0;

		if (first == '>') {
			tail = true;
		} else if (first == '*') {
			uint32_t star = trie->nodes[node].star;

			if (star == 0) {
				rc = node_new(trie, node, &star);
				if (rc == 0)
					trie->nodes[node].star = star;
			}
			node = star;
		} else {
			rc = child_get(trie, node, token, &node);
		}
	}
	if (rc != 0)
		return rc;
	edge->node = node;
	edge->rest = tail;
	edge_link(image, edge_at);
	return 0;
}

static void edge_unlink(struct router_image *image, uint32_t edge_at)
{
	struct image_edge *edge = &image->edges[edge_at];

	invariant(!edge->gone, "edge %llu of gateway %u is removed twice",
		  (unsigned long long)edge->id, image->gateway);
	if (edge->prev != 0)
		image->edges[edge->prev - 1].next = edge->next;
	else
		*edge_list(image, edge) = edge->next;
	if (edge->next != 0)
		image->edges[edge->next - 1].prev = edge->prev;
	for (uint32_t node = edge->node; node != 0; node = image->trie->nodes[node].up) {
		invariant(image->trie->nodes[node].live > 0,
			  "edge %llu of gateway %u was not counted", (unsigned long long)edge->id,
			  image->gateway);
		image->trie->nodes[node].live--;
	}
	edge->gone = true;
	image->gone_count++;
	image->generation++;
}

/* ---- image: load and free ---- */

static void image_free(struct router_image *image)
{
	if (image == NULL)
		return;
	for (size_t i = 0; i < image->router_count; i++)
		free(image->routers[i].name);
	for (size_t i = 0; i < image->edge_count; i++)
		free(image->edges[i].pattern);
	if (image->trie != NULL) {
		free(image->trie->nodes);
		free(image->trie->children);
	}
	free(image->trie);
	free(image->routers);
	for (size_t i = 0; i < image->pattern_count; i++)
		free(image->patterns[i]);
	free(image->patterns);
	free(image->edges);
	free(image->slots);
	free(image->changes);
	free(image);
}

/* Doubles an array at powers of two. */
static int array_room(void **io_array, size_t count, size_t item_bytes)
{
	void *array;

	if (count != 0 && (count < 16 || (count & (count - 1)) != 0))
		return 0;
	array = realloc(*io_array, (count < 16 ? 16 : count * 2) * item_bytes);
	if (array == NULL)
		return SLUICE_E_NOMEM;
	*io_array = array;
	return 0;
}

static int router_add(struct router_image *image, struct store_txn *txn, uint64_t id,
		      const void *message)
{
	const Sluice__RouterConfig *config = message;
	struct image_router router = {.id = id, .kind = (uint32_t)config->kind};
	int rc = array_room((void **)&image->routers, image->router_count, sizeof(router));

	if (rc == 0)
		rc = node_new(image->trie, 0, &router.root);
	if (rc == 0 && config->alternate[0] != 0)
		rc = name_find(txn, image->gateway, NAME_ROUTER, slice_text(config->alternate),
			       &router.alternate);
	if (rc != 0)
		return rc;
	router.name = strdup(config->name);
	if (router.name == NULL)
		return SLUICE_E_NOMEM;
	image->routers[image->router_count++] = router;
	return 0;
}

/* Copies the pattern; ids come in order. */
static int edge_append(struct router_image *image, const struct image_edge *edge)
{
	const struct image_router *router = router_image_find(image, edge->router);
	struct image_edge own = *edge;
	int rc = router == NULL
			 ? store_damaged("its content is not valid")
			 : array_room((void **)&image->edges, image->edge_count, sizeof(own));

	if (rc != 0)
		return rc;
	own.pattern = strdup(edge->pattern);
	if (own.pattern == NULL)
		return SLUICE_E_NOMEM;
	own.pattern_bytes = (uint32_t)strlen(own.pattern);
	image->edges[image->edge_count++] = own;
	return edge_insert(image, router, (uint32_t)image->edge_count - 1);
}

static int edge_add(struct router_image *image, struct store_txn *txn, uint64_t id,
		    const void *message)
{
	static const enum name_kind kinds[] = {NAME_STREAM, NAME_QUEUE, NAME_ROUTER};
	const Sluice__Edge *stored = message;
	struct image_edge edge = {.id = id,
				  .target_kind = (uint32_t)stored->target_kind,
				  .pattern = stored->pattern};
	int rc;

	if (edge.target_kind > SLUICE__TARGET_KIND__TARGET_ROUTER)
		return store_damaged("its content is not valid");
	rc = name_find(txn, image->gateway, NAME_ROUTER, slice_text(stored->router), &edge.router);
	if (rc == 0)
		rc = name_find(txn, image->gateway, kinds[edge.target_kind],
			       slice_text(stored->target), &edge.target);
	return rc != 0 ? rc : edge_append(image, &edge);
}

static int definitions_each(struct router_image *image, struct store_txn *txn, enum topo_kind kind,
			    const ProtobufCMessageDescriptor *descriptor,
			    int (*add)(struct router_image *image, struct store_txn *txn,
				       uint64_t id, const void *message))
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	key_topo(&key, image->gateway, (uint8_t)kind, 0);
	rc = store_scan_begin(txn, STORE_TOPO, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		ProtobufCMessage *message;
		uint64_t id;

		if (!key_topo_in(found, image->gateway, (uint8_t)kind, &id))
			break;
		message = record_unpack(descriptor, value, &rc);
		if (rc == 0)
			rc = add(image, txn, id, message);
		protobuf_c_message_free_unpacked(message, NULL);
		/* A definition refers to a missing name: the definition is damaged, which is not
		 * the end of a scan. */
		if (rc == SLUICE_E_NOT_FOUND)
			rc = store_damaged("its content is not valid");
		if (rc != 0)
			break;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

static int image_load(struct store_txn *txn, uint32_t gateway, uint64_t version,
		      struct router_image **ret)
{
	struct router_image *image = calloc(1, sizeof(*image));
	int rc = 0;

	if (image == NULL)
		return SLUICE_E_NOMEM;
	image->gateway = gateway;
	image->version = version;
	image->loaded = true;
	image->trie = calloc(1, sizeof(*image->trie));
	image->slots = calloc(SLOT_COUNT, sizeof(*image->slots));
	if (image->trie == NULL || image->slots == NULL)
		rc = SLUICE_E_NOMEM;
	if (rc == 0)
		rc = definitions_each(image, txn, TOPO_ROUTER, &sluice__router_config__descriptor,
				      router_add);
	if (rc == 0)
		rc = definitions_each(image, txn, TOPO_EDGE, &sluice__edge__descriptor, edge_add);
	if (rc != 0) {
		image_free(image);
		return rc;
	}
	*ret = image;
	return 0;
}

const struct image_router *router_image_find(const struct router_image *image, uint64_t id)
{
	size_t low = 0, high = image->router_count;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (image->routers[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low < image->router_count && image->routers[low].id == id ? &image->routers[low]
									 : NULL;
}

/* ---- cache ---- */

int router_cache_create(struct router_cache **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret == NULL ? SLUICE_E_NOMEM : 0;
}

void router_cache_drop(struct router_cache *cache)
{
	for (size_t i = 0; i < cache->image_count; i++) {
		image_free(cache->images[i]);
		cache->images[i] = NULL;
	}
}

void router_cache_destroy(struct router_cache *cache)
{
	if (cache == NULL)
		return;
	router_cache_drop(cache);
	free(cache->images);
	free(cache->found);
	free(cache);
}

/* ---- changes in place ---- */

void router_cache_begin(struct router_cache *cache)
{
	for (size_t i = 0; i < cache->image_count; i++) {
		struct router_image *image = cache->images[i];

		if (image == NULL)
			continue;
		image->loaded = false;
		image->change_count = 0;
		image->begun = image->version;
	}
}

/* The last edge is removed from the array: its number may be another's when the batch is run again.
 * False: no memory. */
static bool edge_undo(struct router_image *image)
{
	struct image_edge *edge = &image->edges[image->edge_count - 1];

	if (array_room((void **)&image->patterns, image->pattern_count, sizeof(*image->patterns)) !=
	    0)
		return false;
	edge_unlink(image, (uint32_t)image->edge_count - 1);
	image->patterns[image->pattern_count++] = edge->pattern;
	image->edge_count--;
	return true;
}

static bool changes_undo(struct router_image *image)
{
	while (image->change_count > 0) {
		const struct image_change *change = &image->changes[--image->change_count];

		if (!change->added) {
			image->edges[change->edge].gone = false;
			image->gone_count--;
			edge_link(image, change->edge);
			continue;
		}
		invariant(change->edge + 1 == image->edge_count,
			  "edge %u of %zu was the last that was put", change->edge,
			  image->edge_count);
		/* by another change of the batch, undone before */
		if (image->edges[change->edge].gone)
			return false;
		if (!edge_undo(image))
			return false;
	}
	image->version = image->begun;
	return true;
}

void router_cache_abort(struct router_cache *cache)
{
	for (size_t i = 0; i < cache->image_count; i++) {
		struct router_image *image = cache->images[i];

		if (image == NULL)
			continue;
		/* The image was loaded from the batch's writes. */
		if (image->loaded) {
			image_free(image);
			cache->images[i] = NULL;
			continue;
		}
		if (!changes_undo(image)) {
			image_free(image);
			cache->images[i] = NULL;
		}
	}
}

/* The gateway's image if it has the store's state before the current change, else NULL: it is
 * rebuilt when it is needed. */
static struct router_image *image_of(struct apply *a)
{
	struct router_cache *cache = a->core->routers;
	struct router_image *image =
		a->gateway < cache->image_count ? cache->images[a->gateway] : NULL;
	uint64_t version;

	if (image == NULL)
		return NULL;
	if (counter_get(a->txn, a->gateway, COUNTER_TOPO_VERSION, &version) == 0 &&
	    image->version == version)
		return image;
	router_image_drop(a);
	return NULL;
}

void router_image_drop(struct apply *a)
{
	struct router_cache *cache = a->core->routers;

	if (a->gateway >= cache->image_count)
		return;
	image_free(cache->images[a->gateway]);
	cache->images[a->gateway] = NULL;
}

/* False: no memory. */
static bool change_note(struct router_image *image, uint32_t edge, bool added)
{
	if (array_room((void **)&image->changes, image->change_count, sizeof(*image->changes)) != 0)
		return false;
	image->changes[image->change_count++] = (struct image_change){edge, added};
	return true;
}

void router_image_edge_put(struct apply *a, const struct image_edge *edge)
{
	struct router_image *image = image_of(a);

	if (image == NULL)
		return;
	invariant(image->edge_count == 0 || image->edges[image->edge_count - 1].id < edge->id,
		  "edge %llu of gateway %u comes after %llu", (unsigned long long)edge->id,
		  a->gateway, (unsigned long long)image->edges[image->edge_count - 1].id);
	if (edge_append(image, edge) != 0 ||
	    !change_note(image, (uint32_t)image->edge_count - 1, true))
		router_image_drop(a);
}

void router_image_edge_drop(struct apply *a, uint64_t id)
{
	struct router_image *image = image_of(a);
	size_t low = 0, high = image != NULL ? image->edge_count : 0;

	while (low < high) {
		size_t middle = (low + high) / 2;

		if (image->edges[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	if (image == NULL)
		return;
	if (low == image->edge_count || image->edges[low].id != id ||
	    !change_note(image, (uint32_t)low, false)) {
		router_image_drop(a);
		return;
	}
	edge_unlink(image, (uint32_t)low);
}

/* Advances the image, which has the change, from one version to the next. */
static void router_image_follow(struct apply *a, uint64_t before, uint64_t now)
{
	struct router_cache *cache = a->core->routers;
	struct router_image *image =
		a->gateway < cache->image_count ? cache->images[a->gateway] : NULL;

	if (image == NULL)
		return;
	if (image->version == before)
		image->version = now;
	else
		router_image_drop(a);
}

/* More edges are removed than present. Not in a batch that has changed the image: that may have to
 * be undone. */
static bool worn(const struct router_image *image)
{
	return image->change_count == 0 && image->gone_count > GONE_MIN &&
	       image->gone_count > image->edge_count / 2;
}

int router_image_get(struct apply *a, struct router_image **ret)
{
	struct router_cache *cache = a->core->routers;
	uint64_t version;
	int rc = counter_get(a->txn, a->gateway, COUNTER_TOPO_VERSION, &version);

	if (rc != 0)
		return rc;
	if (a->gateway >= cache->image_count) {
		size_t count = (size_t)a->gateway + 1;
		struct router_image **images = realloc(cache->images, count * sizeof(*images));

		if (images == NULL)
			return SLUICE_E_NOMEM;
		while (cache->image_count < count)
			images[cache->image_count++] = NULL;
		cache->images = images;
	}
	if (cache->images[a->gateway] == NULL || cache->images[a->gateway]->version != version ||
	    worn(cache->images[a->gateway])) {
		image_free(cache->images[a->gateway]);
		cache->images[a->gateway] = NULL;
		rc = image_load(a->txn, a->gateway, version, &cache->images[a->gateway]);
	}
	*ret = cache->images[a->gateway];
	return rc;
}

/* ---- route ---- */

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
	token = token_next(&rest);
	child = child_find(walk->image->trie, at, token);
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
		child = child_find(walk->image->trie, router->root, walk->subject);
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
	slot = &image->slots[hash % SLOT_COUNT];
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
	    subject.len <= SUBJECT_BYTES_CACHED) {
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

int topo_changed(struct apply *a)
{
	struct effect effect = {.kind = FX_TOPOLOGY, .command = a->position, .gateway = a->gateway};
	uint64_t version;
	int rc = counter_next(a, COUNTER_TOPO_VERSION, &version);

	if (rc != 0)
		return rc;
	router_image_follow(a, version - 1, version);
	return effects_add(a->effects, &effect);
}
