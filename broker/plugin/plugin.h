/* SPDX-License-Identifier: Apache-2.0
 * Loading plugins: opens a shared object, finds its symbol and checks its ABI before any code of it
 * runs. Used by the broker and by sluice-plugin. */
#ifndef SLUICE_PLUGIN_LOADER_H
#define SLUICE_PLUGIN_LOADER_H

#include "sluice/plugin.h"

struct plugin;

struct plugin_setting {
	const char *key;
	const char *value;
};

/* Loads and inits. settings are copied. Errors: NOT_FOUND (no such file), UNSUPPORTED (no symbol,
 * wrong major, newer minor, short struct, unknown kind, wrong kind, a required op that is NULL), or
 * the result of init (INTERNAL for a positive one); why names the file, what was found and what was
 * expected. *ret is owned (plugin_unload). */
int plugin_load(const char *path, uint32_t kind_wanted, const struct plugin_setting *settings,
		size_t setting_count, struct plugin **ret, char *why,
		size_t why_bytes) SLUICE_MUST_USE;
/* Only the checks, for a symbol that is linked in. */
int plugin_check(const struct sluice_plugin *symbol, const char *name, uint32_t kind_wanted,
		 char *why, size_t why_bytes) SLUICE_MUST_USE;
/* Calls fini and frees the plugin. Accepts NULL; a running service must have been stopped. A plugin
 * whose service did not stop is not freed: its thread runs its code. */
void plugin_unload(struct plugin *plugin);

const struct sluice_plugin *plugin_symbol(const struct plugin *plugin);
const struct sluice_host *plugin_host(const struct plugin *plugin);

/* Runs a service on a thread of its own, with transport_fd (may be -1). */
int plugin_service_start(struct plugin *plugin, const char *address,
			 int transport_fd) SLUICE_MUST_USE;
/* Asks the service to stop and waits. Returns the result of run, or TIMEOUT: run did not return
 * within wait_ms, its thread is left running (logged), and the process can only exit. 0 when none
 * runs. */
int plugin_service_stop(struct plugin *plugin, uint32_t wait_ms);

#endif
