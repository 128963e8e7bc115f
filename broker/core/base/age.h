/* SPDX-License-Identifier: Apache-2.0
 *
 * How old things are. Ages go by the durable monotone clock; the wall clock has a say only at a boot, for how long the broker was away, and
 * not even then when the machine did not boot meanwhile. A boot that claims more than LIMIT_CLOCK_TRUST_MS away is doubted: nothing is
 * forgotten for its age until the wall clock has kept to its claim for LIMIT_CLOCK_STAND_MS. If it goes back instead, what is older
 * than that boot is counted younger by as much, for ever ("shift").
 *
 * Stamps are of the age line: monotone clock plus an epoch that is chosen once, so that stamps of older versions, which are wall times, fit.
 */
#ifndef SLUICE_CORE_AGE_H
#define SLUICE_CORE_AGE_H

#include "broker/core/core.h"

enum { AGE_SHIFTS_MAX = 16 };

struct age {
	uint64_t epoch; /* age line - monotone clock, modulo 2^64 */
	uint64_t boot_id,
		boot_offset; /* durable - process monotone clock, while the machine has that boot id; 0: not known */
	bool doubting;
	uint64_t at_mono;	       /* the boot in doubt, after its jump */
	uint64_t claim_ms;	       /* how long the broker was away, by the wall clock */
	uint64_t stood_ms;	       /* for so long the wall clock has kept to it ... */
	uint64_t seen_mono, seen_wall; /* ... until then */
	uint32_t shift_count;
	struct age_shift {
		uint64_t at_mono, by_ms; /* stamps before at are younger by that */
	} shifts[AGE_SHIFTS_MAX];
};

/* The record "age" of table meta. Returns the bytes written. */
enum { AGE_FIXED_BYTES = 8 + 8 * 8, AGE_SHIFT_BYTES = 8 + 8 };
enum { AGE_RECORD_BYTES_MAX = AGE_FIXED_BYTES + AGE_SHIFT_BYTES * AGE_SHIFTS_MAX };
size_t age_encode(uint8_t buf[AGE_RECORD_BYTES_MAX], const struct age *age);
int age_decode(struct sluice_slice value, struct age *ret) SLUICE_MUST_USE; /* CORRUPT */

/* 0 with *ret of no epoch (UINT64_MAX) when the store has none yet. CORRUPT. */
int age_read(struct store_txn *txn, struct age *ret) SLUICE_MUST_USE;
/* At a batch's beginning, after the clocks were read: doubt stands, ends, or becomes a shift. Writes what changed. */
int age_batch(struct store_txn *txn, struct batch_clock clock, struct age *age) SLUICE_MUST_USE;

struct apply;
uint64_t age_now(const struct apply *a); /* a stamp */
/* Milliseconds since a stamp; 0 when it is of the future. */
uint64_t age_of(const struct apply *a, uint64_t stamp);
uint64_t age_of_mono(const struct apply *a, uint64_t mono_ms);
/* Nothing may be forgotten now; looked at again at that time of the monotone clock. 0: no doubt. */
uint64_t age_doubt(const struct apply *a);
/* A time that was set before a boot which was wrong about the time, put right. */
uint64_t age_due(const struct apply *a, uint64_t due_mono_ms);
/* It is due by the jump of a boot that is in doubt. */
bool age_due_doubted(const struct apply *a, uint64_t due_mono_ms);
/* The same for a reader at a time of the monotone clock: it was held for doubt, or still may be,
 * since what is held is looked at again only when the clock has stood. */
bool age_may_hold(const struct age *age, uint64_t mono_ms, uint64_t due_mono_ms);

#endif
