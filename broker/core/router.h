/* SPDX-License-Identifier: Apache-2.0
 *
 * Routers inside core: the RAM image of a gateway's routers and edges, and what stands on it. The image is
 * keyed by the gateway's topo version and dropped with an aborted batch, so it never says anything that the
 * store does not.
 */
#ifndef SLUICE_CORE_ROUTER_H
#define SLUICE_CORE_ROUTER_H

#include "broker/core/core_internal.h"

enum { ROUTER_DEFAULT = 1, ROUTER_TARGETS_MAX_CACHED = 4 };

struct image_edge {
	uint64_t id;
	uint64_t router;
	uint32_t target_kind; /* Sluice__TargetKind */
	uint64_t target;
	char *pattern; /* owned */
	uint32_t pattern_bytes;
	uint32_t next; /* edge of the same trie node, 1-based; 0: none */
};

struct image_router {
	uint64_t id;
	uint32_t kind;	    /* Sluice__RouterKind */
	uint64_t alternate; /* 0: none */
	char *name;	    /* owned */
	uint32_t root;	    /* trie node */
};

struct router_image {
	uint32_t gateway;
	uint64_t version;
	struct image_router *routers; /* in id order */
	size_t router_count;
	struct image_edge *edges; /* in id order */
	size_t edge_count;
	struct trie *trie;
	struct route_slot *slots; /* subject -> targets, direct-mapped */
};

int router_cache_create(struct router_cache **ret) SLUICE_MUST_USE;
void router_cache_destroy(struct router_cache *cache); /* accepts NULL */
void router_cache_drop(struct router_cache *cache);
/* The gateway's image as of now; borrowed until the next topology change or drop. */
int router_image_get(struct apply *a, struct router_image **ret) SLUICE_MUST_USE;
const struct image_router *router_image_find(const struct router_image *image, uint64_t id); /* NULL: none */

/* The default router of a new gateway: number 1, kind subject. */
int router_install_default(struct apply *a) SLUICE_MUST_USE;

#endif
