/* SPDX-License-Identifier: Apache-2.0
 *
 * Structs of client.h begin with their size, so that a program built against an older or a newer
 * header and this library use what both know. Everything that comes from the program is taken, and
 * everything that goes into its structs is filled, by a function of this page.
 */
#ifndef SLUICE_CLIENT_BASE_SIZED_H
#define SLUICE_CLIENT_BASE_SIZED_H

#include <stddef.h>
#include <stdint.h>

#include "sluice/client.h"

enum { SIZED_MAX = 4096 };

/* TAKEN: X(name, last member of the struct's first version). A program makes them. */
#define SIZED_TAKEN(X)                \
	X(allocator, release)         \
	X(call, user)                 \
	X(stream_spec, max_events)    \
	X(queue_spec, max_items)      \
	X(router_spec, description)   \
	X(edge, target)               \
	X(message, time_ms)           \
	X(follow_spec, user)          \
	X(consume_spec, source)       \
	X(job_spec, payload)          \
	X(job_report_spec, number)    \
	X(job_filter, holder_session) \
	X(job_audit_spec, orphan_ms)  \
	X(source_heartbeat_spec, text)

/* FILLED: the same; the library writes into them. */
#define SIZED_FILLED(X)                       \
	X(stream_info, max_events)            \
	X(queue_info, bytes)                  \
	X(lifecycle_info, states)             \
	X(lifecycle_state, next)              \
	X(publish_stats, in_flight)           \
	X(job_info, memory_peak_bytes)        \
	X(job_history_row, memory_peak_bytes) \
	X(quarantine_row, time_ms)            \
	X(job_audit_info, next_number)

/* What this library knows of a struct. */
struct sized {
	const char *name;
	uint32_t size;	/* now */
	uint32_t first; /* of its first version: no program has a smaller one */
};

/* The cases where the sizes differ. INVAL, UNSUPPORTED: error_set() has why. */
int sized_copy(const struct sized *of, const void *theirs, void *own);
int sized_check(const struct sized *of, const void *theirs);
void sized_fill(const struct sized *of, void *theirs, const void *own);

#define SIZED_ROW(type, last)                                                         \
	{                                                                             \
#type, sizeof(type), offsetof(type, last) + sizeof(((type *)0)->last) \
	}

/* name_take(): *io may be NULL; else it points to a struct of this library's size, which is the
 * program's own, or a copy in *own. */
#define SIZED_TAKE(name, last)                                                      \
	static inline int name##_take(const sluice_##name **io, sluice_##name *own) \
	{                                                                           \
		static const struct sized of = SIZED_ROW(sluice_##name, last);      \
		const sluice_##name *theirs = *io;                                  \
                                                                                    \
		if (theirs == NULL || theirs->size == sizeof(*own))                 \
			return 0;                                                   \
		*io = own;                                                          \
		return sized_copy(&of, theirs, own);                                \
	}
SIZED_TAKEN(SIZED_TAKE)

/* name_fill(): copies what *ret has room for. False: its size is not valid, error_set() has why. */
#define SIZED_FILL(name, last)                                                       \
	static inline bool name##_fill(sluice_##name *ret, const sluice_##name *own) \
	{                                                                            \
		static const struct sized of = SIZED_ROW(sluice_##name, last);       \
                                                                                     \
		if (sized_check(&of, ret) != 0)                                      \
			return false;                                                \
		sized_fill(&of, ret, own);                                           \
		return true;                                                         \
	}
SIZED_FILLED(SIZED_FILL)

#endif
