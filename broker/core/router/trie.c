/* SPDX-License-Identifier: Apache-2.0
 *
 * The trie of an image: which patterns' tokens lead to which edges. Direct routers use the trie
 * with the whole pattern as one token; fanout routers have all edges at their root.
 *
 * A node is never removed; `live` counts the edges at and below it. */
#include <stdlib.h>

#include "broker/core/router/internal.h"
#include "broker/util/invariant.h"

int trie_node_new(struct trie *trie, uint32_t up, uint32_t *ret)
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
			*trie_child_place(children, capacity, child->parent, child->token) = *child;
	}
	free(trie->children);
	trie->children = children;
	trie->child_capacity = capacity;
	return 0;
}

static int child_get(struct trie *trie, uint32_t parent, struct sluice_slice token, uint32_t *ret)
{
	struct trie_child *child;
	int rc = children_grow(trie);

	if (rc != 0)
		return rc;
	child = trie_child_place(trie->children, trie->child_capacity, parent, token);
	if (child->parent == 0) {
		uint32_t node;

		rc = trie_node_new(trie, parent, &node);
		if (rc != 0)
			return rc;
		*child = (struct trie_child){parent, node, token};
		trie->child_count++;
	}
	*ret = child->node;
	return 0;
}

static uint32_t *edge_list(struct router_image *image, const struct image_edge *edge)
{
	struct trie_node *node = &image->trie->nodes[edge->node];

	return edge->rest ? &node->rest : &node->edges;
}

void trie_edge_link(struct router_image *image, uint32_t edge_at)
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

int trie_edge_insert(struct router_image *image, const struct image_router *router,
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
		struct sluice_slice token = trie_token_next(&rest);
		char first = token.len == 1 ? *(const char *)token.data : 0;

		if (first == '>') {
			tail = true;
		} else if (first == '*') {
			uint32_t star = trie->nodes[node].star;

			if (star == 0) {
				rc = trie_node_new(trie, node, &star);
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
	trie_edge_link(image, edge_at);
	return 0;
}

void trie_edge_unlink(struct router_image *image, uint32_t edge_at)
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
