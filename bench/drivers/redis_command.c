/* SPDX-License-Identifier: Apache-2.0
 * One command at a time, outside of the measurement: preparation of a server, and queries. */
#include "bench/drivers/redis.h"

#include <hiredis/hiredis.h>

enum { COMMAND_SECONDS_MAX = 120 };

static const struct timeval command_time_max = {.tv_sec = COMMAND_SECONDS_MAX};

int redis_command(int port, size_t argc, const char *const argv[], struct redisReply **ret)
{
	redisContext *context = redisConnectWithTimeout("127.0.0.1", port, command_time_max);
	redisReply *reply = NULL;
	const char **words =
		(const char **)argv; /* hiredis' prototype lacks the const; it only reads */

	if (context && !context->err && redisSetTimeout(context, command_time_max) == REDIS_OK)
		reply = redisCommandArgv(context, (int)argc, words, NULL);
	if (reply)
		*ret = reply;
	else
		(void)bench_error("redis: %s %s: no answer: %s", argv[0], argc > 1 ? argv[1] : "",
				  context ? context->errstr : "out of memory");
	if (context)
		redisFree(context);
	return reply ? 0 : -1;
}
