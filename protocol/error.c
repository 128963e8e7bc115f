/* SPDX-License-Identifier: Apache-2.0
 * The table of errors, looked up. */
#include "sluice/error.h"

#include <stddef.h>

struct error_row {
	int code;
	int exit_code;
	bool retriable;
	const char *name;
	const char *text;
};

static const struct error_row rows[] = {{0, 0, false, "OK", "done"},
#define ROW(name, code, exit, retriable, text) {code, exit, retriable, #name, text},
					SLUICE_ERRORS(ROW)
#undef ROW
};

static const struct error_row *row_of(int code)
{
	static const struct error_row unknown = {0, 13, false, "INTERNAL", "unknown error"};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (rows[i].code == code)
			return &rows[i];
	return &unknown;
}

const char *sluice_error_text(int code)
{
	return row_of(code)->text;
}

const char *sluice_error_name(int code)
{
	return row_of(code)->name;
}

int sluice_error_exit_code(int code)
{
	return row_of(code)->exit_code;
}

bool sluice_error_retriable(int code)
{
	return row_of(code)->retriable;
}
