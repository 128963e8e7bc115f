/* SPDX-License-Identifier: Apache-2.0
 * A CLAIM that a protocol submits itself: what it gives comes to the connection that sent it,
 * before its answer, and to no consumer. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/conn.h"
#include "broker/net/conn/internal.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/net_rig.h"

enum { SAID_BYTES = 512 };

static char said[SAID_BYTES]; /* what the protocol was given, in order */
static struct door_session opened;

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *format, ...)
{
	size_t used = strlen(said);
	va_list args;

	va_start(args, format);
	(void)vsnprintf(said + used, sizeof(said) - used, format, args);
	va_end(args);
}

static const char *on_name(const struct conn *conn)
{
	(void)conn;
	return "claims";
}

static int on_accept(struct conn *conn)
{
	door_state_set(conn, said);
	return 0;
}

static long on_bytes(struct conn *conn, const void *bytes, size_t len)
{
	(void)conn, (void)bytes;
	return (long)len;
}

static void on_closed(struct conn *conn)
{
	door_state_set(conn, NULL);
}

static void on_reply(struct conn *conn, uint64_t tag, const struct outcome *outcome,
		     struct sluice_slice payload)
{
	(void)conn;
	(void)payload;
	say("reply %llu code %d count %u; ", (unsigned long long)tag, outcome->code,
	    outcome->count);
}

static void on_session(struct conn *conn, uint64_t tag, int code, const char *text,
		       const struct door_session *session)
{
	(void)conn, (void)tag, (void)text;
	cr_expect_eq(code, 0);
	opened = *session;
}

static void on_claimed(struct conn *conn, uint64_t tag, const struct effect *effect)
{
	if (effect->kind == FX_GRANT)
		say("grant %llu of %u from %llu; ", (unsigned long long)tag, effect->count,
		    (unsigned long long)effect->runs[0].first);
	else
		say("effect %d %llu; ", (int)effect->kind, (unsigned long long)tag);
	cr_expect_eq(conn->delivering, effect->kind == FX_GRANT, "it counts as a delivery");
}

static void on_effect(struct conn *conn, struct sub *sub, const struct effect *effect)
{
	(void)conn, (void)sub;
	say("strange %d; ", (int)effect->kind);
}

static const struct protocol_ops claims_protocol = {.name = on_name,
						    .accept = on_accept,
						    .bytes = on_bytes,
						    .closed = on_closed,
						    .reply = on_reply,
						    .session = on_session,
						    .claimed = on_claimed,
						    .effect = on_effect};

static struct conn *the_conn(struct rig *rig)
{
	return rig->net->ios[0].conns;
}

/* Its body is copied. */
static void submit(struct rig *rig, uint16_t type, uint64_t tag, const void *body, size_t bytes)
{
	void *block = malloc(bytes);
	struct command command = {.type = type, .body = block};

	cr_assert_not_null(block);
	memcpy(block, body, bytes);
	cr_assert_eq(admit_command(the_conn(rig), &command), 0);
	cr_assert_eq(conn_submit(the_conn(rig), &command, (struct door_block){.plain = block},
				 bytes, true, tag, false),
		     0);
}

static void settle(struct rig *rig)
{
	for (int i = 0; i < 10; i++)
		turn(rig);
}

static void put(struct rig *rig, unsigned count)
{
	static uint8_t bytes[64];
	struct envelope envelope = {.body = {"x", 1}};
	struct frame_publish publish = {.target_kind = PUBLISH_TO_QUEUE,
					.count = 1,
					.subject = {"s", 1},
					.target = {"dead-letter", 11}};

	publish.payload = (struct sluice_slice){bytes, envelope_encode(bytes, &envelope)};
	publish.raw_bytes = (uint32_t)publish.payload.len;
	for (unsigned i = 0; i < count; i++)
		submit(rig, COMMAND_PUBLISH, 0, &publish, sizeof(publish));
	settle(rig);
}

static uint64_t dead_letter(struct rig *rig)
{
	struct store_txn *txn = NULL;
	struct queue_ref ref;

	cr_assert_eq(store_begin_read(rig->store, &txn), 0);
	cr_assert_eq(core_queue_find(txn, 1, (struct sluice_slice){"dead-letter", 11}, &ref), 0);
	store_abort(txn);
	return ref.id;
}

static void start(struct rig *rig)
{
	const struct door_session_spec spec = {.how = DOOR_SESSION_OPEN,
					       .flags = DOOR_SESSION_ATTACH,
					       .face = SESSION_FACE_AMQP,
					       .timeout_ms = 30000};
	struct door_session got;
	const char *why = "";

	memset(&opened, 0, sizeof(opened));
	rig_open_as(rig, &claims_protocol, NULL);
	cr_assert_eq(door_enter(the_conn(rig), (struct sluice_slice){"default", 7}), 0);
	cr_assert_eq(door_session(the_conn(rig), 1, &spec, &got, &why), 0, "%s", why);
	settle(rig);
	cr_assert_neq(opened.session, 0);
	cr_assert_neq(memcmp(opened.secret, (const uint8_t[16]){0}, 16), 0,
		      "the secret comes with the answer");
	said[0] = 0;
}

Test(net_claim, what_a_claim_gives_comes_before_its_answer)
{
	struct cmd_claim claim = {.max = 2};
	struct rig rig;

	start(&rig);
	put(&rig, 3);
	said[0] = 0;
	claim.queue = dead_letter(&rig);
	submit(&rig, COMMAND_CLAIM, 77, &claim, sizeof(claim));
	submit(&rig, COMMAND_CLAIM, 78, &claim, sizeof(claim));
	submit(&rig, COMMAND_CLAIM, 79, &claim, sizeof(claim));
	settle(&rig);
	cr_expect_str_eq(said, "grant 77 of 2 from 1; reply 77 code 0 count 2; "
			       "grant 78 of 1 from 3; reply 78 code 0 count 1; "
			       "reply 79 code 0 count 0; ");
	rig_close(&rig);
}

Test(net_claim, a_refused_claim_is_answered_and_gives_nothing)
{
	struct cmd_claim claim = {.queue = 1000, .max = 2};
	struct rig rig;

	start(&rig);
	put(&rig, 1);
	said[0] = 0;
	submit(&rig, COMMAND_CLAIM, 1, &claim, sizeof(claim));
	claim.queue = dead_letter(&rig);
	claim.lease_ms = 1;
	submit(&rig, COMMAND_CLAIM, 2, &claim, sizeof(claim));
	settle(&rig);
	cr_expect_str_eq(said, "reply 1 code -10 count 0; reply 2 code -4 count 0; ");
	rig_close(&rig);
}

Test(net_claim, resumed_items_and_the_end_of_the_resumption_come_the_same_way)
{
	struct cmd_claim claim = {.max = 2};
	struct rig rig;

	start(&rig);
	put(&rig, 2);
	claim.queue = dead_letter(&rig);
	submit(&rig, COMMAND_CLAIM, 1, &claim, sizeof(claim));
	settle(&rig);
	said[0] = 0;
	claim.flags = CLAIM_RESUME;
	submit(&rig, COMMAND_CLAIM, 2, &claim, sizeof(claim));
	settle(&rig);
	cr_expect_str_eq(said, "grant 2 of 2 from 1; effect 3 2; reply 2 code 0 count 2; ");
	cr_expect_eq(FX_RESUMED, 3);
	rig_close(&rig);
}

/* The items stay leased; there is nobody to give them to. */
Test(net_claim, of_a_connection_that_is_gone_it_gives_nothing)
{
	struct cmd_claim claim = {.max = 2};
	struct rig rig;

	start(&rig);
	put(&rig, 2);
	said[0] = 0;
	claim.queue = dead_letter(&rig);
	submit(&rig, COMMAND_CLAIM, 1, &claim, sizeof(claim));
	conn_kill(the_conn(&rig), "the test ends it");
	settle(&rig);
	cr_assert_null(the_conn(&rig));
	cr_expect_str_eq(said, "");
	cr_expect_null(rig.net->ios[0].orphans, "its answer was taken");
	rig_close(&rig);
}

/* limit: CONN_PENDING_BYTES_MAX */
Test(net_claim, claims_under_way_are_bounded_by_what_they_give)
{
	struct cmd_claim claim = {.max = 1024};
	struct rig rig;
	unsigned count = 0;

	start(&rig);
	claim.queue = dead_letter(&rig);
	for (; count < (unsigned)LIMIT_INFLIGHT_REQUESTS_MAX && conn_may_take(the_conn(&rig));
	     count++)
		submit(&rig, COMMAND_CLAIM, count, &claim, sizeof(claim));
	cr_expect_leq(count, 32u, "%u may give 1 MiB each", count);
	settle(&rig);
	cr_expect(conn_may_take(the_conn(&rig)), "they are answered");
	cr_expect_eq(the_conn(&rig)->pending_bytes, 0);
	rig_close(&rig);
}
