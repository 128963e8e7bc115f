/* SPDX-License-Identifier: Apache-2.0
 * The store's own records: the clocks as of the last commit, the format, the applied index. */
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

void clock_encode(uint8_t buf[CLOCK_BYTES], struct batch_clock clock)
{
	put_be64(buf, clock.mono_ms);
	put_be64(buf + 8, clock.wall_ms);
}

int clock_decode(struct sluice_slice value, struct batch_clock *ret)
{
	const uint8_t *at = value.data;

	if (value.len != CLOCK_BYTES)
		return store_damaged("its content is not valid");
	*ret = (struct batch_clock){.mono_ms = get_be64(at), .wall_ms = get_be64(at + 8)};
	return 0;
}

int core_clock_read(struct store_txn *txn, struct batch_clock *ret)
{
	struct sluice_slice value;
	int rc = store_get(txn, STORE_META, clock_key(), &value);

	if (rc == SLUICE_E_NOT_FOUND) {
		*ret = (struct batch_clock){0, 0};
		return 0;
	}
	return rc != 0 ? rc : clock_decode(value, ret);
}

int clock_write(struct store_txn *txn, struct batch_clock clock)
{
	uint8_t bytes[CLOCK_BYTES];

	clock_encode(bytes, clock);
	return store_put(txn, STORE_META, clock_key(), (struct sluice_slice){bytes, sizeof(bytes)});
}

int core_index_read(struct store_txn *txn, uint32_t gateway, uint64_t *ret)
{
	return counter_get(txn, gateway, COUNTER_INDEX, ret);
}
