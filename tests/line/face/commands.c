/* SPDX-License-Identifier: Apache-2.0
 * The commands. A word `-` is empty. */
#include "tests/line/face/line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "protocol/message.h"

/* ---- words ---- */

static const char *word(struct line_request *request)
{
	char *from = request->rest + strspn(request->rest, " ");
	size_t len = strcspn(from, " ");

	request->rest = from[len] != 0 ? from + len + 1 : from + len;
	from[len] = 0;
	return strcmp(from, "-") == 0 ? "" : from;
}

static uint64_t number(struct line_request *request)
{
	return strtoull(word(request), NULL, 10);
}

static struct sluice_slice slice(const char *text)
{
	return (struct sluice_slice){text, strlen(text)};
}

static size_t unhex(uint8_t *to, size_t max, const char *text)
{
	size_t len = strlen(text) / 2 < max ? strlen(text) / 2 : max;

	for (size_t i = 0; i < len; i++) {
		char pair[3] = {text[2 * i], text[2 * i + 1], 0};

		to[i] = (uint8_t)strtoul(pair, NULL, 16);
	}
	return len;
}

static int done(const struct line_request *request)
{
	line_answer(request->conn, request->tag, 0, "");
	return 0;
}

/* ---- the connection ---- */

static int on_facts(struct line_request *request)
{
	struct conn *conn = request->conn;
	struct door_facts facts;
	char peer[DOOR_PEER_BYTES];

	door_facts(conn, &facts);
	line_say(conn,
		 "%llu OK thread=%llu conn=%llu gateway=%u session=%llu timeout=%u zstd=%d peer=%s "
		 "wall=%llu index=%llu full=%d may_take=%d ending=%d listener=%d rounds=%llu",
		 (unsigned long long)request->tag, (unsigned long long)facts.thread,
		 (unsigned long long)facts.id, facts.gateway, (unsigned long long)facts.session,
		 facts.session_timeout_ms, facts.zstd, door_peer(conn, peer),
		 (unsigned long long)door_wall_ms(conn), (unsigned long long)door_index(conn),
		 door_is_full(conn), door_may_take(conn), door_is_ending(conn),
		 door_listener(conn) != NULL,
		 (unsigned long long)((const struct line *)door_state(conn))->rounds);
	return 0;
}

/* write N: one line with N bytes */
static int on_write(struct line_request *request)
{
	char text[1024];

	memset(text, 'x', sizeof(text));
	for (uint64_t left = number(request); left > 0;) {
		size_t n = left < sizeof(text) ? (size_t)left : sizeof(text);

		line_put(request->conn, text, n);
		left -= n;
	}
	line_put(request->conn, "\n", 1);
	return 0;
}

/* hold: nothing more is parsed until the broker's next answer */
static int on_hold(struct line_request *request)
{
	struct line *line = door_state(request->conn);

	line->holds = true;
	door_hold(request->conn, true);
	return done(request);
}

/* idle MS */
static int on_idle(struct line_request *request)
{
	door_idle(request->conn, (uint32_t)number(request));
	return done(request);
}

/* timer MS: `* timer` follows; 0: not any more */
static int on_timer(struct line_request *request)
{
	const uint64_t in = number(request);

	door_timer(request->conn, in != 0 ? door_mono_ms() + in : 0);
	return done(request);
}

static int on_close(struct line_request *request)
{
	(void)done(request);
	door_close(request->conn, "QUIT");
	return 0;
}

static int on_abort(struct line_request *request)
{
	door_abort(request->conn, "its peer asked for it");
	return 0;
}

/* ---- gateway and sessions ---- */

/* enter GATEWAY */
static int on_enter(struct line_request *request)
{
	int rc = door_enter(request->conn, slice(word(request)));

	return rc != 0 ? rc : done(request);
}

static int session_take(struct line_request *request, struct door_session_spec *spec)
{
	uint8_t instance[DOOR_INSTANCE_BYTES];
	struct door_session session;
	const char *why = "";
	int rc;

	spec->instance =
		(struct sluice_slice){instance, unhex(instance, sizeof(instance), word(request))};
	spec->attempt = number(request);
	spec->face = SESSION_FACE_PLUGIN;
	rc = door_session(request->conn, request->tag, spec, &session, &why);
	if (rc == 0 && spec->how != DOOR_SESSION_OPEN)
		line_session(request->conn, request->tag, 0, "", &session);
	return rc;
}

/* open NAME TIMEOUT_MS FLAGS [INSTANCE ATTEMPT] */
static int on_open(struct line_request *request)
{
	struct door_session_spec spec = {.how = DOOR_SESSION_OPEN, .client = slice("line")};

	spec.name = slice(word(request));
	spec.timeout_ms = (uint32_t)number(request);
	spec.flags = (uint8_t)number(request);
	return session_take(request, &spec);
}

/* resume SESSION SECRET FLAGS [INSTANCE ATTEMPT] */
static int on_resume(struct line_request *request)
{
	struct door_session_spec spec = {.how = DOOR_SESSION_RESUME};
	uint8_t secret[16];

	spec.session = number(request);
	spec.secret = (struct sluice_slice){secret, unhex(secret, sizeof(secret), word(request))};
	spec.flags = (uint8_t)number(request);
	return session_take(request, &spec);
}

/* use SESSION FLAGS */
static int on_use(struct line_request *request)
{
	struct door_session_spec spec = {.how = DOOR_SESSION_USE};

	spec.session = number(request);
	spec.flags = (uint8_t)number(request);
	return session_take(request, &spec);
}

/* touch SESSION */
static int on_touch(struct line_request *request)
{
	int rc = door_touch(request->conn, number(request));

	return rc != 0 ? rc : done(request);
}

/* drop SESSION */
static int on_drop(struct line_request *request)
{
	int rc = door_session_drop(request->conn, number(request));

	return rc != 0 ? rc : done(request);
}

/* ---- commands and reads ---- */

/* publish KIND NAME COUNT SESSION N: envelopes; KIND: of enum publish_target */
static int on_publish(struct line_request *request)
{
	const uint8_t kind = (uint8_t)number(request);
	const char *name = word(request), *why = "";
	struct frame_publish publish = {.count = (uint32_t)number(request),
					.payload = request->bytes,
					.raw_bytes = (uint32_t)request->bytes.len};
	const uint64_t session = number(request);
	struct door_buf *buf = NULL;
	void *copy = NULL;
	int rc;

	publish.target_kind = kind;
	publish.subject = slice(kind == PUBLISH_TO_SUBJECT ? name : "line.item");
	publish.target = slice(kind == PUBLISH_TO_SUBJECT ? "" : name);
	/* Both ways to have the payload in memory of the door. */
	if (publish.payload.len >= 64) {
		rc = door_buf_take(request->conn, &buf, &publish.payload);
	} else {
		rc = door_buf_new(request->conn, publish.payload.len + 1, &buf, &copy);
		if (rc == 0)
			publish.payload.data =
				memcpy(copy, publish.payload.data, publish.payload.len);
	}
	if (rc == 0)
		rc = door_publish(request->conn, request->tag, session, &publish, buf, &why);
	door_buf_unref(buf);
	if (rc == 0 || rc == SLUICE_E_BUSY || why[0] == 0)
		return rc;
	line_answer(request->conn, request->tag, rc, why);
	return 0;
}

/* ack NUMBER TOKEN FIRST COUNT OPERATION [quiet] */
static int on_ack(struct line_request *request)
{
	const uint64_t of = number(request), token = number(request), first = number(request);
	const uint32_t count = (uint32_t)number(request);
	const struct cmd_ack ack = {.token = token,
				    .op = (uint8_t)number(request),
				    .run_count = 1,
				    .runs = (uint8_t[FRAME_RUN_BYTES]){0}};
	uint8_t *run = (uint8_t *)(uintptr_t)ack.runs;

	for (int i = 0; i < 8; i++)
		run[i] = (uint8_t)(first >> (56 - 8 * i));
	for (int i = 0; i < 4; i++)
		run[8 + i] = (uint8_t)(count >> (24 - 8 * i));
	return door_ack(request->conn, request->tag, of, &ack,
			strcmp(word(request), "quiet") == 0 ? DOOR_QUIET : 0);
}

/* request data|control|quiet SESSION N: a Request of sluice.proto */
static int on_request(struct line_request *request)
{
	const char *lane = word(request), *why = "";
	struct message_block *block = NULL;
	ProtobufCMessage *message = NULL;
	struct command command = {.session = number(request)};
	const Sluice__Request *op;
	int rc = message_unpack_block(&sluice__request__descriptor, request->bytes,
				      LIMIT_COMMAND_BYTES_MAX, &block, &message, &why);

	if (rc != 0)
		return rc;
	op = (const Sluice__Request *)message;
	if (!door_request_command(op, &command.type))
		return door_in_order(request->conn, request->tag, request->bytes, op, &block);
	command.message = &op->job_submit->base;
	return door_submit(request->conn, request->tag, &command,
			   (struct door_block){.message = block}, request->bytes.len,
			   strcmp(lane, "data") == 0 ? DOOR_DATA : DOOR_CONTROL,
			   strcmp(lane, "quiet") == 0 ? DOOR_QUIET : 0);
}

/* wait JOB NUMBER TIMEOUT_MS */
static int on_wait(struct line_request *request)
{
	const char *job = word(request);
	const uint64_t of = number(request);

	return door_job_wait(request->conn, request->tag, slice(job), of, number(request));
}

/* ---- subscriptions ---- */

static int subscribe(struct line_request *request, uint64_t of, const struct door_sub_spec *spec)
{
	struct door_subscribed to;
	char text[320];
	int rc = door_subscribe(request->conn, of, spec, &to);

	if (rc == 0)
		(void)snprintf(text, sizeof(text),
			       "id=%llu first=%llu next=%llu start=%llu kind=%u lease=%u "
			       "index=%llu",
			       (unsigned long long)to.id, (unsigned long long)to.first_offset,
			       (unsigned long long)to.next_offset,
			       (unsigned long long)to.start_offset, to.queue_kind, to.lease_ms,
			       (unsigned long long)to.index);
	line_answer_shown(request->conn, request->tag, rc, rc == 0 ? text : to.why, to.number);
	return 0;
}

/* consume NUMBER QUEUE CREDIT [LEASE_MS FLAGS SOURCE ID SESSION] */
static int on_consume(struct line_request *request)
{
	const uint64_t of = number(request);
	struct door_sub_spec spec = {.kind = DOOR_CONSUME};

	spec.name = slice(word(request));
	spec.credit = (uint32_t)number(request);
	spec.lease_ms = (uint32_t)number(request);
	spec.claim_flags = (uint8_t)number(request);
	spec.source = slice(word(request));
	spec.expected_id = number(request);
	spec.session = number(request);
	return subscribe(request, of, &spec);
}

/* items NUMBER QUEUE: not for jobs */
static int on_items(struct line_request *request)
{
	const uint64_t of = number(request);
	const struct door_sub_spec spec = {.kind = DOOR_CONSUME,
					   .name = slice(word(request)),
					   .items_only = true};

	return subscribe(request, of, &spec);
}

/* follow NUMBER STREAM CREDIT FROM AT FILTER [raw]; FROM: of FollowFrom; AT: offset, time or
 * cursor */
static int on_follow(struct line_request *request)
{
	const uint64_t of = number(request);
	struct door_sub_spec spec = {.kind = DOOR_FOLLOW};
	const char *at;

	spec.name = slice(word(request));
	spec.credit = (uint32_t)number(request);
	spec.from = (int)number(request);
	at = word(request);
	spec.from_offset = spec.from_time_ms = strtoull(at, NULL, 10);
	spec.cursor = slice(at);
	spec.filter = slice(word(request));
	spec.raw = strcmp(word(request), "raw") == 0;
	return subscribe(request, of, &spec);
}

/* credit NUMBER MORE */
static int on_credit(struct line_request *request)
{
	const uint64_t of = number(request);
	int rc = door_credit(request->conn, of, (uint32_t)number(request));

	return rc != 0 ? rc : done(request);
}

/* unsubscribe NUMBER */
static int on_unsubscribe(struct line_request *request)
{
	int rc = door_unsubscribe(request->conn, number(request));

	return rc != 0 ? rc : done(request);
}

/* sub NUMBER */
static int on_sub(struct line_request *request)
{
	struct door_sub sub;

	if (!door_sub_find(request->conn, number(request), &sub))
		return SLUICE_E_NOT_FOUND;
	line_say(request->conn, "%llu OK kind=%d id=%llu closed=%d next=%llu credit=%llu filter=%s",
		 (unsigned long long)request->tag, (int)sub.kind, (unsigned long long)sub.id,
		 sub.closed, (unsigned long long)sub.next, (unsigned long long)sub.credit,
		 sub.filter != NULL ? sub.filter : "-");
	return 0;
}

/* ---- the table ---- */

static const struct {
	const char *name;
	int (*run)(struct line_request *request); /* 0: it is answered, or will be */
	bool has_bytes;
} commands[] = {
	{"facts", on_facts, false},    {"write", on_write, false},
	{"hold", on_hold, false},      {"idle", on_idle, false},
	{"timer", on_timer, false},    {"close", on_close, false},
	{"abort", on_abort, false},    {"enter", on_enter, false},
	{"open", on_open, false},      {"resume", on_resume, false},
	{"use", on_use, false},	       {"touch", on_touch, false},
	{"drop", on_drop, false},

	{"publish", on_publish, true}, {"ack", on_ack, false},
	{"request", on_request, true}, {"consume", on_consume, false},
	{"items", on_items, false},    {"follow", on_follow, false},
	{"credit", on_credit, false},  {"unsubscribe", on_unsubscribe, false},
	{"sub", on_sub, false},	       {"wait", on_wait, false},
};
enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static size_t find(const char *text)
{
	const size_t len = strcspn(text, " ");
	size_t i = 0;

	while (i < COMMAND_COUNT &&
	       (strlen(commands[i].name) != len || strncmp(commands[i].name, text, len) != 0))
		i++;
	return i;
}

size_t line_bytes_after(const char *text)
{
	const char *last = strrchr(text, ' ');
	const size_t i = find(text);

	return i < COMMAND_COUNT && commands[i].has_bytes && last != NULL
		       ? (size_t)strtoull(last + 1, NULL, 10)
		       : 0;
}

bool line_run(struct line_request *request)
{
	const size_t i = find(request->rest);
	int rc = SLUICE_E_UNKNOWN_TYPE;

	(void)word(request);
	if (i < COMMAND_COUNT)
		rc = commands[i].run(request);
	if (rc == SLUICE_E_BUSY)
		return true;
	if (rc != 0)
		line_answer(request->conn, request->tag, rc, sluice_error_text(rc));
	return false;
}
