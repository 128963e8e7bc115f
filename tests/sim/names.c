/* SPDX-License-Identifier: Apache-2.0
 * Names and numbers by which the broker and the oracle know producers' targets, sources and
 * consumers. */
#include <string.h>

#include "tests/sim/sim.h"

const struct target *sim_target(int producer)
{
	static const struct target targets[PRODUCERS] = {{"s", 1, 0},  {"q", 1, -1}, {"r", 1, 1},
							 {"q", 1, -1}, {"a", 1, 2},  {"", 1, 0},
							 {"s", 2, 3}};

	return &targets[producer];
}

static const char *const sources[SOURCES + 1] = {"", "alpha", "beta"};

const char *source_name_of(int source)
{
	return sources[source];
}

int source_by_name(const char *name)
{
	for (int i = 0; i <= SOURCES; i++) {
		if (strcmp(sources[i], name) == 0)
			return i;
	}
	must(SLUICE_E_INTERNAL, name);
	return 0;
}

uint64_t consumer_tag(const struct client *client, int number, enum feed feed)
{
	return OPS_MAX + (client->connection * CLIENTS + (uint64_t)number) * FEEDS + feed;
}

int consumer_number(int client, enum feed feed)
{
	return client * FEEDS + (int)feed;
}
