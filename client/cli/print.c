/* SPDX-License-Identifier: Apache-2.0
 * Output that several commands share. */
#include <inttypes.h>
#include <time.h>

#include "cli.h"

const char *number(uint64_t value, char buf[24])
{
	(void)snprintf(buf, 24, "%" PRIu64, value);
	return buf;
}

const char *time_text(uint64_t time_ms, char buf[32])
{
	time_t seconds = (time_t)(time_ms / 1000);
	struct tm parts;

	if (time_ms == 0 || localtime_r(&seconds, &parts) == NULL)
		return "-";
	(void)strftime(buf, 32, "%Y-%m-%d %H:%M:%S", &parts);
	return buf;
}

int print_json(sluice_reply *reply)
{
	const char *json = sluice_reply_json(reply);
	int rc = json != NULL ? 0 : SLUICE_E_NOMEM;

	if (rc == 0)
		(void)printf("%s\n", json);
	sluice_reply_free(reply);
	return rc;
}

int print_done(struct cli *cli, int rc, sluice_reply *reply)
{
	if (rc != 0)
		return refused(cli, rc, reply);
	if (cli->json)
		return print_json(reply);
	sluice_reply_free(reply);
	return 0;
}
