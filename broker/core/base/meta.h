/* SPDX-License-Identifier: Apache-2.0
 *
 * The store's own records, under no gateway: the clocks as of the last commit, the format.
 */
#ifndef SLUICE_CORE_BASE_META_H
#define SLUICE_CORE_BASE_META_H

#include "broker/core/core.h"

/* Written last by core_bootstrap: a store that has it has everything. */
struct sluice_slice format_key(void);
/* core_clock_read (core.h) reads it. */
int clock_write(struct store_txn *txn, struct batch_clock clock) SLUICE_MUST_USE;

#endif
