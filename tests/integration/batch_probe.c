/* SPDX-License-Identifier: Apache-2.0
 * batch_probe ADDRESS MODE: checks what include/sluice/client.h says about sluice_publish_batch and
 * about the answers to many messages, in a program that includes nothing else; MODE as in the
 * configuration. Prints what does not hold; exit code 0: all of it held. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluice/client.h"

enum { PATIENCE_MS = 30000, MANY = 500, SINGLES = 3000 };

static int failures;

#define CHECK(condition)                                                             \
	do {                                                                         \
		if (!(condition)) {                                                  \
			(void)printf("not so, line %d: %s\n", __LINE__, #condition); \
			failures++;                                                  \
		}                                                                    \
	} while (0)
#define EQUAL(got, expected)                                                                       \
	do {                                                                                       \
		long long got_ = (long long)(got), expected_ = (long long)(expected);              \
		if (got_ != expected_) {                                                           \
			(void)printf("line %d: %s is %lld, expected %lld\n", __LINE__, #got, got_, \
				     expected_);                                                   \
			failures++;                                                                \
		}                                                                                  \
	} while (0)

static sluice_client *client;

static void open_client(const char *address, const char *mode)
{
	sluice_config *config = sluice_config_create();

	/* Far less than a batch can hold: it is not split. */
	EQUAL(sluice_config_set(config, "address", address), 0);
	EQUAL(sluice_config_set(config, "mode", mode), 0);
	EQUAL(sluice_config_set(config, "batch_events", "7"), 0);
	EQUAL(sluice_config_set(config, "batch_bytes", "4096"), 0);
	EQUAL(sluice_open(config, NULL, NULL, &client), 0);
	sluice_config_destroy(config);
	EQUAL(sluice_wait_connected(client, PATIENCE_MS), 0);
}

static void stream(const char *name, const char *subject)
{
	const char *subjects[] = {subject, NULL};

	EQUAL(sluice_stream_create(client, &SLUICE_STREAM_SPEC(.name = name, .subjects = subjects),
				   NULL, NULL),
	      0);
}

static uint64_t next_offset(const char *name)
{
	sluice_stream_info info = SLUICE_STREAM_INFO();
	sluice_reply *reply = NULL;

	EQUAL(sluice_object_show(client, SLUICE_OBJECT_STREAM, name, NULL, &reply), 0);
	CHECK(sluice_reply_stream(reply, 0, &info));
	sluice_reply_free(reply);
	return info.next_offset;
}

static uint32_t bodies[MANY];

static void messages_make(sluice_message *messages, const char *subject)
{
	for (uint32_t i = 0; i < MANY; i++) {
		bodies[i] = i;
		messages[i] =
			SLUICE_MESSAGE(.subject = subject, .body = {&bodies[i], sizeof(bodies[i])});
	}
}

static void follow_in_order(const char *name)
{
	sluice_sub *sub = NULL;

	EQUAL(sluice_follow(client, &SLUICE_FOLLOW_SPEC(.stream = name, .from = SLUICE_FROM_FIRST),
			    NULL, &sub),
	      0);
	for (uint32_t i = 0; i < MANY; i++) {
		sluice_delivery *delivery = NULL;
		uint32_t body = UINT32_MAX;

		if (sluice_sub_next(sub, PATIENCE_MS, &delivery) != 0)
			break;
		memcpy(&body, sluice_delivery_get(delivery)->body.data, sizeof(body));
		EQUAL(sluice_delivery_get(delivery)->offset, i);
		EQUAL(body, i);
		sluice_delivery_free(delivery);
	}
	EQUAL(sluice_sub_close(sub, PATIENCE_MS), 0);
}

static void many_are_one(void)
{
	sluice_message messages[MANY];
	sluice_reply *reply = NULL, *after = NULL;

	stream("one", "one.>");
	messages_make(messages, "one.x");
	EQUAL(sluice_publish_batch(client, messages, MANY, NULL, &reply), 0);
	EQUAL(sluice_reply_offset(reply), 0);
	EQUAL(sluice_reply_affected(reply), MANY);
	EQUAL(sluice_publish(client, &messages[0], NULL, &after), 0);
	EQUAL(sluice_reply_offset(after), MANY);
	/* One command each. */
	EQUAL(sluice_reply_index(after), sluice_reply_index(reply) + 1);
	sluice_reply_free(reply);
	sluice_reply_free(after);
	follow_in_order("one");
}

static void subjects_may_differ(void)
{
	sluice_message messages[MANY];

	stream("even", "two.even");
	stream("odd", "two.odd");
	messages_make(messages, "two.even");
	for (size_t i = 1; i < MANY; i += 2)
		messages[i].subject = "two.odd";
	EQUAL(sluice_publish_batch(client, messages, MANY, NULL, NULL), 0);
	EQUAL(next_offset("even"), MANY / 2);
	EQUAL(next_offset("odd"), MANY / 2);
}

static void refused(const sluice_message *messages, size_t count, int code, const char *why)
{
	sluice_reply *reply = NULL;

	EQUAL(sluice_publish_batch(client, messages, count, NULL, &reply), code);
	EQUAL(sluice_reply_code(reply), code);
	if (strstr(sluice_reply_text(reply), why) == NULL) {
		(void)printf("'%s' does not say '%s'\n", sluice_reply_text(reply), why);
		failures++;
	}
	sluice_reply_free(reply);
}

static void all_or_none(void)
{
	sluice_message messages[MANY], *many = calloc(10001, sizeof(*many));
	char *body = calloc(1, 4 << 20);

	stream("three", "three.x");
	messages_make(messages, "three.x");
	refused(messages, 0, SLUICE_E_INVAL, "0 messages");
	for (size_t i = 0; i < 10001; i++)
		many[i] = messages[0];
	refused(many, 10001, SLUICE_E_LIMIT, "10001 messages");
	messages[MANY / 2].subject = "three..x";
	refused(messages, MANY, SLUICE_E_INVAL, "three..x");
	messages[MANY / 2].subject = NULL;
	refused(messages, MANY, SLUICE_E_INVAL, "subject");
	messages[MANY / 2].subject = "three.x";
	messages[MANY / 2].stream = "three";
	refused(messages, MANY, SLUICE_E_INVAL, "message 250");
	messages[MANY / 2].stream = NULL;
	messages[MANY / 2].relaxed = true;
	refused(messages, MANY, SLUICE_E_INVAL, "message 250");
	messages[MANY / 2].relaxed = false;
	messages[MANY / 2].key = (sluice_slice){body, 256};
	refused(messages, MANY, SLUICE_E_LIMIT, "key");
	messages[MANY / 2].key = (sluice_slice){NULL, 0};
	for (size_t i = 0; i < 5; i++)
		messages[i].body = (sluice_slice){body, 4 << 20};
	refused(messages, MANY, SLUICE_E_LIMIT, "");
	messages_make(messages, "three.x");
	for (size_t i = 0; i < MANY; i++)
		messages[i].mandatory = true;
	messages[MANY - 1].subject = "nobody.is.there";
	refused(messages, MANY, SLUICE_E_NO_ROUTE, "nobody.is.there");
	EQUAL(next_offset("three"), 0);
	messages[MANY - 1].subject = "three.x";
	EQUAL(sluice_publish_batch(client, messages, MANY, NULL, NULL), 0);
	EQUAL(next_offset("three"), MANY);
	/* The broker's refusal is the first failure of a publish. */
	EQUAL(sluice_flush(client, PATIENCE_MS), SLUICE_E_NO_ROUTE);
	free(many);
	free(body);
}

/* ---- answers ---- */

static sluice_reply *kept[SINGLES];
static int batches_done;

static void on_single(sluice_client *own, const sluice_reply *reply, void *user)
{
	uint32_t *count = user;

	(void)own;
	kept[(*count)++] = sluice_reply_ref(reply);
}

static void on_batch(sluice_client *own, const sluice_reply *reply, void *user)
{
	sluice_message again = SLUICE_MESSAGE(.subject = "four.x", .body = {"again", 5});

	(void)own;
	EQUAL(sluice_reply_code(reply), 0);
	EQUAL(sluice_reply_affected(reply), MANY);
	CHECK(user == &batches_done);
	EQUAL(sluice_publish_batch(client, &again, 1, NULL, NULL), SLUICE_E_WRONG_STATE);
	EQUAL(sluice_publish_batch(client, &again, 1, &SLUICE_CALL(.user = SLUICE_FIRE), NULL), 0);
	batches_done++;
}

static void each_has_its_answer(void)
{
	sluice_message messages[MANY];
	sluice_publish_stats before = SLUICE_PUBLISH_STATS(), after = SLUICE_PUBLISH_STATS();
	uint32_t count = 0;
	sluice_call single = SLUICE_CALL(.done = on_single, .user = &count),
		    batch = SLUICE_CALL(.done = on_batch, .user = &batches_done);

	stream("four", "four.>");
	messages_make(messages, "four.x");
	sluice_publish_stats_get(client, &before);
	for (size_t i = 0; i < SINGLES; i++)
		EQUAL(sluice_publish(client, &messages[i % MANY], &single, NULL), 0);
	EQUAL(sluice_flush(client, PATIENCE_MS), 0);
	EQUAL(count, SINGLES);
	/* Every message has its own answer, also if the application kept it. */
	for (uint32_t i = 0; i < count; i++) {
		EQUAL(sluice_reply_code(kept[i]), 0);
		EQUAL(sluice_reply_offset(kept[i]), i);
		CHECK(i == 0 ||
		      sluice_reply_request_id(kept[i]) != sluice_reply_request_id(kept[i - 1]));
	}
	for (uint32_t i = 0; i < count; i++)
		sluice_reply_free(kept[i]);
	EQUAL(sluice_publish_batch(client, messages, MANY, &batch, NULL), 0);
	EQUAL(sluice_publish_batch(client, messages, MANY, &batch, NULL), 0);
	EQUAL(sluice_publish_batch(client, messages, MANY, &SLUICE_CALL(.user = SLUICE_FIRE), NULL),
	      0);
	EQUAL(sluice_flush(client, PATIENCE_MS), 0);
	EQUAL(batches_done, 2);
	sluice_publish_stats_get(client, &after);
	EQUAL(after.published - before.published, SINGLES + 3 * MANY + 2);
	EQUAL(after.acked - before.acked, SINGLES + 3 * MANY + 2);
	EQUAL(after.failed - before.failed, 0);
	EQUAL(after.in_flight, 0);
	EQUAL(after.buffered_bytes, 0);
	EQUAL(next_offset("four"), SINGLES + 3 * MANY + 2);
}

int main(int argc, char **argv)
{
	if (argc != 3) {
		(void)fprintf(stderr, "usage: batch_probe ADDRESS MODE\n");
		return 2;
	}
	open_client(argv[1], argv[2]);
	many_are_one();
	subjects_may_differ();
	all_or_none();
	each_has_its_answer();
	EQUAL(sluice_close(client, true, PATIENCE_MS), 0);
	return failures == 0 ? 0 : 1;
}
