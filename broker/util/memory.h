/* SPDX-License-Identifier: Apache-2.0
 * Ends the process when there is no memory for data that must not be lost. The policy is in
 * broker/engine/README.md, "Without memory". */
#ifndef SLUICE_BROKER_UTIL_MEMORY_H
#define SLUICE_BROKER_UTIL_MEMORY_H

enum { MEMORY_EXIT_CODE = 11 }; /* that of NOMEM in sluice/error.h */

/* Logs what the memory was needed for and ends the process with the exit code of NOMEM. Any thread;
 * never returns. An open write transaction is not committed. borrows what. */
__attribute__((cold, noinline, noreturn)) void memory_fail_stop(const char *what);

#endif
