/* SPDX-License-Identifier: Apache-2.0
 *
 * A service plugin with a child process of its own. Settings: ask, the path of a file. When that
 * file exists, the plugin checks whether it can still wait for its child, which ended long ago, and
 * logs child.kept or child.taken. */
#include <errno.h>
#include <poll.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sluice/plugin.h"

static int child_run(const struct sluice_host *host, const char *address, int transport_fd,
		     int stop_fd)
{
	static char program[] = "/bin/true";
	char *argv[] = {program, NULL};
	const char *ask = host->setting(host->host, "ask");
	struct pollfd stop = {.fd = stop_fd, .events = POLLIN};
	siginfo_t info;
	pid_t pid;
	bool asked = false;

	(void)address;
	if (ask == NULL || posix_spawn(&pid, program, NULL, NULL, argv, environ) != 0)
		return SLUICE_E_INVAL;
	while (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR)
		continue;
	host->log(host->host, SLUICE_LOG_INFO, "child.ended", "the child has ended");
	while (poll(&stop, 1, 20) <= 0) {
		if (asked || access(ask, F_OK) != 0)
			continue;
		asked = true;
		if (waitpid(pid, NULL, WNOHANG) == pid)
			host->log(host->host, SLUICE_LOG_INFO, "child.kept",
				  "the child is this plugin's to wait for");
		else
			host->log(host->host, SLUICE_LOG_ERROR, "child.taken", strerror(errno));
	}
	if (transport_fd >= 0)
		(void)close(transport_fd);
	return 0;
}

static const struct sluice_service_ops ops = {.struct_size = sizeof(struct sluice_service_ops),
					      .run = child_run};

const struct sluice_plugin SLUICE_PLUGIN_SYMBOL = {
	.struct_size = sizeof(struct sluice_plugin),
	.abi_major = SLUICE_PLUGIN_ABI_MAJOR,
	.abi_minor = SLUICE_PLUGIN_ABI_MINOR,
	.kind = SLUICE_PLUGIN_SERVICE,
	.name = "child",
	.version = "0.1.0",
	.ops = &ops,
};
