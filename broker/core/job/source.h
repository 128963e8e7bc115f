/* SPDX-License-Identifier: Apache-2.0
 *
 * Sources of evidence: a system that can judge an attempt that has an intent (a spool; a cluster
 * and account with its file system). A source has a name (kind NAME_SOURCE) and a number, assigned
 * by the first SOURCE_SEEN; its cell keeps the session that speaks for it, when it was last seen,
 * and how many orphaned jobs wait for it. Sources are never deleted: jobs refer to them by number.
 */
#ifndef SLUICE_CORE_SOURCE_H
#define SLUICE_CORE_SOURCE_H

#include "broker/core/base/apply.h"

enum { SOURCE_NAME_BYTES = LIMIT_SIZE(NAME_BYTES_MAX) + 1 };

struct source {
	uint64_t session;    /* last session that spoke for it */
	uint64_t seen_ms;    /* wall: the last SOURCE_SEEN */
	uint64_t ok_ms;	     /* wall: the last one that was ok; 0: none */
	uint64_t orphans;    /* orphaned jobs that wait for it, in all queues */
	uint64_t waiting_ms; /* wall: since when orphans wait; 0: none */
	struct sluice_slice name, text;
};

/* The cell. Returns the bytes written. */
enum { SOURCE_FIXED_BYTES = 5 * 8 + 2 + 2 };
enum { SOURCE_BYTES_MAX = SOURCE_FIXED_BYTES + SOURCE_NAME_BYTES + LIMIT_SIZE(TEXT_BYTES_MAX) };
size_t source_encode(uint8_t buf[SOURCE_BYTES_MAX], const struct source *source);
/* Texts are borrowed from the value. CORRUPT. */
int source_decode(struct sluice_slice value, struct source *ret) SLUICE_MUST_USE;
/* Borrowed until the next write. CORRUPT when it does not exist: numbers come from records that
 * refer to it. */
int source_get(struct store_txn *txn, uint32_t gateway, uint64_t number,
	       struct source *ret) SLUICE_MUST_USE;
int source_name_get(struct store_txn *txn, uint32_t gateway, uint64_t number,
		    char ret[SOURCE_NAME_BYTES]) SLUICE_MUST_USE;
int source_orphans_add(struct apply *a, uint64_t number, int delta) SLUICE_MUST_USE;

#endif
