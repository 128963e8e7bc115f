/* SPDX-License-Identifier: Apache-2.0
 * A protocol that ends subscriptions and sessions while the broker calls it about one of them. */
#include <stdlib.h>
#include <string.h>

#include "broker/net/conn/admit.h"
#include "broker/net/conn/sessions.h"
#include "broker/net/io/io.h"
#include "broker/util/invariant.h"
#include "protocol/envelope.h"
#include "tests/unit/net_rig.h"

enum { SUBS = 3 };

/* Ends all that it has, when it is called with the first one. */
static struct ender {
	struct conn *conn;
	unsigned ended, delivered, gaps, replies, effects;
	bool ends_in_gap, ends_in_delivery, ends_in_end, drops_in_effect;
	int code; /* of the last reply */
	uint64_t session, other;
} ender;

static void end_all(uint64_t notified)
{
	for (uint64_t n = 1; n <= SUBS; n++)
		cr_expect_eq(door_unsubscribe(ender.conn, n),
			     n == notified ? SLUICE_E_NOT_FOUND : 0, "%llu", ULL(n));
}

static const char *ender_name(const struct conn *conn)
{
	(void)conn;
	return "ender";
}

static int ender_accept(struct conn *conn)
{
	ender.conn = conn;
	return 0;
}

static long ender_bytes(struct conn *conn, const void *bytes, size_t len)
{
	(void)conn;
	(void)bytes;
	return (long)len;
}

static void ender_reply(struct conn *conn, uint64_t tag, const struct outcome *outcome,
			struct sluice_slice payload)
{
	(void)conn;
	(void)tag;
	(void)payload;
	ender.replies++;
	ender.code = outcome->code;
}

static void ender_session(struct conn *conn, uint64_t tag, int code, const char *text,
			  const struct door_session *session)
{
	(void)conn;
	(void)tag;
	(void)text;
	cr_assert_eq(code, 0);
	ender.session = session->session;
	ender.replies++;
}

static void ender_effect(struct conn *conn, struct sub *sub, const struct effect *effect)
{
	ender.effects++;
	if (sub != NULL || !ender.drops_in_effect)
		return;
	cr_expect_eq(door_session_drop(conn, effect->id), 0);
	cr_expect_eq(door_session_drop(conn, ender.other), 0);
}

static int ender_deliver(struct sub *sub, const struct segment *segment, uint64_t *io_budget)
{
	(void)io_budget;
	ender.delivered++;
	if (ender.ends_in_delivery)
		end_all(0);
	door_delivered(sub, segment->base + segment->count, segment->count);
	return 0;
}

static void ender_gap(struct sub *sub, uint64_t to_offset)
{
	(void)sub;
	(void)to_offset;
	ender.gaps++;
	if (ender.ends_in_gap)
		end_all(0);
}

static void ender_subscription_end(struct sub *sub, int code, const char *text)
{
	struct door_sub facts;

	(void)code;
	(void)text;
	ender.ended++;
	door_sub_get(sub, &facts);
	if (ender.ends_in_end)
		end_all(facts.number);
}

static void ender_closed(struct conn *conn)
{
	(void)conn;
}

static const struct protocol_ops ender_protocol = {
	.name = ender_name,
	.accept = ender_accept,
	.bytes = ender_bytes,
	.reply = ender_reply,
	.session = ender_session,
	.effect = ender_effect,
	.deliver_segment = ender_deliver,
	.gap = ender_gap,
	.subscription_end = ender_subscription_end,
	.closed = ender_closed,
};

static void ender_open(struct rig *rig)
{
	ender = (struct ender){0};
	rig_open_as(rig, &ender_protocol, NULL);
	cr_assert_eq(door_enter(ender.conn, (struct sluice_slice){"default", 7}), 0);
}

static void answered(struct rig *rig, int rc)
{
	const unsigned before = ender.replies;

	cr_assert_eq(rc, 0);
	for (int n = 0; n < 100 && ender.replies == before; n++)
		turn(rig);
	cr_assert_eq(ender.replies, before + 1);
	cr_assert_eq(ender.code, 0);
}

static void submit(struct rig *rig, uint16_t type, const ProtobufCMessage *message)
{
	struct command command = {.type = type, .message = message};

	answered(rig,
		 door_submit(ender.conn, 1, &command, (struct door_block){0}, 64, DOOR_DATA, 0));
}

static void stream_make(struct rig *rig, uint64_t max_events)
{
	Sluice__StreamConfig config = SLUICE__STREAM_CONFIG__INIT;
	Sluice__StreamCreate create = SLUICE__STREAM_CREATE__INIT;
	char name[] = "s", subject[] = "a", *subjects[] = {subject};

	config.name = name;
	config.max_events = max_events;
	config.n_subjects = 1;
	config.subjects = subjects;
	create.config = &config;
	submit(rig, COMMAND_STREAM_CREATE, &create.base);
}

static void stream_delete(struct rig *rig)
{
	Sluice__StreamDelete delete = SLUICE__STREAM_DELETE__INIT;
	char name[] = "s";

	delete.name = name;
	submit(rig, COMMAND_STREAM_DELETE, &delete.base);
}

static void event_put(struct rig *rig)
{
	struct envelope envelope = {.body = {"x", 1}};
	uint8_t bytes[64];
	struct frame_publish publish = {.count = 1, .subject = {"a", 1}};
	const char *why = "";

	publish.payload = (struct sluice_slice){bytes, envelope_encode(bytes, &envelope)};
	publish.raw_bytes = (uint32_t)publish.payload.len;
	answered(rig, door_publish(ender.conn, 1, 0, &publish, NULL, &why));
}

static void follow_all(uint64_t from)
{
	struct door_sub_spec spec = {.kind = DOOR_FOLLOW,
				     .name = {"s", 1},
				     .credit = 10,
				     .from = SLUICE__FOLLOW_FROM__FROM_OFFSET,
				     .from_offset = from};
	struct door_subscribed ret;

	for (uint64_t n = 1; n <= SUBS; n++)
		cr_assert_eq(door_subscribe(ender.conn, n, &spec, &ret), 0, "%s", ret.why);
	io_again(ender.conn->io); /* called outside of a callback: no round follows by itself */
}

static void all_ended(struct rig *rig)
{
	turns(rig);
	cr_expect_null(ender.conn->subs);
	cr_expect_null(rig->net->ios[0].subs);
	rig_close(rig);
}

Test(net_ends, in_the_end_of_one_whose_stream_was_deleted)
{
	struct rig rig;

	ender_open(&rig);
	stream_make(&rig, 0);
	follow_all(0);
	turns(&rig);
	ender.ends_in_end = true;
	stream_delete(&rig);
	cr_expect_eq(ender.ended, 1u, "the others were ended by the protocol");
	all_ended(&rig);
}

static int deny(void *user, const struct admission_question *question)
{
	(void)user;
	(void)question;
	return SLUICE_E_DENIED;
}

Test(net_ends, in_the_end_of_one_that_lost_its_right)
{
	static const struct admission admission = {.may = deny};
	struct rig rig;

	ender_open(&rig);
	stream_make(&rig, 0);
	follow_all(0);
	turns(&rig);
	ender.ends_in_end = true;
	rig.net->config.admission = &admission;
	io_security(&rig.net->ios[0], 1);
	turns(&rig);
	cr_expect_eq(ender.ended, 1u, "the others were ended by the protocol");
	cr_expect_eq(rig.net->ios[0].security_reported, 1u);
	all_ended(&rig);
}

Test(net_ends, in_a_delivery)
{
	struct rig rig;

	ender_open(&rig);
	stream_make(&rig, 0);
	event_put(&rig);
	event_put(&rig);
	follow_all(0);
	ender.ends_in_delivery = true;
	turns(&rig);
	cr_expect_eq(ender.delivered, 1u);
	cr_expect_eq(ender.ended, 0u);
	all_ended(&rig);
}

Test(net_ends, in_a_gap)
{
	struct rig rig;

	ender_open(&rig);
	stream_make(&rig, 1);
	event_put(&rig);
	event_put(&rig);
	rig.mono_ms += 60000;
	turns(&rig); /* the first one is removed */
	follow_all(0);
	ender.ends_in_gap = true;
	turns(&rig);
	cr_expect_eq(ender.gaps, 1u);
	cr_expect_eq(ender.delivered, 0u);
	all_ended(&rig);
}

/* Two sessions of one list of the thread. */
Test(net_ends, in_the_end_of_a_session)
{
	struct door_session_spec spec = {.how = DOOR_SESSION_OPEN, .timeout_ms = 60000};
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;
	struct door_session ret;
	const char *why;
	uint64_t first;
	struct rig rig;

	ender_open(&rig);
	answered(&rig, door_session(ender.conn, 1, &spec, &ret, &why));
	first = ender.session;
	cr_assert_eq(session_hold(ender.conn, first + SESSION_LISTS, 60000, 0), 0);
	ender.other = first + SESSION_LISTS;
	ender.drops_in_effect = true;
	close.session = first;
	submit(&rig, COMMAND_SESSION_CLOSE, &close.base);
	turns(&rig);
	cr_expect_eq(ender.effects, 1u);
	cr_expect_null(ender.conn->sessions);
	rig_close(&rig);
}
