/* SPDX-License-Identifier: Apache-2.0
 *
 * Of the LMDB implementation: read transactions. They are pooled and renewed, so that a snapshot
 * needs no allocation in LMDB. lmdb->lock guards both lists: `all_readers` has all that were
 * created, `pool` those not in use.
 */
#include <stdlib.h>

#include "broker/store/lmdb/lmdb_impl.h"
#include "broker/util/clock.h"

static void pool_put(struct lmdb *lmdb, struct lmdb_txn *txn)
{
	atomic_store(&txn->since_ms, 0);
	atomic_store(&txn->snapshot, UINT64_MAX);
	(void)pthread_mutex_lock(&lmdb->lock);
	txn->pool_next = lmdb->pool;
	lmdb->pool = txn;
	(void)pthread_mutex_unlock(&lmdb->lock);
}

/* LMDB 0.9 takes the id of a reader first and copies the root afterwards, from one of two places
 * that the commits use in turn. Two commits in between give it a newer root, maybe one that is not
 * on disk yet, and the next reader of this thread would show less. If at most one commit began
 * since the id was taken, the root is the id's. */
static bool root_is_of_id(const struct lmdb *lmdb, MDB_txn *txn)
{
	MDB_envinfo info;

	atomic_thread_fence(memory_order_acquire);
	return mdb_env_info(lmdb->env, &info) == 0 && info.me_last_txnid <= mdb_txn_id(txn) + 1;
}

static int renew_until_exact(const struct lmdb *lmdb, MDB_txn *txn)
{
	while (!root_is_of_id(lmdb, txn)) {
		int rc;

		mdb_txn_reset(txn);
		rc = mdb_txn_renew(txn);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int lmdb_reader_take(struct lmdb *lmdb, struct lmdb_txn **ret)
{
	struct lmdb_txn *txn;
	int rc;

	(void)pthread_mutex_lock(&lmdb->lock);
	txn = lmdb->pool;
	if (txn != NULL)
		lmdb->pool = txn->pool_next;
	(void)pthread_mutex_unlock(&lmdb->lock);
	if (txn != NULL) {
		rc = mdb_txn_renew(txn->txn);
		if (rc == 0)
			rc = renew_until_exact(lmdb, txn->txn);
		if (rc != 0) {
			pool_put(lmdb, txn);
			return lmdb_error(lmdb, rc);
		}
	} else {
		txn = calloc(1, sizeof(*txn));
		if (txn == NULL)
			return SLUICE_E_NOMEM;
		txn->lmdb = lmdb;
		rc = mdb_txn_begin(lmdb->env, NULL, MDB_RDONLY, &txn->txn);
		if (rc == 0 && (rc = renew_until_exact(lmdb, txn->txn)) != 0)
			mdb_txn_abort(txn->txn);
		if (rc != 0) {
			free(txn);
			return lmdb_error(lmdb, rc);
		}
		atomic_init(&txn->snapshot, UINT64_MAX);
		(void)pthread_mutex_lock(&lmdb->lock);
		txn->all_next = lmdb->all_readers;
		lmdb->all_readers = txn;
		(void)pthread_mutex_unlock(&lmdb->lock);
	}
	atomic_store(&txn->snapshot, mdb_txn_id(txn->txn));
	atomic_store(&txn->since_ms, clock_mono_ns() / 1000000 + 1);
	*ret = txn;
	return 0;
}

void lmdb_reader_return(struct lmdb_txn *txn)
{
	mdb_txn_reset(txn->txn);
	pool_put(txn->lmdb, txn);
}

uint64_t lmdb_readers_oldest_snapshot(struct lmdb *lmdb)
{
	uint64_t oldest = UINT64_MAX;

	(void)pthread_mutex_lock(&lmdb->lock);
	for (const struct lmdb_txn *txn = lmdb->all_readers; txn != NULL; txn = txn->all_next) {
		uint64_t snapshot = atomic_load(&txn->snapshot);

		if (snapshot < oldest)
			oldest = snapshot;
	}
	(void)pthread_mutex_unlock(&lmdb->lock);
	return oldest;
}

uint64_t lmdb_readers_oldest_ms(struct lmdb *lmdb)
{
	uint64_t now = clock_mono_ns() / 1000000 + 1, oldest = 0;

	(void)pthread_mutex_lock(&lmdb->lock);
	for (const struct lmdb_txn *txn = lmdb->all_readers; txn != NULL; txn = txn->all_next) {
		uint64_t since = atomic_load(&txn->since_ms);

		if (since != 0 && since < now && now - since > oldest)
			oldest = now - since;
	}
	(void)pthread_mutex_unlock(&lmdb->lock);
	return oldest;
}

void lmdb_readers_free(struct lmdb *lmdb)
{
	while (lmdb->all_readers != NULL) {
		struct lmdb_txn *txn = lmdb->all_readers;

		lmdb->all_readers = txn->all_next;
		mdb_txn_abort(txn->txn);
		free(txn);
	}
}
