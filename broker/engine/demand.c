/* SPDX-License-Identifier: Apache-2.0
 * Demand: who may be given how much of which queue. Credit is the engine's, not core's: it becomes CLAIM commands at the end of a
 * batch, so a publish that makes an item ready is delivered by the same commit.
 *
 * Invariant: a queue is in to_serve only while it may have something ready and one of its consumers has credit or is to be resumed. */
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "broker/engine/engine_internal.h"
#include "protocol/limits.h"

void demand_init(struct demand *demand)
{
	memset(demand, 0, sizeof(*demand));
}

static bool wants(const struct consumer *consumer)
{
	return !consumer->paused &&
	       (consumer->resume || (consumer->spec.credit > 0 && consumer->queue->maybe_ready));
}

static void unlist(struct demand *demand, struct demand_queue *queue)
{
	if (!queue->listed)
		return;
	DL_DELETE2(demand->to_serve, queue, serve_prev, serve_next);
	queue->listed = false;
}

static void list_if_wanted(struct demand *demand, struct demand_queue *queue)
{
	struct consumer *consumer;

	if (queue->listed)
		return;
	DL_FOREACH(queue->consumers, consumer) {
		if (!wants(consumer))
			continue;
		DL_APPEND2(demand->to_serve, queue, serve_prev, serve_next);
		queue->listed = true;
		return;
	}
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

int demand_open(struct demand *demand, const struct consumer_spec *spec)
{
	struct demand_queue *queue = queue_find(demand, spec->gateway, spec->queue);
	struct consumer *consumer = calloc(1, sizeof(*consumer));

	if (consumer == NULL)
		return SLUICE_E_NOMEM;
	if (queue == NULL) {
		queue = calloc(1, sizeof(*queue));
		if (queue == NULL) {
			free(consumer);
			return SLUICE_E_NOMEM;
		}
		queue->key = (struct queue_key){spec->gateway, spec->queue};
		HASH_ADD(hh, demand->queues, key, sizeof(queue->key), queue);
	}
	/* What is ready is not known yet, and a new consumer may take orphans where the others do not. */
	queue->maybe_ready = true;
	consumer->key = (struct consumer_key){spec->sink, spec->tag};
	consumer->spec = *spec;
	consumer->resume = (spec->claim_flags & CLAIM_RESUME) != 0;
	consumer->spec.claim_flags &= (uint8_t)~CLAIM_RESUME;
	consumer->queue = queue;
	HASH_ADD(hh, demand->consumers, key, sizeof(consumer->key), consumer);
	DL_APPEND(queue->consumers, consumer);
	demand->count++;
	list_if_wanted(demand, queue);
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
	list_if_wanted(demand, consumer->queue);
}

void demand_pause(struct demand *demand, struct engine_sink *sink, uint64_t tag, bool paused)
{
	struct consumer *consumer = consumer_find(demand, sink, tag);

	if (consumer == NULL)
		return;
	consumer->paused = paused;
	list_if_wanted(demand, consumer->queue);
}

static void consumer_drop(struct demand *demand, struct consumer *consumer)
{
	struct demand_queue *queue = consumer->queue;

	HASH_DELETE(hh, demand->consumers, consumer);
	DL_DELETE(queue->consumers, consumer);
	demand->count--;
	free(consumer);
	if (queue->consumers != NULL)
		return;
	unlist(demand, queue);
	HASH_DELETE(hh, demand->queues, queue);
	free(queue);
}

void demand_close(struct demand *demand, struct engine_sink *sink, uint64_t tag)
{
	struct consumer *consumer = consumer_find(demand, sink, tag);

	if (consumer != NULL)
		consumer_drop(demand, consumer);
}

void demand_queue_ready(struct demand *demand, uint32_t gateway, uint64_t id)
{
	struct demand_queue *queue = queue_find(demand, gateway, id);

	if (queue == NULL)
		return;
	queue->maybe_ready = true;
	list_if_wanted(demand, queue);
}

void demand_queue_deleted(struct demand *demand, uint32_t gateway, uint64_t id)
{
	struct demand_queue *queue = queue_find(demand, gateway, id);

	/* Sinks hear of the deletion by the effect and close their consumers; until then there is nothing to claim. */
	if (queue == NULL)
		return;
	queue->maybe_ready = false;
	unlist(demand, queue);
}

struct consumer *demand_next(struct demand *demand, struct command *ret_command, struct cmd_claim *ret_claim)
{
	while (demand->to_serve != NULL) {
		struct demand_queue *queue = demand->to_serve;
		struct consumer *consumer;

		DL_FOREACH(queue->consumers, consumer)
			if (wants(consumer))
				break;
		if (consumer == NULL) {
			unlist(demand, queue);
			continue;
		}
		memset(ret_claim, 0, sizeof(*ret_claim));
		ret_claim->queue = queue->key.queue;
		ret_claim->lease_ms = consumer->spec.lease_ms;
		ret_claim->flags = consumer->spec.claim_flags;
		ret_claim->source = consumer->spec.source;
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
	return NULL;
}

void demand_claimed(struct demand *demand, struct consumer *consumer, const struct cmd_claim *claim,
		    const struct outcome *outcome)
{
	struct demand_queue *queue = consumer->queue;
	uint32_t got = outcome->code == 0 ? outcome->count : 0;

	if (outcome->code != 0) {
		/* Its session or queue is gone: no credit is left, the sink hears of the end by an effect. */
		consumer->spec.credit = 0;
		consumer->resume = false;
	} else if (claim->flags & CLAIM_RESUME) {
		/* The first step's index bounds the rest: what this session is given from now on is delivered as it is given. */
		if (consumer->resume_until == 0)
			consumer->resume_until = outcome->index;
		consumer->resume_after = outcome->id;
		consumer->resume = outcome->id != 0;
		consumer->spec.credit = got < consumer->spec.credit ? consumer->spec.credit - got : 0;
	} else {
		consumer->spec.credit = got < consumer->spec.credit ? consumer->spec.credit - got : 0;
		if (got < claim->max)
			queue->maybe_ready = false;
	}
	/* To the end of the queue's list: the next claim is for the next consumer. */
	DL_DELETE(queue->consumers, consumer);
	DL_APPEND(queue->consumers, consumer);
	if (queue->listed)
		unlist(demand, queue);
	list_if_wanted(demand, queue);
}

void demand_fini(struct demand *demand)
{
	struct consumer *consumer, *next;

	HASH_ITER(hh, demand->consumers, consumer, next)
		consumer_drop(demand, consumer);
}
