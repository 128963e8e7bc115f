/* SPDX-License-Identifier: Apache-2.0
 *
 * The settings of the local scheduler: read once, checked, and refused with the name of the setting
 * and what was expected. plugins/local/README.md has the list for users.
 */
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "settings.h"

/* 32 bits: what the protocol has for credit and session timeouts. */
enum { SLOTS_MAX = 1000000, SHEPHERD_PLACES = 2 };
#define MS_MAX UINT64_C(31536000000000)	   /* a thousand years */
#define OUTPUT_KIB_MAX UINT64_C(999999999) /* what a status file can say, about 1 TB */

static int __attribute__((format(printf, 3, 4)))
refused(struct service *service, int code, const char *format, ...)
{
	char text[400];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	service_log(service, SLUICE_LOG_ERROR, "local.setting", NULL, text);
	return code;
}

static const char *value_of(struct service *service, const char *key)
{
	return service->host->setting(service->host->host, key);
}

static int text(struct service *service, const char *key, const char *fallback, char *ret,
		size_t ret_bytes)
{
	const char *value = value_of(service, key);

	value = value != NULL ? value : fallback;
	if (strlen(value) >= ret_bytes)
		return refused(service, SLUICE_E_LIMIT,
			       "setting %s has %zu bytes; expected at most %zu", key, strlen(value),
			       ret_bytes - 1);
	memcpy(ret, value, strlen(value) + 1);
	return 0;
}

static int number(struct service *service, const char *key, uint64_t fallback, uint64_t min,
		  uint64_t max, uint64_t *ret)
{
	const char *value = value_of(service, key);
	char *end = NULL;

	*ret = fallback;
	if (value == NULL)
		return 0;
	errno = 0;
	*ret = strtoull(value, &end, 10);
	if (value[0] < '0' || value[0] > '9' || *end != 0 || errno != 0 || *ret < min || *ret > max)
		return refused(service, SLUICE_E_INVAL,
			       "setting %s is '%.60s'; expected a whole number from %" PRIu64
			       " to %" PRIu64,
			       key, value, min, max);
	return 0;
}

/* The index of the value among words (NULL-terminated); the first one when it is not set. */
static int word(struct service *service, const char *key, const char *const *words, size_t *ret)
{
	const char *value = value_of(service, key);
	char expected[128] = "";
	size_t len = 0;

	*ret = 0;
	if (value == NULL)
		return 0;
	for (size_t i = 0; words[i] != NULL; i++) {
		if (strcmp(value, words[i]) == 0) {
			*ret = i;
			return 0;
		}
		len += (size_t)snprintf(expected + len, sizeof(expected) - len, "%s%s",
					i > 0 ? ", " : "", words[i]);
	}
	return refused(service, SLUICE_E_INVAL, "setting %s is '%.60s'; expected one of: %s", key,
		       value, expected);
}

static int numbers(struct service *service)
{
	struct settings *settings = &service->settings;
	int rc = number(service, "keep_ms", 604800000, 0, MS_MAX, &settings->keep_ms);

	if (rc == 0)
		rc = number(service, "compare_ms", 300000, 1, MS_MAX, &settings->compare_ms);
	if (rc == 0)
		rc = number(service, "give_up_ms", 0, 0, MS_MAX, &settings->give_up_ms);
	if (rc == 0)
		rc = number(service, "output_max_kib", 1048576, 0, OUTPUT_KIB_MAX,
			    &settings->output_max_kib);
	if (rc == 0)
		rc = number(service, "slots", 64, 1, SLOTS_MAX, &settings->slots);
	if (rc == 0)
		rc = number(service, "session_timeout_ms", 5000, 1, UINT32_MAX,
			    &settings->session_timeout_ms);
	return rc;
}

/* The shepherd is beside the plugin in a build tree; an installed one is where the build was told
 * to install programs that people do not run, named relative to the plugin when both are below one
 * prefix: a tree may be moved. */
static int shepherd_find(struct service *service)
{
	static const char *const places[SHEPHERD_PLACES] = {"sluice-shepherd",
							    SHEPHERD_FROM_PLUGIN};
	struct settings *settings = &service->settings;
	const char *slash;
	Dl_info info;

	if (value_of(service, "shepherd") != NULL) {
		if (access(settings->shepherd, X_OK) == 0)
			return 0;
		return refused(service, SLUICE_E_NOT_FOUND,
			       "setting shepherd is '%.200s': %s; expected the program "
			       "sluice-shepherd",
			       settings->shepherd, strerror(errno));
	}
	if (dladdr((void *)(uintptr_t)settings_read, &info) == 0 ||
	    (slash = strrchr(info.dli_fname, '/')) == NULL)
		return refused(service, SLUICE_E_NOT_FOUND,
			       "setting shepherd is needed: where this plugin was loaded from is "
			       "not known");
	for (size_t i = 0; i < SHEPHERD_PLACES; i++) {
		int dir_len = places[i][0] == '/' ? 0 : (int)(slash - info.dli_fname + 1);
		int len = snprintf(settings->shepherd, sizeof(settings->shepherd), "%.*s%s",
				   dir_len, info.dli_fname, places[i]);

		if (len > 0 && (size_t)len < sizeof(settings->shepherd) &&
		    access(settings->shepherd, X_OK) == 0)
			return 0;
	}
	return refused(service, SLUICE_E_NOT_FOUND,
		       "setting shepherd is needed: sluice-shepherd is neither beside the plugin "
		       "nor at %.300s (%s)",
		       settings->shepherd, strerror(errno));
}

int settings_read(struct service *service)
{
	static const char *const windows[] = {"", "intent", "start", "record", NULL};
	static const char *const leftovers[] = {"end", "leave", NULL};
	struct settings *settings = &service->settings;
	size_t at;
	int rc;

	if (value_of(service, "spool") == NULL || value_of(service, "spool")[0] == 0)
		return refused(service, SLUICE_E_INVAL,
			       "setting spool is missing; expected a directory");
	rc = text(service, "spool", "", settings->spool, sizeof(settings->spool));
	if (rc == 0)
		rc = text(service, "shepherd", "", settings->shepherd, sizeof(settings->shepherd));
	if (rc == 0)
		rc = text(service, "queue", "runs", settings->queue, sizeof(settings->queue));
	if (rc == 0)
		rc = text(service, "session", "local", settings->session,
			  sizeof(settings->session));
	if (rc == 0)
		rc = text(service, "source", "", settings->source, sizeof(settings->source));
	if (rc == 0)
		rc = numbers(service);
	for (enum role role = 0; role < ROLES; role++)
		settings->roles[role] = value_of(service, lifecycle_setting(role));
	if (rc == 0) {
		rc = word(service, "pause", windows, &at);
		settings->pause = (enum window)at;
	}
	if (rc == 0) {
		rc = word(service, "leftovers", leftovers, &at);
		settings->leave_leftovers = at == 1;
	}
	return rc != 0 ? rc : shepherd_find(service);
}
