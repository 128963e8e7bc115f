/* SPDX-License-Identifier: Apache-2.0
 * Clients whose sessions have no connection, as those of HTTP: they open one, give signs of life or
 * forget to, and close it. The last client's is a standing one, which needs no signs of life. */
#include "tests/sim/sim.h"

static void session_open(struct sim *s, int number)
{
	struct cmd_session_open open = {.client = text("free"), .timeout_ms = SESSION_MS};

	if (number == FREE - 1)
		open.flags = SESSION_STANDING;
	s->frees[number].opening = true;
	submit(s,
	       (struct op){.type = COMMAND_SESSION_OPEN, .number = CLIENTS + number, .client = -1},
	       1, 0, &open);
}

void free_opened(struct sim *s, int number, const struct outcome *out)
{
	s->frees[number].opening = false;
	if (out->code != 0)
		return;
	s->frees[number].session = out->id;
	s->frees[number].silent = false;
	oracle_session_opened(s->oracle, out->id,
			      number == FREE - 1 ? ORACLE_STANDING : ORACLE_FREE);
}

/* The end of a session that may just have expired. */
void free_closed(struct sim *s, int number, const struct outcome *out)
{
	struct free_client *client = &s->frees[number];

	client->closing = false;
	if (out->code == 0)
		oracle_session_closed(s->oracle, client->session);
	else
		oracle_session_shown(s->oracle, client->session, false);
	client->session = 0;
}

void free_do(struct sim *s, int number)
{
	struct free_client *client = &s->frees[number];
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;

	if (client->opening || client->closing || (client->session != 0 && client->silent))
		return;
	if (client->session == 0) {
		session_open(s, number);
	} else if (roll(s, 32) == 0) {
		client->closing = true;
		submit(s,
		       (struct op){.type = COMMAND_SESSION_CLOSE,
				   .number = CLIENTS + number,
				   .client = -1},
		       1, client->session, &close);
	} else {
		client->silent |= roll(s, 12) == 0;
		touch(s, client->session);
		oracle_session_touched(s->oracle, client->session);
	}
}
