/* SPDX-License-Identifier: Apache-2.0
 *
 * Rules for a lifecycle, and its compiled form. Pure: nothing here touches the store.
 *
 * A non-terminal state without an exit, or a state that cannot be reached, would hold a job for
 * ever; such a lifecycle is refused with the name of the state when it is loaded.
 */
#include <assert.h>
#include <stdio.h>

#include "broker/core/lifecycle/lifecycle.h"
#include "protocol/limits.h"

static_assert(LIFECYCLE_STATES_CAP <= 64, "a mask has a bit per state");
static_assert(LIFECYCLE_STATES_CAP == LIMIT_SIZE(LIFECYCLE_STATES_MAX),
	      "what is refused beyond the limit has no room");

#define WHY(code, ...)                                           \
	do {                                                     \
		snprintf(why, LIFECYCLE_WHY_BYTES, __VA_ARGS__); \
		return code;                                     \
	} while (0)

static bool state_name_valid(const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > LIFECYCLE_STATE_NAME_BYTES_MAX)
		return false;
	for (const char *c = name; *c != '\0'; c++) {
		bool letter = (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z');

		if (!letter && !(*c >= '0' && *c <= '9') && *c != '_' && *c != '-')
			return false;
	}
	return true;
}

static bool find(const Sluice__LifecycleConfig *config, const char *name, uint32_t *ret)
{
	for (uint32_t i = 0; i < config->n_states; i++) {
		if (strcmp(config->states[i]->name, name) == 0) {
			*ret = i;
			return true;
		}
	}
	return false;
}

static int check_names(const Sluice__LifecycleConfig *config, char *why)
{
	if (config->n_states == 0)
		WHY(SLUICE_E_INVAL, "a lifecycle needs at least one state");
	if (config->n_states > LIMIT_LIFECYCLE_STATES_MAX)
		WHY(SLUICE_E_LIMIT, "%zu states; at most %u", config->n_states,
		    (unsigned)LIMIT_LIFECYCLE_STATES_MAX);
	for (uint32_t i = 0; i < config->n_states; i++) {
		const char *name = config->states[i]->name;
		uint32_t first;

		if (!state_name_valid(name))
			WHY(SLUICE_E_INVAL,
			    "state %u: \"%.70s\" is not a state name (1 to %d of A-Z a-z 0-9 _ -)",
			    i + 1, name, LIFECYCLE_STATE_NAME_BYTES_MAX);
		if (find(config, name, &first) && first != i)
			WHY(SLUICE_E_INVAL, "state %s is named twice", name);
	}
	return 0;
}

/* Finds exits by name once, into ret->next: every read that loads a lifecycle pays for the
 * check. */
static int check_exits(const Sluice__LifecycleConfig *config, struct lifecycle *ret, char *why)
{
	for (uint32_t i = 0; i < config->n_states; i++) {
		const Sluice__LifecycleState *state = config->states[i];

		if (state->terminal && state->n_next != 0)
			WHY(SLUICE_E_INVAL, "state %s is terminal and has an exit to %.63s",
			    state->name, state->next[0]);
		if (!state->terminal && state->n_next == 0)
			WHY(SLUICE_E_INVAL, "state %s is not terminal and has no exit",
			    state->name);
		if (state->n_next > config->n_states)
			WHY(SLUICE_E_INVAL, "state %s has more exits than there are states",
			    state->name);
		for (size_t j = 0; j < state->n_next; j++) {
			uint32_t next;

			if (!find(config, state->next[j], &next))
				WHY(SLUICE_E_INVAL, "state %s leads to %.63s, which is not a state",
				    state->name, state->next[j]);
			if (next == i)
				WHY(SLUICE_E_INVAL, "state %s leads to itself", state->name);
			ret->next[i] |= UINT64_C(1) << next;
		}
		if (state->terminal)
			ret->terminal |= UINT64_C(1) << i;
	}
	return 0;
}

static uint64_t exits_mask(const Sluice__LifecycleConfig *config, uint32_t state)
{
	uint64_t mask = 0;

	for (size_t j = 0; j < config->states[state]->n_next; j++) {
		uint32_t next;

		if (find(config, config->states[state]->next[j], &next))
			mask |= UINT64_C(1) << next;
	}
	return mask;
}

/* The cancelled and failed states count as reached: a cancel and failures found by the broker lead
 * there. */
static int check_reach(const Sluice__LifecycleConfig *config, const struct lifecycle *lifecycle,
		       char *why)
{
	uint64_t reached = UINT64_C(1) | UINT64_C(1) << lifecycle->cancelled |
			   UINT64_C(1) << lifecycle->failed;
	uint64_t before;

	do {
		before = reached;
		for (uint32_t i = 0; i < config->n_states; i++) {
			if (reached >> i & 1)
				reached |= lifecycle->next[i];
		}
	} while (reached != before);
	for (uint32_t i = 0; i < config->n_states; i++) {
		if (!(reached >> i & 1))
			WHY(SLUICE_E_INVAL, "state %s cannot be reached from %s",
			    config->states[i]->name, config->states[0]->name);
	}
	return 0;
}

static int check_verdict(const Sluice__LifecycleConfig *config, const char *what, const char *name,
			 uint32_t *ret, char *why)
{
	if (!find(config, name, ret))
		WHY(SLUICE_E_INVAL, "the %s state \"%.63s\" is not a state of the lifecycle", what,
		    name);
	if (!config->states[*ret]->terminal)
		WHY(SLUICE_E_INVAL, "the %s state %s is not terminal", what, name);
	return 0;
}

/* Sets all members except gateway, number and config. */
static int compile(const Sluice__LifecycleConfig *config, struct lifecycle *ret, char *why)
{
	int rc = check_names(config, why);

	memset(ret, 0, sizeof(*ret));
	if (rc == 0)
		rc = check_exits(config, ret, why);
	if (rc == 0)
		rc = check_verdict(config, "cancelled", config->cancelled, &ret->cancelled, why);
	if (rc == 0)
		rc = check_verdict(config, "failed", config->failed, &ret->failed, why);
	if (rc != 0)
		return rc;
	if (config->states[0]->terminal)
		WHY(SLUICE_E_INVAL, "the initial state %s is terminal", config->states[0]->name);
	ret->state_count = (uint32_t)config->n_states;
	return check_reach(config, ret, why);
}

int lifecycle_check(const Sluice__LifecycleConfig *config, char *why)
{
	struct lifecycle lifecycle;

	return compile(config, &lifecycle, why);
}

int lifecycle_check_alter(const Sluice__LifecycleConfig *before,
			  const Sluice__LifecycleConfig *after, char *why)
{
	for (uint32_t i = 0; i < before->n_states; i++) {
		const Sluice__LifecycleState *old = before->states[i];
		uint64_t now;

		if (i >= after->n_states || strcmp(old->name, after->states[i]->name) != 0)
			WHY(SLUICE_E_IN_USE,
			    "jobs use the lifecycle: state %s must stay where it is (new ones go "
			    "to the end)",
			    old->name);
		if (old->terminal != after->states[i]->terminal)
			WHY(SLUICE_E_IN_USE, "jobs use the lifecycle: state %s must stay %s",
			    old->name, old->terminal ? "terminal" : "not terminal");
		now = exits_mask(after, i);
		for (size_t j = 0; j < old->n_next; j++) {
			uint32_t next;

			if (!find(after, old->next[j], &next) || !(now >> next & 1))
				WHY(SLUICE_E_IN_USE,
				    "jobs use the lifecycle: the transition %s -> %s must stay",
				    old->name, old->next[j]);
		}
	}
	return 0;
}

int lifecycle_compile(struct lifecycle *ret, uint32_t gateway, uint64_t id,
		      Sluice__LifecycleConfig *config, char *why)
{
	struct lifecycle lifecycle;
	int rc = compile(config, &lifecycle, why);

	if (rc != 0)
		return rc;
	lifecycle.gateway = gateway;
	lifecycle.id = id;
	lifecycle.config = config;
	*ret = lifecycle;
	return 0;
}

bool lifecycle_state_find(const struct lifecycle *lifecycle, const char *name, uint32_t *ret)
{
	return find(lifecycle->config, name, ret);
}
