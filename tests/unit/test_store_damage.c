/* SPDX-License-Identifier: Apache-2.0
 *
 * T2, T3: a damaged data.mdb. Bits of both meta pages (with SLUICE_TEST_LONG=1 each), each root in
 * turn on each other page, each length of the file: the store is refused with the file's name and
 * the file is unchanged, or all of it is served. As important: no store that we wrote is ever
 * refused.
 */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/store/lmdb/lmdb_file.h"
#include "broker/store/store.h"
#include "broker/util/crc.h"

enum { PAGE = 4096, HEAD = 16, META_BYTES = 136, RECORDS = 300, FILE_MAX = 8 << 20 };
/* Of a meta page, from its first byte. */
enum {
	AT_FREE_ROOT = HEAD + 24 + 40,
	AT_MAIN_ROOT = HEAD + 24 + 48 + 40,
	AT_LAST_PAGE = HEAD + 120,
	AT_COMMIT = HEAD + 128
};
/* Of a table's description in the main tree. */
enum { TREE_BYTES = 48, TREE_ROOT = 40 };

static const struct store_options options = {.map_bytes = 64u << 20, .create = true};
static const struct store_options read_only = {.map_bytes = 64u << 20, .read_only = true};

static uint64_t seed = 88172645463325252u;

static uint32_t random_below(uint32_t limit)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 33) % limit;
}

struct rig {
	char dir[64], path[96];
	uint8_t *whole, *bytes; /* data.mdb as it should be, and to be damaged */
	size_t len;
	uint32_t digest;
	int newest; /* meta page */
};

/* With SLUICE_TEST_LONG: all bits, and more pages and lengths. Opening a store is slow. */
static bool is_long(void)
{
	const char *value = getenv("SLUICE_TEST_LONG");

	return value != NULL && value[0] != 0 && strcmp(value, "0") != 0;
}

static struct sluice_slice slice(const char *value)
{
	return (struct sluice_slice){value, strlen(value)};
}

static void put_records(struct store *store, int from, int count)
{
	static const char filling[6000] = "";
	struct store_txn *txn = NULL;
	char key[32];

	cr_assert_eq(store_begin(store, &txn), 0);
	for (int i = from; i < from + count; i++) {
		(void)snprintf(key, sizeof(key), "key-%06d", i);
		cr_assert_eq(store_put(txn, STORE_ITEM, slice(key),
				       (struct sluice_slice){filling, i % 7 == 0 ? 6000 : 90}),
			     0);
		cr_assert_eq(store_put(txn, STORE_HOT, slice(key), slice("hot")), 0);
		cr_assert_eq(store_put(txn, STORE_NAME, slice(key), slice("name")), 0);
	}
	cr_assert_eq(store_commit(txn), 0);
}

static void del_records(struct store *store, int from, int count)
{
	struct store_txn *txn = NULL;
	char key[32];

	cr_assert_eq(store_begin(store, &txn), 0);
	for (int i = from; i < from + count; i++) {
		(void)snprintf(key, sizeof(key), "key-%06d", i);
		cr_assert_eq(store_del(txn, STORE_ITEM, slice(key)), 0);
	}
	cr_assert_eq(store_commit(txn), 0);
}

static int add_to_digest(void *user, enum store_table table, struct sluice_slice key,
			 struct sluice_slice value, int code)
{
	uint32_t *digest = user;

	if (code != 0)
		return code;
	*digest = crc32c_extend(*digest, &table, sizeof(table));
	*digest = crc32c_extend(*digest, key.data, key.len);
	*digest = crc32c_extend(*digest, value.data, value.len);
	return 0;
}

/* Opens the store and reads all of it. */
static int read_all(const char *dir, uint32_t *ret_digest, const char **ret_why)
{
	struct store *store = NULL;
	struct store_txn *txn = NULL;
	int rc = store_open_lmdb(dir, &read_only, &store, ret_why);

	*ret_digest = 0;
	if (rc != 0)
		return rc;
	cr_assert_eq(store_begin_read(store, &txn), 0);
	rc = store_walk(txn, add_to_digest, ret_digest);
	store_abort(txn);
	store_close(store);
	return rc;
}

static void file_write(const struct rig *rig, const uint8_t *bytes, size_t len)
{
	int fd = open(rig->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, bytes, len), (ssize_t)len);
	(void)close(fd);
}

static size_t file_read(const struct rig *rig, uint8_t *bytes)
{
	int fd = open(rig->path, O_RDONLY | O_CLOEXEC);
	ssize_t len;

	cr_assert_geq(fd, 0);
	len = read(fd, bytes, FILE_MAX);
	(void)close(fd);
	cr_assert(len >= 0 && len < FILE_MAX);
	return (size_t)len;
}

static uint64_t number_at(const uint8_t *bytes, size_t at)
{
	uint64_t number;

	memcpy(&number, bytes + at, sizeof(number));
	return number;
}

static struct rig rig_open(void)
{
	struct rig rig = {.dir = "/tmp/sluice-damage-XXXXXX",
			  .whole = malloc(FILE_MAX),
			  .bytes = malloc(FILE_MAX)};
	struct store *store = NULL;
	const char *why = "";

	cr_assert(rig.whole != NULL && rig.bytes != NULL);
	cr_assert_not_null(mkdtemp(rig.dir));
	(void)snprintf(rig.path, sizeof(rig.path), "%s/data.mdb", rig.dir);
	cr_assert_eq(store_open_lmdb(rig.dir, &options, &store, &why), 0, "%s", why);
	put_records(store, 0, RECORDS);
	del_records(store, 20, 150);
	for (int i = 0; i < 5; i++)
		put_records(store, RECORDS + i, 1);
	store_close(store);
	rig.len = file_read(&rig, rig.whole);
	rig.newest = number_at(rig.whole, PAGE + AT_COMMIT) > number_at(rig.whole, AT_COMMIT);
	cr_assert_eq(read_all(rig.dir, &rig.digest, &why), 0, "%s", why);
	return rig;
}

static void rig_close(struct rig *rig)
{
	static const char *const files[] = {"data.mdb", "lock.mdb", "sluice.lock"};
	char path[96];

	for (size_t i = 0; i < 3; i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", rig->dir, files[i]);
		(void)unlink(path);
	}
	cr_assert_eq(rmdir(rig->dir), 0);
	free(rig->whole);
	free(rig->bytes);
}

/* Opens and reads a store whose file is the first len bytes of rig->bytes; returns CORRUPT or 0. */
static int damaged(struct rig *rig, size_t len, const char *what)
{
	uint8_t *after = malloc(FILE_MAX);
	const char *why = "";
	uint32_t digest;
	int rc;

	cr_assert_not_null(after);
	file_write(rig, rig->bytes, len);
	rc = read_all(rig->dir, &digest, &why);
	cr_expect(rc == SLUICE_E_CORRUPT || (rc == 0 && digest == rig->digest), "%s: %d, %s", what,
		  rc, why);
	cr_expect(rc == 0 || strstr(store_last_error(), "database file") != NULL ||
			  strstr(store_last_error(), "table ") != NULL,
		  "%s: it is named: %s", what, store_last_error());
	cr_expect(file_read(rig, after) == len && memcmp(rig->bytes, after, len) == 0,
		  "%s: the file is unchanged", what);
	free(after);
	return rc;
}

Test(store_damage, a_flipped_bit_of_a_meta_page_is_named_or_harmless)
{
	struct rig rig = rig_open();
	int refused[2] = {0, 0}, served[2] = {0, 0};
	char what[64];

	for (int meta = 0; meta < 2; meta++) {
		for (size_t bit = 0; bit < (size_t)(HEAD + META_BYTES) * 8;
		     bit += is_long() ? 1 : 3) {
			size_t at = (size_t)meta * PAGE + bit / 8;

			memcpy(rig.bytes, rig.whole, rig.len);
			rig.bytes[at] ^= (uint8_t)(1u << bit % 8);
			(void)snprintf(what, sizeof(what), "bit %zu of meta page %d", bit, meta);
			if (damaged(&rig, rig.len, what) == 0)
				served[meta]++;
			else
				refused[meta]++;
		}
	}
	/* The bits without effect are in counters, in an address and in the older commit's roots,
	 * which are not used. */
	(void)fprintf(stderr,
		      "newest meta page: %d flips refused, %d served whole; the older: %d and %d\n",
		      refused[rig.newest], served[rig.newest], refused[!rig.newest],
		      served[!rig.newest]);
	cr_expect_gt(refused[rig.newest], 100);
	cr_expect_gt(refused[!rig.newest], 50);
	rig_close(&rig);
}

/* A stale root would serve an older commit, or let the newest one's pages be written over. */
Test(store_damage, a_root_on_any_other_page_is_named)
{
	static const size_t roots[] = {AT_MAIN_ROOT, AT_FREE_ROOT};
	struct rig rig = rig_open();
	size_t meta = (size_t)rig.newest * PAGE;
	uint64_t last = number_at(rig.whole, meta + AT_LAST_PAGE);
	char what[64];

	cr_assert_gt(last, 20);
	for (size_t i = 0; i < 2; i++) {
		for (uint64_t page = 0; page <= last + 2; page++) {
			if (page == number_at(rig.whole, meta + roots[i]))
				continue;
			memcpy(rig.bytes, rig.whole, rig.len);
			memcpy(rig.bytes + meta + roots[i], &page, sizeof(page));
			(void)snprintf(what, sizeof(what), "root %zu on page %llu", i,
				       (unsigned long long)page);
			cr_expect_eq(damaged(&rig, rig.len, what), SLUICE_E_CORRUPT, "%s", what);
		}
	}
	rig_close(&rig);
}

/* The offset of a table's description in the main tree: after its name. */
static size_t tree_of(const struct rig *rig, const char *name)
{
	uint64_t root = number_at(rig->whole, (size_t)rig->newest * PAGE + AT_MAIN_ROOT);
	size_t len = strlen(name);

	for (size_t at = root * PAGE + HEAD + 8; at <= (root + 1) * PAGE - len - TREE_BYTES; at++) {
		uint16_t key_bytes;

		memcpy(&key_bytes, rig->whole + at - 2, sizeof(key_bytes));
		if (key_bytes == len && memcmp(rig->whole + at, name, len) == 0)
			return at + len;
	}
	cr_assert_fail("table %s is in the main tree", name);
	return 0;
}

Test(store_damage, a_tables_root_on_any_other_page_is_named)
{
	static const char *const tables[] = {"item", "hot", "meta", "name"};
	struct rig rig = rig_open();
	uint64_t last = number_at(rig.whole, (size_t)rig.newest * PAGE + AT_LAST_PAGE);
	char what[64];

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
		size_t at = tree_of(&rig, tables[i]) + TREE_ROOT;

		for (uint64_t page = 0; page <= last + 2; page++) {
			if (page == number_at(rig.whole, at))
				continue;
			memcpy(rig.bytes, rig.whole, rig.len);
			memcpy(rig.bytes + at, &page, sizeof(page));
			(void)snprintf(what, sizeof(what), "table %s on page %llu", tables[i],
				       (unsigned long long)page);
			cr_expect_eq(damaged(&rig, rig.len, what), SLUICE_E_CORRUPT, "%s", what);
		}
	}
	rig_close(&rig);
}

Test(store_damage, a_file_that_was_cut_off_is_named)
{
	struct rig rig = rig_open();
	char what[64];
	int refused = 0, tried = 0;

	memcpy(rig.bytes, rig.whole, rig.len);
	for (size_t len = 0; len < rig.len; len += PAGE / 4) {
		(void)snprintf(what, sizeof(what), "%zu of %zu bytes", len, rig.len);
		refused += damaged(&rig, len, what) != 0;
		tried++;
	}
	(void)fprintf(stderr, "%d lengths below %zu tried, %d refused, the others served whole\n",
		      tried, rig.len, refused);
	cr_expect_gt(refused, tried / 2);
	rig_close(&rig);
}

Test(store_damage, what_is_no_file_is_named)
{
	struct rig rig = rig_open();
	struct store *store = NULL;
	const char *why = "";

	cr_assert_eq(unlink(rig.path), 0);
	cr_assert_eq(mkdir(rig.path, 0700), 0);
	cr_expect_eq(store_open_lmdb(rig.dir, &options, &store, &why), SLUICE_E_IO);
	cr_expect_not_null(strstr(why, "is a directory"), "%s", why);
	cr_assert_eq(rmdir(rig.path), 0);
	cr_assert_eq(mkfifo(rig.path, 0600), 0);
	cr_expect_eq(store_open_lmdb(rig.dir, &read_only, &store, &why), SLUICE_E_IO);
	cr_expect_not_null(strstr(why, "special file"), "%s", why);
	cr_assert_eq(unlink(rig.path), 0);
	if (geteuid() != 0) {
		file_write(&rig, rig.whole, rig.len);
		cr_assert_eq(chmod(rig.path, 0), 0);
		cr_expect_eq(store_open_lmdb(rig.dir, &options, &store, &why), SLUICE_E_IO);
		cr_expect_not_null(strstr(why, "ermission"), "%s", why);
	}
	rig_close(&rig);
}

/* The file of an interrupted creation is written again, and never has the store's name. */
Test(store_damage, an_interrupted_creation_does_not_prevent_the_next)
{
	struct rig rig = rig_open();
	struct store *store = NULL;
	const char *why = "";
	char path[112];

	cr_assert_eq(unlink(rig.path), 0);
	(void)snprintf(path, sizeof(path), "%s.new", rig.path);
	for (size_t len = 0; len < 3 * PAGE; len += PAGE / 2) {
		int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

		cr_assert_geq(fd, 0);
		cr_assert_eq(write(fd, rig.whole, len), (ssize_t)len);
		(void)close(fd);
		cr_assert_eq(store_open_lmdb(rig.dir, &options, &store, &why), 0, "%s", why);
		store_close(store);
		cr_expect_neq(access(path, F_OK), 0);
		cr_assert_eq(unlink(rig.path), 0);
	}
	rig_close(&rig);
}

/* A store that is opened as for --dump, with a flipped bit on any page. Either the damage is named,
 * or all that is served is unchanged. The same at a start that checks each page, except damage that
 * a checksum finds when the record is read. */
Test(store_damage, a_flipped_bit_anywhere_is_named_or_harmless)
{
	struct rig rig = rig_open();
	struct store_options check = {.map_bytes = 64u << 20, .check_bytes = UINT64_MAX};
	int refused = 0, tried = 0, flips = is_long() ? 100 : 5;
	char what[64];

	/* Each page's head and its first pointers, then some other bytes. */
	for (size_t page = 2; page < rig.len / PAGE; page++) {
		for (int i = 0; i < flips; i++) {
			size_t at = page * PAGE +
				    (i % 3 != 0 ? (size_t)random_below(40) : random_below(PAGE));
			struct store *store = NULL;
			const char *why = "";
			int rc;

			memcpy(rig.bytes, rig.whole, rig.len);
			rig.bytes[at] ^= (uint8_t)(1u << random_below(8));
			(void)snprintf(what, sizeof(what), "byte %zu of page %zu", at % PAGE, page);
			refused += damaged(&rig, rig.len, what) != 0;
			tried++;
			if (i > 0)
				continue;
			rc = store_open_lmdb(rig.dir, &check, &store, &why);
			cr_expect(rc == 0 || rc == SLUICE_E_CORRUPT, "%s: %s", what, why);
			store_close(store);
		}
	}
	(void)fprintf(stderr, "%d flips tried, %d refused, the others served whole\n", tried,
		      refused);
	cr_expect_gt(refused, tried / 5);
	rig_close(&rig);
}

/* ---- undamaged stores ---- */

static void random_commit(struct store *store)
{
	static const enum store_table tables[] = {STORE_ITEM, STORE_NAME, STORE_HOT, STORE_LOG,
						  STORE_BLOB};
	static const char filling[100000] = "";
	struct store_txn *txn = NULL;
	uint32_t count = 1 + random_below(random_below(4) == 0 ? 400 : 6);
	bool shrinks = random_below(3) == 0;

	cr_assert_eq(store_begin(store, &txn), 0);
	for (uint32_t i = 0; i < count; i++) {
		enum store_table table = tables[random_below(5)];
		char key[200];
		int rc;

		(void)snprintf(key, sizeof(key), "%0*u", 6 + (int)random_below(2) * 90,
			       random_below(3000));
		if (shrinks || random_below(3) == 0) {
			rc = store_del(txn, table, slice(key));
			cr_assert(rc == 0 || rc == SLUICE_E_NOT_FOUND);
		} else {
			size_t len = random_below(40) == 0 ? random_below(sizeof(filling))
							   : random_below(1500);

			cr_assert_eq(store_put(txn, table, slice(key),
					       (struct sluice_slice){filling, len}),
				     0);
		}
	}
	/* Pages that are allocated and freed at once are never written, and may be the last
	 * ones. */
	if (random_below(8) == 0) {
		cr_assert_eq(store_put(txn, STORE_BLOB, slice("passing"),
				       (struct sluice_slice){filling, sizeof(filling)}),
			     0);
		cr_assert_eq(store_del(txn, STORE_BLOB, slice("passing")), 0);
	}
	/* Some tables become empty sometimes. */
	if (random_below(200) == 0) {
		struct store_scan *scan = NULL;
		struct sluice_slice key, value;

		cr_assert_eq(store_scan_begin(txn, STORE_NAME, (struct sluice_slice){"", 0}, &scan),
			     0);
		while (store_scan_next(scan, &key, &value) == 0)
			cr_assert_eq(store_scan_del(scan), 0);
		store_scan_end(scan);
	}
	if (random_below(20) == 0)
		store_abort(txn);
	else
		cr_assert_eq(store_commit(txn), 0);
}

Test(store_damage, no_store_that_we_wrote_is_refused, .timeout = 120)
{
	const char *rounds_text = getenv("SLUICE_STORE_ROUNDS");
	struct store_options wide = {.map_bytes = 1u << 30, .create = true};
	struct rig rig = rig_open();
	struct store_txn *snapshot = NULL;
	struct store *store = NULL;
	const char *why = "";
	int shorter = 0, rounds = rounds_text != NULL ? atoi(rounds_text) : 400;

	cr_assert_eq(unlink(rig.path), 0);
	for (int i = 0; i < rounds; i++) {
		struct stat st;
		uint8_t metas[2 * PAGE];
		size_t newest;
		int fd;

		if (store == NULL)
			cr_assert_eq(store_open_lmdb(rig.dir, &wide, &store, &why), 0,
				     "commit %d: %s", i, why);
		random_commit(store);
		cr_assert_eq(lmdb_file_check(rig.path), 0, "commit %d: %s", i, store_last_error());
		for (int k = 0; i % 10 == 0 && k < STORE_TABLE_COUNT; k++)
			cr_assert_eq(lmdb_file_check_table(rig.path,
							   store_table_name((enum store_table)k)),
				     0, "commit %d, table %s: %s", i,
				     store_table_name((enum store_table)k), store_last_error());
		/* How often the check of the length has to read the free list. */
		fd = open(rig.path, O_RDONLY | O_CLOEXEC);
		cr_assert_eq(read(fd, metas, sizeof(metas)), (ssize_t)sizeof(metas));
		cr_assert_eq(fstat(fd, &st), 0);
		(void)close(fd);
		newest =
			number_at(metas, PAGE + AT_COMMIT) > number_at(metas, AT_COMMIT) ? PAGE : 0;
		shorter += number_at(metas, newest + AT_LAST_PAGE) >= (uint64_t)st.st_size / PAGE;
		if (random_below(40) == 0) {
			store_abort(snapshot);
			snapshot = NULL;
			if (random_below(2) == 0)
				cr_assert_eq(store_begin_read(store, &snapshot), 0);
		}
		if (random_below(100) == 0) {
			store_abort(snapshot);
			snapshot = NULL;
			store_close(store);
			store = NULL;
		}
	}
	cr_expect_gt(shorter, 0, "the case that the check must accept has occurred");
	(void)fprintf(stderr,
		      "%d commits, of which %d left a file shorter than its page count says\n",
		      rounds, shorter);
	store_abort(snapshot);
	store_close(store);
	rig_close(&rig);
}
