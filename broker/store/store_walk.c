/* SPDX-License-Identifier: Apache-2.0
 * The walk over all records, for dumps and offline checks of every checksum. */
#include "broker/store/store.h"

static int walk_table(struct store_txn *txn, enum store_table table, store_visit_fn visit,
		      void *user, bool *io_damaged)
{
	static const struct sluice_slice nothing = {"", 0};
	struct store_scan *scan = NULL;
	int rc = store_scan_begin(txn, table, nothing, &scan);

	while (rc == 0) {
		struct sluice_slice key = nothing, value = nothing;

		rc = store_scan_next(scan, &key, &value);
		if (rc != 0 && rc != SLUICE_E_CORRUPT)
			break;
		*io_damaged = *io_damaged || rc != 0;
		rc = visit(user, table, key, rc == 0 ? value : nothing, rc);
		if (rc != 0) {
			store_scan_end(scan);
			return rc;
		}
	}
	store_scan_end(scan);
	return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
}

int store_walk(struct store_txn *txn, store_visit_fn visit, void *user)
{
	bool damaged = false;
	int rc = 0;

	for (int table = 0; rc == 0 && table < STORE_TABLE_COUNT; table++)
		rc = walk_table(txn, (enum store_table)table, visit, user, &damaged);
	return rc == 0 && damaged ? SLUICE_E_CORRUPT : rc;
}
