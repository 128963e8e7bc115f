/* SPDX-License-Identifier: Apache-2.0
 * Structs of programs that were built with an older or a newer header than the library: one of
 * three versions, of which the library knows the second. */
#include <criterion/criterion.h>
#include <string.h>

#include "client/base/sized.h"

struct first {
	uint32_t size, a;
};
struct second {
	uint32_t size, a;
	const char *b;
};
struct third {
	uint32_t size, a;
	const char *b;
	uint64_t c;
};

static const struct sized known = {"sluice_known", sizeof(struct second), sizeof(struct first)};

Test(sized, a_member_that_the_program_does_not_have_is_zero)
{
	struct {
		struct first made;
		uint64_t behind;
	} program = {{sizeof(struct first), 7}, UINT64_MAX};
	struct second own;

	memset(&own, 0xa5, sizeof(own));
	cr_assert_eq(sized_copy(&known, &program.made, &own), 0);
	cr_expect(own.size == sizeof(own) && own.a == 7 && own.b == NULL);
}

Test(sized, a_member_that_the_library_does_not_have_must_be_zero)
{
	struct third made = {sizeof(made), 7, "b", 0};
	struct second own;

	cr_assert_eq(sized_copy(&known, &made, &own), 0);
	cr_expect(own.size == sizeof(own) && own.a == 7 && own.b == made.b);
	made.c = UINT64_C(1) << 56;
	cr_expect_eq(sized_copy(&known, &made, &own), SLUICE_E_UNSUPPORTED);
	cr_expect_str_eq(sluice_last_error(NULL),
			 "sluice_known has 24 bytes, of which this library knows "
			 "16; expected 0 in the rest, not at 23");
}

Test(sized, a_size_that_none_has_is_refused)
{
	const uint32_t sizes[] = {0, sizeof(struct first) - 1, SIZED_MAX + 1, UINT32_MAX};
	struct third made = {0};
	struct second own;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		made.size = sizes[i];
		cr_expect_eq(sized_copy(&known, &made, &own), SLUICE_E_INVAL, "%u", sizes[i]);
		cr_expect_eq(sized_check(&known, &made), SLUICE_E_INVAL, "%u", sizes[i]);
	}
	made.size = 0;
	cr_expect_eq(sized_check(&known, &made), SLUICE_E_INVAL);
	cr_expect_str_eq(sluice_last_error(NULL),
			 "sluice_known has a size of 0; expected at least 8 and at "
			 "most 4096: make it with SLUICE_KNOWN()");
}

Test(sized, only_the_members_that_the_program_has_are_filled)
{
	const struct second own = {0, 7, "b"};
	struct {
		struct first made;
		uint64_t behind;
	} program = {{sizeof(struct first), 1}, UINT64_MAX};
	struct third newer = {sizeof(newer), 1, NULL, UINT64_MAX};

	cr_assert_eq(sized_check(&known, &program.made), 0);
	sized_fill(&known, &program.made, &own);
	cr_expect(program.made.size == sizeof(struct first) && program.made.a == 7);
	cr_expect_eq(program.behind, UINT64_MAX);
	sized_fill(&known, &newer, &own);
	cr_expect(newer.size == sizeof(newer) && newer.a == 7 && newer.b == own.b && newer.c == 0);
}
