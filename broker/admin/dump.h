/* SPDX-License-Identifier: Apache-2.0
 * The offline dump: every record of a store as a line of text, every damaged one with its key. */
#ifndef SLUICE_ADMIN_DUMP_H
#define SLUICE_ADMIN_DUMP_H

#include <stdio.h>

#include "broker/store/store.h"

/* Writes all records in table and key order to `to`: "TABLE KEY VALUE". A damaged record is a line
 * that begins with "! "; the dump continues after it. Deterministic: equal stores give equal text.
 * Returns 0, CORRUPT when there were damaged records, or a failure. */
int dump_store(struct store *store, FILE *to, uint64_t *ret_records,
	       uint64_t *ret_damaged) SLUICE_MUST_USE;

#endif
