/* SPDX-License-Identifier: Apache-2.0
 *
 * The control of the fault rigs: bare LMDB, whose losses in each mode are known.
 *
 * lmdb_subject write DIR sync|nosync|nometasync: commits records 1, 2, ..., one each, and prints
 *   each number when its commit is acknowledged. The commit also rewrites the record 0, which holds
 *   the largest number. Ends with 1 and the reason when a commit fails.
 * lmdb_subject read DIR: checks that the records are 1, 2, ... to the number in record 0, and each
 *   byte of them; prints that number. Otherwise prints the fault and ends with 1, so that a torn
 *   commit does not count as a lost one.
 */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Sizes that fit into a leaf page, and up to four overflow pages. */
enum { VALUE_WORDS_MAX = 2000, MAP_BYTES = 256 << 20 };

static size_t words[VALUE_WORDS_MAX];

/* The one value that record n may have. Returns its length in bytes; valid until the next call. */
static size_t value_of(size_t n)
{
	size_t count = n % 16 == 0 ? 1 + n * 7919 % VALUE_WORDS_MAX : 1 + n % 64;

	for (size_t i = 0; i < count; i++)
		words[i] = n * 0x9e3779b97f4a7c15u + i;
	return count * sizeof(words[0]);
}

static int put(MDB_txn *txn, MDB_dbi dbi, size_t number, void *bytes, size_t len)
{
	MDB_val key = {sizeof(number), &number}, value = {len, bytes};

	return mdb_put(txn, dbi, &key, &value, 0);
}

static int commit_one(MDB_env *env, size_t n)
{
	MDB_txn *txn;
	MDB_dbi dbi;
	int rc = mdb_txn_begin(env, NULL, 0, &txn);

	if (rc != 0)
		return rc;
	rc = mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi);
	if (rc == 0)
		rc = put(txn, dbi, 0, &n, sizeof(n));
	if (rc == 0)
		rc = put(txn, dbi, n, words, value_of(n));
	if (rc == 0)
		return mdb_txn_commit(txn);
	mdb_txn_abort(txn);
	return rc;
}

static int write_all(MDB_env *env)
{
	for (size_t n = 1;; n++) {
		char line[32];
		int rc = commit_one(env, n), len;

		if (rc != 0) {
			(void)fprintf(stderr, "commit %zu: %s\n", n, mdb_strerror(rc));
			return 1;
		}
		len = snprintf(line, sizeof(line), "%zu\n", n);
		if (write(STDOUT_FILENO, line, (size_t)len) != len)
			return 1;
	}
}

/* Compares the records, in order, with their expected bytes. */
static int check_all(MDB_cursor *cursor, size_t *ret_last)
{
	MDB_val key, value;
	size_t number, last = 0, expected = 0;
	int rc;

	while ((rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) == 0) {
		memcpy(&number, key.mv_data, sizeof(number));
		if (number != expected)
			return (int)fprintf(stderr, "record %zu is in the place of %zu\n", number,
					    expected);
		if (number == 0 && value.mv_size == sizeof(last))
			memcpy(&last, value.mv_data, sizeof(last));
		else if (value.mv_size != value_of(number) ||
			 memcmp(value.mv_data, words, value.mv_size) != 0)
			return (int)fprintf(stderr, "record %zu is damaged\n", number);
		expected++;
	}
	if (rc != MDB_NOTFOUND)
		return (int)fprintf(stderr, "%s\n", mdb_strerror(rc));
	if (expected > 0 && expected != last + 1)
		return (int)fprintf(stderr, "%zu records, but record 0 has %zu\n", expected - 1,
				    last);
	*ret_last = last;
	return 0;
}

static int read_all(MDB_env *env)
{
	MDB_txn *txn;
	MDB_dbi dbi;
	MDB_cursor *cursor;
	size_t last = 0;
	int rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &txn);

	if (rc == 0)
		rc = mdb_dbi_open(txn, NULL, MDB_INTEGERKEY, &dbi);
	if (rc == 0)
		rc = mdb_cursor_open(txn, dbi, &cursor);
	if (rc != 0) {
		(void)fprintf(stderr, "read: %s\n", mdb_strerror(rc));
		return 1;
	}
	rc = check_all(cursor, &last);
	if (rc == 0)
		(void)printf("%zu\n", last);
	mdb_cursor_close(cursor);
	mdb_txn_abort(txn);
	return rc == 0 ? 0 : 1;
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
	rc = mdb_env_create(&env);
	if (rc == 0)
		rc = mdb_env_set_mapsize(env, MAP_BYTES);
	if (rc == 0)
		rc = mdb_env_open(env, argv[2], flags, 0600);
	if (rc != 0) {
		(void)fprintf(stderr, "open: %s\n", mdb_strerror(rc));
		return 2;
	}
	rc = strcmp(argv[1], "write") == 0 ? write_all(env) : read_all(env);
	mdb_env_close(env);
	return rc;
}
