/* SPDX-License-Identifier: Apache-2.0
 *
 * Ages, see age.h. The record "age" of table meta: u8 version, u8 doubting, u16 shifts, u32 0, then
 * u64 each: epoch, boot id, boot offset, at, claim, stood, seen monotone, seen wall, and at and by
 * of each shift.
 */
#include <assert.h>

#include "broker/core/base/age.h"
#include "broker/core/base/state.h"
#include "protocol/limits.h"

enum { AGE_VERSION = 1, AGE_HEAD_BYTES = 8 };

/* A smaller step of the wall clock is a normal adjustment; a fresh store's monotone clock begins
 * here. */
enum { STEP_MS = 300000, FIRST_MONO_MS = 86400000 };

static struct sluice_slice age_key(void)
{
	return (struct sluice_slice){"age", 3};
}

size_t age_encode(uint8_t buf[AGE_RECORD_BYTES_MAX], const struct age *age)
{
	const uint64_t fixed[] = {age->epoch,	 age->boot_id,	age->boot_offset, age->at_mono,
				  age->claim_ms, age->stood_ms, age->seen_mono,	  age->seen_wall};

	static_assert(AGE_HEAD_BYTES + sizeof(fixed) == AGE_FIXED_BYTES, "what is behind the head");
	buf[0] = AGE_VERSION;
	buf[1] = age->doubting;
	put_be16(buf + 2, (uint16_t)age->shift_count);
	put_be32(buf + 4, 0);
	for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++)
		put_be64(buf + AGE_HEAD_BYTES + 8 * i, fixed[i]);
	for (uint32_t i = 0; i < age->shift_count; i++) {
		put_be64(buf + AGE_FIXED_BYTES + AGE_SHIFT_BYTES * i, age->shifts[i].at_mono);
		put_be64(buf + AGE_FIXED_BYTES + AGE_SHIFT_BYTES * i + 8, age->shifts[i].by_ms);
	}
	return AGE_FIXED_BYTES + AGE_SHIFT_BYTES * (size_t)age->shift_count;
}

int age_decode(struct sluice_slice value, struct age *ret)
{
	const uint8_t *at = value.data;

	*ret = (struct age){.epoch = UINT64_MAX};
	if (value.len < AGE_FIXED_BYTES || at[0] != AGE_VERSION ||
	    get_be16(at + 2) > AGE_SHIFTS_MAX ||
	    value.len != AGE_FIXED_BYTES + AGE_SHIFT_BYTES * (size_t)get_be16(at + 2))
		return store_damaged("its content is not valid");
	ret->doubting = at[1] != 0;
	ret->shift_count = get_be16(at + 2);
	ret->epoch = get_be64(at + 8);
	ret->boot_id = get_be64(at + 16);
	ret->boot_offset = get_be64(at + 24);
	ret->at_mono = get_be64(at + 32);
	ret->claim_ms = get_be64(at + 40);
	ret->stood_ms = get_be64(at + 48);
	ret->seen_mono = get_be64(at + 56);
	ret->seen_wall = get_be64(at + 64);
	at += AGE_FIXED_BYTES;
	for (uint32_t i = 0; i < ret->shift_count; i++, at += AGE_SHIFT_BYTES)
		ret->shifts[i] =
			(struct age_shift){.at_mono = get_be64(at), .by_ms = get_be64(at + 8)};
	return 0;
}

int age_read(struct store_txn *txn, struct age *ret)
{
	struct sluice_slice value;
	int rc = store_get(txn, STORE_META, age_key(), &value);

	*ret = (struct age){.epoch = UINT64_MAX};
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	return age_decode(value, ret);
}

static int age_write(struct store_txn *txn, const struct age *age)
{
	uint8_t buf[AGE_RECORD_BYTES_MAX];
	size_t bytes = age_encode(buf, age);

	return store_put(txn, STORE_META, age_key(), (struct sluice_slice){buf, bytes});
}

/* Merges the oldest two into one that makes no stamp older than it is. */
static void shift_add(struct age *age, uint64_t at_mono, uint64_t by_ms)
{
	if (age->shift_count == AGE_SHIFTS_MAX) {
		age->shifts[1].by_ms += age->shifts[0].by_ms;
		for (uint32_t i = 1; i < AGE_SHIFTS_MAX; i++)
			age->shifts[i - 1] = age->shifts[i];
		age->shift_count--;
	}
	age->shifts[age->shift_count++] = (struct age_shift){at_mono, by_ms};
}

/* The wall clock went back by this amount: the boot had claimed too much by it. */
static void claim_reduce(struct age *age, uint64_t back_ms)
{
	uint64_t by = back_ms < age->claim_ms ? back_ms : age->claim_ms;

	shift_add(age, age->at_mono, by);
	age->claim_ms -= by;
	age->stood_ms = 0;
	age->doubting = age->claim_ms > LIMIT_CLOCK_TRUST_MS;
}

int age_batch(struct store_txn *txn, struct batch_clock clock, struct age *age)
{
	uint64_t passed = clock.mono_ms > age->seen_mono ? clock.mono_ms - age->seen_mono : 0;
	uint64_t expected = age->seen_wall + passed;

	if (age->epoch == UINT64_MAX)
		age->epoch = clock.wall_ms - clock.mono_ms;
	else if (!age->doubting)
		return 0;
	else if (clock.wall_ms + STEP_MS < expected)
		claim_reduce(age, expected - clock.wall_ms);
	else if (clock.wall_ms > expected + STEP_MS)
		age->stood_ms = 0; /* a jump while the broker runs adds nothing to the claim */
	else
		age->stood_ms += passed;
	if (age->stood_ms >= LIMIT_CLOCK_STAND_MS)
		age->doubting = false;
	age->seen_mono = clock.mono_ms;
	age->seen_wall = clock.wall_ms;
	return age_write(txn, age);
}

/* ---- a start ---- */

int core_boot_clock(struct store_txn *txn, struct batch_clock process, uint64_t boot_id,
		    struct cmd_boot *ret)
{
	struct batch_clock last;
	struct age age;
	uint64_t mono_ms;
	int rc = core_clock_read(txn, &last);

	if (rc == 0)
		rc = age_read(txn, &age);
	if (rc != 0)
		return rc;
	if (last.mono_ms == 0 && last.wall_ms == 0)
		last = (struct batch_clock){FIRST_MONO_MS, process.wall_ms};
	*ret = (struct cmd_boot){.boot_id = boot_id};
	if (boot_id != 0 && age.boot_id == boot_id &&
	    process.mono_ms + age.boot_offset >= last.mono_ms) {
		mono_ms = process.mono_ms + age.boot_offset;
	} else {
		ret->by_wall = true;
		ret->away_ms = process.wall_ms > last.wall_ms ? process.wall_ms - last.wall_ms : 0;
		ret->back_ms = last.wall_ms > process.wall_ms ? last.wall_ms - process.wall_ms : 0;
		mono_ms = last.mono_ms + ret->away_ms;
	}
	ret->offset_ms = mono_ms - process.mono_ms;
	return 0;
}

/* The monotone clock was advanced by the time that the broker was away. */
static void boot_by_wall(struct age *age, const struct cmd_boot *boot, struct batch_clock clock)
{
	if (age->doubting && boot->back_ms > STEP_MS)
		claim_reduce(age, boot->back_ms);
	if (boot->away_ms > LIMIT_CLOCK_TRUST_MS) {
		/* A boot that was in doubt already has not been contradicted, and stays in
		 * doubt. */
		age->claim_ms = age->doubting ? age->claim_ms + boot->away_ms : boot->away_ms;
		age->stood_ms = age->doubting ? age->stood_ms : 0;
		age->at_mono = clock.mono_ms;
		age->doubting = true;
	}
	age->seen_mono = clock.mono_ms;
	age->seen_wall = clock.wall_ms;
}

int age_boot(struct apply *a, const struct cmd_boot *boot)
{
	struct age *age = &a->core->age;

	if (age->epoch == UINT64_MAX)
		age->epoch = a->wall_ms + boot->back_ms - a->mono_ms;
	if (boot->by_wall)
		boot_by_wall(age, boot, a->core->clock);
	age->boot_id = boot->boot_id;
	age->boot_offset = boot->offset_ms;
	return age_write(a->txn, age);
}

/* ---- while a command is applied ---- */

static uint64_t shifted(const struct age *age, uint64_t mono_ms)
{
	uint64_t by = 0;

	for (uint32_t i = 0; i < age->shift_count; i++)
		by += mono_ms < age->shifts[i].at_mono ? age->shifts[i].by_ms : 0;
	return by;
}

uint64_t age_now(const struct apply *a)
{
	return a->mono_ms + a->core->age.epoch;
}

uint64_t age_of_mono(const struct apply *a, uint64_t mono_ms)
{
	uint64_t by = shifted(&a->core->age, mono_ms);
	uint64_t passed = a->mono_ms > mono_ms ? a->mono_ms - mono_ms : 0;

	return passed > by ? passed - by : 0;
}

uint64_t age_of(const struct apply *a, uint64_t stamp)
{
	uint64_t now = age_now(a);

	/* On the age line, because stamps of older versions may be from before the beginning of the
	 * monotone clock. */
	if (stamp >= now)
		return 0;
	if (now - stamp > a->mono_ms)
		return now - stamp > shifted(&a->core->age, 0)
			       ? now - stamp - shifted(&a->core->age, 0)
			       : 0;
	return age_of_mono(a, a->mono_ms - (now - stamp));
}

uint64_t age_doubt(const struct apply *a)
{
	const struct age *age = &a->core->age;
	uint64_t left =
		LIMIT_CLOCK_STAND_MS > age->stood_ms ? LIMIT_CLOCK_STAND_MS - age->stood_ms : 0;

	return age->doubting ? a->mono_ms + left + 1 : 0;
}

uint64_t age_due(const struct apply *a, uint64_t due_mono_ms)
{
	return due_mono_ms + shifted(&a->core->age, due_mono_ms);
}

bool age_due_doubted(const struct apply *a, uint64_t due_mono_ms)
{
	return a->core->age.doubting && due_mono_ms < a->core->age.at_mono;
}

bool age_may_hold(const struct age *age, uint64_t mono_ms, uint64_t due_mono_ms)
{
	return due_mono_ms < age->at_mono &&
	       (age->doubting || mono_ms <= age->seen_mono + LIMIT_CLOCK_STAND_MS + 1);
}
