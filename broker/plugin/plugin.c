/* SPDX-License-Identifier: Apache-2.0
 * Loading plugins, see plugin.h. Members of a plugin beyond its struct_size are never read. */
#include "broker/plugin/plugin.h"

#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "broker/util/clock.h"
#include "broker/util/log.h"

enum { PATH_BYTES = 4096 };

#define SYMBOL_TEXT_OF(x) #x
#define SYMBOL_TEXT(x) SYMBOL_TEXT_OF(x)

struct plugin {
	void *library;
	const struct sluice_plugin *symbol;
	const char *name; /* the symbol's, while its library is loaded */
	struct sluice_host host;
	char **settings; /* key, value, ... */
	size_t setting_count;
	pthread_t thread;
	bool runs, stuck;
	int stop_fd;
	int ended_fd; /* becomes readable when the service has returned */
	int transport_fd;
	int result;
	char *address;
};

static void host_log(void *user, enum sluice_log_level level, const char *id, const char *text)
{
	const struct plugin *plugin = user;
	static const enum log_level levels[] = {LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN,
						LOG_LEVEL_ERROR};

	/* plugin->symbol must not be read before init or after fini failed. */
	log_line(levels[(unsigned)level < 4 ? level : SLUICE_LOG_ERROR],
		 log_id(id != NULL ? id : "plugin.says", text != NULL ? text : ""),
		 log_str("plugin", plugin->name));
}

static const char *host_setting(void *user, const char *key)
{
	const struct plugin *plugin = user;

	for (size_t i = 0; key != NULL && i < plugin->setting_count; i++)
		if (strcmp(plugin->settings[2 * i], key) == 0)
			return plugin->settings[2 * i + 1];
	return NULL;
}

static const char *kind_name(uint32_t kind)
{
	return kind == SLUICE_PLUGIN_SERVICE	? "service"
	       : kind == SLUICE_PLUGIN_LISTENER ? "listener"
	       : kind == SLUICE_PLUGIN_AUTH	? "auth"
						: "unknown";
}

/* The end of a struct in its first version: a plugin of an older minor version has no more. */
#define END_OF(type, last) (offsetof(type, last) + sizeof(((type *)0)->last))

static int ops_check(const struct sluice_plugin *symbol, const char *name, char *why,
		     size_t why_bytes)
{
	size_t need = symbol->kind == SLUICE_PLUGIN_SERVICE
			      ? END_OF(struct sluice_service_ops, run)
			      : END_OF(struct sluice_listener_ops, closed);
	const char *missing;
	size_t has;

	if (symbol->ops == NULL) {
		(void)snprintf(why, why_bytes, "%s: the plugin has no ops", name);
		return SLUICE_E_UNSUPPORTED;
	}
	memcpy(&has, symbol->ops, sizeof(has));
	if (has < need) {
		(void)snprintf(why, why_bytes,
			       "%s: its ops have %zu bytes; a %s of ABI %d.%d has at least %zu",
			       name, has, kind_name(symbol->kind), SLUICE_PLUGIN_ABI_MAJOR,
			       SLUICE_PLUGIN_ABI_MINOR, need);
		return SLUICE_E_UNSUPPORTED;
	}
	if (symbol->kind == SLUICE_PLUGIN_SERVICE) {
		missing = ((const struct sluice_service_ops *)symbol->ops)->run == NULL ? "run"
											: NULL;
	} else {
		const struct sluice_listener_ops *ops = symbol->ops;

		missing = ops->protocol == NULL ? "protocol"
			  : ops->accept == NULL ? "accept"
			  : ops->bytes == NULL	? "bytes"
			  : ops->effect == NULL ? "effect"
			  : ops->closed == NULL ? "closed"
						: NULL;
	}
	if (missing != NULL) {
		(void)snprintf(why, why_bytes, "%s: its ops have no %s; a %s needs it", name,
			       missing, kind_name(symbol->kind));
		return SLUICE_E_UNSUPPORTED;
	}
	return 0;
}

int plugin_check(const struct sluice_plugin *symbol, const char *name, uint32_t kind_wanted,
		 char *why, size_t why_bytes)
{
	if (symbol->struct_size < END_OF(struct sluice_plugin, ops)) {
		(void)snprintf(why, why_bytes,
			       "%s: its struct has %zu bytes; ABI %d.%d needs at least %zu", name,
			       symbol->struct_size, SLUICE_PLUGIN_ABI_MAJOR,
			       SLUICE_PLUGIN_ABI_MINOR, END_OF(struct sluice_plugin, ops));
		return SLUICE_E_UNSUPPORTED;
	}
	if (symbol->abi_major != SLUICE_PLUGIN_ABI_MAJOR ||
	    symbol->abi_minor > SLUICE_PLUGIN_ABI_MINOR) {
		(void)snprintf(why, why_bytes,
			       "%s: built for plugin ABI %u.%u; this host has %d.%d (the major "
			       "must match, the minor may not be newer)",
			       name, symbol->abi_major, symbol->abi_minor, SLUICE_PLUGIN_ABI_MAJOR,
			       SLUICE_PLUGIN_ABI_MINOR);
		return SLUICE_E_UNSUPPORTED;
	}
	if (symbol->name == NULL || symbol->version == NULL) {
		(void)snprintf(why, why_bytes, "%s: the plugin has no name or version", name);
		return SLUICE_E_UNSUPPORTED;
	}
	if (symbol->kind != kind_wanted ||
	    (symbol->kind != SLUICE_PLUGIN_SERVICE && symbol->kind != SLUICE_PLUGIN_LISTENER)) {
		(void)snprintf(why, why_bytes, "%s: it is a plugin of kind %s (%u); expected %s",
			       name, kind_name(symbol->kind), symbol->kind, kind_name(kind_wanted));
		return SLUICE_E_UNSUPPORTED;
	}
	return ops_check(symbol, name, why, why_bytes);
}

static int settings_copy(struct plugin *plugin, const struct plugin_setting *settings, size_t count)
{
	plugin->settings = calloc(2 * count + 1, sizeof(char *));
	if (plugin->settings == NULL)
		return SLUICE_E_NOMEM;
	for (size_t i = 0; i < count; i++) {
		plugin->settings[2 * i] = strdup(settings[i].key);
		plugin->settings[2 * i + 1] = strdup(settings[i].value);
		plugin->setting_count++;
		if (plugin->settings[2 * i] == NULL || plugin->settings[2 * i + 1] == NULL)
			return SLUICE_E_NOMEM;
	}
	return 0;
}

/* A plain name ("local") is that of an installed plugin: in the folder that the build has
 * configured, relative to this program when both are below one prefix, so that an installed tree
 * may be moved. False: not found; ret: the path that was tried, or "". */
static bool installed_find(const char *name, char ret[PATH_BYTES])
{
	char program[PATH_BYTES], *slash;
	ssize_t len = readlink("/proc/self/exe", program, sizeof(program) - 1);

	if (strchr(name, '/') != NULL || len <= 0)
		return false;
	program[len] = 0;
	slash = strrchr(program, '/');
	len = snprintf(ret, PATH_BYTES, "%.*s%s/%s%s",
		       PLUGINS_FROM_PROGRAM[0] == '/' ? 0 : (int)(slash - program + 1), program,
		       PLUGINS_FROM_PROGRAM, name, strchr(name, '.') == NULL ? ".so" : "");
	if (len < 0 || len >= PATH_BYTES) {
		ret[0] = 0;
		return false;
	}
	return access(ret, R_OK) == 0;
}

static int open_library(struct plugin *plugin, const char *path, char *why, size_t why_bytes)
{
	char file[PATH_BYTES], installed[PATH_BYTES] = "";

	/* dlopen() would search the library path for a name without a slash, and miss the file. */
	(void)snprintf(file, sizeof(file), "%s%s", strchr(path, '/') != NULL ? "" : "./", path);
	if (access(file, R_OK) != 0 && !installed_find(path, installed)) {
		(void)snprintf(why, why_bytes, "%s: there is no such readable file%s%s", path,
			       installed[0] != 0 ? ", nor is there " : "", installed);
		return SLUICE_E_NOT_FOUND;
	}
	if (installed[0] != 0)
		memcpy(file, installed, sizeof(file));
	plugin->library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (plugin->library == NULL) {
		(void)snprintf(why, why_bytes,
			       "%s: it cannot be loaded: %s; expected a shared object with its "
			       "libraries",
			       path, dlerror());
		return SLUICE_E_UNSUPPORTED;
	}
	plugin->symbol = dlsym(plugin->library, SYMBOL_TEXT(SLUICE_PLUGIN_SYMBOL));
	if (plugin->symbol == NULL) {
		(void)snprintf(why, why_bytes,
			       "%s: it does not export %s, so it is no Sluice plugin", path,
			       SYMBOL_TEXT(SLUICE_PLUGIN_SYMBOL));
		return SLUICE_E_UNSUPPORTED;
	}
	return 0;
}

int plugin_load(const char *path, uint32_t kind_wanted, const struct plugin_setting *settings,
		size_t setting_count, struct plugin **ret, char *why, size_t why_bytes)
{
	struct plugin *plugin = calloc(1, sizeof(*plugin));
	int rc;

	(void)snprintf(why, why_bytes, "out of memory");
	if (plugin == NULL)
		return SLUICE_E_NOMEM;
	plugin->stop_fd = plugin->ended_fd = -1;
	plugin->transport_fd = -1;
	rc = settings_copy(plugin, settings, setting_count);
	if (rc == 0)
		rc = open_library(plugin, path, why, why_bytes);
	if (rc == 0)
		rc = plugin_check(plugin->symbol, path, kind_wanted, why, why_bytes);
	if (rc != 0) {
		plugin->symbol = NULL; /* the loader must not call its fini */
		plugin_unload(plugin);
		return rc;
	}
	plugin->host = (struct sluice_host){.struct_size = sizeof(struct sluice_host),
					    .log = host_log,
					    .setting = host_setting,
					    .host = plugin};
	plugin->name = plugin->symbol->name;
	/* If init does not return, this is the last line of the log. */
	log_line(LOG_LEVEL_INFO, log_id("plugin.loading", "a plugin is being initialised"),
		 log_str("plugin", plugin->name), log_str("version", plugin->symbol->version),
		 log_str("file", path));
	if (plugin->symbol->init != NULL) {
		rc = plugin->symbol->init(&plugin->host);
		if (rc != 0) {
			/* Callers expect negative codes for failures. */
			rc = rc < 0 ? rc : SLUICE_E_INTERNAL;
			(void)snprintf(why, why_bytes, "%s: its init failed: %s (%s)", path,
				       sluice_error_text(rc), sluice_error_name(rc));
			plugin->symbol = NULL;
			plugin_unload(plugin);
			return rc;
		}
	}
	*ret = plugin;
	return 0;
}

void plugin_unload(struct plugin *plugin)
{
	if (plugin == NULL || plugin->stuck)
		return; /* its thread still runs the plugin's code */
	if (plugin->symbol != NULL && plugin->symbol->fini != NULL)
		plugin->symbol->fini();
	if (plugin->library != NULL)
		(void)dlclose(plugin->library);
	for (size_t i = 0; i < 2 * plugin->setting_count; i++)
		free(plugin->settings[i]);
	free(plugin->settings);
	free(plugin->address);
	if (plugin->stop_fd >= 0)
		(void)close(plugin->stop_fd);
	if (plugin->ended_fd >= 0)
		(void)close(plugin->ended_fd);
	free(plugin);
}

const struct sluice_plugin *plugin_symbol(const struct plugin *plugin)
{
	return plugin->symbol;
}

const struct sluice_host *plugin_host(const struct plugin *plugin)
{
	return &plugin->host;
}

/* ---- services ---- */

static void *service_run(void *user)
{
	struct plugin *plugin = user;
	const struct sluice_service_ops *ops = plugin->symbol->ops;
	const uint64_t one = 1;

	plugin->result =
		ops->run(&plugin->host, plugin->address, plugin->transport_fd, plugin->stop_fd);
	log_line(plugin->result != 0 ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO,
		 log_id("plugin.ended", "a service plugin ended"), log_str("plugin", plugin->name),
		 log_str("result", sluice_error_name(plugin->result)));
	(void)!write(plugin->ended_fd, &one, sizeof(one)); /* cannot fail: the counter is 0 */
	return NULL;
}

int plugin_service_start(struct plugin *plugin, const char *address, int transport_fd)
{
	int rc;

	plugin->address = strdup(address);
	plugin->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	plugin->ended_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	plugin->transport_fd = transport_fd;
	if (plugin->address == NULL || plugin->stop_fd < 0 || plugin->ended_fd < 0)
		return SLUICE_E_NOMEM;
	rc = pthread_create(&plugin->thread, NULL, service_run, plugin);
	if (rc != 0) {
		errno = rc;
		return SLUICE_E_NOMEM;
	}
	plugin->runs = true;
	return 0;
}

/* Waits until the thread is about to end, by the monotone clock. */
static bool service_ended(const struct plugin *plugin, uint32_t wait_ms)
{
	const uint64_t until_ms = clock_mono_ns() / 1000000 + wait_ms;
	struct pollfd ended = {.fd = plugin->ended_fd, .events = POLLIN};

	for (;;) {
		uint64_t now_ms = clock_mono_ns() / 1000000;
		int rc = poll(&ended, 1, now_ms < until_ms ? (int)(until_ms - now_ms) : 0);

		if (rc > 0)
			return true;
		if (rc == 0 && now_ms >= until_ms)
			return false;
	}
}

int plugin_service_stop(struct plugin *plugin, uint32_t wait_ms)
{
	uint64_t one = 1;

	if (!plugin->runs)
		return 0;
	plugin->runs = false;
	(void)!write(plugin->stop_fd, &one, sizeof(one)); /* cannot fail: the counter is 0 */
	if (service_ended(plugin, wait_ms)) {
		(void)pthread_join(plugin->thread, NULL);
		return plugin->result;
	}
	plugin->stuck = true;
	log_line(LOG_LEVEL_ERROR,
		 log_id("plugin.stuck",
			"a service plugin did not return after its stop_fd was readable; "
			"it is abandoned"),
		 log_str("plugin", plugin->name), log_u64("waited_ms", wait_ms));
	return SLUICE_E_TIMEOUT;
}
