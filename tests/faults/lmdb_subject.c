/* SPDX-License-Identifier: Apache-2.0
 *
 * lmdb_subject write DIR sync|nosync|nometasync: commits records 1, 2, ... and prints each number when its commit is acknowledged.
 * lmdb_subject read DIR: prints the largest number that is there. The rig's own control: what it should and should not lose is known.
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int write_all(MDB_env *env)
{
	for (size_t n = 1;; n++) {
		MDB_txn *txn;
		MDB_dbi dbi;
		MDB_val key = {sizeof(n), &n}, value = {sizeof(n), &n};
		char line[32];
		int rc = mdb_txn_begin(env, NULL, 0, &txn), len;

		if (rc == 0)
			rc = mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi);
		if (rc == 0)
			rc = mdb_put(txn, dbi, &key, &value, MDB_APPEND);
		if (rc == 0)
			rc = mdb_txn_commit(txn);
		if (rc != 0)
			return 1;
		len = snprintf(line, sizeof(line), "%zu\n", n);
		if (write(STDOUT_FILENO, line, (size_t)len) != len)
			return 1;
	}
}

static int read_last(MDB_env *env)
{
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_cursor *cursor;
	MDB_val key, value;
	size_t last = 0;

	if (mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0 ||
	    mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi) != 0 || mdb_cursor_open(txn, dbi, &cursor) != 0)
		return 1;
	if (mdb_cursor_get(cursor, &key, &value, MDB_LAST) == 0)
		memcpy(&last, value.mv_data, sizeof(last));
	(void)printf("%zu\n", last);
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned flags = 0;
	MDB_env *env;
	int rc;

	if (argc < 3)
		return 2;
	if (argc > 3 && strcmp(argv[3], "nosync") == 0)
		flags = MDB_NOSYNC;
	if (argc > 3 && strcmp(argv[3], "nometasync") == 0)
		flags = MDB_NOMETASYNC;
	if (mdb_env_create(&env) != 0 || mdb_env_set_mapsize(env, 256u << 20) != 0 ||
	    mdb_env_open(env, argv[2], flags, 0600) != 0)
		return 2;
	rc = strcmp(argv[1], "write") == 0 ? write_all(env) : read_last(env);
	mdb_env_close(env);
	return rc;
}
