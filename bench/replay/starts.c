/* SPDX-License-Identifier: Apache-2.0
 * The starts recorded by the jobs' processes, read as they are written. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "replay.h"

void starts_read(struct replay *replay)
{
	FILE *file = fopen(replay->starts, "re");
	char line[256], id[ID_BYTES];

	if (file == NULL && errno == ENOENT)
		return;
	if (file == NULL || fseek(file, replay->starts_pos, SEEK_SET) != 0)
		fail(replay, "%s: %s", replay->starts, strerror(errno));
	/* A line is written in one write: one without a newline is incomplete. */
	while (fgets(line, sizeof(line), file) != NULL && strchr(line, '\n') != NULL) {
		struct plan *plan = sscanf(line, "%63s", id) == 1 ? plan_find(replay, id) : NULL;

		replay->starts_pos = ftell(file);
		if (plan != NULL)
			plan->starts++;
	}
	(void)fclose(file);
}
