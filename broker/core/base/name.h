/* SPDX-License-Identifier: Apache-2.0
 *
 * Names -> numbers.
 */
#ifndef SLUICE_CORE_BASE_NAME_H
#define SLUICE_CORE_BASE_NAME_H

#include "broker/core/base/apply.h"

enum name_kind {
	NAME_STREAM = 1,
	NAME_QUEUE,
	NAME_ROUTER,
	NAME_MACHINE,
	NAME_JOB,
	NAME_SESSION,
	NAME_PRODUCER,
	NAME_CURSOR /* "<stream id>/<name>" */,
	NAME_GATEWAY /* under gateway 0 */,
	NAME_PARKED /* job id -> its newest parked row */,
	NAME_EDGE /* target kind u8, target u64, router u64, pattern -> edge */,
	NAME_SOURCE = 20,
	NAME_QUARANTINED = 30 /* job id -> its newest row in quarantine that is not parked */
};
int name_find(struct store_txn *txn, uint32_t gateway, enum name_kind kind, struct sluice_slice name,
	      uint64_t *ret) SLUICE_MUST_USE;
int name_put(struct apply *a, enum name_kind kind, struct sluice_slice name, uint64_t id) SLUICE_MUST_USE;
int name_del(struct apply *a, enum name_kind kind, struct sluice_slice name) SLUICE_MUST_USE;

#endif
