/* SPDX-License-Identifier: Apache-2.0
 * See table.h. */
#include "table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluice/error.h"

struct table {
	size_t columns, count, capacity;
	char **cells; /* row by row, the heads first */
};

/* A command that prints a table has not changed anything yet: it may exit here. */
static _Noreturn void no_memory(void)
{
	(void)fputs("sluice: out of memory\n", stderr);
	exit(sluice_error_exit_code(SLUICE_E_NOMEM));
}

static int width(const char *text)
{
	int count = 0;

	/* Characters, not bytes. */
	for (; *text != 0; text++)
		count += ((unsigned char)*text & 0xc0) != 0x80;
	return count;
}

void table_row(struct table *table, const char *const *cells)
{
	if (table->count + table->columns > table->capacity) {
		size_t capacity = table->capacity == 0 ? 256 : table->capacity * 2;
		char **grown = realloc(table->cells, capacity * sizeof(*grown));

		if (grown == NULL)
			no_memory();
		table->cells = grown;
		table->capacity = capacity;
	}
	for (size_t i = 0; i < table->columns; i++) {
		char *copy = strdup(cells[i] != NULL && cells[i][0] != 0 ? cells[i] : "-");

		if (copy == NULL)
			no_memory();
		/* Control characters in a name must not move the cursor. */
		for (char *at = copy; *at != 0; at++)
			if ((unsigned char)*at < 0x20 || *at == 0x7f)
				*at = '?';
		table->cells[table->count++] = copy;
	}
}

struct table *table_create(const char *const *heads)
{
	struct table *table = calloc(1, sizeof(*table));

	if (table == NULL)
		no_memory();
	while (heads[table->columns] != NULL)
		table->columns++;
	table_row(table, heads);
	return table;
}

void table_print(struct table *table)
{
	int *widths = calloc(table->columns, sizeof(*widths));

	if (widths == NULL)
		no_memory();
	for (size_t i = 0; i < table->count; i++)
		if (width(table->cells[i]) > widths[i % table->columns])
			widths[i % table->columns] = width(table->cells[i]);
	for (size_t i = 0; i < table->count; i++) {
		size_t column = i % table->columns;
		int pad = widths[column] - width(table->cells[i]);

		if (column + 1 == table->columns)
			(void)printf("%s\n", table->cells[i]);
		else
			(void)printf("%s%*s  ", table->cells[i], pad, "");
	}
	free(widths);
	table_free(table);
}

void table_free(struct table *table)
{
	for (size_t i = 0; i < table->count; i++)
		free(table->cells[i]);
	free(table->cells);
	free(table);
}
