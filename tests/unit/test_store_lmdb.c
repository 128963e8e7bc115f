/* SPDX-License-Identifier: Apache-2.0
 *
 * What only the LMDB store can show: failing system calls at a commit (T17), a full map, a full disk, disk
 * allocated ahead, snapshots and threads, descriptors that children inherit, and directories that must be
 * refused and left alone (T3, T14).
 *
 * System calls of liblmdb and of the store are taken over by the functions of the same names below, which
 * pass them on unless told to fail.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "broker/store/store.h"
#include "broker/util/clock.h"

#define INTERPOSED __attribute__((visibility("default")))

/* ---- system calls ---- */

enum { META_PAGES = 2, PAGE_BYTES = 4096 };

static struct {
	int write_at, sync_at, meta_at; /* which call from now fails; 0: none */
	int error;
	bool disk_full;
	uint32_t fs_type; /* 0: the real one */
} plan;

static bool fails(int *left)
{
	if (*left == 0 || --*left != 0)
		return false;
	errno = plan.error;
	return true;
}

static void *real(const char *name)
{
	void *function = dlsym(RTLD_NEXT, name);

	if (function == NULL)
		abort();
	return function;
}

/* By its symbol: liblmdb wants pwrite, and with 64-bit offsets the compiler would make this pwrite64. */
INTERPOSED ssize_t taken_pwrite(int fd, const void *bytes, size_t count, off_t offset) __asm__("pwrite");

ssize_t taken_pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	ssize_t (*next)(int, const void *, size_t, off_t);

	*(void **)&next = real("pwrite");
	if (fails(offset < META_PAGES * PAGE_BYTES ? &plan.meta_at : &plan.write_at))
		return -1;
	return next(fd, bytes, count, offset);
}

INTERPOSED ssize_t writev(int fd, const struct iovec *parts, int count)
{
	ssize_t (*next)(int, const struct iovec *, int);

	*(void **)&next = real("writev");
	return fails(&plan.write_at) ? -1 : next(fd, parts, count);
}

INTERPOSED int fdatasync(int fd)
{
	int (*next)(int);

	*(void **)&next = real("fdatasync");
	return fails(&plan.sync_at) ? -1 : next(fd);
}

static void fill(struct statvfs *fs)
{
	if (plan.disk_full)
		fs->f_bavail = 0;
}

INTERPOSED int statvfs(const char *path, struct statvfs *fs)
{
	int (*next)(const char *, struct statvfs *);
	int rc;

	*(void **)&next = real("statvfs");
	rc = next(path, fs);
	fill(fs);
	return rc;
}

INTERPOSED int fstatvfs(int fd, struct statvfs *fs)
{
	int (*next)(int, struct statvfs *);
	int rc;

	*(void **)&next = real("fstatvfs");
	rc = next(fd, fs);
	fill(fs);
	return rc;
}

INTERPOSED int statfs(const char *path, struct statfs *fs)
{
	int (*next)(const char *, struct statfs *);
	int rc;

	*(void **)&next = real("statfs");
	rc = next(path, fs);
	if (plan.fs_type != 0)
		memcpy(&fs->f_type, &(uint64_t){plan.fs_type}, sizeof(fs->f_type));
	return rc;
}

/* ---- a store in a directory of its own ---- */

struct rig {
	struct store *store;
	char dir[64];
};

static const struct store_options options = {.map_bytes = 64u << 20, .create = true};

static void reopen(struct rig *rig)
{
	const char *why = "";

	store_close(rig->store);
	rig->store = NULL;
	cr_assert_eq(store_open_lmdb(rig->dir, &options, &rig->store, &why), 0, "%s", why);
}

static struct rig rig_dir(void)
{
	struct rig rig = {.dir = "/tmp/sluice-lmdb-XXXXXX"};

	cr_assert_not_null(mkdtemp(rig.dir));
	return rig;
}

static struct rig rig_open(void)
{
	struct rig rig = rig_dir();

	reopen(&rig);
	return rig;
}

static size_t files_in(const char *dir, bool delete)
{
	DIR *entries = opendir(dir);
	struct dirent *entry;
	size_t count = 0;

	cr_assert_not_null(entries);
	while ((entry = readdir(entries)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		count++;
		if (delete)
			cr_assert_eq(unlinkat(dirfd(entries), entry->d_name, 0), 0);
	}
	(void)closedir(entries);
	return count;
}

static void rig_close(struct rig *rig)
{
	store_close(rig->store);
	(void)files_in(rig->dir, true);
	cr_assert_eq(rmdir(rig->dir), 0);
}

static struct sluice_slice text(const char *value)
{
	return (struct sluice_slice){value, strlen(value)};
}

static struct store_txn *begin(struct store *store)
{
	struct store_txn *txn = NULL;

	cr_assert_eq(store_begin(store, &txn), 0, "%s", store_last_error());
	return txn;
}

static struct store_txn *begin_read(struct store *store)
{
	struct store_txn *txn = NULL;

	cr_assert_eq(store_begin_read(store, &txn), 0, "%s", store_last_error());
	return txn;
}

static int try_put(struct store *store, const char *key, const char *value)
{
	struct store_txn *txn = begin(store);
	int rc = store_put(txn, STORE_NAME, text(key), text(value));

	if (rc == 0)
		rc = store_put(txn, STORE_HOT, text(key), text(value));
	if (rc == 0)
		return store_commit(txn);
	store_abort(txn);
	return rc;
}

static void expect_value(struct store_txn *txn, enum store_table table, const char *key, const char *value)
{
	struct sluice_slice found;

	cr_assert_eq(store_get(txn, table, text(key), &found), 0);
	cr_assert_eq(found.len, strlen(value));
	cr_assert_eq(memcmp(found.data, value, found.len), 0, "%s: expected %s", key, value);
}

static void expect_both(struct store *store, const char *key, const char *value)
{
	struct store_txn *txn = begin_read(store);

	expect_value(txn, STORE_NAME, key, value);
	expect_value(txn, STORE_HOT, key, value);
	store_abort(txn);
}

/* ---- commits that fail ---- */

Test(store_lmdb, a_failed_write_of_pages_is_io_and_nothing_is_applied)
{
	struct rig rig = rig_open();

	cr_assert_eq(try_put(rig.store, "a", "old"), 0);
	plan.error = EIO;
	plan.write_at = 1;
	cr_expect_eq(try_put(rig.store, "a", "new"), SLUICE_E_IO);
	cr_assert_eq(plan.write_at, 0, "a write was tried");
	reopen(&rig);
	expect_both(rig.store, "a", "old");
	rig_close(&rig);
}

Test(store_lmdb, a_failed_sync_is_io)
{
	struct rig rig = rig_open();

	cr_assert_eq(try_put(rig.store, "a", "old"), 0);
	plan.error = EIO;
	plan.sync_at = 1;
	cr_expect_eq(try_put(rig.store, "a", "new"), SLUICE_E_IO);
	cr_assert_eq(plan.sync_at, 0, "a sync was tried");
	reopen(&rig);
	expect_both(rig.store, "a", "old");
	rig_close(&rig);
}

/* A full disk shows as ENOSPC, or as EIO when LMDB met a short write: in both cases the store goes on when
 * there is room again. */
Test(store_lmdb, a_full_disk_is_no_space_and_the_store_goes_on)
{
	static const int errors[] = {ENOSPC, EDQUOT, EIO};
	struct rig rig = rig_open();

	cr_assert_eq(try_put(rig.store, "a", "old"), 0);
	for (size_t i = 0; i < 3; i++) {
		plan.error = errors[i];
		plan.write_at = 1;
		plan.disk_full = errors[i] == EIO;
		cr_expect_eq(try_put(rig.store, "a", "new"), SLUICE_E_NO_SPACE, "%s", strerror(errors[i]));
		plan.disk_full = false;
		expect_both(rig.store, "a", "old");
		cr_expect_eq(try_put(rig.store, "b", strerror(errors[i])), 0);
		expect_both(rig.store, "b", strerror(errors[i]));
	}
	reopen(&rig);
	expect_both(rig.store, "a", "old");
	rig_close(&rig);
}

/* Whether a meta page is on the disk whose write failed is unknown, whatever the error says; so the store
 * must not go on. */
Test(store_lmdb, a_failed_write_of_the_meta_page_is_io_even_on_a_full_disk)
{
	struct rig rig = rig_open();
	struct store_txn *txn = NULL;

	cr_assert_eq(try_put(rig.store, "a", "old"), 0);
	plan.error = ENOSPC;
	plan.meta_at = 1;
	plan.disk_full = true;
	cr_expect_eq(try_put(rig.store, "a", "new"), SLUICE_E_IO);
	cr_assert_eq(plan.meta_at, 0, "the meta page was tried");
	plan.disk_full = false;
	cr_expect_eq(store_begin(rig.store, &txn), SLUICE_E_IO, "nothing goes on after that");
	reopen(&rig);
	expect_both(rig.store, "a", "old");
	rig_close(&rig);
}

/* ---- a full map ---- */

Test(store_lmdb, a_full_map_is_no_space_and_deletes_make_room)
{
	struct store_options small = {.map_bytes = 1u << 20, .create = true};
	struct rig rig = rig_dir();
	struct store_txn *txn;
	char key[16], value[2000];
	int rc = 0, count = 0;

	memset(value, 'v', sizeof(value));
	cr_assert_eq(store_open_lmdb(rig.dir, &small, &rig.store, NULL), 0);
	while (rc == 0 && count < 1000) {
		txn = begin(rig.store);
		for (int i = 0; rc == 0 && i < 20; i++) {
			snprintf(key, sizeof(key), "k%05d", count * 20 + i);
			rc = store_put(txn, STORE_ITEM, text(key),
				       (struct sluice_slice){value, sizeof(value)});
		}
		if (rc != 0) {
			cr_expect_eq(store_put(txn, STORE_ITEM, text("x"), text("y")), SLUICE_E_NO_SPACE,
				     "the transaction is half-done");
			cr_expect_eq(store_commit(txn), SLUICE_E_NO_SPACE);
		} else {
			rc = store_commit(txn);
		}
		count += rc == 0;
	}
	cr_assert_eq(rc, SLUICE_E_NO_SPACE);
	cr_assert_gt(count, 5);
	txn = begin(rig.store);
	for (int i = 0; i < 20; i++) {
		snprintf(key, sizeof(key), "k%05d", i);
		cr_assert_eq(store_del(txn, STORE_ITEM, text(key)), 0, "%s", store_last_error());
	}
	cr_assert_eq(store_commit(txn), 0, "%s", store_last_error());
	/* What was freed is for use from the next but one commit on. */
	cr_assert_eq(try_put(rig.store, "a", "1"), 0);
	cr_assert_eq(try_put(rig.store, "a", "2"), 0);
	expect_both(rig.store, "a", "2");
	rig_close(&rig);
}

/* ---- facts and room ---- */

static uint64_t blocks_of(const struct rig *rig)
{
	char path[96];
	struct stat st;

	snprintf(path, sizeof(path), "%s/data.mdb", rig->dir);
	cr_assert_eq(stat(path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

Test(store_lmdb, disk_is_allocated_ahead_without_a_longer_file)
{
	struct rig rig = rig_open();
	struct store_facts facts;
	struct store_room room;
	uint64_t file_bytes, before = blocks_of(&rig);
	int rc;

	store_facts_get(rig.store, &facts);
	file_bytes = facts.file_bytes;
	plan.disk_full = true;
	cr_expect_eq(store_reserve_disk(rig.store, 32u << 20, &room), SLUICE_E_NO_SPACE);
	cr_expect_eq(blocks_of(&rig), before, "a refusal takes nothing");
	cr_expect_lt(room.ahead_bytes, 32u << 20);
	plan.disk_full = false;
	rc = store_reserve_disk(rig.store, 32u << 20, &room);
	if (rc == SLUICE_E_UNSUPPORTED) {
		cr_expect_gt(room.ahead_bytes, 0, "what the disk has free just now");
		rig_close(&rig);
		cr_skip_test("the file system of /tmp cannot allocate ahead");
		return;
	}
	cr_assert_eq(rc, 0, "%s", store_last_error());
	store_facts_get(rig.store, &facts);
	cr_expect_eq(facts.file_bytes, file_bytes);
	cr_expect_geq(room.ahead_bytes, 32u << 20);
	cr_expect_eq(facts.ahead_bytes, room.ahead_bytes);
	cr_expect_eq(room.inside_bytes, 0, "not asked for");
	before = blocks_of(&rig);
	cr_expect_geq(before, 32u << 20);
	plan.disk_full = true;
	cr_expect_eq(store_reserve_disk(rig.store, 16u << 20, &room), 0, "less is there already");
	cr_expect_eq(blocks_of(&rig), before);
	reopen(&rig);
	cr_expect_eq(store_reserve_disk(rig.store, 32u << 20, &room), 0,
		     "what an earlier process allocated is found again on a full disk: %s",
		     store_last_error());
	cr_expect_eq(blocks_of(&rig), before);
	plan.disk_full = false;
	cr_expect_eq(try_put(rig.store, "a", "1"), 0);
	expect_both(rig.store, "a", "1");
	rig_close(&rig);
}

/* The map is an end of the room as the disk is, and the free pages inside are told only then. */
Test(store_lmdb, room_ends_with_the_map)
{
	static const char value[100000] = "";
	struct rig rig = rig_open();
	struct store_room room;
	struct store_txn *txn;
	uint64_t ahead;
	char key[16];
	int rc = store_reserve_disk(rig.store, options.map_bytes * 2, &room);

	cr_assert(rc == SLUICE_E_NO_SPACE || rc == SLUICE_E_UNSUPPORTED);
	cr_expect_leq(room.ahead_bytes, options.map_bytes);
	ahead = room.ahead_bytes;
	txn = begin(rig.store);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%05d", i);
		cr_assert_eq(store_put(txn, STORE_ITEM, text(key),
				       (struct sluice_slice){value, sizeof(value)}),
			     0);
	}
	cr_expect_geq(store_txn_bytes(txn), 100 * sizeof(value));
	cr_expect_leq(store_txn_bytes(txn), 101 * sizeof(value));
	cr_assert_eq(store_commit(txn), 0);
	cr_expect_eq(store_reserve_disk(rig.store, options.map_bytes * 2, &room), rc);
	cr_expect_leq(room.ahead_bytes, ahead - 100 * sizeof(value));
	txn = begin(rig.store);
	for (int i = 0; i < 100; i++) {
		snprintf(key, sizeof(key), "k%05d", i);
		cr_assert_eq(store_del(txn, STORE_ITEM, text(key)), 0);
	}
	cr_assert_eq(store_commit(txn), 0);
	cr_expect_eq(store_reserve_disk(rig.store, options.map_bytes * 2, &room), rc);
	cr_expect_geq(room.inside_bytes, 100 * sizeof(value));
	rig_close(&rig);
}

/* Facts are looked at again when they are older than half a second. */
static struct store_facts fresh_facts(struct store *store)
{
	struct store_facts facts;
	uint64_t end = clock_mono_ns() + 600000000;

	do {
		store_facts_get(store, &facts);
		(void)usleep(5000);
	} while (clock_mono_ns() < end);
	return facts;
}

Test(store_lmdb, facts_tell_use_readers_and_commits)
{
	struct rig rig = rig_open();
	struct store_facts empty = fresh_facts(rig.store), full, pinned, freed;
	struct store_txn *txn = begin(rig.store), *snapshot;
	char key[16], value[4000] = {0};

	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "k%05d", i);
		cr_assert_eq(store_put(txn, STORE_ITEM, text(key),
				       (struct sluice_slice){value, sizeof(value)}),
			     0);
	}
	cr_assert_eq(store_commit(txn), 0);
	full = fresh_facts(rig.store);
	cr_expect_geq(full.used_bytes, empty.used_bytes + sizeof(value) * 200);
	cr_expect_eq(full.commits, empty.commits + 1);
	cr_expect_eq(full.map_bytes, options.map_bytes);
	cr_expect_geq(full.file_bytes, full.used_bytes);
	cr_expect_gt(full.disk_free_bytes, 0);
	cr_expect_eq(full.oldest_reader_ms, 0);
	snapshot = begin_read(rig.store);
	txn = begin(rig.store);
	for (int i = 0; i < 200; i++) {
		snprintf(key, sizeof(key), "k%05d", i);
		cr_assert_eq(store_del(txn, STORE_ITEM, text(key)), 0);
	}
	cr_assert_eq(store_commit(txn), 0);
	pinned = fresh_facts(rig.store);
	cr_expect_geq(pinned.used_bytes, full.used_bytes, "what a snapshot sees is in use");
	cr_expect_geq(pinned.oldest_reader_ms, 500);
	store_abort(snapshot);
	freed = fresh_facts(rig.store);
	cr_expect_lt(freed.used_bytes, full.used_bytes - sizeof(value) * 150);
	cr_expect_eq(freed.oldest_reader_ms, 0);
	rig_close(&rig);
}

/* ---- threads ---- */

enum { COUNTS = 60 };

static void *count_up(void *user)
{
	for (int i = 0; i < COUNTS; i++) {
		struct store_txn *txn = begin(user);
		struct sluice_slice found;
		uint32_t count = 0;

		if (store_get(txn, STORE_HOT, text("count"), &found) == 0)
			memcpy(&count, found.data, sizeof(count));
		count++;
		cr_assert_eq(store_put(txn, STORE_HOT, text("count"),
				       (struct sluice_slice){&count, sizeof(count)}),
			     0);
		if (i % 5 == 4) {
			/* An abort that another thread's commit must not bring back. */
			cr_assert_eq(store_put(txn, STORE_HOT, text("count"), text("nonsense")), 0);
			store_abort(txn);
			continue;
		}
		cr_assert_eq(store_commit(txn), 0);
	}
	return NULL;
}

Test(store_lmdb, writers_of_several_threads_take_turns)
{
	struct rig rig = rig_open();
	struct store_txn *txn;
	struct sluice_slice found;
	pthread_t threads[2];
	uint32_t count = 0;

	for (size_t i = 0; i < 2; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, count_up, rig.store), 0);
	for (size_t i = 0; i < 2; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	txn = begin_read(rig.store);
	cr_assert_eq(store_get(txn, STORE_HOT, text("count"), &found), 0);
	memcpy(&count, found.data, sizeof(count));
	cr_expect_eq(count, 2 * COUNTS * 4 / 5);
	store_abort(txn);
	rig_close(&rig);
}

struct watch {
	struct store *store;
	_Atomic bool done;
};

/* In every snapshot both records are of one commit, also when looked at twice. */
static void *watch_pair(void *user)
{
	struct watch *watch = user;
	uint64_t seen = 0;

	while (!watch->done || seen == 0) {
		struct store_txn *txn = begin_read(watch->store);
		struct sluice_slice first, second, again;
		int rc = store_get(txn, STORE_NAME, text("first"), &first);

		if (rc == 0) {
			cr_assert_eq(store_get(txn, STORE_HOT, text("second"), &second), 0);
			cr_assert_eq(memcmp(first.data, second.data, 4), 0);
			cr_assert_eq(store_get(txn, STORE_NAME, text("first"), &again), 0);
			cr_assert_eq(memcmp(first.data, again.data, 4), 0);
			seen++;
		}
		store_abort(txn);
	}
	return NULL;
}

Test(store_lmdb, snapshots_beside_the_writer_are_of_one_commit)
{
	struct rig rig = rig_open();
	struct watch watch = {.store = rig.store};
	pthread_t threads[3];

	for (size_t i = 0; i < 3; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, watch_pair, &watch), 0);
	for (uint32_t i = 0; i < 150; i++) {
		struct store_txn *txn = begin(rig.store);

		cr_assert_eq(store_put(txn, STORE_NAME, text("first"), (struct sluice_slice){&i, 4}), 0);
		cr_assert_eq(store_put(txn, STORE_HOT, text("second"), (struct sluice_slice){&i, 4}), 0);
		if (i % 3 == 1)
			store_abort(txn);
		else
			cr_assert_eq(store_commit(txn), 0);
	}
	watch.done = true;
	for (size_t i = 0; i < 3; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	rig_close(&rig);
}

Test(store_lmdb, a_second_write_transaction_of_a_thread_is_refused)
{
	struct rig rig = rig_open();
	struct store_txn *txn = begin(rig.store), *second = NULL;

	cr_expect_eq(store_begin(rig.store, &second), SLUICE_E_INTERNAL);
	store_abort(txn);
	store_abort(begin(rig.store));
	rig_close(&rig);
}

/* ---- opening ---- */

Test(store_lmdb, children_inherit_no_descriptor_of_the_store)
{
	struct rig rig = rig_open();
	char link[64], target[128];
	int seen = 0;

	for (int fd = 3; fd < 256; fd++) {
		ssize_t len;

		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		len = readlink(link, target, sizeof(target) - 1);
		if (len < 0)
			continue;
		target[len] = 0;
		if (strncmp(target, rig.dir, strlen(rig.dir)) != 0)
			continue;
		seen++;
		cr_expect_neq(fcntl(fd, F_GETFD) & FD_CLOEXEC, 0, "%s", target);
	}
	cr_expect_geq(seen, 4, "the data twice and two locks");
	rig_close(&rig);
}

/* All bytes of the data file, to be freed. */
static char *contents(const struct rig *rig, size_t *ret_len)
{
	char path[96], *bytes;
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "%s/data.mdb", rig->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_geq(fd, 0);
	cr_assert_eq(fstat(fd, &st), 0);
	*ret_len = (size_t)st.st_size;
	bytes = malloc(*ret_len + 1);
	cr_assert_not_null(bytes);
	cr_assert_eq(read(fd, bytes, *ret_len), st.st_size);
	(void)close(fd);
	return bytes;
}

static void refused_and_left_alone(struct rig *rig, int code, const char *word)
{
	size_t before_len, after_len;
	char *before = contents(rig, &before_len), *after;
	const char *why = "";

	rig->store = NULL;
	cr_expect_eq(store_open_lmdb(rig->dir, &options, &rig->store, &why), code);
	cr_expect_not_null(strstr(why, word), "'%s' is in: %s", word, why);
	after = contents(rig, &after_len);
	cr_expect(before_len == after_len && memcmp(before, after, before_len) == 0, "not a byte is written");
	free(before);
	free(after);
}

/* Behind the store's back: deletes a table, or a record of meta. */
static void lose(const char *dir, const char *table, const char *meta_key)
{
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_val key;

	cr_assert_eq(mdb_env_create(&env), 0);
	cr_assert_eq(mdb_env_set_maxdbs(env, 64), 0);
	cr_assert_eq(mdb_env_set_mapsize(env, 64u << 20), 0);
	cr_assert_eq(mdb_env_open(env, dir, 0, 0600), 0);
	cr_assert_eq(mdb_txn_begin(env, NULL, 0, &txn), 0);
	if (table != NULL) {
		cr_assert_eq(mdb_dbi_open(txn, table, 0, &dbi), 0);
		cr_assert_eq(mdb_drop(txn, dbi, 1), 0);
	}
	if (meta_key != NULL) {
		key = (MDB_val){strlen(meta_key), (void *)(uintptr_t)meta_key};
		cr_assert_eq(mdb_dbi_open(txn, "meta", 0, &dbi), 0);
		cr_assert_eq(mdb_del(txn, dbi, &key, NULL), 0);
	}
	cr_assert_eq(mdb_txn_commit(txn), 0);
	mdb_env_close(env);
}

/* T14. A table that we know and the newer one has not must not be made in it. */
Test(store_lmdb, a_newer_schema_is_refused_and_not_a_byte_is_written)
{
	static const uint8_t version[4] = {0, 0, 0, STORE_SCHEMA_VERSION + 1};
	struct rig rig = rig_open();
	struct store_txn *txn = begin(rig.store);

	cr_assert_eq(store_put(txn, STORE_META, text("store_schema"), (struct sluice_slice){version, 4}), 0);
	cr_assert_eq(store_commit(txn), 0);
	store_close(rig.store);
	lose(rig.dir, "quar", NULL);
	refused_and_left_alone(&rig, SLUICE_E_SCHEMA, "schema version 2");
	rig_close(&rig);
}

/* T3: what cannot be read is not taken for a fresh store. */
Test(store_lmdb, a_lost_schema_record_is_damage)
{
	struct rig rig = rig_open();

	store_close(rig.store);
	lose(rig.dir, NULL, "store_schema");
	refused_and_left_alone(&rig, SLUICE_E_CORRUPT, "schema");
	rig_close(&rig);
}

Test(store_lmdb, a_file_that_is_no_database_is_damage)
{
	struct rig rig = rig_dir();
	char path[96], line[] = "this is not a database\n";
	int fd;

	snprintf(path, sizeof(path), "%s/data.mdb", rig.dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	for (int i = 0; i < 1000; i++)
		cr_assert_eq(write(fd, line, sizeof(line) - 1), (ssize_t)sizeof(line) - 1);
	(void)close(fd);
	refused_and_left_alone(&rig, SLUICE_E_CORRUPT, "database file");
	rig_close(&rig);
}

Test(store_lmdb, no_store_is_made_unless_asked)
{
	static const struct store_options asks[] = {{.map_bytes = 64u << 20},
						    {.map_bytes = 64u << 20,
						     .read_only = true,
						     .create = true}};
	struct rig rig = rig_dir();
	const char *why = "";
	char path[96];

	for (size_t i = 0; i < 2; i++) {
		cr_expect_eq(store_open_lmdb(rig.dir, &asks[i], &rig.store, &why), SLUICE_E_NOT_FOUND);
		cr_expect_not_null(strstr(why, "no store"));
		cr_expect_eq(files_in(rig.dir, false), 0);
	}
	snprintf(path, sizeof(path), "%s/none", rig.dir);
	cr_expect_eq(store_open_lmdb(path, &asks[0], &rig.store, &why), SLUICE_E_NOT_FOUND);
	cr_expect_neq(access(path, F_OK), 0);
	rig_close(&rig);
}

Test(store_lmdb, a_new_directory_is_its_owners_alone)
{
	struct rig rig = rig_dir();
	struct stat st;

	cr_assert_eq(rmdir(rig.dir), 0);
	reopen(&rig);
	cr_assert_eq(stat(rig.dir, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0700);
	rig_close(&rig);
}

Test(store_lmdb, network_file_systems_are_refused)
{
	static const uint32_t refused[] = {0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x5346414f, 0x00c36400};
	static const uint32_t accepted[] = {0xef53 /* ext4 */, 0x01021994 /* tmpfs */, 0x01021997 /* 9p */,
					    0x794c7630 /* overlay */};
	struct rig rig = rig_dir();
	const char *why = "";

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		plan.fs_type = refused[i];
		cr_expect_eq(store_open_lmdb(rig.dir, &options, &rig.store, &why), SLUICE_E_UNSUPPORTED,
			     "%#x", refused[i]);
		cr_expect_not_null(strstr(why, "network"));
		cr_expect_eq(files_in(rig.dir, false), 0);
	}
	for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
		plan.fs_type = accepted[i];
		reopen(&rig);
	}
	rig_close(&rig);
}

Test(store_lmdb, a_read_only_store_reads_and_does_not_write)
{
	struct store_options read_only = {.map_bytes = 64u << 20, .read_only = true};
	struct rig rig = rig_open();
	struct store_txn *txn = NULL;
	struct store_room room;
	size_t before_len, after_len;
	char *before, *after;

	cr_assert_eq(try_put(rig.store, "a", "1"), 0);
	store_close(rig.store);
	before = contents(&rig, &before_len);
	cr_assert_eq(store_open_lmdb(rig.dir, &read_only, &rig.store, NULL), 0);
	expect_both(rig.store, "a", "1");
	cr_expect_eq(store_begin(rig.store, &txn), SLUICE_E_DENIED);
	cr_expect_eq(store_reserve_disk(rig.store, 1, &room), SLUICE_E_DENIED);
	txn = begin_read(rig.store);
	cr_expect_eq(store_put(txn, STORE_NAME, text("a"), text("2")), SLUICE_E_INTERNAL);
	cr_expect_eq(store_put(txn, STORE_HOT, text("a"), text("2")), SLUICE_E_INTERNAL);
	store_abort(txn);
	store_close(rig.store);
	rig.store = NULL;
	after = contents(&rig, &after_len);
	cr_expect(before_len == after_len && memcmp(before, after, before_len) == 0);
	free(before);
	free(after);
	rig_close(&rig);
}
