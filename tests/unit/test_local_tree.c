/* SPDX-License-Identifier: Apache-2.0
 * Deletion of files that a job left: links, depth, missing rights, mount points and large numbers
 * cause no error and delete nothing else. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "plugins/local/attempt/attempt.h"
#include "plugins/local/attempt/tree.h"
#include "sluice/error.h"

enum {
	STEP_ENTRIES = 64,
	STEPS_MAX = 100000,
	DEPTH = 300,
	LONG_NAME = 200,
	FILES = 400,
	FEW_FDS = 32,
	NOBODY = 65534
};

static char top[] = "/tmp/sluice-test-tree-XXXXXX";

/* `top` has the directory `tree`, which is to be deleted, and `outside`, which stays. */
static void setup(void)
{
	cr_assert_not_null(mkdtemp(top));
	cr_assert_eq(chdir(top), 0);
	cr_assert_eq(mkdir("tree", 0700), 0);
	cr_assert_eq(mkdir("outside", 0700), 0);
}

static void teardown(void)
{
	char command[sizeof(top) + 16];

	(void)snprintf(command, sizeof(command), "rm -rf '%s'", top);
	cr_expect_eq(system(command), 0);
}

TestSuite(local_tree, .init = setup, .fini = teardown, .timeout = 60);

static void file_make(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

	cr_assert_geq(fd, 0, "%s", path);
	(void)close(fd);
}

static bool exists(const char *path)
{
	struct stat about;

	return lstat(path, &about) == 0;
}

static struct tree *begin(void)
{
	struct tree *tree = NULL;

	cr_assert_eq(tree_open(AT_FDCWD, "tree", &tree), 0, "%s", attempt_error());
	return tree;
}

/* Deletes the whole tree; returns the code of the last step. */
static int delete_all(void)
{
	struct tree *tree = begin();
	int rc = 1;

	for (int step = 0; rc == 1 && step < STEPS_MAX; step++)
		rc = tree_step(tree, STEP_ENTRIES);
	tree_close(tree);
	return rc;
}

Test(local_tree, links_are_deleted_and_what_they_name_stays)
{
	file_make("outside/file");
	cr_assert_eq(mkdir("tree/a", 0700), 0);
	cr_assert_eq(mkdir("tree/a/b", 0700), 0);
	cr_assert_eq(symlink("../outside", "tree/up"), 0);
	cr_assert_eq(symlink("../../../outside", "tree/a/b/up"), 0);
	cr_assert_eq(symlink("../../../outside/file", "tree/a/b/file"), 0);
	cr_assert_eq(symlink("/no/such/place", "tree/a/b/nowhere"), 0);
	cr_assert_eq(link("outside/file", "tree/a/hard"), 0);
	cr_assert_eq(mkfifo("tree/a/b/fifo", 0600), 0);
	cr_expect_eq(delete_all(), 0, "%s", attempt_error());
	cr_expect_not(exists("tree"));
	cr_expect(exists("outside/file"));
}

/* A process may create files in it without an end. */
Test(local_tree, a_deletion_in_one_call_has_a_time_limit)
{
	char path[32];

	for (int i = 0; i < FILES; i++) {
		(void)snprintf(path, sizeof(path), "tree/%d", i);
		file_make(path);
	}
	cr_expect_eq(tree_delete(AT_FDCWD, "tree", 0), 1, "%s", attempt_error());
	cr_expect(exists("tree"));
	cr_expect_eq(tree_delete(AT_FDCWD, "tree", 50000), 0, "%s", attempt_error());
	cr_expect_not(exists("tree"));
	cr_expect_eq(tree_delete(AT_FDCWD, "tree", 50000), SLUICE_E_IO);
}

Test(local_tree, a_link_in_the_place_of_the_tree_is_not_followed)
{
	struct tree *tree = NULL;

	file_make("outside/file");
	cr_assert_eq(symlink("outside", "link"), 0);
	cr_expect_eq(tree_open(AT_FDCWD, "link", &tree), SLUICE_E_IO);
	cr_expect_not_null(strstr(attempt_error(), "open the directory link"), "%s",
			   attempt_error());
	cr_expect(exists("outside/file"));
}

Test(local_tree, any_depth_takes_a_few_descriptors)
{
	struct rlimit few = {FEW_FDS, FEW_FDS};
	int fd = open("tree", O_RDONLY | O_DIRECTORY), next;
	char name[LONG_NAME + 1];

	memset(name, 'd', LONG_NAME); /* also beyond PATH_MAX */
	name[LONG_NAME] = 0;
	for (int i = 0; i < DEPTH; i++) {
		cr_assert_eq(mkdirat(fd, name, 0700), 0);
		next = openat(fd, name, O_RDONLY | O_DIRECTORY);
		cr_assert_geq(next, 0);
		(void)close(fd);
		fd = next;
	}
	(void)close(openat(fd, "file", O_WRONLY | O_CREAT, 0600));
	(void)close(fd);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	cr_expect_eq(delete_all(), 0, "%s", attempt_error());
	cr_expect_not(exists("tree"));
}

Test(local_tree, directories_without_rights_are_emptied_by_their_owner)
{
	/* Root needs no rights. */
	if (geteuid() == 0) {
		cr_assert_eq(chown(top, NOBODY, NOBODY), 0);
		cr_assert_eq(chown("tree", NOBODY, NOBODY), 0);
		cr_assert_eq(setresuid(NOBODY, NOBODY, NOBODY), 0);
	}
	cr_assert_eq(mkdir("tree/a", 0700), 0);
	cr_assert_eq(mkdir("tree/a/b", 0700), 0);
	cr_assert_eq(mkdir("tree/a/b/c", 0700), 0);
	file_make("tree/a/b/c/file");
	file_make("tree/a/file");
	cr_assert_eq(mkdir("tree/d", 0700), 0);
	file_make("tree/d/file");
	cr_assert_eq(chmod("tree/d", 0500), 0);
	cr_assert_eq(chmod("tree/a/b/c", 0500), 0);
	cr_assert_eq(chmod("tree/a/b", 0), 0);
	cr_assert_eq(chmod("tree/a", 0), 0);
	cr_assert_eq(chmod("tree", 0), 0);
	cr_expect_eq(delete_all(), 0, "%s", attempt_error());
	cr_expect_not(exists("tree"));
}

/* In a mount namespace of its own; skips the test where none can be made. */
static void bind_mount(const char *from, const char *to)
{
	int flags = geteuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;

	if (unshare(flags) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount(from, to, NULL, MS_BIND | MS_REC, NULL) != 0) {
		int error = errno;

		teardown(); /* a skipped test has none */
		cr_skip_test("nothing can be mounted here: %s", strerror(error));
	}
}

/* A file system of its own there. */
static void disk_mount(const char *to)
{
	bind_mount("outside", to); /* skips the test, and makes the namespace */
	cr_assert_eq(umount2(to, MNT_DETACH), 0);
	cr_assert_eq(mount("none", to, "tmpfs", 0, "size=16m"), 0, "%s", strerror(errno));
}

static bool no_statx;

/* How tree.c finds a mount point, where the kernel supports it. */
int statx(int at_fd, const char *restrict path, int flags, unsigned mask,
	  struct statx *restrict ret)
{
	if (no_statx) {
		errno = ENOSYS;
		return -1;
	}
	return (int)syscall(SYS_statx, at_fd, path, flags, mask, ret);
}

/* Their current path. */
static void unmount_all(void)
{
	FILE *file = fopen("/proc/self/mounts", "re");
	char line[1024], *at, *end;

	while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
		at = strchr(line, ' ');
		end = at != NULL ? strchr(at + 1, ' ') : NULL;
		if (end == NULL)
			continue;
		*end = 0;
		if (strncmp(at + 1, top, strlen(top)) == 0)
			cr_expect_eq(umount2(at + 1, MNT_DETACH), 0, "%s", at + 1);
	}
	if (file != NULL)
		(void)fclose(file);
}

Test(local_tree, nothing_on_another_mount_is_reached)
{
	static const char *const places[] = {"tree/at", "tree/a/b/at"};

	file_make("outside/file");
	cr_assert_eq(mkdir("tree/a", 0700), 0);
	cr_assert_eq(mkdir("tree/a/b", 0700), 0);
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		cr_assert_eq(mkdir(places[i], 0700), 0);
		bind_mount("outside", places[i]);
	}
	file_make("tree/a/file");
	cr_expect_eq(delete_all(), SLUICE_E_IO);
	cr_expect_not_null(strstr(attempt_error(), "(EBUSY)"), "%s", attempt_error());
	cr_expect(exists("outside/file"), "the mounted tree is complete");
	cr_expect(exists("tree"));
	cr_expect_not(exists("tree/a"), "the rest is deleted, or moved up");
	unmount_all();
	cr_expect_eq(delete_all(), 0, "%s", attempt_error());
}

static void expect_refused(void)
{
	struct tree *tree = NULL;

	cr_expect_eq(tree_open(AT_FDCWD, "tree", &tree), SLUICE_E_IO);
	cr_expect_not_null(strstr(attempt_error(), "(EXDEV)"), "%s", attempt_error());
	tree_close(tree);
}

Test(local_tree, a_mount_in_the_place_of_the_tree_is_not_emptied)
{
	file_make("outside/file");
	bind_mount("outside", "tree");
	expect_refused();
	cr_expect(exists("tree/file"));
	unmount_all();
	cr_expect_eq(delete_all(), 0, "%s", attempt_error());
	cr_expect(exists("outside/file"));
}

Test(local_tree, another_disk_is_found_by_its_number_where_the_kernel_names_no_mount)
{
	disk_mount("tree");
	file_make("tree/file");
	no_statx = true;
	expect_refused();
	cr_expect(exists("tree/file"));
	unmount_all();
}

/* ---- measuring ---- */

enum { BYTES = 1 << 18, PARTS = 100, MEASURE_MS = 50000 };

static void bytes_make(int at_fd, const char *name)
{
	static const char bytes[BYTES];
	int fd = openat(at_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);

	cr_assert_eq(write(fd, bytes, BYTES), BYTES);
	(void)close(fd);
}

/* The size that du reports, without the directory itself. */
static uint64_t du_bytes(void)
{
	FILE *du = popen("du -s --block-size=1 tree", "re");
	unsigned long long bytes = 0;
	struct stat about;

	cr_assert_not_null(du);
	cr_assert_eq(fscanf(du, "%llu", &bytes), 1);
	cr_assert_eq(pclose(du), 0);
	cr_assert_eq(stat("tree", &about), 0);
	return bytes - (uint64_t)about.st_blocks * 512;
}

/* Deeper than its number of descriptors. In every order of reading, an entry follows the directory
 * that leads deeper. */
Test(local_tree, any_depth_is_measured_with_a_few_descriptors)
{
	struct rlimit few = {FEW_FDS, FEW_FDS};
	int fd = open("tree", O_RDONLY | O_DIRECTORY);
	uint64_t bytes;

	for (int i = 0; i < DEPTH; i++) {
		char name[32];
		int next;

		for (int j = 0; j < 3; j++) {
			if (j == 1)
				cr_assert_eq(mkdirat(fd, "deeper", 0700), 0);
			(void)snprintf(name, sizeof(name), "%d-%d", j, i);
			cr_assert_eq(mkdirat(fd, name, 0700), 0);
			next = openat(fd, name, O_RDONLY | O_DIRECTORY);
			if (i % 30 == 25)
				bytes_make(next, "file");
			(void)close(next);
		}
		next = openat(fd, "deeper", O_RDONLY | O_DIRECTORY);
		(void)close(fd);
		fd = next;
	}
	(void)close(fd);
	bytes = du_bytes();
	cr_assert_gt(bytes, BYTES);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	cr_expect_eq(tree_bytes(AT_FDCWD, "tree", MEASURE_MS), bytes);
	cr_expect_lt(open("tree", O_RDONLY), FEW_FDS / 2, "no descriptor stays open");
}

Test(local_tree, each_name_of_a_file_counts_for_its_part)
{
	int fd = open("tree", O_RDONLY | O_DIRECTORY);
	uint64_t one, all;

	bytes_make(fd, "file");
	one = tree_bytes(AT_FDCWD, "tree", MEASURE_MS);
	cr_expect_geq(one, BYTES);
	cr_assert_eq(link("tree/file", "outside/file"), 0);
	cr_expect_leq(tree_bytes(AT_FDCWD, "tree", MEASURE_MS), one - BYTES / 2);
	cr_assert_eq(link("tree/file", "tree/again"), 0);
	cr_assert_eq(unlink("outside/file"), 0);
	all = tree_bytes(AT_FDCWD, "tree", MEASURE_MS);
	cr_expect(all >= one && all < one + BYTES / 2, "%zu, with two names %zu", (size_t)one,
		  (size_t)all);
	(void)close(fd);
}

Test(local_tree, neither_links_nor_another_disk_are_measured)
{
	int fd = open("outside", O_RDONLY | O_DIRECTORY);
	uint64_t before;

	bytes_make(fd, "file");
	(void)close(fd);
	cr_assert_eq(symlink("../outside", "tree/link"), 0);
	cr_assert_eq(mkdir("tree/at", 0700), 0);
	before = tree_bytes(AT_FDCWD, "tree", MEASURE_MS);
	cr_expect_lt(before, BYTES);
	disk_mount("tree/at");
	fd = open("tree/at", O_RDONLY | O_DIRECTORY);
	bytes_make(fd, "file");
	(void)close(fd);
	cr_expect_leq(tree_bytes(AT_FDCWD, "tree", MEASURE_MS), before);
	cr_expect_geq(tree_bytes(AT_FDCWD, "tree/at", MEASURE_MS), BYTES);
	cr_expect_eq(tree_bytes(AT_FDCWD, "tree/link", MEASURE_MS), 0);
	cr_expect_eq(tree_bytes(AT_FDCWD, "tree/none", MEASURE_MS), 0);
	unmount_all();
}

Test(local_tree, a_tree_that_is_too_large_for_its_time_is_measured_in_part)
{
	int fd = open("tree", O_RDONLY | O_DIRECTORY);
	char name[16];

	for (int i = 0; i < PARTS; i++) {
		(void)snprintf(name, sizeof(name), "%d", i);
		bytes_make(fd, name);
	}
	(void)close(fd);
	cr_expect_lt(tree_bytes(AT_FDCWD, "tree", 0), PARTS * (uint64_t)BYTES);
	cr_expect_geq(tree_bytes(AT_FDCWD, "tree", MEASURE_MS), PARTS * (uint64_t)BYTES);
}

static int count(const char *path)
{
	DIR *dir = opendir(path);
	int found = -2; /* "." and ".." */

	cr_assert_not_null(dir);
	while (readdir(dir) != NULL)
		found++;
	(void)closedir(dir);
	return found;
}

/* Entries of the fullest directory in it. */
static int most_in(const char *path)
{
	DIR *dir = opendir(path);
	const struct dirent *entry;
	char below[512];
	int most = 0;

	cr_assert_not_null(dir);
	while ((entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.' || entry->d_type != DT_DIR)
			continue;
		(void)snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
		most = count(below) > most ? count(below) : most;
	}
	(void)closedir(dir);
	return most;
}

Test(local_tree, a_step_is_bounded_and_the_next_continues)
{
	struct tree *tree;
	char path[64];

	cr_assert_eq(mkdir("tree/a", 0700), 0);
	for (int i = 0; i < FILES; i++) {
		(void)snprintf(path, sizeof(path), "tree/a/%d", i);
		file_make(path);
	}
	(void)snprintf(path, sizeof(path), "tree/%d", 0);
	file_make(path);
	tree = begin();
	cr_expect_eq(tree_step(tree, STEP_ENTRIES), 1);
	cr_expect_eq(tree_step(tree, STEP_ENTRIES), 1);
	tree_close(tree); /* as when the scheduler dies */
	cr_assert_leq(count("tree"), 2);
	cr_expect_geq(most_in("tree"), FILES - 2 * STEP_ENTRIES);
	cr_expect_eq(delete_all(), 0, "%s", attempt_error());
	cr_expect_not(exists("tree"));
}
