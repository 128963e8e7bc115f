/* SPDX-License-Identifier: Apache-2.0
 * Configuration, see config.h. */
#include "broker/admin/config.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum row_kind { ROW_TEXT, ROW_NUMBER, ROW_FLAG, ROW_LIST };
struct row {
	const char *key;
	enum row_kind kind;
	size_t offset;
	const char *text_default;
	uint64_t number_default, min, max;
	const char *unit;
	const char *text;
};

static const struct row rows[] = {
#define TEXT(key, def, text) {#key, ROW_TEXT, offsetof(struct config, key), def, 0, 0, 0, "", text},
#define NUMBER(key, def, min, max, unit, text) \
	{#key, ROW_NUMBER, offsetof(struct config, key), NULL, def, min, max, unit, text},
#define FLAG(key, def, text) \
	{#key, ROW_FLAG, offsetof(struct config, key), NULL, def, 0, 1, "", text},
#define LIST(key, def, max, text) \
	{#key, ROW_LIST, offsetof(struct config, key), def, 0, 1, max, "", text},
#include "broker/admin/config.def"
#undef TEXT
#undef NUMBER
#undef FLAG
#undef LIST
};
enum { ROW_COUNT = sizeof(rows) / sizeof(rows[0]) };

static void *member(struct config *config, const struct row *row)
{
	return (char *)config + row->offset;
}

static char (*list_values(struct config_list *list))[CONFIG_TEXT_MAX]
{
	return (char(*)[CONFIG_TEXT_MAX])(list + 1);
}

static void list_default(struct config_list *list, const struct row *row)
{
	(void)snprintf(list_values(list)[0], CONFIG_TEXT_MAX, "%s", row->text_default);
	list->count = 1;
	list->is_old = true;
}

/* The values so far are those of a source that has ended. */
static void lists_end(struct config *config)
{
	for (size_t i = 0; i < ROW_COUNT; i++)
		if (rows[i].kind == ROW_LIST)
			((struct config_list *)member(config, &rows[i]))->is_old = true;
}

void config_init(struct config *config)
{
	memset(config, 0, sizeof(*config));
	for (size_t i = 0; i < ROW_COUNT; i++) {
		if (rows[i].kind == ROW_TEXT)
			(void)snprintf(member(config, &rows[i]), CONFIG_TEXT_MAX, "%s",
				       rows[i].text_default);
		else if (rows[i].kind == ROW_NUMBER)
			*(uint64_t *)member(config, &rows[i]) = rows[i].number_default;
		else if (rows[i].kind == ROW_LIST)
			list_default(member(config, &rows[i]), &rows[i]);
		else
			*(bool *)member(config, &rows[i]) = rows[i].number_default != 0;
	}
}

static int set_number(uint64_t *number, const struct row *row, const char *value, char *why,
		      size_t why_bytes)
{
	char *end = NULL;
	unsigned long long parsed;

	errno = 0;
	parsed = strtoull(value, &end, 10);
	if (!isdigit((unsigned char)value[0]) || *end != 0 || errno != 0 || parsed < row->min ||
	    parsed > row->max) {
		(void)snprintf(why, why_bytes,
			       "%s is '%s'; expected a number from %" PRIu64 " to %" PRIu64 " (%s)",
			       row->key, value, row->min, row->max, row->unit);
		return SLUICE_E_INVAL;
	}
	*number = parsed;
	return 0;
}

static int set_flag(bool *flag, const struct row *row, const char *value, char *why,
		    size_t why_bytes)
{
	bool yes = strcmp(value, "yes") == 0 || strcmp(value, "true") == 0;

	if (!yes && strcmp(value, "no") != 0 && strcmp(value, "false") != 0) {
		(void)snprintf(why, why_bytes, "%s is '%s'; expected yes or no", row->key, value);
		return SLUICE_E_INVAL;
	}
	*flag = yes;
	return 0;
}

static int list_add(struct config_list *list, const struct row *row, const char *value, char *why,
		    size_t why_bytes)
{
	if (list->is_old)
		list->count = 0;
	if (list->count == row->max) {
		(void)snprintf(why, why_bytes, "%s is given more than %" PRIu64 " times", row->key,
			       row->max);
		return SLUICE_E_LIMIT;
	}
	list->is_old = false;
	(void)snprintf(list_values(list)[list->count++], CONFIG_TEXT_MAX, "%s", value);
	return 0;
}

int config_set(struct config *config, const char *key, const char *value, char *why,
	       size_t why_bytes)
{
	if (strlen(value) >= CONFIG_TEXT_MAX) {
		(void)snprintf(why, why_bytes, "%s has %zu bytes; expected fewer than %d", key,
			       strlen(value), CONFIG_TEXT_MAX);
		return SLUICE_E_LIMIT;
	}
	if (strcmp(key, "plugin") == 0) {
		if (config->plugin_count == CONFIG_PLUGINS_MAX) {
			(void)snprintf(why, why_bytes, "more than %d plugins", CONFIG_PLUGINS_MAX);
			return SLUICE_E_LIMIT;
		}
		(void)snprintf(config->plugins[config->plugin_count++], CONFIG_TEXT_MAX, "%s",
			       value);
		return 0;
	}
	for (size_t i = 0; i < ROW_COUNT; i++) {
		if (strcmp(rows[i].key, key) != 0)
			continue;
		if (rows[i].kind == ROW_NUMBER)
			return set_number(member(config, &rows[i]), &rows[i], value, why,
					  why_bytes);
		if (rows[i].kind == ROW_FLAG)
			return set_flag(member(config, &rows[i]), &rows[i], value, why, why_bytes);
		if (rows[i].kind == ROW_LIST)
			return list_add(member(config, &rows[i]), &rows[i], value, why, why_bytes);
		(void)snprintf(member(config, &rows[i]), CONFIG_TEXT_MAX, "%s", value);
		return 0;
	}
	(void)snprintf(why, why_bytes,
		       "there is no setting '%.100s'; `sluiced --settings` lists them", key);
	return SLUICE_E_INVAL;
}

static char *trim(char *text)
{
	char *end = text + strlen(text);

	while (end > text && isspace((unsigned char)end[-1]))
		*--end = 0;
	while (isspace((unsigned char)*text))
		text++;
	return text;
}

static int load_line(struct config *config, char *line, char *why, size_t why_bytes)
{
	char *key = trim(line), *equals;

	if (key[0] == 0 || key[0] == '#')
		return 0;
	equals = strchr(key, '=');
	if (equals == NULL) {
		(void)snprintf(why, why_bytes, "'%.100s'; expected `key = value`", key);
		return SLUICE_E_INVAL;
	}
	*equals = 0;
	return config_set(config, trim(key), trim(equals + 1), why, why_bytes);
}

int config_load(struct config *config, const char *path, char *why, size_t why_bytes)
{
	struct config *loaded = malloc(sizeof(*loaded));
	FILE *file = loaded != NULL ? fopen(path, "re") : NULL;
	char line[4096], text[512] = "";
	int rc = 0;

	if (file == NULL) {
		(void)snprintf(why, why_bytes, "%s: %s", path,
			       loaded == NULL ? "out of memory" : strerror(errno));
		free(loaded);
		return SLUICE_E_NOT_FOUND;
	}
	*loaded = *config;
	lists_end(loaded);
	for (unsigned number = 1; rc == 0 && fgets(line, sizeof(line), file) != NULL; number++) {
		rc = load_line(loaded, line, text, sizeof(text));
		if (rc != 0)
			(void)snprintf(why, why_bytes, "%s, line %u: %s", path, number, text);
	}
	lists_end(loaded);
	if (rc == 0)
		*config = *loaded;
	(void)fclose(file);
	free(loaded);
	return rc;
}

void config_print(FILE *to)
{
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct row *row = &rows[i];

		if (row->kind == ROW_NUMBER)
			(void)fprintf(to, "%-22s %-18" PRIu64 " %" PRIu64 "..%" PRIu64 " %s: %s\n",
				      row->key, row->number_default, row->min, row->max, row->unit,
				      row->text);
		else
			(void)fprintf(to, "%-22s %-18s %s\n", row->key,
				      row->kind == ROW_FLAG
					      ? (row->number_default != 0 ? "yes" : "no")
					      : row->text_default,
				      row->text);
	}
	(void)fprintf(to, "%-22s %-18s %s\n", "plugin", "",
		      "PATH [KEY=VALUE ...]; a plugin to load; may be given several times; with "
		      "spaces: \"/a b/x.so\" key=\"a b\"");
}
