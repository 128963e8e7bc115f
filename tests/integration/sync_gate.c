/* SPDX-License-Identifier: Apache-2.0
 *
 * LD_PRELOAD: a sync waits as long as the file that SYNC_GATE names exists. It delays the broker's
 * commit, so that a test can examine what arrives meanwhile. A sync that waits creates the file of
 * that name with the suffix ".held".
 */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("default"))) int fdatasync(int fd)
{
	const char *gate = getenv("SYNC_GATE");

	char held[PATH_MAX];
	int made;

	if (gate != NULL && access(gate, F_OK) == 0) {
		(void)snprintf(held, sizeof(held), "%s.held", gate);
		made = open(held, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
		if (made >= 0)
			(void)close(made);
	}
	while (gate != NULL && access(gate, F_OK) == 0)
		(void)usleep(1000);
	return (int)syscall(SYS_fdatasync, fd);
}
