/* SPDX-License-Identifier: Apache-2.0
 * The store's own records: the clocks as of the last commit, the format, the applied index. */
#include "broker/core/base/counter.h"
#include "broker/core/base/meta.h"

enum { CLOCK_BYTES = 16 };

static struct sluice_slice clock_key(void)
{
	return (struct sluice_slice){"clock", 5};
}

struct sluice_slice format_key(void)
{
	return (struct sluice_slice){"core_format", 11};
}

int core_clock_read(struct store_txn *txn, struct batch_clock *ret)
{
	struct sluice_slice value;
	int rc = store_get(txn, STORE_META, clock_key(), &value);

	if (rc == SLUICE_E_NOT_FOUND) {
		*ret = (struct batch_clock){0, 0};
		return 0;
	}
	if (rc == 0 && value.len != CLOCK_BYTES)
		rc = store_damaged("its content is not valid");
	if (rc != 0)
		return rc;
	ret->mono_ms = get_be64(value.data);
	ret->wall_ms = get_be64((const uint8_t *)value.data + 8);
	return 0;
}

int clock_write(struct store_txn *txn, struct batch_clock clock)
{
	uint8_t bytes[CLOCK_BYTES];

	put_be64(bytes, clock.mono_ms);
	put_be64(bytes + 8, clock.wall_ms);
	return store_put(txn, STORE_META, clock_key(), (struct sluice_slice){bytes, sizeof(bytes)});
}

int core_index_read(struct store_txn *txn, uint32_t gateway, uint64_t *ret)
{
	return counter_get(txn, gateway, COUNTER_INDEX, ret);
}
