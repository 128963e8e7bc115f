/* SPDX-License-Identifier: Apache-2.0
 *
 * Events that affect the broker and its clients together: the world's beginning, and a crash. A
 * crash drops the engine without a shutdown (with LMDB also the store, which is opened again);
 * operations without an answer are unknown to the oracle from then on.
 */
#include "tests/sim/sim.h"
#include "tests/sim/thread.h"

void crash(struct sim *s)
{
	const struct client *last = &s->clients[CLIENTS - 1];
	struct store_txn *txn;

	faults_off(s);
	thread_end(s);
	engine_destroy(s->engine);
	if (s->spec.lmdb) {
		store_close(s->store);
		s->store = NULL;
	}
	/* Control may have been executed before data that was sent earlier. */
	for (int behind = 0; behind < 2; behind++) {
		for (size_t i = s->op_first; i < s->op_count; i++) {
			if (s->ops[i].open && s->ops[i].behind == behind)
				forget(s, &s->ops[i]);
		}
	}
	s->op_first = s->op_count;
	for (int i = 0; i < PRODUCERS; i++)
		s->publishers[i].losses++;
	oracle_crashed(s->oracle, last->connection != 0 ? last->session : 0);
	for (int i = 0; i < CLIENTS; i++) {
		s->clients[i].connection = s->clients[i].cut = 0;
		s->clients[i].slow = s->clients[i].jobs_taken = false;
		s->clients[i].opening = s->clients[i].closing = s->clients[i].cut_off = false;
		s->clients[i].stale = 0;
	}
	boot(s);
	/* Nobody was served yet, and the ephemeral sessions are gone. */
	must(store_begin_read(s->store, &txn), "read");
	inspect_sessions(s, txn);
	store_abort(txn);
	/* Most clients reconnect at once, some later. */
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
		config.lease_ms = LEASE_MS, config.max_attempts = ATTEMPTS,
		config.priority = s->priority;
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
	make_stream(s, 1, "t", 0, 0, NULL);
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
	/* Two clients of one source, one of another, and a client without a source. */
	for (int i = 0; i < CLIENTS - 1 && s->sourced; i++)
		s->clients[i].source = 1 + i % SOURCES;
	for (int i = 0; i < CLIENTS; i++)
		client_connect(s, i);
}
