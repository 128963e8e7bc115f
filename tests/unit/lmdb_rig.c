/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/lmdb_rig.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#define INTERPOSED __attribute__((visibility("default")))

/* ---- system calls ---- */

enum { META_PAGES = 2, PAGE_BYTES = 4096 };

struct lmdb_plan plan;

static bool fails(int *left)
{
	if (*left == 0 || --*left != 0)
		return false;
	errno = plan.error;
	return true;
}

/* After the cut, no more may be written. */
static bool at_end;

static bool cuts(void)
{
	if (plan.short_at == 0 || --plan.short_at != 0)
		return false;
	at_end = true;
	return true;
}

void plan_room(void)
{
	at_end = false;
	plan = (struct lmdb_plan){0};
}

static void *real(const char *name)
{
	void *function = dlsym(RTLD_NEXT, name);

	if (function == NULL)
		abort();
	return function;
}

/* Named by its symbol: liblmdb calls pwrite, and with 64-bit offsets the compiler would name this
 * function pwrite64. */
INTERPOSED ssize_t taken_pwrite(int fd, const void *bytes, size_t count,
				off_t offset) __asm__("pwrite");

ssize_t taken_pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	ssize_t (*next)(int, const void *, size_t, off_t);

	*(void **)&next = real("pwrite");
	if (offset >= META_PAGES * PAGE_BYTES && cuts())
		return next(fd, bytes, count / 2, offset);
	if (at_end && plan.error != 0 && offset >= META_PAGES * PAGE_BYTES) {
		errno = plan.error;
		return -1;
	}
	if (fails(offset < META_PAGES * PAGE_BYTES ? &plan.meta_at : &plan.write_at))
		return -1;
	return next(fd, bytes, count, offset);
}

/* Called by the store, which is compiled with 64-bit offsets. */
INTERPOSED ssize_t taken_pwrite64(int fd, const void *bytes, size_t count,
				  off_t offset) __asm__("pwrite64");

ssize_t taken_pwrite64(int fd, const void *bytes, size_t count, off_t offset)
{
	return taken_pwrite(fd, bytes, count, offset);
}

INTERPOSED ssize_t writev(int fd, const struct iovec *parts, int count)
{
	ssize_t (*next)(int, const struct iovec *, int);

	*(void **)&next = real("writev");
	if (cuts())
		return next(fd, parts, 1);
	return fails(&plan.write_at) ? -1 : next(fd, parts, count);
}

INTERPOSED int fdatasync(int fd)
{
	int (*next)(int);

	*(void **)&next = real("fdatasync");
	return fails(&plan.sync_at) ? -1 : next(fd);
}

INTERPOSED int fallocate(int fd, int mode, off_t offset, off_t len)
{
	int (*next)(int, int, off_t, off_t);

	*(void **)&next = real("fallocate");
	errno = plan.cannot_allocate ? EOPNOTSUPP : plan.error;
	return plan.cannot_allocate || (at_end && plan.error != 0) ? -1
								   : next(fd, mode, offset, len);
}

static void fill(struct statvfs *fs)
{
	if (plan.disk_full)
		fs->f_bavail = 0;
}

INTERPOSED int statvfs(const char *path, struct statvfs *fs)
{
	int (*next)(const char *, struct statvfs *);
	int rc;

	*(void **)&next = real("statvfs");
	rc = next(path, fs);
	fill(fs);
	return rc;
}

INTERPOSED int fstatvfs(int fd, struct statvfs *fs)
{
	int (*next)(int, struct statvfs *);
	int rc;

	*(void **)&next = real("fstatvfs");
	rc = next(fd, fs);
	fill(fs);
	return rc;
}

INTERPOSED int statfs(const char *path, struct statfs *fs)
{
	int (*next)(const char *, struct statfs *);
	int rc;

	*(void **)&next = real("statfs");
	rc = next(path, fs);
	if (plan.fs_type != 0)
		memcpy(&fs->f_type, &(uint64_t){plan.fs_type}, sizeof(fs->f_type));
	return rc;
}
/* ---- a store in a directory of its own ---- */

const struct store_options options = {.map_bytes = 64u << 20, .create = true};

void reopen(struct rig *rig)
{
	const char *why = "";

	store_close(rig->store);
	rig->store = NULL;
	cr_assert_eq(store_open_lmdb(rig->dir, &options, &rig->store, &why), 0, "%s", why);
}

struct rig rig_dir(void)
{
	struct rig rig = {.dir = "/tmp/sluice-lmdb-XXXXXX"};

	cr_assert_not_null(mkdtemp(rig.dir));
	return rig;
}

struct rig rig_open(void)
{
	struct rig rig = rig_dir();

	reopen(&rig);
	return rig;
}

size_t files_in(const char *dir, bool delete)
{
	DIR *entries = opendir(dir);
	struct dirent *entry;
	size_t count = 0;

	cr_assert_not_null(entries);
	while ((entry = readdir(entries)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		count++;
		if (delete)
			cr_assert_eq(unlinkat(dirfd(entries), entry->d_name, 0), 0);
	}
	(void)closedir(entries);
	return count;
}

void rig_close(struct rig *rig)
{
	store_close(rig->store);
	(void)files_in(rig->dir, true);
	cr_assert_eq(rmdir(rig->dir), 0);
}

struct sluice_slice text(const char *value)
{
	return (struct sluice_slice){value, strlen(value)};
}

struct store_txn *begin(struct store *store)
{
	struct store_txn *txn = NULL;

	cr_assert_eq(store_begin(store, &txn), 0, "%s", store_last_error());
	return txn;
}

struct store_txn *begin_read(struct store *store)
{
	struct store_txn *txn = NULL;

	cr_assert_eq(store_begin_read(store, &txn), 0, "%s", store_last_error());
	return txn;
}

int try_put(struct store *store, const char *key, const char *value)
{
	struct store_txn *txn = begin(store);
	int rc = store_put(txn, STORE_NAME, text(key), text(value));

	if (rc == 0)
		rc = store_put(txn, STORE_HOT, text(key), text(value));
	if (rc == 0)
		return store_commit(txn);
	store_abort(txn);
	return rc;
}

void expect_value(struct store_txn *txn, enum store_table table, const char *key, const char *value)
{
	struct sluice_slice found;

	cr_assert_eq(store_get(txn, table, text(key), &found), 0);
	cr_assert_eq(found.len, strlen(value));
	cr_assert_eq(memcmp(found.data, value, found.len), 0, "%s: expected %s", key, value);
}

void expect_both(struct store *store, const char *key, const char *value)
{
	struct store_txn *txn = begin_read(store);

	expect_value(txn, STORE_NAME, key, value);
	expect_value(txn, STORE_HOT, key, value);
	store_abort(txn);
}
