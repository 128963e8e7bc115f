/* SPDX-License-Identifier: Apache-2.0
 *
 * The RAM image of a gateway's routers: loads it from the store, changes it in place with each
 * edge, and undoes the changes of an aborted batch. The trie is in trie.c, the matching of a
 * subject in route.c.
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
#include "broker/core/router/internal.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"

enum { GONE_MIN = 1024 };

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
		rc = trie_node_new(image->trie, 0, &router.root);
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
	return trie_edge_insert(image, router, (uint32_t)image->edge_count - 1);
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
	image->slots = calloc(ROUTE_SLOT_COUNT, sizeof(*image->slots));
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
	trie_edge_unlink(image, (uint32_t)image->edge_count - 1);
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
			trie_edge_link(image, change->edge);
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
	trie_edge_unlink(image, (uint32_t)low);
}

/* Advances the image, which has the change, from one version to the next. */
static void image_follow(struct apply *a, uint64_t before, uint64_t now)
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

int topo_changed(struct apply *a)
{
	struct effect effect = {.kind = FX_TOPOLOGY, .command = a->position, .gateway = a->gateway};
	uint64_t version;
	int rc = counter_next(a, COUNTER_TOPO_VERSION, &version);

	if (rc != 0)
		return rc;
	image_follow(a, version - 1, version);
	return effects_add(a->effects, &effect);
}
