/* SPDX-License-Identifier: Apache-2.0
 * What image.c, trie.c and route.c share: image.c and route.c call trie.c, route.c calls image.c.
 * Inline is what a walk calls at each token. */
#ifndef SLUICE_CORE_ROUTER_INTERNAL_H
#define SLUICE_CORE_ROUTER_INTERNAL_H

#include <string.h>

#include "broker/core/router/image.h"
#include "broker/util/crc.h"

enum { ROUTE_SLOT_COUNT = 1024, ROUTE_SUBJECT_BYTES_CACHED = 255 };

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
	uint8_t subject[ROUTE_SUBJECT_BYTES_CACHED];
};

struct router_cache {
	struct router_image **images; /* by gateway number */
	size_t image_count;
	struct route_target *found; /* of the last route */
	size_t found_count, found_capacity;
	uint64_t walks;
};

static inline struct trie_child *trie_child_place(struct trie_child *children, size_t capacity,
						  uint32_t parent, struct sluice_slice token)
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

/* 0: none */
static inline uint32_t trie_child_find(const struct trie *trie, uint32_t parent,
				       struct sluice_slice token)
{
	return trie->child_capacity == 0
		       ? 0
		       : trie_child_place(trie->children, trie->child_capacity, parent, token)
				 ->node;
}

/* Splits the first dotted token off. io_rest->data is NULL after the last. */
static inline struct sluice_slice trie_token_next(struct sluice_slice *io_rest)
{
	const char *data = io_rest->data;
	const char *dot = memchr(data, '.', io_rest->len);
	struct sluice_slice token = {data, dot == NULL ? io_rest->len : (size_t)(dot - data)};

	*io_rest = dot == NULL ? (struct sluice_slice){NULL, 0}
			       : (struct sluice_slice){dot + 1, io_rest->len - token.len - 1};
	return token;
}

/* A new node, child of `up` (0: a root). */
int trie_node_new(struct trie *trie, uint32_t up, uint32_t *ret) SLUICE_MUST_USE;

/* Puts image->edges[edge_at], whose pattern is set, into the trie below the router's root. On an
 * error it is in no list. */
int trie_edge_insert(struct router_image *image, const struct image_router *router,
		     uint32_t edge_at) SLUICE_MUST_USE;
/* Puts an edge back at the node that it had. */
void trie_edge_link(struct router_image *image, uint32_t edge_at);
void trie_edge_unlink(struct router_image *image, uint32_t edge_at);

#endif
