/* SPDX-License-Identifier: Apache-2.0
 * Structs of client.h whose size member is not that of this header: 0, smaller or larger. Programs
 * built with an older header are tested with tests/data/abi-*. */
#include "tests/integration/probe.h"

enum { MORE = 16 }; /* bytes that a later header appends to a struct */

static sluice_client *client;

/* A struct of this header, with the size of a later one. */
#define LONGER(name)                 \
	struct {                     \
		sluice_##name now;   \
		uint8_t later[MORE]; \
	}

#define NAMES(name) (strstr(sluice_last_error(NULL), "sluice_" #name " ") != NULL)

/* EXPRESSION makes a call with the struct `made`. Checks what it returns with each wrong size, and
 * with a larger one: RIGHT if the rest is zero. */
#define WITH_SIZES(name, RIGHT, EXPRESSION)                                  \
	do {                                                                 \
		LONGER(name) all = {.now = {.size = sizeof(sluice_##name)}}; \
		sluice_##name *made = &all.now;                              \
                                                                             \
		made->size = 0;                                              \
		EQUAL(EXPRESSION, SLUICE_E_INVAL);                           \
		CHECK(NAMES(name));                                          \
		made->size = sizeof(sluice_##name) - 1;                      \
		EQUAL(EXPRESSION, SLUICE_E_INVAL);                           \
		CHECK(NAMES(name));                                          \
		made->size = 4097;                                           \
		EQUAL(EXPRESSION, SLUICE_E_INVAL);                           \
		CHECK(NAMES(name));                                          \
		made->size = sizeof(all);                                    \
		all.later[MORE - 1] = 1;                                     \
		EQUAL(EXPRESSION, SLUICE_E_UNSUPPORTED);                     \
		CHECK(NAMES(name));                                          \
		all.later[MORE - 1] = 0;                                     \
		EQUAL(EXPRESSION, RIGHT);                                    \
	} while (0)

/* One line per struct; the macro has many statements. NOLINTNEXTLINE(readability-function-size) */
static void what_a_program_makes_has_a_size(void)
{
	sluice_txn *txn = sluice_txn_create();
	sluice_sub *sub = NULL;

	client = connected();
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "q"), NULL, NULL), 0);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "j", .jobs = true), NULL,
				  NULL),
	      0);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q"), NULL, &sub), 0);

	WITH_SIZES(stream_spec, 0,
		   (made->name = "s", sluice_stream_create(client, made, NULL, NULL)));
	WITH_SIZES(stream_spec, 0,
		   (made->name = "s", sluice_stream_alter(client, made, NULL, NULL)));
	WITH_SIZES(queue_spec, 0,
		   (made->name = "p", sluice_queue_create(client, made, NULL, NULL)));
	WITH_SIZES(queue_spec, 0, (made->name = "p", sluice_queue_alter(client, made, NULL, NULL)));
	WITH_SIZES(router_spec, 0,
		   (made->name = "r", sluice_router_create(client, made, NULL, NULL)));
	WITH_SIZES(router_spec, 0,
		   (made->name = "r", sluice_router_alter(client, made, NULL, NULL)));
#define EDGE (made->pattern = "a", made->target_kind = "stream", made->target = "s", made)
	WITH_SIZES(edge, 0, sluice_router_bind(client, EDGE, NULL, NULL));
	WITH_SIZES(edge, 0, sluice_router_unbind(client, EDGE, NULL, NULL));
#define MESSAGE (made->subject = "a", made)
	WITH_SIZES(message, 0, sluice_publish(client, MESSAGE, NULL, NULL));
	WITH_SIZES(message, 0,
		   sluice_publish(client, MESSAGE, &SLUICE_CALL(.user = SLUICE_FIRE), NULL));
	WITH_SIZES(message, 0, sluice_publish_batch(client, MESSAGE, 1, NULL, NULL));
	WITH_SIZES(message, 0, sluice_txn_publish(txn, MESSAGE));
	WITH_SIZES(follow_spec, SLUICE_E_NOT_FOUND,
		   (made->stream = "none", sluice_follow(client, made, NULL, &sub)));
	WITH_SIZES(consume_spec, SLUICE_E_NOT_FOUND,
		   (made->queue = "none", sluice_consume(client, made, NULL, &sub)));
#define JOB (made->job = "one", made->queue = "j", made)
	WITH_SIZES(job_spec, 0, sluice_job_submit(client, JOB, NULL, NULL));
	WITH_SIZES(job_spec, 0, sluice_txn_job_submit(txn, JOB));
#define REPORT \
	(made->job = "one", made->attempt = 1, made->source = "s", made->state = "FAILED", made)
	WITH_SIZES(job_report_spec, 0, sluice_job_report(client, REPORT, NULL, NULL));
	WITH_SIZES(job_report_spec, 0, sluice_txn_job_report(txn, REPORT));
	WITH_SIZES(job_filter, 0, sluice_job_list(client, made, NULL, NULL));
	WITH_SIZES(job_audit_spec, 0, sluice_job_audit(client, made, NULL, NULL));
	WITH_SIZES(source_heartbeat_spec, 0,
		   (made->source = "s", sluice_source_heartbeat(client, made, NULL, NULL)));
	sluice_txn_destroy(txn);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

/* One line per call. NOLINTNEXTLINE(readability-function-size) */
static void every_kind_of_call_has_a_size(void)
{
	sluice_sub *sub = NULL, *more = NULL;
	sluice_delivery *item = NULL;
	sluice_txn *txn = sluice_txn_create();
	sluice_token token;
	uint64_t seq;

	client = connected();
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "q"), NULL, NULL), 0);
	for (int i = 0; i < 4; i++)
		EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "a", .queue = "q"), NULL,
				     NULL),
		      0);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q"), NULL, &sub), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &item), 0);
	token = sluice_delivery_get(item)->token;
	seq = sluice_delivery_get(item)->seq;
	sluice_delivery_free(item);

	WITH_SIZES(call, 0, sluice_status(client, made, NULL));
	WITH_SIZES(call, SLUICE_E_NOT_FOUND, sluice_job_wait(client, "none", 0, made, NULL));
	WITH_SIZES(call, 0, sluice_publish(client, &SLUICE_MESSAGE(.subject = "a"), made, NULL));
	WITH_SIZES(call, 0,
		   sluice_publish_batch(client, &SLUICE_MESSAGE(.subject = "a"), 1, made, NULL));
	WITH_SIZES(call, SLUICE_E_NOT_FOUND,
		   sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = "none"), made, &more));
	WITH_SIZES(call, SLUICE_E_NOT_FOUND,
		   sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "none"), made, &more));
	WITH_SIZES(call, 0, sluice_lease_extend(sub, token, 0, made, NULL));
	WITH_SIZES(call, 0, sluice_item_ack(sub, token, seq, made, NULL));
	WITH_SIZES(call, 0,
		   (made->user = SLUICE_FIRE, sluice_item_ack(sub, token, seq + 1, made, NULL)));
	WITH_SIZES(call, 0, sluice_item_nack(sub, token, seq + 2, 0, NULL, made, NULL));
	EQUAL(sluice_txn_publish(txn, &SLUICE_MESSAGE(.subject = "a")), 0);
	WITH_SIZES(call, 0, sluice_txn_commit(client, txn, made, NULL));
	sluice_txn_destroy(txn);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

/* EXPRESSION fills the struct `made`; returns whether it did. */
#define FILLED(name, EXPRESSION)                                                                \
	do {                                                                                    \
		LONGER(name) all = {.now = {.size = sizeof(sluice_##name)}};                    \
		sluice_##name *made = &all.now;                                                 \
                                                                                                \
		made->size = 0;                                                                 \
		CHECK(!(EXPRESSION) && NAMES(name));                                            \
		made->size = sizeof(sluice_##name) - 1;                                         \
		CHECK(!(EXPRESSION) && NAMES(name));                                            \
		made->size = 4097;                                                              \
		CHECK(!(EXPRESSION) && NAMES(name));                                            \
		/* It fills only the members within the stated size. */                         \
		made->size = sizeof(sluice_##name);                                             \
		memset(all.later, 0xa5, MORE);                                                  \
		CHECK(EXPRESSION);                                                              \
		CHECK(made->size == sizeof(sluice_##name));                                     \
		CHECK(all.later[0] == 0xa5 && memcmp(all.later, all.later + 1, MORE - 1) == 0); \
		/* Members that this library does not know become 0. */                         \
		made->size = sizeof(all);                                                       \
		CHECK(EXPRESSION);                                                              \
		CHECK(made->size == sizeof(all));                                               \
		CHECK(all.later[0] == 0 && memcmp(all.later, all.later + 1, MORE - 1) == 0);    \
	} while (0)

static void what_the_library_fills_has_a_size(void)
{
	sluice_reply *reply = NULL;

	client = connected();
	stream_with(client, "s", "s.x", 1);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "j", .jobs = true), NULL,
				  NULL),
	      0);
	EQUAL(sluice_job_submit(client, &SLUICE_JOB_SPEC(.job = "one", .queue = "j"), NULL, NULL),
	      0);
	EQUAL(sluice_job_report(client,
				&SLUICE_JOB_REPORT_SPEC(.job = "one", .attempt = 7, .source = "s",
							.state = "FAILED"),
				NULL, NULL),
	      0);

	FILLED(publish_stats, sluice_publish_stats_get(client, made) == 0);
	EQUAL(sluice_object_show(client, SLUICE_OBJECT_STREAM, "s", NULL, &reply), 0);
	FILLED(stream_info, sluice_reply_stream(reply, 0, made));
	sluice_reply_free(reply);
	EQUAL(sluice_object_show(client, SLUICE_OBJECT_QUEUE, "j", NULL, &reply), 0);
	FILLED(queue_info, sluice_reply_queue(reply, 0, made));
	sluice_reply_free(reply);
	EQUAL(sluice_object_show(client, SLUICE_OBJECT_LIFECYCLE, "airavata", NULL, &reply), 0);
	FILLED(lifecycle_info, sluice_reply_lifecycle(reply, 0, made));
	FILLED(lifecycle_state, sluice_reply_lifecycle_state(reply, 0, 0, made));
	sluice_reply_free(reply);
	EQUAL(sluice_job_show(client, "one", true, NULL, &reply), 0);
	FILLED(job_info, sluice_reply_job(reply, 0, made));
	sluice_reply_free(reply);
	EQUAL(sluice_job_history(client, "one", NULL, &reply), 0);
	FILLED(job_history_row, sluice_reply_history(reply, 0, made));
	sluice_reply_free(reply);
	EQUAL(sluice_quarantine_list(client, NULL, 0, 0, NULL, &reply), 0);
	FILLED(quarantine_row, sluice_reply_quarantine(reply, 0, made));
	sluice_reply_free(reply);
	EQUAL(sluice_job_audit(client, NULL, NULL, &reply), 0);
	FILLED(job_audit_info, sluice_reply_audit(reply, made));
	sluice_reply_free(reply);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

static void messages_of_a_batch_have_one_size(void)
{
	LONGER(message) all[3];
	const sluice_message *first = &all[0].now;
	sluice_message mixed[2] = {SLUICE_MESSAGE(.subject = "a"), SLUICE_MESSAGE(.subject = "a")};
	sluice_reply *reply = NULL;
	sluice_stream_info info = SLUICE_STREAM_INFO();

	memset(all, 0, sizeof(all));
	client = connected();
	stream_with(client, "s", "s.*", 0);
	for (size_t i = 0; i < 3; i++) {
		all[i].now =
			SLUICE_MESSAGE(.subject = i == 1 ? "s.odd" : "s.even", .body = {"x", 1});
		all[i].now.size = sizeof(all[i]);
	}
	EQUAL(sluice_publish_batch(client, first, 3, NULL, &reply), 0);
	CHECK(sluice_reply_affected(reply) == 3);
	sluice_reply_free(reply);
	EQUAL(sluice_object_show(client, SLUICE_OBJECT_STREAM, "s", NULL, &reply), 0);
	CHECK(sluice_reply_stream(reply, 0, &info) && info.events == 3);
	sluice_reply_free(reply);
	all[2].later[0] = 1;
	EQUAL(sluice_publish_batch(client, first, 3, NULL, NULL), SLUICE_E_UNSUPPORTED);
	all[2].later[0] = 0;
	all[2].now.size = sizeof(sluice_message);
	EQUAL(sluice_publish_batch(client, first, 3, NULL, NULL), SLUICE_E_INVAL);
	CHECK(strstr(sluice_last_error(NULL), "message 2 ") != NULL);
	mixed[1].size = sizeof(all[0]);
	EQUAL(sluice_publish_batch(client, mixed, 2, NULL, NULL), SLUICE_E_INVAL);
	/* No struct has a size that is not a multiple of its alignment. */
	all[0].now.size = sizeof(sluice_message) + 1;
	EQUAL(sluice_publish_batch(client, first, 1, NULL, NULL), SLUICE_E_INVAL);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

static void on_notice(sluice_client *of, const sluice_notice *notice, void *user)
{
	(void)of;
	if (notice->size == sizeof(*notice) && SLUICE_HAS(notice, sub))
		atomic_fetch_add((atomic_int *)user, 1);
	else
		(void)printf("notice %d has a size of %u\n", (int)notice->kind, notice->size);
}

static void on_delivery(sluice_sub *sub, const sluice_delivery_view *view, void *user)
{
	(void)sub;
	if (view->size == sizeof(*view) && SLUICE_HAS(view, number))
		atomic_fetch_add((atomic_int *)user, 1);
	else
		(void)printf("delivery %d has a size of %u\n", (int)view->kind, view->size);
}

static void what_the_library_makes_has_a_size(void)
{
	atomic_int notices = 0, deliveries = 0;
	sluice_sub *sub = NULL, *jobs = NULL, *events = NULL, *queue = NULL;
	sluice_delivery *item = NULL;
	sluice_call fire = SLUICE_CALL(.user = SLUICE_FIRE);

	client = client_of(on_notice, &notices, NULL);
	CHECK(reaches(&notices, 1)); /* CONNECTED */
	stream_with(client, "s", "s.x", 1);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "q"), NULL, NULL), 0);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "j", .jobs = true), NULL,
				  NULL),
	      0);
	EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "a", .queue = "q"), NULL, NULL), 0);
	EQUAL(sluice_job_submit(client, &SLUICE_JOB_SPEC(.job = "one", .queue = "j"), NULL, NULL),
	      0);
	EQUAL(sluice_object_show(client, SLUICE_OBJECT_QUEUE, "none", &fire, NULL), 0);
	CHECK(reaches(&notices, 2)); /* ERROR */
	EQUAL(sluice_follow(client,
			    &SLUICE_FOLLOW_SPEC(.stream = "s", .on_delivery = on_delivery,
						.user = &deliveries),
			    NULL, &events),
	      0);
	CHECK(reaches(&deliveries, 2)); /* EVENT, CAUGHT_UP */
	EQUAL(sluice_consume(client,
			     &SLUICE_CONSUME_SPEC(.queue = "j", .on_delivery = on_delivery,
						  .user = &deliveries),
			     NULL, &jobs),
	      0);
	CHECK(reaches(&deliveries, 3)); /* JOB */
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "q"), NULL, &sub), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &item), 0);
	CHECK(sluice_delivery_get(item)->size == sizeof(sluice_delivery_view));
	sluice_delivery_free(item);
	EQUAL(sluice_consume(client,
			     &SLUICE_CONSUME_SPEC(.queue = "q", .on_delivery = on_delivery,
						  .user = &deliveries),
			     NULL, &queue),
	      0);
	EQUAL(sluice_object_delete(client, SLUICE_OBJECT_QUEUE, "q", NULL, NULL), 0);
	CHECK(reaches(&deliveries, 4)); /* END */
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
}

static void *no_memory(void *old, size_t bytes)
{
	(void)old, (void)bytes;
	return NULL;
}

static void *take(size_t bytes)
{
	return malloc(bytes);
}

static void *retake(void *old, size_t bytes)
{
	return realloc(old, bytes);
}

static void an_allocator_has_a_size_and_all_functions(void)
{
	sluice_config *config;

	WITH_SIZES(allocator, 0,
		   (made->alloc = take, made->resize = retake, made->release = free,
		    sluice_allocator_set(made)));
	EQUAL(sluice_allocator_set(&SLUICE_ALLOCATOR(.resize = no_memory)), SLUICE_E_INVAL);
	config = sluice_config_create();
	CHECK(config != NULL);
	sluice_config_destroy(config);
	EQUAL(sluice_allocator_set(NULL), 0);
}

int main(int argc, char **argv)
{
	static const struct scenario scenarios[] = {
		{"what_a_program_makes_has_a_size", what_a_program_makes_has_a_size},
		{"every_kind_of_call_has_a_size", every_kind_of_call_has_a_size},
		{"what_the_library_fills_has_a_size", what_the_library_fills_has_a_size},
		{"messages_of_a_batch_have_one_size", messages_of_a_batch_have_one_size},
		{"what_the_library_makes_has_a_size", what_the_library_makes_has_a_size},
		{"an_allocator_has_a_size_and_all_functions",
		 an_allocator_has_a_size_and_all_functions},
	};

	return probe_main(argc, argv, scenarios, sizeof(scenarios) / sizeof(scenarios[0]));
}
