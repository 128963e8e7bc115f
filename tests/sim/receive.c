/* SPDX-License-Identifier: Apache-2.0
 * Answers, items, jobs and notices to clients. All of them go to the oracle, in the order in which
 * the broker sent them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/envelope.h"
#include "tests/sim/sim.h"

/* Counts a frame that is sent to a client, and breaks the connection when faults_plan.c chose this
 * one. Returns whether the client receives it. */
static bool frame_received(struct sim *s, int number)
{
	struct client *client = &s->clients[number];

	if (!client->cut_off && client->cut > 0 && --client->cut == 0)
		client_cut_off(s, number);
	return !client->cut_off;
}

/* ---- answers ---- */

static void published(struct sim *s, const struct op *op, const struct outcome *out)
{
	struct publisher *p = &s->publishers[op->number];
	int stream = sim_target(op->number)->stream;

	if (op->flag) {
		if (out->code == 0)
			oracle_blame(s->oracle,
				     "a publish with an old epoch, or of another session, was "
				     "accepted",
				     op->number, 0);
		return;
	}
	p->in_flight = false;
	if (out->code != 0) {
		if (!sluice_error_retriable(out->code))
			oracle_blame(s->oracle, "a publish in sequence was refused", op->number,
				     out->code);
		return;
	}
	if (stream >= 0)
		oracle_published(s->oracle, stream, op->number, op->seq, op->count, out->offset);
	for (uint32_t i = 0; stream < 0 && i < op->count; i++)
		oracle_put(s->oracle, out->offset + i,
			   (uint64_t)op->number * ORACLE_BODY + op->seq + i, p->losses);
	p->next = op->seq + op->count;
	p->pending = 0;
}

static void reopened(struct sim *s, const struct op *op, const struct outcome *out)
{
	struct publisher *p = &s->publishers[op->number];

	p->in_flight = false;
	if (out->code != 0)
		return;
	if (p->id != 0 && (out->id != p->id || out->epoch <= p->epoch))
		oracle_blame(s->oracle, "a producer's new epoch is not above its old one",
			     op->number, out->epoch);
	p->id = out->id;
	p->epoch = out->epoch;
	p->stale = false;
	if (op->number != ORACLE_TXN_PRODUCER)
		oracle_reopened(s->oracle, op->number, out->seq);
}

static void reported(struct sim *s, const struct op *op, const struct outcome *out)
{
	enum oracle_verdict verdict = ORACLE_REFUSED;

	if (out->code == 0 && out->disposition == SLUICE__DISPOSITION__APPLIED)
		verdict = ORACLE_APPLIED;
	else if (out->code == 0 && out->disposition == SLUICE__DISPOSITION__DUPLICATE)
		verdict = ORACLE_DUPLICATE;
	oracle_job_reported(s->oracle, op->number, &op->report, verdict);
}

static void released(struct sim *s, const struct op *op, const struct outcome *out)
{
	oracle_job_released(s->oracle, op->number, op->report.token, op->settle.value_ms,
			    out->code != 0   ? ORACLE_REFUSED
			    : out->duplicate ? ORACLE_DUPLICATE
					     : ORACLE_APPLIED);
}

static void transacted(struct sim *s, const struct outcome *out)
{
	struct txn_plan *t = &s->txn;

	t->in_flight = false;
	if (out->code != 0 && sluice_error_retriable(out->code))
		return;
	t->pending = false;
	/* The end of a session returns its items in steps. Until the last step its settlements are
	 * refused. */
	if (out->code == SLUICE_E_SESSION_GONE && t->settle.token != 0)
		oracle_session_shown(s->oracle, t->session, false);
	else if (out->code != 0 && out->code != SLUICE_E_WRONG_STATE &&
		 out->code != SLUICE_E_STALE_TOKEN && out->code != SLUICE_E_QUARANTINED &&
		 out->code != SLUICE_E_NOT_FOUND)
		oracle_blame(s->oracle, "a transaction in sequence was refused", (int64_t)t->number,
			     out->code);
	if (out->code == 0 && t->doomed)
		oracle_blame(s->oracle, "a transaction with a false check was applied",
			     (int64_t)t->number, 0);
	oracle_txn_answered(s->oracle, t->number, out->code == 0);
	if (out->code != 0)
		return;
	if (t->settle.token != 0)
		oracle_settled(s->oracle, &t->settle, true, t->was_unknown);
	if (t->job >= 0 && t->was_unknown)
		oracle_job_unknown(s->oracle, t->job); /* it may have changed since */
	else if (t->job >= 0 && t->submit)
		oracle_job_submitted(s->oracle, t->job);
	else if (t->job >= 0)
		oracle_job_reported(s->oracle, t->job, &t->report, ORACLE_APPLIED);
}

static void session_opened(struct sim *s, struct client *client, const struct outcome *out)
{
	client->opening = false;
	if (out->code != 0)
		return;
	client->session = out->id;
	oracle_session_opened(s->oracle, out->id,
			      client->ephemeral ? ORACLE_EPHEMERAL : ORACLE_FREE);
}

static void session_closed(struct sim *s, struct client *client, const struct outcome *out)
{
	client->closing = false;
	if (out->code != 0 && out->code != SLUICE_E_SESSION_GONE) {
		oracle_blame(s->oracle, "a session cannot be closed", (int64_t)client->session,
			     out->code);
		return;
	}
	/* An ephemeral one ends with its connection, also when another connection took it up before
	 * that was applied. */
	if (out->code == 0)
		oracle_session_closed(s->oracle, client->session);
	else
		oracle_session_shown(s->oracle, client->session, false);
	consumers_close(s, (int)(client - s->clients));
	client->session = client->connection = 0;
}

static void job_answered(struct sim *s, struct op *op, const struct outcome *out)
{
	if (op->type == COMMAND_JOB_SUBMIT && out->code == 0)
		oracle_job_submitted(s->oracle, op->number);
	else if (op->type == COMMAND_JOB_REPORT)
		reported(s, op, out);
	else if (op->type == COMMAND_JOB_INTENT) {
		s->job[op->number].intended |= out->code == 0;
		oracle_job_intended(s->oracle, op->number, op->report.token, op->report.attempt,
				    out->code == 0);
	} else if (op->type == COMMAND_JOB_RELEASE)
		released(s, op, out);
	else if (op->type == COMMAND_JOB_CANCEL && out->code == 0)
		oracle_job_cancelled(s->oracle, op->number, out->terminal);
	else if (op->type == COMMAND_JOB_RESET)
		oracle_job_reset(s->oracle, op->number, op->flag, out->attempt, out->code == 0);
}

static void taken(struct sim *s, const struct op *op, const struct outcome *out)
{
	if (out->code == 0 && out->count != op->count)
		oracle_blame(s->oracle, "a claim's answer counts other items than came before it",
			     op->count, out->count);
	else if (out->code != 0 && out->code != SLUICE_E_SESSION_GONE &&
		 !sluice_error_retriable(out->code))
		oracle_blame(s->oracle, "a claim was refused", op->number, out->code);
}

/* A renewed item is held under a new token; the old one stays among those to settle with. */
static void settled(struct sim *s, struct op *op, const struct outcome *out)
{
	const bool done = out->code == 0 && out->count > 0;

	op->settle.renewed = out->index;
	oracle_settled(s->oracle, &op->settle, done, false);
	if (done && op->settle.how == ORACLE_RENEW)
		s->held[s->held_count++ % HELD_MAX] =
			(struct held){op->settle.item, out->index, op->settle.session, op->client};
}

static void answered(struct sim *s, struct op *op, const struct outcome *out)
{
	op->open = false;
	s->last = *out;
	if (op->wild_job)
		wild_job_answered(s, op, out);
	if (op->wild)
		return;
	if (op->type == COMMAND_PUBLISH)
		published(s, op, out);
	else if (op->type == COMMAND_PRODUCER_OPEN)
		reopened(s, op, out);
	else if (op->type == COMMAND_ACK)
		settled(s, op, out);
	else if (op->type == COMMAND_CLAIM)
		taken(s, op, out);
	else if (op->type == COMMAND_TXN)
		transacted(s, out);
	else if (op->type == COMMAND_SESSION_OPEN && op->number >= CLIENTS)
		free_opened(s, op->number - CLIENTS, out);
	else if (op->type == COMMAND_SESSION_OPEN)
		session_opened(s, &s->clients[op->number], out);
	else if (op->type == COMMAND_SESSION_CLOSE && op->number >= CLIENTS)
		free_closed(s, op->number - CLIENTS, out);
	else if (op->type == COMMAND_SESSION_CLOSE && op->number >= 0)
		session_closed(s, &s->clients[op->number], out);
	else if (op->type == COMMAND_SOURCE_SEEN)
		source_answered(s, op, out);
	else if (op->type == COMMAND_SESSION_CLOSE || /* nobody waits for the answer */
		 (out->code != 0 && sluice_error_retriable(out->code)))
		return; /* NO_SPACE says nothing about the request */
	else if (op->type == COMMAND_QUEUE_PURGE && out->code == 0)
		oracle_purged(s->oracle, out->count);
	else if (op->type == COMMAND_CURSOR_SET)
		oracle_cursor_set(s->oracle, op->offset, op->flag, out->code == 0);
	else
		job_answered(s, op, out);
}

/* ---- deliveries ---- */

static void granted(struct sim *s, const struct effect *e, int client, bool again)
{
	struct sluice_slice rest = e->payload;
	struct oracle_grant g = {.token = e->token,
				 .session = s->clients[client].session,
				 .lease_ms = e->lease_ms,
				 .again = again};

	if (e->lease_ms != (client == CLIENTS - 1 ? 0 : LEASE_MS))
		oracle_blame(s->oracle, "a lease of the wrong kind", (int64_t)e->token,
			     e->lease_ms);
	for (size_t r = 0; r < e->run_count; r++) {
		for (uint32_t i = 0; i < e->runs[r].count; i++) {
			struct envelope envelope;
			const char *why = "";
			char number[32];

			g.item = e->runs[r].first + i;
			g.attempts = (uint32_t)((const uint8_t *)rest.data)[0] << 8 |
				     ((const uint8_t *)rest.data)[1];
			rest.data = (const uint8_t *)rest.data + 10,
			rest.len -= 10; /* skips attempts and put time */
			must(envelope_next(&rest, &envelope, &why), "item");
			snprintf(number, sizeof(number), "%.*s", (int)envelope.body.len,
				 (const char *)envelope.body.data);
			g.body = strtoull(number, NULL, 10);
			oracle_granted(s->oracle, &g);
			s->held[s->held_count++ % HELD_MAX] =
				(struct held){g.item, g.token, g.session, client};
		}
	}
}

static void wild_granted(struct sim *s, const struct effect *e, int client)
{
	for (size_t r = 0; r < e->run_count; r++) {
		for (uint32_t i = 0; i < e->runs[r].count; i++)
			s->wild_held[s->wild_count++ % HELD_MAX] =
				(struct held){e->runs[r].first + i, e->token,
					      s->clients[client].session, client};
	}
}

static void jobs_granted(struct sim *s, const struct effect *e, int client)
{
	Sluice__JobDeliveries *d =
		sluice__job_deliveries__unpack(NULL, e->payload.len, e->payload.data);

	for (size_t i = 0; d != NULL && i < d->n_jobs; i++) {
		const Sluice__JobDelivery *j = d->jobs[i];
		struct oracle_job_seen seen = {.state = j->state,
					       .intent = j->intent,
					       .cancel = j->cancel,
					       .attempt = j->attempt,
					       .token = j->token,
					       .session = s->clients[client].session,
					       .source = source_by_name(j->source)};
		int job = atoi(j->job + 1);

		s->job[job].token = j->token;
		s->job[job].attempt = j->attempt;
		s->job[job].client = client;
		s->job[job].intended = j->intent;
		oracle_job_claimed(s->oracle, job, &seen, s->clients[client].source, j->orphan,
				   j->redelivered);
	}
	sluice__job_deliveries__free_unpacked(d, NULL);
}

/* The index of the command that caused an effect. Its reply is the next one of that command. */
static uint64_t index_of(const struct engine_release *release, size_t i)
{
	uint32_t command = effects_at(release->effects, i)->command;

	for (; i < effects_count(release->effects); i++) {
		const struct effect *e = effects_at(release->effects, i);

		if (e->kind == FX_REPLY && e->command == command)
			return e->outcome->index;
	}
	return 0;
}

static void consumed(struct sim *s, const struct engine_release *release, size_t i, uint64_t tag)
{
	const struct effect *e = effects_at(release->effects, i);
	int number = (int)((tag - OPS_MAX) / FEEDS % CLIENTS);
	struct client *client = &s->clients[number];
	enum feed feed = (enum feed)((tag - OPS_MAX) % FEEDS);

	if (client->connection == 0 || consumer_tag(client, number, feed) != tag) {
		if (e->kind != FX_REPLY)
			oracle_blame(s->oracle, "a closed consumer received a frame", number, feed);
		return;
	}
	if (e->kind == FX_REPLY) {
		if (client->cut_off)
			return;
		if (e->outcome->code == SLUICE_E_CORRUPT && feed != FEED_WILD)
			oracle_blame(s->oracle, "damage ended a consumer of undamaged records",
				     number, feed);
		if (e->outcome->code != 0)
			oracle_consumer_ended(s->oracle, consumer_number(number, feed));
		else if (client->resuming[feed] && e->outcome->id == 0) {
			client->resuming[feed] = false;
			oracle_consumer_resumed(s->oracle, consumer_number(number, feed));
			if (feed == FEED_ITEMS || feed == FEED_JOBS)
				oracle_resumed(s->oracle, client->session, feed == FEED_JOBS);
		}
		return;
	}
	if (!frame_received(s, number) || e->kind == FX_ITEM_DAMAGED)
		return;
	oracle_consumer_given(s->oracle, consumer_number(number, feed), e->count);
	if (feed == FEED_WILD)
		wild_granted(s, e, number);
	else if (feed == FEED_WILD_JOBS)
		wild_jobs_granted(s, e, number);
	else if (e->kind == FX_GRANT)
		granted(s, e, number, e->token != index_of(release, i));
	else
		jobs_granted(s, e, number);
}

/* Notices to a job's holder: the job was cancelled, or the lease has ended. */
static void noticed(struct sim *s, const struct effect *e)
{
	char id[16];

	if (e->name.len == 0)
		oracle_blame(s->oracle, "a notice to a holder names no job", (int64_t)e->token, 0);
	for (int i = 0; i < CLIENTS; i++) {
		if (s->clients[i].connection == 0 || s->clients[i].session != e->session ||
		    !frame_received(s, i) || *(const char *)e->name.data == 'x')
			continue;
		snprintf(id, sizeof(id), "%.*s", (int)e->name.len, (const char *)e->name.data);
		oracle_job_noticed(s->oracle, atoi(id + 1), e->token, e->kind == FX_JOB_CANCEL);
	}
}

/* Of a CLAIM that the client has sent itself. */
static void claimed(struct sim *s, struct op *op, const struct effect *e)
{
	if (!op->open || !frame_received(s, op->client))
		return;
	op->count += e->count;
	granted(s, e, op->client, false);
}

static void replied(struct sim *s, struct op *op, const struct outcome *out)
{
	if (op->lost) {
		op->open = false;
		oracle_lost_answered(s->oracle, out->code == SLUICE_E_SESSION_GONE);
		return;
	}
	if (op->open && op->client >= 0 && !frame_received(s, op->client))
		return;
	if (!op->open)
		return;
	oracle_lane_answered(s->oracle, op->session, op->control, (uint64_t)(op - s->ops) + 1);
	answered(s, op, out);
}

void on_post(struct engine_sink *sink, struct engine_release *release)
{
	struct sim *s = (struct sim *)sink;

	for (size_t i = 0; !s->answers_lost && i < effects_count(release->effects); i++) {
		const struct effect *e = effects_at(release->effects, i);
		const struct origin *origin;

		if (e->kind == FX_JOB_CANCEL || e->kind == FX_LEASE_LOST)
			noticed(s, e);
		if (e->kind != FX_REPLY && e->kind != FX_GRANT && e->kind != FX_JOBS &&
		    e->kind != FX_ITEM_DAMAGED)
			continue;
		origin = &release->origins[e->command];
		if (origin->sink != sink)
			continue;
		if (origin->kind == ORIGIN_CONSUMER) {
			if (e->kind != FX_REPLY)
				oracle_tag_given(s->oracle, origin->tag);
			consumed(s, release, i, origin->tag);
		} else if (e->kind == FX_REPLY) {
			oracle_command_answered(s->oracle, (uint32_t)origin->tag);
			replied(s, &s->ops[origin->tag], e->outcome);
		} else if (e->kind == FX_GRANT) {
			claimed(s, &s->ops[origin->tag], e);
		}
	}
	if (!s->answers_lost)
		oracle_commit_ended(s->oracle);
	engine_release_done(s->engine, sink, release);
}

void on_consumer_closed(struct engine_sink *sink, uint64_t tag)
{
	struct sim *s = (struct sim *)sink;

	if (!s->answers_lost)
		oracle_tag_ended(s->oracle, tag);
}
