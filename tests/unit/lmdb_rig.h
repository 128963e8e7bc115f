/* SPDX-License-Identifier: Apache-2.0
 *
 * A store on LMDB in a directory of its own, and system calls that fail when a test says so:
 * functions of the same names replace those of liblmdb and of the store, and call the real ones
 * unless the test set a failure. One thread sets the plan.
 */
#ifndef SLUICE_TESTS_LMDB_RIG_H
#define SLUICE_TESTS_LMDB_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/store/store.h"

struct lmdb_plan {
	int write_at, sync_at, meta_at; /* the n-th call from now fails; 0: none */
	/* the n-th write of data pages from now is cut short; then allocation beyond the file fails
	 * with `error` as well */
	int short_at;
	int error;
	bool disk_full;
	bool cannot_allocate; /* a file system without fallocate */
	uint32_t fs_type;     /* 0: the real one */
};
extern struct lmdb_plan plan;
void plan_room(void); /* no call fails any more */

struct rig {
	struct store *store;
	char dir[64];
};
extern const struct store_options options;

struct rig rig_dir(void);  /* without a store */
struct rig rig_open(void); /* with a new store */
void rig_close(struct rig *rig);
void reopen(struct rig *rig);
size_t files_in(const char *dir, bool delete);

struct sluice_slice text(const char *value);
/* Each fails the test at once. */
struct store_txn *begin(struct store *store);
struct store_txn *begin_read(struct store *store);
/* Puts the same key and value into a plain and into a hot table, in one commit; returns its
 * code. */
int try_put(struct store *store, const char *key, const char *value);
void expect_value(struct store_txn *txn, enum store_table table, const char *key,
		  const char *value);
void expect_both(struct store *store, const char *key, const char *value);

#endif
