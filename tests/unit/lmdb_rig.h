/* SPDX-License-Identifier: Apache-2.0
 *
 * A store on LMDB in a directory of its own, and system calls that fail when a test says so: those
 * of liblmdb and of the store are taken over by functions of the same names, which pass them on
 * unless told otherwise. One thread sets the plan.
 */
#ifndef SLUICE_TESTS_LMDB_RIG_H
#define SLUICE_TESTS_LMDB_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "broker/store/store.h"

struct lmdb_plan {
	int write_at, sync_at, meta_at; /* which call from now fails; 0: none */
	int short_at; /* which write of data pages from now is cut short; then `error` meets what is
			 allocated behind the file, too */
	int error;
	bool disk_full;
	bool cannot_allocate; /* a file system without fallocate */
	uint32_t fs_type;     /* 0: the real one */
};
extern struct lmdb_plan plan;
void plan_room(void); /* nothing fails any more */

struct rig {
	struct store *store;
	char dir[64];
};
extern const struct store_options options;

struct rig rig_dir(void);  /* no store in it yet */
struct rig rig_open(void); /* with a fresh one */
void rig_close(struct rig *rig);
void reopen(struct rig *rig);
size_t files_in(const char *dir, bool delete);

struct sluice_slice text(const char *value);
/* Each fails the test at once. */
struct store_txn *begin(struct store *store);
struct store_txn *begin_read(struct store *store);
/* The same key and value in a plain and in a hot table, in one commit; what that said. */
int try_put(struct store *store, const char *key, const char *value);
void expect_value(struct store_txn *txn, enum store_table table, const char *key,
		  const char *value);
void expect_both(struct store *store, const char *key, const char *value);

#endif
