/* SPDX-License-Identifier: Apache-2.0
 * router_show, router_list: from the definitions, without the writer's image. */
#include <stdlib.h>

#include "broker/core/base/name.h"
#include "broker/core/base/reply.h"
#include "broker/core/base/topo.h"
#include "broker/core/router/router.h"

/* takes edge; those of other routers are freed. */
static int edge_add(Sluice__RouterInfo *info, Sluice__Edge *edge)
{
	Sluice__Edge **edges = info->edges;
	size_t count = info->n_edges;

	if (strcmp(edge->router, info->config->name) != 0) {
		sluice__edge__free_unpacked(edge, NULL);
		return 0;
	}
	/* Capacities 8, 16, 32 ... */
	if (count == 0 || (count >= 8 && (count & (count - 1)) == 0))
		edges = realloc(info->edges, (count == 0 ? 8 : 2 * count) * sizeof(*edges));
	if (edges == NULL) {
		sluice__edge__free_unpacked(edge, NULL);
		return SLUICE_E_NOMEM;
	}
	info->edges = edges;
	edges[info->n_edges++] = edge;
	return 0;
}

/* Appends the edges of one router to its row, from q->at.number on. */
static int edges_fill(struct query *q, Sluice__RouterInfo *info)
{
	struct store_scan *scan;
	struct sluice_slice found, value;
	struct key key;
	int rc;

	key_topo(&key, q->gateway, TOPO_EDGE, q->at.number);
	rc = store_scan_begin(q->txn, STORE_TOPO, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while ((rc = store_scan_next(scan, &found, &value)) == 0) {
		Sluice__Edge *edge;
		uint64_t id;

		if (!key_topo_in(found, q->gateway, TOPO_EDGE, &id))
			break;
		q->at.number = id + 1;
		edge = record_unpack(&sluice__edge__descriptor, value, &rc);
		if (rc == 0)
			rc = edge_add(info, edge);
		if (rc != 0)
			break;
		q->again = query_spent(q);
		if (q->again)
			break;
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

/* The reply's array has room for it. with_edges is for show: in a list, edges (10,000 at most per
 * router) would be too many. */
static int row_add(struct query *q, uint64_t id, bool with_edges)
{
	Sluice__RouterInfo *info = malloc(sizeof(*info));
	ProtobufCMessage *config = NULL;
	int rc;

	if (info == NULL)
		return SLUICE_E_NOMEM;
	sluice__router_info__init(info);
	q->reply->routers[q->reply->n_routers++] = info;
	info->id = id;
	rc = topo_find(q->txn, q->gateway, TOPO_ROUTER, id, &sluice__router_config__descriptor,
		       &config);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	info->config = (Sluice__RouterConfig *)config;
	return with_edges ? edges_fill(q, info) : 0;
}

static int show(struct query *q, const char *name)
{
	uint64_t id;
	int rc;

	if (q->reply->n_routers == 1)
		return edges_fill(q, q->reply->routers[0]);
	rc = name_find(q->txn, q->gateway, NAME_ROUTER, slice_text(name), &id);
	if (rc == SLUICE_E_NOT_FOUND)
		return query_refuse(q, rc, "router '%.200s' does not exist", name);
	if (rc != 0)
		return rc;
	q->reply->routers = calloc(1, sizeof(*q->reply->routers));
	return q->reply->routers == NULL ? SLUICE_E_NOMEM : row_add(q, id, true);
}

static int list_row(struct query *q, uint64_t id, void *user)
{
	(void)user;
	return row_add(q, id, false);
}

static int list(struct query *q, const Sluice__RouterList *m)
{
	if (q->reply->routers == NULL)
		q->reply->routers = calloc(rows_max(m->max), sizeof(*q->reply->routers));
	return q->reply->routers == NULL
		       ? SLUICE_E_NOMEM
		       : name_each(q, NAME_ROUTER, m->after, m->max, list_row, NULL);
}

int router_query(struct query *q, const Sluice__Request *request)
{
	if (request->op_case == SLUICE__REQUEST__OP_ROUTER_SHOW)
		return show(q, request->router_show->name);
	return list(q, request->router_list);
}
