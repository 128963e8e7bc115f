/* SPDX-License-Identifier: Apache-2.0
 * Types shared by client.h and plugin.h. */
#ifndef SLUICE_TYPES_H
#define SLUICE_TYPES_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define SLUICE_API __attribute__((visibility("default")))
#define SLUICE_MUST_USE __attribute__((warn_unused_result))
#else
#define SLUICE_API
#define SLUICE_MUST_USE
#endif

/* Borrowed bytes: not owned, not terminated. data may be NULL when len is 0. */
struct sluice_slice {
	const void *data;
	size_t len;
};
typedef struct sluice_slice sluice_slice;

/* Milliseconds since 1970-01-01 UTC. */
typedef uint64_t sluice_time_ms;

/* An index: (epoch 16 bits, counter 48 bits), one per command and gateway. It only grows. */
typedef uint64_t sluice_index;

/* A fencing token: the index of the command that granted the lease. */
typedef uint64_t sluice_token;

#endif
