/* SPDX-License-Identifier: Apache-2.0
 * hold_probe ADDRESS SCENARIO: checks what client.h says about the items that a consumer holds, and
 * about calls that do not wait for their answer. */
#include "tests/integration/probe.h"

/* ---- events of the client ---- */

enum { SEEN_MAX = 16 };
struct seen {
	atomic_int count;
	sluice_notice events[SEEN_MAX];
	char texts[SEEN_MAX][256], jobs[SEEN_MAX][64];
};

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	struct seen *seen = user;
	int at = atomic_load(&seen->count);

	(void)client;
	if (notice->kind == SLUICE_NOTICE_CONNECTED || at == SEEN_MAX)
		return;
	seen->events[at] = *notice;
	(void)snprintf(seen->texts[at], sizeof(seen->texts[at]), "%s",
		       notice->text != NULL ? notice->text : "");
	(void)snprintf(seen->jobs[at], sizeof(seen->jobs[at]), "%s",
		       notice->job != NULL ? notice->job : "");
	atomic_store(&seen->count, at + 1);
}

static void queue_with(sluice_client *client, const char *queue, int items)
{
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = queue, .max_attempts = 1000),
				  NULL, NULL),
	      0);
	for (int i = 0; i < items; i++)
		EQUAL(sluice_publish(client,
				     &SLUICE_MESSAGE(.subject = "x", .queue = queue,
						     .body = {"b", 1}),
				     NULL, NULL),
		      0);
}

/* ---- calls that wait, and calls that do not ---- */

static void no_call_is_a_call_that_waits(void)
{
	struct seen seen = {0};
	sluice_client *client = client_of(on_notice, &seen, NULL);
	const sluice_call fire = SLUICE_CALL(.user = SLUICE_FIRE);
	sluice_delivery *item = NULL;
	sluice_reply *reply = NULL;
	sluice_sub *sub = NULL;

	queue_with(client, "q", 2);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q"), NULL, &sub), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &item), 0);
	/* A lease that nobody holds: a call that waits returns the refusal. */
	EQUAL(sluice_item_ack(sub, 1, 1, NULL, &reply), SLUICE_E_STALE_TOKEN);
	EQUAL(sluice_reply_code(reply), SLUICE_E_STALE_TOKEN);
	sluice_reply_free(reply);
	EQUAL(sluice_item_nack(sub, 1, 1, 0, "", NULL, NULL), SLUICE_E_STALE_TOKEN);
	EQUAL(sluice_lease_extend(sub, 1, 0, NULL, NULL), SLUICE_E_STALE_TOKEN);
	CHECK(sluice_last_error(NULL)[0] != 0);
	EQUAL(sluice_item_ack(sub, sluice_delivery_get(item)->token, sluice_delivery_get(item)->seq,
			      NULL, &reply),
	      0);
	CHECK(sluice_reply_affected(reply) == 1);
	sluice_reply_free(reply);
	CHECK(atomic_load(&seen.count) == 0);
	/* A call that does not wait is accepted; a notice reports the refusal. */
	EQUAL(sluice_item_ack(sub, 1, 1, &fire, NULL), 0);
	CHECK(reaches(&seen.count, 1));
	EQUAL(sluice_item_nack(sub, 1, 1, 0, "", &fire, NULL), 0);
	CHECK(reaches(&seen.count, 2));
	EQUAL(sluice_lease_extend(sub, 1, 0, &fire, NULL), 0);
	CHECK(reaches(&seen.count, 3));
	EQUAL(sluice_object_show(client, SLUICE_OBJECT_QUEUE, "nowhere", &fire, NULL), 0);
	CHECK(reaches(&seen.count, 4));
	for (int i = 0; i < 4; i++) {
		CHECK(seen.events[i].kind == SLUICE_NOTICE_ERROR && seen.texts[i][0] != 0);
		EQUAL(seen.events[i].code, i < 3 ? SLUICE_E_STALE_TOKEN : SLUICE_E_NOT_FOUND);
	}
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q"), &fire, &sub),
	      SLUICE_E_INVAL);
	sluice_delivery_free(item);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

/* ---- a busy worker, whose client only extends its leases ---- */

enum { SHORT_LEASE_MS = 500, QUIET_LEASES = 8 };

static void on_returned(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	(void)sub;
	if (view->kind == SLUICE_DELIVERY_ITEM && view->failed_attempts > 0)
		atomic_fetch_add((atomic_int *)user, 1);
}

/* The clock: each return of its item is a lease that expired because nobody extended it. */
static sluice_client *clock_of(atomic_int *ticks)
{
	sluice_client *client =
		client_of(NULL, NULL, (const char *const[]){"lease_extend", "no", NULL});
	sluice_sub *sub = NULL;

	queue_with(client, "clock", 1);
	EQUAL(sluice_consume(client,
			     &SLUICE_CONSUME_SPEC(.queue = "clock", .lease_ms = SHORT_LEASE_MS,
						  .on_delivery = on_returned, .user = ticks),
			     NULL, &sub),
	      0);
	return client;
}

/* It sends more often than heartbeats, and gets no answers. Once the broker closed its connection
 * after each session timeout. */
static void quiet_worker(const char *mode)
{
	struct seen seen = {0};
	atomic_int ticks = 0;
	sluice_client *clock = clock_of(&ticks),
		      *client = client_of(on_notice, &seen,
					  (const char *const[]){"session_timeout_ms", "1000",
								"mode", mode, NULL});
	sluice_delivery *item = NULL;
	sluice_sub *sub = NULL, *credited = NULL;

	queue_with(client, "q", 1);
	queue_with(client, "empty", 0);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "empty", .manual_credit = true),
			     NULL, &credited),
	      0);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q"), NULL, &sub), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &item), 0);
	while (atomic_load(&ticks) < QUIET_LEASES) {
		EQUAL(sluice_sub_credit(credited, 1), 0);
		if (strcmp(mode, "caller-loop") == 0)
			EQUAL(sluice_process(client, 20), 0);
		else
			(void)usleep(5000);
	}
	CHECK(atomic_load(&seen.count) == 0);
	EQUAL(sluice_item_ack(sub, sluice_delivery_get(item)->token, sluice_delivery_get(item)->seq,
			      NULL, NULL),
	      0);
	sluice_delivery_free(item);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	EQUAL(sluice_close(clock, true, PATIENCE_MS), 0);
}

static void a_quiet_worker_stays_connected(void)
{
	quiet_worker("own-thread");
}

static void a_quiet_worker_stays_connected_in_its_own_loop(void)
{
	quiet_worker("caller-loop");
}

/* ---- leases that are lost ---- */

static sluice_sub *taken(sluice_client *client, const sluice_consume_spec *spec,
			 sluice_delivery **ret)
{
	sluice_sub *sub = NULL;

	EQUAL(sluice_consume(client, spec, NULL, &sub), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, ret), 0);
	return sub;
}

/* Nobody extends it. */
static void a_lease_that_is_not_extended_is_told_when_it_ends(void)
{
	struct seen seen = {0};
	atomic_int ticks = 0;
	sluice_client *clock = clock_of(&ticks),
		      *client = client_of(on_notice, &seen,
					  (const char *const[]){"lease_extend", "no", NULL});
	sluice_delivery *item = NULL, *again = NULL;
	sluice_sub *sub;

	queue_with(client, "q", 1);
	sub = taken(client,
		    &SLUICE_CONSUME_SPEC(.queue = "q", .lease_ms = SHORT_LEASE_MS, .credit = 1),
		    &item);
	CHECK(reaches(&seen.count, 1));
	CHECK(seen.events[0].kind == SLUICE_NOTICE_LEASE_LOST && seen.events[0].sub == sub &&
	      seen.events[0].items == 1);
	CHECK(seen.events[0].token == sluice_delivery_get(item)->token && seen.jobs[0][0] == 0);
	EQUAL(seen.events[0].code, SLUICE_E_TIMEOUT);
	CHECK(strstr(seen.texts[0], "lease_extend") != NULL);
	/* Reported once, and its credit stays used until the application has settled it. */
	while (atomic_load(&ticks) < QUIET_LEASES)
		(void)usleep(5000);
	CHECK(atomic_load(&seen.count) == 1);
	EQUAL(sluice_item_ack(sub, sluice_delivery_get(item)->token, sluice_delivery_get(item)->seq,
			      NULL, NULL),
	      SLUICE_E_STALE_TOKEN);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &again), 0);
	CHECK(again != NULL && sluice_delivery_get(again)->failed_attempts == 1);
	sluice_delivery_free(item);
	sluice_delivery_free(again);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	EQUAL(sluice_close(clock, true, PATIENCE_MS), 0);
}

/* The library extends, the application hangs: another worker gets the item, and the first one is
 * notified of the lost lease. */
static void a_hung_worker_loses_its_lease_and_is_told(void)
{
	static const char *const texts[] = {"own-thread", "caller-loop"};

	for (int i = 0; i < 2; i++) {
		struct seen seen = {0};
		sluice_client *hung = client_of(on_notice, &seen,
						(const char *const[]){"mode", texts[i], NULL}),
			      *other = connected();
		sluice_consume_spec spec =
			SLUICE_CONSUME_SPEC(.queue = texts[i], .lease_ms = SHORT_LEASE_MS,
					    .credit = 1, .extend_max_ms = 2 * SHORT_LEASE_MS);
		sluice_delivery *item = NULL, *again = NULL;
		sluice_sub *sub, *waiting = NULL;

		queue_with(hung, texts[i], 1);
		sub = taken(hung, &spec, &item);
		EQUAL(sluice_consume(other, &spec, NULL, &waiting), 0);
		for (int rc = SLUICE_E_TIMEOUT; rc == SLUICE_E_TIMEOUT;
		     rc = sluice_sub_next(waiting, 20, &again))
			if (i == 1)
				EQUAL(sluice_process(hung, 0), 0);
		CHECK(again != NULL && sluice_delivery_get(again)->failed_attempts == 1);
		for (int n = 0; n < 1000 && i == 1 && atomic_load(&seen.count) == 0; n++)
			EQUAL(sluice_process(hung, 20), 0);
		CHECK(reaches(&seen.count, 1));
		CHECK(seen.events[0].kind == SLUICE_NOTICE_LEASE_LOST && seen.events[0].sub == sub);
		CHECK(strstr(seen.texts[0], "lease_extend_max_ms") != NULL);
		sluice_delivery_free(item);
		sluice_delivery_free(again);
		EQUAL(sluice_close(other, true, PATIENCE_MS), 0);
		EQUAL(sluice_close(hung, true, PATIENCE_MS), 0);
		CHECK(atomic_load(&seen.count) == 1);
	}
}

/* An application that extends by itself counts as working, however long it takes. */
static void an_extension_by_the_application_is_a_sign_of_life(void)
{
	struct seen seen = {0};
	atomic_int ticks = 0;
	sluice_client *clock = clock_of(&ticks), *client = client_of(on_notice, &seen, NULL);
	sluice_delivery *item = NULL;
	sluice_sub *sub;
	int extended = 0;

	queue_with(client, "q", 1);
	sub = taken(client,
		    &SLUICE_CONSUME_SPEC(.queue = "q", .lease_ms = 4 * SHORT_LEASE_MS,
					 .extend_max_ms = 4 * SHORT_LEASE_MS),
		    &item);
	while (atomic_load(&ticks) < 2 * QUIET_LEASES) {
		if (extended == atomic_load(&ticks)) {
			(void)usleep(2000);
			continue;
		}
		extended = atomic_load(&ticks);
		EQUAL(sluice_lease_extend(sub, sluice_delivery_get(item)->token, 4 * SHORT_LEASE_MS,
					  NULL, NULL),
		      0);
	}
	CHECK(atomic_load(&seen.count) == 0);
	EQUAL(sluice_item_ack(sub, sluice_delivery_get(item)->token, sluice_delivery_get(item)->seq,
			      NULL, NULL),
	      0);
	sluice_delivery_free(item);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	EQUAL(sluice_close(clock, true, PATIENCE_MS), 0);
}

/* The value that peek shows for the leased item; 0: none. A short lease may have ended just now. */
static unsigned long long peeked_extend_max(sluice_client *admin, const char *queue)
{
	static const char member[] = "\"extend_max_ms\":";
	unsigned long long ret = 0;
	bool leased = false;

	for (int tries = 0; !leased && tries < 1000; tries++) {
		sluice_reply *reply = NULL;
		const char *json, *found;

		EQUAL(sluice_queue_peek(admin, queue, "leased", 0, 1, NULL, &reply), 0);
		json = sluice_reply_json(reply);
		leased = json != NULL && strstr(json, "\"holder_session\":") != NULL;
		found = leased ? strstr(json, member) : NULL;
		if (found != NULL)
			ret = strtoull(found + strlen(member), NULL, 10);
		sluice_reply_free(reply);
	}
	CHECK(leased);
	return ret;
}

#define SPEC(...)                                                \
	{                                                        \
		.size = sizeof(sluice_consume_spec), __VA_ARGS__ \
	}

static void peek_shows_for_how_long_leases_are_extended(void)
{
	static const struct {
		const char *queue, *key, *value;
		sluice_consume_spec spec;
		unsigned long long shown;
	} rows[] = {
		{"default", "lease_extend", "yes", SPEC(.credit = 0), 3600000},
		{"short", "lease_extend", "yes", SPEC(.lease_ms = SHORT_LEASE_MS),
		 16ull * SHORT_LEASE_MS},
		{"client", "lease_extend_max_ms", "7200000", SPEC(.credit = 0), 7200000},
		{"own", "lease_extend_max_ms", "7200000", SPEC(.extend_max_ms = 1234), 1234},
		{"not", "lease_extend", "no", SPEC(.extend_max_ms = 1234), 0},
		{"session", "lease_extend", "yes", SPEC(.session_lease = true), 0},
	};
	sluice_client *admin = connected();

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		sluice_client *client =
			client_of(NULL, NULL,
				  (const char *const[]){rows[i].key, rows[i].value, NULL});
		sluice_consume_spec spec = rows[i].spec;
		sluice_delivery *item = NULL;
		unsigned long long shown;

		spec.queue = rows[i].queue;
		queue_with(client, spec.queue, 1);
		(void)taken(client, &spec, &item);
		shown = peeked_extend_max(admin, spec.queue);
		if (shown != rows[i].shown)
			(void)printf("queue %s: %llu\n", spec.queue, shown);
		CHECK(shown == rows[i].shown);
		sluice_delivery_free(item);
		EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	}
	EQUAL(sluice_close(admin, true, PATIENCE_MS), 0);
}

/* The broker takes it away: the next extension is refused. */
static void a_lease_that_the_broker_took_is_told(void)
{
	struct seen seen = {0};
	sluice_client *client = client_of(on_notice, &seen, NULL), *admin = connected();
	sluice_delivery *item = NULL, *job = NULL;
	sluice_sub *sub, *jobs;
	bool told = false;

	queue_with(client, "q", 1);
	sub = taken(client, &SLUICE_CONSUME_SPEC(.queue = "q", .lease_ms = SHORT_LEASE_MS), &item);
	EQUAL(sluice_object_delete(admin, SLUICE_OBJECT_QUEUE, "q", NULL, NULL), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &job), SLUICE_E_NOT_FOUND);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "j", .jobs = true), NULL,
				  NULL),
	      0);
	EQUAL(sluice_job_submit(client, &SLUICE_JOB_SPEC(.job = "one", .queue = "j"), NULL, NULL),
	      0);
	jobs = taken(client, &SLUICE_CONSUME_SPEC(.queue = "j"), &job);
	EQUAL(sluice_job_reset(admin, "one", true, "taken away", NULL, NULL), 0);
	for (int at = 0; !told && reaches(&seen.count, at + 1); at++) {
		if (seen.jobs[at][0] == 0)
			continue;
		CHECK(seen.events[at].kind == SLUICE_NOTICE_LEASE_LOST &&
		      strcmp(seen.jobs[at], "one") == 0);
		CHECK(seen.events[at].token == sluice_delivery_get(job)->token);
		told = true;
	}
	CHECK(told);
	(void)jobs;
	sluice_delivery_free(item);
	sluice_delivery_free(job);
	EQUAL(sluice_close(admin, true, PATIENCE_MS), 0);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

/* Through a proxy that temporarily refuses the library's extension of the long lease. */
static void a_refused_extension_delays_no_other(void)
{
	enum { LONG_LEASE_MS = 8000 };
	struct seen seen = {0};
	atomic_int ticks = 0;
	sluice_client *clock = clock_of(&ticks), *client = client_of(on_notice, &seen, NULL);
	sluice_delivery *brief = NULL, *extended = NULL;
	sluice_sub *sub;

	queue_with(client, "q", 2);
	sub = taken(client,
		    &SLUICE_CONSUME_SPEC(.queue = "q", .credit = 1, .lease_ms = SHORT_LEASE_MS,
					 .extend_max_ms = 600000),
		    &brief);
	EQUAL(sluice_sub_credit(sub, 1), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &extended), 0);
	CHECK(sluice_delivery_get(brief)->token != sluice_delivery_get(extended)->token);
	EQUAL(sluice_lease_extend(sub, sluice_delivery_get(extended)->token, LONG_LEASE_MS, NULL,
				  NULL),
	      0);
	CHECK(reaches(&ticks, LONG_LEASE_MS / SHORT_LEASE_MS));
	CHECK(atomic_load(&seen.count) == 0);
	EQUAL(sluice_item_ack(sub, sluice_delivery_get(brief)->token,
			      sluice_delivery_get(brief)->seq, NULL, NULL),
	      0);
	sluice_delivery_free(brief);
	sluice_delivery_free(extended);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	EQUAL(sluice_close(clock, true, PATIENCE_MS), 0);
}

/* Two items of one session, the second still in the library: when the session ends, another worker
 * gets that one, too. */
static void what_was_not_delivered_goes_with_its_lease(void)
{
	static const bool manual[] = {false, true};
	sluice_client *admin = connected();

	queue_with(admin, "q", 2);
	for (int i = 0; i < 2; i++) {
		struct seen seen = {0};
		sluice_client *client = client_of(on_notice, &seen, NULL);
		sluice_delivery *item = NULL;
		sluice_queue_info info = SLUICE_QUEUE_INFO();
		sluice_sub *sub = NULL;
		sluice_token token;
		bool lost = false;

		EQUAL(sluice_consume(client,
				     &SLUICE_CONSUME_SPEC(.queue = "q", .credit = 2,
							  .session_lease = true,
							  .manual_credit = manual[i]),
				     NULL, &sub),
		      0);
		EQUAL(sluice_sub_next(sub, PATIENCE_MS, &item), 0);
		token = sluice_delivery_get(item)->token;
		sluice_delivery_free(item);
		/* The reply comes after the deliveries, so both items have arrived. */
		while (info.leased < 2) {
			sluice_reply *reply = NULL;

			EQUAL(sluice_object_show(client, SLUICE_OBJECT_QUEUE, "q", NULL, &reply),
			      0);
			CHECK(sluice_reply_queue(reply, 0, &info));
			sluice_reply_free(reply);
		}
		EQUAL(sluice_session_close(admin, sluice_session_id(client), NULL, NULL), 0);
		for (int n = 0; !lost && reaches(&seen.count, n + 1); n++)
			lost = seen.events[n].kind == SLUICE_NOTICE_SESSION_LOST;
		CHECK(lost);
		for (int n = 0; n < 2; n++) {
			/* It still has the credit of the item that was not handed out: one more is
			 * needed for the other. */
			if (manual[i] && n == 1)
				EQUAL(sluice_sub_credit(sub, 1), 0);
			item = NULL;
			EQUAL(sluice_sub_next(sub, PATIENCE_MS, &item), 0);
			if (item == NULL)
				break;
			CHECK(sluice_delivery_get(item)->token > token);
			EQUAL(sluice_item_nack(sub, sluice_delivery_get(item)->token,
					       sluice_delivery_get(item)->seq, 0, "", NULL, NULL),
			      0);
			sluice_delivery_free(item);
		}
		EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	}
	EQUAL(sluice_close(admin, true, PATIENCE_MS), 0);
}

/* ---- rejections ---- */

static void a_rejected_item_is_a_dead_letter_with_its_reason(void)
{
	sluice_client *client = client_of(NULL, NULL, NULL);
	sluice_delivery *item = NULL;
	sluice_reply *reply = NULL;
	sluice_sub *sub;

	queue_with(client, "q", 1);
	sub = taken(client, &SLUICE_CONSUME_SPEC(.queue = "q"), &item);
	EQUAL(sluice_item_reject(sub, sluice_delivery_get(item)->token,
				 sluice_delivery_get(item)->seq, "not a PDF", NULL, NULL),
	      0);
	EQUAL(sluice_item_reject(sub, sluice_delivery_get(item)->token,
				 sluice_delivery_get(item)->seq, NULL, NULL, NULL),
	      SLUICE_E_STALE_TOKEN);
	sluice_delivery_free(item);
	EQUAL(sluice_queue_peek(client, "dead-letter", NULL, 0, 10, NULL, &reply), 0);
	CHECK(strstr(sluice_reply_json(reply), "\"not a PDF\"") != NULL);
	sluice_reply_free(reply);
	sub = taken(client, &SLUICE_CONSUME_SPEC(.queue = "dead-letter"), &item);
	EQUAL(sluice_item_reject(sub, sluice_delivery_get(item)->token,
				 sluice_delivery_get(item)->seq, NULL, NULL, NULL),
	      SLUICE_E_WRONG_STATE);
	EQUAL(sluice_item_ack(sub, sluice_delivery_get(item)->token, sluice_delivery_get(item)->seq,
			      NULL, NULL),
	      0);
	sluice_delivery_free(item);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

static void an_older_broker_rejects_nothing_and_stays_connected(void)
{
	sluice_client *client = client_of(NULL, NULL, NULL);
	sluice_delivery *item = NULL;
	sluice_sub *sub;

	queue_with(client, "q", 1);
	sub = taken(client, &SLUICE_CONSUME_SPEC(.queue = "q"), &item);
	EQUAL(sluice_item_reject(sub, sluice_delivery_get(item)->token,
				 sluice_delivery_get(item)->seq, "", NULL, NULL),
	      SLUICE_E_UNSUPPORTED);
	EQUAL(sluice_item_ack(sub, sluice_delivery_get(item)->token, sluice_delivery_get(item)->seq,
			      NULL, NULL),
	      0);
	sluice_delivery_free(item);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

static const struct scenario scenarios[] = {
	{"a_rejected_item_is_a_dead_letter_with_its_reason",
	 a_rejected_item_is_a_dead_letter_with_its_reason},
	{"an_older_broker_rejects_nothing_and_stays_connected",
	 an_older_broker_rejects_nothing_and_stays_connected},
	{"what_was_not_delivered_goes_with_its_lease", what_was_not_delivered_goes_with_its_lease},
	{"a_refused_extension_delays_no_other", a_refused_extension_delays_no_other},
	{"a_lease_that_is_not_extended_is_told_when_it_ends",
	 a_lease_that_is_not_extended_is_told_when_it_ends},
	{"a_hung_worker_loses_its_lease_and_is_told", a_hung_worker_loses_its_lease_and_is_told},
	{"an_extension_by_the_application_is_a_sign_of_life",
	 an_extension_by_the_application_is_a_sign_of_life},
	{"a_lease_that_the_broker_took_is_told", a_lease_that_the_broker_took_is_told},
	{"peek_shows_for_how_long_leases_are_extended",
	 peek_shows_for_how_long_leases_are_extended},
	{"a_quiet_worker_stays_connected", a_quiet_worker_stays_connected},
	{"a_quiet_worker_stays_connected_in_its_own_loop",
	 a_quiet_worker_stays_connected_in_its_own_loop},
	{"no_call_is_a_call_that_waits", no_call_is_a_call_that_waits},
};

int main(int argc, char **argv)
{
	return probe_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
