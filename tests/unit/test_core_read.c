/* SPDX-License-Identifier: Apache-2.0
 * Reads in turns: the cost of a turn, the cost of a whole read, and its result while others write.
 * core_world.c checks for each query of each test that turns give the same answer as one read. */
#include <criterion/criterion.h>
#include <stdio.h>

#include "broker/core/job/job.h"
#include "broker/core/queue/queue.h"
#include "protocol/limits.h"
#include "tests/unit/core_world.h"

static struct world world;

static void open_mem(void)
{
	world_open(&world, WORLD_MEM);
	world_queue(&world, "work", NULL, 0);
}

static void close_world(void)
{
	world_close(&world);
}

TestSuite(core_read, .init = open_mem, .fini = close_world);

static uint64_t queue_id(const char *name)
{
	return world_queue_ref(&world, name).id;
}

static void put(const char *queue, unsigned count)
{
	while (count > 0) {
		struct world_batch batch = {.count = 0};
		struct frame_publish publish;

		for (; count > 0 && batch.count < 500; count--)
			world_batch_add(&batch, NULL, "b", 0);
		publish = world_batch_publish(&batch, "s");
		publish.target_kind = PUBLISH_TO_QUEUE;
		publish.target = world_text(queue);
		world_must(&world, COMMAND_PUBLISH, 0, &publish);
	}
}

static struct outcome claim(uint64_t session, uint32_t max)
{
	struct cmd_claim m = {.queue = queue_id("work"), .max = max};

	return world_apply(&world, COMMAND_CLAIM, session, &m);
}

static void nack(uint64_t session, uint64_t token, uint64_t seq)
{
	uint8_t run[FRAME_RUN_BYTES];
	struct cmd_ack m = {queue_id("work"), token, ACK_NACK, 0, 1, run, world_text("")};

	put_be64(run, seq);
	put_be32(run + 8, 1);
	world_must(&world, COMMAND_ACK, session, &m);
}

/* One read in turns of that cost, which calls `between` between them. *ret_turns, *ret_cost: of the
 * whole read; *ret_most: of the most expensive turn. */
struct spent {
	uint64_t turns, cost, most;
};
static Sluice__Reply *in_turns(const Sluice__Request *request, uint64_t cost_max,
			       void (*between)(uint64_t turn), struct spent *ret)
{
	struct query_clock clock = {world.clock.mono_ms, world.clock.wall_ms};
	struct core_read *read;
	Sluice__Reply *reply;
	uint8_t *packed = NULL;
	size_t bytes = 0;
	bool done = false;

	*ret = (struct spent){0};
	cr_assert_eq(core_read_begin(world.gateway, request, &read), 0);
	while (!done) {
		struct store_txn *txn;
		uint64_t cost;

		cr_assert_eq(store_begin_read(world.store, &txn), 0);
		cr_assert_eq(core_read_turn(read, txn, clock, cost_max, &done, &packed, &bytes), 0);
		cost = store_txn_read_cost(txn);
		store_abort(txn);
		ret->turns++;
		ret->cost += cost;
		ret->most = cost > ret->most ? cost : ret->most;
		if (between != NULL && !done)
			between(ret->turns);
	}
	core_read_end(read);
	reply = sluice__reply__unpack(NULL, bytes, packed);
	cr_assert_not_null(reply);
	free(packed);
	return reply;
}

static Sluice__Reply *peek(const char *state, uint32_t max, uint64_t after, uint64_t cost_max,
			   struct spent *ret)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueuePeek m = SLUICE__QUEUE_PEEK__INIT;

	m.name = (char *)"work";
	m.state = (char *)(uintptr_t)state;
	m.max = max;
	m.after = after;
	request.op_case = SLUICE__REQUEST__OP_QUEUE_PEEK;
	request.queue_peek = &m;
	return in_turns(&request, cost_max, NULL, ret);
}

/* ---- peek ---- */

Test(core_read, a_peek_decodes_each_grant_once_for_a_window_and_not_for_each_item)
{
	enum { ITEMS = 3000 };
	uint64_t session = world_session(&world, NULL), tokens[ITEMS];
	struct spent spent;
	Sluice__Reply *reply;

	put("work", ITEMS);
	for (unsigned i = 0; i < ITEMS; i++)
		tokens[i] = claim(session, 1).index;
	/* Every second item is returned: 1,500 grants of one item, and between them 1,500 items
	 * without a grant. */
	for (unsigned i = 0; i < ITEMS; i += 2)
		nack(session, tokens[i], i + 1);
	reply = peek("", 1000, 0, 1 << 19, &spent);
	cr_expect_eq(reply->n_items, 1000);
	cr_expect(reply->more);
	for (size_t i = 0; i < reply->n_items; i++) {
		cr_assert_eq(reply->items[i]->seq, i + 1);
		cr_assert_str_eq(reply->items[i]->state, i % 2 == 0 ? "ready" : "leased");
		cr_assert_eq(reply->items[i]->token, i % 2 == 0 ? 0 : tokens[i]);
	}
	cr_expect_lt(spent.cost, 10 * ITEMS * 300, "it read %llu", (unsigned long long)spent.cost);
	cr_expect_lt(spent.most, (1 << 19) + 2000, "one turn read %llu",
		     (unsigned long long)spent.most);
	sluice__reply__free_unpacked(reply, NULL);
}

Test(core_read, a_peek_of_one_state_finds_it_after_any_number_of_others)
{
	enum { ITEMS = 12000 };
	uint64_t session = world_session(&world, NULL), token = 0, seq = 0;
	struct spent spent;
	Sluice__Reply *reply;

	put("work", ITEMS);
	for (unsigned left = ITEMS; left > 0;) {
		struct outcome out = claim(session, 1000);

		cr_assert_gt(out.count, 0u);
		left -= out.count;
		token = out.index;
	}
	nack(session, token, ITEMS - 5);
	reply = peek("ready", 10, 0, 1 << 19, &spent);
	cr_assert_eq(reply->n_items, 1);
	cr_expect_eq(reply->items[0]->seq, ITEMS - 5);
	cr_expect(!reply->more);
	cr_expect_gt(spent.turns, 1);
	sluice__reply__free_unpacked(reply, NULL);
	/* All leased ones, page by page: each once. */
	for (size_t count = 0; count < ITEMS - 1;) {
		reply = peek("leased", 777, seq, 1 << 16, &spent);
		cr_assert_gt(reply->n_items, 0u);
		for (size_t i = 0; i < reply->n_items; i++) {
			cr_assert_gt(reply->items[i]->seq, seq);
			cr_assert_neq(reply->items[i]->seq, ITEMS - 5);
			seq = reply->items[i]->seq;
		}
		count += reply->n_items;
		cr_assert(reply->more || count == ITEMS - 1);
		sluice__reply__free_unpacked(reply, NULL);
	}
	/* A read of leased items does not visit items that were never claimed. */
	put("work", ITEMS);
	reply = peek("leased", 1, ITEMS - 1, 1 << 30, &spent);
	cr_expect_eq(reply->n_items, 1);
	sluice__reply__free_unpacked(reply, NULL);
	reply = peek("leased", 1, ITEMS, 1 << 30, &spent);
	cr_expect_eq(reply->n_items, 0);
	cr_expect_lt(spent.cost, 5000, "it read %llu", (unsigned long long)spent.cost);
	sluice__reply__free_unpacked(reply, NULL);
}

/* ---- jobs, while others write ---- */

static void job_submit(const char *format, unsigned n)
{
	Sluice__JobSubmit m = SLUICE__JOB_SUBMIT__INIT;
	char job[32];

	(void)snprintf(job, sizeof(job), format, n);
	m.job = job;
	m.queue = (char *)"jobs";
	world_must(&world, COMMAND_JOB_SUBMIT, 0, &m);
}

static void jobs_queue(void)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;

	config.name = (char *)"jobs";
	config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	create.config = &config;
	world_must(&world, COMMAND_QUEUE_CREATE, 0, &create);
}

static void job_cancel(unsigned n)
{
	Sluice__JobCancel m = SLUICE__JOB_CANCEL__INIT;
	char job[32];

	(void)snprintf(job, sizeof(job), "a%u", n);
	m.job = job;
	world_must(&world, COMMAND_JOB_CANCEL, 0, &m);
}

static void others_write(uint64_t turn)
{
	job_submit("late%u", (unsigned)turn);
	job_cancel((unsigned)(turn % 300)); /* ends the job: another state, the same record */
}

Test(core_read, a_list_in_turns_has_what_was_there_all_the_time_once_and_each_turn_has_its_bound)
{
	enum { JOBS = 600 };
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobList m = SLUICE__JOB_LIST__INIT;
	static bool seen[JOBS];
	struct spent spent;
	Sluice__Reply *reply;
	uint64_t before = 0;

	jobs_queue();
	for (unsigned n = 0; n < JOBS; n++)
		job_submit("a%u", n);
	request.op_case = SLUICE__REQUEST__OP_JOB_LIST;
	request.job_list = &m;
	reply = in_turns(&request, 20000, others_write, &spent);
	cr_expect_gt(spent.turns, 5);
	cr_expect_lt(spent.most, 30000, "one turn read %llu", (unsigned long long)spent.most);
	for (size_t i = 0; i < reply->n_jobs; i++) {
		unsigned n;

		cr_assert_gt(reply->jobs[i]->number, before);
		before = reply->jobs[i]->number;
		if (sscanf(reply->jobs[i]->job, "a%u", &n) != 1)
			continue;
		cr_assert(!seen[n]);
		seen[n] = true;
	}
	for (unsigned n = 0; n < JOBS; n++)
		cr_assert(seen[n], "job a%u is not in the list", n);
	sluice__reply__free_unpacked(reply, NULL);
	/* No job matches: every job is read, and each turn is short. */
	m.state = (char *)"FAILED";
	reply = in_turns(&request, 20000, others_write, &spent);
	cr_expect_eq(reply->n_jobs, 0);
	cr_expect_gt(spent.turns, 5);
	cr_expect_lt(spent.most, 30000);
	sluice__reply__free_unpacked(reply, NULL);
}

static Sluice__Reply *audit(void (*between)(uint64_t turn), struct spent *ret)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__Audit m = SLUICE__AUDIT__INIT;

	request.op_case = SLUICE__REQUEST__OP_AUDIT;
	request.audit = &m;
	return in_turns(&request, 20000, between, ret);
}

Test(core_read, an_audit_in_turns_finds_nothing_where_others_write)
{
	struct spent spent;
	Sluice__Reply *reply;

	jobs_queue();
	for (unsigned n = 0; n < 600; n++)
		job_submit("a%u", n);
	reply = audit(others_write, &spent);
	cr_expect_gt(spent.turns, 5);
	cr_expect_geq(reply->audited->jobs, 600);
	cr_expect_eq(reply->audited->n_findings, 0, "%s",
		     reply->audited->n_findings > 0 ? reply->audited->findings[0] : "");
	sluice__reply__free_unpacked(reply, NULL);
}

/* ---- topology ---- */

Test(core_read, a_stream_is_shown_at_the_cost_of_its_own_edges)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__StreamShow m = SLUICE__STREAM_SHOW__INIT;
	Sluice__StreamCreate create = SLUICE__STREAM_CREATE__INIT;
	Sluice__StreamConfig stream_config = SLUICE__STREAM_CONFIG__INIT;
	const char *subjects[] = {"z.>", "a.>", "m.x"};
	struct spent few, many;
	Sluice__Reply *reply;

	stream_config.name = (char *)"s";
	create.config = &stream_config;
	stream_config.subjects = (char **)(uintptr_t)subjects;
	stream_config.n_subjects = 3;
	world_must(&world, COMMAND_STREAM_CREATE, 0, &create);
	m.name = (char *)"s";
	request.op_case = SLUICE__REQUEST__OP_STREAM_SHOW;
	request.stream_show = &m;
	sluice__reply__free_unpacked(in_turns(&request, UINT64_MAX, NULL, &few), NULL);
	for (unsigned n = 0; n < 500; n++) {
		char name[16], subject[16];

		(void)snprintf(name, sizeof(name), "q%u", n);
		(void)snprintf(subject, sizeof(subject), "q.%u", n);
		world_queue(&world, name, subject, 0);
	}
	reply = in_turns(&request, UINT64_MAX, NULL, &many);
	cr_expect_leq(many.cost, few.cost + 300, "with 500 edges of others: %llu instead of %llu",
		      (unsigned long long)many.cost, (unsigned long long)few.cost);
	cr_assert_eq(reply->streams[0]->n_subjects, 3);
	for (size_t i = 0; i < 3; i++)
		cr_expect_str_eq(reply->streams[0]->subjects[i], subjects[i],
				 "in the order of their binding");
	sluice__reply__free_unpacked(reply, NULL);
}

Test(core_read, a_stream_with_many_subjects_is_shown_and_listed_in_turns)
{
	enum { SUBJECTS = 400 };
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__StreamShow show = SLUICE__STREAM_SHOW__INIT;
	Sluice__StreamList list = SLUICE__STREAM_LIST__INIT;
	struct spent spent;
	Sluice__Reply *reply;
	char subject[24];

	world_stream(&world, "s", "first.>", 0, 0, 0);
	world_stream(&world, "t", "other.>", 0, 0, 0);
	for (unsigned n = 1; n < SUBJECTS; n++) {
		(void)snprintf(subject, sizeof(subject), "z%u.x", SUBJECTS - n);
		cr_assert_eq(world_bind(&world, "default", subject,
					SLUICE__TARGET_KIND__TARGET_STREAM, "s")
				     .code,
			     0);
	}
	show.name = (char *)"s";
	request.op_case = SLUICE__REQUEST__OP_STREAM_SHOW;
	request.stream_show = &show;
	for (int listed = 0; listed < 2; listed++) {
		reply = in_turns(&request, 4000, NULL, &spent);
		cr_expect_lt(spent.most, 4000 + 2000, "one turn read %llu",
			     (unsigned long long)spent.most);
		cr_expect_gt(spent.turns, 10);
		cr_assert_eq(reply->n_streams, listed ? 2 : 1);
		cr_assert_eq(reply->streams[0]->n_subjects, SUBJECTS);
		cr_expect_str_eq(reply->streams[0]->subjects[0], "first.>");
		cr_expect_str_eq(reply->streams[0]->subjects[1], "z399.x",
				 "in the order of their binding");
		cr_expect_str_eq(reply->streams[0]->subjects[SUBJECTS - 1], "z1.x");
		if (listed)
			cr_expect_str_eq(reply->streams[1]->subjects[0], "other.>");
		sluice__reply__free_unpacked(reply, NULL);
		request.op_case = SLUICE__REQUEST__OP_STREAM_LIST;
		request.stream_list = &list;
	}
}

static void say_more(const char *id, const char *evidence)
{
	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;

	m.job = (char *)(uintptr_t)id;
	m.attempt = 1;
	m.source = (char *)"test";
	m.evidence = (char *)(uintptr_t)evidence;
	world_must(&world, COMMAND_JOB_REPORT, 0, &m);
}

static void ends_between(uint64_t turn)
{
	Sluice__JobCancel m = SLUICE__JOB_CANCEL__INIT;

	if (turn != 3)
		return;
	m.job = (char *)"e0";
	world_must(&world, COMMAND_JOB_CANCEL, 0, &m);
}

Test(core_read, an_explanation_is_found_in_turns)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__JobExplain m = SLUICE__JOB_EXPLAIN__INIT;
	struct spent spent;
	Sluice__Reply *reply;
	char evidence[24];

	jobs_queue();
	job_submit("e%u", 0);
	for (unsigned n = 0; n < 400; n++) {
		(void)snprintf(evidence, sizeof(evidence), "seen %u", n);
		say_more("e0", evidence);
	}
	m.job = (char *)"e0";
	request.op_case = SLUICE__REQUEST__OP_JOB_EXPLAIN;
	request.job_explain = &m;
	reply = in_turns(&request, 4000, NULL, &spent);
	cr_expect_lt(spent.most, 4000 + 4000, "one turn read %llu", (unsigned long long)spent.most);
	cr_expect_gt(spent.turns, 10);
	cr_expect_gt(reply->explained->n_lines, 2);
	cr_expect_not_null(strstr(reply->explained->lines[1], "It is ready in queue"));
	sluice__reply__free_unpacked(reply, NULL);
	reply = in_turns(&request, 4000, ends_between, &spent);
	cr_expect_str_eq(reply->explained->job->state, "CANCELED", "as it is at the end");
	cr_expect_not_null(strstr(reply->explained->lines[1], "is a terminal state"));
	sluice__reply__free_unpacked(reply, NULL);
}
