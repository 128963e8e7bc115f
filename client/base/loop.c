/* SPDX-License-Identifier: Apache-2.0
 * Functions of the loop for every layer: the time, the lock, the wake-up, events for the
 * application, and waiting. client.c turns the loop. */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "client/base/loop.h"

const char from_a_callback[] = "a blocking call from a callback would wait for itself";

uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t deadline_of(const sluice_client *client, int deadline_ms)
{
	if (deadline_ms < 0)
		return UINT64_MAX;
	return now_ms() + (deadline_ms == 0 ? client->config.deadline_ms : (uint32_t)deadline_ms);
}

void client_lock(sluice_client *client)
{
	(void)pthread_mutex_lock(&client->lock);
	client->users++;
}

void client_unlock(sluice_client *client)
{
	client->users--;
	if (client->closing) /* close waits until no thread uses it */
		(void)pthread_cond_broadcast(&client->changed);
	(void)pthread_mutex_unlock(&client->lock);
}

static __thread const sluice_client *looping; /* the client whose loop this thread runs */

const sluice_client *loop_enter(const sluice_client *client)
{
	const sluice_client *outer = looping;

	looping = client;
	return outer;
}

bool client_on_loop(const sluice_client *client)
{
	return looping == client;
}

void client_wake(sluice_client *client)
{
	uint64_t one = 1;

	if (looping == client)
		client->again = true;
	if (client->woken || looping == client)
		return;
	client->woken = true;
	/* It fails only when it is already readable. */
	(void)!write(client->wake_fd, &one, sizeof(one));
}

void client_retry(sluice_client *client, uint64_t at_ms)
{
	if (at_ms >= client->retry_ms)
		return;
	client->retry_ms = at_ms;
	client_wake(client); /* another thread's: only the loop sets the timer */
}

void client_notice(sluice_client *client, const sluice_notice *notice)
{
	if (client->on_notice != NULL && !client->closing)
		client->on_notice(client, notice, client->user);
}

int thread_start(pthread_t *ret, const pthread_attr_t *attr, void *(*run)(void *user), void *user)
{
	sigset_t all, before;
	int rc;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	rc = pthread_create(ret, attr, run, user);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}

/* ---- waiting ---- */

static void wait_turn(sluice_client *client, uint64_t deadline_ms)
{
	uint64_t now = now_ms();
	struct timespec until = {(time_t)(deadline_ms / 1000),
				 (long)(deadline_ms % 1000) * 1000000};

	if (now >= deadline_ms)
		return;
	if (client->config.mode == MODE_CALLER_LOOP)
		client->turn(client, deadline_ms == UINT64_MAX || deadline_ms - now > 1000
					     ? 1000
					     : (int)(deadline_ms - now));
	else if (deadline_ms == UINT64_MAX)
		(void)pthread_cond_wait(&client->changed, &client->lock);
	else
		(void)pthread_cond_timedwait(&client->changed, &client->lock, &until);
}

void client_wait_some(sluice_client *client, uint64_t deadline_ms, uint32_t most_ms)
{
	uint64_t until = now_ms() + most_ms;

	wait_turn(client, deadline_ms < until ? deadline_ms : until);
}

bool client_wait(sluice_client *client, const bool *flag, uint64_t deadline_ms)
{
	while (!*flag) {
		if (now_ms() >= deadline_ms)
			return false;
		wait_turn(client, deadline_ms);
	}
	return true;
}
