/* SPDX-License-Identifier: Apache-2.0
 *
 * The broker's life: made, driven, crashed and booted again on the same store. A crash drops the engine as it is (LMDB: and the store, so
 * that it is opened anew); what was on its way is told to the oracle as unknown. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/plants.h"
#include "tests/sim/sim.h"

enum { ROUNDS_MAX = 20000 };

struct own {
	struct submission submission;
	struct command *command;
};

const struct target *sim_target(int producer)
{
	static const struct target targets[PRODUCERS] = {{"s", 1, 0}, {"q", 1, -1}, {"r", 1, 1}, {"q", 1, -1},
							 {"a", 1, 2}, {"", 1, 0},   {"s", 2, 3}};

	return &targets[producer];
}

static void own_free(struct submission *submission)
{
	struct own *own = (struct own *)submission;

	command_free(own->command);
	free(own);
}

void submit(struct sim *s, struct op op, uint32_t gateway, uint64_t session, const void *body)
{
	struct command c = {.type = op.type, .gateway = gateway, .session = session, .random = s->random};
	struct own *own = calloc(1, sizeof(*own));

	if (own == NULL || s->op_count >= OPS_MAX)
		must(SLUICE_E_NOMEM, "submit");
	c.body = body;
	must(command_copy(&c, &own->command), "command");
	own->submission.command = *own->command;
	own->submission.bytes = command_size(&c);
	own->submission.sink = &s->sink;
	own->submission.control = op.type != COMMAND_PUBLISH;
	own->submission.destroy = own_free;
	own->submission.tag = s->op_count;
	op.open = true;
	s->ops[s->op_count++] = op;
	must(engine_submit(s->engine, &own->submission), "submit");
}

static void on_fail(void *user, int code, const char *why)
{
	(void)code, (void)why;
	((struct sim *)user)->failed = true;
}

/* What the process's clock says. It begins anew with each boot of the machine. */
static struct batch_clock process_now(const struct sim *s)
{
	return (struct batch_clock){s->now.mono_ms + s->skew_ms, s->now.wall_ms};
}

static void store_open(struct sim *s)
{
	/* Few clean cells are kept, in some lives: they are read again. */
	struct store_options options = {.create = true,
					.map_bytes = 256u << 20,
					.cell_cache_max = s->random & 32 ? 0 : 4};

	if (s->store == NULL && s->spec.lmdb)
		must(store_open_lmdb(s->dir, &options, &s->store, NULL), "open");
	else if (s->store == NULL)
		must(store_open_mem(&options, &s->store), "open");
}

void boot(struct sim *s)
{
	struct engine_config config = {.abort_every_batch = s->random & 1,
				       .tick_work_max = s->random & 6 ? 0 : 1 + (s->random >> 3 & 3),
				       .claims_max = s->random & 0x180 ? 0 : 1 + (s->random >> 9 & 3),
				       .fail_stop = on_fail,
				       .user = s};
	struct batch_clock durable;
	struct store_txn *txn;

	store_open(s);
	s->failed = s->deaf = s->answers = false;
	s->skew_ms = roll(s, 1000000000);
	must(engine_create(&config, s->store, process_now(s), &s->engine), "engine");
	must(engine_sink_add(s->engine, &s->sink), "sink");
	plants_claims_max(config.claims_max);
	must(store_begin_read(s->store, &txn), "read");
	must(core_clock_read(txn, &durable), "clock");
	store_abort(txn);
	s->clock_ahead_ms = durable.mono_ms - s->now.mono_ms;
}

bool drive(struct sim *s)
{
	uint64_t wait = 0;

	s->quiet = false;
	for (int i = 0; i < ROUNDS_MAX && (wait == 0 || s->answers); i++) {
		s->answers = false;
		if (engine_step(s->engine, process_now(s), &wait) != 0 || s->failed)
			return false;
	}
	if (wait == 0 || s->answers)
		oracle_blame(s->oracle, "the broker does not come to rest", ROUNDS_MAX, 0);
	s->quiet = wait != 0;
	return !s->deaf;
}

void shut(struct sim *s)
{
	faults_off(s);
	engine_destroy(s->engine);
	s->engine = NULL;
	store_close(s->store);
	s->store = NULL;
}

void crash(struct sim *s)
{
	const struct client *last = &s->clients[CLIENTS - 1];

	faults_off(s);
	engine_destroy(s->engine);
	if (s->spec.lmdb) {
		store_close(s->store);
		s->store = NULL;
	}
	for (; s->op_first < s->op_count; s->op_first++) {
		if (s->ops[s->op_first].open)
			forget(s, &s->ops[s->op_first]);
	}
	for (int i = 0; i < PRODUCERS; i++)
		s->publishers[i].losses++;
	oracle_crashed(s->oracle, last->connection != 0 ? last->session : 0);
	for (int i = 0; i < CLIENTS; i++) {
		s->clients[i].connection = s->clients[i].cut = 0;
		s->clients[i].slow = s->clients[i].jobs_taken = false;
		s->clients[i].opening = s->clients[i].closing = s->clients[i].deaf = false;
	}
	boot(s);
	/* Most come back at once, some take their time. */
	for (int i = 0; i < CLIENTS; i++) {
		if (roll(s, 4) != 0)
			client_connect(s, i);
	}
}

/* ---- the world ---- */

static uint64_t make(struct sim *s, uint16_t type, uint32_t gateway, const void *body)
{
	submit(s, (struct op){.type = type, .client = -1}, gateway, 0, body);
	if (!drive(s) || s->last.code != 0)
		must(SLUICE_E_INTERNAL, s->last.text);
	return s->last.id;
}

static void make_stream(struct sim *s, uint32_t gateway, const char *name, uint64_t max_events,
			uint64_t max_age_ms, const char *subject)
{
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT;
	Sluice__StreamCreate create = SLUICE__STREAM_CREATE__INIT;

	config.name = (char *)name;
	config.max_events = max_events;
	config.max_age_ms = max_age_ms;
	config.subjects = (char **)&subject;
	config.n_subjects = subject != NULL;
	create.config = &config;
	make(s, COMMAND_STREAM_CREATE, gateway, &create);
}

static uint64_t make_queue(struct sim *s, const char *name, bool jobs, const char *dead_letter)
{
	Sluice__QueueConfig config = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate create = SLUICE__QUEUE_CREATE__INIT;
	struct store_txn *txn;
	struct queue_ref ref;

	config.name = (char *)name;
	config.dead_letter = (char *)dead_letter;
	if (jobs)
		config.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS;
	else
		config.lease_ms = LEASE_MS, config.max_attempts = ATTEMPTS, config.priority = s->priority;
	create.config = &config;
	make(s, COMMAND_QUEUE_CREATE, 1, &create);
	must(store_begin_read(s->store, &txn), "read");
	must(core_queue_find(txn, 1, text(name), &ref), "queue");
	store_abort(txn);
	return ref.id;
}

void world_make(struct sim *s)
{
	Sluice__GatewayCreate gateway = SLUICE__GATEWAY_CREATE__INIT;
	Sluice__JobRetention retention = SLUICE__JOB_RETENTION__INIT;

	for (; s->jobs_end < JOBS; s->jobs_end++)
		s->slots[s->jobs_end] = s->jobs_end;
	retention.keep_ms = JOB_KEEP_MS;
	make(s, COMMAND_JOB_RETENTION, 1, &retention);
	gateway.name = (char *)"second";
	make(s, COMMAND_GATEWAY_CREATE, 1, &gateway);
	make_stream(s, 1, "s", 0, 0, NULL);
	make_stream(s, 1, "r", BOUNDED_EVENTS, 0, NULL);
	make_stream(s, 1, "a", 0, BOUNDED_MS, NULL);
	make_stream(s, 1, "e", 0, 0, "job.>");
	make_stream(s, 2, "s", 0, 0, NULL);
	s->queue = make_queue(s, "q", false, "");
	s->jobs = make_queue(s, "j", true, "");
	(void)make_queue(s, "wild-dead", false, "");
	s->wild = make_queue(s, "w", false, "wild-dead");
	s->wild_job_queue = make_queue(s, "x", true, "");
	for (int i = 0; i < PRODUCERS; i++) {
		s->publishers[i].next = 1;
		reopen(s, i);
	}
	if (!drive(s))
		must(SLUICE_E_INTERNAL, "producers");
	/* Two machines, one of them with a second scheduler; and somebody who can judge nothing. */
	for (int i = 0; i < CLIENTS - 1 && s->sourced; i++)
		s->clients[i].source = 1 + i % SOURCES;
	for (int i = 0; i < CLIENTS; i++)
		client_connect(s, i);
}
