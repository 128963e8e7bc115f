/* SPDX-License-Identifier: Apache-2.0
 * Entries that stay in a spool are logged once each, whatever their order and number. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "plugins/local/notes.h"

static enum note_result meet(struct notes *notes, int number, const char *why, uint64_t now_ms)
{
	char name[32];

	(void)snprintf(name, sizeof(name), "thing %d", number);
	return notes_meet(notes, name, why, now_ms);
}

Test(local_notes, each_is_new_once_until_its_cause_changes_or_a_day_is_over)
{
	struct notes notes = {0};

	for (int pass = 0; pass < 3; pass++) {
		for (int i = 0; i < 2; i++)
			cr_expect_eq(meet(&notes, i, "EPERM", 1),
				     pass == 0 ? NOTE_NEW : NOTE_KNOWN);
		notes_pass_end(&notes);
	}
	cr_expect_eq(meet(&notes, 0, "EBUSY", 2), NOTE_NEW);
	cr_expect_eq(meet(&notes, 0, "EBUSY", 2), NOTE_KNOWN);
	cr_expect_eq(meet(&notes, 1, "EPERM", NOTE_AGAIN_MS), NOTE_KNOWN);
	cr_expect_eq(meet(&notes, 1, "EPERM", 1 + NOTE_AGAIN_MS), NOTE_NEW);
	cr_expect_eq(meet(&notes, 1, "EPERM", 2 + NOTE_AGAIN_MS), NOTE_KNOWN);
}

Test(local_notes, an_entry_that_a_scan_did_not_find_is_new_when_it_appears_again)
{
	struct notes notes = {0};

	cr_expect_eq(meet(&notes, 0, "EPERM", 1), NOTE_NEW);
	notes_pass_end(&notes);
	notes_pass_end(&notes);
	cr_expect_eq(meet(&notes, 0, "EPERM", 1), NOTE_NEW);
}

Test(local_notes, beyond_the_bound_one_line_reports_that_there_are_more)
{
	struct notes notes = {0};

	for (int pass = 0; pass < 3; pass++) {
		for (int i = 0; i < NOTES_MAX; i++)
			cr_expect_eq(meet(&notes, i, "EPERM", 1),
				     pass == 0 ? NOTE_NEW : NOTE_KNOWN);
		for (int i = 0; i < 3; i++)
			cr_expect_eq(meet(&notes, NOTES_MAX + i, "EPERM", 1),
				     pass == 0 && i == 0 ? NOTE_FULL : NOTE_KNOWN);
		notes_pass_end(&notes);
	}
	notes_pass_end(&notes);
	cr_expect_eq(meet(&notes, NOTES_MAX, "EPERM", 1), NOTE_NEW, "there is room again");
}
