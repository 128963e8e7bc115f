/* SPDX-License-Identifier: Apache-2.0
 * The RAM image of routers, used for routing and changed in place by each edge. */
#ifndef SLUICE_CORE_ROUTER_IMAGE_H
#define SLUICE_CORE_ROUTER_IMAGE_H

#include "broker/core/base/state.h"

enum { ROUTER_TARGETS_MAX_CACHED = 4 };

struct route_target {
	uint32_t kind; /* Sluice__TargetKind: stream or queue */
	uint64_t id;
};

struct image_edge {
	uint64_t id;
	uint64_t router;
	uint32_t target_kind; /* Sluice__TargetKind */
	uint64_t target;
	char *pattern; /* owned */
	uint32_t pattern_bytes;
	uint32_t node; /* of the trie, which lists it */
	bool rest;     /* in the node's list `rest` */
	/* removed: in no list; its pattern stays, because the trie's tokens point into it */
	bool gone;
	uint32_t next; /* edge of the same list, 1-based; 0: none */
	uint32_t prev;
};

struct image_router {
	uint64_t id;
	uint32_t kind;	    /* Sluice__RouterKind */
	uint64_t alternate; /* 0: none */
	char *name;	    /* owned */
	uint32_t root;	    /* trie node */
	uint64_t walk;	    /* number of the last route that reached it */
	bool matched;	    /* in that route */
};

/* A change of the image in the open batch. */
struct image_change {
	uint32_t edge; /* index */
	bool added;
};

struct router_image {
	uint32_t gateway;
	uint64_t version;
	struct image_router *routers; /* ordered by id */
	size_t router_count;
	struct image_edge *edges; /* ordered by id */
	size_t edge_count, gone_count;
	/* of edges that an aborted batch had put: tokens of the trie point into them */
	char **patterns;
	size_t pattern_count;
	struct trie *trie;
	struct route_slot *slots; /* subject -> targets, direct-mapped */
	/* of the slots: incremented by each change, also by one that is undone */
	uint64_t generation;
	struct image_change *changes;
	size_t change_count;
	uint64_t begun; /* version at the begin of the batch */
	bool loaded;	/* in the open batch */
};

int router_cache_create(struct router_cache **ret) SLUICE_MUST_USE;
void router_cache_destroy(struct router_cache *cache); /* accepts NULL */
void router_cache_drop(struct router_cache *cache);
void router_cache_begin(struct router_cache *cache); /* begins a batch: earlier changes are final */
void router_cache_abort(struct router_cache *cache); /* undoes the changes of the batch */
/* After a change in the store. If it cannot be applied in place (no memory), the image is
 * rebuilt. */
void router_image_edge_put(struct apply *a, const struct image_edge *edge);
void router_image_edge_drop(struct apply *a, uint64_t id);
void router_image_drop(struct apply *a); /* a router was changed */
/* The gateway's image as of now; borrowed until the next topology change or drop. */
int router_image_get(struct apply *a, struct router_image **ret) SLUICE_MUST_USE;
/* NULL: none */
const struct image_router *router_image_find(const struct router_image *image, uint64_t id);

/* Targets of a subject from a router (0: the default router), streams first, each once, in id
 * order. Borrowed until the next call.
 * none: 0 targets (after alternates). */
int router_route(struct apply *a, uint64_t router, struct sluice_slice subject,
		 const struct route_target **ret, size_t *ret_count) SLUICE_MUST_USE;

/* After any change of streams, queues, routers or edges: increments the version that caches
 * compare, which the image follows, and adds FX_TOPOLOGY. */
int topo_changed(struct apply *a) SLUICE_MUST_USE;

#endif
