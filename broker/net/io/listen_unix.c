/* SPDX-License-Identifier: Apache-2.0
 * See listen_unix.h. */
#include "broker/net/io/listen_unix.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* The socket of mode 0660: the group may connect. */
enum { SOCKET_UMASK = 0117 };

static _Thread_local char why_text[320];

static int refuse(int code, const char *path, const char *what, const char **ret_why)
{
	(void)snprintf(why_text, sizeof(why_text), "%.150s: %.160s", path, what);
	*ret_why = why_text;
	return code;
}

/* ---- the directory ---- */

/* Whether others can put another file in the place of one in this directory. */
static bool is_open_to_others(const struct stat *st, bool sticky_helps)
{
	if (st->st_uid != 0 && st->st_uid != geteuid())
		return true;
	return (st->st_mode & (S_IWGRP | S_IWOTH)) != 0 &&
	       !(sticky_helps && (st->st_mode & S_ISVTX) != 0);
}

/* Opens the parent of *io_dir and closes *io_dir; false when there is none. */
static bool step_up(int *io_dir, struct stat *io_st)
{
	int up = openat(*io_dir, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;
	bool stepped = up >= 0 && fstat(up, &st) == 0 &&
		       (st.st_dev != io_st->st_dev || st.st_ino != io_st->st_ino);

	if (stepped) {
		(void)close(*io_dir);
		*io_dir = up;
		*io_st = st;
	} else if (up >= 0) {
		(void)close(up);
	}
	return stepped;
}

/* In the directory itself nobody else may write. In those above it a sticky bit is enough: the
 * entry that leads here is not theirs. */
static int directory_check(const char *path, const char **ret_why)
{
	char copy[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct stat st;
	bool wrong;
	int dir;

	(void)snprintf(copy, sizeof(copy), "%s", path);
	dir = open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fstat(dir, &st) != 0) {
		int error = errno;

		if (dir >= 0)
			(void)close(dir);
		return refuse(SLUICE_E_IO, path, strerror(error), ret_why);
	}
	wrong = is_open_to_others(&st, false);
	while (!wrong && step_up(&dir, &st))
		wrong = is_open_to_others(&st, true);
	(void)close(dir);
	return !wrong ? 0
		      : refuse(SLUICE_E_DENIED, path,
			       "other users can write its directory, or one above it; expected one "
			       "of the broker's user, of mode 0755 or less",
			       ret_why);
}

/* ---- a socket file that is there ---- */

static int stale_remove(const char *path, const struct sockaddr_un *addr, const char **ret_why)
{
	struct stat st;
	int fd, rc, error;

	if (lstat(path, &st) != 0)
		return errno == ENOENT ? 0 : refuse(SLUICE_E_IO, path, strerror(errno), ret_why);
	if (!S_ISSOCK(st.st_mode))
		return refuse(SLUICE_E_IN_USE, path, "it exists and is not a socket", ret_why);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return refuse(SLUICE_E_IO, path, strerror(errno), ret_why);
	rc = connect(fd, (const struct sockaddr *)addr, sizeof(*addr));
	error = errno;
	(void)close(fd);
	if (rc == 0 || error != ECONNREFUSED)
		return refuse(SLUICE_E_IN_USE, path, "a process listens on it", ret_why);
	return unlink(path) == 0 ? 0 : refuse(SLUICE_E_IO, path, strerror(errno), ret_why);
}

/* ---- */

int unix_bind(const char *path, int *ret_fd, struct unix_file *ret_file, const char **ret_why)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st = {0};
	mode_t before;
	int fd, rc, error;

	/* A path that begins with '/' is never an abstract address, which has no owner. */
	if (path[0] != '/' || strlen(path) >= sizeof(addr.sun_path))
		return refuse(SLUICE_E_INVAL, path,
			      "expected a path that begins with '/', of at most 107 bytes",
			      ret_why);
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	rc = directory_check(path, ret_why);
	if (rc == 0)
		rc = stale_remove(path, &addr, ret_why);
	if (rc != 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return refuse(SLUICE_E_IO, path, strerror(errno), ret_why);
	before = umask(SOCKET_UMASK);
	rc = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	error = errno;
	(void)umask(before);
	if (rc == 0 && lstat(path, &st) != 0) {
		rc = -1;
		error = errno;
	}
	if (rc != 0) {
		(void)close(fd);
		return refuse(error == EADDRINUSE ? SLUICE_E_IN_USE : SLUICE_E_IO, path,
			      strerror(error), ret_why);
	}
	*ret_file = (struct unix_file){st.st_dev, st.st_ino};
	*ret_fd = fd;
	return 0;
}

void unix_remove(const char *path, const struct unix_file *file)
{
	struct stat st;

	if (lstat(path, &st) == 0 && st.st_dev == file->device && st.st_ino == file->inode)
		(void)unlink(path);
}

bool unix_peer_is_unknown(int fd)
{
	static const char setting[] = "/proc/sys/kernel/overflowuid";
	struct ucred peer;
	socklen_t len = sizeof(peer);
	FILE *file;
	unsigned overflow;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0)
		return true;
	file = fopen(setting, "re");
	if (file == NULL || fscanf(file, "%u", &overflow) != 1)
		overflow = 65534;
	if (file != NULL)
		(void)fclose(file);
	return peer.uid == overflow;
}
