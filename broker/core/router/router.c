/* SPDX-License-Identifier: Apache-2.0
 *
 * Router commands and edges. An edge is a definition (topo) and an entry in `name` under NAME_EDGE,
 * whose key begins with the edge's target: a bind finds its duplicate, and a deleted target finds
 * its edges, without a walk over all edges.
 *
 * Invariants: the graph of routers (edges and alternates) has no cycle, and no path over more than
 * ROUTER_DEPTH_MAX routers.
 */
#include <stdlib.h>

#include "broker/core/base/config_same.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/number.h"
#include "broker/core/base/topo.h"
#include "broker/core/router/image.h"
#include "broker/core/router/router.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

#define DEFAULT_NAME "default"

enum { DROP_AT_ONCE = 64 };

/* ---- the graph ---- */

struct graph_link {
	size_t from, to; /* routers of the image */
};

static void link_add(const struct router_image *image, const struct image_router *from,
		     uint64_t to_id, struct graph_link *links, size_t *io_count)
{
	const struct image_router *to = router_image_find(image, to_id);

	if (from == NULL || to == NULL)
		return;
	links[(*io_count)++] =
		(struct graph_link){(size_t)(from - image->routers), (size_t)(to - image->routers)};
}

/* Links between routers: edges, and alternates. Few edges are links. Malloc'd. */
static int links_gather(const struct router_image *image, struct graph_link **ret,
			size_t *ret_count)
{
	struct graph_link *links;
	size_t most = image->router_count;

	*ret_count = 0;
	for (size_t i = 0; i < image->edge_count; i++)
		most += image->edges[i].target_kind == SLUICE__TARGET_KIND__TARGET_ROUTER;
	links = malloc((most + 1) * sizeof(*links));
	if (links == NULL)
		return SLUICE_E_NOMEM;
	for (size_t i = 0; i < image->edge_count; i++) {
		const struct image_edge *edge = &image->edges[i];

		if (!edge->gone && edge->target_kind == SLUICE__TARGET_KIND__TARGET_ROUTER)
			link_add(image, router_image_find(image, edge->router), edge->target, links,
				 ret_count);
	}
	for (size_t i = 0; i < image->router_count; i++)
		link_add(image, &image->routers[i], image->routers[i].alternate, links, ret_count);
	*ret = links;
	return 0;
}

/* One router of the graph. */
struct graph_node {
	uint8_t down;	 /* routers on the longest path that begins here */
	uint8_t up;	 /* ... that ends here */
	uint8_t reached; /* from the link's target */
};

/* The graph has no path over more than ROUTER_DEPTH_MAX routers, so this number of rounds over its
 * links finds every longest one. */
static void graph_measure(const struct graph_link *links, size_t count, struct graph_node *nodes)
{
	for (uint64_t round = 0; round < LIMIT_ROUTER_DEPTH_MAX; round++) {
		for (size_t i = 0; i < count; i++) {
			struct graph_node *from = &nodes[links[i].from], *to = &nodes[links[i].to];

			if (from->down < to->down + 1)
				from->down = (uint8_t)(to->down + 1);
			if (to->up < from->up + 1)
				to->up = (uint8_t)(from->up + 1);
			to->reached |= from->reached;
		}
	}
}

/* Whether a link from one router to another may be added. from 0: a router that does not exist
 * yet. */
static int link_check(struct apply *a, uint64_t from, uint64_t to, struct outcome *out)
{
	const struct image_router *source, *target;
	struct router_image *image;
	struct graph_node *nodes;
	struct graph_link *links;
	size_t link_count;
	unsigned routers;
	bool cycle;
	int rc = router_image_get(a, &image);

	if (rc != 0)
		return rc;
	source = router_image_find(image, from);
	target = router_image_find(image, to);
	if (target == NULL)
		return store_damaged("its content is not valid");
	rc = links_gather(image, &links, &link_count);
	if (rc != 0)
		return rc;
	nodes = malloc(image->router_count * sizeof(*nodes));
	if (nodes == NULL) {
		free(links);
		return SLUICE_E_NOMEM;
	}
	for (size_t i = 0; i < image->router_count; i++)
		nodes[i] = (struct graph_node){1, 1, 0};
	nodes[target - image->routers].reached = 1;
	graph_measure(links, link_count, nodes);
	free(links);
	cycle = source != NULL && nodes[source - image->routers].reached != 0;
	routers = nodes[target - image->routers].down +
		  (source != NULL ? nodes[source - image->routers].up : 1U);
	free(nodes);
	if (cycle)
		return refuse(out, SLUICE_E_CONFLICT,
			      "the routers would form a cycle; an event must not come back to a "
			      "router");
	if (routers > LIMIT_ROUTER_DEPTH_MAX)
		return refuse(out, SLUICE_E_LIMIT, "an event would pass %u routers; at most %llu",
			      routers, (unsigned long long)LIMIT_ROUTER_DEPTH_MAX);
	return 0;
}

/* ---- edges ---- */

static struct sluice_slice edge_name(uint8_t *buf, uint32_t target_kind, uint64_t target,
				     uint64_t router, struct sluice_slice pattern)
{
	return edge_name_encode(buf, &(struct edge_name){.target_kind = (uint8_t)target_kind,
							 .target = target,
							 .router = router,
							 .pattern = pattern});
}

/* The caller has checked everything; *ret_new is false when the edge exists already. */
static int edge_put(struct apply *a, const Sluice__Edge *edge, uint64_t router, uint64_t target,
		    bool *ret_new)
{
	uint8_t buf[EDGE_NAME_BYTES_MAX];
	struct sluice_slice name = edge_name(buf, (uint32_t)edge->target_kind, target, router,
					     slice_text(edge->pattern));
	uint64_t id;
	int rc = name_find(a->txn, a->gateway, NAME_EDGE, name, &id);

	*ret_new = rc == SLUICE_E_NOT_FOUND;
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = counter_next(a, COUNTER_EDGE, &id);
	if (rc == 0)
		rc = name_put(a, NAME_EDGE, name, id);
	if (rc == 0)
		rc = topo_put(a, TOPO_EDGE, id, &edge->base);
	if (rc == 0)
		rc = counter_add(a, COUNTER_EDGES, 1);
	if (rc == 0)
		router_image_edge_put(a, &(struct image_edge){.id = id,
							      .router = router,
							      .target_kind =
								      (uint32_t)edge->target_kind,
							      .target = target,
							      .pattern = edge->pattern});
	return rc;
}

/* In the store only. */
static int edge_delete(struct apply *a, struct sluice_slice name, uint64_t id)
{
	int rc = name_del(a, NAME_EDGE, name);

	if (rc == 0)
		rc = topo_del(a, TOPO_EDGE, id);
	return rc != 0 ? rc : counter_add(a, COUNTER_EDGES, -1);
}

static int edge_drop(struct apply *a, struct sluice_slice name, uint64_t id)
{
	int rc = edge_delete(a, name, id);

	if (rc == 0)
		router_image_edge_drop(a, id);
	return rc;
}

static int room_check(struct apply *a, size_t more, struct outcome *out)
{
	uint64_t count;
	int rc = counter_get(a->txn, a->gateway, COUNTER_EDGES, &count);

	if (rc == 0 && count + more > LIMIT_EDGES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "the gateway has %llu edges; at most %llu",
			      (unsigned long long)count, (unsigned long long)LIMIT_EDGES_MAX);
	return rc;
}

int router_subjects_check(struct apply *a, char *const *patterns, size_t count, struct outcome *out)
{
	const char *why = NULL;

	for (size_t i = 0; i < count; i++) {
		int rc = pattern_check(slice_text(patterns[i]), &why);

		if (rc != 0)
			return refuse(out, rc, "subject pattern '%.100s': %s", patterns[i], why);
	}
	return room_check(a, count, out);
}

int router_subjects_bind(struct apply *a, char *const *patterns, size_t count, uint32_t target_kind,
			 uint64_t target)
{
	const enum topo_kind kind =
		target_kind == SLUICE__TARGET_KIND__TARGET_STREAM ? TOPO_STREAM : TOPO_QUEUE;
	const ProtobufCMessageDescriptor *descriptor = kind == TOPO_STREAM
							       ? &sluice__stream_config__descriptor
							       : &sluice__queue_config__descriptor;
	Sluice__Edge edge = SLUICE__EDGE__INIT;
	ProtobufCMessage *definition = NULL;
	char router[] = DEFAULT_NAME;
	bool is_new;
	int rc = 0;

	if (count == 0)
		return 0;
	rc = topo_find(a->txn, a->gateway, kind, target, descriptor, &definition);
	if (rc != 0)
		return rc;
	edge.router = router;
	edge.target_kind = (Sluice__TargetKind)target_kind;
	edge.target = kind == TOPO_STREAM ? ((Sluice__StreamConfig *)definition)->name
					  : ((Sluice__QueueConfig *)definition)->name;
	for (size_t i = 0; i < count && rc == 0; i++) {
		edge.pattern = patterns[i];
		rc = edge_put(a, &edge, ROUTER_DEFAULT, target, &is_new);
	}
	protobuf_c_message_free_unpacked(definition, NULL);
	return rc;
}

int router_subjects_bound(struct apply *a, char *const *patterns, size_t count,
			  uint32_t target_kind, uint64_t target, const char *name,
			  struct outcome *out)
{
	for (size_t i = 0; i < count; i++) {
		uint8_t buf[EDGE_NAME_BYTES_MAX];
		uint64_t id;
		int rc = strlen(patterns[i]) > LIMIT_SUBJECT_BYTES_MAX
				 ? SLUICE_E_NOT_FOUND
				 : name_find(a->txn, a->gateway, NAME_EDGE,
					     edge_name(buf, target_kind, target, ROUTER_DEFAULT,
						       slice_text(patterns[i])),
					     &id);

		if (rc == SLUICE_E_NOT_FOUND)
			return refuse(out, SLUICE_E_CONFLICT,
				      "%s '%.100s' exists with other subjects: '%.100s' is not "
				      "bound to it",
				      target_kind == SLUICE__TARGET_KIND__TARGET_STREAM ? "stream"
											: "queue",
				      name, patterns[i]);
		if (rc != 0)
			return rc;
	}
	return 0;
}

struct edge_ref {
	uint8_t name[EDGE_NAME_BYTES_MAX];
	size_t name_bytes;
	uint64_t id;
};

static int edges_gather(struct apply *a, uint32_t target_kind, uint64_t target,
			struct edge_ref *ret, size_t *ret_count)
{
	uint8_t buf[EDGE_NAME_BYTES_MAX];
	struct sluice_slice prefix =
		edge_name(buf, target_kind, target, 0, (struct sluice_slice){NULL, 0});
	struct store_scan *scan;
	struct sluice_slice found, value, name;
	struct edge_name edge;
	struct key key;
	size_t count = 0;
	int rc;

	key_name(&key, a->gateway, NAME_EDGE, prefix);
	rc = store_scan_begin(a->txn, STORE_NAME, key_slice(&key), &scan);
	if (rc != 0)
		return rc;
	while (count < DROP_AT_ONCE && (rc = store_scan_next(scan, &found, &value)) == 0) {
		if (!key_name_in(found, a->gateway, NAME_EDGE, &name) ||
		    !edge_name_decode(name, &edge) || edge.target_kind != target_kind ||
		    edge.target != target)
			break;
		if (!number_read(value, &ret[count].id) || name.len > EDGE_NAME_BYTES_MAX) {
			rc = store_damaged("its content is not valid");
			break;
		}
		ret[count].name_bytes = name.len;
		memcpy(ret[count].name, name.data, name.len);
		count++;
	}
	store_scan_end(scan);
	*ret_count = count;
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int router_drop_target(struct apply *a, uint32_t target_kind, uint64_t target)
{
	struct edge_ref edges[DROP_AT_ONCE];
	size_t count = DROP_AT_ONCE;

	while (count == DROP_AT_ONCE) {
		int rc = edges_gather(a, target_kind, target, edges, &count);

		for (size_t i = 0; i < count && rc == 0; i++)
			rc = edge_drop(a, (struct sluice_slice){edges[i].name, edges[i].name_bytes},
				       edges[i].id);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* ---- bind, unbind ---- */

static int pattern_check_kind(const char *pattern, uint32_t router_kind, struct outcome *out)
{
	const char *why = NULL;
	int rc = 0;

	if (strlen(pattern) > LIMIT_SUBJECT_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "pattern: at most %llu bytes",
			      (unsigned long long)LIMIT_SUBJECT_BYTES_MAX);
	if (router_kind == SLUICE__ROUTER_KIND__ROUTER_SUBJECT)
		rc = pattern_check(slice_text(pattern), &why);
	else if (router_kind == SLUICE__ROUTER_KIND__ROUTER_DIRECT)
		rc = subject_check(slice_text(pattern), &why);
	return rc != 0 ? refuse(out, rc, "pattern '%.100s': %s", pattern, why) : 0;
}

static int target_find(struct apply *a, const Sluice__Edge *edge, uint64_t *ret,
		       struct outcome *out)
{
	struct sluice_slice name = slice_text(edge->target);
	ProtobufCMessage *queue = NULL;
	bool jobs;
	int rc;

	switch ((uint32_t)edge->target_kind) {
	case SLUICE__TARGET_KIND__TARGET_STREAM:
		rc = name_find(a->txn, a->gateway, NAME_STREAM, name, ret);
		break;
	case SLUICE__TARGET_KIND__TARGET_QUEUE:
		rc = name_find(a->txn, a->gateway, NAME_QUEUE, name, ret);
		if (rc == 0)
			rc = topo_find(a->txn, a->gateway, TOPO_QUEUE, *ret,
				       &sluice__queue_config__descriptor, &queue);
		if (rc != 0)
			break;
		jobs = ((Sluice__QueueConfig *)queue)->kind != SLUICE__QUEUE_KIND__QUEUE_ITEMS;
		protobuf_c_message_free_unpacked(queue, NULL);
		if (jobs)
			return refuse(out, SLUICE_E_INVAL,
				      "queue '%.100s' holds jobs, which come by submit; expected "
				      "one of items",
				      edge->target);
		break;
	case SLUICE__TARGET_KIND__TARGET_ROUTER:
		rc = name_find(a->txn, a->gateway, NAME_ROUTER, name, ret);
		break;
	default:
		return refuse(out, SLUICE_E_INVAL,
			      "target kind %d; expected 0 (stream), 1 (queue) or 2 (router)",
			      (int)edge->target_kind);
	}
	return rc != SLUICE_E_NOT_FOUND
		       ? rc
		       : refuse(out, rc, "target '%.200s' does not exist", edge->target);
}

struct router_ref {
	uint64_t id;
	uint32_t kind;
};

static int router_find(struct apply *a, const char *name, struct router_ref *ret,
		       struct outcome *out)
{
	ProtobufCMessage *message = NULL;
	int rc = name_find(a->txn, a->gateway, NAME_ROUTER, slice_text(name), &ret->id);

	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, rc, "router '%.200s' does not exist", name);
	if (rc == 0)
		rc = topo_find(a->txn, a->gateway, TOPO_ROUTER, ret->id,
			       &sluice__router_config__descriptor, &message);
	if (rc == SLUICE_E_NOT_FOUND)
		rc = store_damaged("its content is not valid");
	if (rc != 0)
		return rc;
	ret->kind = (uint32_t)((Sluice__RouterConfig *)message)->kind;
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

static const char *router_or_default(const char *name)
{
	return name[0] != 0 ? name : DEFAULT_NAME;
}

static int edge_check(struct apply *a, const Sluice__Edge *edge, struct router_ref *router,
		      uint64_t *target, struct outcome *out)
{
	int rc;

	if (edge == NULL)
		return refuse(out, SLUICE_E_INVAL, "no edge was given");
	rc = router_find(a, router_or_default(edge->router), router, out);
	if (rc == 0 && !refused(out))
		rc = pattern_check_kind(edge->pattern, router->kind, out);
	if (rc == 0 && !refused(out))
		rc = target_find(a, edge, target, out);
	return rc;
}

int router_bind_apply(struct apply *a, const Sluice__RouterBind *m, struct outcome *out)
{
	uint8_t buf[EDGE_NAME_BYTES_MAX];
	Sluice__Edge stored;
	struct router_ref router = {0};
	uint64_t target = 0, id;
	bool is_new;
	int rc = edge_check(a, m->edge, &router, &target, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = name_find(a->txn, a->gateway, NAME_EDGE,
		       edge_name(buf, (uint32_t)m->edge->target_kind, target, router.id,
				 slice_text(m->edge->pattern)),
		       &id);
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = room_check(a, 1, out);
	if (rc == 0 && !refused(out) && m->edge->target_kind == SLUICE__TARGET_KIND__TARGET_ROUTER)
		rc = link_check(a, router.id, target, out);
	if (rc != 0 || refused(out))
		return rc;
	stored = *m->edge;
	stored.base.n_unknown_fields = 0;
	stored.router = (char *)(uintptr_t)router_or_default(m->edge->router);
	rc = edge_put(a, &stored, router.id, target, &is_new);
	return rc != 0 ? rc : topo_changed(a);
}

int router_unbind_apply(struct apply *a, const Sluice__RouterUnbind *m, struct outcome *out)
{
	uint8_t buf[EDGE_NAME_BYTES_MAX];
	struct router_ref router = {0};
	struct sluice_slice name;
	uint64_t target = 0, id;
	int rc = edge_check(a, m->edge, &router, &target, out);

	if (rc != 0 || refused(out))
		return rc;
	name = edge_name(buf, (uint32_t)m->edge->target_kind, target, router.id,
			 slice_text(m->edge->pattern));
	rc = name_find(a->txn, a->gateway, NAME_EDGE, name, &id);
	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, rc, "there is no such edge from router '%.100s' to '%.100s'",
			      router_or_default(m->edge->router), m->edge->target);
	if (rc == 0)
		rc = edge_drop(a, name, id);
	return rc != 0 ? rc : topo_changed(a);
}

/* ---- create, alter, delete ---- */

static int config_check(struct apply *a, const Sluice__RouterConfig *config, uint64_t id,
			struct outcome *out)
{
	const char *why = NULL;
	uint64_t alternate;
	int rc;

	if (config == NULL)
		return refuse(out, SLUICE_E_INVAL,
			      "no configuration was given; expected a RouterConfig");
	rc = name_check(slice_text(config->name), &why);
	if (rc != 0)
		return refuse(out, rc, "router name: %s", why);
	if ((uint32_t)config->kind > SLUICE__ROUTER_KIND__ROUTER_FANOUT)
		return refuse(out, SLUICE_E_INVAL,
			      "kind is %d; expected 0 (subject), 1 (direct) or 2 (fanout)",
			      (int)config->kind);
	if (strlen(config->description) > LIMIT_TEXT_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "description is longer than %llu bytes",
			      (unsigned long long)LIMIT_TEXT_BYTES_MAX);
	if (config->alternate[0] == 0)
		return 0;
	rc = name_find(a->txn, a->gateway, NAME_ROUTER, slice_text(config->alternate), &alternate);
	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, rc, "alternate router '%.200s' does not exist",
			      config->alternate);
	return rc != 0 ? rc : link_check(a, id, alternate, out);
}

static int create_same(struct apply *a, uint64_t id, const Sluice__RouterConfig *config,
		       struct outcome *out)
{
	ProtobufCMessage *stored = NULL;
	int rc = topo_find(a->txn, a->gateway, TOPO_ROUTER, id, &sluice__router_config__descriptor,
			   &stored);

	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	rc = config_same(stored, &config->base, "router", config->name, out);
	protobuf_c_message_free_unpacked(stored, NULL);
	return rc;
}

int router_create_apply(struct apply *a, const Sluice__RouterCreate *m, struct outcome *out)
{
	uint64_t id;
	int rc = config_check(a, m->config, 0, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = name_find(a->txn, a->gateway, NAME_ROUTER, slice_text(m->config->name), &id);
	if (rc == 0)
		return m->if_not_exists ? create_same(a, id, m->config, out)
					: refuse(out, SLUICE_E_EXISTS, "router '%.200s' exists",
						 m->config->name);
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = counter_next(a, COUNTER_ROUTER, &id);
	if (rc == 0)
		rc = name_put(a, NAME_ROUTER, slice_text(m->config->name), id);
	if (rc == 0)
		rc = topo_put(a, TOPO_ROUTER, id, &m->config->base);
	router_image_drop(a);
	return rc != 0 ? rc : topo_changed(a);
}

int router_alter_apply(struct apply *a, const Sluice__RouterAlter *m, struct outcome *out)
{
	struct router_ref router = {0};
	int rc;

	if (m->config == NULL)
		return refuse(out, SLUICE_E_INVAL,
			      "no configuration was given; expected a RouterConfig");
	rc = router_find(a, m->config->name, &router, out);
	if (rc != 0 || refused(out))
		return rc;
	if ((uint32_t)m->config->kind != router.kind)
		return refuse(out, SLUICE_E_CONFLICT,
			      "router '%.200s': the kind cannot change; create another router",
			      m->config->name);
	rc = config_check(a, m->config, router.id, out);
	if (rc != 0 || refused(out))
		return rc;
	rc = topo_put(a, TOPO_ROUTER, router.id, &m->config->base);
	router_image_drop(a);
	return rc != 0 ? rc : topo_changed(a);
}

static int in_use_check(struct apply *a, uint64_t id, const char *name, struct outcome *out)
{
	struct router_image *image;
	int rc = router_image_get(a, &image);

	for (size_t i = 0; rc == 0 && i < image->router_count; i++) {
		if (image->routers[i].alternate == id)
			return refuse(out, SLUICE_E_IN_USE,
				      "router '%.100s' is the alternate of '%.100s'", name,
				      image->routers[i].name);
	}
	return rc;
}

/* The edges from the router; router_drop_target() drops those to it. The image, which is read here
 * and would be dropped when a change finds no memory, stays unchanged: the caller has it
 * rebuilt. */
static int edges_drop_from(struct apply *a, uint64_t router)
{
	struct router_image *image;
	uint8_t buf[EDGE_NAME_BYTES_MAX];
	int rc = router_image_get(a, &image);

	for (size_t i = 0; rc == 0 && i < image->edge_count; i++) {
		const struct image_edge *edge = &image->edges[i];

		if (!edge->gone && edge->router == router)
			rc = edge_delete(a,
					 edge_name(buf, edge->target_kind, edge->target, router,
						   (struct sluice_slice){edge->pattern,
									 edge->pattern_bytes}),
					 edge->id);
	}
	return rc;
}

int router_delete_apply(struct apply *a, const Sluice__RouterDelete *m, struct outcome *out)
{
	struct router_ref router = {0};
	int rc = router_find(a, m->name, &router, out);

	if (rc != 0 || refused(out))
		return rc;
	if (router.id == ROUTER_DEFAULT)
		return refuse(out, SLUICE_E_IN_USE, "the default router always exists");
	rc = in_use_check(a, router.id, m->name, out);
	if (rc != 0 || refused(out))
		return rc;
	rc = edges_drop_from(a, router.id);
	if (rc == 0)
		rc = router_drop_target(a, SLUICE__TARGET_KIND__TARGET_ROUTER, router.id);
	if (rc == 0)
		rc = name_del(a, NAME_ROUTER, slice_text(m->name));
	if (rc == 0)
		rc = topo_del(a, TOPO_ROUTER, router.id);
	router_image_drop(a);
	return rc != 0 ? rc : topo_changed(a);
}

int router_install_default(struct apply *a)
{
	Sluice__RouterConfig config = SLUICE__ROUTER_CONFIG__INIT;
	char name[] = DEFAULT_NAME;
	char text[] = "where events without another target go, by subject";
	uint64_t id;
	int rc = counter_next(a, COUNTER_ROUTER, &id);

	config.name = name;
	config.description = text;
	if (rc == 0)
		rc = name_put(a, NAME_ROUTER, slice_text(name), id);
	return rc != 0 ? rc : topo_put(a, TOPO_ROUTER, id, &config.base);
}
