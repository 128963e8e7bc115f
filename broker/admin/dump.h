/* SPDX-License-Identifier: Apache-2.0
 * The offline dump: every record of a store as a line of text, and every damaged one by name. */
#ifndef SLUICE_ADMIN_DUMP_H
#define SLUICE_ADMIN_DUMP_H

#include <stdio.h>

#include "broker/store/store.h"

/* Writes all records in table and key order to `to`: "TABLE KEY VALUE". Damaged records are lines that begin with "! " and are counted; the
 * rest goes on. Deterministic: equal stores give equal text. Returns 0, CORRUPT when there were any, or a failure. */
int dump_store(struct store *store, FILE *to, uint64_t *ret_records, uint64_t *ret_damaged) SLUICE_MUST_USE;

#endif
