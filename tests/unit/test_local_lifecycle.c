/* SPDX-License-Identifier: Apache-2.0
 * Which states of a lifecycle the local scheduler reports. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "plugins/local/lifecycle.h"
#include "sluice/error.h"

#define STATE(name, next) "{\"name\":\"" name "\",\"next\":[" next "]}"
#define END(name) "{\"name\":\"" name "\",\"terminal\":true}"
#define LIFECYCLE(name, states, cancelled, failed)                                \
	"{\"lifecycles\":[{\"config\":{\"name\":\"" name "\",\"states\":[" states \
	"],\"cancelled\":\"" cancelled "\",\"failed\":\"" failed "\"}}]}"

/* A state a line. */
/* clang-format off */
/* The one of client/README.md. */
static const char gateway[] = LIFECYCLE("gateway",
	STATE("SUBMITTED", "\"RUNNING\",\"DONE\",\"FAILED\",\"CANCELED\"") ","
	STATE("RUNNING", "\"DONE\",\"FAILED\",\"CANCELED\"") ","
	END("DONE") "," END("FAILED") "," END("CANCELED"),
	"CANCELED", "FAILED");
/* Two states that may mean "it runs", two successful ends; an end is legal only after it ran. */
static const char wide[] = LIFECYCLE("wide",
	STATE("NEW", "\"STAGING\",\"BUSY\",\"DEAD\"") ","
	STATE("STAGING", "\"BUSY\",\"DEAD\"") ","
	STATE("BUSY", "\"GOOD\",\"BETTER\",\"BAD\",\"DEAD\"") ","
	END("GOOD") "," END("BETTER") "," END("BAD") "," END("DEAD"),
	"DEAD", "BAD");
/* clang-format on */

static int map(const char *json, const char *active, const char *complete, const char *failed,
	       const char *canceled, struct lifecycle *ret, char why[512])
{
	const char *const wanted[ROLES] = {active, complete, failed, canceled};

	why[0] = 0;
	cr_assert_eq(lifecycle_read(json, ret), 0);
	return lifecycle_map(ret, wanted, why, 512);
}

Test(local_lifecycle, what_can_only_mean_one_state_needs_no_setting)
{
	struct lifecycle lifecycle;
	char why[512];

	cr_assert_eq(map(gateway, NULL, NULL, NULL, NULL, &lifecycle, why), 0, "%s", why);
	cr_expect_str_eq(lifecycle_state(&lifecycle, ROLE_ACTIVE), "RUNNING");
	cr_expect_str_eq(lifecycle_state(&lifecycle, ROLE_COMPLETE), "DONE");
	cr_expect_str_eq(lifecycle_state(&lifecycle, ROLE_FAILED), "FAILED");
	cr_expect_str_eq(lifecycle_state(&lifecycle, ROLE_CANCELED), "CANCELED");
	cr_expect(lifecycle_can(&lifecycle, "SUBMITTED", ROLE_COMPLETE));
	cr_expect_not(lifecycle_can(&lifecycle, "RUNNING", ROLE_ACTIVE));
	cr_expect(lifecycle_can(&lifecycle, "no such state", ROLE_COMPLETE));
	lifecycle_free(&lifecycle);
}

Test(local_lifecycle, what_is_ambiguous_is_refused_with_the_setting_and_the_legal_states)
{
	struct lifecycle lifecycle;
	char why[512];

	cr_assert_eq(map(wide, NULL, "GOOD", NULL, NULL, &lifecycle, why), SLUICE_E_INVAL);
	cr_expect_not_null(strstr(why, "setting state_active is not set"), "%s", why);
	cr_expect_not_null(strstr(why, "expected one of: STAGING, BUSY"), "%s", why);
	lifecycle_free(&lifecycle);
	cr_assert_eq(map(wide, "BUSY", NULL, NULL, NULL, &lifecycle, why), SLUICE_E_INVAL);
	cr_expect_not_null(strstr(why, "setting state_complete is not set"), "%s", why);
	cr_expect_not_null(strstr(why, "expected one of: GOOD, BETTER, BAD, DEAD"), "%s", why);
	lifecycle_free(&lifecycle);
	cr_assert_eq(map(wide, "BUSY", "BETTER", NULL, NULL, &lifecycle, why), 0, "%s", why);
	cr_expect_str_eq(lifecycle_state(&lifecycle, ROLE_COMPLETE), "BETTER");
	cr_expect_str_eq(lifecycle_state(&lifecycle, ROLE_FAILED), "BAD");
	cr_expect_str_eq(lifecycle_state(&lifecycle, ROLE_CANCELED), "DEAD");
	cr_expect_not(lifecycle_can(&lifecycle, "NEW", ROLE_COMPLETE), "only after it ran");
	cr_expect(lifecycle_can(&lifecycle, "NEW", ROLE_ACTIVE));
	lifecycle_free(&lifecycle);
}

Test(local_lifecycle, a_setting_that_is_not_legal_is_refused)
{
	static const struct {
		const char *active, *complete, *failed, *canceled, *why;
	} rows[] = {
		{"DONE", NULL, NULL, NULL, "state_active is 'DONE'"},
		{"nothing", NULL, NULL, NULL, "state_active is 'nothing'"},
		{"SUBMITTED", NULL, NULL, NULL, "state_active is 'SUBMITTED'"},
		{NULL, "RUNNING", NULL, NULL, "state_complete is 'RUNNING'"},
		{NULL, "COMPLETE", NULL, NULL, "expected one of: DONE, FAILED, CANCELED"},
		{NULL, NULL, "done", NULL, "state_failed is 'done'"},
		{NULL, NULL, NULL, "", "state_canceled is ''"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct lifecycle lifecycle;
		char why[512];

		cr_expect_eq(map(gateway, rows[i].active, rows[i].complete, rows[i].failed,
				 rows[i].canceled, &lifecycle, why),
			     SLUICE_E_INVAL);
		cr_expect_not_null(strstr(why, rows[i].why), "'%s' lacks '%s'", why, rows[i].why);
		lifecycle_free(&lifecycle);
	}
}

Test(local_lifecycle, an_answer_that_is_no_lifecycle_is_refused)
{
	static const char *const rows[] = {
		"",
		"{}",
		"[]",
		"{\"lifecycles\":[]}",
		"{\"lifecycles\":[{\"config\":{}}]}",
		"{\"lifecycles\":[{\"config\":{\"name\":\"a\",\"states\":[]}}]}",
		"{\"lifecycles\":[{\"config\":{\"name\":\"a\",\"states\":[{\"name\":1}]}}]}",
		("{\"lifecycles\":[{\"config\":{\"name\":\"a\",\"states\":[{\"name\":\"b\","
		 "\"next\":[\"c\"]}]}}]}"),
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct lifecycle lifecycle;

		cr_expect_neq(lifecycle_read(rows[i], &lifecycle), 0, "%s", rows[i]);
		cr_expect_eq(lifecycle.count, 0);
	}
}
