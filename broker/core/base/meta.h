/* SPDX-License-Identifier: Apache-2.0
 * The store's own records, of no gateway: the clocks as of the last commit, the format. */
#ifndef SLUICE_CORE_BASE_META_H
#define SLUICE_CORE_BASE_META_H

#include "broker/core/core.h"

/* Written last by core_bootstrap: a store with this record is complete. */
struct sluice_slice format_key(void);
enum { FORMAT_VERSION = 1, FORMAT_BYTES = 4 };
void format_encode(uint8_t buf[FORMAT_BYTES], uint32_t version);
/* False: the length is wrong. */
bool format_decode(struct sluice_slice value, uint32_t *ret);

enum { CLOCK_BYTES = 16 };
void clock_encode(uint8_t buf[CLOCK_BYTES], struct batch_clock clock);
int clock_decode(struct sluice_slice value, struct batch_clock *ret) SLUICE_MUST_USE; /* CORRUPT */
/* core_clock_read (core.h) reads it. */
int clock_write(struct store_txn *txn, struct batch_clock clock) SLUICE_MUST_USE;

#endif
