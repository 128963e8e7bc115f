/* SPDX-License-Identifier: Apache-2.0
 * See lifecycle.h. */
#include "lifecycle.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluice/error.h"

static const struct {
	const char *setting, *state, *meaning;
} roles[ROLES] = {
	[ROLE_ACTIVE] = {"state_active", "ACTIVE", "its process runs"},
	[ROLE_COMPLETE] = {"state_complete", "COMPLETE", "it ended with exit code 0"},
	[ROLE_FAILED] = {"state_failed", "FAILED", "it failed"},
	[ROLE_CANCELED] = {"state_canceled", "CANCELED", "it was cancelled"},
};

const char *lifecycle_setting(enum role role)
{
	return roles[role].setting;
}

const char *lifecycle_state(const struct lifecycle *lifecycle, enum role role)
{
	return lifecycle->states[lifecycle->role[role]];
}

void lifecycle_free(struct lifecycle *lifecycle)
{
	for (size_t i = 0; i < lifecycle->count; i++)
		free(lifecycle->states[i]);
	free(lifecycle->name);
	free(lifecycle->cancelled);
	free(lifecycle->failed);
	memset(lifecycle, 0, sizeof(*lifecycle));
}

/* ---- reading ---- */

static size_t find(const struct lifecycle *lifecycle, const char *state)
{
	size_t i = 0;

	while (i < lifecycle->count && strcmp(lifecycle->states[i], state) != 0)
		i++;
	return i;
}

static char *text_of(json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text != NULL && text[0] != 0 ? strdup(text) : NULL;
}

static int read_states(json_t *states, struct lifecycle *ret)
{
	json_t *state, *next;
	size_t i, n;

	if (json_array_size(states) == 0 || json_array_size(states) > LIFECYCLE_STATES_MAX)
		return SLUICE_E_INVAL;
	json_array_foreach(states, i, state)
	{
		if (!json_is_string(json_object_get(state, "name")))
			return SLUICE_E_INVAL;
		ret->states[i] = text_of(state, "name");
		if (ret->states[i] == NULL)
			return SLUICE_E_NOMEM;
		ret->terminal[i] = json_is_true(json_object_get(state, "terminal"));
		ret->count++;
	}
	json_array_foreach(states, i, state)
	{
		json_array_foreach(json_object_get(state, "next"), n, next)
		{
			size_t to = json_is_string(next) ? find(ret, json_string_value(next))
							 : ret->count;

			if (to == ret->count)
				return SLUICE_E_INVAL;
			ret->next[i] |= (uint64_t)1 << to;
		}
	}
	return 0;
}

int lifecycle_read(const char *json, struct lifecycle *ret)
{
	json_t *reply = json_loads(json, 0, NULL);
	json_t *config =
		json_object_get(json_array_get(json_object_get(reply, "lifecycles"), 0), "config");
	int rc = SLUICE_E_INVAL;

	memset(ret, 0, sizeof(*ret));
	if (config != NULL)
		rc = read_states(json_object_get(config, "states"), ret);
	if (rc == 0) {
		ret->name = text_of(config, "name");
		ret->cancelled = text_of(config, "cancelled");
		ret->failed = text_of(config, "failed");
		rc = ret->name != NULL ? 0 : SLUICE_E_NOMEM;
	}
	json_decref(reply);
	if (rc != 0)
		lifecycle_free(ret);
	return rc;
}

/* ---- mapping ---- */

static bool follows(const struct lifecycle *lifecycle, size_t from, size_t to)
{
	return (lifecycle->next[from] >> to & 1) != 0;
}

/* Active: not the end, and reachable from the initial state. The others: an end that an active job
 * can reach. */
static bool is_legal(const struct lifecycle *lifecycle, enum role role, size_t state)
{
	if (role == ROLE_ACTIVE)
		return !lifecycle->terminal[state] && follows(lifecycle, 0, state);
	return lifecycle->terminal[state] &&
	       follows(lifecycle, lifecycle->role[ROLE_ACTIVE], state);
}

/* Whether a state that nobody named can be meant. The success is not what the lifecycle itself
 * calls failed or cancelled. */
static bool is_meant(const struct lifecycle *lifecycle, enum role role, size_t state)
{
	const char *name = lifecycle->states[state];
	bool cancelled = lifecycle->cancelled != NULL && strcmp(name, lifecycle->cancelled) == 0;
	bool failed = lifecycle->failed != NULL && strcmp(name, lifecycle->failed) == 0;

	if (!is_legal(lifecycle, role, state))
		return false;
	switch (role) {
	case ROLE_FAILED:
		return failed;
	case ROLE_CANCELED:
		return cancelled;
	case ROLE_COMPLETE:
		return !failed && !cancelled;
	default:
		return true;
	}
}

static void refuse(const struct lifecycle *lifecycle, enum role role, const char *wanted, char *why,
		   size_t why_bytes)
{
	char legal[256] = "none";
	size_t len = 0;

	for (size_t i = 0; i < lifecycle->count && len < sizeof(legal); i++)
		if (is_legal(lifecycle, role, i))
			len += (size_t)snprintf(legal + len, sizeof(legal) - len, "%s%s",
						len > 0 ? ", " : "", lifecycle->states[i]);
	(void)snprintf(why, why_bytes,
		       "setting %s %s%s%s: the lifecycle '%.80s' of the queue needs a state for "
		       "'job: %s'; "
		       "expected one of: %s",
		       roles[role].setting, wanted != NULL ? "is '" : "is not set",
		       wanted != NULL ? wanted : "", wanted != NULL ? "'" : "", lifecycle->name,
		       roles[role].meaning, legal);
}

static int map_one(struct lifecycle *lifecycle, enum role role, const char *wanted)
{
	size_t state = find(lifecycle, wanted != NULL ? wanted : roles[role].state), meant = 0;

	if (state < lifecycle->count && is_legal(lifecycle, role, state)) {
		lifecycle->role[role] = state;
		return 0;
	}
	if (wanted != NULL)
		return SLUICE_E_INVAL;
	for (size_t i = 0; i < lifecycle->count; i++)
		if (is_meant(lifecycle, role, i)) {
			lifecycle->role[role] = i;
			meant++;
		}
	return meant == 1 ? 0 : SLUICE_E_INVAL;
}

int lifecycle_map(struct lifecycle *lifecycle, const char *const wanted[ROLES], char *why,
		  size_t why_bytes)
{
	/* ROLE_ACTIVE first: the ends are those that it leads to. */
	for (enum role role = 0; role < ROLES; role++) {
		int rc = map_one(lifecycle, role, wanted[role]);

		if (rc != 0) {
			refuse(lifecycle, role, wanted[role], why, why_bytes);
			return rc;
		}
	}
	return 0;
}

bool lifecycle_can(const struct lifecycle *lifecycle, const char *from, enum role to)
{
	size_t state = find(lifecycle, from);

	return state == lifecycle->count || follows(lifecycle, state, lifecycle->role[to]);
}
