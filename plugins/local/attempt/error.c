/* SPDX-License-Identifier: Apache-2.0
 * Why a function of attempt.h failed, kept for each thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "attempt.h"
#include "sluice/error.h"

enum { PATH_SHOWN = 300 };

static _Thread_local char error_text[ATTEMPT_ERROR_BYTES];
static _Thread_local int error_number;

const char *attempt_error(void)
{
	return error_text;
}

int attempt_errno(void)
{
	return error_number;
}

const char *attempt_errno_name(int error)
{
	const char *name = strerrorname_np(error);

	return name != NULL ? name : "unknown";
}

int attempt_fail(const char *step, const char *path)
{
	size_t len = strlen(path);
	int error = errno;

	error_number = error;
	(void)snprintf(error_text, sizeof(error_text), "%s %s%s: %s (%s)", step,
		       len > PATH_SHOWN ? "..." : "",
		       len > PATH_SHOWN ? path + len - PATH_SHOWN : path, strerror(error),
		       attempt_errno_name(error));
	return SLUICE_E_IO;
}
