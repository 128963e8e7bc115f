/* SPDX-License-Identifier: Apache-2.0
 *
 * The LMDB store's directory: descriptors that children inherit, and stores that must be refused
 * and not changed (T3, T14). */
#include <criterion/criterion.h>
#include <fcntl.h>
#include <lmdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/lmdb_rig.h"

Test(store_lmdb_open, children_inherit_no_descriptor_of_the_store)
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
	cr_expect(before_len == after_len && memcmp(before, after, before_len) == 0,
		  "no byte is written");
	free(before);
	free(after);
}

/* Without the store: deletes a table, or a record of meta. */
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

/* T14. A table that this version has and the newer one has not must not be created in it. */
Test(store_lmdb_open, a_newer_schema_is_refused_and_not_a_byte_is_written)
{
	static const uint8_t version[4] = {0, 0, 0, STORE_SCHEMA_VERSION + 1};
	struct rig rig = rig_open();
	struct store_txn *txn = begin(rig.store);

	cr_assert_eq(store_put(txn, STORE_META, text("store_schema"),
			       (struct sluice_slice){version, 4}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
	store_close(rig.store);
	lose(rig.dir, "quar", NULL);
	refused_and_left_alone(&rig, SLUICE_E_SCHEMA, "schema version 2");
	rig_close(&rig);
}

/* T3: a file that cannot be read does not count as a new store. */
Test(store_lmdb_open, a_lost_schema_record_is_damage)
{
	struct rig rig = rig_open();

	store_close(rig.store);
	lose(rig.dir, NULL, "store_schema");
	refused_and_left_alone(&rig, SLUICE_E_CORRUPT, "schema");
	rig_close(&rig);
}

Test(store_lmdb_open, a_file_that_is_no_database_is_damage)
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

Test(store_lmdb_open, no_store_is_made_unless_asked)
{
	static const struct store_options asks[] = {{.map_bytes = 64u << 20},
						    {.map_bytes = 64u << 20,
						     .read_only = true,
						     .create = true}};
	struct rig rig = rig_dir();
	const char *why = "";
	char path[96];

	for (size_t i = 0; i < 2; i++) {
		cr_expect_eq(store_open_lmdb(rig.dir, &asks[i], &rig.store, &why),
			     SLUICE_E_NOT_FOUND);
		cr_expect_not_null(strstr(why, "no store"));
		cr_expect_eq(files_in(rig.dir, false), 0);
	}
	snprintf(path, sizeof(path), "%s/none", rig.dir);
	cr_expect_eq(store_open_lmdb(path, &asks[0], &rig.store, &why), SLUICE_E_NOT_FOUND);
	cr_expect_neq(access(path, F_OK), 0);
	rig_close(&rig);
}

Test(store_lmdb_open, a_new_directory_is_its_owners_alone)
{
	struct rig rig = rig_dir();
	struct stat st;

	cr_assert_eq(rmdir(rig.dir), 0);
	reopen(&rig);
	cr_assert_eq(stat(rig.dir, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0700);
	rig_close(&rig);
}

Test(store_lmdb_open, network_file_systems_are_refused)
{
	static const uint32_t refused[] = {0x6969,     0x517b,	   0xff534d42,
					   0xfe534d42, 0x5346414f, 0x00c36400};
	static const uint32_t accepted[] = {0xef53 /* ext4 */, 0x01021994 /* tmpfs */,
					    0x01021997 /* 9p */, 0x794c7630 /* overlay */};
	struct rig rig = rig_dir();
	const char *why = "";

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		plan.fs_type = refused[i];
		cr_expect_eq(store_open_lmdb(rig.dir, &options, &rig.store, &why),
			     SLUICE_E_UNSUPPORTED, "%#x", refused[i]);
		cr_expect_not_null(strstr(why, "network"));
		cr_expect_eq(files_in(rig.dir, false), 0);
	}
	for (size_t i = 0; i < sizeof(accepted) / sizeof(accepted[0]); i++) {
		plan.fs_type = accepted[i];
		reopen(&rig);
	}
	rig_close(&rig);
}

Test(store_lmdb_open, a_read_only_store_reads_and_does_not_write)
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

static void limit_files(rlim_t bytes)
{
	struct rlimit limit;

	(void)signal(SIGXFSZ, SIG_IGN);
	cr_assert_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* The limit of file sizes bounds the map: at this limit the store behaves as with a full map, and a
 * start succeeds. */
Test(store_lmdb_open, the_map_ends_at_the_limit_of_file_sizes)
{
	static char value[10000];
	struct rig rig = rig_dir();
	struct store_facts facts;
	char key[16];
	int rc = 0, count = 0;

	limit_files((3u << 20) + 12345);
	reopen(&rig);
	store_facts_get(rig.store, &facts);
	cr_expect_eq(facts.map_bytes, 3u << 20);
	for (; rc == 0; count++) {
		struct store_txn *txn = begin(rig.store);

		snprintf(key, sizeof(key), "k%05d", count);
		rc = store_put(txn, STORE_ITEM, text(key),
			       (struct sluice_slice){value, sizeof(value)});
		if (rc == 0)
			rc = store_commit(txn);
		else
			store_abort(txn);
	}
	cr_expect_eq(rc, SLUICE_E_NO_SPACE);
	cr_expect_gt(count, 200);
	reopen(&rig);
	limit_files(RLIM_INFINITY);
	rig_close(&rig);
}

Test(store_lmdb_open, a_limit_of_file_sizes_below_what_is_in_use_is_refused_with_its_cause)
{
	static char value[100000];
	struct rig rig = rig_open();
	struct store_txn *txn = begin(rig.store);
	const char *why = "";

	cr_assert_eq(store_put(txn, STORE_ITEM, text("k"),
			       (struct sluice_slice){value, sizeof(value)}),
		     0);
	cr_assert_eq(store_commit(txn), 0);
	store_close(rig.store);
	rig.store = NULL;
	limit_files(65536);
	cr_expect_eq(store_open_lmdb(rig.dir, &options, &rig.store, &why), SLUICE_E_NO_SPACE);
	cr_expect_not_null(strstr(why, "ulimit -f"), "%s", why);
	cr_expect_not_null(strstr(why, "65536"), "%s", why);
	limit_files(RLIM_INFINITY);
	reopen(&rig);
	rig_close(&rig);
}
