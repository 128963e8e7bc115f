/* SPDX-License-Identifier: Apache-2.0
 *
 * What only the LMDB store can show: failing system calls at a commit (T17), a full map, a full
 * disk, disk allocated ahead, snapshots and threads. */
#include <criterion/criterion.h>
#include <errno.h>
#include <lmdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/util/clock.h"
#include "tests/unit/lmdb_rig.h"

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

/* A full disk shows as ENOSPC, or as EIO when LMDB met a short write: in both cases the store
 * continues when there is room again. */
Test(store_lmdb, a_full_disk_is_no_space_and_the_store_continues)
{
	static const int errors[] = {ENOSPC, EDQUOT, EIO};
	struct rig rig = rig_open();

	cr_assert_eq(try_put(rig.store, "a", "old"), 0);
	for (size_t i = 0; i < 3; i++) {
		plan.error = errors[i];
		plan.write_at = 1;
		plan.disk_full = errors[i] == EIO;
		cr_expect_eq(try_put(rig.store, "a", "new"), SLUICE_E_NO_SPACE, "%s",
			     strerror(errors[i]));
		plan.disk_full = false;
		expect_both(rig.store, "a", "old");
		cr_expect_eq(try_put(rig.store, "b", strerror(errors[i])), 0);
		expect_both(rig.store, "b", strerror(errors[i]));
	}
	reopen(&rig);
	expect_both(rig.store, "a", "old");
	rig_close(&rig);
}

static const int ends[] = {ENOSPC, EDQUOT, EFBIG};

/* LMDB returns EIO for a write that was cut short. The disk has room: the user's quota or the limit
 * of file sizes is reached. */
Test(store_lmdb, a_short_write_is_no_space_whatever_cut_it)
{
	struct rig rig = rig_open();

	cr_assert_eq(try_put(rig.store, "a", "old"), 0);
	for (size_t i = 0; i < 6; i++) {
		int error = ends[i % 3];

		plan.error = error;
		plan.cannot_allocate = i >= 3;
		plan.short_at = 1;
		cr_expect_eq(try_put(rig.store, "a", "new"), SLUICE_E_NO_SPACE, "%s",
			     strerror(error));
		cr_expect_not_null(strstr(store_last_error(), strerror(error)), "%s: %s",
				   strerror(error), store_last_error());
		cr_assert_eq(plan.short_at, 0, "a write was cut short");
		expect_both(rig.store, "a", "old");
		plan_room();
		cr_expect_eq(try_put(rig.store, "b", strerror(error)), 0, "%s", store_last_error());
		expect_both(rig.store, "b", strerror(error));
	}
	reopen(&rig);
	expect_both(rig.store, "a", "old");
	rig_close(&rig);
}

/* A write that was cut short by a failing disk, and one that was cut for an unknown reason. */
Test(store_lmdb, a_short_write_on_a_disk_with_room_is_io)
{
	static const int errors[] = {EIO, 0};

	for (size_t i = 0; i < 4; i++) {
		struct rig rig = rig_open();

		cr_assert_eq(try_put(rig.store, "a", "old"), 0);
		plan.error = errors[i % 2];
		plan.cannot_allocate = i >= 2;
		plan.short_at = 1;
		cr_expect_eq(try_put(rig.store, "a", "new"), SLUICE_E_IO, "%zu: %s", i,
			     store_last_error());
		plan_room();
		reopen(&rig);
		expect_both(rig.store, "a", "old");
		rig_close(&rig);
	}
}

static void limit_files(rlim_t bytes)
{
	struct rlimit limit;

	(void)signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Set while the process runs, so that the map's size does not respect it. */
Test(store_lmdb, a_limit_of_file_sizes_that_is_set_later_is_no_space)
{
	static char value[300000];
	struct rig rig = rig_open();
	struct store_facts facts;
	int rc = 0;

	cr_assert_eq(try_put(rig.store, "a", "old"), 0);
	store_facts_get(rig.store, &facts);
	/* Inside a page: the write that reaches it is cut short. */
	limit_files(facts.file_bytes + 1000100);
	for (int i = 0; i < 10 && rc == 0; i++) {
		struct store_txn *txn = begin(rig.store);
		char key[16];

		snprintf(key, sizeof(key), "k%d", i);
		cr_assert_eq(store_put(txn, STORE_ITEM, text(key),
				       (struct sluice_slice){value, sizeof(value)}),
			     0);
		rc = store_commit(txn);
	}
	cr_expect_eq(rc, SLUICE_E_NO_SPACE);
	cr_expect_not_null(strstr(store_last_error(), "ulimit -f"), "%s", store_last_error());
	expect_both(rig.store, "a", "old");
	limit_files(RLIM_INFINITY);
	cr_expect_eq(try_put(rig.store, "a", "new"), 0);
	expect_both(rig.store, "a", "new");
	rig_close(&rig);
}

/* After a failed write of a meta page it is unknown whether the page is on the disk, whatever the
 * error is; so the store must not continue. */
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
	cr_expect_eq(store_begin(rig.store, &txn), SLUICE_E_IO, "no commit succeeds after that");
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
			cr_expect_eq(store_put(txn, STORE_ITEM, text("x"), text("y")),
				     SLUICE_E_NO_SPACE, "the transaction is half-done");
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
	/* Freed pages can be used from the next commit but one. */
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
	cr_expect_eq(blocks_of(&rig), before, "a refusal allocates nothing");
	cr_expect_lt(room.ahead_bytes, 32u << 20);
	plan.disk_full = false;
	rc = store_reserve_disk(rig.store, 32u << 20, &room);
	if (rc == SLUICE_E_UNSUPPORTED) {
		cr_expect_gt(room.ahead_bytes, 0, "the current free space of the disk");
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
	cr_expect_eq(store_reserve_disk(rig.store, 16u << 20, &room), 0,
		     "less than is allocated already");
	cr_expect_eq(blocks_of(&rig), before);
	reopen(&rig);
	cr_expect_eq(store_reserve_disk(rig.store, 32u << 20, &room), 0,
		     "the allocation of an earlier process is used on a full disk: %s",
		     store_last_error());
	cr_expect_eq(blocks_of(&rig), before);
	plan.disk_full = false;
	cr_expect_eq(try_put(rig.store, "a", "1"), 0);
	expect_both(rig.store, "a", "1");
	rig_close(&rig);
}

/* The map bounds the room as the disk does, and free pages inside it are reported only at that
 * bound. */
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

static int put_large(struct store *store, int from, int count)
{
	static const char value[2000] = "";
	struct store_txn *txn = begin(store);
	char key[16];
	int rc = 0;

	for (int i = from; rc == 0 && i < from + count; i++) {
		snprintf(key, sizeof(key), "k%05d", i);
		rc = store_put(txn, STORE_ITEM, text(key),
			       (struct sluice_slice){value, sizeof(value)});
	}
	if (rc == 0)
		return store_commit(txn);
	store_abort(txn);
	return rc;
}

/* The free list of a large store is long, and it is read for each batch while little room is left
 * ahead. */
Test(store_lmdb, free_pages_are_counted_until_there_are_enough)
{
	struct store_options small = {.map_bytes = 4u << 20, .create = true};
	struct rig rig = rig_dir();
	struct store_room all, enough;
	int count = 0;

	cr_assert_eq(store_open_lmdb(rig.dir, &small, &rig.store, NULL), 0);
	while (put_large(rig.store, count, 20) == 0)
		count += 20;
	cr_assert_gt(count, 900);
	for (int i = 0; i < 900; i += 4) {
		struct store_txn *txn = begin(rig.store);
		char key[16];

		for (int k = i; k < i + 4; k++) {
			snprintf(key, sizeof(key), "k%05d", k);
			cr_assert_eq(store_del(txn, STORE_ITEM, text(key)), 0, "%s",
				     store_last_error());
		}
		cr_assert_eq(store_commit(txn), 0, "%s", store_last_error());
	}
	cr_assert_neq(store_reserve_disk(rig.store, small.map_bytes, &all), 0);
	cr_assert_gt(all.inside_bytes, 5 * (all.ahead_bytes + 4096), "%llu ahead, %llu inside",
		     (unsigned long long)all.ahead_bytes, (unsigned long long)all.inside_bytes);
	cr_assert_neq(store_reserve_disk(rig.store, all.ahead_bytes + 4096, &enough), 0);
	cr_expect_geq(enough.inside_bytes, 4 * (all.ahead_bytes + 4096));
	cr_expect_lt(enough.inside_bytes, all.inside_bytes);
	rig_close(&rig);
}

/* Facts are read again when they are older than half a second. */
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

Test(store_lmdb, facts_have_use_readers_and_commits)
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
	cr_expect_geq(pinned.used_bytes, full.used_bytes, "pages that a snapshot uses are in use");
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
			/* An aborted write, which another thread's commit must not store. */
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

/* In every snapshot both records are of one commit, also when read twice. */
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

		cr_assert_eq(store_put(txn, STORE_NAME, text("first"),
				       (struct sluice_slice){&i, 4}),
			     0);
		cr_assert_eq(store_put(txn, STORE_HOT, text("second"),
				       (struct sluice_slice){&i, 4}),
			     0);
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

/* ---- a reader that commits overtake while it begins ---- */

/* Of the test's thread: other tests begin readers on several. */
static _Thread_local struct {
	struct store *store; /* commits when a reader begins; NULL: nothing does */
	int commits;
	unsigned renewed;
} overtake;

int __real_mdb_txn_renew(MDB_txn *txn);
int __wrap_mdb_txn_renew(MDB_txn *txn);

int __wrap_mdb_txn_renew(MDB_txn *txn)
{
	struct store *store = overtake.store;
	int rc = __real_mdb_txn_renew(txn);

	overtake.renewed++;
	overtake.store = NULL; /* once */
	for (int i = 0; store != NULL && i < overtake.commits; i++)
		cr_assert_eq(try_put(store, "a", i % 2 == 0 ? "even" : "odd"), 0);
	return rc;
}

/* One commit leaves the place of its root alone; after two, LMDB may have copied the newer one. */
Test(store_lmdb, a_reader_that_two_commits_overtook_begins_again)
{
	struct rig rig = rig_open();

	cr_assert_eq(try_put(rig.store, "a", "old"), 0);
	for (int commits = 0; commits <= 3; commits++) {
		struct store_txn *txn = NULL;
		const char *expected = "old";
		struct sluice_slice value;

		cr_assert_eq(try_put(rig.store, "a", "old"), 0);
		expect_both(rig.store, "a", "old"); /* its reader goes to the pool */
		overtake.store = rig.store;
		overtake.commits = commits;
		overtake.renewed = 0;
		cr_assert_eq(store_begin_read(rig.store, &txn), 0);
		if (commits >= 2)
			expected = commits == 2 ? "odd" : "even";
		cr_assert_eq(store_get(txn, STORE_NAME, text("a"), &value), 0);
		cr_expect(value.len == strlen(expected) &&
				  memcmp(value.data, expected, value.len) == 0,
			  "after %d commits it shows %.*s", commits, (int)value.len,
			  (const char *)value.data);
		cr_expect_eq(overtake.renewed, commits < 2 ? 1 : 2);
		store_abort(txn);
	}
	rig_close(&rig);
}
