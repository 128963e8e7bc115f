/* SPDX-License-Identifier: Apache-2.0
 *
 * uthash for the broker. By itself it ends the process, without a word, when it gets no memory for its table; here an entry that could
 * not be added has no table (HASHED), and whoever adds it refuses what it was for. Files of the broker include this and not uthash.h.
 */
#ifndef SLUICE_BROKER_UTIL_HASH_H
#define SLUICE_BROKER_UTIL_HASH_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/* After HASH_ADD(hh, ...): whether the entry is in the table. If it is not, the table is as it was before. */
#define HASHED(hh, entry) ((entry)->hh.tbl != NULL)

#endif
