/* SPDX-License-Identifier: Apache-2.0
 *
 * Ages of records. Ages are measured by the durable monotone clock; the wall clock is used only at
 * a boot, for how long the broker was away, and not even then when the machine did not reboot
 * meanwhile. A boot that claims more than LIMIT_CLOCK_TRUST_MS away is in doubt: nothing is deleted
 * for its age until the wall clock has confirmed the claim for LIMIT_CLOCK_STAND_MS. If the clock
 * goes back instead, stamps older than that boot count as younger by the difference, permanently
 * ("shift").
 *
 * Stamps are on the age line: monotone clock plus an epoch that is chosen once, so that stamps of
 * older versions, which are wall times, fit.
 */
#ifndef SLUICE_CORE_AGE_H
#define SLUICE_CORE_AGE_H

#include "broker/core/core.h"

enum { AGE_SHIFTS_MAX = 16 };

struct age {
	uint64_t epoch;		       /* age line - monotone clock, modulo 2^64 */
	uint64_t boot_id, boot_offset; /* durable - process monotone clock, while the machine has
					  that boot id; 0: not known */
	bool doubting;
	uint64_t at_mono;	       /* the boot in doubt, after its jump */
	uint64_t claim_ms;	       /* how long the broker was away by the wall clock */
	uint64_t stood_ms;	       /* how long the wall clock has confirmed it ... */
	uint64_t seen_mono, seen_wall; /* ... up to this time */
	uint32_t shift_count;
	struct age_shift {
		uint64_t at_mono, by_ms; /* stamps before at_mono count as younger by by_ms */
	} shifts[AGE_SHIFTS_MAX];
};

/* The record "age" of table meta. Returns the bytes written. */
enum { AGE_FIXED_BYTES = 8 + 8 * 8, AGE_SHIFT_BYTES = 8 + 8 };
enum { AGE_RECORD_BYTES_MAX = AGE_FIXED_BYTES + AGE_SHIFT_BYTES * AGE_SHIFTS_MAX };
size_t age_encode(uint8_t buf[AGE_RECORD_BYTES_MAX], const struct age *age);
int age_decode(struct sluice_slice value, struct age *ret) SLUICE_MUST_USE; /* CORRUPT */

/* 0 with *ret without an epoch (UINT64_MAX) when the store has none yet. CORRUPT. */
int age_read(struct store_txn *txn, struct age *ret) SLUICE_MUST_USE;
/* Before the first command of a batch that is not BOOT: doubt continues, ends, or becomes a shift.
 * Writes the changes. */
int age_batch(struct store_txn *txn, struct batch_clock clock, struct age *age) SLUICE_MUST_USE;

struct apply;
/* BOOT: as far as the wall clock advanced the monotone one, how long the broker was away may be in
 * doubt. Writes the changes. */
int age_boot(struct apply *a, const struct cmd_boot *boot) SLUICE_MUST_USE;
uint64_t age_now(const struct apply *a); /* now, as a stamp */
/* Milliseconds since a stamp; 0 for a stamp in the future. */
uint64_t age_of(const struct apply *a, uint64_t stamp);
uint64_t age_of_mono(const struct apply *a, uint64_t mono_ms);
/* Nothing may be deleted for its age now; the next check is at the returned time of the monotone
 * clock. 0: no doubt. */
uint64_t age_doubt(const struct apply *a);
/* Corrects a time that was set before a boot whose time was wrong. */
uint64_t age_due(const struct apply *a, uint64_t due_mono_ms);
/* Whether it is due only because of the jump of a boot in doubt. */
bool age_due_doubted(const struct apply *a, uint64_t due_mono_ms);
/* The same for a reader at a time of the monotone clock: whether a deletion was or may be delayed
 * by doubt. Delayed records are checked again only when the clock is confirmed. */
bool age_may_hold(const struct age *age, uint64_t mono_ms, uint64_t due_mono_ms);

#endif
