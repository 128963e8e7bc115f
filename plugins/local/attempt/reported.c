/* SPDX-License-Identifier: Apache-2.0
 * The mark that the last report of an attempt was accepted. See attempt.h. */
#include <fcntl.h>
#include <unistd.h>

#include "attempt.h"

static const char reported[] = "reported";

void attempt_mark_reported(const char *dir)
{
	int dir_fd = attempt_open(dir), fd;

	if (dir_fd < 0)
		return;
	/* Not synced: without it the attempt only stays longer. */
	fd = openat(dir_fd, reported, O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
		    0600);
	if (fd >= 0)
		(void)close(fd);
	(void)close(dir_fd);
}

bool attempt_is_reported(const char *spool, const char *dir)
{
	int fd = attempt_open_in(spool, dir);
	bool is = fd >= 0 && faccessat(fd, reported, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

	if (fd >= 0)
		(void)close(fd);
	return is;
}
