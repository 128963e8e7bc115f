/* SPDX-License-Identifier: Apache-2.0
 * Typed operations on topology: each fills its message and makes the call. Operations that can be
 * repeated safely after a broken connection pass true. */
#include <string.h>

#include "client/base/sized.h"
#include "client/call/call.h"
#include "client/call/lifecycle_text.h"
#include "client/call/request.h"
#include "sluice.pb-c.h"

static size_t list_len(const char *const *list)
{
	size_t count = 0;

	while (list != NULL && list[count] != NULL)
		count++;
	return count;
}

/* ---- topology ---- */

static Sluice__StreamConfig stream_config(const sluice_stream_spec *spec)
{
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT;

	config.name = wire_text(spec->name);
	config.subjects = (char **)(uintptr_t)spec->subjects;
	config.n_subjects = list_len(spec->subjects);
	config.max_age_ms = spec->max_age_ms;
	config.max_bytes = spec->max_bytes;
	config.max_events = spec->max_events;
	config.description = wire_text(spec->description);
	return config;
}

int sluice_stream_create(sluice_client *client, const sluice_stream_spec *spec,
			 const sluice_call *call, sluice_reply **reply)
{
	sluice_stream_spec own;
	int rc = stream_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__StreamConfig config = stream_config(spec);
	Sluice__StreamCreate m = SLUICE__STREAM_CREATE__INIT;
	REQUEST(STREAM_CREATE, stream_create, m);

	m.config = &config;
	m.if_not_exists = spec->if_not_exists;
	return call_run(client, &request, spec->if_not_exists, call, reply);
}

int sluice_stream_alter(sluice_client *client, const sluice_stream_spec *spec,
			const sluice_call *call, sluice_reply **reply)
{
	sluice_stream_spec own;
	int rc = stream_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__StreamConfig config = stream_config(spec);
	Sluice__StreamAlter m = SLUICE__STREAM_ALTER__INIT;
	REQUEST(STREAM_ALTER, stream_alter, m);

	m.config = &config;
	return call_run(client, &request, true, call, reply);
}

static Sluice__QueueConfig queue_config(const sluice_queue_spec *spec)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;

	config.name = wire_text(spec->name);
	config.kind = spec->jobs ? SLUICE__QUEUE_KIND__QUEUE_JOBS : SLUICE__QUEUE_KIND__QUEUE_ITEMS;
	config.subjects = (char **)(uintptr_t)spec->subjects;
	config.n_subjects = list_len(spec->subjects);
	config.lease_ms = spec->lease_ms;
	config.max_attempts = spec->max_attempts;
	config.dead_letter = wire_text(spec->dead_letter);
	config.max_items = spec->max_items;
	config.priority = spec->priority;
	config.lifecycle = wire_text(spec->lifecycle);
	config.description = wire_text(spec->description);
	return config;
}

int sluice_queue_create(sluice_client *client, const sluice_queue_spec *spec,
			const sluice_call *call, sluice_reply **reply)
{
	sluice_queue_spec own;
	int rc = queue_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__QueueConfig config = queue_config(spec);
	Sluice__QueueCreate m = SLUICE__QUEUE_CREATE__INIT;
	REQUEST(QUEUE_CREATE, queue_create, m);

	m.config = &config;
	m.if_not_exists = spec->if_not_exists;
	return call_run(client, &request, spec->if_not_exists, call, reply);
}

int sluice_queue_alter(sluice_client *client, const sluice_queue_spec *spec,
		       const sluice_call *call, sluice_reply **reply)
{
	sluice_queue_spec own;
	int rc = queue_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__QueueConfig config = queue_config(spec);
	Sluice__QueueAlter m = SLUICE__QUEUE_ALTER__INIT;
	REQUEST(QUEUE_ALTER, queue_alter, m);

	m.config = &config;
	return call_run(client, &request, true, call, reply);
}

int sluice_queue_purge(sluice_client *client, const char *name, const sluice_call *call,
		       sluice_reply **reply)
{
	Sluice__QueuePurge m = SLUICE__QUEUE_PURGE__INIT;
	REQUEST(QUEUE_PURGE, queue_purge, m);

	m.name = wire_text(name);
	return call_run(client, &request, false, call, reply);
}

int sluice_queue_peek(sluice_client *client, const char *queue, const char *state, uint64_t after,
		      uint32_t max, const sluice_call *call, sluice_reply **reply)
{
	Sluice__QueuePeek m = SLUICE__QUEUE_PEEK__INIT;
	REQUEST(QUEUE_PEEK, queue_peek, m);

	m.name = wire_text(queue);
	m.state = wire_text(state);
	m.after = after;
	m.max = max;
	return call_run(client, &request, true, call, reply);
}

static const char bad_router_kind[] =
	"the router's kind is not known; expected subject, direct or fanout";
static const char bad_target_kind[] =
	"the edge's target kind is not known; expected stream, queue or router";

static int router_config(Sluice__RouterConfig *config, const sluice_router_spec *spec)
{
	const char *kind = spec->kind != NULL ? spec->kind : "subject";

	config->name = wire_text(spec->name);
	config->alternate = wire_text(spec->alternate);
	config->description = wire_text(spec->description);
	if (strcmp(kind, "subject") == 0)
		config->kind = SLUICE__ROUTER_KIND__ROUTER_SUBJECT;
	else if (strcmp(kind, "direct") == 0)
		config->kind = SLUICE__ROUTER_KIND__ROUTER_DIRECT;
	else if (strcmp(kind, "fanout") == 0)
		config->kind = SLUICE__ROUTER_KIND__ROUTER_FANOUT;
	else
		return SLUICE_E_INVAL;
	return 0;
}

int sluice_router_create(sluice_client *client, const sluice_router_spec *spec,
			 const sluice_call *call, sluice_reply **reply)
{
	sluice_router_spec own;
	int rc = router_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__RouterConfig config = SLUICE__ROUTER_CONFIG__INIT;
	Sluice__RouterCreate m = SLUICE__ROUTER_CREATE__INIT;
	REQUEST(ROUTER_CREATE, router_create, m);

	rc = router_config(&config, spec);
	m.config = &config;
	m.if_not_exists = spec->if_not_exists;
	return rc != 0 ? call_refuse(rc, bad_router_kind, call, reply)
		       : call_run(client, &request, spec->if_not_exists, call, reply);
}

int sluice_router_alter(sluice_client *client, const sluice_router_spec *spec,
			const sluice_call *call, sluice_reply **reply)
{
	sluice_router_spec own;
	int rc = router_spec_take(&spec, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__RouterConfig config = SLUICE__ROUTER_CONFIG__INIT;
	Sluice__RouterAlter m = SLUICE__ROUTER_ALTER__INIT;
	REQUEST(ROUTER_ALTER, router_alter, m);

	rc = router_config(&config, spec);
	m.config = &config;
	return rc != 0 ? call_refuse(rc, bad_router_kind, call, reply)
		       : call_run(client, &request, true, call, reply);
}

static int edge_fill(Sluice__Edge *edge, const sluice_edge *from)
{
	const char *kind = from->target_kind != NULL ? from->target_kind : "";

	edge->router = wire_text(from->router != NULL ? from->router : "default");
	edge->pattern = wire_text(from->pattern);
	edge->target = wire_text(from->target);
	if (strcmp(kind, "stream") == 0)
		edge->target_kind = SLUICE__TARGET_KIND__TARGET_STREAM;
	else if (strcmp(kind, "queue") == 0)
		edge->target_kind = SLUICE__TARGET_KIND__TARGET_QUEUE;
	else if (strcmp(kind, "router") == 0)
		edge->target_kind = SLUICE__TARGET_KIND__TARGET_ROUTER;
	else
		return SLUICE_E_INVAL;
	return 0;
}

int sluice_router_bind(sluice_client *client, const sluice_edge *from, const sluice_call *call,
		       sluice_reply **reply)
{
	sluice_edge own;
	int rc = edge_take(&from, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__Edge edge = SLUICE__EDGE__INIT;
	Sluice__RouterBind m = SLUICE__ROUTER_BIND__INIT;
	REQUEST(ROUTER_BIND, router_bind, m);

	rc = edge_fill(&edge, from);
	m.edge = &edge;
	return rc != 0 ? call_refuse(rc, bad_target_kind, call, reply)
		       : call_run(client, &request, true, call, reply);
}

int sluice_router_unbind(sluice_client *client, const sluice_edge *from, const sluice_call *call,
			 sluice_reply **reply)
{
	sluice_edge own;
	int rc = edge_take(&from, &own);

	if (rc != 0)
		return call_refuse_set(rc, call, reply);

	Sluice__Edge edge = SLUICE__EDGE__INIT;
	Sluice__RouterUnbind m = SLUICE__ROUTER_UNBIND__INIT;
	REQUEST(ROUTER_UNBIND, router_unbind, m);

	rc = edge_fill(&edge, from);
	m.edge = &edge;
	return rc != 0 ? call_refuse(rc, bad_target_kind, call, reply)
		       : call_run(client, &request, false, call, reply);
}

int sluice_lifecycle_create(sluice_client *client, const char *file, bool if_not_exists,
			    const sluice_call *call, sluice_reply **reply)
{
	Sluice__LifecycleCreate m = SLUICE__LIFECYCLE_CREATE__INIT;
	REQUEST(LIFECYCLE_CREATE, lifecycle_create, m);
	char why[256] = "";
	int rc = lifecycle_text_parse(file, &m.config, why, sizeof(why));

	if (rc != 0)
		return call_refuse(rc, why, call, reply);
	m.if_not_exists = if_not_exists;
	rc = call_run(client, &request, if_not_exists, call, reply);
	lifecycle_text_free(m.config);
	return rc;
}

int sluice_lifecycle_alter(sluice_client *client, const char *file, const sluice_call *call,
			   sluice_reply **reply)
{
	Sluice__LifecycleAlter m = SLUICE__LIFECYCLE_ALTER__INIT;
	REQUEST(LIFECYCLE_ALTER, lifecycle_alter, m);
	char why[256] = "";
	int rc = lifecycle_text_parse(file, &m.config, why, sizeof(why));

	if (rc != 0)
		return call_refuse(rc, why, call, reply);
	rc = call_run(client, &request, true, call, reply);
	lifecycle_text_free(m.config);
	return rc;
}

/* ---- common to all kinds of objects, except for the types of the messages ---- */

static const char no_kind[] =
	"the kind of object is not known; expected a member of sluice_object_kind";

#define OBJECT_KINDS(X) X(STREAM, stream) X(QUEUE, queue) X(ROUTER, router) X(LIFECYCLE, lifecycle)

int sluice_object_delete(sluice_client *client, sluice_object_kind kind_of, const char *name,
			 const sluice_call *call, sluice_reply **reply)
{
	Sluice__StreamDelete stream = SLUICE__STREAM_DELETE__INIT;
	Sluice__QueueDelete queue = SLUICE__QUEUE_DELETE__INIT;
	Sluice__RouterDelete router = SLUICE__ROUTER_DELETE__INIT;
	Sluice__LifecycleDelete lifecycle = SLUICE__LIFECYCLE_DELETE__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;

	switch (kind_of) {
#define CASE(NAME, kind)                                               \
	case SLUICE_OBJECT_##NAME:                                     \
		kind.name = wire_text(name);                           \
		request.op_case = SLUICE__REQUEST__OP_##NAME##_DELETE; \
		request.kind##_delete = &kind;                         \
		break;
		OBJECT_KINDS(CASE)
#undef CASE
	default:
		return call_refuse(SLUICE_E_INVAL, no_kind, call, reply);
	}
	return call_run(client, &request, false, call, reply);
}

int sluice_object_show(sluice_client *client, sluice_object_kind kind_of, const char *name,
		       const sluice_call *call, sluice_reply **reply)
{
	Sluice__StreamShow stream = SLUICE__STREAM_SHOW__INIT;
	Sluice__QueueShow queue = SLUICE__QUEUE_SHOW__INIT;
	Sluice__RouterShow router = SLUICE__ROUTER_SHOW__INIT;
	Sluice__LifecycleShow lifecycle = SLUICE__LIFECYCLE_SHOW__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;

	switch (kind_of) {
#define CASE(NAME, kind)                                             \
	case SLUICE_OBJECT_##NAME:                                   \
		kind.name = wire_text(name);                         \
		request.op_case = SLUICE__REQUEST__OP_##NAME##_SHOW; \
		request.kind##_show = &kind;                         \
		break;
		OBJECT_KINDS(CASE)
#undef CASE
	default:
		return call_refuse(SLUICE_E_INVAL, no_kind, call, reply);
	}
	return call_run(client, &request, true, call, reply);
}

int sluice_object_list(sluice_client *client, sluice_object_kind kind_of, const char *after,
		       uint32_t max, const sluice_call *call, sluice_reply **reply)
{
	Sluice__StreamList stream = SLUICE__STREAM_LIST__INIT;
	Sluice__QueueList queue = SLUICE__QUEUE_LIST__INIT;
	Sluice__RouterList router = SLUICE__ROUTER_LIST__INIT;
	Sluice__LifecycleList lifecycle = SLUICE__LIFECYCLE_LIST__INIT;
	Sluice__Request request = SLUICE__REQUEST__INIT;

	switch (kind_of) {
#define CASE(NAME, kind)                                             \
	case SLUICE_OBJECT_##NAME:                                   \
		kind.after = wire_text(after);                       \
		kind.max = max;                                      \
		request.op_case = SLUICE__REQUEST__OP_##NAME##_LIST; \
		request.kind##_list = &kind;                         \
		break;
		OBJECT_KINDS(CASE)
#undef CASE
	default:
		return call_refuse(SLUICE_E_INVAL, no_kind, call, reply);
	}
	return call_run(client, &request, true, call, reply);
}
