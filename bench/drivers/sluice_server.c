/* SPDX-License-Identifier: Apache-2.0
 * The broker as a process, and its clients: common to all parts of the sluice driver. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench/drivers/sluice_driver.h"

enum {
	CONNECTIONS_DEFAULT = 20000, /* sluiced --settings: connections_max */
	DESCRIPTORS_SPARE = 256,     /* of the broker, besides its connections */
	CONNECT_MS_MAX = 10000,
	CLOSE_MS_MAX = 5000,
};

/* ---- the broker ---- */

/* The broker raises its own limit up to the hard one, which it inherits. */
static int descriptors_check(unsigned conns)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max != RLIM_INFINITY &&
	    limit.rlim_max < (rlim_t)conns + DESCRIPTORS_SPARE)
		return bench_error("sluice: %u connections need %u open files; the hard limit of "
				   "this shell is %llu",
				   conns, conns + DESCRIPTORS_SPARE,
				   (unsigned long long)limit.rlim_max);
	return 0;
}

int sluice_driver_start(const struct bench_system *system, const struct bench_server_spec *spec,
			struct bench_server *ret)
{
	char program[BENCH_PATH_MAX + 32], conns[48], line[256];
	const char *argv[10] = {program, "--data", spec->dir, "--listen", "127.0.0.1:0"};
	struct bench_server server = {.system = system};
	int out = -1;

	if (descriptors_check(spec->conns) != 0)
		return -1;
	(void)snprintf(program, sizeof(program), "%s/broker/sluiced", spec->bin);
	(void)snprintf(server.dir, sizeof(server.dir), "%s", spec->dir);
	(void)snprintf(conns, sizeof(conns), "connections_max=%u", spec->conns);
	if (spec->conns > CONNECTIONS_DEFAULT) {
		argv[5] = "--set";
		argv[6] = conns;
	}
	bench_command(&server, NULL, argv);
	if (bench_spawn(spec, NULL, argv, &server.pid, &out) != 0)
		return -1;
	if (bench_await_line(out, "ready ", line, sizeof(line)) == 0) {
		const char *colon = strrchr(line, ':');

		server.port = colon != NULL ? atoi(colon + 1) : 0;
		if (server.port == 0)
			(void)bench_error("sluice: the broker said '%.80s'; expected 'ready "
					  "HOST:PORT'",
					  line);
	}
	(void)close(out);
	if (server.port == 0) {
		bench_stop(&server, SIGKILL);
		return -1;
	}
	*ret = server;
	return 0;
}

/* ---- faults ---- */

void sluice_fault_set(struct sluice_fault *fault, const char *format, ...)
{
	va_list args;

	if (fault->text[0] != 0)
		return; /* later failures follow from the first one */
	va_start(args, format);
	(void)vsnprintf(fault->text, sizeof(fault->text), format, args);
	va_end(args);
}

int sluice_fault_check(const struct sluice_fault *fault)
{
	return fault->text[0] == 0 ? 0 : bench_error("sluice: %s", fault->text);
}

void sluice_fault_on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	struct sluice_fault *fault = user;

	(void)client;
	switch (notice->kind) {
	case SLUICE_NOTICE_CONNECTED:
	case SLUICE_NOTICE_RESUMED:
		return;
	case SLUICE_NOTICE_DISCONNECTED:
		sluice_fault_set(fault, "the connection broke: %s",
				 notice->text != NULL ? notice->text : "");
		return;
	case SLUICE_NOTICE_SESSION_LOST:
		sluice_fault_set(fault, "the broker ended the session");
		return;
	case SLUICE_NOTICE_JOB_CANCEL:
	case SLUICE_NOTICE_LEASE_LOST:
		sluice_fault_set(fault, "job %s: %s unexpectedly",
				 notice->job != NULL ? notice->job : "",
				 notice->kind == SLUICE_NOTICE_JOB_CANCEL ? "cancelled"
									  : "lease lost");
		return;
	case SLUICE_NOTICE_ERROR:
	case SLUICE_NOTICE_DAMAGED:
		sluice_fault_set(fault, "%s: %s", sluice_error_text(notice->code),
				 notice->text != NULL ? notice->text : "");
		return;
	}
}

/* ---- clients ---- */

static int settings_apply(sluice_config *config, const struct bench_server *server,
			  const struct sluice_setting *settings)
{
	char address[32], number[24];
	const char *const common[][2] = {{"address", address},
					 {"mode", "caller-loop"},
					 {"client", "sluice-bench"},
					 {"reconnect", "no"},
					 {"buffer_policy", "fail"}};
	int rc = 0;

	(void)snprintf(address, sizeof(address), "127.0.0.1:%d", server->port);
	for (size_t i = 0; i < sizeof(common) / sizeof(common[0]) && rc == 0; i++)
		rc = sluice_config_set(config, common[i][0], common[i][1]);
	for (; rc == 0 && settings != NULL && settings->key != NULL; settings++) {
		(void)snprintf(number, sizeof(number), "%llu", (unsigned long long)settings->value);
		rc = sluice_config_set(config, settings->key, number);
	}
	return rc;
}

int sluice_client_begin(const struct bench_server *server, const struct sluice_setting *settings,
			struct sluice_fault *fault, sluice_client **ret)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;
	int rc;

	if (config == NULL)
		return bench_error("sluice: out of memory");
	if (settings_apply(config, server, settings) != 0) {
		(void)bench_error("sluice: client setting: %s", sluice_last_error(NULL));
		sluice_config_destroy(config);
		return -1;
	}
	rc = sluice_open(config, sluice_fault_on_notice, fault, &client);
	sluice_config_destroy(config);
	if (rc != 0)
		return bench_error("sluice: open a client: %s", sluice_error_text(rc));
	rc = sluice_wait_connected(client, CONNECT_MS_MAX);
	if (rc != 0) {
		(void)bench_error("sluice: connect to port %d: %s: %s", server->port,
				  sluice_error_text(rc), sluice_last_error(client));
		(void)sluice_close(client, false, 1);
		return -1;
	}
	*ret = client;
	return 0;
}

void sluice_client_end(sluice_client *client)
{
	if (client != NULL)
		(void)sluice_close(client, true, CLOSE_MS_MAX);
}

int sluice_outcome(int rc, sluice_reply *reply, const char *what, const char *name)
{
	if (rc != 0)
		(void)bench_error("sluice: %s %s: %s", what, name,
				  reply != NULL ? sluice_reply_text(reply) : sluice_error_text(rc));
	sluice_reply_free(reply);
	return rc == 0 ? 0 : -1;
}

/* ---- topology ---- */

int sluice_stream_make(sluice_client *client, const char *name, const char *const *subjects)
{
	sluice_reply *reply = NULL;
	sluice_stream_spec spec =
		SLUICE_STREAM_SPEC(.name = name, .subjects = subjects, .if_not_exists = true);
	int rc = sluice_stream_create(client, &spec, NULL, &reply);

	return sluice_outcome(rc, reply, "create stream", name);
}

int sluice_queue_make(sluice_client *client, const char *name, bool jobs)
{
	sluice_reply *reply = NULL;
	sluice_queue_spec spec =
		SLUICE_QUEUE_SPEC(.name = name, .jobs = jobs, .if_not_exists = true);
	int rc = sluice_queue_create(client, &spec, NULL, &reply);

	return sluice_outcome(rc, reply, "create queue", name);
}
