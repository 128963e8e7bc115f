/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers in order of arrival, per gateway, in hot cells.
 */
#ifndef SLUICE_CORE_BASE_COUNTER_H
#define SLUICE_CORE_BASE_COUNTER_H

#include "broker/core/base/apply.h"

enum counter {
	COUNTER_INDEX = 1,
	COUNTER_STREAM,
	COUNTER_QUEUE,
	COUNTER_ROUTER,
	COUNTER_EDGE,
	COUNTER_LIFECYCLE,
	COUNTER_JOB,
	COUNTER_SESSION,
	COUNTER_PRODUCER,
	COUNTER_HIST,
	COUNTER_QUAR,
	COUNTER_CURSOR,
	COUNTER_TOPO_VERSION,
	COUNTER_QUAR_FIRST,
	COUNTER_QUAR_DROPPED,
	COUNTER_JOBS_OPEN,
	COUNTER_GATEWAY /* under gateway 0 */,
	COUNTER_JOB_KEEP_MS /* + 1; 0: the default */,
	COUNTER_JOBS,
	COUNTER_QUAR_ROWS,
	COUNTER_PARKED /* rows of QUAR that wait for their job */,
	COUNTER_TICK_FIRST /* under gateway 0: gateway - 1 that the next TICK begins with */,
	COUNTER_SESSIONS /* open now */,
	COUNTER_EDGES /* now */,
	COUNTER_SOURCE = 34
};
int counter_next(struct apply *a, enum counter counter,
		 uint64_t *ret) SLUICE_MUST_USE; /* first is 1 */
int counter_get(struct store_txn *txn, uint32_t gateway, enum counter counter,
		uint64_t *ret) SLUICE_MUST_USE; /* 0 when unset */
int counter_set(struct apply *a, enum counter counter, uint64_t value) SLUICE_MUST_USE;
int counter_add(struct apply *a, enum counter counter, int64_t delta) SLUICE_MUST_USE;

#endif
