/* SPDX-License-Identifier: Apache-2.0
 * Confirmation before a deletion. */
#include <unistd.h>

#include "cli.h"

int sure(struct cli *cli, const char *question, const char *done_to_it)
{
	char answer[16] = "";

	if (cli->yes)
		return 0;
	/* A script with an unset variable must not delete anything. */
	if (isatty(STDIN_FILENO) != 1 || isatty(STDERR_FILENO) != 1)
		return report_error(cli, SLUICE_E_INVAL,
				    "'%s' was not %s: there is no terminal for the confirmation; "
				    "expected --yes",
				    cli->args[0], done_to_it);
	(void)fprintf(stderr, "%s [y/N] ", question);
	if (fgets(answer, sizeof(answer), stdin) == NULL || (answer[0] != 'y' && answer[0] != 'Y'))
		return report_error(cli, SLUICE_E_INVAL, "nothing was %s", done_to_it);
	return 0;
}
