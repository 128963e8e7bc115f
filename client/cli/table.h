/* SPDX-License-Identifier: Apache-2.0
 * Tables for terminals: columns as wide as their widest cell; cells are copied. */
#ifndef SLUICE_CLI_TABLE_H
#define SLUICE_CLI_TABLE_H

struct table;

/* Column heads, NULL at the end. Owned; table_print frees it.
 * Without memory the command ends with the exit code of NOMEM. */
struct table *table_create(const char *const *heads);
/* One row: a text per column. NULL and "" are shown as "-". */
void table_row(struct table *table, const char *const *cells);
void table_print(struct table *table); /* to standard output, then freed */
void table_free(struct table *table);

#endif
