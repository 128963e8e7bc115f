/* SPDX-License-Identifier: Apache-2.0
 * Lifecycles: definitions that are refused, with the name of the state; the default lifecycle
 * against a table written here.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "broker/core/lifecycle/lifecycle.h"

struct spec {
	const char *name;
	bool terminal;
	const char *next; /* space-separated */
};

/* A config from a table, in static memory that the next call reuses. */
static const Sluice__LifecycleConfig *config_of(const struct spec *specs, size_t count,
						const char *cancelled, const char *failed)
{
	static Sluice__LifecycleConfig config;
	static Sluice__LifecycleState states[80], *list[80];
	static char names[80][80], exits[80][400], *next[80][80];

	sluice__lifecycle_config__init(&config);
	config.name = (char *)"m";
	config.cancelled = (char *)cancelled;
	config.failed = (char *)failed;
	config.n_states = count;
	config.states = list;
	for (size_t i = 0; i < count; i++) {
		char *save;

		sluice__lifecycle_state__init(&states[i]);
		strcpy(names[i], specs[i].name);
		strcpy(exits[i], specs[i].next);
		states[i].name = names[i];
		states[i].terminal = specs[i].terminal;
		states[i].next = next[i];
		for (char *t = strtok_r(exits[i], " ", &save); t != NULL;
		     t = strtok_r(NULL, " ", &save))
			next[i][states[i].n_next++] = t;
		list[i] = &states[i];
	}
	return &config;
}

#define CONFIG(specs, cancelled, failed) \
	config_of(specs, sizeof(specs) / sizeof((specs)[0]), cancelled, failed)

static void refused_naming(const Sluice__LifecycleConfig *config, int code, const char *what)
{
	char why[LIFECYCLE_WHY_BYTES] = "";

	cr_assert_eq(lifecycle_check(config, why), code, "%s", why);
	cr_assert_not_null(strstr(why, what), "\"%s\" does not name %s", why, what);
}

Test(job_lifecycle, a_small_lifecycle_passes)
{
	static const struct spec specs[] = {{"NEW", false, "DONE GONE"},
					    {"DONE", true, ""},
					    {"GONE", true, ""}};
	char why[LIFECYCLE_WHY_BYTES] = "";

	cr_assert_eq(lifecycle_check(CONFIG(specs, "GONE", "GONE"), why), 0, "%s", why);
}

Test(job_lifecycle, refusals_name_the_state)
{
	static const struct spec twice[] = {{"A", false, "B"}, {"B", true, ""}, {"A", true, ""}};
	static const struct spec unknown[] = {{"A", false, "B NOWHERE"}, {"B", true, ""}};
	static const struct spec exit_of_end[] = {{"A", false, "B"}, {"B", true, "A"}};
	static const struct spec no_exit[] = {{"A", false, "B STUCK"},
					      {"B", true, ""},
					      {"STUCK", false, ""}};
	static const struct spec unreachable[] = {{"A", false, "B"},
						  {"B", true, ""},
						  {"ISLAND", false, "B"}};
	static const struct spec itself[] = {{"A", false, "B LOOP"},
					     {"B", true, ""},
					     {"LOOP", false, "LOOP B"}};
	static const struct spec bad_name[] = {{"A", false, "B"},
					       {"B", true, ""},
					       {"C D", true, ""}};
	static const struct spec initial_end[] = {{"END", true, ""}};
	static const struct spec open_cancel[] = {{"A", false, "B"}, {"B", true, ""}};

	refused_naming(CONFIG(twice, "B", "B"), SLUICE_E_INVAL, "state A is named twice");
	refused_naming(CONFIG(unknown, "B", "B"), SLUICE_E_INVAL, "NOWHERE");
	refused_naming(CONFIG(exit_of_end, "B", "B"), SLUICE_E_INVAL, "state B is terminal");
	refused_naming(CONFIG(no_exit, "B", "B"), SLUICE_E_INVAL, "state STUCK");
	refused_naming(CONFIG(unreachable, "B", "B"), SLUICE_E_INVAL, "ISLAND");
	refused_naming(CONFIG(itself, "B", "B"), SLUICE_E_INVAL, "LOOP");
	refused_naming(CONFIG(bad_name, "B", "B"), SLUICE_E_INVAL, "C D");
	refused_naming(CONFIG(initial_end, "END", "END"), SLUICE_E_INVAL, "END");
	refused_naming(CONFIG(open_cancel, "A", "B"), SLUICE_E_INVAL, "cancelled state A");
	refused_naming(CONFIG(open_cancel, "B", "A"), SLUICE_E_INVAL, "failed state A");
	refused_naming(CONFIG(open_cancel, "X", "B"), SLUICE_E_INVAL, "\"X\"");
	refused_naming(config_of(open_cancel, 0, "B", "B"), SLUICE_E_INVAL, "at least one");
}

/* A chain of `count` states, the last one terminal. */
static const Sluice__LifecycleConfig *chain(size_t count)
{
	static struct spec specs[80];
	static char names[81][24];

	for (size_t i = 0; i < count; i++) {
		snprintf(names[i], sizeof(names[i]), "S%zu", i);
		snprintf(names[i + 1], sizeof(names[i + 1]), "S%zu", i + 1);
		specs[i] =
			(struct spec){names[i], i + 1 == count, i + 1 == count ? "" : names[i + 1]};
	}
	return config_of(specs, count, names[count - 1], names[count - 1]);
}

/* limit: LIFECYCLE_STATES_MAX */
Test(job_lifecycle, a_lifecycle_has_at_most_64_states)
{
	char why[LIFECYCLE_WHY_BYTES] = "";

	cr_assert_eq(lifecycle_check(chain(64), why), 0, "%s", why);
	refused_naming(chain(65), SLUICE_E_LIMIT, "65 states");
}

Test(job_lifecycle, alter_keeps_the_states_that_jobs_may_be_in)
{
	static const struct spec old[] = {{"A", false, "B C"}, {"B", true, ""}, {"C", false, "B"}};
	static const struct spec more[] = {{"A", false, "B C D"},
					   {"B", true, ""},
					   {"C", false, "B"},
					   {"D", true, ""}};
	static const struct spec fewer[] = {{"A", false, "B"}, {"B", true, ""}};
	static const struct spec cut[] = {{"A", false, "B"}, {"B", true, ""}, {"C", false, "B"}};
	static const struct spec moved[] = {{"A", false, "B C"},
					    {"C", false, "B"},
					    {"B", true, ""}};
	static const struct spec retyped[] = {{"A", false, "B C"},
					      {"B", true, ""},
					      {"C", true, ""}};
	char why[LIFECYCLE_WHY_BYTES] = "";
	uint8_t packed[1024];
	size_t bytes = sluice__lifecycle_config__pack(CONFIG(old, "B", "B"), packed);
	Sluice__LifecycleConfig *before = sluice__lifecycle_config__unpack(NULL, bytes, packed);

	cr_assert_not_null(before);
	cr_assert_eq(lifecycle_check_alter(before, CONFIG(more, "B", "B"), why), 0, "%s", why);
	cr_assert_eq(lifecycle_check_alter(before, CONFIG(fewer, "B", "B"), why), SLUICE_E_IN_USE);
	cr_assert_eq(lifecycle_check_alter(before, CONFIG(cut, "B", "B"), why), SLUICE_E_IN_USE);
	cr_assert_not_null(strstr(why, "A -> C"), "%s", why);
	cr_assert_eq(lifecycle_check_alter(before, CONFIG(moved, "B", "B"), why), SLUICE_E_IN_USE);
	cr_assert_eq(lifecycle_check_alter(before, CONFIG(retyped, "B", "B"), why),
		     SLUICE_E_IN_USE);
	cr_assert_not_null(strstr(why, "state C"), "%s", why);
	sluice__lifecycle_config__free_unpacked(before, NULL);
}

Test(job_lifecycle, default_is_airavatas_table_with_exits)
{
	/* Rows: from; columns: to, in the same order. */
	static const char *const names[] = {"SUBMITTED", "QUEUED",   "ACTIVE",
					    "COMPLETE",	 "CANCELED", "FAILED",
					    "SUSPENDED", "UNKNOWN",  "NON_CRITICAL_FAIL"};
	static const char *const legal[] = {"011111111", "001111111", "010111111",
					    "000000000", "000000000", "000000000",
					    "011111011", "011111101", "011111110"};
	char why[LIFECYCLE_WHY_BYTES] = "";
	Sluice__LifecycleConfig config;
	struct lifecycle lifecycle;

	lifecycle_default(&config);
	cr_assert_str_eq(config.name, "airavata");
	cr_assert_eq(lifecycle_compile(&lifecycle, 1, 1, &config, why), 0, "%s", why);
	cr_assert_eq(lifecycle.state_count, 9);
	for (uint32_t from = 0; from < 9; from++) {
		uint32_t from_at, to_at;

		cr_assert(lifecycle_state_find(&lifecycle, names[from], &from_at));
		cr_assert_eq(lifecycle_is_terminal(&lifecycle, from_at), from >= 3 && from <= 5,
			     "%s", names[from]);
		for (uint32_t to = 0; to < 9; to++) {
			cr_assert(lifecycle_state_find(&lifecycle, names[to], &to_at));
			cr_assert_eq(lifecycle_allows(&lifecycle, from_at, to_at),
				     legal[from][to] == '1', "%s -> %s", names[from], names[to]);
		}
	}
	cr_assert_str_eq(lifecycle_state_name(&lifecycle, 0), "SUBMITTED");
	cr_assert_str_eq(lifecycle_state_name(&lifecycle, lifecycle.cancelled), "CANCELED");
	cr_assert_str_eq(lifecycle_state_name(&lifecycle, lifecycle.failed), "FAILED");
}
