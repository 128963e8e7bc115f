/* SPDX-License-Identifier: Apache-2.0
 * Shared by the probes of include/sluice/client.h: checks that count failures, a client with
 * settings, waiting for a number. Each probe is one file, so everything is static. */
#ifndef TESTS_INTEGRATION_PROBE_H
#define TESTS_INTEGRATION_PROBE_H

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sluice/client.h"

#define PROBE_MAY __attribute__((unused)) static

enum { PATIENCE_MS = 30000 };

static const char *address;
static atomic_int failures;

#define CHECK(condition)                                                             \
	do {                                                                         \
		if (!(condition)) {                                                  \
			(void)printf("not so, line %d: %s\n", __LINE__, #condition); \
			atomic_fetch_add(&failures, 1);                              \
		}                                                                    \
	} while (0)
#define EQUAL(got, code)                                                                 \
	do {                                                                             \
		int got_ = (got);                                                        \
		if (got_ != (code)) {                                                    \
			(void)printf("line %d: %s is %s, expected %s\n", __LINE__, #got, \
				     sluice_error_name(got_), sluice_error_name(code));  \
			atomic_fetch_add(&failures, 1);                                  \
		}                                                                        \
	} while (0)

/* A client with settings "key", "value", ..., NULL. */
PROBE_MAY sluice_client *client_of(sluice_notice_fn *on_notice, void *user,
				   const char *const *settings)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;

	EQUAL(sluice_config_set(config, "address", address), 0);
	EQUAL(sluice_config_set(config, "reconnect_max_ms", "100"), 0);
	for (; settings != NULL && settings[0] != NULL; settings += 2)
		EQUAL(sluice_config_set(config, settings[0], settings[1]), 0);
	EQUAL(sluice_open(config, on_notice, user, &client), 0);
	sluice_config_destroy(config);
	if (client == NULL)
		exit(2);
	return client;
}

PROBE_MAY sluice_client *connected(void)
{
	sluice_client *client = client_of(NULL, NULL, NULL);

	EQUAL(sluice_wait_connected(client, PATIENCE_MS), 0);
	return client;
}

PROBE_MAY void stream_with(sluice_client *client, const char *name, const char *subject, int events)
{
	const char *subjects[] = {subject, NULL};

	EQUAL(sluice_stream_create(client, &SLUICE_STREAM_SPEC(.name = name, .subjects = subjects),
				   NULL, NULL),
	      0);
	for (int i = 0; i < events; i++)
		EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = subject, .body = {"x", 1}),
				     NULL, NULL),
		      0);
}

/* Waits until *value is at least wanted. */
PROBE_MAY bool reaches(const atomic_int *value, int wanted)
{
	for (int waited = 0; waited < PATIENCE_MS; waited += 5) {
		if (atomic_load(value) >= wanted)
			return true;
		(void)usleep(5000);
	}
	return false;
}

struct scenario {
	const char *name;
	void (*run)(void);
};

/* PROBE --list | ADDRESS SCENARIO */
PROBE_MAY int probe_main(int argc, char **argv, const struct scenario *scenarios, size_t count)
{
	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (size_t i = 0; i < count; i++)
			(void)printf("%s\n", scenarios[i].name);
		return 0;
	}
	for (size_t i = 0; argc == 3 && i < count; i++) {
		if (strcmp(argv[2], scenarios[i].name) != 0)
			continue;
		address = argv[1];
		scenarios[i].run();
		return atomic_load(&failures) == 0 ? 0 : 1;
	}
	(void)fprintf(stderr, "usage: %s --list | ADDRESS SCENARIO\n", argv[0]);
	return 2;
}

#endif
