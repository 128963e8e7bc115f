/* SPDX-License-Identifier: Apache-2.0
 * api_probe ADDRESS SCENARIO: checks the contract of include/sluice/client.h, sentence by sentence,
 * in a program that includes nothing else. Prints what does not hold; exit code 0: all of it
 * held. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/integration/probe.h"

/* ---- callbacks ---- */

struct heard {
	sluice_client *client;
	sluice_sub *other;
	atomic_int deliveries, others;
};

static void on_other(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	struct heard *heard = user;

	(void)sub;
	(void)view;
	atomic_fetch_add(&heard->others, 1);
}

static void blocking_calls(sluice_client *client, sluice_sub *sub)
{
	sluice_delivery *delivery = NULL;
	sluice_sub *more = NULL;

	EQUAL(sluice_status(client, NULL, NULL), SLUICE_E_WRONG_STATE);
	EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "a"), NULL, NULL),
	      SLUICE_E_WRONG_STATE);
	EQUAL(sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = "s"), NULL, &more),
	      SLUICE_E_WRONG_STATE);
	EQUAL(sluice_flush(client, 100), SLUICE_E_WRONG_STATE);
	EQUAL(sluice_close(client, true, 100), SLUICE_E_WRONG_STATE);
	EQUAL(sluice_sub_next(sub, 100, &delivery), SLUICE_E_INVAL);
}

static void on_first(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	struct heard *heard = user;

	CHECK(view->kind == SLUICE_DELIVERY_EVENT);
	blocking_calls(heard->client, sub);
	/* Closes its own subscription and another: the library must not use them after this. */
	EQUAL(sluice_sub_close(heard->other, 1000), 0);
	EQUAL(sluice_sub_close(sub, 1000), 0);
	atomic_fetch_add(&heard->deliveries, 1);
}

static void callbacks_may_close(void)
{
	struct heard heard = {.client = connected()};
	sluice_sub *sub = NULL;
	int rc;

	stream_with(heard.client, "s", "s.x", 50);
	EQUAL(sluice_follow(heard.client,
			    &SLUICE_FOLLOW_SPEC(.stream = "s", .from = SLUICE_FROM_NEW,
						.on_delivery = on_other, .user = &heard),
			    NULL, &heard.other),
	      0);
	/* The first delivery may close it before this call returns: CLOSED. */
	rc = sluice_follow(heard.client,
			   &SLUICE_FOLLOW_SPEC(.stream = "s", .from = SLUICE_FROM_FIRST,
					       .on_delivery = on_first, .user = &heard),
			   NULL, &sub);
	CHECK(rc == 0 || (rc == SLUICE_E_CLOSED && sub == NULL));
	CHECK(reaches(&heard.deliveries, 1));
	EQUAL(sluice_publish(heard.client, &SLUICE_MESSAGE(.subject = "s.x"), NULL, NULL), 0);
	EQUAL(sluice_status(heard.client, NULL, NULL), 0);
	CHECK(atomic_load(&heard.deliveries) == 1);
	EQUAL(sluice_close(heard.client, true, PATIENCE_MS), 0);
}

static void on_end(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	struct heard *heard = user;

	if (view->kind != SLUICE_DELIVERY_END)
		return;
	atomic_fetch_add(&heard->deliveries, 1);
	EQUAL(sluice_close(heard->client, true, 100), SLUICE_E_WRONG_STATE);
	EQUAL(sluice_sub_close(sub, 1000), 0);
	if (heard->other != NULL && heard->other != sub)
		EQUAL(sluice_sub_close(heard->other, 1000), 0);
	heard->other = NULL;
}

/* The end of the client ends all subscriptions: the first that is notified closes the others. */
static void subscriptions_may_be_closed_by_the_end(void)
{
	struct heard heard = {.client = connected()};
	sluice_follow_spec spec = SLUICE_FOLLOW_SPEC(.stream = "s", .from = SLUICE_FROM_NEW,
						     .on_delivery = on_end, .user = &heard);
	sluice_sub *sub = NULL;

	stream_with(heard.client, "s", "s.x", 0);
	EQUAL(sluice_follow(heard.client, &spec, NULL, &sub), 0);
	EQUAL(sluice_follow(heard.client, &spec, NULL, &heard.other), 0);
	EQUAL(sluice_close(heard.client, true, PATIENCE_MS), 0);
	CHECK(atomic_load(&heard.deliveries) == 1);
}

/* ---- close against the blocking calls of other threads ---- */

struct waiter {
	sluice_client *client;
	sluice_sub *sub;
	atomic_int began;
	int rc;
};

static void *in_next(void *user)
{
	struct waiter *waiter = user;
	sluice_delivery *delivery = NULL;

	atomic_store(&waiter->began, 1);
	waiter->rc = sluice_sub_next(waiter->sub, -1, &delivery);
	return NULL;
}

static void *in_job_wait(void *user)
{
	struct waiter *waiter = user;

	atomic_store(&waiter->began, 1);
	waiter->rc =
		sluice_job_wait(waiter->client, "open", 0, &SLUICE_CALL(.deadline_ms = -1), NULL);
	return NULL;
}

static void *in_connect(void *user)
{
	struct waiter *waiter = user;

	atomic_store(&waiter->began, 1);
	waiter->rc = sluice_wait_connected(waiter->client, -1);
	return NULL;
}

static void *in_publish(void *user)
{
	struct waiter *waiter = user;

	atomic_store(&waiter->began, 1);
	waiter->rc = sluice_publish(waiter->client, &SLUICE_MESSAGE(.subject = "a"),
				    &SLUICE_CALL(.deadline_ms = -1), NULL);
	return NULL;
}

static void *in_follow(void *user)
{
	struct waiter *waiter = user;
	sluice_sub *sub = NULL;

	atomic_store(&waiter->began, 1);
	waiter->rc = sluice_follow(waiter->client, &SLUICE_FOLLOW_SPEC(.stream = "s"),
				   &SLUICE_CALL(.deadline_ms = -1), &sub);
	CHECK(sub == NULL);
	return NULL;
}

static void close_during(void *(*const *runs)(void *), size_t count, sluice_client *client,
			 sluice_sub *sub)
{
	struct waiter waiters[8] = {0};
	pthread_t threads[8];

	for (size_t i = 0; i < count; i++) {
		waiters[i].client = client;
		waiters[i].sub = sub;
		CHECK(pthread_create(&threads[i], NULL, runs[i], &waiters[i]) == 0);
		CHECK(reaches(&waiters[i].began, 1));
	}
	(void)usleep(
		50000); /* most are in the call by now; the test is valid whether they are or not */
	(void)sluice_close(client, false, 200);
	for (size_t i = 0; i < count; i++) {
		(void)pthread_join(threads[i], NULL);
		if (waiters[i].rc != SLUICE_E_CLOSED)
			(void)printf("waiter %zu: %s\n", i, sluice_error_name(waiters[i].rc));
		CHECK(waiters[i].rc == SLUICE_E_CLOSED);
	}
}

static void close_ends_blocking_calls_of_other_threads(void)
{
	sluice_client *client = connected();
	sluice_sub *sub = NULL;

	stream_with(client, "s", "s.x", 0);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "runs", .jobs = true), NULL,
				  NULL),
	      0);
	EQUAL(sluice_job_submit(client, &SLUICE_JOB_SPEC(.job = "open", .queue = "runs"), NULL,
				NULL),
	      0);
	EQUAL(sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = "s", .from = SLUICE_FROM_NEW),
			    NULL, &sub),
	      0);
	/* Consumes the caught-up marker: the next sluice_sub_next() must wait. */
	{
		sluice_delivery *delivery = NULL;

		EQUAL(sluice_sub_next(sub, PATIENCE_MS, &delivery), 0);
		sluice_delivery_free(delivery);
	}
	close_during((void *(*const[])(void *)){in_next, in_job_wait, in_next}, 3, client, sub);
	/* Nothing listens on port 1. */
	address = "127.0.0.1:1";
	close_during((void *(*const[])(void *)){in_connect, in_publish, in_follow, in_job_wait}, 4,
		     client_of(NULL, NULL, NULL), NULL);
}

static void closing_a_subscription_ends_its_next(void)
{
	struct waiter waiter = {.client = connected()};
	sluice_delivery *delivery = NULL;
	pthread_t thread;

	stream_with(waiter.client, "s", "s.x", 0);
	EQUAL(sluice_follow(waiter.client,
			    &SLUICE_FOLLOW_SPEC(.stream = "s", .from = SLUICE_FROM_NEW), NULL,
			    &waiter.sub),
	      0);
	EQUAL(sluice_sub_next(waiter.sub, PATIENCE_MS, &delivery), 0);
	sluice_delivery_free(delivery);
	CHECK(pthread_create(&thread, NULL, in_next, &waiter) == 0);
	CHECK(reaches(&waiter.began, 1));
	(void)usleep(50000);
	EQUAL(sluice_sub_close(waiter.sub, PATIENCE_MS), 0);
	(void)pthread_join(thread, NULL);
	EQUAL(waiter.rc, SLUICE_E_CLOSED);
	EQUAL(sluice_close(waiter.client, true, PATIENCE_MS), 0);
}

/* ---- events ---- */

struct events {
	atomic_int count;
	sluice_notice_kind kinds[16];
	int codes[16];
	pthread_t opener;
	atomic_bool in_open, during_open;
};

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	struct events *events = user;
	int at = atomic_load(&events->count);

	(void)client;
	CHECK(notice->text != NULL);
	if (atomic_load(&events->in_open) && pthread_equal(events->opener, pthread_self()))
		atomic_store(&events->during_open, true);
	if (at < 16) {
		events->kinds[at] = notice->kind;
		events->codes[at] = notice->code;
		atomic_store(&events->count, at + 1);
	}
}

static void the_first_connection_is_no_resumption(void)
{
	struct events events = {.opener = pthread_self()};
	sluice_client *client = client_of(on_notice, &events, NULL);

	/* A call that was made before it was connected. */
	EQUAL(sluice_status(client, NULL, NULL), 0);
	CHECK(reaches(&events.count, 1));
	CHECK(events.kinds[0] == SLUICE_NOTICE_CONNECTED);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

static void open_calls_nobody_back(void)
{
	static const char *const modes[] = {"own-thread", "caller-loop"};

	for (int i = 0; i < 2; i++) {
		struct events events = {.opener = pthread_self(), .in_open = true};
		sluice_client *client;

		address = "127.0.0.1:99999";
		client = client_of(on_notice, &events,
				   (const char *const[]){"mode", modes[i], NULL});
		atomic_store(&events.in_open, false);
		CHECK(!atomic_load(&events.during_open));
		EQUAL(sluice_wait_connected(client, PATIENCE_MS), SLUICE_E_INVAL);
		CHECK(strstr(sluice_last_error(client), "host:port") != NULL);
		EQUAL(sluice_status(client, NULL, NULL), SLUICE_E_INVAL);
		EQUAL(sluice_close(client, true, 100), 0);
		CHECK(atomic_load(&events.count) == 1 &&
		      events.kinds[0] == SLUICE_NOTICE_DISCONNECTED);
	}
}

static void a_session_name_that_is_taken_over_is_said(void)
{
	static const char *const named[] = {"session", "mine", NULL};
	struct events events = {.opener = pthread_self()};
	sluice_client *older = client_of(on_notice, &events, named), *newer;

	EQUAL(sluice_wait_connected(older, PATIENCE_MS), 0);
	newer = client_of(NULL, NULL, named);
	EQUAL(sluice_wait_connected(newer, PATIENCE_MS), 0);
	CHECK(reaches(&events.count, 2));
	CHECK(events.kinds[1] == SLUICE_NOTICE_DISCONNECTED &&
	      events.codes[1] == SLUICE_E_SESSION_GONE);
	EQUAL(sluice_status(older, NULL, NULL), SLUICE_E_SESSION_GONE);
	EQUAL(sluice_publish(older, &SLUICE_MESSAGE(.subject = "a"), NULL, NULL),
	      SLUICE_E_SESSION_GONE);
	CHECK(strstr(sluice_last_error(older), "another client") != NULL);
	EQUAL(sluice_status(newer, NULL, NULL), 0);
	EQUAL(sluice_close(older, true, 1000), 0);
	EQUAL(sluice_close(newer, true, PATIENCE_MS), 0);
}

/* The same HELLO would be refused again, so it is not repeated for ever. */
static void a_refused_hello_is_final(void)
{
	static const struct {
		const char *key, *value;
		int code;
	} cases[] = {{"gateway", "nowhere", SLUICE_E_NOT_FOUND},
		     {"gateway", "\xff", SLUICE_E_PROTOCOL},
		     {"session", "a\nb", SLUICE_E_INVAL}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		sluice_client *client =
			client_of(NULL, NULL,
				  (const char *const[]){cases[i].key, cases[i].value, NULL});

		EQUAL(sluice_wait_connected(client, -1), cases[i].code);
		CHECK(sluice_last_error(client)[0] != 0);
		EQUAL(sluice_status(client, NULL, NULL), cases[i].code);
		EQUAL(sluice_close(client, true, 100), 0);
	}
}

/* ---- asynchronous opens ---- */

struct answers {
	atomic_int count;
	int code;
};

static void on_done(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct answers *answers = user;

	(void)client;
	answers->code = sluice_reply_code(reply);
	atomic_fetch_add(&answers->count, 1);
}

static void asynchronous_opens_are_answered_once(void)
{
	struct answers answers[4] = {0};
	sluice_client *client = connected();
	sluice_sub *sub[4] = {NULL};
	const char *streams[] = {"s", "nothing"};
	const int codes[] = {0, SLUICE_E_NOT_FOUND, SLUICE_E_TIMEOUT, SLUICE_E_CLOSED};

	stream_with(client, "s", "s.x", 0);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	client = client_of(NULL, NULL, NULL); /* possibly not connected yet */
	for (int i = 0; i < 2; i++)
		EQUAL(sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = streams[i]),
				    &SLUICE_CALL(.done = on_done, .user = &answers[i]), &sub[i]),
		      0);
	for (int i = 0; i < 2; i++) {
		CHECK(reaches(&answers[i].count, 1));
		EQUAL(answers[i].code, codes[i]);
		EQUAL(sluice_sub_close(sub[i], PATIENCE_MS), 0);
	}
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	address = "127.0.0.1:1";
	client = client_of(NULL, NULL, NULL);
	for (int i = 2; i < 4; i++)
		EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q"),
				     &SLUICE_CALL(.deadline_ms = i == 2 ? 50 : -1, .done = on_done,
						  .user = &answers[i]),
				     &sub[i]),
		      0);
	CHECK(reaches(&answers[2].count, 1));
	EQUAL(sluice_sub_close(sub[3], PATIENCE_MS), 0);
	EQUAL(sluice_close(client, true, 100), 0);
	for (int i = 0; i < 4; i++) {
		EQUAL(answers[i].code, codes[i]);
		CHECK(atomic_load(&answers[i].count) == 1);
	}
}

/* ---- refusals say why ---- */

static void refusals_say_why(void)
{
	sluice_client *client = connected();
	sluice_sub *sub = NULL;
	sluice_reply *reply = NULL;
	static char big[5 << 20];
	char key[300] = {0};

	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "q"), NULL, NULL), 0);
	EQUAL(sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = "nothing"), NULL, &sub),
	      SLUICE_E_NOT_FOUND);
	CHECK(sub == NULL && strstr(sluice_last_error(NULL), "'nothing'") != NULL);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q", .lease_ms = 1), NULL, &sub),
	      SLUICE_E_LIMIT);
	CHECK(strstr(sluice_last_error(NULL), "lease_ms is 1") != NULL);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q"), NULL, &sub), 0);
	EQUAL(sluice_sub_credit(sub, UINT32_MAX), SLUICE_E_LIMIT);
	CHECK(strstr(sluice_last_error(client), "in all") != NULL);
	EQUAL(sluice_fd(client), SLUICE_E_INVAL);
	CHECK(strstr(sluice_last_error(NULL), "own-thread") != NULL);
	EQUAL(sluice_sub_close(sub, PATIENCE_MS), 0);
	/* Once an empty name was sent, refused as a malformed frame, and sent again after each
	 * reconnect. */
	EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "a", .queue = ""), NULL, &reply),
	      SLUICE_E_INVAL);
	CHECK(strstr(sluice_reply_text(reply), "empty") != NULL);
	sluice_reply_free(reply);
	EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "a", .key = {key, sizeof(key)}),
			     NULL, &reply),
	      SLUICE_E_LIMIT);
	CHECK(strstr(sluice_reply_text(reply), "key has 300 bytes") != NULL);
	CHECK(strstr(sluice_reply_json(reply), "\"code\":-4") != NULL);
	sluice_reply_free(reply);
	EQUAL(sluice_publish(client,
			     &SLUICE_MESSAGE(.subject = "a",
					     .headers = (const char *const[]){"n", NULL, NULL}),
			     NULL, &reply),
	      SLUICE_E_INVAL);
	sluice_reply_free(reply);
	memset(big, 'x', sizeof(big) - 1);
	EQUAL(sluice_job_submit(client,
				&SLUICE_JOB_SPEC(.job = "j", .queue = "q",
						 .payload = {big, sizeof(big)}),
				NULL, &reply),
	      SLUICE_E_LIMIT);
	CHECK(strstr(sluice_reply_text(reply), "bytes") != NULL);
	sluice_reply_free(reply);
	EQUAL(sluice_status(client, NULL, NULL), 0);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

static void no_reply_is_out_of_memory(void)
{
	sluice_stream_info stream = SLUICE_STREAM_INFO();
	sluice_job_info job = SLUICE_JOB_INFO();

	EQUAL(sluice_reply_code(NULL), SLUICE_E_NOMEM);
	CHECK(strcmp(sluice_reply_text(NULL), sluice_error_text(SLUICE_E_NOMEM)) == 0);
	CHECK(sluice_reply_retriable(NULL) && !sluice_reply_more(NULL) &&
	      !sluice_reply_duplicate(NULL));
	CHECK(sluice_reply_index(NULL) == 0 && sluice_reply_request_id(NULL) == 0 &&
	      sluice_reply_affected(NULL) == 0);
	CHECK(sluice_reply_ref(NULL) == NULL && sluice_reply_json(NULL) == NULL);
	CHECK(!sluice_reply_stream(NULL, 0, &stream) && !sluice_reply_job(NULL, 0, &job));
	CHECK(sluice_reply_line(NULL, 0) == NULL && sluice_reply_state(NULL)[0] == 0);
	CHECK(sluice_reply_attempt(NULL) == 0 && sluice_reply_failed_op(NULL) == 0);
	sluice_reply_free(NULL);
	sluice_delivery_free(NULL);
	sluice_txn_destroy(NULL);
	sluice_config_destroy(NULL);
	EQUAL(sluice_sub_close(NULL, 1), 0);
	EQUAL(sluice_close(NULL, true, 1), 0);
}

/* ---- memory, descriptors ---- */

static atomic_long blocks;

static void *counted_alloc(size_t bytes)
{
	atomic_fetch_add(&blocks, 1);
	return malloc(bytes);
}

static void *counted_resize(void *old, size_t bytes)
{
	atomic_fetch_add(&blocks, old == NULL);
	return realloc(old, bytes);
}

static void counted_release(void *old)
{
	atomic_fetch_sub(&blocks, old != NULL);
	free(old);
}

static void the_allocator_gets_back_what_it_gave(void)
{
	sluice_client *client;
	sluice_reply *reply = NULL, *kept;
	sluice_sub *sub = NULL;
	sluice_delivery *delivery = NULL;
	long before;

	sluice_allocator_set(&SLUICE_ALLOCATOR(.alloc = counted_alloc, .resize = counted_resize,
					       .release = counted_release));
	client = connected();
	stream_with(client, "s", "s.x", 3);
	EQUAL(sluice_status(client, NULL, &reply), 0);
	before = atomic_load(&blocks);
	CHECK(sluice_reply_json(reply) != NULL);
	CHECK(atomic_load(&blocks) > before); /* the text, too, is the allocator's */
	kept = sluice_reply_ref(reply);
	sluice_reply_free(reply);
	EQUAL(sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = "s"), NULL, &sub), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &delivery), 0);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	/* Both outlive the client. */
	CHECK(strcmp(sluice_delivery_get(delivery)->subject, "s.x") == 0);
	CHECK(strstr(sluice_reply_json(kept), "\"streams\":1") != NULL);
	sluice_delivery_free(delivery);
	sluice_reply_free(kept);
	CHECK(atomic_load(&blocks) == 0);
}

static void descriptors_are_close_on_exec(void)
{
	DIR *dir;
	const struct dirent *entry;
	int before[64], count = 0;
	sluice_client *client;

	dir = opendir("/proc/self/fd");
	while ((entry = readdir(dir)) != NULL && count < 64)
		before[count++] = atoi(entry->d_name);
	(void)closedir(dir);
	client = client_of(NULL, NULL,
			   (const char *const[]){"address", "no-such-host.invalid:7584", NULL});
	for (int round = 0; round < 200; round++) {
		dir = opendir("/proc/self/fd");
		while ((entry = readdir(dir)) != NULL) {
			int fd = atoi(entry->d_name), flags = fcntl(fd, F_GETFD);
			bool old = false;

			for (int i = 0; i < count; i++)
				old = old || before[i] == fd;
			if (entry->d_name[0] != '.' && !old && flags >= 0)
				CHECK((flags & FD_CLOEXEC) != 0);
		}
		(void)closedir(dir);
		(void)usleep(500);
	}
	EQUAL(sluice_close(client, true, 100), 0);
}

/* ---- leases ---- */

enum { LEASE_MS = 2000, LEASES = 3, GRANTS = 3 };

struct leased {
	atomic_int items, returned;
	sluice_token tokens[GRANTS];
	uint64_t seqs[GRANTS];
};

static void on_leased(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	struct leased *leased = user;
	int at = atomic_load(&leased->items);

	(void)sub;
	if (view->kind != SLUICE_DELIVERY_ITEM)
		return;
	if (view->failed_attempts > 0)
		atomic_fetch_add(&leased->returned, 1);
	if (at < GRANTS) {
		leased->tokens[at] = view->token;
		leased->seqs[at] = view->seq;
	}
	atomic_store(&leased->items, at + 1);
}

/* A consumer of a queue of its own, whose leases are LEASE_MS long. */
static sluice_sub *leased_from(sluice_client *client, const char *queue, struct leased *leased)
{
	sluice_sub *sub = NULL;

	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = queue, .max_attempts = 1000),
				  NULL, NULL),
	      0);
	EQUAL(sluice_consume(client,
			     &SLUICE_CONSUME_SPEC(.queue = queue, .credit = 10,
						  .lease_ms = LEASE_MS, .on_delivery = on_leased,
						  .user = leased),
			     NULL, &sub),
	      0);
	return sub;
}

static void put_one(sluice_client *client, const char *queue)
{
	EQUAL(sluice_publish(client,
			     &SLUICE_MESSAGE(.subject = "x", .queue = queue, .body = {"b", 1}),
			     NULL, NULL),
	      0);
}

/* The clock is a client that does not extend: each return of its item means that a lease has
 * expired. The grants come one after the other, so that each is due at another time. */
static void leases_are_extended_while_items_are_held(void)
{
	struct leased held = {0}, clock = {0};
	sluice_client *client = client_of(NULL, NULL, NULL),
		      *other = client_of(NULL, NULL,
					 (const char *const[]){"lease_extend", "no", NULL});
	sluice_sub *sub = leased_from(client, "held", &held);

	(void)leased_from(other, "clock", &clock);
	put_one(other, "clock");
	for (int i = 0; i < GRANTS; i++) {
		put_one(client, "held");
		while (atomic_load(&held.items) <= i)
			(void)usleep(1000);
	}
	while (atomic_load(&clock.returned) < LEASES)
		(void)usleep(1000);
	CHECK(atomic_load(&held.returned) == 0);
	for (int i = 0; i < GRANTS; i++) {
		sluice_reply *reply = NULL;

		EQUAL(sluice_item_ack(sub, held.tokens[i], held.seqs[i],
				      &SLUICE_CALL(.deadline_ms = PATIENCE_MS), &reply),
		      0);
		CHECK(sluice_reply_affected(reply) == 1);
		sluice_reply_free(reply);
	}
	EQUAL(sluice_close(other, true, PATIENCE_MS), 0);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

/* No call has failed: the text is the present state of that client. */
static void why_it_is_not_connected_is_not_kept(void)
{
	sluice_client *away = client_of(NULL, NULL,
					(const char *const[]){"address", "127.0.0.1:1", NULL}),
		      *here;

	for (int waited = 0; waited < PATIENCE_MS && sluice_last_error(away)[0] == 0; waited += 5)
		(void)usleep(5000);
	CHECK(strstr(sluice_last_error(away), "127.0.0.1:1") != NULL);
	here = connected();
	CHECK(sluice_last_error(here)[0] == 0);
	EQUAL(sluice_close(here, true, PATIENCE_MS), 0);
	EQUAL(sluice_close(away, false, PATIENCE_MS), 0);
}

static const struct scenario scenarios[] = {
	{"why_it_is_not_connected_is_not_kept", why_it_is_not_connected_is_not_kept},
	{"callbacks_may_close", callbacks_may_close},
	{"subscriptions_may_be_closed_by_the_end", subscriptions_may_be_closed_by_the_end},
	{"close_ends_blocking_calls_of_other_threads", close_ends_blocking_calls_of_other_threads},
	{"closing_a_subscription_ends_its_next", closing_a_subscription_ends_its_next},
	{"the_first_connection_is_no_resumption", the_first_connection_is_no_resumption},
	{"open_calls_nobody_back", open_calls_nobody_back},
	{"a_session_name_that_is_taken_over_is_said", a_session_name_that_is_taken_over_is_said},
	{"a_refused_hello_is_final", a_refused_hello_is_final},
	{"asynchronous_opens_are_answered_once", asynchronous_opens_are_answered_once},
	{"leases_are_extended_while_items_are_held", leases_are_extended_while_items_are_held},
	{"refusals_say_why", refusals_say_why},
	{"no_reply_is_out_of_memory", no_reply_is_out_of_memory},
	{"the_allocator_gets_back_what_it_gave", the_allocator_gets_back_what_it_gave},
	{"descriptors_are_close_on_exec", descriptors_are_close_on_exec},
};

int main(int argc, char **argv)
{
	return probe_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
