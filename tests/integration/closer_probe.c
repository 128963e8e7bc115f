/* SPDX-License-Identifier: Apache-2.0
 * closer_probe ADDRESS first|again: closes a session that does not exist (SESSION_GONE), and prints
 * the name of the answer.
 *
 * first: the call waits for the first connection. Prints "waiting" while it does, and, when its
 * request waits for the reply, whether the deadline is still that of the call ("deadline kept") or
 * has begun anew ("deadline anew"). again: prints "connected"; when the connection is lost, makes
 * the call without waiting, and prints "asked". */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/base/loop.h"
#include "client/call/call.h"

enum { OTHER = 4711, DEADLINE_MS = 60000 };

static sluice_client *client;
static atomic_int lost, answered;

static void say(const char *text)
{
	(void)printf("%s\n", text);
	(void)fflush(stdout);
}

static void on_notice(sluice_client *of, const sluice_notice *notice, void *user)
{
	(void)of;
	(void)user;
	if (notice->kind == SLUICE_NOTICE_DISCONNECTED)
		atomic_store(&lost, 1);
}

static void on_done(sluice_client *of, const sluice_reply *reply, void *user)
{
	(void)of;
	(void)user;
	say(sluice_error_name(sluice_reply_code(reply)));
	atomic_store(&answered, 1);
}

static void *close_other(void *user)
{
	sluice_call call = SLUICE_CALL(.deadline_ms = DEADLINE_MS);

	(void)user;
	say(sluice_error_name(sluice_session_close(client, OTHER, &call, NULL)));
	return NULL;
}

/* Whether the thread is within the call, which releases the lock only to wait. */
static bool thread_waits(void)
{
	bool waits;

	client_lock(client);
	waits = client->users > 1; /* the loop waits without the lock and is not counted then */
	client_unlock(client);
	return waits;
}

/* The deadline of the request in flight; 0: there is none yet. */
static uint64_t deadline_seen(void)
{
	uint64_t deadline = 0;

	client_lock(client);
	if (client->calls->ordered != NULL && client->calls->ordered->closes_session)
		deadline = client->calls->ordered->deadline_ms;
	client_unlock(client);
	return deadline;
}

static int first(void)
{
	uint64_t deadline, waits_ms;
	pthread_t thread;

	if (pthread_create(&thread, NULL, close_other, NULL) != 0)
		return 2;
	while (!thread_waits())
		(void)usleep(1000);
	/* From now on a deadline that begins anew is later. */
	for (waits_ms = now_ms(); now_ms() == waits_ms;)
		(void)usleep(1000);
	say("waiting");
	while ((deadline = deadline_seen()) == 0)
		(void)usleep(1000);
	say(deadline <= waits_ms + DEADLINE_MS ? "deadline kept" : "deadline anew");
	return pthread_join(thread, NULL) == 0 ? 0 : 2;
}

static int again(void)
{
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_done);

	if (sluice_wait_connected(client, 30000) != 0)
		return 2;
	say("connected");
	while (!atomic_load(&lost))
		(void)usleep(1000);
	if (sluice_session_close(client, OTHER, &call, NULL) != 0)
		return 3;
	say("asked");
	while (!atomic_load(&answered))
		(void)usleep(1000);
	return sluice_status(client, NULL, NULL) == 0 ? 0 : 4;
}

int main(int argc, char **argv)
{
	sluice_config *config = sluice_config_create();
	int rc;

	if (argc != 3 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "reconnect_max_ms", "100") != 0 ||
	    sluice_open(config, on_notice, NULL, &client) != 0)
		return 2;
	sluice_config_destroy(config);
	rc = strcmp(argv[2], "first") == 0 ? first() : again();
	(void)sluice_close(client, true, 1000);
	return rc;
}
