/* SPDX-License-Identifier: Apache-2.0
 * Actions of clients on sessions, streams and the queue. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/sim/sim.h"

/* ---- connections ---- */

static void session_open(struct sim *s, int number)
{
	struct cmd_session_open open = {.client = text("sim"), .timeout_ms = SESSION_MS};

	if (s->clients[number].ephemeral)
		open.flags = SESSION_EPHEMERAL;
	s->clients[number].opening = true;
	submit(s, (struct op){.type = COMMAND_SESSION_OPEN, .number = number, .client = -1}, 1, 0,
	       &open);
}

/* Like a listener: the session is looked up before it is attached. */
static bool session_lives(struct sim *s, uint64_t session)
{
	struct session_ref ref;
	struct store_txn *txn;
	int rc;

	faults_pause(s);
	must(store_begin_read(s->store, &txn), "read");
	rc = core_session_find(txn, 1, session, &ref);
	store_abort(txn);
	faults_resume(s);
	if (rc != 0)
		oracle_session_shown(s->oracle, session, false);
	return rc == 0;
}

/* Between 0 and a million. */
uint32_t some_credit(struct sim *s)
{
	static const uint32_t credits[] = {0, 1, 1, 2, 2, 2, 3, 8, 8, 64, 1000, 1000000};

	return credits[roll(s, sizeof(credits) / sizeof(credits[0]))];
}

/* Like a listener. The source exists after a client was answered that it represents it. */
static uint64_t source_number(struct sim *s, int source)
{
	struct store_txn *txn;
	uint64_t number = 0;

	if (source == 0)
		return 0;
	faults_pause(s);
	must(store_begin_read(s->store, &txn), "read");
	if (core_source_find(txn, 1, text(source_name_of(source)), &number) != 0)
		oracle_blame(s->oracle, "a source that a session speaks for is not there", source,
			     0);
	store_abort(txn);
	faults_resume(s);
	return number;
}

static void consumer_open(struct sim *s, int number, enum feed feed)
{
	struct client *client = &s->clients[number];
	struct consumer_spec spec = {.gateway = 1,
				     .queue = feed == FEED_JOBS	   ? s->jobs
					      : feed == FEED_ITEMS ? s->queue
					      : feed == FEED_WILD  ? s->wild
								   : s->wild_job_queue,
				     .session = client->session,
				     .credit = s->drains ? 0 : some_credit(s),
				     .claim_flags = CLAIM_RESUME,
				     .extend_max_ms = (uint32_t)number * 60000,
				     .sink = &s->sink,
				     .tag = consumer_tag(client, number, feed)};

	if (feed == FEED_JOBS && (s->drains || roll(s, client->source != 0 ? 4 : 2) != 0))
		spec.claim_flags |= CLAIM_ORPHANS;
	if (feed == FEED_ITEMS ? number == CLIENTS - 1 : feed == FEED_WILD && roll(s, 3) == 0)
		spec.claim_flags |= CLAIM_SESSION_LEASE;
	if (feed == FEED_ITEMS && number % 2 == 0)
		spec.claim_flags |= CLAIM_REPORTS;
	if (feed == FEED_JOBS) {
		client->jobs_taken = true;
		spec.source = source_number(s, client->source);
	}
	if (feed == FEED_WILD_JOBS && (s->drains || roll(s, 2) == 0))
		spec.claim_flags |= CLAIM_ORPHANS;
	client->resuming[feed] = true;
	oracle_consumer_opened(s->oracle, consumer_number(number, feed), feed,
			       (spec.claim_flags & CLAIM_ORPHANS) != 0,
			       feed == FEED_JOBS ? client->source : 0, client->session,
			       spec.credit);
	oracle_tag_opened(s->oracle, spec.tag);
	must(engine_consumer_open(s->engine, &spec), "consume");
}

static void tag_close(struct sim *s, uint64_t tag)
{
	oracle_tag_closed(s->oracle, tag);
	must(engine_consumer_close(s->engine, &s->sink, tag), "close");
}

static void consumer_close(struct sim *s, int number, enum feed feed)
{
	const uint64_t tag = consumer_tag(&s->clients[number], number, feed);

	if (feed == FEED_JOBS && !s->clients[number].jobs_taken)
		return;
	oracle_consumer_closed(s->oracle, consumer_number(number, feed));
	tag_close(s, tag);
	if (feed == FEED_JOBS)
		s->clients[number].jobs_taken = false;
}

void consumers_close(struct sim *s, int number)
{
	for (enum feed feed = 0; feed < FEEDS; feed++)
		consumer_close(s, number, feed);
}

static void attach(struct sim *s, int number)
{
	struct client *client = &s->clients[number];

	client->connection = ++s->connections;
	must(engine_session_attach(s->engine, 1, client->session, &s->sink, client->connection),
	     "attach");
	oracle_session_attached(s->oracle, client->session);
	client->slow = client->jobs_taken = client->jobs_left = false;
	for (enum feed feed = 0; feed < FEEDS; feed++) {
		if (feed != FEED_JOBS || client->source == 0)
			consumer_open(s, number, feed);
	}
	source_send(s, number);
}

void client_connect(struct sim *s, int number)
{
	struct client *client = &s->clients[number];

	if (client->connection != 0 || client->opening || client->closing)
		return;
	if (client->session != 0 && !session_lives(s, client->session))
		client->session = 0;
	if (client->session == 0) {
		session_open(s, number);
		return;
	}
	attach(s, number);
}

/* Like a listener: it closes an ephemeral session with its connection, before it detaches it. */
static void release(struct sim *s, uint64_t session, uint64_t connection, bool ephemeral, bool lost)
{
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;

	if (ephemeral)
		submit(s,
		       (struct op){.type = COMMAND_SESSION_CLOSE,
				   .number = -1,
				   .client = -1,
				   .connection = connection,
				   .lost = lost},
		       1, session, &close);
	must(engine_session_detach(s->engine, 1, session, &s->sink, connection, 0, true), "detach");
}

void client_leave(struct sim *s, int number)
{
	struct client *client = &s->clients[number];

	if (client->connection == 0 || client->closing)
		return;
	consumers_close(s, number);
	release(s, client->session, client->connection, client->ephemeral, false);
	oracle_session_detached(s->oracle, client->session);
	client->connection = 0;
}

void client_close(struct sim *s, int number)
{
	struct client *client = &s->clients[number];
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;

	if (client->connection == 0 || client->closing)
		return;
	client->closing = true;
	submit(s, (struct op){.type = COMMAND_SESSION_CLOSE, .number = number, .client = number}, 1,
	       client->session, &close);
}

/* Of the consumer that a connection opens after it lost its session. */
static uint64_t stale_tag(const struct client *client)
{
	return OPS_MAX + FEEDS * CLIENTS * UINT64_C(1000000) + client->stale;
}

/* Commands and a consumer of a connection that was not notified yet that it lost its session. */
void stale_act(struct sim *s, int number)
{
	struct client *client = &s->clients[number];
	struct op op = {.client = number, .connection = client->stale, .lost = true};
	const struct held *h = &s->held[(s->held_count + HELD_MAX - 1) % HELD_MAX];
	struct consumer_spec spec = {.gateway = 1,
				     .queue = s->queue,
				     .session = client->stale_session,
				     .credit = 8,
				     .claim_flags = CLAIM_RESUME,
				     .sink = &s->sink,
				     .tag = stale_tag(client),
				     .conn = client->stale};
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;
	Sluice__JobCancel cancel = SLUICE__JOB_CANCEL__INIT;
	uint64_t what = roll(s, 4);

	if (client->stale == 0)
		return;
	if (what == 0 && s->held_count > 0) {
		uint8_t run[12] = {0};
		struct cmd_ack ack = {.queue = s->queue,
				      .token = h->token,
				      .op = ACK_DONE,
				      .run_count = 1,
				      .runs = run};

		for (int i = 0; i < 8; i++)
			run[i] = (uint8_t)(h->item >> (56 - 8 * i));
		run[11] = 1;
		op.type = COMMAND_ACK;
		submit(s, op, 1, client->stale_session, &ack);
	} else if (what == 1) {
		op.type = COMMAND_SESSION_CLOSE;
		close.session = roll(s, 2) == 0 ? s->frees[0].session : 0;
		submit(s, op, 1, client->stale_session, &close);
	} else if (what == 2) {
		op.type = COMMAND_JOB_CANCEL;
		cancel.job = (char *)"j0";
		submit(s, op, 1, client->stale_session, &cancel);
	} else if (!client->stale_consumes) {
		client->stale_consumes = true;
		oracle_tag_opened(s->oracle, spec.tag);
		must(engine_consumer_open(s->engine, &spec), "consume");
		must(engine_consumer_credit(s->engine, &s->sink, spec.tag, 1), "credit");
	}
}

void stale_free(struct sim *s, int number)
{
	struct client *client = &s->clients[number];

	if (client->stale == 0)
		return;
	for (enum feed feed = 0; feed < FEEDS; feed++) {
		struct client before = {.connection = client->stale};

		if (feed != FEED_JOBS || client->stale_jobs)
			tag_close(s, consumer_tag(&before, number, feed));
	}
	if (client->stale_consumes)
		tag_close(s, stale_tag(client));
	release(s, client->stale_session, client->stale, client->ephemeral, true);
	client->stale = 0;
}

void client_return(struct sim *s, int number)
{
	struct client *client = &s->clients[number];

	if (client->connection == 0 || client->stale != 0 || client->cut_off || client->cut != 0 ||
	    !session_lives(s, client->session))
		return;
	for (size_t i = s->op_first; i < s->op_count; i++)
		s->ops[i].lost |= s->ops[i].open && s->ops[i].connection == client->connection;
	for (enum feed feed = 0; feed < FEEDS; feed++)
		oracle_consumer_closed(s->oracle, consumer_number(number, feed));
	client->stale = client->connection;
	client->stale_session = client->session;
	client->stale_jobs = client->jobs_taken;
	client->stale_consumes = false;
	client->stale_kicked = client->closing = false;
	attach(s, number);
	/* The broker may learn of all this at once. */
	if (roll(s, 3) == 0) {
		stale_act(s, number);
		stale_free(s, number);
	}
}

void client_cut_off(struct sim *s, int number)
{
	s->clients[number].cut_off = true;
	oracle_breaks(s->oracle);
	for (size_t i = s->op_first; i < s->op_count; i++) {
		if (s->ops[i].open && s->ops[i].client == number)
			forget(s, &s->ops[i]);
	}
}

void client_break(struct sim *s, int number)
{
	struct client *client = &s->clients[number];

	for (int i = 0; i < PRODUCERS; i++)
		s->publishers[i].losses++;
	oracle_lost(s->oracle, client->session, number == CLIENTS - 1);
	client->cut_off = false;
	client_leave(s, number);
}

static void consumer_pause(struct sim *s, int number, enum feed feed, bool paused)
{
	oracle_consumer_paused(s->oracle, consumer_number(number, feed), paused);
	must(engine_consumer_pause(s->engine, &s->sink,
				   consumer_tag(&s->clients[number], number, feed), paused),
	     "pause");
}

void client_slow(struct sim *s, int number, bool slow)
{
	struct client *client = &s->clients[number];

	if (client->connection == 0 || client->slow == slow)
		return;
	client->slow = slow;
	for (enum feed feed = 0; feed < FEEDS; feed++)
		consumer_pause(s, number, feed, slow);
}

void credit(struct sim *s, int number, uint32_t more)
{
	const struct client *client = &s->clients[number];

	for (enum feed feed = 0; client->connection != 0 && feed < FEEDS; feed++) {
		oracle_consumer_credited(s->oracle, consumer_number(number, feed), more);
		must(engine_consumer_credit(s->engine, &s->sink, consumer_tag(client, number, feed),
					    more),
		     "credit");
	}
}

/* ---- sources ---- */

void source_send(struct sim *s, int number)
{
	struct op op = {.type = COMMAND_SOURCE_SEEN, .number = number, .client = number};
	const struct client *client = &s->clients[number];
	Sluice__SourceSeen m = SLUICE__SOURCE_SEEN__INIT;

	if (client->source == 0 || client->connection == 0 || client->closing)
		return;
	op.seq = client->session;
	op.flag = s->drains || roll(s, 2) == 0;
	m.source = (char *)source_name_of(client->source);
	m.ok = true;
	m.take = op.flag;
	submit(s, op, 1, client->session, &m);
}

void source_answered(struct sim *s, const struct op *op, const struct outcome *out)
{
	struct client *client = &s->clients[op->number];

	if (out->code != 0 && sluice_error_retriable(out->code))
		return;
	oracle_source_answered(s->oracle, client->source, op->seq, op->flag,
			       out->code == 0			    ? ORACLE_REPRESENTS
			       : out->code == SLUICE_E_SESSION_GONE ? ORACLE_SESSION_ENDED
								    : ORACLE_ANOTHER_REPRESENTS);
	if (client->connection == 0 || client->closing || client->session != op->seq)
		return;
	s->answers = true;
	/* The source was taken over: from now on the jobs go to the client that represents it. */
	if (out->code != 0 && client->jobs_taken) {
		consumer_close(s, op->number, FEED_JOBS);
		client->jobs_left = true;
	}
	if (out->code != 0 || client->jobs_taken || client->jobs_left)
		return;
	consumer_open(s, op->number, FEED_JOBS);
	if (client->slow)
		consumer_pause(s, op->number, FEED_JOBS, true);
}

/* ---- publishing ---- */

/* Publishers have sessions of no client: core only compares numbers, and does not check whether a
 * session lives. */
static uint64_t session_of(const struct sim *s, int producer)
{
	return producer == ORACLE_TXN_PRODUCER ? s->txn.session
					       : (UINT64_C(1) << 40) + (uint64_t)producer;
}

static void publish_as(struct sim *s, int producer, uint64_t session, uint32_t epoch,
		       uint32_t count)
{
	const struct publisher *p = &s->publishers[producer];
	const struct target *target = sim_target(producer);
	uint8_t bytes[1024];
	size_t used = 0;
	struct frame_publish f = {.target_kind = target->stream >= 0 ? PUBLISH_TO_STREAM
								     : PUBLISH_TO_QUEUE};

	for (uint32_t i = 0; i < count; i++) {
		char number[32];
		struct envelope e = {.subject = text(""),
				     .priority = (uint8_t)((p->next + i) * 97 % 255)};

		snprintf(number, sizeof(number), "%" PRIu64,
			 (uint64_t)producer * ORACLE_BODY + p->next + i);
		e.body = text(number);
		used += envelope_encode(bytes + used, &e);
	}
	f.producer = p->id, f.epoch = epoch, f.first_seq = p->next, f.settled_seq = p->next - 1;
	f.count = count, f.raw_bytes = (uint32_t)used;
	f.subject = text("sim"), f.target = text(target->name);
	f.payload = (struct sluice_slice){bytes, used};
	submit(s,
	       (struct op){.type = COMMAND_PUBLISH,
			   .number = producer,
			   .client = -1,
			   .seq = p->next,
			   .count = count,
			   .flag = epoch != p->epoch || session != p->owner},
	       target->gateway, session, &f);
}

void publish(struct sim *s, int producer)
{
	struct publisher *p = &s->publishers[producer];

	if (p->in_flight || producer == ORACLE_TXN_PRODUCER)
		return;
	if (p->stale) {
		reopen(s, producer);
		return;
	}
	/* As the previous owner of the name would publish. */
	if (p->epoch > 1 && roll(s, 16) == 0)
		publish_as(s, producer, p->owner, p->epoch - 1, 1);
	/* As another session would publish that knows number and epoch. */
	if (roll(s, 16) == 0)
		publish_as(s, producer, p->owner + 1, p->epoch, 1 + (uint32_t)roll(s, 4));
	if (p->pending == 0) {
		p->pending = 1 + (uint32_t)roll(s, 4), p->losses = 0;
		oracle_sent(s->oracle, producer, p->next, p->pending);
	}
	p->in_flight = true;
	publish_as(s, producer, p->owner, p->epoch, p->pending);
}

void reopen(struct sim *s, int producer)
{
	struct publisher *p = &s->publishers[producer];
	Sluice__ProducerOpen open = SLUICE__PRODUCER_OPEN__INIT;
	char name[16];

	if (p->in_flight || (producer == ORACLE_TXN_PRODUCER && s->txn.in_flight))
		return;
	snprintf(name, sizeof(name), "p%d", producer);
	open.name = name;
	p->in_flight = p->stale = true;
	p->owner = session_of(s, producer);
	submit(s, (struct op){.type = COMMAND_PRODUCER_OPEN, .number = producer, .client = -1},
	       sim_target(producer)->gateway, p->owner, &open);
}

/* ---- items ---- */

void take(struct sim *s, int number)
{
	const struct client *client = &s->clients[number];
	struct cmd_claim claim = {.queue = s->queue, .max = 1 + (uint32_t)roll(s, 4)};

	if (client->connection == 0 || client->closing)
		return;
	if (number == CLIENTS - 1)
		claim.flags = CLAIM_SESSION_LEASE;
	submit(s, (struct op){.type = COMMAND_CLAIM, .number = number, .client = number}, 1,
	       client->session, &claim);
}

void purge(struct sim *s)
{
	Sluice__QueuePurge m = SLUICE__QUEUE_PURGE__INIT;

	m.name = (char *)"q";
	submit(s, (struct op){.type = COMMAND_QUEUE_PURGE, .client = -1, .behind = roll(s, 2) == 0},
	       1, 0, &m);
}

/* Usually control; what it takes of a commit is up to half of it. */
void flood(struct sim *s)
{
	Sluice__CursorDelete m = SLUICE__CURSOR_DELETE__INIT;
	uint64_t most = s->batch_bytes / 2 < LIMIT_COMMAND_BYTES_MAX ? s->batch_bytes / 2
								     : LIMIT_COMMAND_BYTES_MAX;

	m.stream = (char *)"s";
	m.cursor = (char *)"none";
	for (uint64_t n = 1 + roll(s, 12); n > 0; n--)
		submit(s,
		       (struct op){.type = COMMAND_CURSOR_DELETE,
				   .client = -1,
				   .wild = true,
				   .behind = roll(s, 8) == 0,
				   .bytes = 1 + roll(s, most)},
		       1, (UINT64_C(1) << 41) + roll(s, 2), &m);
}

static void settle_one(struct sim *s, const struct held *h, enum oracle_settle how,
		       uint32_t value_ms)
{
	static const uint8_t ops[] = {[ORACLE_ACK] = ACK_DONE,	    [ORACLE_NACK] = ACK_NACK,
				      [ORACLE_EXTEND] = ACK_EXTEND, [ORACLE_RELEASE] = ACK_RELEASE,
				      [ORACLE_BEGUN] = ACK_BEGUN,   [ORACLE_REJECT] = ACK_REJECT,
				      [ORACLE_RENEW] = ACK_RENEW};
	const struct client *client = &s->clients[h->client];
	struct op op = {.type = COMMAND_ACK, .client = h->client};
	uint8_t run[12] = {0};
	struct cmd_ack ack = {.queue = s->queue,
			      .token = h->token,
			      .op = ops[how],
			      .value_ms = value_ms,
			      .run_count = 1,
			      .runs = run};

	/* The token of a session that has ended is not valid. */
	if (client->connection == 0 || client->closing)
		return;
	for (int i = 0; i < 8; i++)
		run[i] = (uint8_t)(h->item >> (56 - 8 * i));
	run[11] = 1;
	op.settle = (struct oracle_settlement){.item = h->item,
					       .token = h->token,
					       .session = client->session,
					       .how = how,
					       .value_ms = value_ms};
	submit(s, op, 1, client->session, &ack);
}

void begin_all(struct sim *s)
{
	size_t n = s->held_count < HELD_MAX ? s->held_count : HELD_MAX;

	for (size_t i = 0; i < n; i++) {
		const struct held *h = &s->held[(s->held_count - 1 - i) % HELD_MAX];

		if (s->clients[h->client].session != h->session)
			continue;
		settle_one(s, h, ORACLE_BEGUN, 0);
		if (roll(s, 4) == 0)
			settle_one(s, h, ORACLE_RENEW, LEASE_MS); /* it stays begun */
	}
	s->held_count = 0;
}

void settle(struct sim *s)
{
	size_t n = s->held_count < HELD_MAX ? s->held_count : HELD_MAX;
	enum oracle_settle how;
	uint32_t value_ms = 0;
	struct held h;

	if (n == 0)
		return;
	h = s->held[(s->held_count - 1 - roll(s, n < 16 || roll(s, 8) == 0 ? n : 16)) % HELD_MAX];
	how = roll(s, 4) == 0	? ORACLE_NACK
	      : roll(s, 6) == 0 ? ORACLE_EXTEND
	      : roll(s, 4) == 0 ? ORACLE_RENEW
	      : roll(s, 8) == 0 ? ORACLE_RELEASE
	      : roll(s, 8) == 0 ? ORACLE_BEGUN
	      : roll(s, 8) == 0 ? ORACLE_REJECT
				: ORACLE_ACK;
	if (how == ORACLE_NACK)
		value_ms = (uint32_t)roll(s, 3) * 1000;
	else if (how == ORACLE_EXTEND || how == ORACLE_RENEW)
		value_ms = LEASE_MS;
	settle_one(s, &h, how, value_ms);
}
