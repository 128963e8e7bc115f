/* SPDX-License-Identifier: Apache-2.0
 * Signals to the processes of an attempt, and its cancel mark. See attempt.h. */
#include <errno.h>
#include <signal.h>

#include "attempt.h"
#include "sluice/error.h"

int attempt_signal(const char *dir, int signal)
{
	struct attempt_view view;

	if (attempt_inspect(dir, &view) != 0)
		return SLUICE_E_IO;
	/* The job leads a process group of its own. */
	if (view.state == ATTEMPT_RUNNING && view.process_lives && kill(-view.pid, signal) != 0 &&
	    errno != ESRCH)
		return attempt_fail("signal the processes of", dir);
	return 0;
}

int attempt_cancel(const char *dir, int signal)
{
	int rc = attempt_write(dir, "cancel", "1\n", 2);

	if (signal != 0 && attempt_signal(dir, signal) != 0)
		rc = SLUICE_E_IO;
	return rc;
}
