/* SPDX-License-Identifier: Apache-2.0
 * The store's own records: clocks and number of the last batch, the format, the applied index. */
#include "broker/core/base/counter.h"
#include "broker/core/base/meta.h"

static struct sluice_slice clock_key(void)
{
	return (struct sluice_slice){"clock", 5};
}

struct sluice_slice format_key(void)
{
	return (struct sluice_slice){"core_format", 11};
}

void format_encode(uint8_t buf[FORMAT_BYTES], uint32_t version)
{
	put_be32(buf, version);
}

bool format_decode(struct sluice_slice value, uint32_t *ret)
{
	if (value.len != FORMAT_BYTES)
		return false;
	*ret = get_be32(value.data);
	return true;
}

struct sluice_slice level_key(void)
{
	return (struct sluice_slice){"level", 5};
}

void level_encode(uint8_t buf[LEVEL_BYTES], uint32_t level)
{
	put_be32(buf, level);
}

int level_decode(struct sluice_slice value, uint32_t *ret)
{
	if (value.len != LEVEL_BYTES)
		return store_damaged("its content is not valid");
	*ret = get_be32(value.data);
	return 0;
}

int core_level_read(struct store_txn *txn, uint32_t *ret)
{
	struct sluice_slice value;
	int rc = store_get(txn, STORE_META, level_key(), &value);

	*ret = 0;
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	return level_decode(value, ret);
}

int core_store_check(struct store_txn *txn)
{
	struct sluice_slice value;
	uint32_t format, level;
	int rc = store_get(txn, STORE_META, format_key(), &value);

	if (rc == 0 && (!format_decode(value, &format) || format != FORMAT_VERSION))
		return SLUICE_E_SCHEMA;
	if (rc != 0 && rc != SLUICE_E_NOT_FOUND)
		return rc;
	rc = core_level_read(txn, &level);
	return rc == 0 && level > CORE_LEVEL ? SLUICE_E_SCHEMA : rc;
}

void clock_encode(uint8_t buf[CLOCK_BYTES], const struct clock_record *record)
{
	put_be64(buf, record->clock.mono_ms);
	put_be64(buf + 8, record->clock.wall_ms);
	put_be64(buf + CLOCK_1_BYTES, record->batch);
}

int clock_decode(struct sluice_slice value, struct clock_record *ret)
{
	const uint8_t *at = value.data;

	if (value.len != CLOCK_BYTES && value.len != CLOCK_1_BYTES)
		return store_damaged("its content is not valid");
	*ret = (struct clock_record){.clock = {.mono_ms = get_be64(at),
					       .wall_ms = get_be64(at + 8)},
				     .batch = value.len == CLOCK_1_BYTES
						      ? 0
						      : get_be64(at + CLOCK_1_BYTES)};
	return 0;
}

int clock_read(struct store_txn *txn, struct clock_record *ret)
{
	struct sluice_slice value;
	int rc = store_get(txn, STORE_META, clock_key(), &value);

	*ret = (struct clock_record){.batch = 0};
	if (rc != 0)
		return rc == SLUICE_E_NOT_FOUND ? 0 : rc;
	return clock_decode(value, ret);
}

int clock_write(struct store_txn *txn, const struct clock_record *record)
{
	uint8_t bytes[CLOCK_BYTES];

	clock_encode(bytes, record);
	return store_put(txn, STORE_META, clock_key(), (struct sluice_slice){bytes, sizeof(bytes)});
}

int core_clock_read(struct store_txn *txn, struct batch_clock *ret)
{
	struct clock_record record;
	int rc = clock_read(txn, &record);

	*ret = record.clock;
	return rc;
}

int core_batch_read(struct store_txn *txn, uint64_t *ret)
{
	struct clock_record record;
	int rc = clock_read(txn, &record);

	*ret = record.batch;
	return rc;
}

struct sluice_slice core_record_data(enum store_table table, struct sluice_slice key,
				     struct sluice_slice value)
{
	const struct sluice_slice clock = clock_key();

	if (table == STORE_META && key.len == clock.len &&
	    memcmp(key.data, clock.data, key.len) == 0 && value.len > CLOCK_1_BYTES)
		value.len = CLOCK_1_BYTES;
	return value;
}

int core_index_read(struct store_txn *txn, uint32_t gateway, uint64_t *ret)
{
	return counter_get(txn, gateway, COUNTER_INDEX, ret);
}
