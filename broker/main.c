/* SPDX-License-Identifier: Apache-2.0
 * sluiced: wiring only. Configuration -> store -> engine -> net -> plugins -> ready, and the
 * reverse. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/admin/config.h"
#include "broker/admin/dump.h"
#include "broker/admin/listen.h"
#include "broker/net/net.h"
#include "broker/plugin/faces.h"
#include "broker/plugin/plugin.h"
#include "broker/util/clock.h"
#include "broker/util/log.h"
#include "broker/util/process.h"

enum {
	PLUGIN_SETTINGS_MAX = 32,
	PLUGIN_STOP_MS = 10000,
	PLUGIN_STOP_MS_MAX = 3600000,
	CONNECTIONS_MAX = 1000000 /* of one listener */
};

struct broker {
	struct config config;
	struct store *store;
	struct engine *engine;
	struct net *net;
	struct plugin *plugins[CONFIG_PLUGINS_MAX];
	uint32_t plugin_stop_ms[CONFIG_PLUGINS_MAX];
	size_t plugin_count;
	struct tls *tls; /* NULL: no listener needs it */
	struct listen_at listens[sizeof(((struct config *)0)->listen_values) /
				 CONFIG_TEXT_MAX]; /* with the ports that were bound */
	size_t listen_count;
};

static int usage(FILE *to, int code)
{
	(void)fprintf(to,
		      "usage: sluiced --data DIR [--listen ADDRESS:PORT|unix:/PATH]... [--config "
		      "FILE] [--set "
		      "KEY=VALUE]... [--plugin \"PATH KEY=VALUE...\"]...\n"
		      "                               a file or value with spaces: '\"/a b/x.so\" "
		      "key=\"a b\"'; in there \"\" is one \"\n"
		      "       sluiced --dump DIR      every record of a store that no broker has "
		      "open, as text\n"
		      "       sluiced --commands      the command table\n"
		      "       sluiced --settings      every setting with its default and bounds\n"
		      "       sluiced --version\n");
	return code;
}

static int report_error(int rc, const char *why)
{
	(void)fprintf(stderr, "sluiced: %s\n", why);
	return rc;
}

/* ---- faults in the store's map ---- */

/* A page of the store that cannot be read (the file was cut short, the disk returns an error) or
 * that leads outside of the file ends the process here, with its number in the log. Any other fault
 * is a bug and keeps its signal. Only async-signal-safe calls. */
static struct sigaction before_segv, before_bus;

static void on_fault(int number, siginfo_t *info, void *context)
{
	static const char text[] =
		"sluiced: the store's file cannot be read or is damaged (a fault in its map, page ";
	char line[160];
	size_t len = sizeof(text) - 1, first;
	uint64_t page;

	(void)context;
	if (!store_map_page(info->si_addr, &page)) {
		/* On return the fault is raised again and reaches the previous handler. */
		(void)sigaction(number, number == SIGBUS ? &before_bus : &before_segv, NULL);
		return;
	}
	memcpy(line, text, len);
	for (first = len, line[len++] = (char)('0' + page % 10);
	     (page /= 10) > 0 && len < sizeof(line) - 40;)
		line[len++] = (char)('0' + page % 10);
	for (size_t last = len - 1; first < last; first++, last--) {
		char swap = line[first];

		line[first] = line[last];
		line[last] = swap;
	}
	memcpy(line + len, "); `sluiced --dump DIR` reports details\n", 34);
	len += 34;
	(void)!write(STDERR_FILENO, line, len);
	_exit(sluice_error_exit_code(SLUICE_E_CORRUPT));
}

static void catch_faults(void)
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};

	(void)sigemptyset(&action.sa_mask);
	(void)sigaction(SIGSEGV, &action, &before_segv);
	(void)sigaction(SIGBUS, &action, &before_bus);
}

/* ---- short cuts ---- */

static int print_commands(void)
{
	static const char *const headroom[] = {"publish", "report", "always"};
	size_t count;
	const struct command_spec *specs = command_specs(&count);

	for (size_t i = 0; i < count; i++)
		(void)printf("%3u  %-20s %-16s %-8s %s\n", specs[i].type, specs[i].name,
			     specs[i].permission, headroom[specs[i].headroom], specs[i].text);
	return 0;
}

static int dump(const char *dir)
{
	struct store_options options = {.read_only = true};
	struct store *store = NULL;
	const char *why = "";
	uint64_t records, damaged;
	int rc = store_open_lmdb(dir, &options, &store, &why);

	if (rc != 0) {
		(void)fprintf(stderr, "sluiced: %s: %s\n", dir, why);
		return sluice_error_exit_code(rc);
	}
	rc = dump_store(store, stdout, &records, &damaged);
	store_close(store);
	(void)fflush(stdout);
	(void)fprintf(stderr, "%llu records, %llu damaged\n", (unsigned long long)records,
		      (unsigned long long)damaged);
	return sluice_error_exit_code(rc);
}

/* ---- arguments ---- */

static int set_pair(struct config *config, char *pair, char *why, size_t why_bytes)
{
	char *equals = strchr(pair, '=');

	if (equals == NULL) {
		(void)snprintf(why, why_bytes, "--set '%s'; expected KEY=VALUE", pair);
		return SLUICE_E_INVAL;
	}
	*equals = 0;
	return config_set(config, pair, equals + 1, why, why_bytes);
}

/* Returns 0 to continue, 1 when the program is done (exit code in *ret_exit), or an error. */
static int parse(struct config *config, int argc, char **argv, int *ret_exit, char *why,
		 size_t why_bytes)
{
	for (int i = 1; i < argc; i++) {
		const char *option = argv[i];
		char *value = i + 1 < argc ? argv[i + 1] : NULL;
		int rc = 0;

		*ret_exit = 0;
		if (strcmp(option, "--help") == 0)
			return usage(stdout, 1);
		if (strcmp(option, "--version") == 0)
			return printf("sluiced %s\n", SLUICE_VERSION) > 0;
		if (strcmp(option, "--commands") == 0)
			return print_commands() + 1;
		if (strcmp(option, "--settings") == 0) {
			config_print(stdout);
			return 1;
		}
		if (value == NULL) {
			(void)snprintf(why, why_bytes,
				       "'%s' is unknown or needs a value; --help shows the usage",
				       option);
			return SLUICE_E_INVAL;
		}
		i++;
		if (strcmp(option, "--dump") == 0) {
			*ret_exit = dump(value);
			return 1;
		}
		if (strcmp(option, "--config") == 0) {
			rc = config_load(config, value, why, why_bytes);
		} else if (strcmp(option, "--set") == 0) {
			rc = set_pair(config, value, why, why_bytes);
		} else if (strcmp(option, "--data") == 0 || strcmp(option, "--listen") == 0 ||
			   strcmp(option, "--plugin") == 0) {
			rc = config_set(config, option + 2, value, why, why_bytes);
		} else {
			(void)snprintf(why, why_bytes, "'%s' is unknown; --help shows the usage",
				       option);
			rc = SLUICE_E_INVAL;
		}
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* ---- start ---- */

/* Beyond loopback whoever reaches the port may do everything. */
static int listens_parse(struct broker *broker, char *why, size_t why_bytes)
{
	const struct config *config = &broker->config;

	for (size_t i = 0; i < config->listen.count; i++) {
		struct listen_at at;
		int rc = listen_parse(config->listen_values[i], &at, why, why_bytes);

		if (rc != 0)
			return rc;
		if (!listen_is_local(&at) && !config->insecure) {
			(void)snprintf(why, why_bytes,
				       "listen is '%.200s', beyond loopback, and this version has "
				       "no "
				       "authentication; `insecure = yes` allows it",
				       config->listen_values[i]);
			return SLUICE_E_DENIED;
		}
		broker->listens[broker->listen_count++] = at;
	}
	return 0;
}

/* The certificate and key, if a listener needs them. */
static int load_tls(struct broker *broker, char *why, size_t why_bytes)
{
	const struct config *config = &broker->config;
	const char *text = "";
	bool needed = false;
	int rc;

	for (size_t i = 0; i < broker->listen_count; i++)
		needed = needed || broker->listens[i].tls;
	if (!needed)
		return 0;
	if (config->tls_cert[0] == 0 || config->tls_key[0] == 0) {
		(void)snprintf(why, why_bytes,
			       "listen has an address with tls:, and tls_cert and tls_key are not "
			       "both set");
		return SLUICE_E_INVAL;
	}
	rc = tls_create(config->tls_cert, config->tls_key, &broker->tls, &text);
	if (rc != 0)
		(void)snprintf(why, why_bytes, "tls_cert, tls_key: %s", text);
	return rc;
}

static void fail_stop(void *user, int code, const char *text)
{
	(void)user;
	log_line(LOG_LEVEL_ERROR,
		 log_id("engine.fail_stop",
			"a commit failed: the outcome of its commands is unknown to their "
			"senders, and no further command is acknowledged; remove the "
			"cause and restart"),
		 log_str("error", sluice_error_name(code)), log_str("cause", text));
	/* No destructor, no flush: nothing may write to the store any more. */
	_exit(sluice_error_exit_code(code));
}

/* Of the machine's boot; 0: not known. */
static uint64_t boot_id(void)
{
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
	uint64_t id = 0;
	int c;

	while (file != NULL && (c = fgetc(file)) != EOF && id >> 60 == 0)
		if (isxdigit(c))
			id = id << 4 | (uint64_t)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
	if (file != NULL)
		(void)fclose(file);
	return id;
}

static int start_store(struct broker *broker, char *why, size_t why_bytes)
{
	struct store_options options = {.create = true,
					.map_bytes = broker->config.map_mib << 20,
					.check_bytes = broker->config.check_mib << 20};
	struct engine_config engine = {.inbox_bytes_max = broker->config.inbox_mib << 20,
				       .publish_stop_percent =
					       (uint32_t)broker->config.publish_stop_percent,
				       .report_stop_percent =
					       (uint32_t)broker->config.report_stop_percent,
				       .reserve_bytes = broker->config.reserve_mib << 20,
				       .boot_id = boot_id(),
				       .fail_stop = fail_stop};
	struct batch_clock now = {clock_mono_ns() / 1000000, (uint64_t)clock_wall_ms()};
	struct store_facts facts;
	const char *text = "";
	int rc = store_open_lmdb(broker->config.data, &options, &broker->store, &text);

	if (rc != 0) {
		(void)snprintf(why, why_bytes, "data directory %.200s: %s", broker->config.data,
			       text);
		return rc;
	}
	store_facts_get(broker->store, &facts);
	if (facts.map_bytes < options.map_bytes)
		log_line(LOG_LEVEL_WARN,
			 log_id("store.file_limit",
				"the file size limit is below map_mib and bounds the store "
				"(ulimit -f, LimitFSIZE=)"),
			 log_u64("map_bytes", facts.map_bytes),
			 log_u64("map_mib", broker->config.map_mib));
	rc = engine_create(&engine, broker->store, now, &broker->engine);
	if (rc != 0)
		(void)snprintf(why, why_bytes,
			       "data directory %.200s: the store cannot be started (%s): %s",
			       broker->config.data, sluice_error_name(rc),
			       rc == SLUICE_E_NOMEM    ? "out of memory"
			       : rc == SLUICE_E_SCHEMA ? "a newer version has written it"
						       : store_last_error());
	return rc != 0 ? rc : engine_end_ephemeral(broker->engine, now);
}

static int open_native(struct broker *broker, size_t which, char *why, size_t why_bytes)
{
	struct listen_at *at = &broker->listens[which];
	const struct net_listener row = {.protocol = &native_protocol,
					 .address = at->host,
					 .port = at->port,
					 .path = at->path[0] != 0 ? at->path : NULL,
					 .tls = at->tls ? broker->tls : NULL};
	const char *text = "";
	int rc = net_listen(broker->net, &row, &at->port, &text);

	if (rc != 0)
		(void)snprintf(why, why_bytes, "listen = %.200s: %s",
			       broker->config.listen_values[which], text);
	return rc;
}

static int start_net(struct broker *broker, char *why, size_t why_bytes)
{
	struct net_config config = {.io_threads = (uint32_t)broker->config.io_threads,
				    .connections_max = (uint32_t)broker->config.connections_max,
				    .outbox_bytes_max = broker->config.outbox_mib << 20,
				    .input_bytes_max = broker->config.input_mib << 20,
				    .zstd = broker->config.zstd};
	uint64_t random;
	int rc = listens_parse(broker, why, why_bytes);

	if (rc == 0)
		rc = load_tls(broker, why, why_bytes);
	if (rc != 0)
		return rc;
	/* Checked now: secrets and tokens need random bytes later, when a failure could not be
	 * reported. */
	if (getrandom(&random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
		(void)snprintf(why, why_bytes, "random numbers cannot be read (getrandom): %s",
			       strerror(errno));
		return SLUICE_E_IO;
	}
	errno = 0;
	rc = net_create(&config, broker->engine, &broker->net);
	if (rc != 0) {
		(void)snprintf(why, why_bytes,
			       "the event loops of %u I/O threads cannot be made: %s (io_threads, "
			       "ulimit -n)",
			       config.io_threads,
			       errno != 0 ? strerror(errno) : sluice_error_text(rc));
		return rc;
	}
	for (size_t i = 0; i < broker->listen_count && rc == 0; i++)
		rc = open_native(broker, i, why, why_bytes);
	return rc;
}

/* The next word, split in place: text between two '"' is literal, spaces too, and '""' in it stands
 * for one '"'. *ret is NULL after the last word. INVAL: a '"' is not closed. */
static int word_next(char **io_at, char **ret)
{
	char *from = *io_at + strspn(*io_at, " "), *to = from;
	bool quoted = false;

	*ret = *from != 0 ? from : NULL;
	for (; *from != 0 && (quoted || *from != ' '); from++) {
		if (*from != '"' || (quoted && from[1] == '"' && *++from != 0))
			*to++ = *from;
		else
			quoted = !quoted;
	}
	*io_at = *from != 0 ? from + 1 : from;
	*to = 0;
	return quoted ? SLUICE_E_INVAL : 0;
}

/* "PATH KEY=VALUE ...": split in place. */
static int plugin_words(char *line, char **ret_path, struct plugin_setting *settings,
			size_t *ret_count, char *why, size_t why_bytes)
{
	size_t count = 0;
	char *at = line, *path, *word;
	int rc = word_next(&at, &path);

	while (rc == 0 && (rc = word_next(&at, &word)) == 0 && word != NULL) {
		char *equals = strchr(word, '=');

		if (equals == NULL || equals == word || count == PLUGIN_SETTINGS_MAX) {
			(void)snprintf(why, why_bytes,
				       "plugin %.300s: '%.100s'; expected KEY=VALUE, at most %d of "
				       "them",
				       path, word, PLUGIN_SETTINGS_MAX);
			return SLUICE_E_INVAL;
		}
		*equals = 0;
		settings[count++] = (struct plugin_setting){word, equals + 1};
	}
	*ret_count = count;
	*ret_path = path;
	if (rc != 0) {
		(void)snprintf(why, why_bytes, "plugin %.300s: a '\"' is not closed", path);
		return rc;
	}
	if (path != NULL && path[0] != 0)
		return 0;
	(void)snprintf(why, why_bytes,
		       "plugin: the file is missing; expected \"PATH KEY=VALUE...\"");
	return SLUICE_E_INVAL;
}

static const char *setting_of(const struct plugin_setting *settings, size_t count, const char *key)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(settings[i].key, key) == 0)
			return settings[i].value;
	return NULL;
}

/* A plugin's setting that is a number for the broker itself. 0, or INVAL with why. */
static int number_of(const struct plugin_setting *settings, size_t count, const char *key,
		     uint32_t fallback, uint32_t max, uint32_t *ret, char *why, size_t why_bytes)
{
	const char *text = setting_of(settings, count, key);
	char *end = NULL;
	unsigned long number;

	*ret = fallback;
	if (text == NULL)
		return 0;
	errno = 0;
	number = strtoul(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end != 0 || errno != 0 || number > max) {
		(void)snprintf(why, why_bytes,
			       "a plugin's %s is '%.60s'; expected a number from 0 to %u", key,
			       text, max);
		return SLUICE_E_INVAL;
	}
	*ret = (uint32_t)number;
	return 0;
}

/* Foreign ports are opened beside the first port of the native protocol, and as it is. */
static void foreign_row(const struct broker *broker, struct net_listener *ret)
{
	ret->address = "127.0.0.1";
	for (size_t i = broker->listen_count; i-- > 0;) {
		const struct listen_at *at = &broker->listens[i];

		if (at->path[0] != 0)
			continue;
		ret->address = at->host;
		ret->tls = at->tls ? broker->tls : NULL;
	}
}

/* Opens the port of a protocol that is not the native one. name: for the log and for clients. */
static int open_foreign(struct broker *broker, const char *name, struct net_listener *row,
			const struct plugin_setting *settings, size_t count, uint16_t default_port,
			char *why, size_t why_bytes)
{
	const char *text = "";
	uint32_t wanted;
	uint16_t port = 0;
	int rc = number_of(settings, count, "port", default_port, UINT16_MAX, &wanted, why,
			   why_bytes);

	if (rc == 0)
		rc = number_of(settings, count, "connections_max", 0, CONNECTIONS_MAX,
			       &row->connections_max, why, why_bytes);
	if (rc != 0)
		return rc;
	foreign_row(broker, row);
	row->port = (uint16_t)wanted;
	rc = net_listen(broker->net, row, &port, &text);
	if (rc != 0) {
		(void)snprintf(why, why_bytes, "listener %s: %s", name, text);
		return rc;
	}
	log_line(LOG_LEVEL_INFO, log_id("listener.ready", "a foreign listener is open"),
		 log_str("protocol", name), log_u64("port", port));
	(void)printf("listener %s %s:%u\n", name, row->address, port);
	return 0;
}

static int start_listener(struct broker *broker, struct plugin *plugin,
			  const struct plugin_setting *settings, size_t count, char *why,
			  size_t why_bytes)
{
	const struct sluice_listener_ops *ops = plugin_symbol(plugin)->ops;
	struct net_listener row = {.protocol = &foreign_protocol, .listener = ops};

	return open_foreign(broker, ops->protocol, &row, settings, count, ops->default_port, why,
			    why_bytes);
}

/* A protocol that is linked into this program. */
static int start_face(struct broker *broker, const char *name,
		      const struct plugin_setting *settings, size_t count, char *why,
		      size_t why_bytes)
{
	for (const struct face *face = faces; face->name != NULL; face++) {
		struct net_listener row = {.protocol = face->protocol};

		if (strcmp(face->name, name) == 0)
			return open_foreign(broker, name, &row, settings, count, 0, why, why_bytes);
	}
	(void)snprintf(why, why_bytes, "plugin %.300s: this broker has no such face built in",
		       name);
	return SLUICE_E_NOT_FOUND;
}

static int start_service(struct broker *broker, struct plugin *plugin, char *why, size_t why_bytes)
{
	char address[LISTEN_TEXT_BYTES];
	int pair[2];
	int rc;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) != 0) {
		(void)snprintf(why, why_bytes, "plugin %s: its socket pair cannot be made: %s",
			       plugin_symbol(plugin)->name, strerror(errno));
		return SLUICE_E_IO;
	}
	rc = net_adopt(broker->net, &native_protocol, NULL, pair[0]);
	if (rc == 0)
		rc = plugin_service_start(plugin, listen_text(&broker->listens[0], address),
					  pair[1]);
	if (rc != 0)
		(void)snprintf(why, why_bytes,
			       "plugin %s: its service cannot be started: %s (ulimit -n, ulimit "
			       "-u)",
			       plugin_symbol(plugin)->name,
			       rc == SLUICE_E_NOMEM && errno != 0 ? strerror(errno)
								  : sluice_error_text(rc));
	return rc;
}

/* Starts one of the configured plugins if it is of that kind. */
static int start_plugin(struct broker *broker, const char *configured, uint32_t kind, char *why,
			size_t why_bytes)
{
	struct plugin_setting settings[PLUGIN_SETTINGS_MAX];
	char line[CONFIG_TEXT_MAX], *path;
	size_t count = 0;
	const char *as;
	struct plugin *plugin = NULL;
	uint32_t stop_ms;
	int rc;

	(void)snprintf(line, sizeof(line), "%s", configured);
	rc = plugin_words(line, &path, settings, &count, why, why_bytes);
	if (rc == 0)
		rc = number_of(settings, count, "stop_ms", PLUGIN_STOP_MS, PLUGIN_STOP_MS_MAX,
			       &stop_ms, why, why_bytes);
	if (rc != 0)
		return rc;
	as = setting_of(settings, count, "kind");
	if (as == NULL)
		as = "service";
	if (strcmp(as, "listener") != 0 && strcmp(as, "service") != 0 && strcmp(as, "face") != 0) {
		(void)snprintf(why, why_bytes,
			       "plugin %.300s: kind is '%.60s'; expected listener or service, or "
			       "face for a protocol that is built in",
			       path, as);
		return SLUICE_E_INVAL;
	}
	if ((strcmp(as, "service") == 0) != (kind == SLUICE_PLUGIN_SERVICE))
		return 0;
	if (strcmp(as, "face") == 0)
		return start_face(broker, path, settings, count, why, why_bytes);
	rc = plugin_load(path, kind, settings, count, &plugin, why, why_bytes);
	if (rc != 0)
		return rc;
	broker->plugin_stop_ms[broker->plugin_count] = stop_ms;
	broker->plugins[broker->plugin_count++] = plugin;
	return kind == SLUICE_PLUGIN_LISTENER
		       ? start_listener(broker, plugin, settings, count, why, why_bytes)
		       : start_service(broker, plugin, why, why_bytes);
}

/* Listeners start before the threads run, services after. */
static int start_plugins(struct broker *broker, uint32_t kind, char *why, size_t why_bytes)
{
	int rc = 0;

	for (size_t i = 0; i < broker->config.plugin_count && rc == 0; i++)
		rc = start_plugin(broker, broker->config.plugins[i], kind, why, why_bytes);
	return rc;
}

static int start(struct broker *broker, char *why, size_t why_bytes)
{
	int rc = start_store(broker, why, why_bytes);

	if (rc == 0)
		rc = start_net(broker, why, why_bytes);
	if (rc == 0)
		rc = start_plugins(broker, SLUICE_PLUGIN_LISTENER, why, why_bytes);
	if (rc != 0)
		return rc;
	rc = engine_start(broker->engine);
	if (rc == 0)
		rc = net_start(broker->net);
	if (rc != 0)
		(void)snprintf(why, why_bytes,
			       "the threads of the engine and of I/O cannot be started: %s "
			       "(io_threads, ulimit -u)",
			       strerror(errno));
	if (rc == 0)
		rc = start_plugins(broker, SLUICE_PLUGIN_SERVICE, why, why_bytes);
	return rc;
}

/* ---- end ---- */

/* A failed start removes what it created, unless a client was answered meanwhile. */
static void stop(struct broker *broker, bool failed)
{
	struct engine_facts facts = {0};

	for (size_t i = 0; i < broker->plugin_count; i++)
		(void)plugin_service_stop(broker->plugins[i], broker->plugin_stop_ms[i]);
	if (!failed && !net_drain(broker->net, broker->config.drain_ms))
		log_line(LOG_LEVEL_WARN,
			 log_id("broker.undrained",
				"drain_ms has passed; some requests stay without an answer"),
			 log_u64("drain_ms", broker->config.drain_ms));
	if (broker->engine != NULL)
		engine_stop(broker->engine);
	if (broker->net != NULL)
		net_stop(broker->net);
	if (broker->engine != NULL)
		engine_facts_get(broker->engine, &facts);
	net_destroy(broker->net);
	tls_destroy(broker->tls);
	engine_destroy(broker->engine);
	if (failed && facts.commits == 0)
		store_discard(broker->store);
	else
		store_close(broker->store);
	for (size_t i = 0; i < broker->plugin_count; i++)
		plugin_unload(broker->plugins[i]);
}

static int configure_log(const struct config *config, char *why, size_t why_bytes)
{
	enum log_level level;
	enum log_format format;

	if (log_level_parse(config->log_level, &level) != 0 ||
	    log_format_parse(config->log_format, &format) != 0) {
		(void)snprintf(why, why_bytes,
			       "log_level is '%.50s' and log_format '%.50s'; expected error, warn, "
			       "info or debug, and logfmt or json",
			       config->log_level, config->log_format);
		return SLUICE_E_INVAL;
	}
	log_configure(STDERR_FILENO, level, format);
	return 0;
}

/* The first `listen` is the broker's address. */
static void ready(const struct broker *broker)
{
	const struct listen_at *first = &broker->listens[0];
	char text[LISTEN_TEXT_BYTES];

	for (size_t i = 1; i < broker->listen_count; i++)
		(void)printf("listener native %s\n", listen_text(&broker->listens[i], text));
	(void)listen_text(first, text);
	log_line(LOG_LEVEL_INFO, log_id("broker.ready", "listening"),
		 log_str("address", first->path[0] != 0 ? text : first->host),
		 log_u64("port", first->port), log_str("data", broker->config.data),
		 log_str("version", SLUICE_VERSION));
	(void)printf("ready %s pid=%d\n", text, (int)getpid());
	(void)fflush(stdout);
}

static int run(struct broker *broker, int stop_fd)
{
	char why[768];
	int rc = configure_log(&broker->config, why, sizeof(why));

	if (rc == 0 && broker->config.data[0] == 0) {
		(void)snprintf(why, sizeof(why), "no data directory is given; expected --data DIR");
		rc = SLUICE_E_INVAL;
	}
	if (rc == 0 && broker->config.publish_stop_percent >= broker->config.report_stop_percent) {
		(void)snprintf(why, sizeof(why),
			       "publish_stop_percent is %llu and report_stop_percent %llu; "
			       "expected the first to be less",
			       (unsigned long long)broker->config.publish_stop_percent,
			       (unsigned long long)broker->config.report_stop_percent);
		rc = SLUICE_E_INVAL;
	}
	if (rc == 0)
		rc = start(broker, why, sizeof(why));
	if (rc != 0) {
		stop(broker, true);
		return sluice_error_exit_code(report_error(rc, why));
	}
	ready(broker);
	process_stop_wait(stop_fd);
	log_line(LOG_LEVEL_INFO, log_id("broker.stopping", "stopping"));
	stop(broker, false);
	return 0;
}

/* Each commit and each read of a large batch frees memory that the next one allocates again:
 * returning it to the system in between costs more than the copy into it. The kept memory is
 * bounded for each thread. */
enum { MEMORY_KEPT_BYTES = 32 << 20, MEMORY_OWN_MAPPING_BYTES = 4 << 20 };

static void keep_memory(void)
{
#ifdef M_TRIM_THRESHOLD
	(void)mallopt(M_TRIM_THRESHOLD, MEMORY_KEPT_BYTES);
	(void)mallopt(M_MMAP_THRESHOLD, MEMORY_OWN_MAPPING_BYTES);
#endif
}

int main(int argc, char **argv)
{
	static struct broker broker;
	char why[768] = "";
	int stop_fd, done, code = 0;

	process_inherit();
	keep_memory();
	catch_faults();
	config_init(&broker.config);
	done = parse(&broker.config, argc, argv, &code, why, sizeof(why));
	if (done > 0)
		return code;
	if (done < 0)
		return sluice_error_exit_code(report_error(done, why));
	if (process_isolate() != 0)
		log_line(LOG_LEVEL_WARN,
			 log_id("process.no_reaper",
				"process 1 cannot fork: orphaned processes stay as zombies"),
			 log_str("cause", strerror(errno)));
	process_files_raise();
	stop_fd = process_stop_fd();
	if (stop_fd < 0) {
		(void)snprintf(why, sizeof(why), "the thread for signals cannot be started: %s",
			       strerror(errno));
		return report_error(1, why);
	}
	return run(&broker, stop_fd);
}
