/* SPDX-License-Identifier: Apache-2.0
 * damage DIR TABLE GATEWAY/NUMBER[/NUMBER]: flips one bit of the record with that key (as `sluiced
 * --dump` prints it), without going through the store. No broker may have the store open. */
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed(const char *what, int rc)
{
	(void)fprintf(stderr, "%s: %s\n", what, mdb_strerror(rc));
	return 1;
}

/* The gateway has 4 bytes, the numbers after it 8 each, big-endian. 0: malformed. */
static size_t key_parse(const char *text, unsigned char *to, size_t bytes)
{
	size_t len = 0;
	char *end = NULL;

	for (size_t width = 4; len + width <= bytes; width = 8) {
		unsigned long long number = strtoull(text, &end, 10);

		if (end == text)
			return 0;
		for (size_t i = 0; i < width; i++)
			to[len + i] = (unsigned char)(number >> 8 * (width - 1 - i));
		len += width;
		if (*end == 0)
			return len;
		text = end + 1;
	}
	return 0;
}

static int flip(MDB_env *env, const char *table, MDB_val *key)
{
	MDB_txn *txn = NULL;
	MDB_dbi dbi;
	MDB_val value;
	unsigned char *bytes;
	int rc = mdb_txn_begin(env, NULL, 0, &txn);

	if (rc == 0)
		rc = mdb_dbi_open(txn, table, 0, &dbi);
	if (rc == 0)
		rc = mdb_get(txn, dbi, key, &value);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return failed(table, rc);
	}
	bytes = malloc(value.mv_size);
	if (bytes == NULL) {
		mdb_txn_abort(txn);
		return 1;
	}
	memcpy(bytes, value.mv_data, value.mv_size);
	bytes[value.mv_size - 1] ^= 0x10;
	value.mv_data = bytes;
	rc = mdb_put(txn, dbi, key, &value, 0);
	free(bytes);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return failed("put", rc);
	}
	rc = mdb_txn_commit(txn);
	return rc != 0 ? failed("commit", rc) : 0;
}

int main(int argc, char **argv)
{
	unsigned char bytes[511];
	MDB_env *env = NULL;
	MDB_val key = {0, bytes};
	int rc;

	if (argc != 4 || (key.mv_size = key_parse(argv[3], bytes, sizeof(bytes))) == 0) {
		(void)fprintf(stderr, "usage: damage DIR TABLE GATEWAY/NUMBER[/NUMBER]\n");
		return 2;
	}
	rc = mdb_env_create(&env);
	if (rc == 0)
		rc = mdb_env_set_maxdbs(env, 64);
	if (rc == 0)
		rc = mdb_env_open(env, argv[1], 0, 0600);
	rc = rc != 0 ? failed(argv[1], rc) : flip(env, argv[2], &key);
	mdb_env_close(env);
	return rc;
}
