/* SPDX-License-Identifier: Apache-2.0
 *
 * An aged store, made through the public calls: the state of a broker's store after long use.
 * Rounds of churn, whose records live for LIFE_ROUNDS and are then deleted out of order, except for
 * a few that stay: items of 40 to 6,000 bytes, jobs and cursors with random names, and streams with
 * bounds, which lose their old events. The free pages are then short runs between the records that
 * stay.
 *
 * The operations are the same each time (one seed). Their distribution over commits depends on the
 * machine, so the free pages are similar but not equal. At the end it waits until the broker has
 * finished its background deletes, which would disturb the next measurement.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/drivers/sluice_driver.h"

enum {
	ROUNDS = 200,
	LIFE_ROUNDS = 50,
	QUEUES = 40,
	ITEMS = 400,   /* of a round, over all queues */
	CURSORS = 200, /* of a round */
	JOBS = 50,     /* of a round */
	STREAMS = 8,
	EVENTS = 200, /* of a round, into one of the streams */
	STREAM_EVENTS_MAX = 2000,
	ITEM_STAYS = 25, /* one in ITEM_STAYS */
	CURSOR_STAYS = 10,
	JOB_STAYS = 10,
	BYTES_MIN = 40,
	BYTES_MAX = 6000,
	EVENT_BYTES_MAX = 400,
	PAYLOAD_BYTES_MAX = 2000,
	QUEUE_CREDIT = 10000,
	KEEP_MS = 1, /* of cancelled jobs, while it lasts */
	WAIT_MS_MAX = 60000,
	QUIET_MS = 200, /* without a commit for this time: background work is done */
	NAME_BYTES = 32,
};

struct item {
	sluice_sub *sub;
	sluice_token token;
	uint64_t seq;
};

/* Objects of one round, until they are deleted. */
struct bucket {
	struct item *items;
	size_t count, capacity;
	uint64_t cursors[CURSORS], jobs[JOBS];
};

struct aging {
	struct sluice_fault fault;
	sluice_client *client;
	uint64_t random;
	unsigned round;
	uint64_t put, got, waiting; /* items; calls without an answer */
	char bytes[BYTES_MAX];
	struct bucket buckets[LIFE_ROUNDS];
};

static uint64_t draw(struct aging *aging, uint64_t below)
{
	uint64_t x = aging->random += 0x9e3779b97f4a7c15ull;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	x ^= x >> 31;
	return below == 0 ? x : x % below;
}

static const char *numbered(char buf[NAME_BYTES], const char *what, uint64_t number)
{
	(void)snprintf(buf, NAME_BYTES, "age-%s-%llx", what, (unsigned long long)number);
	return buf;
}

/* ---- answers ---- */

static void on_answer(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct aging *aging = user;

	(void)client;
	aging->waiting--;
	if (sluice_reply_code(reply) != 0)
		sluice_fault_set(&aging->fault, "ageing: %s", sluice_reply_text(reply));
}

static int asked(struct aging *aging, int rc)
{
	if (rc != 0)
		return bench_error("sluice: ageing: %s", sluice_error_text(rc));
	aging->waiting++;
	return 0;
}

static void on_item(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	struct aging *aging = user;
	struct bucket *bucket = &aging->buckets[aging->round % LIFE_ROUNDS];

	if (view->kind != SLUICE_DELIVERY_ITEM)
		return;
	aging->got++;
	if (bucket->count == bucket->capacity) {
		size_t capacity = bucket->capacity * 2 + ITEMS;
		struct item *items = realloc(bucket->items, capacity * sizeof(*items));

		if (items == NULL) {
			sluice_fault_set(&aging->fault, "ageing: out of memory");
			return;
		}
		bucket->items = items;
		bucket->capacity = capacity;
	}
	bucket->items[bucket->count++] = (struct item){sub, view->token, view->seq};
}

/* Waits until every call is answered and every item that was put has been received. */
static int barrier(struct aging *aging, bool items)
{
	uint64_t until = bench_now_ns() + WAIT_MS_MAX * 1000000ull;

	while (aging->waiting > 0 || (items && aging->got < aging->put)) {
		int rc = sluice_process(aging->client, 1000);

		if (bench_interrupted())
			return bench_error("interrupted");
		if (rc != 0)
			return bench_error("sluice: ageing: %s", sluice_error_text(rc));
		if (sluice_fault_check(&aging->fault) != 0)
			return -1;
		if (bench_now_ns() > until)
			return bench_error("sluice: ageing: %llu answers and %llu items did not "
					   "come in %d s",
					   (unsigned long long)aging->waiting,
					   (unsigned long long)(aging->put - aging->got),
					   WAIT_MS_MAX / 1000);
	}
	return sluice_fault_check(&aging->fault);
}

/* ---- a round ---- */

static int publish_some(struct aging *aging, unsigned count, const char *stream)
{
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_answer, .user = aging);
	char queue[NAME_BYTES];

	for (unsigned i = 0; i < count; i++) {
		uint64_t most = stream != NULL ? EVENT_BYTES_MAX : BYTES_MAX;
		sluice_message message =
			SLUICE_MESSAGE(.subject = BENCH_SUBJECT, .stream = stream,
				       .queue = stream == NULL ? numbered(queue, "queue",
									  i * QUEUES / count)
							       : NULL,
				       .body = {aging->bytes,
						BYTES_MIN + draw(aging, most - BYTES_MIN + 1)});

		if (asked(aging, sluice_publish(aging->client, &message, &call, NULL)) != 0)
			return -1;
	}
	return 0;
}

static int born(struct aging *aging, struct bucket *bucket, sluice_txn *txn)
{
	char name[NAME_BYTES], stream[NAME_BYTES];
	int rc = 0;

	(void)numbered(stream, "stream", aging->round % STREAMS);
	for (int i = 0; i < CURSORS && rc == 0; i++) {
		bucket->cursors[i] = draw(aging, 0);
		rc = sluice_txn_cursor_set(txn, stream,
					   numbered(name, "cursor", bucket->cursors[i]), 0);
	}
	for (int i = 0; i < JOBS && rc == 0; i++) {
		sluice_job_spec spec =
			SLUICE_JOB_SPEC(.queue = "age-jobs",
					.payload = {aging->bytes, draw(aging, PAYLOAD_BYTES_MAX)});

		bucket->jobs[i] = draw(aging, 0);
		spec.job = numbered(name, "job", bucket->jobs[i]);
		rc = sluice_txn_job_submit(txn, &spec);
	}
	return rc == 0 ? 0 : bench_error("sluice: ageing: %s", sluice_error_text(rc));
}

/* Deletes all but those that stay. These are the first ones: names are random, so any choice is as
 * good. */
static int gone(struct aging *aging, struct bucket *bucket, unsigned round, sluice_txn *txn)
{
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_answer, .user = aging);
	char name[NAME_BYTES], stream[NAME_BYTES];
	int rc = 0;

	(void)numbered(stream, "stream", round % STREAMS);
	for (int i = CURSORS / CURSOR_STAYS; i < CURSORS; i++)
		if (asked(aging, sluice_cursor_delete(aging->client, stream,
						      numbered(name, "cursor", bucket->cursors[i]),
						      &call, NULL)) != 0)
			return -1;
	for (int i = JOBS / JOB_STAYS; i < JOBS && rc == 0; i++)
		rc = sluice_txn_job_cancel(txn, numbered(name, "job", bucket->jobs[i]), "");
	for (size_t left = bucket->count; left > 0 && rc == 0; left--) {
		size_t at = draw(aging, left);
		struct item item = bucket->items[at];

		bucket->items[at] = bucket->items[left - 1];
		if (draw(aging, ITEM_STAYS) != 0)
			rc = sluice_item_ack(item.sub, item.token, item.seq,
					     &SLUICE_CALL(.user = SLUICE_FIRE), NULL);
	}
	bucket->count = 0;
	return rc == 0 ? 0 : bench_error("sluice: ageing: %s", sluice_error_text(rc));
}

/* last: creates nothing new. */
static int round_run(struct aging *aging, bool last)
{
	struct bucket *bucket = &aging->buckets[aging->round % LIFE_ROUNDS];
	sluice_call call = SLUICE_CALL(.deadline_ms = -1, .done = on_answer, .user = aging);
	sluice_txn *txn = sluice_txn_create();
	char stream[NAME_BYTES];
	int rc = txn == NULL ? bench_error("sluice: out of memory") : 0;

	if (rc == 0 && aging->round >= LIFE_ROUNDS)
		rc = gone(aging, bucket, aging->round - LIFE_ROUNDS, txn);
	if (rc == 0 && !last) {
		rc = publish_some(aging, ITEMS, NULL);
		aging->put += ITEMS;
		if (rc == 0)
			rc = publish_some(aging, EVENTS,
					  numbered(stream, "stream", draw(aging, STREAMS)));
		if (rc == 0)
			rc = born(aging, bucket, txn);
	}
	if (rc == 0)
		rc = asked(aging, sluice_txn_commit(aging->client, txn, &call, NULL));
	sluice_txn_destroy(txn);
	return rc == 0 ? barrier(aging, last) : rc;
}

/* ---- before and after ---- */

static int retention(struct aging *aging, uint64_t keep_ms)
{
	sluice_reply *reply = NULL;
	int rc = sluice_job_retention_set(aging->client, keep_ms, NULL, &reply);

	return sluice_outcome(rc, reply, "retention of", "jobs");
}

static int topology(struct aging *aging)
{
	char name[NAME_BYTES];
	int rc = sluice_queue_make(aging->client, "age-jobs", true);

	for (unsigned i = 0; i < STREAMS && rc == 0; i++) {
		sluice_stream_spec spec =
			SLUICE_STREAM_SPEC(.name = numbered(name, "stream", i),
					   .max_events = STREAM_EVENTS_MAX, .if_not_exists = true);
		sluice_reply *reply = NULL;
		int code = sluice_stream_create(aging->client, &spec, NULL, &reply);

		rc = sluice_outcome(code, reply, "create stream", name);
	}
	for (unsigned i = 0; i < QUEUES && rc == 0; i++) {
		sluice_consume_spec spec =
			SLUICE_CONSUME_SPEC(.queue = numbered(name, "queue", i),
					    .credit = QUEUE_CREDIT, .session_lease = true,
					    .on_delivery = on_item, .user = aging);
		sluice_sub *sub;
		int code;

		rc = sluice_queue_make(aging->client, name, false);
		code = rc == 0 ? sluice_consume(aging->client, &spec, NULL, &sub) : 0;
		if (code != 0)
			rc = bench_error("sluice: consume %s: %s", name, sluice_error_text(code));
	}
	return rc;
}

static uint64_t number_in(const char *json, const char *member)
{
	const char *at = json != NULL ? strstr(json, member) : NULL;

	return at != NULL ? strtoull(at + strlen(member), NULL, 10) : 0;
}

/* Waits until cancelled jobs are deleted and the broker makes no more commits. */
static int quiet_await(struct aging *aging)
{
	uint64_t start = bench_now_ns(), since = start, commits = 0;

	while (bench_now_ns() - since < QUIET_MS * 1000000ull) {
		sluice_reply *reply = NULL;
		int rc = sluice_status(aging->client, NULL, &reply);
		const char *json = rc == 0 ? sluice_reply_json(reply) : NULL;
		uint64_t now = number_in(json, "\"commits\":");

		if (now != commits ||
		    number_in(json, "\"jobs\":") != number_in(json, "\"jobs_open\":"))
			since = bench_now_ns();
		commits = now;
		if (sluice_outcome(rc, reply, "status of", "the broker") != 0)
			return -1;
		if (bench_now_ns() - start > WAIT_MS_MAX * 1000000ull)
			return bench_error("sluice: ageing: the broker still makes commits after "
					   "%d s",
					   WAIT_MS_MAX / 1000);
		if (bench_interrupted())
			return bench_error("interrupted");
		(void)nanosleep(&(struct timespec){0, 10000000}, NULL);
	}
	return 0;
}

static int churn(struct aging *aging, unsigned rounds)
{
	int rc = topology(aging);

	if (rc == 0)
		rc = retention(aging, KEEP_MS);
	for (; aging->round < rounds + LIFE_ROUNDS && rc == 0; aging->round++)
		rc = round_run(aging, aging->round >= rounds);
	if (rc == 0)
		rc = quiet_await(aging);
	return rc == 0 ? retention(aging, 0) : rc;
}

int sluice_driver_age(const struct bench_system *system, const struct bench_server_spec *spec)
{
	struct aging *aging = calloc(1, sizeof(*aging));
	struct bench_server server;
	int rc;

	if (aging == NULL)
		return bench_error("sluice: out of memory");
	for (size_t i = 0; i < sizeof(aging->bytes); i++)
		aging->bytes[i] = (char)draw(aging, 256);
	rc = sluice_driver_start(system, spec, &server);
	if (rc == 0) {
		rc = sluice_client_begin(&server, NULL, &aging->fault, &aging->client);
		if (rc == 0)
			rc = churn(aging, ROUNDS * spec->age_percent / 100);
		/* its leases end with it: remaining items are ready again */
		sluice_client_end(aging->client);
		bench_stop(&server, SIGTERM);
	}
	for (unsigned i = 0; i < LIFE_ROUNDS; i++)
		free(aging->buckets[i].items);
	free(aging);
	return rc;
}
