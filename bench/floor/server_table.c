/* SPDX-License-Identifier: Apache-2.0
 *
 * The records of sluice-floor-server: a table for each log and queue, appended at the end, read in
 * order, queues deleted from in order. The key is that of publish.c: log id and offset, big-endian.
 * Each table is a tree of its own, so that every put is an append.
 */
#include "server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { KEY_BYTES = 12, LOG_ID = 7 };

static void key_make(uint8_t key[KEY_BYTES], uint64_t offset)
{
	floor_be32(key, LOG_ID);
	floor_be64(key + 4, offset);
}

void server_store_open(struct server *s, const char *dir)
{
	char path[FLOOR_PATH_MAX];
	int n = snprintf(path, sizeof(path), "%s/floor.mdb", dir);
	if (n < 0 || (size_t)n >= sizeof(path))
		floor_die("the directory's name is too long");
	floor_must(mdb_env_create(&s->env), "mdb_env_create");
	floor_must(mdb_env_set_mapsize(s->env, SERVER_MAP_BYTES), "mdb_env_set_mapsize");
	floor_must(mdb_env_set_maxdbs(s->env, 256), "mdb_env_set_maxdbs");
	/* These flags save work; none weakens the sync. */
	int rc = mdb_env_open(s->env, path, MDB_NOSUBDIR | MDB_NOTLS | MDB_NOMEMINIT, 0600);
	if (rc)
		floor_die("%s: %s", path, mdb_strerror(rc));
	floor_must(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->reader), "mdb_txn_begin");
	mdb_txn_reset(s->reader);
}

static MDB_txn *batch(struct server *s)
{
	if (!s->txn)
		floor_must(mdb_txn_begin(s->env, NULL, 0, &s->txn), "mdb_txn_begin");
	return s->txn;
}

struct table *table_open(struct server *s, const char *name, bool queue)
{
	struct table *t;
	for (t = s->tables; t; t = t->next) {
		if (t->queue == queue && strcmp(t->name, name) == 0)
			return t;
	}
	t = floor_alloc(1, sizeof(*t));
	t->queue = queue;
	snprintf(t->name, sizeof(t->name), "%s", name);
	char db[FLOOR_NAME_BYTES + 8];
	snprintf(db, sizeof(db), "%s:%s", queue ? "queue" : "log", name);

	MDB_txn *txn = batch(s);
	MDB_val key, val;
	t->dbi = floor_table(txn, db);
	MDB_cursor *cursor = floor_cursor(txn, t->dbi);
	int rc = mdb_cursor_get(cursor, &key, &val, MDB_LAST);
	if (rc == 0) {
		t->end = floor_get_be64((uint8_t *)key.mv_data + 4) + 1;
		floor_must(mdb_cursor_get(cursor, &key, &val, MDB_FIRST), "mdb_cursor_get");
		t->given = floor_get_be64((uint8_t *)key.mv_data + 4);
	} else if (rc != MDB_NOTFOUND) {
		floor_must(rc, "mdb_cursor_get");
	}
	mdb_cursor_close(cursor);
	t->durable = t->end;
	t->next = s->tables;
	s->tables = t;
	return t;
}

void table_append(struct server *s, struct table *t, const void *bytes, size_t len)
{
	uint8_t key[KEY_BYTES];
	key_make(key, t->end);
	if (!t->append)
		t->append = floor_cursor(batch(s), t->dbi);
	MDB_val k = {sizeof(key), key}, v = {len, (void *)bytes};
	floor_must(mdb_cursor_put(t->append, &k, &v, MDB_APPEND), "mdb_cursor_put");
	t->end++;
	t->has_new = true;
}

void server_commit(struct server *s)
{
	for (struct table *t = s->tables; t; t = t->next) {
		if (t->append)
			mdb_cursor_close(t->append);
		if (t->erase)
			mdb_cursor_close(t->erase);
		t->append = t->erase = NULL;
	}
	server_reader_end(s);
	floor_commit(s->txn);
	s->txn = NULL;
	for (struct table *t = s->tables; t; t = t->next)
		t->durable = t->end;
}

/* ---- ranges ---- */

static void range_push(struct ranges *r, uint64_t first, uint64_t count)
{
	if (r->head < r->end && r->at[r->end - 1].first + r->at[r->end - 1].count == first) {
		r->at[r->end - 1].count += count;
		return;
	}
	if (r->head == r->end)
		r->head = r->end = 0;
	if (r->end == r->room) {
		r->room = r->room ? 2 * r->room : 4;
		r->at = realloc(r->at, r->room * sizeof(*r->at));
		if (!r->at)
			floor_die("out of memory");
	}
	r->at[r->end++] = (struct range){first, count};
}

/* Removes the first record. */
static void range_shift(struct ranges *r)
{
	struct range *at = &r->at[r->head];
	at->first++;
	if (--at->count == 0)
		r->head++;
}

/* ---- deleting ---- */

/* Deletes the record `offset`, which must exist; usually it follows the record deleted before. */
static MDB_val erase_seek(struct table *t, uint64_t offset, bool follows)
{
	uint8_t key[KEY_BYTES];
	MDB_val k, v;
	key_make(key, offset);
	if (follows && mdb_cursor_get(t->erase, &k, &v, MDB_NEXT) == 0 &&
	    memcmp(k.mv_data, key, sizeof(key)) == 0)
		return v;
	return floor_cursor_set(t->erase, key, sizeof(key));
}

bool table_erase(struct server *s, struct conn *w)
{
	struct table *t = w->table;
	bool follows = false;
	if (!t->erase)
		t->erase = floor_cursor(batch(s), t->dbi);
	while (w->erased_bytes < w->count && w->held.head < w->held.end) {
		MDB_val v = erase_seek(t, w->held.at[w->held.head].first, follows);
		if (v.mv_size > w->count - w->erased_bytes)
			return false;
		w->erased_bytes += v.mv_size;
		floor_must(mdb_cursor_del(t->erase, 0), "mdb_cursor_del");
		range_shift(&w->held);
		follows = true;
	}
	return w->erased_bytes == w->count;
}

/* ---- reading ---- */

static MDB_txn *reader(struct server *s)
{
	if (!s->reading)
		floor_must(mdb_txn_renew(s->reader), "mdb_txn_renew");
	s->reading = true;
	return s->reader;
}

void server_reader_end(struct server *s)
{
	if (s->reading)
		mdb_txn_reset(s->reader);
	s->reading = false;
}

static bool page_add(struct page *p, const MDB_val *v)
{
	size_t need = p->bytes + sizeof(uint32_t) + v->mv_size;
	uint32_t len = (uint32_t)v->mv_size;
	if (need > p->room) {
		if (p->bytes)
			return false;
		p->room = need;
		p->buf = realloc(p->buf, need);
		if (!p->buf)
			floor_die("out of memory");
	}
	memcpy(p->buf + p->bytes, &len, sizeof(len));
	memcpy(p->buf + p->bytes + sizeof(len), v->mv_data, v->mv_size);
	p->bytes = need;
	return true;
}

bool table_page(struct server *s, struct table *t, uint64_t from)
{
	struct page *p = &s->page;
	if (p->table == t && p->from == from && p->to > from)
		return true;
	if (from >= t->durable)
		return false;
	*p = (struct page){t, from, from, 0, p->buf, p->room};
	uint8_t key[KEY_BYTES];
	key_make(key, from);
	MDB_cursor *cursor = floor_cursor(reader(s), t->dbi);
	MDB_val v = floor_cursor_set(cursor, key, sizeof(key)), k;
	while (page_add(p, &v) && ++p->to < t->durable)
		floor_must(mdb_cursor_get(cursor, &k, &v, MDB_NEXT), "mdb_cursor_get");
	mdb_cursor_close(cursor);
	return true;
}

bool table_take(struct server *s, struct conn *w)
{
	struct table *t = w->table;
	struct page *p = &s->page;
	bool again = t->back.head < t->back.end;
	uint64_t from = again ? t->back.at[t->back.head].first : t->given;
	uint64_t end = again ? from + t->back.at[t->back.head].count : t->durable;
	uint64_t held = w->sent_bytes - w->erased_bytes;

	*p = (struct page){NULL, 0, 0, 0, p->buf, p->room};
	if (from >= end || (held && held >= w->window_bytes))
		return false;
	uint8_t key[KEY_BYTES];
	uint64_t at = from;
	key_make(key, from);
	MDB_cursor *cursor = floor_cursor(reader(s), t->dbi);
	MDB_val v = floor_cursor_set(cursor, key, sizeof(key)), k;
	while ((!held || held + v.mv_size <= w->window_bytes) && page_add(p, &v)) {
		held += v.mv_size;
		w->sent_bytes += v.mv_size;
		if (++at == end)
			break;
		floor_must(mdb_cursor_get(cursor, &k, &v, MDB_NEXT), "mdb_cursor_get");
	}
	mdb_cursor_close(cursor);
	if (at == from)
		return false;
	range_push(&w->held, from, at - from);
	for (uint64_t n = from; again && n < at; n++)
		range_shift(&t->back);
	if (!again)
		t->given = at;
	return true;
}

void table_give_back(struct conn *w)
{
	for (size_t i = w->held.head; i < w->held.end; i++)
		range_push(&w->table->back, w->held.at[i].first, w->held.at[i].count);
	w->table->has_new = true;
	free(w->held.at);
	w->held = (struct ranges){0};
}
