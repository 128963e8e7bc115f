/* SPDX-License-Identifier: Apache-2.0
 * Queues as objects: create, alter, delete, purge; and puts. */
#include <stdio.h>

#include "broker/core/base/config_same.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/number.h"
#include "broker/core/base/timer.h"
#include "broker/core/base/topo.h"
#include "broker/core/queue/queue.h"
#include "broker/core/router/image.h"
#include "broker/core/router/router.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

static int wake(struct apply *a, uint64_t queue, bool orphan, uint64_t source)
{
	struct effect effect = {.kind = FX_QUEUE_READY,
				.gateway = a->gateway,
				.id = queue,
				.command = a->position,
				.orphan = orphan,
				.source = source};

	return effects_add(a->effects, &effect);
}

int queue_ready_effect(struct apply *a, uint64_t queue)
{
	return wake(a, queue, false, 0);
}

int queue_orphan_effect(struct apply *a, uint64_t queue, uint64_t source)
{
	return wake(a, queue, true, source);
}

/* ---- configuration ---- */

static int config_check(const Sluice__QueueConfig *config, struct outcome *out)
{
	const char *why = NULL;
	int rc;

	if (config == NULL)
		return refuse(out, SLUICE_E_INVAL,
			      "no configuration was given; expected a QueueConfig");
	rc = name_check(slice_text(config->name), &why);
	if (rc != 0)
		return refuse(out, rc, "queue name: %s", why);
	if (config->lease_ms != 0 &&
	    (config->lease_ms < LIMIT_LEASE_MS_MIN || config->lease_ms > LIMIT_LEASE_MS_MAX))
		return refuse(out, SLUICE_E_LIMIT, "lease_ms is %u; expected 0 or %llu to %llu",
			      config->lease_ms, (unsigned long long)LIMIT_LEASE_MS_MIN,
			      (unsigned long long)LIMIT_LEASE_MS_MAX);
	if (config->kind != SLUICE__QUEUE_KIND__QUEUE_ITEMS &&
	    config->kind != SLUICE__QUEUE_KIND__QUEUE_JOBS)
		return refuse(out, SLUICE_E_INVAL, "kind is %d; expected 0 (items) or 1 (jobs)",
			      (int)config->kind);
	if (config->kind == SLUICE__QUEUE_KIND__QUEUE_JOBS && config->n_subjects > 0)
		return refuse(out, SLUICE_E_INVAL,
			      "a queue of jobs takes no subjects: jobs come by submit, not by "
			      "publish");
	if (strlen(config->description) > LIMIT_TEXT_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "description is longer than %llu bytes",
			      (unsigned long long)LIMIT_TEXT_BYTES_MAX);
	return 0;
}

/* The number of the queue for dead letters of `name`. */
static int dead_letter_find(struct apply *a, const Sluice__QueueConfig *config, uint64_t *ret,
			    struct outcome *out)
{
	const char *name = config->dead_letter[0] != 0 ? config->dead_letter : "dead-letter";
	struct queue_cell cell;
	int rc;

	*ret = 0;
	if (strcmp(config->name, "dead-letter") == 0)
		return 0;
	rc = name_find(a->txn, a->gateway, NAME_QUEUE, slice_text(name), ret);
	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, rc, "dead-letter queue '%s' does not exist; create it first",
			      name);
	if (rc == 0)
		rc = queue_cell_get(a->txn, a->gateway, *ret, &cell);
	if (rc != 0)
		return rc;
	if (cell.kind != SLUICE__QUEUE_KIND__QUEUE_ITEMS)
		return refuse(out, SLUICE_E_INVAL,
			      "dead-letter queue '%s' is a queue of jobs; expected one of items",
			      name);
	if (strcmp(name, config->name) == 0)
		return refuse(out, SLUICE_E_INVAL, "queue '%s' cannot be its own dead-letter queue",
			      name);
	return 0;
}

/* The lifecycle of a queue's jobs; empty: the default one. It cannot be deleted while a queue
 * refers to it. */
static int lifecycle_named(struct apply *a, const Sluice__QueueConfig *config, struct outcome *out)
{
	uint64_t id;
	int rc = config->lifecycle[0] != 0 ? name_find(a->txn, a->gateway, NAME_LIFECYCLE,
						       slice_text(config->lifecycle), &id)
					   : 0;

	return rc == SLUICE_E_NOT_FOUND
		       ? refuse(out, rc, "lifecycle '%.150s' does not exist; create it first",
				config->lifecycle)
		       : rc;
}

static void cell_configure(struct queue_cell *cell, const Sluice__QueueConfig *config,
			   uint64_t dead_letter)
{
	cell->kind = (uint8_t)config->kind;
	cell->priority = config->priority ? 1 : 0;
	cell->lease_ms = config->lease_ms != 0 ? config->lease_ms : QUEUE_DEFAULT_LEASE_MS;
	cell->max_attempts =
		config->max_attempts != 0 ? config->max_attempts : QUEUE_DEFAULT_ATTEMPTS;
	cell->max_items = config->max_items;
	cell->dead_letter = dead_letter;
}

/* The definition is stored without its subjects: the router has the edges. */
static int config_store(struct apply *a, uint64_t id, const Sluice__QueueConfig *config)
{
	Sluice__QueueConfig stored = *config;

	stored.n_subjects = 0;
	stored.subjects = NULL;
	return topo_put(a, TOPO_QUEUE, id, &stored.base);
}

static int queue_new(struct apply *a, const Sluice__QueueConfig *config, uint64_t dead_letter,
		     uint64_t *ret_id)
{
	struct queue_cell cell = {.head = 1, .tail = 1};
	int rc = counter_next(a, COUNTER_QUEUE, ret_id);

	cell_configure(&cell, config, dead_letter);
	if (rc == 0)
		rc = name_put(a, NAME_QUEUE, slice_text(config->name), *ret_id);
	if (rc == 0)
		rc = config_store(a, *ret_id, config);
	if (rc == 0)
		rc = queue_cell_put(a, *ret_id, &cell);
	if (rc == 0)
		rc = router_subjects_bind(a, config->subjects, config->n_subjects,
					  SLUICE__TARGET_KIND__TARGET_QUEUE, *ret_id);
	if (rc == 0)
		rc = topo_changed(a);
	return rc;
}

int queue_install_dead_letter(struct apply *a)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	char name[] = "dead-letter";
	char text[] = "what no consumer could handle, with its reason";
	uint64_t id;

	config.name = name;
	config.description = text;
	return queue_new(a, &config, 0, &id);
}

/* The effective configuration: omitted fields have their defaults. */
static Sluice__QueueConfig effective(const Sluice__QueueConfig *config)
{
	static char dead_letter[] = "dead-letter", lifecycle[] = "airavata";
	Sluice__QueueConfig full = *config;

	if (full.lease_ms == 0)
		full.lease_ms = QUEUE_DEFAULT_LEASE_MS;
	if (full.max_attempts == 0)
		full.max_attempts = QUEUE_DEFAULT_ATTEMPTS;
	if (full.dead_letter[0] == 0)
		full.dead_letter = dead_letter;
	if (full.lifecycle[0] == 0)
		full.lifecycle = lifecycle;
	return full;
}

static int create_same(struct apply *a, uint64_t id, const Sluice__QueueConfig *config,
		       struct outcome *out)
{
	Sluice__QueueConfig has, wants = effective(config);
	ProtobufCMessage *stored = NULL;
	int rc = topo_find(a->txn, a->gateway, TOPO_QUEUE, id, &sluice__queue_config__descriptor,
			   &stored);

	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	has = effective((const Sluice__QueueConfig *)stored);
	rc = config_same(&has.base, &wants.base, "queue", config->name, out);
	protobuf_c_message_free_unpacked(stored, NULL);
	return rc != 0 || refused(out)
		       ? rc
		       : router_subjects_bound(a, config->subjects, config->n_subjects,
					       SLUICE__TARGET_KIND__TARGET_QUEUE, id, config->name,
					       out);
}

int queue_create_apply(struct apply *a, const Sluice__QueueCreate *m, struct outcome *out)
{
	const Sluice__QueueConfig *config = m->config;
	uint64_t id, dead_letter = 0;
	int rc = config_check(config, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = name_find(a->txn, a->gateway, NAME_QUEUE, slice_text(config->name), &id);
	if (rc == 0) {
		if (m->if_not_exists)
			return create_same(a, id, config, out);
		return refuse(out, SLUICE_E_EXISTS, "queue '%s' exists", config->name);
	}
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = dead_letter_find(a, config, &dead_letter, out);
	if (rc == 0 && !refused(out))
		rc = lifecycle_named(a, config, out);
	if (rc == 0 && !refused(out))
		rc = router_subjects_check(a, config->subjects, config->n_subjects, out);
	if (rc != 0 || refused(out))
		return rc;
	return queue_new(a, config, dead_letter, &id);
}

static int queue_named(struct apply *a, const char *name, uint64_t *ret_id,
		       struct queue_cell *ret_cell, struct outcome *out)
{
	int rc = name_find(a->txn, a->gateway, NAME_QUEUE, slice_text(name), ret_id);

	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, rc, "queue '%s' does not exist", name);
	return rc != 0 ? rc : queue_cell_get(a->txn, a->gateway, *ret_id, ret_cell);
}

int queue_alter_apply(struct apply *a, const Sluice__QueueAlter *m, struct outcome *out)
{
	const Sluice__QueueConfig *config = m->config;
	struct queue_cell cell;
	uint64_t id, dead_letter = 0;
	int rc = config_check(config, out);

	if (rc == 0 && !refused(out))
		rc = queue_named(a, config->name, &id, &cell, out);
	if (rc != 0 || refused(out))
		return rc;
	if (config->n_subjects > 0)
		return refuse(out, SLUICE_E_INVAL,
			      "subjects are bound and unbound by the router; expected none here");
	if ((uint8_t)config->kind != cell.kind || (config->priority ? 1 : 0) != cell.priority)
		return refuse(out, SLUICE_E_CONFLICT,
			      "queue '%s': kind and priority cannot change; create another queue",
			      config->name);
	rc = dead_letter_find(a, config, &dead_letter, out);
	if (rc == 0 && !refused(out))
		rc = lifecycle_named(a, config, out);
	if (rc != 0 || refused(out))
		return rc;
	cell_configure(&cell, config, dead_letter);
	rc = config_store(a, id, config);
	if (rc == 0)
		rc = queue_cell_put(a, id, &cell);
	return rc != 0 ? rc : topo_changed(a);
}

int queue_delete_apply(struct apply *a, const Sluice__QueueDelete *m, struct outcome *out)
{
	struct effect effect = {.kind = FX_QUEUE_DELETED,
				.gateway = a->gateway,
				.command = a->position};
	struct queue_cell cell;
	uint64_t id;
	int rc = queue_named(a, m->name, &id, &cell, out);

	if (rc != 0 || refused(out))
		return rc;
	if (strcmp(m->name, "dead-letter") == 0)
		return refuse(out, SLUICE_E_IN_USE,
			      "the gateway's dead-letter queue always exists");
	if (cell.kind == SLUICE__QUEUE_KIND__QUEUE_JOBS &&
	    cell.ready + cell.leased + cell.orphaned + cell.delayed > 0)
		return refuse(out, SLUICE_E_IN_USE,
			      "queue '%s' has open jobs; cancel or finish them first", m->name);
	if (m->if_empty && cell.ready + cell.leased + cell.delayed > 0)
		return refuse(out, SLUICE_E_IN_USE, "queue '%s' is not empty", m->name);
	/* Marked at once; TICK deletes the items. */
	cell.deleted = 1;
	effect.id = id;
	rc = name_del(a, NAME_QUEUE, slice_text(m->name));
	if (rc == 0)
		rc = topo_del(a, TOPO_QUEUE, id);
	if (rc == 0)
		rc = queue_cell_put(a, id, &cell);
	if (rc == 0)
		rc = router_drop_target(a, SLUICE__TARGET_KIND__TARGET_QUEUE, id);
	if (rc == 0)
		rc = timer_set(a, a->mono_ms, TIMER_SWEEP, id, SWEEP_QUEUE);
	if (rc == 0)
		rc = topo_changed(a);
	return rc != 0 ? rc : effects_add(a->effects, &effect);
}

int queue_purge_apply(struct apply *a, const Sluice__QueuePurge *m, struct outcome *out)
{
	struct queue_cell cell;
	uint64_t id;
	int rc = queue_named(a, m->name, &id, &cell, out);

	if (rc != 0 || refused(out))
		return rc;
	if (cell.kind == SLUICE__QUEUE_KIND__QUEUE_JOBS)
		return refuse(out, SLUICE_E_WRONG_STATE,
			      "queue '%s' holds jobs; cancel them instead of purging", m->name);
	if (cell.sweep_from != cell.sweep_to)
		return refuse(out, SLUICE_E_BUSY, "a purge of queue '%s' is still under way",
			      m->name);
	out->kind = OUT_ACKED;
	out->count = cell.ready > UINT32_MAX ? UINT32_MAX : (uint32_t)cell.ready;
	cell.sweep_from = cell.head;
	cell.sweep_to = cell.tail;
	cell.head = cell.tail;
	cell.ready = 0;
	cell.exceptions = 0;
	cell.purge_generation++;
	/* There may be purged exceptions although head equals tail. No item is in the window then:
	 * the one before tail may be leased, and tail is the next to come. */
	if (cell.sweep_from == cell.sweep_to)
		cell.sweep_from = QUEUE_SWEEP_EXCEPTIONS;
	rc = queue_cell_put(a, id, &cell);
	return rc != 0 ? rc : timer_set(a, a->mono_ms, TIMER_SWEEP, id, SWEEP_QUEUE);
}

/* ---- put ---- */

int queue_name(struct apply *a, uint64_t queue, char ret[QUEUE_NAME_BUF])
{
	ProtobufCMessage *message = NULL;
	int rc = topo_find(a->txn, a->gateway, TOPO_QUEUE, queue, &sluice__queue_config__descriptor,
			   &message);

	ret[0] = 0;
	if (rc == SLUICE_E_NOT_FOUND)
		return 0;
	if (rc != 0)
		return rc;
	(void)snprintf(ret, QUEUE_NAME_BUF, "%s", ((Sluice__QueueConfig *)message)->name);
	protobuf_c_message_free_unpacked(message, NULL);
	return 0;
}

int queue_room_check(struct apply *a, uint64_t queue, Sluice__QueueKind kind, uint32_t count,
		     struct outcome *out)
{
	uint32_t records;

	return queue_room_check_records(a, queue, kind, count, &records, out);
}

int queue_room_check_records(struct apply *a, uint64_t queue, Sluice__QueueKind kind,
			     uint32_t count, uint32_t *ret_records, struct outcome *out)
{
	struct queue_cell cell;
	char name[QUEUE_NAME_BUF];
	uint64_t held;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	*ret_records = 1;
	if (rc == SLUICE_E_NOT_FOUND || (rc == 0 && cell.deleted))
		return refuse(out, SLUICE_E_NOT_FOUND, "the queue does not exist any more");
	if (rc != 0)
		return rc;
	*ret_records = cell.priority ? 2 : 1;
	held = cell.ready + cell.leased + cell.delayed + cell.orphaned;
	if (cell.kind == kind && (cell.max_items == 0 || held + count <= cell.max_items))
		return 0;
	rc = queue_name(a, queue, name);
	if (rc != 0)
		return rc;
	if (cell.kind != kind)
		return refuse(out, SLUICE_E_INVAL,
			      kind == SLUICE__QUEUE_KIND__QUEUE_ITEMS
				      ? "queue '%.150s' holds jobs: submit a job instead of "
					"putting an item"
				      : "queue '%.150s' is of kind items; jobs need one of kind "
					"jobs",
			      name);
	return refuse(out, SLUICE_E_QUEUE_FULL, "queue '%.150s' holds %llu of at most %llu", name,
		      (unsigned long long)held, (unsigned long long)cell.max_items);
}

/* Changes the cell without storing it. */
static int put_item(struct apply *a, uint64_t queue, struct queue_cell *cell,
		    struct queue_item *item, uint32_t delay_ms)
{
	uint64_t seq = cell->tail++;
	int rc;

	cell->put++;
	cell->bytes += queue_item_bytes(item);
	if (delay_ms > 0) {
		item->flags |= ITEM_DELAYED;
		item->due_mono_ms = a->mono_ms + delay_ms;
		cell->delayed++;
	} else {
		cell->ready++;
	}
	rc = queue_item_put(a, queue, delay_ms > 0 ? QUEUE_DELAYED | seq : seq, item);
	if (rc == 0 && delay_ms > 0)
		rc = timer_set(a, item->due_mono_ms, TIMER_ITEM_DUE, queue, seq);
	if (rc == 0 && cell->priority) {
		cell->head = cell->tail;
		if (delay_ms == 0)
			rc = ready_put(a, queue, cell, item->priority, seq);
	}
	return rc;
}

/* After puts: stores the cell, and adds an effect when nothing was ready before. */
static int put_end(struct apply *a, uint64_t queue, const struct queue_cell *cell, bool was_empty)
{
	int rc = queue_cell_put(a, queue, cell);

	return rc == 0 && was_empty && cell->ready > 0 ? queue_ready_effect(a, queue) : rc;
}

static int put_one(struct apply *a, uint64_t queue, struct queue_item *item, uint32_t delay_ms,
		   uint64_t *ret_seq)
{
	struct queue_cell cell;
	bool was_empty;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	if (rc != 0)
		return rc;
	was_empty = cell.ready == 0;
	*ret_seq = cell.tail;
	rc = put_item(a, queue, &cell, item, delay_ms);
	return rc != 0 ? rc : put_end(a, queue, &cell, was_empty);
}

int queue_put(struct apply *a, uint64_t queue, const struct queue_put_spec *spec, uint64_t *ret_seq)
{
	struct queue_item item = {.put_time_ms = spec->time_ms,
				  .attempts = spec->attempts,
				  .priority = spec->priority,
				  .dead_from = spec->dead_from,
				  .dead_reason = spec->dead_reason,
				  .body = spec->envelope};

	return put_one(a, queue, &item, spec->delay_ms, ret_seq);
}

int queue_put_run(struct apply *a, uint64_t queue, const struct queue_put_run *run,
		  uint64_t *ret_seq)
{
	struct queue_cell cell;
	bool was_empty;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	if (rc != 0)
		return rc;
	was_empty = cell.ready == 0;
	*ret_seq = cell.tail;
	for (uint32_t i = 0; i < run->count && rc == 0; i++) {
		const struct queue_put_event *event = &run->events[i];
		struct queue_item item = {.put_time_ms = run->time_ms,
					  .priority = event->priority,
					  .body = {run->bytes + event->at, event->bytes}};

		rc = put_item(a, queue, &cell, &item, run->delay_ms);
	}
	return rc != 0 ? rc : put_end(a, queue, &cell, was_empty);
}

int queue_job_put(struct apply *a, uint64_t queue, uint64_t job, uint8_t priority,
		  uint64_t *ret_seq)
{
	uint8_t number[NUMBER_BYTES];
	struct queue_item item = {.put_time_ms = a->wall_ms,
				  .priority = priority,
				  .body = number_encode(number, job)};

	return put_one(a, queue, &item, 0, ret_seq);
}

int queue_job_remove(struct apply *a, uint64_t queue, uint64_t seq, uint8_t priority)
{
	struct queue_cell cell;
	struct key key;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	if (rc == 0)
		rc = queue_item_del(a, queue, seq);
	if (rc != 0)
		return rc;
	cell.bytes -= QUEUE_ITEM_FIXED_BYTES + 8;
	if (seq < cell.head) {
		key_ready(&key, a->gateway, queue, cell.priority ? priority : 0, 0, seq);
		rc = store_del(a->txn, STORE_READY, key_slice(&key));
	}
	if (rc == SLUICE_E_NOT_FOUND) { /* a claim has set it aside because of damage */
		invariant(cell.delayed > 0,
			  "queue %llu: job entry %llu is neither ready nor set aside", ULL(queue),
			  ULL(seq));
		cell.delayed--;
		return queue_cell_put(a, queue, &cell);
	}
	if (rc != 0)
		return rc; /* whether it is ready or set aside is not known */
	invariant(cell.ready > 0 && seq < cell.tail,
		  "queue %llu: entry %llu goes, ready %llu, tail %llu", ULL(queue), ULL(seq),
		  ULL(cell.ready), ULL(cell.tail));
	cell.ready--;
	cell.exceptions -= seq < cell.head;
	return queue_cell_put(a, queue, &cell);
}

int queue_job_count(struct apply *a, uint64_t queue, int leased_delta, int orphaned_delta)
{
	struct queue_cell cell;
	int rc = queue_cell_get(a->txn, a->gateway, queue, &cell);

	if (rc != 0)
		return rc;
	cell.leased += (uint64_t)(int64_t)leased_delta;
	cell.orphaned += (uint64_t)(int64_t)orphaned_delta;
	return queue_cell_put(a, queue, &cell);
}

int core_queue_find(struct store_txn *txn, uint32_t gateway, struct sluice_slice name,
		    struct queue_ref *ret)
{
	struct queue_cell cell;
	uint64_t id;
	int rc = name_find(txn, gateway, NAME_QUEUE, name, &id);

	if (rc == 0)
		rc = queue_cell_get(txn, gateway, id, &cell);
	if (rc != 0)
		return rc;
	*ret = (struct queue_ref){id, cell.kind, cell.lease_ms};
	return 0;
}
