/* SPDX-License-Identifier: Apache-2.0
 *
 * uthash for the broker. By default uthash ends the process without a message when it has no memory
 * for its table. Here an entry that could not be added has no table (HASHED), and the caller
 * refuses the request. Files of the broker include this and not uthash.h.
 */
#ifndef SLUICE_BROKER_UTIL_HASH_H
#define SLUICE_BROKER_UTIL_HASH_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/* After HASH_ADD(hh, ...): whether the entry was added. If not, the table is unchanged. */
#define HASHED(hh, entry) ((entry)->hh.tbl != NULL)

#endif
