/* SPDX-License-Identifier: Apache-2.0
 * Messages of the command beside its data, on standard error: a line of text, or for programs (-o
 * json) a JSON document per line. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>

#include "cli.h"
#include "json.h"

/* Events come on the library's thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Prints one message; code 0: a notice. reply (may be NULL) adds the details of a refusal. */
static void print_message(const struct cli *cli, int code, const char *text,
			  const sluice_reply *reply)
{
	(void)pthread_mutex_lock(&lock);
	if (!cli->json) {
		(void)fprintf(stderr,
			      code != 0 && reply != NULL ? "sluice: %s (%s)\n" : "sluice: %s\n",
			      text, sluice_error_name(code));
		if (cli->verbose && reply != NULL)
			(void)fprintf(stderr, "request %llu, index %llu%s\n",
				      (unsigned long long)sluice_reply_request_id(reply),
				      (unsigned long long)sluice_reply_index(reply),
				      sluice_error_retriable(code) ? ", may be retried" : "");
	} else if (code == 0) {
		(void)fputs("{\"notice\":", stderr);
		json_put_text(stderr, text, strlen(text));
		(void)fputs("}\n", stderr);
	} else {
		(void)fprintf(stderr,
			      "{\"error\":\"%s\",\"code\":%d,\"exit\":%d,\"retriable\":%s,"
			      "\"text\":",
			      sluice_error_name(code), code, sluice_error_exit_code(code),
			      sluice_error_retriable(code) ? "true" : "false");
		json_put_text(stderr, text, strlen(text));
		if (reply != NULL)
			(void)fprintf(stderr, ",\"request\":%llu,\"index\":%llu",
				      (unsigned long long)sluice_reply_request_id(reply),
				      (unsigned long long)sluice_reply_index(reply));
		(void)fputs("}\n", stderr);
	}
	(void)pthread_mutex_unlock(&lock);
}

static void print_message_list(const struct cli *cli, int code, const char *format, va_list args)
{
	char text[4096];

	/* Arguments of the user may be long: their beginning is enough. */
	(void)vsnprintf(text, sizeof(text), format, args);
	print_message(cli, code, text, NULL);
}

int report_error(struct cli *cli, int code, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message_list(cli, code, format, args);
	va_end(args);
	cli->reported = true;
	return code;
}

void notice(const struct cli *cli, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message_list(cli, 0, format, args);
	va_end(args);
}

int refused(struct cli *cli, int code, sluice_reply *reply)
{
	if (reply != NULL)
		print_message(cli, code, sluice_reply_text(reply), reply);
	else
		(void)report_error(cli, code, "%s (%s)", sluice_error_text(code),
				   sluice_error_name(code));
	cli->reported = true;
	sluice_reply_free(reply);
	return code;
}

int written(struct cli *cli)
{
	if (fflush(stdout) == 0 && !ferror(stdout))
		return 0;
	return report_error(cli, SLUICE_E_IO, "standard output: %s", strerror(errno));
}
