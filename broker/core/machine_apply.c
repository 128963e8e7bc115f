/* SPDX-License-Identifier: Apache-2.0
 * MACHINE_CREATE, MACHINE_ALTER, MACHINE_DELETE and their reads. */
#include <stdlib.h>

#include "broker/core/core_internal.h"
#include "broker/core/job_text.h"
#include "broker/core/machine.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

enum { LIST_DEFAULT = 100 };

static struct sluice_slice text_slice(const char *text)
{
	return (struct sluice_slice){text, strlen(text)};
}

static int config_check(const Sluice__MachineConfig *config, struct outcome *out)
{
	char why[MACHINE_WHY_BYTES];
	const char *name_why;
	int code;

	if (config == NULL)
		return refuse(out, SLUICE_E_INVAL, "a machine's config is missing");
	code = name_check(text_slice(config->name), &name_why);
	if (code != 0)
		return refuse(out, code, "machine name: %s", name_why);
	if (job_text_check(out, "description", config->description, LIMIT_TEXT_BYTES_MAX) != 0 ||
	    refused(out))
		return 0;
	code = machine_check(config, why);
	if (code != 0)
		return refuse(out, code, "machine %s: %s", config->name, why);
	return 0;
}

int machine_create_apply(struct apply *a, const Sluice__MachineCreate *m, struct outcome *out)
{
	uint64_t id;
	int err = config_check(m->config, out);

	if (err != 0 || refused(out))
		return err;
	err = name_find(a->txn, a->gateway, NAME_MACHINE, text_slice(m->config->name), &id);
	if (err == 0)
		return m->if_not_exists ? 0
					: refuse(out, SLUICE_E_EXISTS, "machine %s exists", m->config->name);
	if (err != SLUICE_E_NOT_FOUND)
		return err;
	err = counter_next(a, COUNTER_MACHINE, &id);
	if (err == 0 && id > UINT32_MAX) /* a live record has 32 bits for it */
		return SLUICE_E_INTERNAL;
	if (err == 0)
		err = name_put(a, NAME_MACHINE, text_slice(m->config->name), id);
	return err != 0 ? err : topo_put(a, TOPO_MACHINE, id, &m->config->base);
}

int machine_alter_apply(struct apply *a, const Sluice__MachineAlter *m, struct outcome *out)
{
	char why[MACHINE_WHY_BYTES];
	const struct machine *before;
	uint64_t id, jobs;
	int err = config_check(m->config, out), code;

	if (err != 0 || refused(out))
		return err;
	err = name_find(a->txn, a->gateway, NAME_MACHINE, text_slice(m->config->name), &id);
	if (err == SLUICE_E_NOT_FOUND)
		return refuse(out, SLUICE_E_NOT_FOUND, "machine %s does not exist", m->config->name);
	if (err == 0)
		err = machine_jobs_read(a->txn, a->gateway, id, &jobs);
	if (err == 0)
		err = machine_get(a, id, &before);
	if (err != 0)
		return err;
	code = jobs > 0 ? machine_check_alter(before->config, m->config, why) : 0;
	if (code != 0)
		return refuse(out, code, "machine %s: %s", m->config->name, why);
	machine_cache_drop(a->core->machines);
	return topo_put(a, TOPO_MACHINE, id, &m->config->base);
}

/* A queue whose jobs would get this machine; *ret_queue is its number, 0: none. */
static int queue_using(struct apply *a, const char *name, uint64_t *ret_queue)
{
	struct sluice_slice key_found, value;
	struct store_scan *scan;
	struct key from;
	int err;

	*ret_queue = 0;
	key_topo(&from, a->gateway, TOPO_QUEUE, 0);
	err = store_scan_begin(a->txn, STORE_TOPO, key_slice(&from), &scan);
	if (err != 0)
		return err;
	while (*ret_queue == 0 && (err = store_scan_next(scan, &key_found, &value)) == 0) {
		Sluice__QueueConfig *config;

		if (key_found.len != from.len || memcmp(key_found.data, from.bytes, 5) != 0)
			break;
		config = sluice__queue_config__unpack(NULL, value.len, value.data);
		if (config == NULL) {
			err = SLUICE_E_CORRUPT;
			break;
		}
		if (strcmp(config->machine, name) == 0)
			*ret_queue = get_be64((const uint8_t *)key_found.data + 5);
		sluice__queue_config__free_unpacked(config, NULL);
	}
	store_scan_end(scan);
	return err == SLUICE_E_NOT_FOUND ? 0 : err;
}

int machine_delete_apply(struct apply *a, const Sluice__MachineDelete *m, struct outcome *out)
{
	uint64_t id, jobs, queue = 0;
	int err = name_find(a->txn, a->gateway, NAME_MACHINE, text_slice(m->name), &id);

	if (err == SLUICE_E_NOT_FOUND)
		return refuse(out, SLUICE_E_NOT_FOUND, "machine %s does not exist", m->name);
	if (err == 0)
		err = machine_jobs_read(a->txn, a->gateway, id, &jobs);
	if (err == 0)
		err = queue_using(a, m->name, &queue);
	if (err != 0)
		return err;
	if (strcmp(m->name, MACHINE_DEFAULT_NAME) == 0)
		return refuse(out, SLUICE_E_IN_USE, "machine %s is every queue's default", m->name);
	if (jobs > 0)
		return refuse(out, SLUICE_E_IN_USE, "machine %s has %llu jobs", m->name,
			      (unsigned long long)jobs);
	if (queue != 0)
		return refuse(out, SLUICE_E_IN_USE, "machine %s is the machine of queue number %llu", m->name,
			      (unsigned long long)queue);
	machine_cache_drop(a->core->machines);
	err = name_del(a, NAME_MACHINE, text_slice(m->name));
	return err != 0 ? err : topo_del(a, TOPO_MACHINE, id);
}

/* ---- reads ---- */

static int row_make(struct query *q, uint64_t id, Sluice__MachineInfo **ret)
{
	Sluice__MachineInfo *row = malloc(sizeof(*row));
	ProtobufCMessage *config;
	int err;

	if (row == NULL)
		return SLUICE_E_NOMEM;
	sluice__machine_info__init(row);
	row->id = id;
	err = topo_find(q->txn, q->gateway, TOPO_MACHINE, id, &sluice__machine_config__descriptor, &config);
	if (err == 0) {
		row->config = (Sluice__MachineConfig *)config;
		err = machine_jobs_read(q->txn, q->gateway, id, &row->jobs);
	}
	if (err != 0) {
		sluice__machine_info__free_unpacked(row, NULL);
		return err;
	}
	*ret = row;
	return 0;
}

static int machine_show(struct query *q, const Sluice__MachineShow *m)
{
	Sluice__Reply *reply = q->reply;
	uint64_t id;
	int err = name_find(q->txn, q->gateway, NAME_MACHINE, text_slice(m->name), &id);

	if (err == SLUICE_E_NOT_FOUND)
		return query_refuse(q, SLUICE_E_NOT_FOUND, "machine %s does not exist", m->name);
	if (err != 0)
		return err;
	reply->machines = malloc(sizeof(*reply->machines));
	if (reply->machines == NULL)
		return SLUICE_E_NOMEM;
	err = row_make(q, id, &reply->machines[0]);
	reply->n_machines = err == 0 ? 1 : 0;
	return err;
}

/* In name order: the name table is the list. */
static int machine_list(struct query *q, const Sluice__MachineList *m)
{
	size_t max = m->max == 0 ? LIST_DEFAULT : m->max < LIMIT_LIST_ROWS_MAX ? m->max : LIMIT_LIST_ROWS_MAX;
	struct sluice_slice key_found, value;
	Sluice__Reply *reply = q->reply;
	struct store_scan *scan;
	uint64_t *ids = calloc(max, sizeof(*ids));
	struct key from;
	size_t n = 0;
	int err;

	if (strlen(m->after) > LIMIT_NAME_BYTES_MAX) {
		free(ids);
		return query_refuse(q, SLUICE_E_LIMIT, "after is not a name");
	}
	reply->machines = calloc(max, sizeof(*reply->machines));
	key_name(&from, q->gateway, NAME_MACHINE, text_slice(m->after));
	err = ids != NULL && reply->machines != NULL
		      ? store_scan_begin(q->txn, STORE_NAME, key_slice(&from), &scan)
		      : SLUICE_E_NOMEM;
	if (err != 0) {
		free(ids);
		return err;
	}
	while ((err = store_scan_next(scan, &key_found, &value)) == 0) {
		if (key_found.len < 5 || memcmp(key_found.data, from.bytes, 5) != 0)
			break;
		if (key_found.len == from.len && memcmp(key_found.data, from.bytes, from.len) == 0)
			continue;
		if (n == max) {
			reply->more = true;
			break;
		}
		if (value.len != 8) {
			err = SLUICE_E_CORRUPT;
			break;
		}
		ids[n++] = get_be64(value.data);
	}
	store_scan_end(scan);
	err = err == SLUICE_E_NOT_FOUND ? 0 : err;
	for (size_t i = 0; i < n && err == 0; i++) {
		err = row_make(q, ids[i], &reply->machines[i]);
		reply->n_machines = err == 0 ? i + 1 : i;
	}
	free(ids);
	return err;
}

int machine_query(struct query *q, const Sluice__Request *request)
{
	if (request->op_case == SLUICE__REQUEST__OP_MACHINE_SHOW)
		return machine_show(q, request->machine_show);
	return machine_list(q, request->machine_list);
}
