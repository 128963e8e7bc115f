/* SPDX-License-Identifier: Apache-2.0
 *
 * For the implementations: raw ordered tables under one write transaction and read snapshots.
 * Framing, cells, savepoints and faults are above this, once for all implementations. Values are
 * whole records as stored on disk. The layer above ensures keys of 1 to 511 bytes and at most one
 * write transaction at a time.
 */
#ifndef SLUICE_STORE_STORE_IMPL_H
#define SLUICE_STORE_STORE_IMPL_H

#include "broker/store/store.h"

struct raw_ops {
	/* Transactions. */
	int (*begin)(void *impl, bool write, void **ret_txn);
	int (*commit)(void *txn); /* frees the transaction in any case */
	void (*abort)(void *txn);
	int64_t (*growth)(void *txn); /* write: as of store_txn_growth */
	/* Records. Returned slices are valid until the transaction's next write or its end. */
	int (*get)(void *txn, enum store_table table, struct sluice_slice key,
		   struct sluice_slice *ret);
	/* Reserves a value of len bytes and returns where to write it. */
	int (*put)(void *txn, enum store_table table, struct sluice_slice key, size_t len,
		   void **ret_value);
	int (*del)(void *txn, enum store_table table, struct sluice_slice key);
	/* The last record at or before key. */
	int (*at_or_before)(void *txn, enum store_table table, struct sluice_slice key,
			    struct sluice_slice *ret_key, struct sluice_slice *ret_value);
	/* A cursor for scans: seek returns the first record at or after key (empty key: the first
	 * of all), next the following ones. */
	int (*cursor_open)(void *txn, enum store_table table, void **ret_cursor);
	int (*cursor_seek)(void *cursor, struct sluice_slice key, struct sluice_slice *ret_key,
			   struct sluice_slice *ret_value);
	int (*cursor_next)(void *cursor, struct sluice_slice *ret_key,
			   struct sluice_slice *ret_value);
	/* deletes the record that seek or next returned last; the following next returns its
	 * successor */
	int (*cursor_del)(void *cursor);
	void (*cursor_close)(void *cursor);
	void (*facts)(void *impl, struct store_facts *ret);
	int (*reserve_disk)(void *impl, uint64_t bytes, struct store_room *ret);
	/* before close: remove what the opening created; NULL: nothing is stored */
	void (*discard)(void *impl);
	void (*close)(void *impl);
};

/* store.c: wraps an implementation in the common layer. takes impl (closed on error too). */
int store_wrap(const struct raw_ops *ops, void *impl, const struct store_options *options,
	       struct store **ret) SLUICE_MUST_USE;
/* store_record.c: sets the thread's store_last_error() text; returns code. */
int store_fail(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
