/* SPDX-License-Identifier: Apache-2.0
 *
 * Of the LMDB implementation: opening a store. A new store is created completely, with tables and
 * schema record, under another name and then renamed to data.mdb; so a data.mdb without them is
 * damaged, never new.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/store/lmdb/lmdb_dir.h"
#include "broker/store/lmdb/lmdb_file.h"
#include "broker/store/lmdb/lmdb_impl.h"
#include "broker/util/bytes.h"

static const struct sluice_slice schema_key = {"store_schema", 12};

/* Opens the tables from first to last (exclusive) without a write. CORRUPT when one does not
 * exist. */
static int tables_open(struct lmdb *lmdb, int first, int last, const char **ret_why)
{
	MDB_txn *txn = NULL;
	int rc = mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &txn);

	for (int i = first; rc == 0 && i < last; i++)
		rc = mdb_dbi_open(txn, store_table_name((enum store_table)i), 0, &lmdb->dbis[i]);
	if (rc == 0)
		rc = mdb_txn_commit(txn);
	else if (txn != NULL)
		mdb_txn_abort(txn);
	if (rc == MDB_NOTFOUND) {
		*ret_why = "the database file has no table meta, or lacks another one that a "
			   "reader needs";
		return SLUICE_E_CORRUPT;
	}
	return rc != 0 ? lmdb_step_failed(lmdb, rc, "opening the tables of data.mdb", ret_why) : 0;
}

/* The commit that creates the tables writes the schema version: one without the other is damage. */
static int schema_check(struct store *store, const char **ret_why)
{
	struct sluice_slice value;
	struct store_txn *txn = NULL;
	int rc = store_begin_read(store, &txn);

	if (rc == 0)
		rc = store_get(txn, STORE_META, schema_key, &value);
	if (rc == SLUICE_E_NOT_FOUND)
		rc = store_fail(SLUICE_E_CORRUPT,
				"the record of the schema's version is missing from table meta");
	else if (rc == 0 && (value.len != 4 || get_be32(value.data) != STORE_SCHEMA_VERSION))
		rc = store_fail(SLUICE_E_SCHEMA,
				"the store has schema version %" PRIu32
				" and this program knows %d; see broker/store/README.md",
				value.len == 4 ? get_be32(value.data) : 0, STORE_SCHEMA_VERSION);
	store_abort(txn);
	if (rc != 0)
		*ret_why = store_last_error();
	return rc;
}

/* Creates missing tables; in a new store all of them and the schema version. One commit, or
 * none. */
static int tables_create(struct lmdb *lmdb, struct store *store, bool fresh, const char **ret_why)
{
	struct store_txn *txn = NULL;
	uint8_t version[4];
	int rc = store_begin(store, &txn);

	if (rc != 0) {
		*ret_why = store_last_error();
		return rc;
	}
	for (int i = 0; rc == 0 && i < STORE_TABLE_COUNT; i++)
		rc = lmdb_error(lmdb, mdb_dbi_open(lmdb->writer.txn,
						   store_table_name((enum store_table)i),
						   MDB_CREATE, &lmdb->dbis[i]));
	put_be32(version, STORE_SCHEMA_VERSION);
	if (rc == 0 && fresh)
		rc = store_put(txn, STORE_META, schema_key,
			       (struct sluice_slice){version, sizeof(version)});
	if (rc == 0)
		rc = store_commit(txn);
	else
		store_abort(txn);
	if (rc != 0)
		*ret_why = store_last_error();
	return rc;
}

static uint64_t file_bytes(const struct lmdb *lmdb)
{
	struct stat st;
	int fd;

	return mdb_env_get_fd(lmdb->env, &fd) == 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_size
									  : UINT64_MAX;
}

/* Checks each page of each table; tables that cannot be read are left out. Affordable for a reader
 * of all records. */
static int tables_check(struct lmdb *lmdb, const char **ret_why)
{
	char path[DIR_PATH_BYTES_MAX];
	int rc = dir_path(path, lmdb->dir, "data.mdb", ret_why);

	for (int i = 0; rc == 0 && i < STORE_TABLE_COUNT; i++) {
		rc = lmdb_file_check_table(path, store_table_name((enum store_table)i));
		if (rc != SLUICE_E_CORRUPT)
			continue;
		lmdb->damage[i] = strdup(store_last_error());
		rc = lmdb->damage[i] == NULL ? SLUICE_E_NOMEM : 0;
	}
	if (rc != 0)
		*ret_why = store_last_error();
	return rc;
}

/* Nothing is written before the schema version has been checked. */
static int contents_open(struct lmdb *lmdb, struct store *store, uint64_t check_bytes,
			 const char **ret_why)
{
	int rc = tables_open(lmdb, STORE_META, STORE_META + 1, ret_why);

	if (rc == 0)
		rc = schema_check(store, ret_why);
	if (rc == 0) {
		rc = lmdb_map_find(lmdb, schema_key);
		*ret_why = store_last_error();
	}
	if (rc != 0)
		return rc;
	if (lmdb->read_only) {
		rc = tables_open(lmdb, 0, STORE_TABLE_COUNT, ret_why);
		return rc != 0 ? rc : tables_check(lmdb, ret_why);
	}
	if (file_bytes(lmdb) <= check_bytes)
		rc = tables_check(lmdb, ret_why);
	for (int i = 0; rc == 0 && i < STORE_TABLE_COUNT; i++)
		if (lmdb->damage[i] != NULL) {
			rc = store_fail(SLUICE_E_CORRUPT, "table %s: %s",
					store_table_name((enum store_table)i), lmdb->damage[i]);
			*ret_why = store_last_error();
		}
	if (rc != 0)
		return rc;
	return tables_create(lmdb, store, false, ret_why);
}

/* Creates a store under a name of its own, and renames it to data.mdb when all of it is on disk.
 * Leftovers of an interrupted creation are replaced. The directory is locked. */
static int store_make(const char *dir, const struct store_options *options, const char **ret_why)
{
	struct lmdb *lmdb = NULL;
	struct store *store = NULL;
	char path[DIR_PATH_BYTES_MAX];
	int rc = dir_path(path, dir, "data.mdb.new", ret_why);

	if (rc == 0)
		rc = dir_remove(path, ret_why);
	if (rc == 0)
		rc = lmdb_new(dir, options, &lmdb);
	if (rc != 0)
		return rc;
	rc = lmdb_env_open(lmdb, path, MDB_NOSUBDIR | MDB_NOLOCK, ret_why);
	if (rc != 0) {
		lmdb_close(lmdb);
		return rc;
	}
	rc = store_wrap(&lmdb_ops, lmdb, options, &store);
	if (rc == 0)
		rc = tables_create(lmdb, store, true, ret_why);
	store_close(store);
	return rc != 0 ? rc : dir_rename(dir, path, "data.mdb", ret_why);
}

/* Checks the file before LMDB opens it. The directory is locked. */
static int file_check(const char *dir, const char **ret_why)
{
	char path[DIR_PATH_BYTES_MAX];
	int rc = dir_path(path, dir, "data.mdb", ret_why);

	if (rc != 0)
		return rc;
	rc = lmdb_file_check(path);
	if (rc != 0)
		*ret_why = rc == SLUICE_E_NOMEM ? "out of memory" : store_last_error();
	return rc;
}

static int directory_open(struct lmdb *lmdb, const struct store_options *options,
			  const char **ret_why)
{
	bool create = options->create && !options->read_only, present = false, made = false;
	int rc = dir_check(lmdb->dir, create, &present, &lmdb->made_dir, ret_why);

	if (rc == 0 && !present && !create) {
		*ret_why = "there is no store in the directory";
		rc = SLUICE_E_NOT_FOUND;
	}
	if (rc == 0)
		rc = dir_lock(lmdb->dir, options->read_only, &lmdb->lock_fd, ret_why);
	/* Checked again, now that no other process can create one. */
	if (rc == 0 && !present)
		rc = dir_check(lmdb->dir, false, &present, &made, ret_why);
	lmdb->made_store = rc == 0 && !present;
	if (rc == 0 && !present)
		rc = store_make(lmdb->dir, options, ret_why);
	if (rc == 0)
		rc = file_check(lmdb->dir, ret_why);
	return rc != 0 ? rc : lmdb_env_open(lmdb, lmdb->dir, 0, ret_why);
}

int store_open_lmdb(const char *dir, const struct store_options *options, struct store **ret,
		    const char **ret_why)
{
	struct lmdb *lmdb = NULL;
	struct store *store = NULL;
	const char *why = "";
	int rc;

	if (ret_why == NULL)
		ret_why = &why;
	*ret_why = "out of memory";
	rc = lmdb_new(dir, options, &lmdb);
	if (rc != 0)
		return rc;
	rc = directory_open(lmdb, options, ret_why);
	if (rc != 0) {
		lmdb_discard(lmdb);
		lmdb_close(lmdb);
		return rc;
	}
	rc = store_wrap(&lmdb_ops, lmdb, options, &store);
	if (rc == 0)
		rc = contents_open(lmdb, store, options->check_bytes, ret_why);
	if (rc == 0) {
		rc = lmdb_pages_init(lmdb);
		*ret_why = store_last_error();
	}
	if (rc != 0) {
		store_discard(store);
		return rc;
	}
	*ret_why = "";
	*ret = store;
	return 0;
}
