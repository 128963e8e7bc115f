/* SPDX-License-Identifier: Apache-2.0
 * Configuration: properties as strings, from one table. */
#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/base/client.h"
#include "client/base/error.h"
#include "client/base/memory.h"

enum kind { TEXT, NUMBER32, NUMBER64, CHOICE, TLS, DESCRIPTOR };
struct row {
	const char *key;
	enum kind kind;
	size_t offset;
	size_t size; /* TEXT */
	uint64_t min, max;
	const char *fallback;
	const char *yes, *no; /* CHOICE: a bool member (mode: 1 is yes) */
};
#define AT(member) offsetof(struct sluice_config, member)
static const struct row rows[] = {
	{"address", TEXT, AT(address), 512, 0, 0, "127.0.0.1:7584", 0, 0},
	{"gateway", TEXT, AT(gateway), sizeof(((struct sluice_config *)0)->gateway), 0, 0, "", 0,
	 0},
	{"client", TEXT, AT(client), sizeof(((struct sluice_config *)0)->client), 0, 0, "libsluice",
	 0, 0},
	{"session", TEXT, AT(session), sizeof(((struct sluice_config *)0)->session), 0, 0, "", 0,
	 0},
	{"producer", TEXT, AT(producer), sizeof(((struct sluice_config *)0)->producer), 0, 0, "", 0,
	 0},
	{"session_timeout_ms", NUMBER32, AT(session_timeout_ms), 0, 1000, 86400000, "30000", 0, 0},
	{"deadline_ms", NUMBER32, AT(deadline_ms), 0, 1, 86400000, "10000", 0, 0},
	{"connect_timeout_ms", NUMBER32, AT(connect_timeout_ms), 0, 1, 600000, "5000", 0, 0},
	{"reconnect_min_ms", NUMBER32, AT(reconnect_min_ms), 0, 1, 600000, "50", 0, 0},
	{"reconnect_max_ms", NUMBER32, AT(reconnect_max_ms), 0, 1, 600000, "5000", 0, 0},
	{"batch_events", NUMBER32, AT(batch_events), 0, 1, 10000, "1000", 0, 0},
	{"batch_bytes", NUMBER64, AT(batch_bytes), 0, 1, 16777216, "262144", 0, 0},
	{"buffer_bytes", NUMBER64, AT(buffer_bytes), 0, 1024, 1ull << 40, "16777216", 0, 0},
	{"tls", TLS, AT(tls), 0, 0, 0, "auto", 0, 0},
	{"tls_ca", TEXT, AT(tls_ca), sizeof(((struct sluice_config *)0)->tls_ca), 0, 0, "", 0, 0},
	{"mode", CHOICE, AT(mode), 4, 0, 0, "own-thread", "caller-loop", "own-thread"},
	{"reconnect", CHOICE, AT(reconnect), 1, 0, 0, "yes", "yes", "no"},
	{"buffer_policy", CHOICE, AT(buffer_block), 1, 0, 0, "block", "block", "fail"},
	{"compress", CHOICE, AT(zstd), 1, 0, 0, "none", "zstd", "none"},
	{"lease_extend", CHOICE, AT(lease_extend), 1, 0, 0, "yes", "yes", "no"},
	{"lease_extend_max_ms", NUMBER32, AT(lease_extend_max_ms), 0, 0, UINT32_MAX, "0", 0, 0},
	{"transport_fd", DESCRIPTOR, AT(transport_fd), 0, 0, INT32_MAX, NULL, 0, 0},
};
_Static_assert(sizeof(enum client_mode) == 4, "the table writes it as 4 bytes");

static int set_number(struct sluice_config *config, const struct row *row, const char *value)
{
	char *end = NULL;
	unsigned long long number;
	void *member = (char *)config + row->offset;

	errno = 0;
	number = strtoull(value, &end, 10);
	if (!isdigit((unsigned char)value[0]) || *end != 0 || errno != 0 || number < row->min ||
	    number > row->max) {
		return error_format(SLUICE_E_INVAL,
				    "%s is '%.60s'; expected a number from %llu to %llu", row->key,
				    value, (unsigned long long)row->min,
				    (unsigned long long)row->max);
	}
	if (row->kind == NUMBER64)
		*(uint64_t *)member = number;
	else if (row->kind == DESCRIPTOR)
		*(int *)member = (int)number;
	else
		*(uint32_t *)member = (uint32_t)number;
	return 0;
}

static int set_choice(struct sluice_config *config, const struct row *row, const char *value)
{
	bool yes = strcmp(value, row->yes) == 0;
	void *member = (char *)config + row->offset;

	if (!yes && strcmp(value, row->no) != 0) {
		return error_format(SLUICE_E_INVAL, "%s is '%.60s'; expected %s or %s", row->key,
				    value, row->yes, row->no);
	}
	if (row->size == 4)
		*(enum client_mode *)member = yes ? MODE_CALLER_LOOP : MODE_OWN_THREAD;
	else
		*(bool *)member = yes;
	return 0;
}

static int set_tls(struct sluice_config *config, const char *value)
{
	static const char *const names[] =
		{[TLS_AUTO] = "auto", [TLS_VERIFY_FULL] = "verify-full", [TLS_OFF] = "off"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(value, names[i]) != 0)
			continue;
		config->tls = (enum client_tls)i;
		return 0;
	}
	return error_format(SLUICE_E_INVAL, "tls is '%.60s'; expected auto, verify-full or off",
			    value);
}

int sluice_config_set(sluice_config *config, const char *key, const char *value)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		const struct row *row = &rows[i];

		if (strcmp(row->key, key) != 0)
			continue;
		if (value == NULL) {
			return error_format(SLUICE_E_INVAL, "%s has no value", row->key);
		}
		if (row->kind == CHOICE)
			return set_choice(config, row, value);
		if (row->kind == TLS)
			return set_tls(config, value);
		if (row->kind != TEXT)
			return set_number(config, row, value);
		if (strlen(value) >= row->size) {
			return error_format(SLUICE_E_INVAL,
					    "%s has %zu bytes; expected fewer than %zu", key,
					    strlen(value), row->size);
		}
		memcpy((char *)config + row->offset, value, strlen(value) + 1);
		return 0;
	}
	return error_format(SLUICE_E_INVAL, "there is no setting '%.60s'; client.h lists them",
			    key);
}

sluice_config *sluice_config_create(void)
{
	sluice_config *config = mem_alloc(sizeof(*config));

	if (config == NULL)
		return NULL;
	config->transport_fd = -1;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].fallback != NULL &&
		    sluice_config_set(config, rows[i].key, rows[i].fallback) != 0)
			abort(); /* the table is inconsistent */
	return config;
}

void sluice_config_destroy(sluice_config *config)
{
	mem_free(config);
}
