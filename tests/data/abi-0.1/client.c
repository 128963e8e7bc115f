/* SPDX-License-Identifier: Apache-2.0
 *
 * A program as of version 0.1: calls every function of client.h and error.h and uses every struct,
 * and checks what comes back. It is compiled with the headers beside it, never with those of
 * include/, and runs with the library and the broker of today. See README.md.
 *
 *   client ADDRESS
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluice/client.h"

enum { PATIENCE_MS = 30000 };

static int failures;
static const char *address;

#define CHECK(condition)                                                                  \
	do {                                                                              \
		if (!(condition)) {                                                       \
			printf("line %d: not so: %s (%s)\n", __LINE__, #condition,        \
			       sluice_last_error(NULL));                                  \
			failures++;                                                       \
		}                                                                         \
	} while (0)
#define EQUAL(call, expected)                                                             \
	do {                                                                              \
		int got_ = (call);                                                        \
		if (got_ != (expected)) {                                                 \
			printf("line %d: %s is %s, expected %s: %s\n", __LINE__, #call,   \
			       sluice_error_name(got_), sluice_error_name(expected),      \
			       sluice_last_error(NULL));                                  \
			failures++;                                                       \
		}                                                                         \
	} while (0)
#define SAME(a, b) CHECK(strcmp((a), (b)) == 0)

static size_t blocks;

static void *take(size_t bytes)
{
	blocks++;
	return malloc(bytes);
}

static void *retake(void *old, size_t bytes)
{
	return realloc(old, bytes);
}

static void give(void *old)
{
	free(old);
}

struct seen {
	int notices, connected, errors, done, events, caught_up, items;
	sluice_token token;
	uint64_t seq;
};

static void on_notice(sluice_client *client, const sluice_notice *notice, void *user)
{
	struct seen *seen = user;

	(void)client;
	seen->notices++;
	CHECK(SLUICE_HAS(notice, sub) && notice->text != NULL);
	if (notice->kind == SLUICE_NOTICE_CONNECTED) {
		seen->connected++;
		CHECK(notice->code == 0 && notice->session != 0 && notice->items == 0 && notice->sub == NULL);
	} else if (notice->kind == SLUICE_NOTICE_ERROR) {
		seen->errors++;
		CHECK(notice->code == SLUICE_E_NOT_FOUND && notice->text[0] != 0);
	}
}

static void on_done(sluice_client *client, const sluice_reply *reply, void *user)
{
	struct seen *seen = user;

	(void)client;
	CHECK(sluice_reply_code(reply) == 0);
	seen->done++;
}

static void on_event(sluice_sub *sub, const sluice_delivery_view *event, void *user)
{
	struct seen *seen = user;

	(void)sub;
	CHECK(SLUICE_HAS(event, number));
	if (event->kind == SLUICE_DELIVERY_EVENT) {
		seen->events++;
		SAME(event->subject, "abi.event");
		CHECK(event->body.len == 4 && memcmp(event->body.data, "body", 4) == 0);
		CHECK(event->key.len == 3 && memcmp(event->key.data, "key", 3) == 0);
		CHECK(event->id.len == 2 && memcmp(event->id.data, "id", 2) == 0);
		CHECK(event->headers != NULL && event->headers[2] == NULL);
		SAME(event->headers[0], "name");
		SAME(event->headers[1], "value");
		CHECK(event->time_ms == 1700000000000 && event->priority == 0);
		CHECK(event->offset + 1 == (uint64_t)seen->events);
	} else if (event->kind == SLUICE_DELIVERY_CAUGHT_UP) {
		seen->caught_up++;
		CHECK(event->offset == 3);
	}
}

static void on_item(sluice_sub *sub, const sluice_delivery_view *item, void *user)
{
	struct seen *seen = user;

	if (item->kind != SLUICE_DELIVERY_ITEM)
		return;
	seen->items++;
	seen->token = item->token;
	seen->seq = item->seq;
	EQUAL(sluice_item_begin(sub, item->token, item->seq), 0);
}

/* Turns the loop of a client in caller-loop mode until *count is at least wanted. */
static void turns(sluice_client *client, const int *count, int wanted)
{
	for (int i = 0; i < 3000 && *count < wanted; i++)
		(void)sluice_process(client, 10);
	CHECK(*count >= wanted);
}

static sluice_client *opened(const char *mode, sluice_notice_fn *notices, struct seen *seen)
{
	sluice_config *config = sluice_config_create();
	sluice_client *client = NULL;

	CHECK(config != NULL);
	EQUAL(sluice_config_set(config, "address", address), 0);
	EQUAL(sluice_config_set(config, "mode", mode), 0);
	EQUAL(sluice_config_set(config, "nothing", "x"), SLUICE_E_INVAL);
	EQUAL(sluice_open(config, notices, seen, &client), 0);
	sluice_config_destroy(config);
	EQUAL(sluice_wait_connected(client, PATIENCE_MS), 0);
	CHECK(sluice_session_id(client) != 0);
	return client;
}

static void objects(sluice_client *client)
{
	const char *subjects[] = {"abi.*", NULL};
	sluice_stream_spec stream = SLUICE_STREAM_SPEC(.name = "events", .subjects = subjects,
						       .max_age_ms = 3600000, .max_bytes = 1 << 20,
						       .max_events = 1000, .description = "a stream",
						       .if_not_exists = true);
	sluice_queue_spec queue = SLUICE_QUEUE_SPEC(.name = "items", .lease_ms = 20000,
						    .max_attempts = 7, .max_items = 500,
						    .dead_letter = "dead", .description = "a queue");
	sluice_router_spec router = SLUICE_ROUTER_SPEC(.name = "other", .kind = "direct",
						       .alternate = "default", .description = "a router");
	sluice_edge edge = SLUICE_EDGE(.router = "other", .pattern = "word", .target_kind = "queue",
				       .target = "items");
	sluice_stream_info stream_info = SLUICE_STREAM_INFO();
	sluice_queue_info queue_info = SLUICE_QUEUE_INFO();
	sluice_lifecycle_info lifecycle = SLUICE_LIFECYCLE_INFO();
	sluice_lifecycle_state state = SLUICE_LIFECYCLE_STATE();
	sluice_reply *reply = NULL;

	EQUAL(sluice_stream_create(client, &stream, NULL, NULL), 0);
	stream.subjects = NULL;
	EQUAL(sluice_stream_alter(client, &stream, NULL, NULL), 0);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "dead"), NULL, NULL), 0);
	EQUAL(sluice_queue_create(client, &queue, NULL, NULL), 0);
	queue.max_attempts = 8;
	EQUAL(sluice_queue_alter(client, &queue, NULL, NULL), 0);
	EQUAL(sluice_queue_create(client, &queue, NULL, NULL), SLUICE_E_EXISTS);
	EQUAL(sluice_lifecycle_create(client,
				      "lifecycle short\nstate NEW -> RUN, DONE, OFF\nstate RUN -> DONE, OFF\n"
				      "terminal DONE\nterminal OFF\ncancelled OFF\nfailed OFF\n",
				      true, NULL, NULL),
	      0);
	EQUAL(sluice_lifecycle_alter(client,
				     "lifecycle short\nstate NEW -> RUN, DONE, OFF\nstate RUN -> DONE, OFF\n"
				     "terminal DONE\nterminal OFF\ncancelled OFF\nfailed OFF\n",
				     NULL, NULL),
	      0);
	EQUAL(sluice_queue_create(client,
				  &SLUICE_QUEUE_SPEC(.name = "jobs", .jobs = true, .priority = true,
						     .lifecycle = "short"),
				  NULL, NULL),
	      0);
	EQUAL(sluice_router_create(client, &router, NULL, NULL), 0);
	EQUAL(sluice_router_alter(client, &router, NULL, NULL), 0);
	EQUAL(sluice_router_bind(client, &edge, NULL, NULL), 0);
	EQUAL(sluice_router_unbind(client, &edge, NULL, NULL), 0);

	EQUAL(sluice_object_show(client, SLUICE_OBJECT_STREAM, "events", NULL, &reply), 0);
	CHECK(sluice_reply_stream(reply, 0, &stream_info));
	CHECK(!sluice_reply_stream(reply, 1, &stream_info));
	SAME(stream_info.name, "events");
	CHECK(stream_info.id != 0 && stream_info.first_offset == 0 && stream_info.next_offset == 0);
	CHECK(stream_info.events == 0 && stream_info.bytes == 0 && stream_info.first_time_ms == 0 &&
	      stream_info.last_time_ms == 0);
	CHECK(stream_info.max_age_ms == 3600000 && stream_info.max_bytes == 1 << 20 &&
	      stream_info.max_events == 1000);
	sluice_reply_free(reply);
	EQUAL(sluice_object_show(client, SLUICE_OBJECT_QUEUE, "items", NULL, &reply), 0);
	CHECK(sluice_reply_queue(reply, 0, &queue_info));
	SAME(queue_info.name, "items");
	SAME(queue_info.dead_letter, "dead");
	CHECK(!queue_info.jobs && queue_info.lease_ms == 20000 && queue_info.max_attempts == 8);
	CHECK(queue_info.id != 0 && queue_info.ready == 0 && queue_info.leased == 0 && queue_info.put == 0);
	sluice_reply_free(reply);
	EQUAL(sluice_object_show(client, SLUICE_OBJECT_LIFECYCLE, "short", NULL, &reply), 0);
	CHECK(sluice_reply_lifecycle(reply, 0, &lifecycle));
	SAME(lifecycle.name, "short");
	SAME(lifecycle.cancelled, "OFF");
	SAME(lifecycle.failed, "OFF");
	CHECK(lifecycle.id != 0 && lifecycle.jobs == 0 && lifecycle.states == 4 &&
	      lifecycle.description != NULL);
	CHECK(sluice_reply_lifecycle_state(reply, 0, 1, &state));
	SAME(state.name, "RUN");
	CHECK(!state.terminal && state.next[2] == NULL);
	SAME(state.next[0], "DONE");
	sluice_reply_free(reply);
	EQUAL(sluice_object_list(client, SLUICE_OBJECT_QUEUE, NULL, 1, NULL, &reply), 0);
	CHECK(sluice_reply_more(reply));
	sluice_reply_free(reply);
	EQUAL(sluice_object_delete(client, SLUICE_OBJECT_ROUTER, "other", NULL, NULL), 0);
}

static void publishing(sluice_client *client)
{
	const char *headers[] = {"name", "value", NULL};
	const sluice_message message = SLUICE_MESSAGE(
		.subject = "abi.event", .key = {"key", 3}, .id = {"id", 2}, .body = {"body", 4},
		.headers = headers, .mandatory = true, .time_ms = 1700000000000);
	const sluice_message items[] = {
		SLUICE_MESSAGE(.subject = "one", .queue = "items", .body = {"1", 1}),
		SLUICE_MESSAGE(.subject = "two", .queue = "items", .body = {"2", 1}, .priority = 9),
		SLUICE_MESSAGE(.subject = "three", .queue = "items", .body = {"3", 1}),
	};
	sluice_publish_stats stats = SLUICE_PUBLISH_STATS();
	sluice_reply *reply = NULL;

	EQUAL(sluice_publish(client, &message, NULL, &reply), 0);
	CHECK(sluice_reply_offset(reply) == 0 && !sluice_reply_duplicate(reply));
	CHECK(sluice_reply_index(reply) != 0 && sluice_reply_text(reply)[0] == 0);
	CHECK(sluice_reply_ref(reply) == reply);
	sluice_reply_free(reply);
	sluice_reply_free(reply);
	EQUAL(sluice_publish(client, &message, &SLUICE_CALL(.user = SLUICE_FIRE), NULL), 0);
	EQUAL(sluice_publish(client, &message, &SLUICE_CALL(.deadline_ms = PATIENCE_MS), NULL), 0);
	EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "nowhere", .mandatory = true), NULL, &reply),
	      SLUICE_E_NO_ROUTE);
	CHECK(sluice_reply_code(reply) == SLUICE_E_NO_ROUTE && !sluice_reply_retriable(reply));
	sluice_reply_free(reply);
	EQUAL(sluice_publish_batch(client, items, 3, NULL, &reply), 0);
	CHECK(sluice_reply_affected(reply) == 3);
	sluice_reply_free(reply);
	EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "x", .stream = "events", .relaxed = false),
			     NULL, NULL),
	      0);
	(void)sluice_flush(client, PATIENCE_MS);
	EQUAL(sluice_flush(client, PATIENCE_MS), 0);
	EQUAL(sluice_publish_stats_get(client, &stats), 0);
	CHECK(stats.published == 8 && stats.acked == 7 && stats.failed == 1 && stats.duplicates == 0);
	CHECK(stats.resent == 0 && stats.buffered_bytes == 0 && stats.in_flight == 0);
}

static void follow(sluice_client *client)
{
	sluice_follow_spec spec = SLUICE_FOLLOW_SPEC(.stream = "events", .from = SLUICE_FROM_OFFSET,
						     .offset = 1, .credit = 10, .filter = "abi.>");
	sluice_sub *sub = NULL;
	sluice_delivery *delivery = NULL;

	EQUAL(sluice_follow(client, &spec, NULL, &sub), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &delivery), 0);
	CHECK(sluice_delivery_get(delivery)->kind == SLUICE_DELIVERY_EVENT &&
	      sluice_delivery_get(delivery)->offset == 1);
	sluice_delivery_free(delivery);
	EQUAL(sluice_sub_drain(sub, PATIENCE_MS), SLUICE_E_INVAL);
	EQUAL(sluice_cursor_set(client, "events", "reader", 2, NULL, NULL), 0);
	EQUAL(sluice_sub_close(sub, PATIENCE_MS), 0);
	spec = SLUICE_FOLLOW_SPEC(.stream = "events", .from = SLUICE_FROM_CURSOR, .cursor = "reader");
	EQUAL(sluice_follow(client, &spec, &SLUICE_CALL(.deadline_ms = PATIENCE_MS), &sub), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &delivery), 0);
	CHECK(sluice_delivery_get(delivery)->offset == 2);
	sluice_delivery_free(delivery);
	EQUAL(sluice_sub_close(sub, PATIENCE_MS), 0);
	EQUAL(sluice_cursor_delete(client, "events", "reader", NULL, NULL), 0);
}

static void consume(sluice_client *client)
{
	sluice_sub *sub = NULL;
	sluice_delivery *item = NULL;
	const sluice_delivery_view *view;
	sluice_reply *reply = NULL;

	EQUAL(sluice_queue_peek(client, "items", "ready", 0, 2, NULL, &reply), 0);
	CHECK(strstr(sluice_reply_json(reply), "\"items\"") != NULL && sluice_reply_more(reply));
	sluice_reply_free(reply);
	EQUAL(sluice_consume(client,
			     &SLUICE_CONSUME_SPEC(.queue = "items", .manual_credit = true, .lease_ms = 15000,
						  .extend_max_ms = 60000),
			     NULL, &sub),
	      0);
	EQUAL(sluice_sub_next(sub, 50, &item), SLUICE_E_TIMEOUT);
	EQUAL(sluice_sub_credit(sub, 3), 0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &item), 0);
	view = sluice_delivery_get(item);
	CHECK(view->kind == SLUICE_DELIVERY_ITEM && view->lease_ms == 15000 && view->failed_attempts == 0);
	SAME(view->subject, "one");
	CHECK(view->body.len == 1 && view->token != 0 && view->job == NULL && !view->redelivered);
	EQUAL(sluice_lease_extend(sub, view->token, 20000, NULL, NULL), 0);
	EQUAL(sluice_item_ack(sub, view->token, view->seq, NULL, NULL), 0);
	EQUAL(sluice_item_ack(sub, view->token, view->seq, NULL, NULL), SLUICE_E_STALE_TOKEN);
	sluice_delivery_free(item);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &item), 0);
	view = sluice_delivery_get(item);
	EQUAL(sluice_item_nack(sub, view->token, view->seq, 3600000, "later", NULL, NULL), 0);
	sluice_delivery_free(item);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &item), 0);
	view = sluice_delivery_get(item);
	EQUAL(sluice_item_release(sub, view->token, view->seq, NULL, NULL), 0);
	sluice_delivery_free(item);
	EQUAL(sluice_sub_drain(sub, PATIENCE_MS), 0);
	EQUAL(sluice_sub_close(sub, PATIENCE_MS), 0);
	EQUAL(sluice_queue_purge(client, "items", NULL, &reply), 0);
	CHECK(sluice_reply_affected(reply) == 1);
	sluice_reply_free(reply);
}

static void job_rows(sluice_client *client, uint64_t number)
{
	sluice_job_info info = SLUICE_JOB_INFO();
	sluice_job_history_row row = SLUICE_JOB_HISTORY_ROW();
	sluice_quarantine_row aside = SLUICE_QUARANTINE_ROW();
	sluice_job_audit_info audit = SLUICE_JOB_AUDIT_INFO();
	sluice_reply *reply = NULL;
	bool reported = false;

	EQUAL(sluice_job_wait(client, "job-1", number, NULL, &reply), 0);
	sluice_reply_free(reply);
	EQUAL(sluice_job_show(client, "job-1", true, NULL, &reply), 0);
	CHECK(sluice_reply_job(reply, 0, &info));
	SAME(info.job, "job-1");
	SAME(info.queue, "jobs");
	SAME(info.lifecycle, "short");
	SAME(info.state, "DONE");
	SAME(info.claim, "none");
	SAME(info.tag, "tag-1");
	SAME(info.scheduler_ref, "ref-1");
	SAME(info.owner, "somebody");
	SAME(info.evidence, "as it was");
	SAME(info.source, "probe");
	SAME(info.judge, "probe");
	CHECK(info.number == number && info.terminal && !info.cancel && info.intent && info.exited);
	CHECK(info.attempt == 1 && info.exit_code == 3 && info.signal == 0 && info.priority == 5);
	CHECK(info.evidence_class == SLUICE_EVIDENCE_FAIL && info.memory_peak_bytes == 4096);
	CHECK(info.payload.len == 7 && memcmp(info.payload.data, "payload", 7) == 0);
	CHECK(info.submit_time_ms != 0 && info.change_time_ms >= info.submit_time_ms);
	CHECK(info.seen_time_ms == 1700000000300 && info.started_time_ms == 1700000000100 &&
	      info.ended_time_ms == 1700000000200);
	CHECK(info.holder != NULL);
	sluice_reply_free(reply);
	EQUAL(sluice_job_list(client, &SLUICE_JOB_FILTER(.queue = "jobs", .state = "DONE", .max = 5), NULL,
			      &reply),
	      0);
	CHECK(sluice_reply_job(reply, 0, &info) && info.number == number);
	CHECK(!sluice_reply_job(reply, 1, &info));
	sluice_reply_free(reply);
	EQUAL(sluice_job_history(client, "job-1", NULL, &reply), 0);
	for (size_t i = 0; sluice_reply_history(reply, i, &row); i++) {
		CHECK(row.time_ms != 0 && row.index != 0 && row.from_state != NULL && row.scheduler_ref != NULL);
		if (strcmp(row.event, "report") != 0 || strcmp(row.state, "DONE") != 0)
			continue;
		reported = true;
		SAME(row.source, "probe");
		SAME(row.evidence, "as it was");
		CHECK(row.number == i + 1);
		CHECK(row.exited && row.exit_code == 3 && row.signal == 0 && row.attempt == 1);
		CHECK(row.evidence_class == SLUICE_EVIDENCE_FAIL && row.memory_peak_bytes == 4096);
		CHECK(row.seen_time_ms == 1700000000300 && row.started_time_ms == 1700000000100 &&
		      row.ended_time_ms == 1700000000200 && row.token != 0);
	}
	CHECK(reported);
	sluice_reply_free(reply);
	EQUAL(sluice_job_explain(client, "job-1", NULL, &reply), 0);
	CHECK(sluice_reply_line(reply, 0) != NULL && sluice_reply_line(reply, 1000) == NULL);
	sluice_reply_free(reply);
	EQUAL(sluice_quarantine_list(client, "job-1", 0, 10, NULL, &reply), 0);
	CHECK(sluice_reply_quarantine(reply, 0, &aside));
	SAME(aside.job, "job-1");
	SAME(aside.source, "probe");
	SAME(aside.state, "RUN");
	CHECK(aside.number != 0 && aside.time_ms != 0 && aside.attempt == 9 && aside.reason[0] != 0 &&
	      aside.evidence != NULL);
	sluice_reply_free(reply);
	EQUAL(sluice_job_audit(client, &SLUICE_JOB_AUDIT_SPEC(.silent_ms = 1000, .orphan_ms = 1000), NULL,
			       &reply),
	      0);
	CHECK(sluice_reply_audit(reply, &audit));
	CHECK(audit.jobs == 2 && audit.open == 0 && audit.ready == 0 && audit.leased == 0 &&
	      audit.orphaned == 0 && audit.gated == 0 && audit.held == 0 && audit.next_number == 0);
	sluice_reply_free(reply);
}

static void jobs(sluice_client *client)
{
	const sluice_job_spec spec = SLUICE_JOB_SPEC(.job = "job-1", .queue = "jobs", .owner = "somebody",
						     .payload = {"payload", 7}, .priority = 5);
	sluice_job_report_spec report = SLUICE_JOB_REPORT_SPEC(
		.job = "job-1", .attempt = 9, .source = "probe", .state = "RUN");
	sluice_delivery *delivery = NULL;
	const sluice_delivery_view *view;
	sluice_reply *reply = NULL;
	sluice_sub *sub = NULL;
	uint64_t number;
	char id[40];

	sluice_job_id_make(id);
	CHECK(strlen(id) > 8);
	EQUAL(sluice_source_heartbeat(client,
				      &SLUICE_SOURCE_HEARTBEAT_SPEC(.source = "probe", .ok = true,
								    .text = "fine", .take = true),
				      NULL, NULL),
	      0);
	EQUAL(sluice_job_submit(client, &spec, NULL, &reply), 0);
	SAME(sluice_reply_state(reply), "NEW");
	CHECK(sluice_reply_attempt(reply) == 1 && !sluice_reply_duplicate(reply));
	sluice_reply_free(reply);
	EQUAL(sluice_job_report(client, &report, NULL, &reply), 0);
	CHECK(sluice_reply_disposition(reply) == SLUICE_DISPOSITION_QUARANTINED);
	CHECK(sluice_reply_reason(reply)[0] != 0);
	sluice_reply_free(reply);
	EQUAL(sluice_consume(client,
			     &SLUICE_CONSUME_SPEC(.queue = "jobs", .credit = 1, .orphans = true,
						  .source = "probe"),
			     NULL, &sub),
	      0);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &delivery), 0);
	view = sluice_delivery_get(delivery);
	CHECK(view->kind == SLUICE_DELIVERY_JOB && view->attempt == 1 && view->priority == 5);
	EQUAL(sluice_job_release(client, view->job, view->token, 0, "not now", NULL, NULL), 0);
	sluice_delivery_free(delivery);
	EQUAL(sluice_sub_next(sub, PATIENCE_MS, &delivery), 0);
	view = sluice_delivery_get(delivery);
	SAME(view->job, "job-1");
	SAME(view->owner, "somebody");
	SAME(view->state, "NEW");
	SAME(view->lifecycle, "short");
	SAME(view->tag, "");
	SAME(view->scheduler_ref, "");
	CHECK(view->source != NULL && !view->orphan && !view->intent && !view->cancel);
	CHECK(view->body.len == 7 && view->number != 0 && view->code == 0);
	number = view->number;
	EQUAL(sluice_job_intent(client, view->job, view->token, view->attempt, "tag-1", NULL, NULL), 0);
	report = SLUICE_JOB_REPORT_SPEC(
		.job = "job-1", .attempt = 1, .source = "probe", .state = "DONE", .token = view->token,
		.scheduler_ref = "ref-1", .evidence = "as it was", .exit_code = 3, .exited = true,
		.evidence_class = SLUICE_EVIDENCE_FAIL, .seen_time_ms = 1700000000300,
		.started_time_ms = 1700000000100, .ended_time_ms = 1700000000200,
		.memory_peak_bytes = 4096, .number = number, .release = true);
	EQUAL(sluice_job_report(client, &report, NULL, &reply), 0);
	CHECK(sluice_reply_disposition(reply) == SLUICE_DISPOSITION_APPLIED);
	sluice_reply_free(reply);
	sluice_delivery_free(delivery);
	EQUAL(sluice_sub_close(sub, PATIENCE_MS), 0);
	EQUAL(sluice_job_submit(client, &SLUICE_JOB_SPEC(.job = "job-2", .queue = "jobs"), NULL, NULL), 0);
	EQUAL(sluice_job_cancel(client, "job-2", "no more", NULL, &reply), 0);
	SAME(sluice_reply_state(reply), "OFF");
	sluice_reply_free(reply);
	EQUAL(sluice_job_reset(client, "job-2", false, "again", NULL, &reply), 0);
	CHECK(sluice_reply_attempt(reply) == 2);
	sluice_reply_free(reply);
	EQUAL(sluice_job_cancel(client, "job-2", "no more", NULL, NULL), 0);
	EQUAL(sluice_job_retention_set(client, 86400000, NULL, NULL), 0);
	job_rows(client, number);
}

static void transaction(sluice_client *client)
{
	sluice_txn *txn = sluice_txn_create(), *wrong = sluice_txn_create();
	sluice_sub *items = NULL, *work = NULL;
	sluice_delivery *ack = NULL, *nack = NULL, *job = NULL;
	const sluice_delivery_view *view;
	sluice_reply *reply = NULL;

	for (int i = 0; i < 2; i++)
		EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "t", .queue = "items"), NULL, NULL), 0);
	EQUAL(sluice_job_submit(client, &SLUICE_JOB_SPEC(.job = "job-3", .queue = "jobs"), NULL, NULL), 0);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "items", .session_lease = true), NULL,
			     &items),
	      0);
	EQUAL(sluice_consume(client, &SLUICE_CONSUME_SPEC(.queue = "jobs"), NULL, &work), 0);
	EQUAL(sluice_sub_next(items, PATIENCE_MS, &ack), 0);
	EQUAL(sluice_sub_next(items, PATIENCE_MS, &nack), 0);
	EQUAL(sluice_sub_next(work, PATIENCE_MS, &job), 0);

	CHECK(txn != NULL && wrong != NULL);
	EQUAL(sluice_txn_check_job(txn, "job-3", "NEW", 1), 0);
	EQUAL(sluice_txn_publish(txn, &SLUICE_MESSAGE(.subject = "abi.event", .body = {"txn", 3})), 0);
	view = sluice_delivery_get(ack);
	EQUAL(sluice_txn_ack(txn, "items", view->token, view->seq, 1), 0);
	view = sluice_delivery_get(nack);
	EQUAL(sluice_txn_nack(txn, "items", view->token, view->seq, 1, 3600000, "in a transaction"), 0);
	view = sluice_delivery_get(job);
	EQUAL(sluice_txn_job_intent(txn, "job-3", view->token, view->attempt, "tag-3"), 0);
	EQUAL(sluice_txn_job_report(txn, &SLUICE_JOB_REPORT_SPEC(.job = "job-3", .attempt = 1,
								 .source = "probe", .state = "DONE",
								 .token = view->token)),
	      0);
	EQUAL(sluice_txn_job_submit(txn, &SLUICE_JOB_SPEC(.job = "job-4", .queue = "jobs")), 0);
	EQUAL(sluice_txn_job_cancel(txn, "job-4", "at once"), 0);
	EQUAL(sluice_txn_job_reset(txn, "job-4", "and again"), 0);
	EQUAL(sluice_txn_job_cancel(txn, "job-4", "for good"), 0);
	EQUAL(sluice_txn_cursor_set(txn, "events", "writer", 4), 0);
	EQUAL(sluice_txn_commit(client, txn, NULL, &reply), 0);
	CHECK(sluice_reply_failed_op(reply) == 0);
	sluice_reply_free(reply);
	EQUAL(sluice_txn_check_job(wrong, "job-3", "DONE", 1), 0);
	EQUAL(sluice_txn_check_job(wrong, "job-3", "NEW", 0), 0);
	EQUAL(sluice_txn_commit(client, wrong, NULL, &reply), SLUICE_E_WRONG_STATE);
	CHECK(sluice_reply_failed_op(reply) == 2);
	sluice_reply_free(reply);
	sluice_delivery_free(ack);
	sluice_delivery_free(nack);
	sluice_delivery_free(job);
	EQUAL(sluice_sub_close(items, PATIENCE_MS), 0);
	EQUAL(sluice_sub_close(work, PATIENCE_MS), 0);
	sluice_txn_destroy(txn);
	sluice_txn_destroy(wrong);
}

/* The same in the caller's loop, with callbacks. */
static void callbacks(void)
{
	struct seen seen = {0};
	sluice_client *client = opened("caller-loop", on_notice, &seen);
	sluice_call call = SLUICE_CALL(.done = on_done, .user = &seen);
	sluice_sub *events = NULL, *items = NULL;

	CHECK(sluice_fd(client) >= 0);
	turns(client, &seen.connected, 1);
	EQUAL(sluice_object_show(client, SLUICE_OBJECT_STREAM, "none", &SLUICE_CALL(.user = SLUICE_FIRE), NULL),
	      0);
	turns(client, &seen.errors, 1);
	EQUAL(sluice_follow(client,
			    &SLUICE_FOLLOW_SPEC(.stream = "short", .on_delivery = on_event, .user = &seen),
			    &call, &events),
	      0);
	turns(client, &seen.done, 1);
	turns(client, &seen.events, 3);
	turns(client, &seen.caught_up, 1);
	EQUAL(sluice_consume(client,
			     &SLUICE_CONSUME_SPEC(.queue = "begun", .report_begun = true,
						  .on_delivery = on_item, .user = &seen),
			     &call, &items),
	      0);
	turns(client, &seen.items, 1);
	turns(client, &seen.done, 2);
	EQUAL(sluice_item_ack(items, seen.token, seen.seq, &call, NULL), 0);
	turns(client, &seen.done, 3);
	EQUAL(sluice_sub_close(events, PATIENCE_MS), 0);
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	CHECK(seen.notices >= 2);
}

static void sessions(sluice_client *client)
{
	struct seen seen = {0};
	sluice_client *other = opened("own-thread", NULL, &seen);
	sluice_reply *reply = NULL;

	EQUAL(sluice_status(client, NULL, &reply), 0);
	CHECK(strstr(sluice_reply_json(reply), "\"status\"") != NULL);
	CHECK(sluice_reply_request_id(reply) != 0);
	sluice_reply_free(reply);
	EQUAL(sluice_session_list(client, 0, 0, NULL, &reply), 0);
	CHECK(strstr(sluice_reply_json(reply), "\"sessions\"") != NULL);
	sluice_reply_free(reply);
	EQUAL(sluice_session_close(client, sluice_session_id(other), NULL, NULL), 0);
	EQUAL(sluice_close(other, true, PATIENCE_MS), 0);
}

int main(int argc, char **argv)
{
	const char *subjects[] = {"short.*", NULL}, *headers[] = {"name", "value", NULL};
	sluice_client *client;

	if (argc != 2)
		return 2;
	address = argv[1];
	EQUAL(sluice_allocator_set(&SLUICE_ALLOCATOR(.alloc = take, .resize = retake, .release = give)), 0);
	SAME(sluice_error_name(SLUICE_E_TIMEOUT), "TIMEOUT");
	CHECK(sluice_error_text(SLUICE_E_TIMEOUT)[0] != 0 && sluice_error_retriable(SLUICE_E_TIMEOUT) &&
	      sluice_error_exit_code(SLUICE_E_TIMEOUT) == 9 && sluice_version()[0] != 0);
	client = opened("own-thread", NULL, NULL);
	objects(client);
	publishing(client);
	follow(client);
	consume(client);
	jobs(client);
	transaction(client);
	sessions(client);
	/* For the callbacks. */
	EQUAL(sluice_stream_create(client, &SLUICE_STREAM_SPEC(.name = "short", .subjects = subjects), NULL,
				   NULL),
	      0);
	EQUAL(sluice_queue_create(client, &SLUICE_QUEUE_SPEC(.name = "begun"), NULL, NULL), 0);
	for (int i = 0; i < 3; i++)
		EQUAL(sluice_publish(client,
				     &SLUICE_MESSAGE(.subject = "abi.event", .stream = "short",
						     .key = {"key", 3}, .id = {"id", 2}, .body = {"body", 4},
						     .headers = headers, .time_ms = 1700000000000),
				     NULL, NULL),
		      0);
	EQUAL(sluice_publish(client, &SLUICE_MESSAGE(.subject = "b", .queue = "begun"), NULL, NULL), 0);
	callbacks();
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	CHECK(blocks > 0);
	if (failures == 0)
		printf("all of 0.1 works\n");
	return failures == 0 ? 0 : 1;
}
