/* SPDX-License-Identifier: Apache-2.0
 * data.mdb before LMDB opens it: the file's layout, without LMDB's interface. */
#ifndef SLUICE_STORE_LMDB_FILE_H
#define SLUICE_STORE_LMDB_FILE_H

#include "sluice/error.h"

/* Whether LMDB can trust data.mdb. Reads only; no process may write to it meanwhile. Blocks for
 * reads. CORRUPT: the file is damaged or cut off; IO: it cannot be read, or is no regular file;
 * NOMEM. store_last_error() has the details. */
int lmdb_file_check(const char *path) SLUICE_MUST_USE;
/* Checks each page of one table's tree, in time proportional to the table's size. Results as above,
 * for a file that lmdb_file_check has accepted; a table that does not exist is accepted. */
int lmdb_file_check_table(const char *path, const char *table) SLUICE_MUST_USE;

#endif
