/* SPDX-License-Identifier: Apache-2.0
 * sluice-plugin: runs one service plugin outside of the broker, so that a crash of the plugin does
 * not stop the broker. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "broker/plugin/plugin.h"
#include "broker/util/log.h"
#include "broker/util/process.h"

enum { SETTINGS_MAX = 64 };

static int usage(FILE *to, int code)
{
	(void)fprintf(to,
		      "usage: sluice-plugin [--address HOST:PORT|unix:PATH] [--set KEY=VALUE]... "
		      "[--log-level LEVEL] PLUGIN\n"
		      "Runs a service plugin against a broker until SIGTERM or SIGINT. PLUGIN "
		      "is a path, or the name of an installed plugin, such as local. "
		      "SLUICE_ADDRESS is the default of --address.\n");
	return code;
}

struct arguments {
	const char *path, *address;
	struct plugin_setting settings[SETTINGS_MAX];
	size_t setting_count;
};

static int parse(int argc, char **argv, struct arguments *ret)
{
	const char *address = getenv("SLUICE_ADDRESS"); /* as of the command */
	enum log_level level;

	ret->address = address != NULL && address[0] != 0 ? address : "127.0.0.1:7584";
	for (int i = 1; i < argc; i++) {
		const char *next = i + 1 < argc ? argv[i + 1] : NULL;

		if (strcmp(argv[i], "--help") == 0) {
			(void)usage(stdout, 0);
			exit(0);
		} else if (strcmp(argv[i], "--address") == 0 && next != NULL) {
			ret->address = argv[++i];
		} else if (strcmp(argv[i], "--log-level") == 0 && next != NULL) {
			if (log_level_parse(argv[++i], &level) != 0) {
				(void)fprintf(stderr,
					      "sluice-plugin: log level '%s'; expected error, "
					      "warn, info or debug\n",
					      argv[i]);
				return 2;
			}
			log_configure(STDERR_FILENO, level, LOG_FORMAT_LOGFMT);
		} else if (strcmp(argv[i], "--set") == 0 && next != NULL) {
			char *equals = strchr(argv[++i], '=');

			if (equals == NULL || equals == argv[i] ||
			    ret->setting_count == SETTINGS_MAX) {
				(void)fprintf(stderr,
					      "sluice-plugin: --set '%s'; expected KEY=VALUE, at "
					      "most %d of them\n",
					      argv[i], SETTINGS_MAX);
				return 2;
			}
			*equals = 0;
			ret->settings[ret->setting_count++] =
				(struct plugin_setting){argv[i], equals + 1};
		} else if (argv[i][0] == '-' || ret->path != NULL) {
			(void)fprintf(stderr, "sluice-plugin: unexpected '%s'\n", argv[i]);
			return usage(stderr, 2);
		} else {
			ret->path = argv[i];
		}
	}
	return ret->path != NULL ? 0 : usage(stderr, 2);
}

int main(int argc, char **argv)
{
	struct arguments arguments = {0};
	const struct sluice_service_ops *ops;
	struct plugin *plugin = NULL;
	char why[512];
	int stop_fd, rc;

	process_inherit();
	rc = parse(argc, argv, &arguments);
	if (rc != 0)
		return rc;
	if (process_isolate() != 0)
		log_line(LOG_LEVEL_WARN,
			 log_id("process.no_reaper",
				"process 1 cannot fork: orphaned processes stay as zombies"),
			 log_str("cause", strerror(errno)));
	stop_fd = process_stop_fd();
	if (stop_fd < 0) {
		(void)fprintf(stderr,
			      "sluice-plugin: the thread for signals cannot be started: %s\n",
			      strerror(errno));
		return 1;
	}
	rc = plugin_load(arguments.path, SLUICE_PLUGIN_SERVICE, arguments.settings,
			 arguments.setting_count, &plugin, why, sizeof(why));
	if (rc != 0) {
		(void)fprintf(stderr, "sluice-plugin: %s\n", why);
		return sluice_error_exit_code(rc);
	}
	ops = plugin_symbol(plugin)->ops;
	rc = ops->run(plugin_host(plugin), arguments.address, -1, stop_fd);
	if (rc != 0)
		(void)fprintf(stderr, "sluice-plugin: %s ended: %s\n", plugin_symbol(plugin)->name,
			      sluice_error_text(rc));
	plugin_unload(plugin);
	return sluice_error_exit_code(rc);
}
