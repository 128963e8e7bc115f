/* SPDX-License-Identifier: Apache-2.0
 *
 * What several commands print alike.
 */
#include <time.h>

#include "cli.h"

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
