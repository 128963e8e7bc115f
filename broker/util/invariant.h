/* SPDX-License-Identifier: Apache-2.0
 *
 * Assertions that stay on in release builds: what the headers promise about records, states and
 * lists is checked where it changes.
 *
 *     invariant(cell->head <= cell->tail, "queue %llu: head %llu, tail %llu", queue, head, tail);
 *
 * A broken one is a bug of the broker, and what it would write next cannot be trusted: one line
 * (file, line, function, condition, values) goes to the log at level error, then the process
 * aborts. A write transaction that is open at that point is not committed, so the store stays as
 * the last commit left it.
 *
 * Never for input (that is refused), never for a failed allocation (NOMEM), never for a stored
 * record as it is read (CORRUPT). The condition is evaluated exactly once and must have no effect
 * of its own; the values are evaluated only if it is false.
 * The cost of one that holds is a compare and a branch that is predicted: the failing side is in
 * another, cold section.
 *
 * Allowed in broker/core: it includes nothing of the system, and a condition that holds does
 * nothing.
 */
#ifndef SLUICE_BROKER_UTIL_INVARIANT_H
#define SLUICE_BROKER_UTIL_INVARIANT_H

/* Longer texts are cut. */
#define INVARIANT_TEXT_BYTES_MAX 512

/*
 * Logs and aborts. All strings are borrowed; `format` is printf's. Any thread; never returns; may
 * block as long as the reader of the log does. Called by invariant() only.
 */
__attribute__((cold, noinline, noreturn, format(printf, 5, 6))) void invariant_broken(
	const char *file, int line, const char *function, const char *condition, const char *format,
	...);

/* A value for %llu. */
#define ULL(number) ((unsigned long long)(number))

#define invariant(condition, ...)                                                                \
	do {                                                                                     \
		if (__builtin_expect(!(condition), 0))                                           \
			invariant_broken(__FILE__, __LINE__, __func__, #condition, __VA_ARGS__); \
	} while (0)

#endif
