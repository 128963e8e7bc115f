/* SPDX-License-Identifier: Apache-2.0
 * Options of a command, and the format of their values. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

bool duration_parse(const char *text, uint64_t *ret_ms)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {{"ms", 1},	   {"s", 1000},	   {"", 1000},
		     {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	char *end = NULL;
	unsigned long long number;

	errno = 0;
	number = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)text[0]) || errno != 0)
		return false;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		if (strcmp(end, units[i].unit) != 0 || number > UINT64_MAX / units[i].ms)
			continue;
		*ret_ms = number * units[i].ms;
		return true;
	}
	return false;
}

const char *option(const struct cli *cli, const char *name)
{
	for (int i = 0; i < cli->option_count; i++)
		if (strcmp(cli->options[i].name, name) == 0)
			return cli->options[i].value;
	return NULL;
}

bool option_many(const struct cli *cli, const char *name, int *io_pos, const char **ret_value)
{
	for (; *io_pos < cli->option_count; (*io_pos)++) {
		if (strcmp(cli->options[*io_pos].name, name) != 0)
			continue;
		*ret_value = cli->options[(*io_pos)++].value;
		return true;
	}
	return false;
}

bool number_option(struct cli *cli, const char *name, uint64_t fallback, uint64_t min, uint64_t max,
		   uint64_t *ret)
{
	const char *text = option(cli, name);
	char *end = NULL;

	*ret = fallback;
	if (text == NULL)
		return true;
	errno = 0;
	*ret = strtoull(text, &end, 10);
	if (isdigit((unsigned char)text[0]) && *end == 0 && errno == 0 && *ret >= min &&
	    *ret <= max)
		return true;
	(void)report_error(cli, SLUICE_E_INVAL, "--%s is '%s'; expected a number from %llu to %llu",
			   name, text, (unsigned long long)min, (unsigned long long)max);
	return false;
}

bool duration_option(struct cli *cli, const char *name, uint64_t fallback_ms, uint64_t max_ms,
		     uint64_t *ret_ms)
{
	const char *text = option(cli, name);

	*ret_ms = fallback_ms;
	if (text == NULL || (duration_parse(text, ret_ms) && *ret_ms <= max_ms))
		return true;
	if (max_ms == UINT64_MAX)
		(void)report_error(cli, SLUICE_E_INVAL,
				   "--%s is '%s'; expected a duration such as 30s, 10m or 7d", name,
				   text);
	else
		(void)report_error(cli, SLUICE_E_INVAL,
				   "--%s is '%s'; expected a duration such as 30s, 10m or 7d, at "
				   "most %llus",
				   name, text, (unsigned long long)(max_ms / 1000));
	return false;
}
