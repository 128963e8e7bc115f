/* SPDX-License-Identifier: Apache-2.0
 * The data directory under the LMDB implementation: suitable file systems, a lock against other
 * processes, descriptors that children must not inherit, disk allocated ahead. Does not use
 * LMDB. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "broker/store/lmdb/lmdb_dir.h"
#include "broker/store/store_impl.h"

enum { DESCRIPTORS_MAX = 65536 };

static const uint64_t reserve_step_bytes = 1ull << 20;

uint64_t dir_disk_free(const char *dir)
{
	struct statvfs fs;

	if (statvfs(dir, &fs) != 0)
		return UINT64_MAX;
	return (uint64_t)fs.f_bavail * fs.f_frsize;
}

uint64_t dir_file_bytes_max(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return UINT64_MAX;
	return limit.rlim_cur;
}

int dir_fail(int code, const char **ret_why, const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	(void)store_fail(code, "%s", text);
	*ret_why = store_last_error();
	return code;
}

int dir_path(char path[DIR_PATH_BYTES_MAX], const char *dir, const char *name, const char **ret_why)
{
	if ((size_t)snprintf(path, DIR_PATH_BYTES_MAX, "%s/%s", dir, name) < DIR_PATH_BYTES_MAX)
		return 0;
	return dir_fail(SLUICE_E_LIMIT, ret_why, "its name is longer than %d bytes",
			DIR_PATH_BYTES_MAX - 1);
}

int dir_check(const char *dir, bool create, bool *ret_store, bool *ret_made, const char **ret_why)
{
	/* f_type of file systems whose locks and mapped files are unreliable: NFS, SMB, SMB2, CIFS,
	 * AFS, Ceph. */
	static const uint32_t network[] = {0x6969,     0x517b,	   0xfe534d42,
					   0xff534d42, 0x5346414f, 0x00c36400};
	char path[DIR_PATH_BYTES_MAX];
	struct statfs fs;
	int rc = dir_path(path, dir, "data.mdb", ret_why);

	if (rc != 0)
		return rc;
	*ret_made = false;
	if (create && mkdir(dir, 0700) == 0)
		*ret_made = true;
	else if (create && errno != EEXIST)
		return dir_fail(SLUICE_E_IO, ret_why, "it cannot be made (mkdir): %s",
				strerror(errno));
	if (statfs(dir, &fs) != 0)
		return dir_fail(errno == ENOENT ? SLUICE_E_NOT_FOUND : SLUICE_E_IO, ret_why,
				"its file system cannot be asked for (statfs): %s",
				strerror(errno));
	for (size_t i = 0; i < sizeof(network) / sizeof(network[0]); i++) {
		if ((uint32_t)fs.f_type == network[i]) {
			return dir_fail(SLUICE_E_UNSUPPORTED, ret_why,
					"the directory is on a network file system; expected a "
					"local one");
		}
	}
	*ret_store = access(path, F_OK) == 0;
	return 0;
}

/* A file that a failed start removed between open and lock protects nothing. */
static bool is_there(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

int dir_lock(const char *dir, bool read_only, int *ret_fd, const char **ret_why)
{
	char path[DIR_PATH_BYTES_MAX];
	bool existed;
	int fd, rc = dir_path(path, dir, "sluice.lock", ret_why);

	if (rc != 0)
		return rc;
	existed = access(path, F_OK) == 0;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EROFS && read_only) {
		*ret_fd = -1;
		return 0;
	}
	if (fd < 0)
		return dir_fail(SLUICE_E_IO, ret_why, "sluice.lock cannot be opened in it: %s",
				strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno == EWOULDBLOCK) {
			rc = dir_fail(SLUICE_E_LOCKED, ret_why,
				      "another process has the store open");
		} else {
			rc = dir_fail(SLUICE_E_IO, ret_why, "sluice.lock cannot be locked: %s",
				      strerror(errno));
			if (!existed)
				(void)unlink(path);
		}
		(void)close(fd);
		return rc;
	}
	if (!is_there(fd)) {
		(void)close(fd);
		return dir_lock(dir, read_only, ret_fd, ret_why);
	}
	*ret_fd = fd;
	return 0;
}

int dir_remove(const char *path, const char **ret_why)
{
	if (unlink(path) == 0 || errno == ENOENT)
		return 0;
	return dir_fail(SLUICE_E_IO, ret_why,
			"%.200s, which an earlier start left, cannot be removed: %s", path,
			strerror(errno));
}

int dir_rename(const char *dir, const char *path, const char *name, const char **ret_why)
{
	char to[DIR_PATH_BYTES_MAX];
	int fd, rc = dir_path(to, dir, name, ret_why);

	if (rc != 0)
		return rc;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		rc = dir_fail(SLUICE_E_IO, ret_why, "it cannot be opened: %s", strerror(errno));
	else if (rename(path, to) != 0)
		rc = dir_fail(SLUICE_E_IO, ret_why, "the new store cannot be renamed to %s: %s",
			      name, strerror(errno));
	else if (fsync(fd) != 0)
		rc = dir_fail(SLUICE_E_IO, ret_why, "it cannot be synced (fsync): %s",
			      strerror(errno));
	if (fd >= 0)
		(void)close(fd);
	return rc;
}

void dir_discard(const char *dir, bool made)
{
	static const char *const names[] = {"data.mdb.new", "data.mdb", "lock.mdb", "sluice.lock"};
	char path[DIR_PATH_BYTES_MAX];
	const char *why;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (dir_path(path, dir, names[i], &why) == 0)
			(void)unlink(path);
	if (made)
		(void)rmdir(dir);
}

static void close_on_exec_if(int fd, const struct stat *want)
{
	struct stat st;

	if (fstat(fd, &st) == 0 && st.st_dev == want->st_dev && st.st_ino == want->st_ino)
		(void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

/* Open descriptors are listed in /proc. Without it every possible number is checked, which takes
 * many times as long. */
void dir_close_on_exec(int fd)
{
	long max = sysconf(_SC_OPEN_MAX);
	DIR *open_ones = opendir("/proc/self/fd");
	const struct dirent *entry;
	struct stat want;

	if (open_ones != NULL && fstat(fd, &want) == 0) {
		while ((entry = readdir(open_ones)) != NULL)
			if (entry->d_name[0] != '.')
				close_on_exec_if((int)strtol(entry->d_name, NULL, 10), &want);
	} else if (open_ones == NULL && fstat(fd, &want) == 0) {
		for (int other = 0;
		     other < (max > 0 && max < DESCRIPTORS_MAX ? (int)max : DESCRIPTORS_MAX);
		     other++)
			close_on_exec_if(other, &want);
	}
	if (open_ones != NULL)
		(void)closedir(open_ones);
}

/* For a file system that cannot allocate: writes zeros and truncates again. Nothing is allocated
 * behind the file's end there. */
static int written_error(int fd, uint64_t from, uint64_t bytes)
{
	static const char zeros[4096];
	uint64_t done = 0;
	struct stat st;
	int error = 0;

	if (fstat(fd, &st) != 0)
		return errno;
	while (done < bytes && error == 0) {
		ssize_t put = pwrite(fd, zeros, sizeof(zeros), (off_t)(from + done));

		if (put > 0)
			done += (uint64_t)put;
		else
			error = put == 0 ? ENOSPC : errno == EINTR ? 0 : errno;
	}
	(void)!ftruncate(fd, st.st_size);
	return error;
}

int dir_room_error(int fd, uint64_t from, uint64_t bytes)
{
	int rc;

	do
		rc = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)bytes);
	while (rc != 0 && errno == EINTR);
	if (rc == 0)
		return 0;
	if (errno == EOPNOTSUPP || errno == ENOSYS || errno == ENODEV)
		return written_error(fd, from, bytes);
	return errno;
}

static int allocate(int fd, uint64_t from, uint64_t end)
{
	struct statvfs fs;
	struct stat st;
	int rc;

	if (fstat(fd, &st) != 0 || fstatvfs(fd, &fs) != 0)
		return store_fail(SLUICE_E_IO, "allocating ahead: %s", strerror(errno));
	/* Checked before: an allocation that fails half-way keeps what it allocated, the rest of
	 * the disk. */
	if (end > (uint64_t)st.st_blocks * 512 &&
	    end - (uint64_t)st.st_blocks * 512 > (uint64_t)fs.f_bavail * fs.f_frsize)
		return store_fail(SLUICE_E_NO_SPACE,
				  "allocating ahead: the disk has too little room");
	/* Allocating again what is allocated already costs a walk of its extents. */
	do
		rc = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(end - from));
	while (rc != 0 && errno == EINTR);
	if (rc == 0)
		return 0;
	if (errno == EOPNOTSUPP || errno == ENOSYS || errno == ENODEV)
		return store_fail(SLUICE_E_UNSUPPORTED, "the file system cannot allocate ahead");
	if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
		return store_fail(SLUICE_E_NO_SPACE, "allocating ahead: %s", strerror(errno));
	return store_fail(SLUICE_E_IO, "allocating ahead: %s", strerror(errno));
}

int dir_reserve(int fd, uint64_t least, uint64_t most, uint64_t *io_done)
{
	int rc;

	if (least <= *io_done)
		return 0;
	/* Begins at the last known end, so that holes are filled, too. */
	rc = allocate(fd, *io_done, most);
	if (rc == 0) {
		*io_done = most;
		return 0;
	}
	/* On a full disk the allocation of an earlier process is still there; it is found in
	 * steps. */
	while (rc == SLUICE_E_NO_SPACE && *io_done < least) {
		uint64_t end = *io_done + reserve_step_bytes < least ? *io_done + reserve_step_bytes
								     : least;

		rc = allocate(fd, *io_done, end);
		if (rc != 0)
			return rc;
		*io_done = end;
		rc = SLUICE_E_NO_SPACE;
	}
	return *io_done >= least ? 0 : rc;
}
