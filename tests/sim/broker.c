/* SPDX-License-Identifier: Apache-2.0
 * The broker's life: created on the store, given commands, driven until it is idle, shut down.
 * world.c covers events that affect clients too. */
#include <stdlib.h>

#include "protocol/limits.h"
#include "tests/sim/plants.h"
#include "tests/sim/sim.h"
#include "tests/sim/thread.h"

enum { ROUNDS_MAX = 20000 };

struct own {
	struct submission submission;
	struct command *command;
};

static void own_free(struct submission *submission)
{
	struct own *own = (struct own *)submission;

	command_free(own->command);
	free(own);
}

void submit(struct sim *s, struct op op, uint32_t gateway, uint64_t session, const void *body)
{
	struct command c = {.type = op.type,
			    .gateway = gateway,
			    .session = session,
			    .random = s->random};
	struct own *own = calloc(1, sizeof(*own));
	bool control;

	if (own == NULL || s->op_count >= OPS_MAX)
		must(SLUICE_E_NOMEM, "submit");
	c.body = body;
	control = op.type != COMMAND_PUBLISH && !op.behind;
	must(command_copy(&c, &own->command), "command");
	own->submission.command = *own->command;
	own->submission.bytes = op.bytes != 0 ? op.bytes : command_size(&c);
	own->submission.sink = &s->sink;
	own->submission.control = control;
	own->submission.destroy = own_free;
	own->submission.tag = s->op_count;
	if (op.client >= 0 && op.connection == 0)
		op.connection = s->clients[op.client].connection;
	own->submission.conn = op.connection;
	own->submission.by_sink = op.type == COMMAND_SESSION_CLOSE && op.number < 0;
	op.open = true;
	op.session = session;
	op.control = control;
	oracle_command_sent(s->oracle, (uint32_t)s->op_count, session << 2 | gateway, control,
			    own->submission.bytes);
	s->ops[s->op_count++] = op;
	must(engine_submit(s->engine, &own->submission), "submit");
}

static void on_fail(void *user, int code, const char *why)
{
	(void)code, (void)why;
	((struct sim *)user)->failed = true;
}

/* The clocks of the process. They start again with each boot of the machine. */
static struct batch_clock process_now(const struct sim *s)
{
	return (struct batch_clock){s->now.mono_ms + s->skew_ms, s->now.wall_ms};
}

void report_running(struct sim *s)
{
	if (s->engine != NULL)
		engine_report_running(s->engine, process_now(s).mono_ms);
}

void touch(struct sim *s, uint64_t session)
{
	const struct session_number number = {1, session};

	must(engine_session_touch(s->engine, &number, 1, process_now(s).mono_ms), "touch");
}

static void store_open(struct sim *s)
{
	/* In some lives of the broker the cache of clean cells is small, so that cells are read
	 * again. */
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
	struct engine_config config =
		{.abort_every_batch = s->random & 1,
		 .tick_work_max = s->random & 6 ? 0 : 1 + (s->random >> 3 & 3),
		 .claims_max = s->random & 0x180 ? 0 : 1 + (s->random >> 9 & 3),
		 .batch_bytes_max = s->random & 0x1000 ? 0 : 1024 << (s->random >> 13 & 7),
		 .fail_stop = on_fail,
		 .user = s};
	struct batch_clock durable;
	struct store_txn *txn;

	store_open(s);
	s->batch_bytes =
		config.batch_bytes_max != 0 ? config.batch_bytes_max : LIMIT_ENGINE_BATCH_BYTES_MAX;
	oracle_commits_begin(s->oracle, s->batch_bytes);
	s->failed = s->answers_lost = s->answers = false;
	s->skew_ms = roll(s, 1000000000);
	must(engine_create(&config, s->store, process_now(s), &s->engine), "engine");
	must(engine_end_ephemeral(s->engine, process_now(s)), "ephemeral sessions");
	must(engine_sink_add(s->engine, &s->sink), "sink");
	thread_begin(s);
	report_running(s);
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
		oracle_blame(s->oracle, "the broker does not become idle", ROUNDS_MAX, 0);
	s->quiet = wait != 0;
	if (s->quiet && !s->answers_lost)
		thread_rest(s);
	return !s->answers_lost;
}

void shut(struct sim *s)
{
	faults_off(s);
	thread_end(s);
	engine_destroy(s->engine);
	s->engine = NULL;
	store_close(s->store);
	s->store = NULL;
}
