/* SPDX-License-Identifier: Apache-2.0
 * The sessions that a connection holds: several, attached, free and ephemeral ones; by a protocol
 * that does what the test says. */
#include <string.h>

#include "broker/net/conn/door.h"
#include "broker/net/conn/sessions.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "tests/unit/net_rig.h"

/* ---- a protocol: each byte runs `act` ---- */

static void (*act)(struct conn *conn);
static int result;		    /* of the last call */
static struct door_session session; /* of the last answer */
static unsigned opened, ended;
static uint64_t ended_session;
static uint64_t tags[8]; /* of answered commands */
static unsigned replied;

static const char *name(const struct conn *conn)
{
	(void)conn;
	return "acts";
}

static int accept_it(struct conn *conn)
{
	return door_enter(conn, (struct sluice_slice){"default", 7});
}

static long bytes(struct conn *conn, const void *bytes, size_t len)
{
	(void)bytes;
	if (act != NULL)
		act(conn);
	return (long)len;
}

static void answered(struct conn *conn, uint64_t tag, int code, const char *text,
		     const struct door_session *got)
{
	(void)conn;
	(void)tag;
	(void)text;
	result = code;
	session = *got;
	opened++;
}

static void reply(struct conn *conn, uint64_t tag, const struct outcome *outcome,
		  struct sluice_slice payload)
{
	(void)conn;
	(void)payload;
	result = outcome->code;
	if (replied < sizeof(tags) / sizeof(tags[0]))
		tags[replied++] = tag;
}

static void effect(struct conn *conn, struct sub *sub, const struct effect *effect)
{
	(void)conn;
	(void)sub;
	if (effect->kind != FX_SESSION_ENDED)
		return;
	ended++;
	ended_session = effect->id;
}

static const struct protocol_ops acts = {.name = name,
					 .accept = accept_it,
					 .bytes = bytes,
					 .session = answered,
					 .reply = reply,
					 .effect = effect};

static void run(struct rig *rig, void (*what)(struct conn *conn))
{
	act = what;
	cr_assert_eq(write(rig->fd, "x", 1), 1);
	turns(rig);
	act = NULL;
}

static void begin(struct rig *rig)
{
	opened = ended = 0;
	rig_open_as(rig, &acts, NULL);
}

static struct door_session_spec spec;

static void open_session(struct conn *conn)
{
	struct door_session got = {0};
	const char *why = "";

	result = door_session(conn, 1, &spec, &got, &why);
	if (result == 0 && spec.how != DOOR_SESSION_OPEN)
		session = got;
}

static struct door_session opened_as(struct rig *rig, uint8_t flags)
{
	spec = (struct door_session_spec){.how = DOOR_SESSION_OPEN,
					  .flags = flags,
					  .face = SESSION_FACE_HTTP,
					  .timeout_ms = 5000};
	run(rig, open_session);
	cr_assert_eq(result, 0, "%d", result);
	return session;
}

static struct conn *conn_of(struct rig *rig)
{
	return rig->net->ios[0].conns;
}

/* ---- tests ---- */

Test(net_sessions, a_connection_holds_several)
{
	struct door_session first, second;
	struct rig rig;

	begin(&rig);
	first = opened_as(&rig, DOOR_SESSION_ATTACH);
	second = opened_as(&rig, 0);
	cr_assert_neq(first.session, second.session);
	cr_assert_eq(conn_of(&rig)->session_count, 2u);
	cr_assert_eq(conn_of(&rig)->own->session, first.session, "the attached one is its own");
	rig_close(&rig);
}

static uint64_t dropped; /* by the call below */

static void drop_session(struct conn *conn)
{
	result = door_session_drop(conn, dropped);
}

/* Else the peer's silence would end none of those that are left, and it carries them. */
Test(net_sessions, the_next_one_is_its_own_when_the_first_is_let_go)
{
	struct door_session first, second, free_one;
	struct rig rig;

	begin(&rig);
	first = opened_as(&rig, DOOR_SESSION_ATTACH);
	free_one = opened_as(&rig, 0);
	second = opened_as(&rig, DOOR_SESSION_ATTACH);
	dropped = first.session;
	run(&rig, drop_session);
	cr_assert_eq(result, 0);
	cr_assert_not_null(conn_of(&rig)->own);
	cr_expect_eq(conn_of(&rig)->own->session, second.session);
	dropped = second.session;
	run(&rig, drop_session);
	cr_assert_null(conn_of(&rig)->own, "%llu is not attached",
		       (unsigned long long)free_one.session);
	rig_close(&rig);
}

static uint64_t used_by;

static void use_by_command(struct conn *conn)
{
	static const struct cmd_session_alter alter = {.timeout_ms = 60000};
	const struct command command = {.type = COMMAND_SESSION_ALTER,
					.session = used_by,
					.body = &alter};

	result = door_submit(conn, 2, &command, (struct door_block){0}, 10, DOOR_CONTROL, 0);
}

static void use_by_touch(struct conn *conn)
{
	result = door_touch(conn, used_by);
}

static void use_by_consumer(struct conn *conn)
{
	const struct door_sub_spec consumer = {.kind = DOOR_CONSUME,
					       .name = {"dead-letter", 11},
					       .session = used_by};
	struct door_subscribed ret;

	result = door_subscribe(conn, 1, &consumer, &ret);
}

static void end_consumer(struct conn *conn)
{
	result = door_unsubscribe(conn, 1);
}

static void (*const uses[])(struct conn *conn) = {use_by_command, use_by_touch, use_by_consumer};

/* limit: HELD_SESSIONS_MAX */
Test(net_sessions, above_its_limit_a_connection_lets_the_least_used_one_go)
{
	struct door_session first;
	struct rig rig;

	begin(&rig);
	first = opened_as(&rig, 0);
	for (unsigned i = 1; i < LIMIT_HELD_SESSIONS_MAX; i++)
		(void)opened_as(&rig, 0);
	cr_assert_not_null(session_held(conn_of(&rig), first.session));
	/* A command, a sign of life and a consumer are uses. */
	for (unsigned n = 0; n < 3; n++) {
		used_by = first.session;
		run(&rig, uses[n]);
		cr_assert_eq(result, 0, "%u", n);
		(void)opened_as(&rig, 0);
		cr_assert_not_null(session_held(conn_of(&rig), first.session), "%u", n);
		for (unsigned i = 2; i < LIMIT_HELD_SESSIONS_MAX; i++)
			(void)opened_as(&rig, 0);
	}
	(void)opened_as(&rig, 0);
	cr_assert_not_null(session_held(conn_of(&rig), first.session), "it has a consumer");
	run(&rig, end_consumer);
	(void)opened_as(&rig, 0);
	cr_assert_null(session_held(conn_of(&rig), first.session), "the least used one was let go");
	cr_assert_eq(conn_of(&rig)->session_count, LIMIT_HELD_SESSIONS_MAX);
	rig_close(&rig);
}

static void touch_first(struct conn *conn)
{
	result = door_touch(conn, spec.session);
}

static void close_first(struct conn *conn)
{
	Sluice__SessionClose close = SLUICE__SESSION_CLOSE__INIT;
	const struct command command = {.type = COMMAND_SESSION_CLOSE,
					.session = spec.session,
					.message = &close.base};
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	struct command sent = command;
	const char *why = "";

	cr_assert_eq(message_unpack_block(&sluice__session_close__descriptor,
					  (struct sluice_slice){"", 0}, 100, &block, &message,
					  &why),
		     0);
	sent.message = message;
	result = door_submit(conn, 2, &sent, (struct door_block){.message = block}, 10,
			     DOOR_CONTROL, 0);
}

Test(net_sessions, a_session_that_is_not_held_is_foreign)
{
	struct door_session mine;
	struct rig rig;

	begin(&rig);
	mine = opened_as(&rig, 0);
	spec.session = mine.session + 1;
	run(&rig, touch_first);
	cr_assert_eq(result, SLUICE_E_SESSION_GONE);
	run(&rig, close_first);
	cr_assert_eq(result, SLUICE_E_DENIED, "a command under a session of another connection");
	spec.session = mine.session;
	run(&rig, touch_first);
	cr_assert_eq(result, 0);
	run(&rig, close_first);
	cr_assert_eq(result, 0);
	cr_assert_eq(ended, 1u);
	cr_assert_eq(ended_session, mine.session);
	cr_assert_null(session_held(conn_of(&rig), mine.session), "what has ended is not held");
	rig_close(&rig);
}

static bool is_open(struct rig *rig, uint64_t number)
{
	struct store_txn *txn = NULL;
	struct session_ref ref;
	uint64_t sequence;
	int rc;

	cr_assert_eq(engine_read_begin(rig->engine, &txn, &sequence), 0);
	rc = core_session_find(txn, 1, number, &ref);
	store_abort(txn);
	return rc == 0;
}

Test(net_sessions, an_ephemeral_one_ends_with_its_connection_and_a_free_one_does_not)
{
	struct door_session ephemeral, free_one;
	struct rig rig;

	begin(&rig);
	ephemeral = opened_as(&rig, DOOR_SESSION_ATTACH | DOOR_SESSION_EPHEMERAL);
	free_one = opened_as(&rig, 0);
	cr_assert(is_open(&rig, ephemeral.session) && is_open(&rig, free_one.session));
	cr_assert_eq(shutdown(rig.fd, SHUT_RDWR), 0);
	turns(&rig);
	cr_assert_null(conn_of(&rig));
	cr_assert_not(is_open(&rig, ephemeral.session));
	cr_assert(is_open(&rig, free_one.session));
	rig_close(&rig);
}

/* The inbox was full until the broker stopped. For the sanitizer. */
Test(net_sessions, what_waits_to_be_closed_is_freed_at_a_stop)
{
	struct rig rig;

	begin(&rig);
	session_close_later(&rig.net->ios[0], 1, 7);
	cr_expect_not_null(rig.net->ios[0].closings);
	rig_close(&rig);
}

/* The connection ends between the command and its answer. */
Test(net_sessions, an_ephemeral_one_whose_connection_went_before_its_answer_ends)
{
	struct rig rig;

	begin(&rig);
	spec = (struct door_session_spec){.how = DOOR_SESSION_OPEN,
					  .flags = DOOR_SESSION_EPHEMERAL,
					  .timeout_ms = 5000};
	act = open_session;
	cr_assert_eq(write(rig.fd, "x", 1), 1);
	(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
	cr_assert_eq(shutdown(rig.fd, SHUT_RDWR), 0);
	(void)event_base_loop(rig.net->ios[0].base, EVLOOP_NONBLOCK);
	cr_assert_null(conn_of(&rig));
	turns(&rig);
	cr_assert_eq(opened, 0u, "nobody was told");
	cr_assert_not(is_open(&rig, 1), "the first session of the store");
	rig_close(&rig);
}

Test(net_sessions, by_its_number_alone_the_same_face_uses_it)
{
	struct door_session mine;
	struct rig rig;

	begin(&rig);
	mine = opened_as(&rig, 0);
	spec = (struct door_session_spec){.how = DOOR_SESSION_USE,
					  .session = mine.session,
					  .face = SESSION_FACE_KAFKA};
	run(&rig, open_session);
	cr_assert_eq(result, SLUICE_E_DENIED);
	spec.face = SESSION_FACE_HTTP;
	run(&rig, open_session);
	cr_assert_eq(result, 0);
	spec.how = DOOR_SESSION_RESUME;
	spec.secret = (struct sluice_slice){"0123456789abcdef", 16};
	run(&rig, open_session);
	cr_assert_eq(result, SLUICE_E_SESSION_GONE, "a wrong secret");
	spec.secret = (struct sluice_slice){mine.secret, sizeof(mine.secret)};
	run(&rig, open_session);
	cr_assert_eq(result, 0);
	cr_assert_eq(conn_of(&rig)->session_count, 1u, "held once");
	rig_close(&rig);
}

/* The thread's timer gives signs of life to the engine. */
static void until_touched(struct rig *rig)
{
	for (int n = 0; n < 500 && rig->net->ios[0].touched != NULL; n++) {
		(void)usleep(10000);
		turn(rig);
	}
	cr_assert_null(rig->net->ios[0].touched);
}

Test(net_sessions, a_free_one_lives_by_signs_of_life)
{
	struct door_session silent, touched;
	struct rig rig;

	begin(&rig);
	silent = opened_as(&rig, 0);
	touched = opened_as(&rig, 0);
	spec.session = touched.session;
	run(&rig, touch_first);
	until_touched(&rig);
	for (int n = 0; n < 8; n++) {
		rig.mono_ms += 900;
		turns(&rig);
	}
	cr_assert_not(is_open(&rig, silent.session));
	cr_assert(is_open(&rig, touched.session));
	cr_assert_eq(ended, 1u);
	cr_assert_eq(ended_session, silent.session);
	rig_close(&rig);
}

static void wait_for_job(struct conn *conn)
{
	/* A request with an empty JobWait in it. */
	static const uint8_t packed[] = {((67 << 3 | 2) & 0x7f) | 0x80, 67 << 3 >> 7, 0};
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	const char *why = "";

	cr_assert_eq(message_unpack_block(&sluice__request__descriptor,
					  (struct sluice_slice){packed, sizeof(packed)}, 100,
					  &block, &message, &why),
		     0, "%s", why);
	cr_assert_eq(((Sluice__Request *)message)->op_case, SLUICE__REQUEST__OP_JOB_WAIT);
	result = door_read(conn, 3, &block, (const Sluice__Request *)message, sizeof(packed));
}

static void wait_by_call(struct conn *conn)
{
	result = door_job_wait(conn, 3, (struct sluice_slice){"j", 1}, 0, 0);
}

Test(net_sessions, a_protocol_without_waits_is_refused_one)
{
	struct rig rig;

	begin(&rig);
	run(&rig, wait_for_job);
	cr_assert_eq(result, SLUICE_E_UNSUPPORTED);
	run(&rig, wait_by_call);
	cr_assert_eq(result, SLUICE_E_UNSUPPORTED);
	rig_close(&rig);
}

static void publish_as(struct conn *conn, uint64_t tag, uint64_t as, size_t len)
{
	static const uint8_t zeros[8 << 20];
	static uint8_t bytes[sizeof(zeros) + 64];
	struct envelope envelope = {.body = {zeros, len}};
	struct frame_publish publish = {.target_kind = PUBLISH_TO_QUEUE,
					.count = 1,
					.subject = {"s", 1},
					.target = {"dead-letter", 11}};
	const char *why = "";

	cr_assert_leq(len, sizeof(zeros));
	publish.payload = (struct sluice_slice){bytes, envelope_encode(bytes, &envelope)};
	publish.raw_bytes = (uint32_t)publish.payload.len;
	cr_assert_eq(door_publish(conn, tag, as, &publish, NULL, &why), 0, "%s", why);
}

static struct door_session heavy, light;

static void publish_much(struct conn *conn)
{
	publish_as(conn, 1, heavy.session, 8 << 20);
}

static void publish_in_turn(struct conn *conn)
{
	publish_as(conn, 2, heavy.session, 1);
	publish_as(conn, 3, light.session, 1);
	publish_as(conn, 4, heavy.session, 1);
	publish_as(conn, 5, light.session, 1);
}

/* The sessions have their shares of a commit; one that has used up its own waits, and would let the
 * others of its connection pass. */
Test(net_sessions, the_order_of_a_lane_is_kept_over_its_sessions)
{
	struct rig rig;

	begin(&rig);
	heavy = opened_as(&rig, DOOR_SESSION_ATTACH);
	light = opened_as(&rig, 0);
	replied = 0;
	run(&rig, publish_much);
	cr_assert_eq(replied, 1u);
	run(&rig, publish_in_turn);
	for (int n = 0; n < 100 && replied < 5; n++)
		turn(&rig);
	cr_assert_eq(replied, 5u);
	for (uint64_t n = 0; n < 5; n++)
		cr_expect_eq(tags[n], n + 1, "answer %llu is of %llu", (unsigned long long)n + 1,
			     (unsigned long long)tags[n]);
	rig_close(&rig);
}
