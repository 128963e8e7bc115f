/* SPDX-License-Identifier: Apache-2.0
 * Of the LMDB implementation: converts an error number of LMDB or the system to one of SLUICE_E_*
 * with its text. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "broker/store/lmdb/lmdb_dir.h"
#include "broker/store/lmdb/lmdb_impl.h"

enum { PROBE_BYTES = 1 << 20 };

/* NO_SPACE, with the text of ENOSPC, EDQUOT or EFBIG. */
static int no_space(int error)
{
	return store_fail(SLUICE_E_NO_SPACE, "writing data.mdb: %s%s", strerror(error),
			  error == EFBIG    ? " (the limit of file sizes: ulimit -f, LimitFSIZE=)"
			  : error == EDQUOT ? " (the quota of the user, group or project)"
					    : "");
}

/* LMDB returns EIO for a write that was cut short, as happens at the end of the disk, of a quota,
 * or of the limit of file sizes. True: it was one of these, and store_last_error() says which.
 * Allocates up to 1 MiB of disk ahead to find out. Writer's thread. */
static bool short_write(const struct lmdb *lmdb)
{
	uint64_t reserved = atomic_load(&lmdb->reserved_end), max = dir_file_bytes_max(), size;
	struct stat st;
	int fd, error = 0;

	if (lmdb->env != NULL && mdb_env_get_fd(lmdb->env, &fd) == 0 && fstat(fd, &st) == 0) {
		size = (uint64_t)st.st_size;
		/* A map that ends below the limit never reaches it. */
		if (max < lmdb->map_bytes && size + PROBE_BYTES > max)
			error = EFBIG;
		else
			error = dir_room_error(fd, size > reserved ? size : reserved, PROBE_BYTES);
	}
	if (dir_disk_free(lmdb->dir) < PROBE_BYTES)
		error = ENOSPC;
	if (error != ENOSPC && error != EDQUOT && error != EFBIG)
		return false;
	return no_space(error) == SLUICE_E_NO_SPACE;
}

int lmdb_error(const struct lmdb *lmdb, int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return SLUICE_E_NOT_FOUND;
	case MDB_MAP_FULL:
	case MDB_TXN_FULL:
		return store_fail(SLUICE_E_NO_SPACE, "%s", mdb_strerror(rc));
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return no_space(rc);
	case EIO:
		return short_write(lmdb) ? SLUICE_E_NO_SPACE
					 : store_fail(SLUICE_E_IO, "data.mdb: %s", strerror(rc));
	case ENOMEM:
		return SLUICE_E_NOMEM;
	case MDB_READERS_FULL:
		return store_fail(SLUICE_E_BUSY, "%d read transactions are open", LMDB_READERS_MAX);
	case MDB_CORRUPTED:
	case MDB_PAGE_NOTFOUND:
	case MDB_INVALID:
		return store_fail(SLUICE_E_CORRUPT, "the database file: %s", mdb_strerror(rc));
	case MDB_BAD_VALSIZE:
		return store_fail(SLUICE_E_LIMIT, "a key is empty or longer than 511 bytes");
	default:
		return store_fail(SLUICE_E_IO, "%s", mdb_strerror(rc));
	}
}

int lmdb_step_failed(const struct lmdb *lmdb, int rc, const char *step, const char **ret_why)
{
	int code = lmdb_error(lmdb, rc);
	char cause[300];

	(void)snprintf(cause, sizeof(cause), "%s",
		       code == SLUICE_E_NOMEM || code == SLUICE_E_NOT_FOUND ? mdb_strerror(rc)
									    : store_last_error());
	if (rc == ENOMEM)
		return dir_fail(code, ret_why,
				"%s: %s; a map of %" PRIu64
				" MiB may be too large (map_mib, ulimit -v)",
				step, cause, lmdb->map_bytes >> 20);
	return dir_fail(code, ret_why, "%s: %s", step, cause);
}
