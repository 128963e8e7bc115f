/* SPDX-License-Identifier: Apache-2.0
 *
 * Error codes. One table yields the codes, the names, the texts, the CLI's exit codes and the
 * documentation. A call returns 0 or one of these negative codes; nothing else.
 *
 * The numbers are part of the protocol (SPEC.md, "Status codes"): append only.
 */
#ifndef SLUICE_ERROR_H
#define SLUICE_ERROR_H

#include <stdbool.h>

#include "sluice/types.h"

/* X(name, code, exit code of the CLI, retriable, text) */
#define SLUICE_ERRORS(X)                                                                      \
	X(INVAL, -1, 2, false, "invalid argument")                                            \
	X(PROTOCOL, -2, 3, false, "malformed frame or message")                               \
	X(VERSION, -3, 3, false, "no common protocol version")                                \
	X(LIMIT, -4, 2, false, "a limit was exceeded")                                        \
	X(UNKNOWN_TYPE, -5, 3, false, "unknown frame or request type")                        \
	X(UNSUPPORTED, -6, 3, false, "not supported by this broker")                          \
	X(NOT_FOUND, -10, 4, false, "no such thing")                                          \
	X(EXISTS, -11, 5, false, "the name is taken")                                         \
	X(CONFLICT, -12, 5, false, "exists with different content")                           \
	X(WRONG_STATE, -13, 5, false, "not possible in this state")                           \
	X(STALE_TOKEN, -14, 6, false, "the lease is no longer held")                          \
	X(STALE_ATTEMPT, -15, 6, false, "the attempt is not the current one")                 \
	X(CANCELLED, -16, 6, false, "the job was cancelled")                                  \
	X(NO_ROUTE, -17, 4, false, "nothing is bound to this subject")                        \
	X(SEQUENCE_GAP, -18, 3, true, "an earlier sequence number is missing")                \
	X(PRODUCER_EVICTED, -19, 6, false, "the producer's record was evicted")               \
	X(PRODUCER_FENCED, -20, 6, false, "a newer epoch of this producer exists")            \
	X(QUEUE_FULL, -21, 7, true, "the queue is at its limit")                              \
	X(NO_SPACE, -22, 7, true, "the store has no room for more; this clears by itself")    \
	X(BUSY, -23, 7, true, "the broker is at its limit; try again")                        \
	X(SESSION_GONE, -24, 6, false, "the session has ended")                               \
	X(DENIED, -25, 8, false, "not permitted")                                             \
	X(IN_USE, -26, 5, false, "still in use")                                              \
	X(QUARANTINED, -27, 6, false, "the report is stale or illegal and was quarantined")   \
	X(OWNED, -28, 5, false, "it belongs to another session")                              \
	X(BAD_VERSION, -29, 5, false, "the version is not the expected one")                  \
	X(NO_CHILDREN, -30, 5, false, "an ephemeral node has no children")                    \
	X(NOT_EMPTY, -31, 5, false, "it is not empty")                                        \
	X(BAD_ACL, -32, 2, false, "the access list is malformed")                             \
	X(QUOTA, -33, 7, true, "an allowance of the gateway or the subtree is used up")       \
	X(NOT_LEADER, -34, 10, true, "another broker leads")                                  \
	X(UNAVAILABLE, -35, 10, true, "the journal accepts nothing; this clears by itself")   \
	X(BEHIND, -36, 10, true, "this replica has not reached the index that was asked for") \
	X(TIMEOUT, -40, 9, true, "the deadline passed")                                       \
	X(DISCONNECTED, -41, 10, true, "no connection to the broker")                         \
	X(UNKNOWN, -42, 10, true,                                                             \
	  "the outcome is unknown: the connection or commit failed meanwhile")                \
	X(CLOSED, -43, 10, false, "closed")                                                   \
	X(BUFFER_FULL, -44, 7, true, "the publish buffer is full")                            \
	X(NOMEM, -50, 11, true, "out of memory")                                              \
	X(IO, -51, 11, false, "input/output error")                                           \
	X(CORRUPT, -52, 12, false, "a stored record is damaged")                              \
	X(SCHEMA, -53, 12, false, "the store has another schema version")                     \
	X(LOCKED, -54, 11, false, "the data directory is in use")                             \
	X(INTERNAL, -60, 13, false, "internal error")

enum sluice_error_code {
	SLUICE_OK = 0,
#define SLUICE_ERROR_ENUM(name, code, exit, retriable, text) SLUICE_E_##name = code,
	SLUICE_ERRORS(SLUICE_ERROR_ENUM)
#undef SLUICE_ERROR_ENUM
};

#ifdef __cplusplus
extern "C" {
#endif

/* Of a code: its text, its name without the prefix, the exit code of the CLI, and whether the same
 * request may succeed later. Any thread; none blocks or fails; texts are static. A code that is not
 * in the table has "unknown error", "INTERNAL", 13, false. */
SLUICE_API const char *sluice_error_text(int code);
SLUICE_API const char *sluice_error_name(int code);
SLUICE_API int sluice_error_exit_code(int code);
SLUICE_API bool sluice_error_retriable(int code);

#ifdef __cplusplus
}
#endif

#endif
