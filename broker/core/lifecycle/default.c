/* SPDX-License-Identifier: Apache-2.0
 * The default lifecycle of every gateway: Airavata's job table, with exits added to the states that
 * had none (SUSPENDED and UNKNOWN held a job for ever there). */
#include <assert.h>

#include "broker/core/base/counter.h"
#include "broker/core/base/name.h"
#include "broker/core/base/topo.h"
#include "broker/core/lifecycle/lifecycle.h"

#define AFTER_QUEUED \
	"ACTIVE", "COMPLETE", "CANCELED", "FAILED", "SUSPENDED", "UNKNOWN", "NON_CRITICAL_FAIL"

/* Exits, by state: all states but SUBMITTED and itself. */
static const char *const submitted_next[] = {"QUEUED", AFTER_QUEUED};
static const char *const queued_next[] = {AFTER_QUEUED};
static const char *const active_next[] = {"QUEUED",    "COMPLETE", "CANCELED",	       "FAILED",
					  "SUSPENDED", "UNKNOWN",  "NON_CRITICAL_FAIL"};
static const char *const suspended_next[] = {"QUEUED", "ACTIVE",  "COMPLETE",	      "CANCELED",
					     "FAILED", "UNKNOWN", "NON_CRITICAL_FAIL"};
static const char *const unknown_next[] = {"QUEUED", "ACTIVE",	  "COMPLETE",	      "CANCELED",
					   "FAILED", "SUSPENDED", "NON_CRITICAL_FAIL"};
static const char *const non_critical_next[] = {"QUEUED", "ACTIVE",    "COMPLETE", "CANCELED",
						"FAILED", "SUSPENDED", "UNKNOWN"};

/* protobuf-c has no const in its structs; these are never written. */
#define STATE(text, exits)                                                             \
	{                                                                              \
		.base = PROTOBUF_C_MESSAGE_INIT(&sluice__lifecycle_state__descriptor), \
		.name = (char *)(text), .n_next = sizeof(exits) / sizeof((exits)[0]),  \
		.next = (char **)(exits)                                               \
	}
#define TERMINAL(text)                                                                 \
	{                                                                              \
		.base = PROTOBUF_C_MESSAGE_INIT(&sluice__lifecycle_state__descriptor), \
		.name = (char *)(text), .terminal = true                               \
	}

static const Sluice__LifecycleState states[] = {
	STATE("SUBMITTED", submitted_next),
	STATE("QUEUED", queued_next),
	STATE("ACTIVE", active_next),
	TERMINAL("COMPLETE"),
	TERMINAL("CANCELED"),
	TERMINAL("FAILED"),
	STATE("SUSPENDED", suspended_next),
	STATE("UNKNOWN", unknown_next),
	STATE("NON_CRITICAL_FAIL", non_critical_next),
};
static const Sluice__LifecycleState *const state_list[] = {&states[0], &states[1], &states[2],
							   &states[3], &states[4], &states[5],
							   &states[6], &states[7], &states[8]};

static_assert(sizeof(state_list) / sizeof(state_list[0]) == sizeof(states) / sizeof(states[0]),
	      "every state is listed");

void lifecycle_default(Sluice__LifecycleConfig *ret)
{
	sluice__lifecycle_config__init(ret);
	ret->name = (char *)LIFECYCLE_DEFAULT_NAME;
	ret->n_states = sizeof(states) / sizeof(states[0]);
	ret->states = (Sluice__LifecycleState **)state_list;
	ret->cancelled = (char *)"CANCELED";
	ret->failed = (char *)"FAILED";
	ret->description =
		(char *)"Apache Airavata's job states, with exits from SUSPENDED and UNKNOWN";
}

int lifecycle_install_default(struct apply *a)
{
	const struct sluice_slice name = {LIFECYCLE_DEFAULT_NAME,
					  sizeof(LIFECYCLE_DEFAULT_NAME) - 1};
	Sluice__LifecycleConfig config;
	uint64_t id;
	int rc = counter_next(a, COUNTER_LIFECYCLE, &id);

	if (rc == 0)
		rc = name_put(a, NAME_LIFECYCLE, name, id);
	if (rc != 0)
		return rc;
	lifecycle_default(&config);
	return topo_put(a, TOPO_LIFECYCLE, id, &config.base);
}
