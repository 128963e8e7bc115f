/* SPDX-License-Identifier: Apache-2.0
 * async_probe ADDRESS: connects in caller-loop mode, waits for SIGUSR1 (the broker is stopped
 * then), makes many asynchronous calls, and prints how often they gave up the processor to wait;
 * then one blocking call with a deadline, and close. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "sluice/client.h"

static volatile sig_atomic_t go;

static void on_signal(int number)
{
	go = number;
}

static void on_done(sluice_client *client, const sluice_reply *reply, void *user)
{
	(void)client;
	(void)reply;
	++*(int *)user;
}

static unsigned long now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (unsigned long)now.tv_sec * 1000 + (unsigned long)now.tv_nsec / 1000000;
}

/* How often this thread has waited since it began (voluntary context switches). */
static long waits(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_nvcsw;
}

int main(int argc, char **argv)
{
	static char body[4096];
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	int done = 0, rc = 0;
	sluice_call call = SLUICE_CALL(.deadline_ms = 60000, .done = on_done, .user = &done);
	unsigned long begin;
	long waited;

	if (argc != 2 || sluice_config_set(config, "address", argv[1]) != 0 ||
	    sluice_config_set(config, "mode", "caller-loop") != 0 ||
	    sluice_open(config, NULL, NULL, &client) != 0 ||
	    sluice_wait_connected(client, 10000) != 0)
		return 2;
	(void)signal(SIGUSR1, on_signal);
	(void)printf("connected\n");
	(void)fflush(stdout);
	while (!go)
		(void)poll(&(struct pollfd){.fd = sluice_fd(client), .events = POLLIN}, 1, 50);
	waited = waits();
	for (int i = 0; i < 1000 && rc == 0; i++) {
		rc = sluice_publish(client,
				    &SLUICE_MESSAGE(.subject = "a.b", .body = {body, sizeof(body)}),
				    &call, NULL);
		if (rc == 0)
			rc = sluice_job_show(client, "nothing", false, &call, NULL);
		if (rc == 0)
			rc = sluice_process(client, 0);
	}
	(void)printf("calls waited %ld times, %s\n", waits() - waited, sluice_error_name(rc));
	(void)fflush(stdout);
	rc = sluice_status(client, &SLUICE_CALL(.deadline_ms = 300), NULL);
	(void)printf("deadline: %s\n", sluice_error_name(rc));
	(void)fflush(stdout);
	begin = now_ms();
	rc = sluice_close(client, true, 300);
	(void)printf("closed after %lu ms: %s, %d callbacks\n", now_ms() - begin,
		     sluice_error_name(rc), done);
	sluice_config_destroy(config);
	return done == 2000 ? 0 : 1;
}
