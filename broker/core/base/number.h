/* SPDX-License-Identifier: Apache-2.0
 * Records whose value is one number (u64): counters, targets of names, the number of jobs of a
 * lifecycle, the job of a queue's entry. */
#ifndef SLUICE_CORE_BASE_NUMBER_H
#define SLUICE_CORE_BASE_NUMBER_H

#include <stdbool.h>

#include "broker/store/store.h"
#include "broker/util/bytes.h"

enum { NUMBER_BYTES = 8 };

/* Returns the buffer as a slice. */
static inline struct sluice_slice number_encode(uint8_t buf[NUMBER_BYTES], uint64_t number)
{
	put_be64(buf, number);
	return (struct sluice_slice){buf, NUMBER_BYTES};
}
/* False: the length is wrong. */
static inline bool number_read(struct sluice_slice value, uint64_t *ret)
{
	if (value.len != NUMBER_BYTES)
		return false;
	*ret = get_be64(value.data);
	return true;
}
/* The same for the record that the store read last: CORRUPT, with its key. */
static inline int number_decode(struct sluice_slice value, uint64_t *ret)
{
	return number_read(value, ret) ? 0 : store_damaged("its content is not valid");
}

#endif
