/* SPDX-License-Identifier: Apache-2.0
 * The ledger's bounds at their edges. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "broker/core/job/quarantine.h"
#include "protocol/limits.h"
#include "tests/unit/core_world.h"

static struct world world;

static void open_mem(void)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;

	world_open(&world, WORLD_MEM);
	config.name = (char *)(uintptr_t) "runs";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	create.config = &config;
	world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
}

static void close_world(void)
{
	world_close(&world);
}

TestSuite(job_limits, .init = open_mem, .fini = close_world, .timeout = 120);

static char *filled(size_t len)
{
	char *text = malloc(len + 1);

	cr_assert_not_null(text);
	memset(text, 'x', len);
	text[len] = 0;
	return text;
}

static struct outcome submit(const char *job, size_t payload_bytes)
{
	Sluice__JobSubmit m = SLUICE__JOB_SUBMIT__INIT;
	char *payload = filled(payload_bytes);
	struct outcome out;

	m.job = (char *)(uintptr_t)job;
	m.queue = (char *)(uintptr_t) "runs";
	m.payload = (ProtobufCBinaryData){payload_bytes, (uint8_t *)payload};
	out = world_apply(&world, COMMAND_JOB_SUBMIT, 0, &m);
	free(payload);
	return out;
}

static struct outcome report(const char *job, uint32_t attempt, const char *state,
			     const char *evidence)
{
	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;

	m.job = (char *)(uintptr_t)job;
	m.attempt = attempt;
	m.source = (char *)(uintptr_t) "test";
	m.state = (char *)(uintptr_t)state;
	m.evidence = (char *)(uintptr_t)evidence;
	return world_apply(&world, COMMAND_JOB_REPORT, 0, &m);
}

/* limit: JOB_PAYLOAD_BYTES_MAX */
Test(job_limits, payload)
{
	cr_expect_eq(submit("fits", LIMIT_JOB_PAYLOAD_BYTES_MAX).code, 0);
	cr_expect_eq(submit("not", LIMIT_JOB_PAYLOAD_BYTES_MAX + 1).code, SLUICE_E_LIMIT);
}

/* limit: EVIDENCE_BYTES_MAX */
Test(job_limits, evidence)
{
	char *fits = filled(LIMIT_EVIDENCE_BYTES_MAX),
	     *too_long = filled(LIMIT_EVIDENCE_BYTES_MAX + 1);

	submit("j", 1);
	cr_expect_eq(report("j", 1, "QUEUED", fits).code, 0);
	cr_expect_eq(report("j", 1, "ACTIVE", too_long).code, 0,
		     "the text is cut, and the state is recorded");
	cr_expect_eq(strlen(too_long), LIMIT_EVIDENCE_BYTES_MAX);
	free(fits);
	free(too_long);
}

static struct outcome lifecycle(const char *name, size_t states)
{
	Sluice__LifecycleConfig config = SLUICE__LIFECYCLE_CONFIG__INIT;
	Sluice__LifecycleCreate create = SLUICE__LIFECYCLE_CREATE__INIT;
	Sluice__LifecycleState *list = calloc(states, sizeof(*list)),
			       **pointers = calloc(states, sizeof(*pointers));
	char(*names)[24] = calloc(states, sizeof(*names)),
	*(*next)[1] = calloc(states, sizeof(*next));
	struct outcome out;

	/* A chain, the last state terminal. */
	for (size_t i = 0; i < states; i++) {
		sluice__lifecycle_state__init(&list[i]);
		snprintf(names[i], sizeof(names[i]), "S%zu", i);
		list[i].name = names[i];
		list[i].terminal = i + 1 == states;
		if (i + 1 < states) {
			next[i][0] = names[i + 1];
			list[i].next = next[i];
			list[i].n_next = 1;
		}
		pointers[i] = &list[i];
	}
	config.name = (char *)(uintptr_t)name;
	config.states = pointers;
	config.n_states = states;
	config.cancelled = config.failed = names[states - 1];
	create.config = &config;
	out = world_apply(&world, COMMAND_LIFECYCLE_CREATE, 0, &create);
	free(list);
	free(pointers);
	free(names);
	free(next);
	return out;
}

/* limit: LIFECYCLE_STATES_MAX */
Test(job_limits, lifecycle_states)
{
	struct outcome out = lifecycle("fits", LIMIT_LIFECYCLE_STATES_MAX);

	cr_expect_eq(out.code, 0, "%s", out.text);
	cr_expect_eq(lifecycle("not", LIMIT_LIFECYCLE_STATES_MAX + 1).code, SLUICE_E_LIMIT);
}

static uint64_t first_row(void)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QuarantineList list = SLUICE__QUARANTINE_LIST__INIT;
	const Sluice__Reply *reply;

	list.max = 1;
	request.op_case = SLUICE__REQUEST__OP_QUARANTINE_LIST;
	request.quarantine_list = &list;
	reply = world_query(&world, &request);
	cr_assert_eq(reply->n_quarantine, 1);
	return reply->quarantine[0]->n;
}

/* limit: QUARANTINE_ROWS_MAX */
Test(job_limits, quarantine_rows)
{
	uint64_t first;

	submit("j", 1);
	for (uint64_t i = 0; i < LIMIT_QUARANTINE_ROWS_MAX; i++)
		cr_assert_eq(report("j", 9 + (uint32_t)i, "ACTIVE", "stale").disposition,
			     SLUICE__DISPOSITION__QUARANTINED);
	cr_expect_eq(world_records(&world, STORE_QUAR), LIMIT_QUARANTINE_ROWS_MAX);
	first = first_row();
	cr_assert_eq(report("j", 9, "ACTIVE", "one more").disposition,
		     SLUICE__DISPOSITION__QUARANTINED);
	cr_expect_eq(world_records(&world, STORE_QUAR), LIMIT_QUARANTINE_ROWS_MAX,
		     "the bound holds");
	cr_expect_gt(first_row(), first, "the oldest was dropped");
}

static const Sluice__Reply *asked(Sluice__Request__OpCase op, void *message)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;

	request.op_case = op;
	request.job_list = message; /* the union's members are pointers all */
	return world_query(&world, &request);
}

static void many(unsigned count)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	char name[16];

	create.config = &config;
	config.name = name;
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "row-%04u", i);
		cr_assert_eq(submit(name, 1).code, 0);
		cr_assert_eq(report("row-0000", 9 + i, "ACTIVE", "stale").disposition,
			     SLUICE__DISPOSITION__QUARANTINED);
		cr_assert_eq(report("row-0000", 1, "", name).disposition,
			     SLUICE__DISPOSITION__APPLIED);
		world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
	}
}

/* limit: LIST_ROWS_MAX */
Test(job_limits, lists_of_the_ledger_and_of_queues)
{
	Sluice__JobList jobs = SLUICE__JOB_LIST__INIT;
	Sluice__QuarantineList rows = SLUICE__QUARANTINE_LIST__INIT;
	Sluice__QueueList queues = SLUICE__QUEUE_LIST__INIT;
	Sluice__QueuePeek peek = SLUICE__QUEUE_PEEK__INIT;
	Sluice__JobHistory history = SLUICE__JOB_HISTORY__INIT;
	const Sluice__Reply *reply;

	many((unsigned)LIMIT_LIST_ROWS_MAX + 1);
	peek.name = (char *)(uintptr_t) "runs";
	history.job = (char *)(uintptr_t) "row-0000";
	for (size_t i = 0; i < 3; i++) {
		static const uint32_t wanted[] = {LIMIT_LIST_ROWS_MAX, LIMIT_LIST_ROWS_MAX + 1,
						  UINT32_MAX};

		jobs.max = rows.max = queues.max = peek.max = wanted[i];
		reply = asked(SLUICE__REQUEST__OP_JOB_LIST, &jobs);
		cr_expect(reply->n_jobs == LIMIT_LIST_ROWS_MAX && reply->more, "%zu jobs",
			  reply->n_jobs);
		reply = asked(SLUICE__REQUEST__OP_QUARANTINE_LIST, &rows);
		cr_expect(reply->n_quarantine == LIMIT_LIST_ROWS_MAX && reply->more, "%zu rows",
			  reply->n_quarantine);
		reply = asked(SLUICE__REQUEST__OP_QUEUE_LIST, &queues);
		cr_expect(reply->n_queues == LIMIT_LIST_ROWS_MAX && reply->more, "%zu queues",
			  reply->n_queues);
		reply = asked(SLUICE__REQUEST__OP_QUEUE_PEEK, &peek);
		cr_expect(reply->n_items == LIMIT_LIST_ROWS_MAX && reply->more, "%zu items",
			  reply->n_items);
	}
	reply = asked(SLUICE__REQUEST__OP_JOB_HISTORY, &history);
	cr_expect_eq(reply->n_history, LIMIT_LIST_ROWS_MAX, "%zu events", reply->n_history);
}

static size_t announced(bool orphan)
{
	size_t count = 0;

	for (size_t i = 0; i < effects_count(world.effects); i++) {
		const struct effect *effect = effects_at(world.effects, i);

		count += effect->kind == FX_QUEUE_READY && effect->orphan == orphan;
	}
	return count;
}

/* The same of orphans, with ready jobs behind them. */
Test(job_limits, a_claim_of_large_orphans_is_cut_and_announces_the_rest)
{
	uint64_t session = world_session(&world, NULL);
	struct cmd_claim m = {.queue = world_queue_ref(&world, "runs").id, .max = 20};
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;
	char name[16];
	unsigned claimed = 0, claims = 0;

	for (int i = 0; i < 22; i++) {
		snprintf(name, sizeof(name), "big%02d", i);
		cr_assert_eq(submit(name, LIMIT_JOB_PAYLOAD_BYTES_MAX).code, 0);
	}
	while (claimed < 20)
		claimed += world_must(&world, COMMAND_CLAIM, session, &m).count;
	world_must(&world, COMMAND_SESSION_CLOSE, session, &close);
	session = world_session(&world, NULL);
	m.flags = CLAIM_ORPHANS;
	m.max = 1000;
	for (claimed = 0; claimed < 22 && claims < 22; claims++) {
		struct outcome out = world_must(&world, COMMAND_CLAIM, session, &m);

		cr_assert_gt(out.count, 0);
		claimed += out.count;
		if (claimed < 20)
			cr_expect_eq(announced(true), 1, "orphans are left after %u", claimed);
		if (claimed < 22)
			cr_expect_geq(announced(false), 1, "ready jobs are left after %u", claimed);
	}
	cr_expect_eq(claimed, 22);
	cr_expect_gt(claims, 1);
}

/* A claim of many jobs is cut where its payloads are too large for one delivery; the rest keeps its
 * place. */
Test(job_limits, a_claim_of_large_jobs_is_cut_and_announces_the_rest)
{
	uint64_t session = world_session(&world, NULL);
	struct cmd_claim m = {.queue = world_queue_ref(&world, "runs").id, .max = 1000};
	char name[16];
	unsigned claimed = 0, claims = 0;

	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "big%02d", i);
		cr_assert_eq(submit(name, LIMIT_JOB_PAYLOAD_BYTES_MAX).code, 0);
	}
	for (; claimed < 20 && claims < 20; claims++) {
		struct outcome out = world_must(&world, COMMAND_CLAIM, session, &m);
		size_t bytes = 0;

		cr_assert_gt(out.count, 0);
		claimed += out.count;
		for (size_t i = 0; i < effects_count(world.effects); i++)
			if (effects_at(world.effects, i)->kind == FX_JOBS)
				bytes += effects_at(world.effects, i)->payload.len;
		cr_expect_lt(bytes, LIMIT_FRAME_BYTES_MAX);
		if (claimed < 20)
			cr_expect_eq(world_effects(&world, FX_QUEUE_READY), 1,
				     "and announces the rest");
	}
	cr_expect_eq(claimed, 20);
	cr_expect_gt(claims, 1);
	cr_expect_eq(world_ready(&world, "runs"), 0);
}
