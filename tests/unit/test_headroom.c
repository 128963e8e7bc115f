/* SPDX-License-Identifier: Apache-2.0
 *
 * Admission by class (DESIGN 5.3): by how full map and disk are, and by the room that is the
 * store's own. Commands that free room are always admitted; publishes are refused before reports;
 * and small changes do not switch either.
 */
#include <criterion/criterion.h>

#include "broker/engine/engine_internal.h"

#define MIB (1ull << 20)

static struct headroom_gate gate_new(uint64_t map_bytes)
{
	struct headroom_gate gate = {0};

	headroom_init(&gate, &(struct engine_config){0}, map_bytes);
	return gate;
}

static void expect_admits(const struct headroom_gate *gate, bool publish, bool report,
			  const char *when)
{
	cr_expect_eq(headroom_admits(gate, HEADROOM_PUBLISH), publish, "publishes, %s", when);
	cr_expect_eq(headroom_admits(gate, HEADROOM_REPORT), report, "reports, %s", when);
	cr_expect(headroom_admits(gate, HEADROOM_ALWAYS), "acks, %s", when);
}

static void room(struct headroom_gate *gate, uint64_t ahead_mib, uint64_t inside_mib)
{
	headroom_room(gate, &(struct store_room){.ahead_bytes = ahead_mib * MIB,
						 .inside_bytes = inside_mib * MIB});
}

static void fill(struct headroom_gate *gate, uint64_t used_mib, uint64_t disk_free_mib)
{
	headroom_update(gate, &(struct store_facts){.used_bytes = used_mib * MIB,
						    .file_bytes = used_mib * MIB,
						    .map_bytes = 1000 * MIB,
						    .ahead_bytes = 32 * MIB,
						    .disk_free_bytes = disk_free_mib * MIB});
}

Test(headroom, the_reserve_is_bounded_by_the_map)
{
	struct headroom_gate gate = gate_new(64 * MIB);

	cr_expect_eq(gate.reserve_bytes, 64 * MIB / 20);
	gate = gate_new(64ull << 30);
	cr_expect_eq(gate.reserve_bytes, 32 * MIB);
	headroom_init(&gate, &(struct engine_config){.reserve_bytes = 100 * MIB}, 64ull << 30);
	cr_expect_eq(gate.reserve_bytes, 100 * MIB);
}

Test(headroom, publishes_leave_the_reserve_whole_and_reports_half_of_it)
{
	struct headroom_gate gate = gate_new(64ull << 30);

	room(&gate, 48, 0);
	expect_admits(&gate, true, true, "with more than the reserve");
	room(&gate, 32, 0);
	expect_admits(&gate, true, true, "with the reserve to the byte");
	room(&gate, 31, 0);
	expect_admits(&gate, false, true, "with the reserve touched");
	room(&gate, 39, 0);
	expect_admits(&gate, false, true, "with a little more again: still refused");
	room(&gate, 15, 0);
	expect_admits(&gate, false, false, "with less than half of it");
	room(&gate, 16, 0);
	expect_admits(&gate, false, true, "with half of it");
	room(&gate, 40, 0);
	expect_admits(&gate, true, true, "with a quarter more");
}

Test(headroom, free_pages_of_the_file_count_but_some_pages_in_a_row_are_wanted)
{
	struct headroom_gate gate = gate_new(64ull << 30);

	room(&gate, 4, 40);
	expect_admits(&gate, true, true, "with an eighth ahead and the rest inside");
	room(&gate, 3, 60);
	expect_admits(&gate, false, true, "with less than an eighth ahead");
	room(&gate, 0, 128);
	expect_admits(&gate, true, true,
		      "with plenty inside: a store that was emptied is taken into use again");
	headroom_room(&gate,
		      &(struct store_room){.ahead_bytes = UINT64_MAX, .inside_bytes = UINT64_MAX});
	expect_admits(&gate, true, true, "without a limit");
}

Test(headroom, publishes_stop_at_80_percent_and_reports_at_95_with_hysteresis)
{
	struct headroom_gate gate = gate_new(64ull << 30);

	fill(&gate, 780, 1u << 20);
	expect_admits(&gate, true, true, "below 80 % of the map");
	fill(&gate, 810, 1u << 20);
	expect_admits(&gate, false, true, "above 80 %");
	fill(&gate, 770, 1u << 20);
	expect_admits(&gate, false, true, "a little below again");
	fill(&gate, 960, 1u << 20);
	expect_admits(&gate, false, false, "above 95 %");
	fill(&gate, 920, 1u << 20);
	expect_admits(&gate, false, false, "a little below again");
	fill(&gate, 880, 1u << 20);
	expect_admits(&gate, false, true, "well below 95 %");
	fill(&gate, 700, 1u << 20);
	expect_admits(&gate, true, true, "well below 80 %");
}

/* What is allocated ahead beyond the reserve counts as room on the disk; the reserve itself does
 * not. */
Test(headroom, the_disk_is_full_when_what_is_left_is_the_reserve)
{
	struct headroom_gate gate = gate_new(64ull << 30);

	fill(&gate, 100, 30);
	expect_admits(&gate, true, true, "at 100 of 130 MiB");
	fill(&gate, 100, 20);
	expect_admits(&gate, false, true, "at 100 of 120 MiB");
	fill(&gate, 100, 0);
	expect_admits(&gate, false, true,
		      "with nothing but the reserve, half of which is for reports");
}

/* Another program fills the disk suddenly. */
Test(headroom, a_disk_that_is_full_at_once_stops_publishes_and_not_reports)
{
	for (uint64_t used = 1; used < 780; used += 50) {
		struct headroom_gate gate = gate_new(64ull << 30);

		fill(&gate, used, 1u << 20);
		room(&gate, 48, 0);
		expect_admits(&gate, true, true, "before");
		fill(&gate, used, 0);
		room(&gate, 31, 0);
		expect_admits(&gate, false, true, "with the reserve touched");
		room(&gate, 16, 0);
		expect_admits(&gate, false, true, "with half of it");
		cr_expect_not_null(strstr(gate.why, "disk"), "%s", gate.why);
		room(&gate, 15, 0);
		expect_admits(&gate, false, false, "with less than half");
	}
}

/* Commands that free room need a session, whose record needs room, too. */
Test(headroom, a_session_is_opened_while_a_quarter_of_the_reserve_is_there)
{
	struct headroom_gate gate = gate_new(64ull << 30);
	struct command open = {.type = COMMAND_SESSION_OPEN}, purge = {.type = COMMAND_QUEUE_PURGE};

	fill(&gate, 990, 1u << 20);
	room(&gate, 8, 0);
	expect_admits(&gate, false, false, "with a quarter");
	cr_expect(headroom_admits_command(&gate, &open));
	room(&gate, 7, 0);
	cr_expect_not(headroom_admits_command(&gate, &open));
	cr_expect(headroom_admits_command(&gate, &purge));
}

Test(headroom, a_transaction_is_of_the_class_of_its_operation_that_stops_first)
{
	static const struct {
		Sluice__TxnOp__OpCase ops[3];
		enum headroom class;
	} rows[] = {
		{{SLUICE__TXN_OP__OP_ACK, SLUICE__TXN_OP__OP_CHECK_JOB,
		  SLUICE__TXN_OP__OP_JOB_CANCEL},
		 HEADROOM_ALWAYS},
		{{SLUICE__TXN_OP__OP_ACK, SLUICE__TXN_OP__OP_JOB_REPORT, SLUICE__TXN_OP__OP_NACK},
		 HEADROOM_REPORT},
		{{SLUICE__TXN_OP__OP_JOB_REPORT, SLUICE__TXN_OP__OP_ACK,
		  SLUICE__TXN_OP__OP_PUBLISH},
		 HEADROOM_PUBLISH},
		{{SLUICE__TXN_OP__OP_ACK, SLUICE__TXN_OP__OP_JOB_SUBMIT,
		  SLUICE__TXN_OP__OP_CURSOR_SET},
		 HEADROOM_PUBLISH},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		Sluice__TxnOp ops[3], *list[3];
		Sluice__Txn txn = SLUICE__TXN__INIT;
		struct command command = {.type = COMMAND_TXN, .message = &txn.base};

		for (size_t k = 0; k < 3; k++) {
			sluice__txn_op__init(&ops[k]);
			ops[k].op_case = rows[i].ops[k];
			list[k] = &ops[k];
		}
		txn.ops = list;
		txn.n_ops = 3;
		cr_expect_eq(command_headroom(&command), rows[i].class, "row %zu", i);
	}
}

/* A client that may free room can always connect, whatever class is refused. */
Test(headroom, what_frees_room_is_never_refused)
{
	static const uint16_t types[] =
		{COMMAND_SESSION_OPEN,	   COMMAND_SESSION_CLOSE, COMMAND_STREAM_DELETE,
		 COMMAND_STREAM_ALTER,	   COMMAND_QUEUE_DELETE,  COMMAND_QUEUE_PURGE,
		 COMMAND_QUEUE_ALTER,	   COMMAND_ROUTER_DELETE, COMMAND_LIFECYCLE_DELETE,
		 COMMAND_CURSOR_DELETE,	   COMMAND_ACK,		  COMMAND_CLAIM,
		 COMMAND_JOB_CANCEL,	   COMMAND_JOB_RELEASE,	  COMMAND_JOB_RETENTION,
		 COMMAND_QUARANTINE_PURGE, COMMAND_PRODUCER_CLOSE};

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
		cr_expect_eq(command_spec(types[i])->headroom, HEADROOM_ALWAYS, "%s",
			     command_spec(types[i])->name);
}

Test(headroom, the_narrower_of_fill_and_room_counts)
{
	struct headroom_gate gate = gate_new(64ull << 30);

	fill(&gate, 810, 1u << 20);
	room(&gate, 15, 0);
	expect_admits(&gate, false, false, "with little room");
	cr_expect_eq(headroom_state(&gate), HEADROOM_REPORT_STOPPED);
	room(&gate, 100, 0);
	cr_expect_eq(headroom_state(&gate), HEADROOM_PUBLISH_STOPPED);
	fill(&gate, 10, 1u << 20);
	cr_expect_eq(headroom_state(&gate), HEADROOM_OK);
}
