/* SPDX-License-Identifier: Apache-2.0
 * oom_probe ADDRESS MODE FIRST STEP WIDTH: runs of a client ("lives"). In each, WIDTH consecutive
 * allocations of libsluice fail, beginning with number FIRST, then FIRST + STEP, and so on, until a
 * life makes fewer. A call may return an error code; repeated, it must succeed. Each publish must
 * have one answer, each event and item must arrive, acked items must be gone, and at the end all
 * memory must be freed. */
#include <pthread.h>

#include "tests/integration/probe.h"

enum { EVENTS = 6, ITEMS = 8, TRIES = 400 };

/* ---- an allocator that fails ---- */

static atomic_long made, live, fail_from, fail_width;
static atomic_bool armed;

static bool fails(void)
{
	long at;

	if (!atomic_load(&armed))
		return false;
	at = atomic_fetch_add(&made, 1) + 1;
	return at >= atomic_load(&fail_from) &&
	       at < atomic_load(&fail_from) + atomic_load(&fail_width);
}

static void *take(size_t bytes)
{
	void *block = fails() ? NULL : malloc(bytes);

	if (block != NULL)
		atomic_fetch_add(&live, 1);
	return block;
}

static void *retake(void *old, size_t bytes)
{
	void *block = fails() ? NULL : realloc(old, bytes);

	if (old == NULL && block != NULL)
		atomic_fetch_add(&live, 1);
	return block;
}

static void give(void *block)
{
	atomic_fetch_sub(&live, 1);
	free(block);
}

/* ---- calls, repeated when they failed for lack of memory ---- */

static bool for_memory(int rc)
{
	return rc == SLUICE_E_NOMEM || rc == SLUICE_E_UNKNOWN || rc == SLUICE_E_DISCONNECTED;
}

/* Repeats a call until it ends for another reason than memory. `also`: the code that a call may get
 * when it is repeated although it had succeeded. */
#define UNTIL(call, also)                                                                       \
	do {                                                                                    \
		int rc_ = 0, tries_ = 0;                                                        \
		do                                                                              \
			rc_ = (call);                                                           \
		while (for_memory(rc_) && ++tries_ < TRIES);                                    \
		if (rc_ != 0 && !(tries_ > 0 && rc_ == (also))) {                               \
			(void)printf("allocation %ld, line %d: %s is %s (%s) after %d tries\n", \
				     atomic_load(&fail_from), __LINE__, #call,                  \
				     sluice_error_name(rc_), sluice_last_error(NULL), tries_);  \
			atomic_fetch_add(&failures, 1);                                         \
		}                                                                               \
	} while (0)
#define HOLDS(condition)                                                             \
	do {                                                                         \
		if (!(condition)) {                                                  \
			(void)printf("allocation %ld, line %d: not so: %s\n",        \
				     atomic_load(&fail_from), __LINE__, #condition); \
			atomic_fetch_add(&failures, 1);                              \
		}                                                                    \
	} while (0)

struct life {
	sluice_client *client;
	bool caller_loop;
	char stream[32], subject[32], queue[32], jobs[32], job[40];
	atomic_int answered, refused, heard;
};

static void on_answer(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct life *life = user;

	(void)client;
	atomic_fetch_add(&life->refused, reply != NULL && sluice_reply_code(reply) != 0);
	atomic_fetch_add(&life->answered, 1);
}

static void on_heard(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	struct life *life = user;

	(void)sub;
	if (view->kind != SLUICE_DELIVERY_EVENT)
		return;
	HOLDS(view->headers != NULL && strcmp(view->headers[1], "value") == 0);
	HOLDS(view->offset == (uint64_t)atomic_load(&life->heard));
	atomic_fetch_add(&life->heard, 1);
}

static bool comes(struct life *life, const atomic_int *value, int wanted)
{
	for (int i = 0; i < 2000 && atomic_load(value) < wanted; i++) {
		if (life->caller_loop)
			(void)sluice_process(life->client, 10);
		else
			(void)usleep(5000);
	}
	return atomic_load(value) == wanted;
}

/* ---- a life ---- */

static bool begin(struct life *life)
{
	const char *keys[][2] = {{"address", address},
				 {"mode", life->caller_loop ? "caller-loop" : "own-thread"},
				 {"reconnect_min_ms", "5"},
				 {"compress", "zstd"}};
	sluice_config *config = NULL;
	int rc;

	for (int i = 0; i < TRIES && config == NULL; i++)
		config = sluice_config_create();
	if (config == NULL)
		return false;
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
		HOLDS(sluice_config_set(config, keys[i][0], keys[i][1]) == 0);
	rc = sluice_open(config, NULL, NULL, &life->client);
	if (rc == SLUICE_E_NOMEM)
		rc = sluice_open(config, NULL, NULL, &life->client);
	sluice_config_destroy(config);
	return rc == 0;
}

static void topology(struct life *life)
{
	const char *subjects[] = {life->subject, NULL};
	sluice_reply *reply = NULL;

	UNTIL(sluice_stream_create(life->client,
				   &SLUICE_STREAM_SPEC(.name = life->stream, .subjects = subjects,
						       .if_not_exists = true),
				   NULL, NULL),
	      0);
	UNTIL(sluice_queue_create(life->client,
				  &SLUICE_QUEUE_SPEC(.name = life->queue, .if_not_exists = true),
				  NULL, NULL),
	      0);
	UNTIL(sluice_queue_create(life->client,
				  &SLUICE_QUEUE_SPEC(.name = life->jobs, .jobs = true,
						     .if_not_exists = true),
				  NULL, NULL),
	      0);
	UNTIL(sluice_lifecycle_create(life->client,
				      "lifecycle oom\nstate NEW -> OLD\nterminal OLD\ncancelled "
				      "OLD\nfailed OLD\n",
				      true, NULL, NULL),
	      0);
	UNTIL((sluice_reply_free(reply),
	       sluice_object_show(life->client, SLUICE_OBJECT_STREAM, life->stream, NULL, &reply)),
	      0);
	for (int i = 0; i < TRIES && reply != NULL && sluice_reply_json(reply) == NULL; i++)
		;
	HOLDS(reply == NULL || sluice_reply_json(reply) != NULL);
	sluice_reply_free(reply);
}

static void publishes(struct life *life)
{
	static const char *const headers[] = {"name", "value", NULL};
	static char body[1024];
	sluice_message message = SLUICE_MESSAGE(.subject = life->subject, .headers = headers,
						.key = {"k", 1}, .body = {body, sizeof(body)});
	sluice_message items[ITEMS];
	int accepted = 0;

	for (int i = 0; i < EVENTS / 2; i++)
		UNTIL(sluice_publish(life->client, &message, NULL, NULL), 0);
	for (int i = 0; i < EVENTS / 2; i++) {
		UNTIL(sluice_publish(life->client, &message,
				     &SLUICE_CALL(.done = on_answer, .user = life), NULL),
		      0);
		accepted++;
	}
	HOLDS(comes(life, &life->answered, accepted) && atomic_load(&life->refused) == 0);
	for (int i = 0; i < ITEMS; i++)
		items[i] =
			SLUICE_MESSAGE(.subject = i % 2 == 0 ? "even" : "odd", .queue = life->queue,
				       .headers = i == 0 ? headers : NULL, .body = {"i", 1});
	UNTIL(sluice_publish_batch(life->client, items, ITEMS / 2, NULL, NULL), 0);
	for (int i = ITEMS / 2; i < ITEMS; i++)
		UNTIL(sluice_publish(life->client, &items[i], &SLUICE_CALL(.user = SLUICE_FIRE),
				     NULL),
		      0);
	UNTIL(sluice_flush(life->client, 0), 0);
}

static void follows(struct life *life)
{
	sluice_sub *sub = NULL, *called = NULL;
	sluice_follow_spec spec =
		SLUICE_FOLLOW_SPEC(.stream = life->stream, .from = SLUICE_FROM_FIRST);

	UNTIL(sluice_follow(life->client, &spec, NULL, &sub), 0);
	for (uint64_t next = 0; sub != NULL && next < EVENTS;) {
		sluice_delivery *delivery = NULL;
		const sluice_delivery_view *view;

		UNTIL(sluice_sub_next(sub, PATIENCE_MS, &delivery), 0);
		if (delivery == NULL)
			break;
		view = sluice_delivery_get(delivery);
		if (view->kind == SLUICE_DELIVERY_EVENT) {
			HOLDS(view->offset == next && view->body.len == 1024 &&
			      view->headers != NULL);
			next++;
		}
		sluice_delivery_free(delivery);
	}
	spec.on_delivery = on_heard;
	spec.user = life;
	UNTIL(sluice_follow(life->client, &spec, NULL, &called), 0);
	HOLDS(comes(life, &life->heard, EVENTS));
	(void)sluice_sub_close(called, 0);
	(void)sluice_sub_close(sub, 0);
}

static void consumes(struct life *life)
{
	sluice_sub *sub = NULL;
	bool nacked = false;

	UNTIL(sluice_consume(life->client, &SLUICE_CONSUME_SPEC(.queue = life->queue, .credit = 3),
			     NULL, &sub),
	      0);
	for (int done = 0; sub != NULL && done < ITEMS;) {
		sluice_delivery *delivery = NULL;
		const sluice_delivery_view *view;

		UNTIL(sluice_sub_next(sub, PATIENCE_MS, &delivery), 0);
		if (delivery == NULL)
			break;
		view = sluice_delivery_get(delivery);
		UNTIL(sluice_lease_extend(sub, view->token, 30000, NULL, NULL), 0);
		if (!nacked) {
			UNTIL(sluice_item_nack(sub, view->token, view->seq, 0, "again", NULL, NULL),
			      SLUICE_E_STALE_TOKEN);
			nacked = true;
		} else {
			if (done % 2 == 0)
				UNTIL(sluice_item_ack(sub, view->token, view->seq,
						      &SLUICE_CALL(.user = SLUICE_FIRE), NULL),
				      0);
			else
				UNTIL(sluice_item_ack(sub, view->token, view->seq, NULL, NULL),
				      SLUICE_E_STALE_TOKEN);
			done++;
		}
		sluice_delivery_free(delivery);
	}
	(void)sluice_sub_close(sub, 0);
}

static void jobs(struct life *life)
{
	sluice_job_report_spec report = SLUICE_JOB_REPORT_SPEC(.job = life->job, .attempt = 1,
							       .source = "oom", .state = "ACTIVE");
	sluice_delivery *delivery = NULL;
	sluice_sub *sub = NULL;
	sluice_reply *reply = NULL;

	UNTIL(sluice_job_submit(life->client,
				&SLUICE_JOB_SPEC(.job = life->job, .queue = life->jobs,
						 .payload = {"p", 1}),
				NULL, NULL),
	      0);
	UNTIL(sluice_consume(life->client,
			     &SLUICE_CONSUME_SPEC(.queue = life->jobs, .credit = 1,
						  .source = "oom"),
			     NULL, &sub),
	      0);
	if (sub != NULL)
		UNTIL(sluice_sub_next(sub, PATIENCE_MS, &delivery), 0);
	if (delivery == NULL)
		return;
	report.token = sluice_delivery_get(delivery)->token;
	UNTIL(sluice_job_intent(life->client, life->job, report.token, 1, "tag", NULL, NULL),
	      SLUICE_E_STALE_TOKEN);
	UNTIL(sluice_job_report(life->client, &report, NULL, NULL), SLUICE_E_STALE_TOKEN);
	report.state = "COMPLETE";
	UNTIL(sluice_job_report(life->client, &report, NULL, NULL), SLUICE_E_STALE_TOKEN);
	UNTIL((sluice_reply_free(reply),
	       sluice_job_show(life->client, life->job, false, NULL, &reply)),
	      0);
	sluice_reply_free(reply);
	sluice_delivery_free(delivery);
	(void)sluice_sub_close(sub, 0);
}

static void transacts(struct life *life)
{
	sluice_txn *txn = NULL;

	for (int i = 0; i < TRIES && txn == NULL; i++)
		txn = sluice_txn_create();
	if (txn == NULL)
		return;
	UNTIL(sluice_txn_publish(txn, &SLUICE_MESSAGE(.subject = "elsewhere", .body = {"t", 1})),
	      0);
	UNTIL(sluice_txn_check_job(txn, life->job, "COMPLETE", 1), 0);
	UNTIL(sluice_txn_commit(life->client, txn, NULL, NULL), 0);
	UNTIL(sluice_txn_commit(life->client, txn, &SLUICE_CALL(.user = SLUICE_FIRE), NULL), 0);
	sluice_txn_destroy(txn);
}

/* Checked by another client without failing allocations: the queue is empty. */
static void nothing_left(const struct life *life, sluice_client *control)
{
	sluice_reply *reply = NULL;
	sluice_queue_info info = SLUICE_QUEUE_INFO();
	sluice_job_info job = SLUICE_JOB_INFO();

	EQUAL(sluice_object_show(control, SLUICE_OBJECT_QUEUE, life->queue, NULL, &reply), 0);
	HOLDS(sluice_reply_queue(reply, 0, &info) && info.put == ITEMS && info.ready == 0 &&
	      info.leased == 0);
	sluice_reply_free(reply);
	EQUAL(sluice_job_show(control, life->job, false, NULL, &reply), 0);
	HOLDS(sluice_reply_job(reply, 0, &job) && job.terminal);
	sluice_reply_free(reply);
}

/* Whether the failure happened within the life. */
static bool live_once(long number, bool caller_loop, long first, long width, sluice_client *control)
{
	struct life life = {.caller_loop = caller_loop};
	long before = atomic_load(&live);
	bool reached;

	(void)snprintf(life.stream, sizeof(life.stream), "s%ld", number);
	(void)snprintf(life.subject, sizeof(life.subject), "s%ld.x", number);
	(void)snprintf(life.queue, sizeof(life.queue), "q%ld", number);
	(void)snprintf(life.jobs, sizeof(life.jobs), "j%ld", number);
	(void)snprintf(life.job, sizeof(life.job), "job%ld", number);
	atomic_store(&made, 0);
	atomic_store(&fail_from, first);
	atomic_store(&fail_width, width);
	atomic_store(&armed, true);
	if (begin(&life)) {
		topology(&life);
		publishes(&life);
		follows(&life);
		consumes(&life);
		jobs(&life);
		transacts(&life);
		(void)sluice_close(life.client, true, PATIENCE_MS);
		atomic_store(&armed, false);
		nothing_left(&life, control);
	}
	atomic_store(&armed, false);
	reached = atomic_load(&made) >= first;
	HOLDS(atomic_load(&live) == before);
	return reached;
}

int main(int argc, char **argv)
{
	bool caller_loop = argc == 6 && strcmp(argv[2], "caller-loop") == 0;
	long first, step, width, number = 0;
	sluice_client *control;

	if (argc != 6) {
		(void)fprintf(stderr, "usage: oom_probe ADDRESS MODE FIRST STEP WIDTH\n");
		return 2;
	}
	address = argv[1];
	first = atol(argv[3]);
	step = atol(argv[4]);
	width = atol(argv[5]);
	sluice_allocator_set(&SLUICE_ALLOCATOR(.alloc = take, .resize = retake, .release = give));
	control = connected();
	while (atomic_load(&failures) == 0 &&
	       live_once(number, caller_loop, first + number * step, width, control)) {
		number++;
		(void)fflush(stdout);
	}
	EQUAL(sluice_close(control, true, PATIENCE_MS), 0);
	HOLDS(atomic_load(&live) == 0);
	(void)printf("%ld lives; the last one made %ld allocations\n", number + 1,
		     atomic_load(&made));
	return atomic_load(&failures) == 0 ? 0 : 1;
}
