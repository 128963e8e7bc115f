/* SPDX-License-Identifier: Apache-2.0
 * Actions of clients on jobs and cursors, and transactions, which combine them. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/sim.h"

static const char *const states[] = {"QUEUED", "ACTIVE",    "COMPLETE",
				     "FAILED", "SUSPENDED", "SUBMITTED"};

static struct oracle_report report_of(struct sim *s, int job)
{
	return (struct oracle_report){.token = s->job[job].token,
				      .attempt = s->job[job].attempt,
				      .state = states[roll(s, 6)],
				      .serial = ++s->reports};
}

static void job_submit(struct sim *s, struct op op, char *id, uint64_t session)
{
	Sluice__JobSubmit submission = SLUICE__JOB_SUBMIT__INIT;

	submission.job = id, submission.queue = (char *)"j", submission.owner = (char *)"ada";
	op.type = COMMAND_JOB_SUBMIT;
	submit(s, op, 1, session, &submission);
}

static void report_fill(Sluice__JobReport *m, const struct oracle_report *r, char *id)
{
	m->job = id, m->token = r->token, m->attempt = r->attempt, m->release = r->release;
	m->state = (char *)r->state, m->source = (char *)"sim", m->exit_code = r->serial;
}

static void job_report(struct sim *s, struct op op, char *id, uint64_t session)
{
	Sluice__JobReport m = SLUICE__JOB_REPORT__INIT;

	op.report = report_of(s, op.number);
	if (roll(s, 4) == 0)
		op.report.token = 0; /* another client received it */
	op.report.release =
		op.report.token != 0 && roll(s, s->job[op.number].intended ? 2 : 4) == 0;
	/* Releasing a job that was started leaves an orphan, unless it has ended. */
	if (op.report.release && s->job[op.number].intended && roll(s, 4) != 0)
		op.report.state = states[roll(s, 2)];
	report_fill(&m, &op.report, id);
	op.type = COMMAND_JOB_REPORT;
	submit(s, op, 1, session, &m);
}

static void job_intend(struct sim *s, struct op op, char *id, uint64_t session)
{
	Sluice__JobIntent m = SLUICE__JOB_INTENT__INIT;
	char tag[32];

	op.report = report_of(s, op.number);
	snprintf(tag, sizeof(tag), "%s.%u", id, op.report.attempt);
	m.job = id, m.token = op.report.token, m.attempt = op.report.attempt, m.tag = tag;
	op.type = COMMAND_JOB_INTENT;
	submit(s, op, 1, session, &m);
}

static void job_release(struct sim *s, struct op op, char *id, uint64_t session)
{
	Sluice__JobRelease m = SLUICE__JOB_RELEASE__INIT;

	op.report = report_of(s, op.number);
	op.settle.value_ms = (uint32_t)roll(s, 3) * 1500;
	m.job = id, m.token = op.report.token, m.delay_ms = op.settle.value_ms;
	op.type = COMMAND_JOB_RELEASE;
	submit(s, op, 1, session, &m);
}

static void job_reset(struct sim *s, struct op op, char *id, uint64_t session)
{
	Sluice__JobReset m = SLUICE__JOB_RESET__INIT;

	op.flag = roll(s, 4) == 0;
	m.job = id, m.force = op.flag;
	op.type = COMMAND_JOB_RESET;
	submit(s, op, 1, session, &m);
}

void job_do(struct sim *s)
{
	int job = s->slots[roll(s, JOBS)];
	const bool held = job != NO_JOB && s->job[job].token != 0;
	struct op op = {.number = job, .client = held ? s->job[job].client : 0};
	const struct client *client = &s->clients[op.client];
	Sluice__JobCancel cancel = SLUICE__JOB_CANCEL__INIT;
	uint64_t what = roll(s, 16);
	char id[16];

	if (job == NO_JOB || client->connection == 0 || client->closing)
		return;
	snprintf(id, sizeof(id), "j%d", job);
	if (what < 4 || !held)
		job_submit(s, op, id, client->session);
	else if (what < 8)
		job_report(s, op, id, client->session);
	else if (what < 12)
		job_intend(s, op, id, client->session);
	else if (what < 13)
		job_release(s, op, id, client->session);
	else if (what == 13) {
		op.type = COMMAND_JOB_CANCEL;
		cancel.job = id;
		submit(s, op, 1, client->session, &cancel);
	} else {
		job_reset(s, op, id, client->session);
	}
}

/* ---- the cursor ---- */

void cursor_do(struct sim *s)
{
	struct op op = {.type = COMMAND_CURSOR_SET, .client = -1};
	Sluice__CursorSet m = SLUICE__CURSOR_SET__INIT;
	struct stream_ref stream;
	struct store_txn *txn;

	must(store_begin_read(s->store, &txn), "read");
	must(core_stream_find(txn, 1, text("s"), &stream), "stream");
	store_abort(txn);
	if (stream.next_offset == 0)
		return;
	op.offset = 1 + roll(s, stream.next_offset);
	op.flag = roll(s, 8) == 0;
	m.stream = (char *)"s", m.cursor = (char *)"c", m.offset = op.offset, m.back = op.flag;
	submit(s, op, 1, 0, &m);
}

/* ---- transactions ---- */

static void plan_settle(struct sim *s, struct txn_plan *t)
{
	const struct held *h =
		&s->held[(s->held_count - 1 - roll(s, s->held_count < 8 ? s->held_count : 8)) %
			 HELD_MAX];
	const struct client *client = &s->clients[h->client];

	if (client->connection == 0 || client->closing || client->session != h->session)
		return;
	t->session = h->session;
	t->settle = (struct oracle_settlement){.item = h->item,
					       .token = h->token,
					       .session = h->session};
	t->settle.how = roll(s, 3) == 0 ? ORACLE_NACK : ORACLE_ACK;
	if (t->settle.how == ORACLE_NACK)
		t->settle.value_ms = (uint32_t)roll(s, 2) * 1000;
}

static void plan_job(struct sim *s, struct txn_plan *t)
{
	t->job = s->slots[roll(s, JOBS)];
	if (t->job == NO_JOB)
		return;
	t->submit = s->job[t->job].token == 0;
	t->report = report_of(s, t->job);
}

static void plan(struct sim *s)
{
	struct txn_plan *t = &s->txn;
	struct publisher *p = &s->publishers[ORACLE_TXN_PRODUCER];

	*t = (struct txn_plan){.pending = true, .number = p->next++, .job = NO_JOB};
	t->events = (uint32_t)roll(s, 3);
	t->puts = (uint32_t)roll(s, 3);
	if (s->held_count > 0 && roll(s, 2) == 0)
		plan_settle(s, t);
	if (roll(s, 2) == 0)
		plan_job(s, t);
	t->doomed = roll(s, 3) == 0;
	oracle_txn_sent(s->oracle, t->number, t->events, t->puts);
}

struct txn_buffers {
	Sluice__Txn txn;
	Sluice__TxnOp ops[8], *list[8];
	Sluice__TxnPublish publishes[4];
	char bodies[4][32], id[16];
	Sluice__TxnAck ack;
	Sluice__TxnNack nack;
	Sluice__JobSubmit submit;
	Sluice__JobReport report;
	Sluice__TxnCheckJob check;
};

static Sluice__TxnOp *op_add(struct txn_buffers *b, Sluice__TxnOp__OpCase op_case)
{
	Sluice__TxnOp *op = &b->ops[b->txn.n_ops];

	sluice__txn_op__init(op);
	op->op_case = op_case;
	b->list[b->txn.n_ops++] = op;
	return op;
}

static void add_publishes(struct txn_buffers *b, const struct txn_plan *t)
{
	for (uint32_t i = 0; i < t->events + t->puts; i++) {
		Sluice__TxnPublish *m = &b->publishes[i];

		sluice__txn_publish__init(m);
		snprintf(b->bodies[i], sizeof(b->bodies[i]), "%" PRIu64,
			 (uint64_t)ORACLE_TXN_PRODUCER * ORACLE_BODY +
				 t->number * ORACLE_TXN_PARTS + i);
		m->body = (ProtobufCBinaryData){strlen(b->bodies[i]), (uint8_t *)b->bodies[i]};
		*(i < t->events ? &m->stream : &m->queue) = (char *)(i < t->events ? "s" : "q");
		op_add(b, SLUICE__TXN_OP__OP_PUBLISH)->publish = m;
	}
}

static void add_settle(struct txn_buffers *b, const struct oracle_settlement *s)
{
	sluice__txn_ack__init(&b->ack);
	sluice__txn_nack__init(&b->nack);
	b->ack.queue = b->nack.queue = (char *)"q";
	b->ack.token = b->nack.token = s->token;
	b->ack.first_seq = b->nack.first_seq = s->item;
	b->ack.count = b->nack.count = 1;
	b->nack.delay_ms = s->value_ms;
	if (s->how == ORACLE_ACK)
		op_add(b, SLUICE__TXN_OP__OP_ACK)->ack = &b->ack;
	else
		op_add(b, SLUICE__TXN_OP__OP_NACK)->nack = &b->nack;
}

static void add_job(struct txn_buffers *b, const struct txn_plan *t)
{
	snprintf(b->id, sizeof(b->id), "j%d", t->job);
	if (t->submit) {
		sluice__job_submit__init(&b->submit);
		b->submit.job = b->id, b->submit.queue = (char *)"j",
		b->submit.owner = (char *)"ada";
		op_add(b, SLUICE__TXN_OP__OP_JOB_SUBMIT)->job_submit = &b->submit;
	} else {
		sluice__job_report__init(&b->report);
		report_fill(&b->report, &t->report, b->id);
		op_add(b, SLUICE__TXN_OP__OP_JOB_REPORT)->job_report = &b->report;
	}
}

void transact(struct sim *s)
{
	const struct publisher *p = &s->publishers[ORACLE_TXN_PRODUCER];
	struct txn_plan *t = &s->txn;
	struct txn_buffers b;

	if (t->in_flight || p->in_flight)
		return;
	if (!t->pending)
		plan(s);
	if (p->stale || p->owner != t->session) {
		reopen(s, ORACLE_TXN_PRODUCER);
		return;
	}
	sluice__txn__init(&b.txn);
	b.txn.producer = p->id, b.txn.epoch = p->epoch;
	b.txn.seq = t->number, b.txn.settled_seq = t->number - 1;
	b.txn.ops = b.list;
	add_publishes(&b, t);
	if (t->settle.token != 0)
		add_settle(&b, &t->settle);
	if (t->job >= 0)
		add_job(&b, t);
	if (t->doomed || b.txn.n_ops == 0) {
		t->doomed = true;
		sluice__txn_check_job__init(&b.check);
		b.check.job = (char *)"j0", b.check.state = (char *)"no such state";
		op_add(&b, SLUICE__TXN_OP__OP_CHECK_JOB)->check_job = &b.check;
	}
	t->in_flight = true;
	submit(s, (struct op){.type = COMMAND_TXN, .client = -1}, 1, t->session, &b.txn);
}
