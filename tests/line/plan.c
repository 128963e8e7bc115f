/* SPDX-License-Identifier: Apache-2.0
 *
 * Put between the tests' broker and its parts (ld --wrap): a rule of admission, and calls of the
 * engine that fail. Both are read from the environment when the broker starts.
 *   LINE_DENY=PERMISSION[:OBJECT],...   what is refused
 *   LINE_FAIL=CALL:CODE:FROM:EVERY,...  the FROM-th call, and from there on each EVERY-th, fails
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/admit.h"
#include "broker/net/net.h"

/* ---- admission ---- */

static bool is_listed(const char *list, const char *text, size_t len)
{
	for (const char *at = list; at != NULL; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, text, len) == 0 && (at[len] == ',' || at[len] == 0))
			return true;
	}
	return false;
}

static int may(void *user, const struct admission_question *question)
{
	char text[512];
	int len = snprintf(text, sizeof(text), "%s:%.*s", question->permission,
			   (int)question->on.len, (const char *)question->on.data);

	if (is_listed(user, question->permission, strlen(question->permission)) ||
	    is_listed(user, text, (size_t)len))
		return SLUICE_E_DENIED;
	return 0;
}

int __real_net_create(const struct net_config *config, struct engine *engine, struct net **ret);
int __wrap_net_create(const struct net_config *config, struct engine *engine, struct net **ret);

int __wrap_net_create(const struct net_config *config, struct engine *engine, struct net **ret)
{
	static struct admission admission = {.may = may};
	struct net_config own = *config;

	admission.user = getenv("LINE_DENY");
	if (admission.user != NULL)
		own.admission = &admission;
	return __real_net_create(&own, engine, ret);
}

/* ---- faults ---- */

/* 0, or the code with which this call is to fail. */
static int failure(const char *call, atomic_uint *io_count)
{
	const char *plan = getenv("LINE_FAIL");
	const size_t len = strlen(call);
	unsigned count = atomic_fetch_add(io_count, 1) + 1, from, every;
	int code;

	for (const char *at = plan; at != NULL; at = strchr(at, ',')) {
		at += *at == ',';
		if (strncmp(at, call, len) == 0 &&
		    sscanf(at + len, ":%d:%u:%u", &code, &from, &every) == 3 && count >= from &&
		    (count - from) % every == 0) {
			(void)fprintf(stderr, "plan: call %u of %s fails\n", count, call);
			return code;
		}
	}
	return 0;
}

#define WRAP(name, declared, given)                        \
	int __real_##name declared;                        \
	int __wrap_##name declared;                        \
	int __wrap_##name declared                         \
	{                                                  \
		static atomic_uint count;                  \
		int rc = failure(#name, &count);           \
                                                           \
		return rc != 0 ? rc : __real_##name given; \
	}

WRAP(engine_submit_quietly, (struct engine * engine, struct submission *submission),
     (engine, submission))
WRAP(engine_consumer_open, (struct engine * engine, const struct consumer_spec *spec),
     (engine, spec))
WRAP(engine_consumer_credit,
     (struct engine * engine, struct engine_sink *sink, uint64_t tag, uint32_t more),
     (engine, sink, tag, more))
WRAP(engine_session_attach,
     (struct engine * engine, uint32_t gateway, uint64_t session, struct engine_sink *sink,
      uint64_t tag),
     (engine, gateway, session, sink, tag))
WRAP(engine_read_begin, (struct engine * engine, struct store_txn **ret, uint64_t *ret_number),
     (engine, ret, ret_number))
