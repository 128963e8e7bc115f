/* SPDX-License-Identifier: Apache-2.0
 * uthash as used by the library: with the allocator hook, and without ending the process. */
#ifndef SLUICE_CLIENT_BASE_HASH_H
#define SLUICE_CLIENT_BASE_HASH_H

#include "client/base/memory.h"

#define uthash_malloc(bytes) mem_alloc(bytes)
#define uthash_free(old, bytes) mem_free(old)
#define HASH_NONFATAL_OOM 1
#include <uthash.h>
/* An entry that could not be added has no table: to be checked after each HASH_ADD. */
#define HASHED(entry) ((entry)->hh.tbl != NULL)

#endif
