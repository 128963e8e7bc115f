/* SPDX-License-Identifier: Apache-2.0
 *
 * Demand: which consumer may claim how much of which queue. Credit is kept by the engine, not by
 * core: it becomes CLAIM commands at the end of a batch, so a publish that makes an item ready is
 * delivered by the same commit.
 *
 * Two consumers of one queue do not always accept the same entries: an orphaned job goes only to a
 * consumer that accepts orphans. So readiness is kept by kind: entries, which every consumer
 * accepts, for the queue; orphans for each class of its consumers. A claim that was granted less
 * than it asked for shows that nothing is left of the kinds it could take, and says nothing about
 * others. For each FX_QUEUE_READY at most one claim of each class is granted less, for any number
 * of waiting consumers.
 *
 * Invariants: a queue is in to_serve exactly while one of its consumers can be served. `willing`
 * holds exactly the consumers that have credit, are not paused and do not resume; `resuming` those
 * that are not paused and resume; while its sink lags, such a consumer may be in the sink's `held`
 * instead. `willing`, `resuming` and a class's `willing` are ordered by turn.
 */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/engine/demand.h"
#include "broker/util/invariant.h"
#include "protocol/limits.h"

void demand_init(struct demand *demand)
{
	memset(demand, 0, sizeof(*demand));
}

static struct demand_queue *queue_find(struct demand *demand, uint32_t gateway, uint64_t id)
{
	struct queue_key key = {gateway, id};
	struct demand_queue *queue;

	HASH_FIND(hh, demand->queues, &key, sizeof(key), queue);
	return queue;
}

static struct consumer *consumer_find(struct demand *demand, struct engine_sink *sink, uint64_t tag)
{
	struct consumer_key key = {sink, tag};
	struct consumer *consumer;

	HASH_FIND(hh, demand->consumers, &key, sizeof(key), consumer);
	return consumer;
}

/* ---- lists ---- */

static struct consumer *older(struct consumer *a, struct consumer *b)
{
	if (a == NULL || b == NULL)
		return a != NULL ? a : b;
	return a->turn <= b->turn ? a : b;
}

/* The consumer with the lowest turn among those that can be served; NULL: none. */
static struct consumer *queue_pick(const struct demand_queue *queue)
{
	struct consumer *pick = queue->resuming;
	struct demand_class *class;

	if (queue->entries)
		return older(pick, queue->willing);
	DL_FOREACH(queue->classes, class) {
		if (class->orphans)
			pick = older(pick, class->willing);
	}
	return pick;
}

/* After any change that may affect queue_pick(). */
static void queue_list(struct demand *demand, struct demand_queue *queue)
{
	bool wanted = queue_pick(queue) != NULL;

	if (wanted == queue->listed)
		return;
	queue->listed = wanted;
	if (wanted)
		DL_APPEND2(demand->to_serve, queue, serve_prev, serve_next);
	else
		DL_DELETE2(demand->to_serve, queue, serve_prev, serve_next);
}

static enum consumer_place place_of(const struct consumer *consumer)
{
	if (consumer->paused || (!consumer->resume && consumer->spec.credit == 0))
		return CONSUMER_IDLE;
	if (consumer->from->lags)
		return CONSUMER_HELD;
	return consumer->resume ? CONSUMER_RESUMING : CONSUMER_WILLING;
}

static void consumer_leave(struct consumer *consumer)
{
	struct demand_queue *queue = consumer->queue;

	if (consumer->place == CONSUMER_HELD) {
		DL_DELETE(consumer->from->held, consumer);
	} else if (consumer->place == CONSUMER_RESUMING) {
		DL_DELETE(queue->resuming, consumer);
	} else if (consumer->place == CONSUMER_WILLING) {
		DL_DELETE(queue->willing, consumer);
		if (consumer->class != NULL)
			DL_DELETE2(consumer->class->willing, consumer, class_prev, class_next);
	}
	consumer->place = CONSUMER_IDLE;
}

static int by_turn(const struct consumer *a, const struct consumer *b)
{
	return a->turn < b->turn ? -1 : a->turn > b->turn;
}

/* Adds it to its list, after those with lower turns. With a new turn that is the end. */
static void consumer_enter(struct consumer *consumer)
{
	struct demand_queue *queue = consumer->queue;
	struct consumer **list =
		consumer->place == CONSUMER_RESUMING ? &queue->resuming : &queue->willing;

	if (consumer->place == CONSUMER_HELD) {
		DL_APPEND(consumer->from->held, consumer);
		return;
	}
	if (*list == NULL || (*list)->prev->turn < consumer->turn)
		DL_APPEND(*list, consumer);
	else
		DL_INSERT_INORDER(*list, consumer, by_turn);
	invariant(consumer->next == NULL || consumer->next->turn > consumer->turn,
		  "queue %llu: turn %llu stands in front of %llu", ULL(queue->key.queue),
		  ULL(consumer->turn), ULL(consumer->next->turn));
	if (consumer->place != CONSUMER_WILLING || consumer->class == NULL)
		return;
	list = &consumer->class->willing;
	if (*list == NULL || (*list)->class_prev->turn < consumer->turn)
		DL_APPEND2(*list, consumer, class_prev, class_next);
	else
		DL_INSERT_INORDER2(*list, consumer, by_turn, class_prev, class_next);
}

/* After a change of its credit, pause or resume. In an unchanged list it keeps its turn. */
static void consumer_place(struct demand *demand, struct consumer *consumer)
{
	enum consumer_place place = place_of(consumer);

	if (place == consumer->place)
		return;
	consumer_leave(consumer);
	consumer->place = (uint8_t)place;
	if (place != CONSUMER_IDLE) {
		consumer->turn = ++demand->turns;
		consumer_enter(consumer);
	}
	queue_list(demand, consumer->queue);
}

/* ---- consumers ---- */

static struct demand_queue *queue_need(struct demand *demand, uint32_t gateway, uint64_t id)
{
	struct demand_queue *queue = queue_find(demand, gateway, id);

	if (queue != NULL)
		return queue;
	queue = calloc(1, sizeof(*queue));
	if (queue == NULL)
		return NULL;
	queue->key = (struct queue_key){gateway, id};
	HASH_ADD(hh, demand->queues, key, sizeof(queue->key), queue);
	if (HASHED(hh, queue))
		return queue;
	free(queue);
	return NULL;
}

static void queue_drop_unused(struct demand *demand, struct demand_queue *queue)
{
	if (queue->consumers > 0)
		return;
	invariant(queue->willing == NULL && queue->resuming == NULL && queue->classes == NULL,
		  "queue %llu has no consumer and is not empty", ULL(queue->key.queue));
	queue_list(demand, queue);
	invariant(!queue->listed, "queue %llu has no consumer and is to be served",
		  ULL(queue->key.queue));
	HASH_DELETE(hh, demand->queues, queue);
	free(queue);
}

/* The class of a consumer, created for its first member; NULL and 0: it accepts no orphans. */
static int class_need(struct demand_queue *queue, const struct consumer_spec *spec,
		      struct demand_class **ret)
{
	struct demand_class *class;

	*ret = NULL;
	if (!(spec->claim_flags & CLAIM_ORPHANS))
		return 0;
	DL_SEARCH_SCALAR(queue->classes, class, source, spec->source);
	if (class == NULL) {
		class = calloc(1, sizeof(*class));
		if (class == NULL)
			return SLUICE_E_NOMEM;
		class->source = spec->source;
		DL_APPEND(queue->classes, class);
	}
	class->consumers++;
	*ret = class;
	return 0;
}

static void class_leave(struct demand_queue *queue, struct demand_class *class)
{
	if (class == NULL)
		return;
	invariant(class->consumers > 0,
		  "queue %llu: a class loses a consumer that it does not have",
		  ULL(queue->key.queue));
	if (--class->consumers > 0)
		return;
	invariant(class->willing == NULL, "queue %llu: a class without consumers has a willing one",
		  ULL(queue->key.queue));
	DL_DELETE(queue->classes, class);
	free(class);
}

static struct demand_session *session_find(struct demand *demand, uint32_t gateway, uint64_t id)
{
	struct session_key key = {gateway, id};
	struct demand_session *session;

	HASH_FIND(hh, demand->sessions, &key, sizeof(key), session);
	return session;
}

static struct demand_session *session_need(struct demand *demand, uint32_t gateway, uint64_t id)
{
	struct demand_session *session = session_find(demand, gateway, id);

	if (session != NULL)
		return session;
	session = calloc(1, sizeof(*session));
	if (session == NULL)
		return NULL;
	session->key = (struct session_key){gateway, id};
	HASH_ADD(hh, demand->sessions, key, sizeof(session->key), session);
	if (HASHED(hh, session))
		return session;
	free(session);
	return NULL;
}

static void session_drop_unused(struct demand *demand, struct demand_session *session)
{
	if (session == NULL || session->consumers != NULL)
		return;
	HASH_DELETE(hh, demand->sessions, session);
	free(session);
}

static struct demand_sink *sink_need(struct demand *demand, const struct engine_sink *sink)
{
	size_t i = 0;

	while (i < demand->sink_count && demand->sinks[i].sink != sink)
		i++;
	invariant(i < SINKS_MAX, "a sink that the engine does not know: it has %d", SINKS_MAX);
	if (i == demand->sink_count)
		demand->sinks[demand->sink_count++] = (struct demand_sink){.sink = sink};
	return &demand->sinks[i];
}

int demand_open(struct demand *demand, const struct consumer_spec *spec)
{
	struct demand_queue *queue;
	struct consumer *consumer = calloc(1, sizeof(*consumer));
	int rc;

	if (consumer == NULL)
		return SLUICE_E_NOMEM;
	queue = queue_need(demand, spec->gateway, spec->queue);
	consumer->session = session_need(demand, spec->gateway, spec->session);
	rc = queue == NULL || consumer->session == NULL ? SLUICE_E_NOMEM
							: class_need(queue, spec, &consumer->class);
	if (rc == 0) {
		consumer->key = (struct consumer_key){spec->sink, spec->tag};
		HASH_ADD(hh, demand->consumers, key, sizeof(consumer->key), consumer);
		rc = HASHED(hh, consumer) ? 0 : SLUICE_E_NOMEM;
		if (rc != 0)
			class_leave(queue, consumer->class);
	}
	if (rc != 0) {
		if (queue != NULL)
			queue_drop_unused(demand, queue);
		session_drop_unused(demand, consumer->session);
		free(consumer);
		return rc;
	}
	/* Whether entries are ready is not known yet. */
	queue->entries = true;
	if (consumer->class != NULL)
		consumer->class->orphans = true;
	queue->consumers++;
	DL_APPEND2(consumer->session->consumers, consumer, session_prev, session_next);
	consumer->spec = *spec;
	consumer->resume = (spec->claim_flags & CLAIM_RESUME) != 0;
	consumer->spec.claim_flags &= (uint8_t)~CLAIM_RESUME;
	if (consumer->spec.credit > LIMIT_CREDIT_MAX)
		consumer->spec.credit = (uint32_t)LIMIT_CREDIT_MAX;
	consumer->queue = queue;
	consumer->from = sink_need(demand, spec->sink);
	demand->count++;
	consumer_place(demand, consumer);
	queue_list(demand, queue); /* others may be willing, too */
	return 0;
}

void demand_credit(struct demand *demand, struct engine_sink *sink, uint64_t tag, uint32_t more)
{
	struct consumer *consumer = consumer_find(demand, sink, tag);

	if (consumer == NULL)
		return;
	if (more > LIMIT_CREDIT_MAX - consumer->spec.credit)
		more = (uint32_t)(LIMIT_CREDIT_MAX - consumer->spec.credit);
	consumer->spec.credit += more;
	consumer_place(demand, consumer);
}

void demand_pause(struct demand *demand, struct engine_sink *sink, uint64_t tag, bool paused)
{
	struct consumer *consumer = consumer_find(demand, sink, tag);

	if (consumer == NULL)
		return;
	consumer->paused = paused;
	consumer_place(demand, consumer);
}

static void consumer_drop(struct demand *demand, struct consumer *consumer)
{
	struct demand_queue *queue = consumer->queue;

	invariant(demand->count > 0 && queue->consumers > 0,
		  "queue %llu: a consumer goes of %zu, of %zu in all", ULL(queue->key.queue),
		  queue->consumers, demand->count);
	consumer_leave(consumer);
	class_leave(queue, consumer->class);
	DL_DELETE2(consumer->session->consumers, consumer, session_prev, session_next);
	session_drop_unused(demand, consumer->session);
	HASH_DELETE(hh, demand->consumers, consumer);
	queue->consumers--;
	demand->count--;
	free(consumer);
	queue_list(demand, queue);
	queue_drop_unused(demand, queue);
}

void demand_close(struct demand *demand, struct engine_sink *sink, uint64_t tag)
{
	struct consumer *consumer = consumer_find(demand, sink, tag);

	if (consumer != NULL)
		consumer_drop(demand, consumer);
}

void demand_session_moved(struct demand *demand, uint32_t gateway, uint64_t session)
{
	struct demand_session *moved = session_find(demand, gateway, session);
	struct consumer *consumer, *next;

	if (moved == NULL)
		return;
	/* The session's entry is freed with its last consumer. */
	DL_FOREACH_SAFE2(moved->consumers, consumer, next, session_next)
	consumer_drop(demand, consumer);
}

/* ---- queues ---- */

void demand_queue_ready(struct demand *demand, uint32_t gateway, uint64_t id, bool orphan,
			uint64_t source)
{
	struct demand_queue *queue = queue_find(demand, gateway, id);
	struct demand_class *class;

	if (queue == NULL)
		return;
	if (orphan) {
		DL_FOREACH(queue->classes, class)
			class->orphans |= source == 0 || class->source == source;
	} else {
		queue->entries = true;
	}
	queue_list(demand, queue);
}

void demand_queue_deleted(struct demand *demand, uint32_t gateway, uint64_t id)
{
	struct demand_queue *queue = queue_find(demand, gateway, id);
	struct demand_class *class;

	/* The effect notifies the sinks of the deletion, and they close their consumers; until then
	 * there is nothing to claim. */
	if (queue == NULL)
		return;
	queue->entries = false;
	DL_FOREACH(queue->classes, class)
		class->orphans = false;
	queue_list(demand, queue);
}

void demand_sink_lags(struct demand *demand, const struct engine_sink *sink, bool lags)
{
	struct demand_sink *from = sink_need(demand, sink);

	from->lags = lags;
	while (!lags && from->held != NULL)
		consumer_place(demand, from->held);
}

/* ---- claims ---- */

/* Consumers of a sink that lags are moved to `held` when they are reached, each once. */
static struct consumer *next_to_serve(struct demand *demand)
{
	for (struct demand_queue *queue; (queue = demand->to_serve) != NULL;) {
		struct consumer *consumer = queue_pick(queue);

		invariant(consumer != NULL,
			  "queue %llu is to be served, and no consumer of it can be",
			  ULL(queue->key.queue));
		if (!consumer->from->lags)
			return consumer;
		consumer_place(demand, consumer);
	}
	return NULL;
}

struct consumer *demand_next(struct demand *demand, struct command *ret_command,
			     struct cmd_claim *ret_claim)
{
	struct consumer *consumer = next_to_serve(demand);
	const struct demand_queue *queue;

	if (consumer == NULL)
		return NULL;
	queue = consumer->queue;
	invariant(!consumer->paused && (consumer->resume || consumer->spec.credit > 0),
		  "queue %llu: a claim for a consumer with credit %u, paused %d",
		  ULL(queue->key.queue), consumer->spec.credit, consumer->paused);
	memset(ret_claim, 0, sizeof(*ret_claim));
	ret_claim->queue = queue->key.queue;
	ret_claim->lease_ms = consumer->spec.lease_ms;
	ret_claim->flags = consumer->spec.claim_flags;
	ret_claim->source = consumer->spec.source;
	ret_claim->extend_max_ms = consumer->spec.extend_max_ms;
	ret_claim->max = consumer->spec.credit < LIMIT_GRANT_ITEMS_MAX
				 ? consumer->spec.credit
				 : (uint32_t)LIMIT_GRANT_ITEMS_MAX;
	if (consumer->resume) {
		ret_claim->flags |= CLAIM_RESUME;
		ret_claim->max = (uint32_t)LIMIT_GRANT_ITEMS_MAX;
		ret_claim->resume_after = consumer->resume_after;
		ret_claim->resume_until = consumer->resume_until;
	}
	memset(ret_command, 0, sizeof(*ret_command));
	ret_command->type = COMMAND_CLAIM;
	ret_command->gateway = (uint32_t)queue->key.gateway;
	ret_command->session = consumer->spec.session;
	ret_command->body = ret_claim;
	return consumer;
}

static void spend(struct consumer *consumer, uint32_t got)
{
	consumer->spec.credit = got < consumer->spec.credit ? consumer->spec.credit - got : 0;
}

void demand_claimed(struct demand *demand, struct consumer *consumer, const struct cmd_claim *claim,
		    const struct outcome *outcome)
{
	struct demand_queue *queue = consumer->queue;

	if (outcome->code != 0) {
		/* Its session or queue is gone: no credit is left; an effect notifies the sink of
		 * the end. */
		consumer->spec.credit = 0;
		consumer->resume = false;
	} else if (claim->flags & CLAIM_RESUME) {
		/* The index of the first step bounds the others: entries that the session is
		 * granted from now on are delivered by their grants. */
		if (consumer->resume_until == 0)
			consumer->resume_until = outcome->index;
		consumer->resume_after = outcome->id;
		consumer->resume = outcome->id != 0;
		spend(consumer, outcome->count);
	} else {
		invariant(outcome->count <= claim->max && outcome->count <= consumer->spec.credit,
			  "queue %llu: a claim of at most %u was granted %u, with credit for %u",
			  ULL(queue->key.queue), claim->max, outcome->count, consumer->spec.credit);
		spend(consumer, outcome->count);
		if (outcome->count < claim->max) {
			queue->entries = false;
			if (consumer->class != NULL)
				consumer->class->orphans = false;
		}
	}
	/* The consumer goes to the end of its list and the queue to the end of to_serve: the next
	 * claim is for the next queue, and there for the next consumer. */
	consumer_leave(consumer);
	consumer_place(demand, consumer);
	if (queue->listed) {
		DL_DELETE2(demand->to_serve, queue, serve_prev, serve_next);
		queue->listed = false;
	}
	queue_list(demand, queue);
}

void demand_note(const struct consumer *consumer, struct claim_note *ret)
{
	*ret = (struct claim_note){.key = consumer->key,
				   .credit = consumer->spec.credit,
				   .resume = consumer->resume,
				   .resume_after = consumer->resume_after,
				   .resume_until = consumer->resume_until,
				   .turn = consumer->turn,
				   .entries = consumer->queue->entries,
				   .orphans = consumer->class != NULL && consumer->class->orphans};
}

void demand_undo(struct demand *demand, const struct claim_note *note)
{
	struct consumer *consumer = consumer_find(demand, note->key.sink, note->key.tag);
	struct demand_queue *queue;

	invariant(consumer != NULL, "the consumer of a claim that is undone is gone: tag %llu",
		  ULL(note->key.tag));
	queue = consumer->queue;
	consumer_leave(consumer);
	consumer->spec.credit = note->credit;
	consumer->resume = note->resume;
	consumer->resume_after = note->resume_after;
	consumer->resume_until = note->resume_until;
	consumer->turn = note->turn;
	consumer->place = (uint8_t)place_of(consumer);
	invariant(consumer->place != CONSUMER_IDLE,
		  "a claim was made for an idle consumer: tag %llu", ULL(note->key.tag));
	consumer_enter(consumer);
	queue->entries |= note->entries;
	if (consumer->class != NULL)
		consumer->class->orphans |= note->orphans;
	/* The queue was the first in to_serve when the claim was made. */
	if (queue->listed)
		DL_DELETE2(demand->to_serve, queue, serve_prev, serve_next);
	DL_PREPEND2(demand->to_serve, queue, serve_prev, serve_next);
	queue->listed = true;
}

void demand_fini(struct demand *demand)
{
	struct consumer *consumer, *next;

	HASH_ITER(hh, demand->consumers, consumer, next)
		consumer_drop(demand, consumer);
	invariant(demand->queues == NULL && demand->sessions == NULL && demand->to_serve == NULL &&
			  demand->count == 0,
		  "%zu consumers stay behind", demand->count);
}
