/* SPDX-License-Identifier: Apache-2.0
 * Stream commands and the append. */
#include "broker/core/base/config_same.h"
#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/timer.h"
#include "broker/core/base/topo.h"
#include "broker/core/router/image.h"
#include "broker/core/router/router.h"
#include "broker/core/stream/stream.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"

/* ---- configuration ---- */

static int config_check(const Sluice__StreamConfig *config, struct outcome *out)
{
	const char *why = NULL;
	int rc;

	if (config == NULL)
		return refuse(out, SLUICE_E_INVAL,
			      "no configuration was given; expected a StreamConfig");
	rc = name_check(slice_text(config->name), &why);
	if (rc != 0)
		return refuse(out, rc, "stream name: %s", why);
	if (strlen(config->description) > LIMIT_TEXT_BYTES_MAX)
		return refuse(out, SLUICE_E_LIMIT, "description is longer than %llu bytes",
			      (unsigned long long)LIMIT_TEXT_BYTES_MAX);
	return 0;
}

/* The definition is stored without its subjects: the router has the edges. */
static int config_store(struct apply *a, uint64_t id, const Sluice__StreamConfig *config)
{
	Sluice__StreamConfig stored = *config;

	stored.base.n_unknown_fields = 0;
	stored.n_subjects = 0;
	stored.subjects = NULL;
	return topo_put(a, TOPO_STREAM, id, &stored.base);
}

static void cell_configure(struct log_cell *cell, const Sluice__StreamConfig *config)
{
	cell->max_age_ms = config->max_age_ms;
	cell->max_bytes = config->max_bytes;
	cell->max_events = config->max_events;
}

static int create_same(struct apply *a, uint64_t id, const Sluice__StreamConfig *config,
		       struct outcome *out)
{
	ProtobufCMessage *stored = NULL;
	int rc = topo_find(a->txn, a->gateway, TOPO_STREAM, id, &sluice__stream_config__descriptor,
			   &stored);

	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	rc = config_same(stored, &config->base, "stream", config->name, out);
	protobuf_c_message_free_unpacked(stored, NULL);
	return rc != 0 || refused(out)
		       ? rc
		       : router_subjects_bound(a, config->subjects, config->n_subjects,
					       SLUICE__TARGET_KIND__TARGET_STREAM, id, config->name,
					       out);
}

int stream_create_apply(struct apply *a, const Sluice__StreamCreate *m, struct outcome *out)
{
	const Sluice__StreamConfig *config = m->config;
	struct log_cell cell = {.deleted = false};
	uint64_t id;
	int rc = config_check(config, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = name_find(a->txn, a->gateway, NAME_STREAM, slice_text(config->name), &id);
	if (rc == 0)
		return m->if_not_exists ? create_same(a, id, config, out)
					: refuse(out, SLUICE_E_EXISTS, "stream '%.200s' exists",
						 config->name);
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = router_subjects_check(a, config->subjects, config->n_subjects, out);
	if (rc != 0 || refused(out))
		return rc;
	cell_configure(&cell, config);
	rc = counter_next(a, COUNTER_STREAM, &id);
	if (rc == 0)
		rc = name_put(a, NAME_STREAM, slice_text(config->name), id);
	if (rc == 0)
		rc = config_store(a, id, config);
	if (rc == 0)
		rc = log_cell_put(a, id, &cell);
	if (rc == 0)
		rc = router_subjects_bind(a, config->subjects, config->n_subjects,
					  SLUICE__TARGET_KIND__TARGET_STREAM, id);
	return rc != 0 ? rc : topo_changed(a);
}

static int stream_named(struct apply *a, const char *name, uint64_t *ret_id,
			struct log_cell *ret_cell, struct outcome *out)
{
	int rc = name_find(a->txn, a->gateway, NAME_STREAM, slice_text(name), ret_id);

	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, rc, "stream '%.200s' does not exist", name);
	if (rc == 0)
		rc = log_cell_get(a->txn, a->gateway, *ret_id, ret_cell);
	return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
}

int stream_alter_apply(struct apply *a, const Sluice__StreamAlter *m, struct outcome *out)
{
	uint32_t work = RETENTION_WORK_PER_APPEND;
	struct log_cell cell;
	uint64_t id;
	int rc = config_check(m->config, out);

	if (rc == 0 && !refused(out))
		rc = stream_named(a, m->config->name, &id, &cell, out);
	if (rc != 0 || refused(out))
		return rc;
	if (m->config->n_subjects > 0)
		return refuse(out, SLUICE_E_INVAL,
			      "subjects are bound and unbound by the router; expected none here");
	cell_configure(&cell, m->config);
	/* The timer for the old age is void: it fires, and finds another due time. */
	cell.timer_due = 0;
	rc = config_store(a, id, m->config);
	if (rc == 0)
		rc = retention_run(a, id, &cell, &work);
	if (rc == 0)
		rc = log_cell_put(a, id, &cell);
	return rc != 0 ? rc : topo_changed(a);
}

int stream_delete_apply(struct apply *a, const Sluice__StreamDelete *m, struct outcome *out)
{
	struct effect effect = {.kind = FX_STREAM_DELETED,
				.command = a->position,
				.gateway = a->gateway};
	struct log_cell cell;
	uint64_t id;
	int rc = stream_named(a, m->name, &id, &cell, out);

	if (rc != 0 || refused(out))
		return rc;
	/* Marked at once; TICK deletes the segments and cursors. */
	cell.deleted = true;
	cell.first = cell.next;
	effect.id = id;
	rc = name_del(a, NAME_STREAM, slice_text(m->name));
	if (rc == 0)
		rc = topo_del(a, TOPO_STREAM, id);
	if (rc == 0)
		rc = log_cell_put(a, id, &cell);
	if (rc == 0)
		rc = router_drop_target(a, SLUICE__TARGET_KIND__TARGET_STREAM, id);
	if (rc == 0)
		rc = timer_set(a, a->mono_ms, TIMER_SWEEP, id, SWEEP_STREAM);
	if (rc == 0)
		rc = topo_changed(a);
	return rc != 0 ? rc : effects_add(a->effects, &effect);
}

/* ---- append ---- */

int stream_append(struct apply *a, uint64_t stream, const struct append_spec *spec,
		  uint64_t *ret_offset)
{
	uint32_t work = RETENTION_WORK_PER_APPEND;
	struct segment_info info;
	struct log_cell cell;
	int rc = pending_flush_log(a, stream);

	if (rc == 0)
		rc = log_cell_get(a->txn, a->gateway, stream, &cell);
	if (rc != 0)
		return rc;
	info.segment =
		(struct segment){.base = cell.next,
				 .last = cell.next + spec->count - 1,
				 .count = spec->count,
				 .time_ms = spec->time_ms,
				 .time_max_ms = time_add(spec->time_ms, spec->time_delta_max_ms),
				 .codec = spec->codec,
				 .raw_bytes = spec->raw_bytes,
				 .producer = spec->producer,
				 .epoch = spec->epoch,
				 .first_seq = spec->first_seq,
				 .subject = spec->subject,
				 .payload = spec->payload};
	*ret_offset = cell.next;
	cell.next += spec->count;
	rc = segment_append(a, stream, &cell, &info);
	if (rc == 0)
		rc = retention_run(a, stream, &cell, &work);
	if (rc == 0)
		rc = log_cell_put(a, stream, &cell);
	return rc != 0 ? rc : stream_grown(a, stream);
}

int core_stream_find(struct store_txn *txn, uint32_t gateway, struct sluice_slice name,
		     struct stream_ref *ret)
{
	struct log_cell cell;
	uint64_t id;
	int rc = name_find(txn, gateway, NAME_STREAM, name, &id);

	if (rc == 0)
		rc = log_cell_get(txn, gateway, id, &cell);
	if (rc == 0)
		*ret = (struct stream_ref){.id = id,
					   .log = id,
					   .first_offset = cell.first,
					   .next_offset = cell.next};
	return rc;
}

/* ---- cursors ---- */

void cursor_cell_encode(uint8_t buf[CURSOR_CELL_BYTES], const struct cursor_cell *cell)
{
	put_be64(buf, cell->offset);
	put_be64(buf + 8, cell->time_ms);
}

int cursor_cell_decode(struct sluice_slice value, struct cursor_cell *ret)
{
	const uint8_t *at = value.data;

	if (value.len != CURSOR_CELL_BYTES)
		return store_damaged("its content is not valid");
	*ret = (struct cursor_cell){.offset = get_be64(at), .time_ms = get_be64(at + 8)};
	return 0;
}

int cursor_cell_get(struct store_txn *txn, uint32_t gateway, uint64_t stream, uint64_t cursor,
		    struct cursor_cell *ret)
{
	struct sluice_slice value;
	struct key key;
	int rc;

	key_hot_cursor(&key, gateway, stream, cursor);
	rc = store_get(txn, STORE_HOT, key_slice(&key), &value);
	return rc != 0 ? rc : cursor_cell_decode(value, ret);
}

int core_cursor_find(struct store_txn *txn, uint32_t gateway, uint64_t stream,
		     struct sluice_slice name, uint64_t *ret_offset)
{
	char buf[CURSOR_NAME_BYTES_MAX];
	struct cursor_cell cell;
	uint64_t cursor;
	int rc;

	if (name.len > LIMIT_NAME_BYTES_MAX)
		return SLUICE_E_NOT_FOUND;
	rc = name_find(txn, gateway, NAME_CURSOR, cursor_name_encode(buf, stream, name), &cursor);
	if (rc == 0)
		rc = cursor_cell_get(txn, gateway, stream, cursor, &cell);
	if (rc == 0)
		*ret_offset = cell.offset;
	return rc;
}

static int cursor_put(struct apply *a, uint64_t stream, uint64_t cursor, uint64_t offset)
{
	const struct cursor_cell cell = {.offset = offset, .time_ms = a->wall_ms};
	uint8_t bytes[CURSOR_CELL_BYTES];
	struct key key;

	cursor_cell_encode(bytes, &cell);
	key_hot_cursor(&key, a->gateway, stream, cursor);
	return store_put(a->txn, STORE_HOT, key_slice(&key),
			 (struct sluice_slice){bytes, sizeof(bytes)});
}

static int cursor_move(struct apply *a, const Sluice__CursorSet *m, uint64_t stream,
		       uint64_t cursor, struct outcome *out)
{
	struct cursor_cell cell;
	int rc = cursor_cell_get(a->txn, a->gateway, stream, cursor, &cell);

	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? store_damaged("it is missing") : rc;
	if (m->offset < cell.offset && !m->back)
		return refuse(out, SLUICE_E_CONFLICT,
			      "cursor '%.100s' is at %llu already; moving it back to %llu "
			      "requires 'back'",
			      m->cursor, (unsigned long long)cell.offset,
			      (unsigned long long)m->offset);
	return cursor_put(a, stream, cursor, m->offset);
}

int cursor_set_apply(struct apply *a, const Sluice__CursorSet *m, struct outcome *out)
{
	char buf[CURSOR_NAME_BYTES_MAX];
	const char *why = NULL;
	struct sluice_slice name;
	struct log_cell cell;
	uint64_t stream, cursor;
	int rc = stream_named(a, m->stream, &stream, &cell, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = name_check(slice_text(m->cursor), &why);
	if (rc != 0)
		return refuse(out, rc, "cursor name: %s", why);
	if (m->stream_id != 0 && m->stream_id != stream)
		return refuse(out, SLUICE_E_NOT_FOUND,
			      "stream '%.100s' was deleted and created again: it is number %llu, "
			      "and the offset is of "
			      "number %llu",
			      m->stream, (unsigned long long)stream,
			      (unsigned long long)m->stream_id);
	if (m->offset > cell.next)
		return refuse(out, SLUICE_E_INVAL,
			      "offset %llu is beyond the end of stream '%.100s'; at most %llu",
			      (unsigned long long)m->offset, m->stream,
			      (unsigned long long)cell.next);
	name = cursor_name_encode(buf, stream, slice_text(m->cursor));
	rc = name_find(a->txn, a->gateway, NAME_CURSOR, name, &cursor);
	if (rc == 0)
		return cursor_move(a, m, stream, cursor, out);
	if (rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = counter_next(a, COUNTER_CURSOR, &cursor);
	if (rc == 0)
		rc = name_put(a, NAME_CURSOR, name, cursor);
	return rc != 0 ? rc : cursor_put(a, stream, cursor, m->offset);
}

int cursor_delete_apply(struct apply *a, const Sluice__CursorDelete *m, struct outcome *out)
{
	char buf[CURSOR_NAME_BYTES_MAX];
	struct sluice_slice name = slice_text(m->cursor);
	struct log_cell cell;
	uint64_t stream, cursor;
	struct key key;
	int rc = stream_named(a, m->stream, &stream, &cell, out);

	if (rc != 0 || refused(out))
		return rc;
	rc = SLUICE_E_NOT_FOUND;
	if (name.len <= LIMIT_NAME_BYTES_MAX) {
		name = cursor_name_encode(buf, stream, name);
		rc = name_find(a->txn, a->gateway, NAME_CURSOR, name, &cursor);
	}
	if (rc == SLUICE_E_NOT_FOUND)
		return refuse(out, rc, "stream '%.100s' has no cursor '%.100s'", m->stream,
			      m->cursor);
	if (rc == 0)
		rc = name_del(a, NAME_CURSOR, name);
	key_hot_cursor(&key, a->gateway, stream, cursor);
	return rc != 0 ? rc : store_del(a->txn, STORE_HOT, key_slice(&key));
}
