/* SPDX-License-Identifier: Apache-2.0
 *
 * LD_PRELOAD: a sync waits as long as the file that SYNC_GATE names is there. It holds the broker's one commit, so that a test can look at
 * what comes in meanwhile.
 */
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

__attribute__((visibility("default"))) int fdatasync(int fd)
{
	const char *gate = getenv("SYNC_GATE");

	while (gate != NULL && access(gate, F_OK) == 0)
		(void)usleep(1000);
	return (int)syscall(SYS_fdatasync, fd);
}
