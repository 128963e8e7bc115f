/* SPDX-License-Identifier: Apache-2.0
 * See memory.h. */
#include "broker/util/memory.h"

#include <unistd.h>

#include "broker/util/log.h"

void memory_fail_stop(const char *what)
{
	log_line(LOG_LEVEL_ERROR,
		 log_id("broker.no_memory",
			"out of memory; the process ends, and the store keeps the state "
			"of the last commit"),
		 log_str("for", what));
	/* Not exit(): other threads still run, and their resources need no cleanup. */
	_exit(MEMORY_EXIT_CODE);
}
