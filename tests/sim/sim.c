/* SPDX-License-Identifier: Apache-2.0
 *
 * The seeded simulator: one engine without its thread, simulated clients, a clock that it moves, faults of clients and of the store.
 * All that is decided comes from the seed. What clients see goes to the oracle; see README.md. */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "broker/engine/engine.h"
#include "protocol/envelope.h"
#include "tests/sim/oracle.h"

enum {
	PRODUCERS = 4,
	CONSUMERS = 2,
	JOBS = 12,
	OPS_MAX = 65536,
	HELD_MAX = 256,
	LEASE_MS = 5000,
	ATTEMPTS = 5
};
enum plant {
	PLANT_NONE,
	DUP_GRANT,
	EARLY_REPLY,
	NEW_SEQUENCE,
	NO_EXPIRY,
	LOST_NACK,
	LOST_ACK,
	REOPEN_JOB,
	TORN_STREAM
};
static const char *const plants[] = {"none",	  "dup-grant", "early-reply", "new-sequence", "no-expiry",
				     "lost-nack", "lost-ack",  "reopen-job",  "torn-stream"};
enum { PLANT_COUNT = sizeof(plants) / sizeof(plants[0]) };

struct op {
	bool open;
	uint16_t type;
	int who; /* producer or job */
	uint64_t seq, item, token;
	uint32_t count, attempt, value_ms;
	enum oracle_settle how;
	const char *state;
};
struct held {
	uint64_t item, token, session;
};
struct publisher {
	uint64_t id, settled, next, sent;
	uint32_t epoch, pending;
	uint32_t crashes; /* since what is pending was first sent */
	bool in_flight, shifted;
};
struct sim {
	struct engine_sink sink; /* first */
	struct oracle *oracle;
	struct store *store;
	struct engine *engine;
	struct batch_clock now, told;
	enum plant plant;
	bool lmdb, deaf, failed;
	char dir[64];
	uint64_t random, step, queue, jobs, log, last_id;
	struct publisher publishers[PRODUCERS]; /* even: stream, odd: queue */
	uint64_t sessions[CONSUMERS];
	struct held held[HELD_MAX];
	size_t held_count, op_count;
	uint64_t job_token[JOBS];
	uint32_t job_attempt[JOBS];
	long fault_in;
	int fault_code, last_code;
	struct outcome last;
	struct op ops[OPS_MAX];
};
struct own {
	struct submission submission;
	struct command *command;
};

static void must(int rc, const char *what)
{
	if (rc == 0)
		return;
	fprintf(stderr, "sluice-sim: %s: %s: %s\n", what, sluice_error_name(rc), store_last_error());
	exit(2);
}
static uint64_t roll(struct sim *s, uint64_t n)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (s->random >> 11) % n;
}
static int fault(void *user, const char *operation)
{
	struct sim *s = user;

	(void)operation;
	return s->fault_in > 0 && --s->fault_in == 0 ? s->fault_code : 0;
}
static void on_fail(void *user, int code, const char *text)
{
	(void)code, (void)text;
	((struct sim *)user)->failed = true;
}
static void own_free(struct submission *submission)
{
	struct own *own = (struct own *)submission;

	command_free(own->command);
	free(own);
}
static struct sluice_slice text(const char *t)
{
	return (struct sluice_slice){t, strlen(t)};
}
static void submit(struct sim *s, struct op op, uint64_t session, const void *body)
{
	struct command c = {.type = op.type, .gateway = 1, .session = session, .random = s->random};
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

/* ---- what clients hear ---- */
static void reply(struct sim *s, struct op *op, const struct outcome *out)
{
	struct publisher *p = &s->publishers[op->who % PRODUCERS];

	op->open = false;
	s->last = *out;
	if (op->type == COMMAND_PUBLISH) {
		p->in_flight = false;
		if (out->code != 0)
			return;
		if (op->who % 2 == 0)
			oracle_published(s->oracle, op->who, op->seq, op->count, out->offset);
		else
			for (uint32_t i = 0; i < op->count; i++)
				oracle_put(s->oracle, out->offset + i,
					   (uint64_t)op->who * 1000000 + op->seq + i, p->crashes);
		p->next = op->seq + op->count;
		p->pending = 0;
	} else if (op->type == COMMAND_ACK) {
		oracle_settled(s->oracle, op->item, op->token, op->how, op->value_ms,
			       out->code == 0 && out->count > 0);
	} else if (op->type == COMMAND_JOB_SUBMIT && out->code == 0) {
		oracle_job_submitted(s->oracle, op->who);
	} else if (op->type == COMMAND_JOB_REPORT) {
		oracle_job_reported(s->oracle, op->who, op->token, op->attempt, op->state,
				    out->code == 0 && out->disposition == SLUICE__DISPOSITION__APPLIED);
	} else if (op->type == COMMAND_JOB_CANCEL && out->code == 0) {
		oracle_job_cancelled(s->oracle, op->who, out->terminal);
	} else if (op->type == COMMAND_JOB_RESET && out->code == 0) {
		if (op->state == NULL)
			oracle_job_reset(s->oracle, op->who, out->attempt);
	}
}
static void granted(struct sim *s, const struct effect *e, uint64_t session)
{
	struct sluice_slice rest = e->payload;

	for (size_t r = 0; r < e->run_count; r++) {
		for (uint32_t i = 0; i < e->runs[r].count; i++) {
			struct envelope envelope;
			const char *why = "";
			char number[32];
			uint64_t item = e->runs[r].first + i;

			rest.data = (const uint8_t *)rest.data + 10, rest.len -= 10; /* attempts, put time */
			must(envelope_next(&rest, &envelope, &why), "item");
			snprintf(number, sizeof(number), "%.*s", (int)envelope.body.len,
				 (const char *)envelope.body.data);
			oracle_granted(s->oracle, item, strtoull(number, NULL, 10), e->token);
			if (s->plant == DUP_GRANT && roll(s, 8) == 0)
				oracle_granted(s->oracle, item, strtoull(number, NULL, 10), e->token + 1);
			s->held[s->held_count++ % HELD_MAX] = (struct held){item, e->token, session};
		}
	}
}
static void job_granted(struct sim *s, const struct effect *e)
{
	Sluice__JobDeliveries *d = sluice__job_deliveries__unpack(NULL, e->payload.len, e->payload.data);

	for (size_t i = 0; d != NULL && i < d->n_jobs; i++) {
		int job = atoi(d->jobs[i]->job + 1);

		s->job_token[job] = d->jobs[i]->token;
		s->job_attempt[job] = d->jobs[i]->attempt;
		oracle_job_claimed(s->oracle, job, d->jobs[i]->token, d->jobs[i]->attempt,
				   d->jobs[i]->orphan);
	}
	sluice__job_deliveries__free_unpacked(d, NULL);
}
static void on_post(struct engine_sink *sink, struct engine_release *release)
{
	struct sim *s = (struct sim *)sink;

	for (size_t i = 0; !s->deaf && i < effects_count(release->effects); i++) {
		const struct effect *e = effects_at(release->effects, i);
		bool ours = e->kind == FX_REPLY || e->kind == FX_GRANT || e->kind == FX_JOBS;
		const struct origin *origin = ours ? &release->origins[e->command] : NULL;

		if (origin == NULL || origin->sink != sink)
			continue;
		if (e->kind == FX_REPLY && origin->kind == ORIGIN_REQUEST)
			reply(s, &s->ops[origin->tag], e->outcome);
		else if (e->kind == FX_GRANT)
			granted(s, e, s->sessions[(origin->tag - OPS_MAX) % CONSUMERS]);
		else if (e->kind == FX_JOBS)
			job_granted(s, e);
	}
	engine_release_unref(release);
}
static void on_kick(struct engine_sink *sink, uint64_t tag)
{
	(void)sink, (void)tag;
}

/* ---- the broker's life ---- */
static void consumers_open(struct sim *s)
{
	for (uint64_t i = 0; i < 2 * CONSUMERS; i++) {
		struct consumer_spec spec = {.gateway = 1,
					     .queue = i < CONSUMERS ? s->queue : s->jobs,
					     .session = s->sessions[i % CONSUMERS],
					     .credit = 2,
					     .claim_flags =
						     i < CONSUMERS ? 0 : CLAIM_ORPHANS | CLAIM_SESSION_LEASE,
					     .sink = &s->sink,
					     .tag = OPS_MAX + i};

		if (i < CONSUMERS)
			must(engine_session_attach(s->engine, 1, spec.session, &s->sink, OPS_MAX + i),
			     "attach");
		must(engine_consumer_open(s->engine, &spec), "consume");
	}
}
static void boot(struct sim *s)
{
	struct engine_config config = {.abort_every_batch = s->random & 1, .fail_stop = on_fail, .user = s};
	struct store_options options = {.create = true, .map_bytes = 256u << 20};

	if (s->store == NULL && s->lmdb)
		must(store_open_lmdb(s->dir, &options, &s->store, NULL), "open");
	else if (s->store == NULL)
		must(store_open_mem(&options, &s->store), "open");
	s->failed = s->deaf = false;
	must(engine_create(&config, s->store, s->told, &s->engine), "engine");
	must(engine_sink_add(s->engine, &s->sink), "sink");
}
static bool drive(struct sim *s)
{
	uint64_t wait = 0;

	for (int i = 0; i < 1000 && wait == 0; i++) {
		if (engine_step(s->engine, s->told, &wait) != 0 || s->failed)
			return false;
	}
	return !s->deaf;
}
static void crash(struct sim *s)
{
	store_fault_set(s->store, NULL, NULL);
	s->fault_in = 0;
	engine_destroy(s->engine);
	if (s->lmdb) {
		store_close(s->store);
		s->store = NULL;
	}
	for (size_t i = 0; i < s->op_count; i++) {
		struct op *op = &s->ops[i];

		if (!op->open)
			continue;
		op->open = false;
		if (op->type == COMMAND_PUBLISH)
			s->publishers[op->who].in_flight = false;
		else if (op->type == COMMAND_ACK)
			oracle_settle_unknown(s->oracle, op->item, op->token, op->how, op->value_ms);
		else if (op->type >= COMMAND_JOB_SUBMIT)
			oracle_job_unknown(s->oracle, op->who);
	}
	for (int i = 0; i < JOBS; i++)
		oracle_job_unknown(s->oracle, i);
	for (int i = 0; i < PRODUCERS; i++)
		s->publishers[i].crashes++;
	oracle_crashed(s->oracle);
	boot(s);
	consumers_open(s);
}
static uint64_t make(struct sim *s, uint16_t type, const void *body)
{
	submit(s, (struct op){.type = type}, 0, body);
	if (!drive(s) || s->last.code != 0)
		must(SLUICE_E_INTERNAL, s->last.text);
	return s->last.id;
}
static void world(struct sim *s)
{
	Sluice__StreamConfig stream = SLUICE__STREAM_CONFIG__INIT;
	Sluice__StreamCreate stream_create = SLUICE__STREAM_CREATE__INIT;
	Sluice__QueueConfig queue = SLUICE__QUEUE_CONFIG__INIT;
	Sluice__QueueCreate queue_create = SLUICE__QUEUE_CREATE__INIT;
	struct stream_ref stream_ref;
	struct queue_ref ref;
	struct store_txn *txn;

	stream.name = (char *)"s", stream_create.config = &stream;
	make(s, COMMAND_STREAM_CREATE, &stream_create);
	queue.name = (char *)"q", queue.lease_ms = LEASE_MS, queue.max_attempts = ATTEMPTS;
	queue_create.config = &queue;
	make(s, COMMAND_QUEUE_CREATE, &queue_create);
	queue.name = (char *)"j", queue.kind = SLUICE__QUEUE_KIND__QUEUE_JOBS, queue.max_attempts = 0;
	make(s, COMMAND_QUEUE_CREATE, &queue_create);
	for (int i = 0; i < CONSUMERS; i++) {
		struct cmd_session_open open = {.client = text("sim"), .timeout_ms = 30000};

		s->sessions[i] = make(s, COMMAND_SESSION_OPEN, &open);
	}
	for (int i = 0; i < PRODUCERS; i++) {
		Sluice__ProducerOpen open = SLUICE__PRODUCER_OPEN__INIT;
		char name[8];

		snprintf(name, sizeof(name), "p%d", i);
		open.name = name;
		s->publishers[i].id = make(s, COMMAND_PRODUCER_OPEN, &open);
		s->publishers[i].epoch = s->last.epoch;
		s->publishers[i].next = 1;
	}
	must(store_begin_read(s->store, &txn), "read");
	must(core_stream_find(txn, 1, text("s"), &stream_ref), "stream");
	must(core_queue_find(txn, 1, text("q"), &ref), "queue");
	s->log = stream_ref.log, s->queue = ref.id;
	must(core_queue_find(txn, 1, text("j"), &ref), "queue");
	s->jobs = ref.id;
	store_abort(txn);
	consumers_open(s);
}

/* ---- what clients do ---- */
static void publish(struct sim *s, int who)
{
	struct publisher *p = &s->publishers[who];
	bool retry = p->pending > 0;
	uint8_t bytes[1024];
	size_t used = 0;
	struct frame_publish f = {.target_kind = who % 2 == 0 ? PUBLISH_TO_STREAM : PUBLISH_TO_QUEUE};

	if (p->in_flight)
		return;
	if (!retry)
		p->pending = 1 + (uint32_t)roll(s, 4), p->crashes = 0;
	for (uint32_t i = 0; i < p->pending; i++) {
		char number[32];
		struct envelope e = {.subject = text("sim")};

		snprintf(number, sizeof(number), "%" PRIu64, (uint64_t)who * 1000000 + p->next + i);
		e.body = text(number);
		e.subject.len = 0;
		used += envelope_encode(bytes + used, &e);
	}
	if (retry && s->plant == NEW_SEQUENCE)
		p->id = 0;
	f.producer = p->id, f.epoch = p->id != 0 ? p->epoch : 0, f.first_seq = p->id != 0 ? p->next : 0;
	f.count = p->pending, f.raw_bytes = (uint32_t)used;
	f.subject = text("sim"), f.target = text(who % 2 == 0 ? "s" : "q");
	f.payload = (struct sluice_slice){bytes, used};
	p->sent = p->next + p->pending - 1;
	p->in_flight = true;
	submit(s, (struct op){.type = COMMAND_PUBLISH, .who = who, .seq = p->next, .count = p->pending}, 0,
	       &f);
}
static void settle(struct sim *s)
{
	size_t n = s->held_count < HELD_MAX ? s->held_count : HELD_MAX;
	struct held h;
	uint8_t run[12] = {0};
	struct cmd_ack ack = {.queue = s->queue, .run_count = 1, .runs = run};
	struct op op = {.type = COMMAND_ACK};

	if (n == 0)
		return;
	h = s->held[roll(s, n)];
	for (int i = 0; i < 8; i++)
		run[i] = (uint8_t)(h.item >> (56 - 8 * i));
	run[11] = 1;
	op.how = roll(s, 4) == 0 ? ORACLE_NACK : roll(s, 6) == 0 ? ORACLE_EXTEND : ORACLE_ACK;
	op.value_ms = op.how == ORACLE_NACK	? (uint32_t)roll(s, 3) * 1000
		      : op.how == ORACLE_EXTEND ? LEASE_MS
						: 0;
	ack.token = op.token = h.token, op.item = h.item, ack.value_ms = op.value_ms;
	ack.op = op.how == ORACLE_NACK ? ACK_NACK : op.how == ORACLE_EXTEND ? ACK_EXTEND : ACK_DONE;
	if (s->plant == LOST_NACK && ack.op == ACK_NACK)
		ack.op = ACK_DONE, ack.value_ms = 0;
	if (s->plant == LOST_ACK && ack.op == ACK_DONE)
		ack.op = ACK_NACK;
	submit(s, op, h.session, &ack);
}
static void job_do(struct sim *s)
{
	static const char *const states[] = {"QUEUED", "ACTIVE",    "COMPLETE",
					     "FAILED", "SUSPENDED", "SUBMITTED"};
	int job = (int)roll(s, JOBS);
	struct op op = {.who = job, .token = s->job_token[job], .attempt = s->job_attempt[job]};
	char id[8];
	uint64_t what = roll(s, 12);
	Sluice__JobSubmit sub = SLUICE__JOB_SUBMIT__INIT;
	Sluice__JobReport report = SLUICE__JOB_REPORT__INIT;
	Sluice__JobCancel cancel = SLUICE__JOB_CANCEL__INIT;
	Sluice__JobReset reset = SLUICE__JOB_RESET__INIT;

	snprintf(id, sizeof(id), "j%d", job);
	sub.job = report.job = cancel.job = reset.job = id;
	if (what < 4) {
		sub.queue = (char *)"j", sub.owner = (char *)"ada", op.type = COMMAND_JOB_SUBMIT;
		submit(s, op, s->sessions[0], &sub);
	} else if (what < 9 && op.token != 0) {
		op.state = states[roll(s, 6)], op.type = COMMAND_JOB_REPORT;
		report.token = op.token, report.attempt = op.attempt;
		report.state = (char *)op.state, report.source = (char *)"sim";
		submit(s, op, s->sessions[0], &report);
	} else if (what == 9) {
		op.type = COMMAND_JOB_CANCEL;
		submit(s, op, s->sessions[0], &cancel);
	} else if (what >= 10) {
		op.type = COMMAND_JOB_RESET;
		reset.force = roll(s, 2);
		op.state = s->plant == REOPEN_JOB ? "hidden" : NULL;
		submit(s, op, s->sessions[0], &reset);
	}
}

/* ---- reads ---- */
static void read_stream(struct sim *s, struct store_txn *txn)
{
	struct segment g;
	uint64_t offset = 0, sent[ORACLE_PRODUCERS_MAX] = {0};

	oracle_read_begin(s->oracle);
	while (core_segment_read(txn, 1, s->log, offset, &g) == 0) {
		struct sluice_slice rest = g.payload;

		for (offset = g.base; rest.len > 0; offset++) {
			struct envelope e;
			const char *why = "";
			char number[32];
			uint64_t body;

			must(envelope_next(&rest, &e, &why), "event");
			snprintf(number, sizeof(number), "%.*s", (int)e.body.len, (const char *)e.body.data);
			body = strtoull(number, NULL, 10);
			if (s->plant != TORN_STREAM || offset % 50 != 49)
				oracle_read(s->oracle, offset, (int)(body / 1000000), body % 1000000);
		}
		offset = g.last + 1;
	}
	for (int i = 0; i < PRODUCERS; i += 2)
		sent[i] = s->publishers[i].sent;
	oracle_read_end(s->oracle, sent);
}
static Sluice__Reply *query(struct sim *s, struct store_txn *txn, const Sluice__Request *request)
{
	struct query_clock clock = {engine_clock(s->engine).mono_ms, s->now.wall_ms};
	uint8_t *packed = NULL;
	size_t bytes = 0;
	Sluice__Reply *r;

	must(core_query(txn, 1, clock, request, &packed, &bytes), "query");
	r = sluice__reply__unpack(NULL, bytes, packed);
	free(packed);
	return r;
}
static struct oracle_counts check(struct sim *s)
{
	Sluice__Request request = SLUICE__REQUEST__INIT;
	Sluice__QueueShow show = SLUICE__QUEUE_SHOW__INIT;
	Sluice__JobShow job_show = SLUICE__JOB_SHOW__INIT;
	struct oracle_counts c = {0};
	struct store_txn *txn;
	Sluice__Reply *r;
	uint64_t unknown = 0;

	must(store_begin_read(s->store, &txn), "read");
	read_stream(s, txn);
	show.name = (char *)"q", request.op_case = SLUICE__REQUEST__OP_QUEUE_SHOW, request.queue_show = &show;
	r = query(s, txn, &request);
	if (r != NULL && r->n_queues == 1) {
		const Sluice__QueueInfo *q = r->queues[0];

		c = (struct oracle_counts){q->put,     q->ready, q->leased,
					   q->delayed, q->acked, q->dead_lettered};
	}
	sluice__reply__free_unpacked(r, NULL);
	for (int i = 1; i < PRODUCERS; i += 2)
		unknown += s->publishers[i].pending;
	oracle_counts(s->oracle, &c, unknown);
	request.op_case = SLUICE__REQUEST__OP_JOB_SHOW, request.job_show = &job_show;
	for (int i = 0; i < JOBS; i++) {
		char id[8];
		const Sluice__JobInfo *j;

		snprintf(id, sizeof(id), "j%d", i);
		job_show.job = id;
		r = query(s, txn, &request);
		j = r != NULL && r->n_jobs == 1 ? r->jobs[0] : NULL;
		oracle_job_shown(s->oracle, i, j != NULL, j ? j->state : "", j && j->terminal,
				 j ? j->attempt : 0, j ? j->token : 0, j ? j->claim : "");
		sluice__reply__free_unpacked(r, NULL);
	}
	store_abort(txn);
	return c;
}

/* ---- a run ---- */
static void pass(struct sim *s, uint64_t ms)
{
	s->now.mono_ms += ms, s->now.wall_ms += ms;
	if (s->plant != NO_EXPIRY)
		s->told = s->now;
	oracle_time(s->oracle, s->now.mono_ms);
}
static void one_step(struct sim *s)
{
	uint64_t actions = 1 + roll(s, 6);

	pass(s, roll(s, 40) == 0 ? LEASE_MS + roll(s, LEASE_MS) : roll(s, 200));
	for (uint64_t i = 0; i < actions; i++) {
		uint64_t what = roll(s, 10);

		if (what < 4)
			publish(s, (int)roll(s, PRODUCERS));
		else if (what < 7)
			settle(s);
		else if (what < 9)
			job_do(s);
		else
			must(engine_consumer_credit(s->engine, &s->sink, OPS_MAX + roll(s, 2 * CONSUMERS), 2),
			     "credit");
	}
	s->deaf = roll(s, 30) == 0; /* committed, and the answers are lost in the crash */
	if (!s->deaf && roll(s, 15) == 0) {
		s->fault_in = 1 + (long)roll(s, 200);
		s->fault_code = roll(s, 3) == 0 ? SLUICE_E_NO_SPACE : SLUICE_E_IO;
		store_fault_set(s->store, fault, s);
	}
	if (s->plant == EARLY_REPLY && s->fault_in > 0) {
		struct publisher *p = &s->publishers[0];

		if (p->in_flight) /* says what the commit has not said yet */
			oracle_published(s->oracle, 0, p->next, p->pending, 16000);
	}
	if (!drive(s))
		crash(s);
	store_fault_set(s->store, NULL, NULL);
	s->fault_in = 0;
	if (!drive(s))
		crash(s);
	(void)check(s);
}
/* No more faults: all comes due, is given out and let expire until it is a dead letter, or acked. */
static void drain(struct sim *s)
{
	struct oracle_counts shown = {.ready = 1};

	for (int i = 0;
	     i < 3000 && oracle_why(s->oracle) == NULL && shown.ready + shown.leased + shown.delayed > 0;
	     i++) {
		pass(s, 2 * LEASE_MS);
		for (uint64_t c = 0; c < CONSUMERS; c++)
			must(engine_consumer_credit(s->engine, &s->sink, OPS_MAX + c, 8), "credit");
		if (!drive(s))
			must(SLUICE_E_INTERNAL, "drain");
		shown = check(s);
	}
	oracle_drained(s->oracle, &shown);
}
static bool run(uint64_t seed, uint64_t steps, bool lmdb, enum plant plant)
{
	struct sim *s = calloc(1, sizeof(*s));
	char command[96];
	bool good;

	if (s == NULL)
		must(SLUICE_E_NOMEM, "run");
	s->sink.post = on_post, s->sink.kick = on_kick;
	s->random = seed * 0x9e3779b97f4a7c15u ^ 0x2545f4914f6cdd1du;
	s->lmdb = lmdb, s->plant = plant;
	s->now = s->told = (struct batch_clock){1000, 1700000000000};
	s->oracle = oracle_create(LEASE_MS, ATTEMPTS);
	snprintf(s->dir, sizeof(s->dir), "/tmp/sluice-sim.XXXXXX");
	if (s->oracle == NULL || (lmdb && mkdtemp(s->dir) == NULL))
		must(SLUICE_E_IO, "run");
	pass(s, 0);
	boot(s);
	world(s);
	for (s->step = 0; s->step < steps && oracle_why(s->oracle) == NULL; s->step++)
		one_step(s);
	if (oracle_why(s->oracle) == NULL)
		drain(s);
	good = oracle_why(s->oracle) == NULL;
	printf("# seed %" PRIu64 " store %s plant %s: %s at step %" PRIu64 " hash %016" PRIx64 "\n", seed,
	       lmdb ? "lmdb" : "mem", plants[plant], good ? "kept" : oracle_why(s->oracle), s->step,
	       oracle_hash(s->oracle));
	engine_destroy(s->engine);
	store_close(s->store);
	if (lmdb) {
		snprintf(command, sizeof(command), "rm -r %s", s->dir);
		if (system(command) != 0)
			good = false;
	}
	oracle_destroy(s->oracle);
	free(s);
	return good;
}
static int tap(void)
{
	int n = 0, failed = 0;

	for (int lmdb = 0; lmdb < 2; lmdb++) {
		for (int p = 0; p < PLANT_COUNT; p++) {
			bool want = p == PLANT_NONE, ok = true;

			for (uint64_t seed = 1; seed <= (want ? 5 : 1); seed++)
				ok &= run(seed, lmdb && want ? 100 : 400, lmdb, (enum plant)p) == want;
			failed += !ok;
			printf("%s %d - %s: %s\n", ok ? "ok" : "not ok", ++n, lmdb ? "lmdb" : "mem",
			       plants[p]);
		}
	}
	printf("1..%d\n", n);
	return failed != 0;
}
int main(int argc, char **argv)
{
	static const struct option options[] = {{"seed", 1, NULL, 's'},	 {"steps", 1, NULL, 'n'},
						{"store", 1, NULL, 'd'}, {"seeds", 1, NULL, 'm'},
						{"plant", 1, NULL, 'p'}, {"list-plants", 0, NULL, 'l'},
						{"tap", 0, NULL, 't'},	 {NULL, 0, NULL, 0}};
	uint64_t seed = 0, steps = 400, seeds = 1;
	bool lmdb = false, good = true;
	int plant = PLANT_NONE, c;

	if (getrandom(&seed, 4, 0) != 4)
		return 2;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 10);
		else if (c == 'n')
			steps = strtoull(optarg, NULL, 10);
		else if (c == 'm')
			seeds = strtoull(optarg, NULL, 10);
		else if (c == 'd')
			lmdb = strcmp(optarg, "lmdb") == 0;
		else if (c == 't')
			return tap();
		else if (c == 'p') {
			for (plant = 0; plant < PLANT_COUNT && strcmp(plants[plant], optarg) != 0;)
				plant++;
		} else if (c == 'l') {
			for (int i = 1; i < PLANT_COUNT; i++)
				puts(plants[i]);
			return 0;
		}
		if (c == '?' || plant == PLANT_COUNT)
			return 2;
	}
	for (uint64_t i = 0; i < seeds; i++)
		good &= run(seed + i, steps, lmdb, (enum plant)plant);
	return good ? 0 : 1;
}
