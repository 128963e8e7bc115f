/* SPDX-License-Identifier: Apache-2.0
 * LIFECYCLE_CREATE, LIFECYCLE_ALTER, LIFECYCLE_DELETE and their reads. */
#include <stdlib.h>

#include "broker/core/base/config_same.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/reply.h"
#include "broker/core/base/state.h"
#include "broker/core/base/text.h"
#include "broker/core/base/topo.h"
#include "broker/core/lifecycle/lifecycle.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

static int config_check(const Sluice__LifecycleConfig *config, struct outcome *out)
{
	char why[LIFECYCLE_WHY_BYTES];
	const char *name_why;
	int code;

	if (config == NULL)
		return refuse(out, SLUICE_E_INVAL, "a lifecycle's config is missing");
	code = name_check(slice_text(config->name), &name_why);
	if (code != 0)
		return refuse(out, code, "lifecycle name: %s", name_why);
	if (job_text_check(out, "description", config->description, LIMIT_TEXT_BYTES_MAX) != 0 ||
	    refused(out))
		return 0;
	code = lifecycle_check(config, why);
	if (code != 0)
		return refuse(out, code, "lifecycle %s: %s", config->name, why);
	return 0;
}

static int create_same(struct apply *a, uint64_t id, const Sluice__LifecycleConfig *config,
		       struct outcome *out)
{
	ProtobufCMessage *stored = NULL;
	int rc = topo_find(a->txn, a->gateway, TOPO_LIFECYCLE, id,
			   &sluice__lifecycle_config__descriptor, &stored);

	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	rc = config_same(stored, &config->base, "lifecycle", config->name, out);
	protobuf_c_message_free_unpacked(stored, NULL);
	return rc;
}

int lifecycle_create_apply(struct apply *a, const Sluice__LifecycleCreate *m, struct outcome *out)
{
	uint64_t id;
	int rc = config_check(m->config, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = name_find(a->txn, a->gateway, NAME_LIFECYCLE, slice_text(m->config->name), &id);
	if (rc == 0)
		return m->if_not_exists ? create_same(a, id, m->config, out)
					: refuse(out, SLUICE_E_EXISTS, "lifecycle %s exists",
						 m->config->name);
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = counter_next(a, COUNTER_LIFECYCLE, &id);
	if (rc == 0 && id > UINT32_MAX) /* a live record has 32 bits for it */
		return SLUICE_E_INTERNAL;
	if (rc == 0)
		rc = name_put(a, NAME_LIFECYCLE, slice_text(m->config->name), id);
	return rc != 0 ? rc : topo_put(a, TOPO_LIFECYCLE, id, &m->config->base);
}

int lifecycle_alter_apply(struct apply *a, const Sluice__LifecycleAlter *m, struct outcome *out)
{
	char why[LIFECYCLE_WHY_BYTES];
	const struct lifecycle *before;
	uint64_t id, jobs;
	int rc = config_check(m->config, out), code;

	if (rc != 0 || refused(out))
		return rc;
	rc = name_find(a->txn, a->gateway, NAME_LIFECYCLE, slice_text(m->config->name), &id);
	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, SLUICE_E_NOT_FOUND, "lifecycle %s does not exist",
			      m->config->name);
	if (rc == 0)
		rc = lifecycle_jobs_read(a->txn, a->gateway, id, &jobs);
	if (rc == 0)
		rc = lifecycle_get(a, id, &before);
	if (rc != 0)
		return rc;
	code = jobs > 0 ? lifecycle_check_alter(before->config, m->config, why) : 0;
	if (code != 0)
		return refuse(out, code, "lifecycle %s: %s", m->config->name, why);
	lifecycle_cache_drop(a->core->lifecycles);
	return topo_put(a, TOPO_LIFECYCLE, id, &m->config->base);
}

/* A queue whose jobs would get this lifecycle; *ret_queue is its number, 0: none. */
static int queue_using(struct apply *a, const char *name, uint64_t *ret_queue)
{
	struct sluice_slice key_found, value;
	struct store_scan *scan;
	struct key from;
	int rc;

	*ret_queue = 0;
	key_topo(&from, a->gateway, TOPO_QUEUE, 0);
	rc = store_scan_begin(a->txn, STORE_TOPO, key_slice(&from), &scan);
	if (rc != 0)
		return rc;
	while (*ret_queue == 0 && (rc = store_scan_next(scan, &key_found, &value)) == 0) {
		Sluice__QueueConfig *config;
		uint64_t queue;

		if (!key_topo_in(key_found, a->gateway, TOPO_QUEUE, &queue))
			break;
		config = record_unpack(&sluice__queue_config__descriptor, value, &rc);
		if (rc != 0)
			break;
		if (strcmp(config->lifecycle, name) == 0)
			*ret_queue = queue;
		sluice__queue_config__free_unpacked(config, NULL);
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int lifecycle_delete_apply(struct apply *a, const Sluice__LifecycleDelete *m, struct outcome *out)
{
	uint64_t id, jobs, queue = 0;
	int rc = name_find(a->txn, a->gateway, NAME_LIFECYCLE, slice_text(m->name), &id);

	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, SLUICE_E_NOT_FOUND, "lifecycle %s does not exist", m->name);
	if (rc == 0)
		rc = lifecycle_jobs_read(a->txn, a->gateway, id, &jobs);
	if (rc == 0)
		rc = queue_using(a, m->name, &queue);
	if (rc != 0)
		return rc;
	if (strcmp(m->name, LIFECYCLE_DEFAULT_NAME) == 0)
		return refuse(out, SLUICE_E_IN_USE, "lifecycle %s is every queue's default",
			      m->name);
	if (jobs > 0)
		return refuse(out, SLUICE_E_IN_USE, "lifecycle %s has %llu jobs", m->name,
			      (unsigned long long)jobs);
	if (queue != 0)
		return refuse(out, SLUICE_E_IN_USE,
			      "lifecycle %s is the lifecycle of queue number %llu", m->name,
			      (unsigned long long)queue);
	lifecycle_cache_drop(a->core->lifecycles);
	rc = name_del(a, NAME_LIFECYCLE, slice_text(m->name));
	return rc != 0 ? rc : topo_del(a, TOPO_LIFECYCLE, id);
}

/* ---- reads ---- */

/* The reply's array has room. */
static int row_add(struct query *q, uint64_t id, void *user)
{
	Sluice__LifecycleInfo *row = malloc(sizeof(*row));
	ProtobufCMessage *config = NULL;
	int rc;

	(void)user;
	if (row == NULL)
		return SLUICE_E_NOMEM;
	sluice__lifecycle_info__init(row);
	q->reply->lifecycles[q->reply->n_lifecycles++] = row;
	row->id = id;
	rc = topo_find(q->txn, q->gateway, TOPO_LIFECYCLE, id,
		       &sluice__lifecycle_config__descriptor, &config);
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	row->config = (Sluice__LifecycleConfig *)config;
	return lifecycle_jobs_read(q->txn, q->gateway, id, &row->jobs);
}

static int lifecycle_show(struct query *q, const Sluice__LifecycleShow *m)
{
	uint64_t id;
	int rc = name_find(q->txn, q->gateway, NAME_LIFECYCLE, slice_text(m->name), &id);

	if (rc == SLUICE_E_NOT_FOUND)
		return query_refuse(q, SLUICE_E_NOT_FOUND, "lifecycle %s does not exist", m->name);
	if (rc != 0)
		return rc;
	q->reply->lifecycles = calloc(1, sizeof(*q->reply->lifecycles));
	return q->reply->lifecycles == NULL ? SLUICE_E_NOMEM : row_add(q, id, NULL);
}

static int lifecycle_list(struct query *q, const Sluice__LifecycleList *m)
{
	if (q->reply->lifecycles == NULL)
		q->reply->lifecycles = calloc(rows_max(m->max), sizeof(*q->reply->lifecycles));
	return q->reply->lifecycles == NULL
		       ? SLUICE_E_NOMEM
		       : name_each(q, NAME_LIFECYCLE, m->after, m->max, row_add, NULL);
}

int lifecycle_query(struct query *q, const Sluice__Request *request)
{
	if (request->op_case == SLUICE__REQUEST__OP_LIFECYCLE_SHOW)
		return lifecycle_show(q, request->lifecycle_show);
	return lifecycle_list(q, request->lifecycle_list);
}
