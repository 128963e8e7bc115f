/* SPDX-License-Identifier: Apache-2.0
 * The text of a thread's last failure: one function for every call, with or without a client. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "client/base/error.h"
#include "client/base/loop.h"

static __thread char last[TEXT_MAX];

int error_set(int code, const char *text)
{
	if (code != 0 && text != last)
		(void)snprintf(last, sizeof(last), "%s",
			       text != NULL && text[0] != 0 ? text : sluice_error_text(code));
	return code;
}

int error_format(int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(last, sizeof(last), format, args);
	va_end(args);
	return code;
}

const char *sluice_last_error(const sluice_client *client)
{
	static __thread char now[TEXT_MAX];

	if (last[0] != 0 || client == NULL)
		return last;
	/* Not stored as the last failure: the next request may give another one. */
	client_lock((sluice_client *)(uintptr_t)client);
	memcpy(now, client->error, sizeof(now));
	client_unlock((sluice_client *)(uintptr_t)client);
	return now;
}
