/* SPDX-License-Identifier: Apache-2.0
 * The store's own records, of no gateway: clocks and number of the last batch, the format. */
#ifndef SLUICE_CORE_BASE_META_H
#define SLUICE_CORE_BASE_META_H

#include "broker/core/core.h"

/* Written last by the first BOOT: a store with this record is complete. */
struct sluice_slice format_key(void);
enum { FORMAT_VERSION = 1, FORMAT_BYTES = 4 };
void format_encode(uint8_t buf[FORMAT_BYTES], uint32_t version);
/* False: the length is wrong. */
bool format_decode(struct sluice_slice value, uint32_t *ret);

struct sluice_slice level_key(void);
enum { LEVEL_BYTES = 4 };
void level_encode(uint8_t buf[LEVEL_BYTES], uint32_t level);
int level_decode(struct sluice_slice value, uint32_t *ret) SLUICE_MUST_USE; /* CORRUPT */

/* Of a commit: its clocks, and the number of its batch. */
struct clock_record {
	struct batch_clock clock;
	uint64_t batch; /* 0 in a record of 16 bytes, from before batches had numbers */
};
enum { CLOCK_1_BYTES = 16, CLOCK_BYTES = CLOCK_1_BYTES + 8 };
void clock_encode(uint8_t buf[CLOCK_BYTES], const struct clock_record *record);
int clock_decode(struct sluice_slice value, struct clock_record *ret) SLUICE_MUST_USE; /* CORRUPT */
/* All 0 in a fresh store. */
int clock_read(struct store_txn *txn, struct clock_record *ret) SLUICE_MUST_USE;
int clock_write(struct store_txn *txn, const struct clock_record *record) SLUICE_MUST_USE;

#endif
