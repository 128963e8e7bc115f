/* SPDX-License-Identifier: Apache-2.0
 * Types shared by client.h and plugin.h, and how structs are made. */
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

/* Borrowed bytes: not owned, not terminated. data may be NULL when len is 0. This struct has no
 * size and never changes. */
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

/* A struct of the given type whose size is set and whose other members are as given, or 0. In C the
 * value has an address, so that `&SLUICE_CALL(.deadline_ms = 100)` can be an argument; it lives as
 * long as the block around it. In C++ it is a value for a variable: members are named from C++20
 * on, in the order of their declaration (g++ -Wextra warns about those that are not); before that
 * the list is empty and members are assigned. */
#ifdef __cplusplus
extern "C++" {
template <typename T> inline T sluice_sized(T made)
{
	made.size = sizeof(T);
	return made;
}
}
#define SLUICE_MAKE(type, ...) sluice_sized(type{__VA_ARGS__})
#else
#define SLUICE_MAKE(type, ...) ((type){.size = sizeof(type), __VA_ARGS__})
#endif

/* Whether a struct that the library made has the member: a library that is older than the program's
 * header does not know members that were appended since. */
#define SLUICE_HAS(pointer, member)                                                    \
	((size_t)((const char *)(&(pointer)->member + 1) - (const char *)(pointer)) <= \
	 (pointer)->size)

#endif
