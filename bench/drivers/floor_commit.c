/* SPDX-License-Identifier: Apache-2.0
 * The cost of a commit alone: send() collects, poll() puts the collected bodies into bare LMDB, a
 * record for each, and commits with full sync. There is no server and no reader. */
#include "floor.h"

#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { KEY_BYTES = 12, LOG_ID = 7 };

#define MAP_BYTES ((size_t)64 << 30)

/* A process may open an environment once only: connections share it. */
static struct {
	pthread_mutex_t mutex;
	MDB_env *env;
	unsigned users;
	char dir[BENCH_PATH_MAX];
} store = {.mutex = PTHREAD_MUTEX_INITIALIZER};

struct bench_conn {
	MDB_dbi dbi;
	size_t unit_bytes, body_bytes;
	uint8_t *bodies;
	size_t bytes, room;
	uint64_t units;
};

static int failed(const char *what, int rc)
{
	return bench_error("floor-commit: %s: %s", what, mdb_strerror(rc));
}

static int env_open(const char *dir)
{
	char path[BENCH_PATH_MAX + 16];
	MDB_env *env;
	snprintf(path, sizeof(path), "%s/floor.mdb", dir);
	int rc = mdb_env_create(&env);
	if (rc)
		return failed("mdb_env_create", rc);
	rc = mdb_env_set_mapsize(env, MAP_BYTES);
	if (!rc)
		rc = mdb_env_set_maxdbs(env, 256);
	if (!rc)
		rc = mdb_env_open(env, path, MDB_NOSUBDIR | MDB_NOMEMINIT, 0600);
	if (rc) {
		mdb_env_close(env);
		return failed(path, rc);
	}
	store.env = env;
	snprintf(store.dir, sizeof(store.dir), "%s", dir);
	return 0;
}

static int env_use(const char *dir)
{
	int rc = 0;
	pthread_mutex_lock(&store.mutex);
	if (!store.users)
		rc = env_open(dir);
	else if (strcmp(store.dir, dir) != 0)
		rc = bench_error("floor-commit: the store in %s is still open", store.dir);
	if (rc == 0)
		store.users++;
	pthread_mutex_unlock(&store.mutex);
	return rc;
}

static void env_leave(void)
{
	pthread_mutex_lock(&store.mutex);
	if (--store.users == 0) {
		mdb_env_close(store.env);
		store.env = NULL;
	}
	pthread_mutex_unlock(&store.mutex);
}

static int table_open(const char *name, MDB_dbi *ret)
{
	MDB_txn *txn;
	char db[128];
	snprintf(db, sizeof(db), "log:%s", name);
	int rc = mdb_txn_begin(store.env, NULL, 0, &txn);
	if (rc)
		return failed("mdb_txn_begin", rc);
	rc = mdb_dbi_open(txn, db, MDB_CREATE, ret);
	if (rc) {
		mdb_txn_abort(txn);
		return failed("mdb_dbi_open", rc);
	}
	rc = mdb_txn_commit(txn);
	return rc ? failed("mdb_txn_commit", rc) : 0;
}

int floor_commit_open(const struct bench_server *server, const struct bench_conn_spec *spec,
		      struct bench_conn **ret)
{
	if (spec->role != BENCH_PUBLISH && spec->role != BENCH_PUT)
		return bench_error("floor-commit has no readers");
	if (!spec->batch || !spec->body_bytes)
		return bench_error("floor-commit: units of 0 bytes");
	struct bench_conn *c = calloc(1, sizeof(*c));
	if (!c)
		return bench_error("out of memory");
	c->body_bytes = spec->body_bytes;
	c->unit_bytes = spec->batch * spec->body_bytes;
	if (env_use(server->dir) < 0) {
		free(c);
		return -1;
	}
	if (table_open(spec->name, &c->dbi) < 0) {
		env_leave();
		free(c);
		return -1;
	}
	*ret = c;
	return 0;
}

void floor_commit_close(struct bench_conn *c)
{
	if (!c)
		return;
	env_leave();
	free(c->bodies);
	free(c);
}

int floor_commit_send(struct bench_conn *c, const void *bodies)
{
	if (c->bytes + c->unit_bytes > c->room) {
		size_t room = 2 * (c->bytes + c->unit_bytes);
		uint8_t *p = realloc(c->bodies, room);
		if (!p)
			return bench_error("out of memory for %zu bytes", room);
		c->bodies = p;
		c->room = room;
	}
	memcpy(c->bodies + c->bytes, bodies, c->unit_bytes);
	c->bytes += c->unit_bytes;
	c->units++;
	return 0;
}

/* Puts the collected bodies after the existing records. */
static int put_all(struct bench_conn *c, MDB_txn *txn)
{
	MDB_cursor *cursor;
	MDB_val k, v;
	uint8_t key[KEY_BYTES];
	uint32_t log = __builtin_bswap32(LOG_ID);
	uint64_t offset = 0;
	int rc = mdb_cursor_open(txn, c->dbi, &cursor);
	if (rc)
		return rc;
	rc = mdb_cursor_get(cursor, &k, &v, MDB_LAST);
	if (rc == 0) {
		memcpy(&offset, (uint8_t *)k.mv_data + 4, sizeof(offset));
		offset = __builtin_bswap64(offset) + 1;
	} else if (rc == MDB_NOTFOUND) {
		rc = 0;
	}
	memcpy(key, &log, sizeof(log));
	for (size_t at = 0; rc == 0 && at < c->bytes; at += c->body_bytes) {
		uint64_t big = __builtin_bswap64(offset++);
		memcpy(key + 4, &big, sizeof(big));
		k = (MDB_val){sizeof(key), key};
		v = (MDB_val){c->body_bytes, c->bodies + at};
		rc = mdb_cursor_put(cursor, &k, &v, MDB_APPEND);
	}
	mdb_cursor_close(cursor);
	return rc;
}

int floor_commit_poll(struct bench_conn *c, int timeout_us, struct bench_progress *io)
{
	if (!c->bytes) {
		struct timespec ts = {timeout_us / 1000000, timeout_us % 1000000 * 1000L};
		if (timeout_us > 0)
			(void)nanosleep(&ts, NULL);
		return 0;
	}
	MDB_txn *txn;
	int rc = mdb_txn_begin(store.env, NULL, 0, &txn);
	if (rc)
		return failed("mdb_txn_begin", rc);
	rc = put_all(c, txn);
	if (rc) {
		mdb_txn_abort(txn);
		return failed("mdb_cursor_put", rc);
	}
	rc = mdb_txn_commit(txn);
	if (rc)
		return failed("mdb_txn_commit", rc);
	io->answered += c->units;
	c->bytes = 0;
	c->units = 0;
	return 0;
}
