/* SPDX-License-Identifier: Apache-2.0
 *
 * Loading plugins: a shared object is opened, its one symbol found and its ABI checked before anything in it runs. The same for the broker and
 * for sluice-plugin.
 */
#ifndef SLUICE_PLUGIN_LOADER_H
#define SLUICE_PLUGIN_LOADER_H

#include "sluice/plugin.h"

struct plugin;

struct plugin_setting {
	const char *key;
	const char *value;
};

/* Loads and inits. settings are copied. Errors: NOT_FOUND (no such file), UNSUPPORTED (no symbol, wrong major, newer minor, short struct,
 * unknown kind, wrong kind, an op that is needed and NULL), or what init returned (INTERNAL for a positive one); why gets a text that names file, what was found and what was expected.
 * *ret is owned (plugin_unload). */
int plugin_load(const char *path, uint32_t kind_wanted, const struct plugin_setting *settings,
		size_t setting_count, struct plugin **ret, char *why, size_t why_bytes) SLUICE_MUST_USE;
/* The checks alone, on a symbol that is linked in. */
int plugin_check(const struct sluice_plugin *symbol, const char *name, uint32_t kind_wanted, char *why,
		 size_t why_bytes) SLUICE_MUST_USE;
/* fini, and gone. Accepts NULL; a running service must have been stopped. One that is stuck stays as it is: its thread runs its code. */
void plugin_unload(struct plugin *plugin);

const struct sluice_plugin *plugin_symbol(const struct plugin *plugin);
const struct sluice_host *plugin_host(const struct plugin *plugin);

/* Runs a service on a thread of its own. transport_fd (may be -1) goes to it. */
int plugin_service_start(struct plugin *plugin, const char *address, int transport_fd) SLUICE_MUST_USE;
/* Asks it to stop and waits. Returns what run returned, or TIMEOUT: it did not return within wait_ms, its thread is left behind (said in the log), and
 * the process can only end. 0 when none runs. */
int plugin_service_stop(struct plugin *plugin, uint32_t wait_ms);

#endif
