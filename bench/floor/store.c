/* SPDX-License-Identifier: Apache-2.0
 *
 * The stores of the scenarios: fresh, or a copy of one that was aged once.
 *
 * Ageing fragments the free list as months of use would: short runs of free pages everywhere in the
 * file. Two loads cause it, mixed in the same transactions: records with random keys that are put
 * and deleted, and a FIFO of mixed sizes of which one item in fifty stays.
 */
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
	AGE_RANDOM_BATCH = 500, /* random-key records per transaction */
	AGE_FIFO_BATCH = 200,	/* FIFO items per transaction */
	AGE_LIFE_SHARE = 4,  /* a record lives for rounds / this transactions, so that more rounds
			      * leave more free space */
	AGE_KEEP_EVERY = 50, /* one FIFO item in AGE_KEEP_EVERY stays */
	AGE_FIFO_BYTES_MAX = 6000,
	PROBE_COMMITS = 10,
};

static void open_env(struct floor_store *store)
{
	floor_must(mdb_env_create(&store->env), "mdb_env_create");
	floor_must(mdb_env_set_mapsize(store->env, FLOOR_MAP_BYTES), "mdb_env_set_mapsize");
	floor_must(mdb_env_set_maxdbs(store->env, 32), "mdb_env_set_maxdbs");
	floor_must(mdb_env_open(store->env, store->path,
				MDB_NOSUBDIR | (store->sync ? 0 : MDB_NOSYNC), 0600),
		   "mdb_env_open");
}

void floor_store_create(struct floor_store *store, const char *path, bool sync)
{
	*store = (struct floor_store){.sync = sync};
	snprintf(store->path, sizeof(store->path), "%s", path);
	(void)unlink(path);
	open_env(store);
}

static void copy_file(const char *from, const char *to)
{
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (in < 0 || out < 0)
		floor_die("copy %s: %s", from, strerror(errno));
	ssize_t n;
	do {
		n = copy_file_range(in, NULL, out, NULL, (size_t)64 << 20, 0);
		if (n < 0)
			floor_die("copy %s: %s", from, strerror(errno));
	} while (n > 0);
	/* Otherwise the first timed commit would include writing the copy. */
	if (fsync(out) < 0)
		floor_die("sync %s: %s", to, strerror(errno));
	close(in);
	close(out);
}

void floor_store_clone(struct floor_store *store, const struct floor_store *from, const char *path)
{
	*store = *from;
	snprintf(store->path, sizeof(store->path), "%s", path);
	(void)unlink(path);
	copy_file(from->path, path);
	open_env(store);
}

void floor_store_close(struct floor_store *store)
{
	if (store->env)
		mdb_env_close(store->env);
	store->env = NULL;
}

double floor_store_probe(struct floor_store *store)
{
	uint64_t start = floor_now_ns();
	for (uint64_t i = 0; i < PROBE_COMMITS; i++) {
		MDB_txn *txn = floor_begin(store);
		floor_put(txn, floor_table(txn, "probe"), "probe", 5, &i, sizeof(i));
		floor_commit(txn);
	}
	return (double)(floor_now_ns() - start) / 1e3 / PROBE_COMMITS;
}

uint64_t floor_store_file_bytes(const struct floor_store *store)
{
	MDB_envinfo info;
	MDB_stat stat;
	floor_must(mdb_env_info(store->env, &info), "mdb_env_info");
	floor_must(mdb_env_stat(store->env, &stat), "mdb_env_stat");
	return (info.me_last_pgno + 1) * stat.ms_psize;
}

void floor_store_preload(struct floor_store *store, bool on)
{
	if (!store->sync)
		return;
	if (!on)
		floor_must(mdb_env_sync(store->env, 1), "mdb_env_sync");
	floor_must(mdb_env_set_flags(store->env, MDB_NOSYNC, on), "mdb_env_set_flags");
}

MDB_dbi floor_table(MDB_txn *txn, const char *name)
{
	MDB_dbi dbi;
	floor_must(mdb_dbi_open(txn, name, MDB_CREATE, &dbi), "mdb_dbi_open");
	return dbi;
}

MDB_txn *floor_begin(const struct floor_store *store)
{
	MDB_txn *txn;
	floor_must(mdb_txn_begin(store->env, NULL, 0, &txn), "mdb_txn_begin");
	return txn;
}

void floor_commit(MDB_txn *txn)
{
	floor_must(mdb_txn_commit(txn), "mdb_txn_commit");
}

MDB_cursor *floor_cursor(MDB_txn *txn, MDB_dbi dbi)
{
	MDB_cursor *cursor;
	floor_must(mdb_cursor_open(txn, dbi, &cursor), "mdb_cursor_open");
	return cursor;
}

void floor_put(MDB_txn *txn, MDB_dbi dbi, const void *key, size_t key_len, const void *val,
	       size_t val_len)
{
	MDB_val k = {key_len, (void *)key};
	MDB_val v = {val_len, (void *)val};
	floor_must(mdb_put(txn, dbi, &k, &v, 0), "mdb_put");
}

void floor_cursor_put(MDB_cursor *cursor, const void *key, size_t key_len, const void *val,
		      size_t val_len)
{
	MDB_val k = {key_len, (void *)key};
	MDB_val v = {val_len, (void *)val};
	floor_must(mdb_cursor_put(cursor, &k, &v, 0), "mdb_cursor_put");
}

MDB_val floor_cursor_set(MDB_cursor *cursor, const void *key, size_t key_len)
{
	MDB_val k = {key_len, (void *)key};
	MDB_val v;
	floor_must(mdb_cursor_get(cursor, &k, &v, MDB_SET_KEY), "mdb_cursor_get");
	return v;
}

void floor_cursor_del_key(MDB_cursor *cursor, const void *key, size_t key_len)
{
	(void)floor_cursor_set(cursor, key, key_len);
	floor_must(mdb_cursor_del(cursor, 0), "mdb_cursor_del");
}

/* The random key of churn record i: made from i, so that it can be found again without a list. */
static void age_key(uint8_t key[16], uint64_t i)
{
	uint64_t seed = i;
	floor_be64(key, floor_random(&seed));
	floor_be64(key + 8, i);
}

static size_t age_fifo_size(uint64_t i)
{
	uint64_t seed = i ^ 0xf1f0;
	return 40 + floor_random(&seed) % AGE_FIFO_BYTES_MAX;
}

/* One transaction of churn: put this round's records, delete those of the round one life ago. */
static void age_round(struct floor_store *store, MDB_dbi random_dbi, MDB_dbi fifo_dbi,
		      uint64_t round, uint64_t life, bool put)
{
	static uint8_t value[AGE_FIFO_BYTES_MAX + 64];
	MDB_txn *txn = floor_begin(store);
	MDB_cursor *random = floor_cursor(txn, random_dbi);
	MDB_cursor *fifo = floor_cursor(txn, fifo_dbi);
	uint8_t key[16];

	for (uint64_t n = 0; n < AGE_RANDOM_BATCH; n++) {
		if (put) {
			age_key(key, round * AGE_RANDOM_BATCH + n);
			floor_cursor_put(random, key, 16, value, 60 + n % 300);
		}
		/* One random record in ten outlives its round, and occupies pages everywhere in the
		 * file. */
		if (round >= life && n % 10) {
			age_key(key, (round - life) * AGE_RANDOM_BATCH + n);
			floor_cursor_del_key(random, key, 16);
		}
	}
	for (uint64_t n = 0; n < AGE_FIFO_BATCH; n++) {
		uint64_t i = round * AGE_FIFO_BATCH + n;
		if (put) {
			floor_be64(key, i);
			floor_cursor_put(fifo, key, 8, value, age_fifo_size(i));
		}
		if (round >= life && n % AGE_KEEP_EVERY) {
			floor_be64(key, i - life * AGE_FIFO_BATCH);
			floor_cursor_del_key(fifo, key, 8);
		}
	}
	floor_commit(txn);
}

static int compare_page(const void *a, const void *b)
{
	size_t x = *(const size_t *)a, y = *(const size_t *)b;
	return (x > y) - (x < y);
}

/* Read LMDB's free list (its table 0: transaction -> count, page numbers) and count contiguous
 * runs. */
static void age_measure(struct floor_store *store)
{
	MDB_txn *txn;
	floor_must(mdb_txn_begin(store->env, NULL, MDB_RDONLY, &txn), "mdb_txn_begin");
	MDB_cursor *cursor = floor_cursor(txn, 0);
	MDB_val key, val;
	size_t count = 0, room = 0, *pages = NULL;

	while (mdb_cursor_get(cursor, &key, &val, MDB_NEXT) == 0) {
		const size_t *list = val.mv_data;
		if (count + list[0] > room) {
			room = (count + list[0]) * 2;
			pages = realloc(pages, room * sizeof(*pages));
			if (!pages)
				floor_die("out of memory");
		}
		memcpy(pages + count, list + 1, list[0] * sizeof(*pages));
		count += list[0];
	}
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);

	if (count)
		qsort(pages, count, sizeof(*pages), compare_page);
	struct floor_age *age = &store->age;
	age->free_pages = count;
	age->free_runs = 0;
	for (size_t i = 0; i < count; i++)
		age->free_runs += i == 0 || pages[i] != pages[i - 1] + 1;
	MDB_stat stat;
	floor_must(mdb_env_stat(store->env, &stat), "mdb_env_stat");
	age->file_bytes = floor_store_file_bytes(store);
	age->live_bytes = age->file_bytes - count * stat.ms_psize;
	free(pages);
}

void floor_store_age(struct floor_store *store, uint64_t rounds)
{
	MDB_txn *txn = floor_begin(store);
	MDB_dbi random_dbi = floor_table(txn, "age_random");
	MDB_dbi fifo_dbi = floor_table(txn, "age_fifo");
	floor_commit(txn);

	uint64_t life = rounds / AGE_LIFE_SHARE;
	floor_store_preload(store, true);
	for (uint64_t round = 0; round < rounds; round++)
		age_round(store, random_dbi, fifo_dbi, round, life, true);
	/* Deletes the young records too: their pages are the space for a scenario. */
	for (uint64_t round = rounds; round < rounds + life; round++)
		age_round(store, random_dbi, fifo_dbi, round, life, false);
	floor_store_preload(store, false);
	age_measure(store);
}
