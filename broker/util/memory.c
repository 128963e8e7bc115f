/* SPDX-License-Identifier: Apache-2.0
 * See memory.h. */
#include "broker/util/memory.h"

#include <unistd.h>

#include "broker/util/log.h"

void memory_fail_stop(const char *what)
{
	log_line(LOG_LEVEL_ERROR,
		 log_id("broker.no_memory",
			"out of memory; the process ends, the store stays as the last commit left it"),
		 log_str("for", what));
	/* Not exit(): other threads run, and what they hold needs no end. */
	_exit(MEMORY_EXIT_CODE);
}
