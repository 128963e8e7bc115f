/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of jobs against the broker's ledger.
 */
#ifndef SLUICE_LOCAL_COMPARE_H
#define SLUICE_LOCAL_COMPARE_H

#include "state.h"

/* The next comparison is due in 100 ms. */
void compare_soon(struct service *service);
/* Starts a comparison when one is due. */
void compare_turn(struct service *service, uint64_t now_ms);

#endif
