/* SPDX-License-Identifier: Apache-2.0
 *
 * HELLO and WELCOME. A client's attempts to connect are handled in their order (instance.h). A
 * connection either resumes the session whose id and secret are in HELLO, or opens a new one: a
 * command, so WELCOME follows its commit, and frames received meanwhile wait.
 */
#include "broker/net/native/native.h"

#include <string.h>

#include "broker/util/log.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "sluice/version.h"

enum { SESSION_TIMEOUT_DEFAULT_MS = 30000 };

static uint32_t timeout_of(const Sluice__Hello *hello)
{
	return hello->session_timeout_ms != 0 ? hello->session_timeout_ms
					      : SESSION_TIMEOUT_DEFAULT_MS;
}

static void log_session(const struct conn *conn, const Sluice__Hello *hello, bool resumed)
{
	static struct log_rate rate = {.per_second = 100};
	struct door_facts facts;
	uint64_t left_out;

	if (!log_enabled(LOG_LEVEL_DEBUG) || !log_may(&rate, &left_out))
		return;
	door_facts(conn, &facts);
	log_line(LOG_LEVEL_DEBUG,
		 resumed ? log_id("session.resumed", "a connection has resumed a session")
			 : log_id("session.opened", "a session was opened"),
		 log_u64("gateway", facts.gateway), log_u64("session", facts.session),
		 log_u64("thread", facts.thread), log_u64("conn", facts.id),
		 log_str("name", hello->session_name), log_str("client", hello->client),
		 log_u64("timeout_ms", facts.session_timeout_ms),
		 log_u64("attempt", hello->attempt), log_u64("left_out", left_out));
}

enum { FEATURES = 4 };

/* Those of the broker that the client has asked for; returns their number. */
static size_t features(const Sluice__Hello *hello, bool zstd, char *ret[FEATURES])
{
	static const char *const names[FEATURES] = {"zstd", "session-close", "reject-renew",
						    "lane"};
	size_t count = 0;

	for (size_t n = zstd ? 0 : 1; n < FEATURES; n++) {
		size_t i = 0;

		while (i < hello->n_features && strcmp(hello->features[i], names[n]) != 0)
			i++;
		if (i < hello->n_features)
			ret[count++] = (char *)(uintptr_t)names[n];
	}
	return count;
}

static void welcome(struct conn *conn, const struct door_session *session, bool resumed)
{
	struct native *native = door_state(conn);
	Sluice__Welcome message = SLUICE__WELCOME__INIT;
	struct door_facts facts;
	char server[] = "sluiced/" SLUICE_VERSION;
	char *common[FEATURES];

	door_facts(conn, &facts);
	message.version = SLUICE_PROTOCOL_VERSION;
	message.n_features = features(native->hello, facts.zstd, common);
	message.features = common;
	message.server = server;
	message.session_id = session->session;
	message.session_secret = (ProtobufCBinaryData){sizeof(session->secret),
						       (uint8_t *)(uintptr_t)session->secret};
	message.resumed = resumed;
	message.session_timeout_ms = session->timeout_ms;
	message.heartbeat_ms = session->timeout_ms / 3;
	message.index = door_index(conn); /* only a hint for the client */
	message.wall_time_ms = door_wall_ms(conn);
	native_message(conn, FRAME_WELCOME, 0, &message.base);
	log_session(conn, native->hello, resumed);
	sluice__hello__free_unpacked(native->hello, NULL);
	native->hello = NULL;
}

void native_session(struct conn *conn, uint64_t tag, int code, const char *text,
		    const struct door_session *session)
{
	(void)tag;
	if (code != 0) {
		(void)native_fail(conn, code, "%s", text);
		return;
	}
	welcome(conn, session, false);
	door_hold(conn, false);
}

/* Resumes the session that HELLO names, or opens one. */
static int session_take(struct native *native, struct door_session *ret, bool *ret_resumed,
			const char **ret_why)
{
	const Sluice__Hello *hello = native->hello;
	struct door_session_spec spec = {.how = DOOR_SESSION_RESUME,
					 .flags = DOOR_SESSION_ATTACH,
					 .face = SESSION_FACE_NATIVE,
					 .timeout_ms = timeout_of(hello),
					 .session = hello->session_id,
					 .secret = {hello->session_secret.data,
						    hello->session_secret.len},
					 .name = {hello->session_name, strlen(hello->session_name)},
					 .client = {hello->client, strlen(hello->client)},
					 .instance = {hello->instance.data, hello->instance.len},
					 .attempt = hello->attempt};
	int rc = hello->session_id != 0 ? door_session(native->conn, 0, &spec, ret, ret_why)
					: SLUICE_E_SESSION_GONE;

	*ret_resumed = rc == 0;
	/* Of a session that lives, another one would be its loss. One whose record is damaged
	 * cannot be resumed any more. */
	if (rc != SLUICE_E_SESSION_GONE && rc != SLUICE_E_CORRUPT)
		return rc;
	spec.how = DOOR_SESSION_OPEN;
	return door_session(native->conn, 0, &spec, ret, ret_why);
}

/* Before HELLO is answered the client expects nothing else. */
void native_stop(struct conn *conn, uint64_t within_ms)
{
	struct native *native = door_state(conn);

	if (native->greeted && native->hello == NULL)
		native_notice(conn, SLUICE__NOTICE_KIND__NOTICE_SHUTDOWN, 0, within_ms, 0, 0,
			      "the broker stops; connect again");
}

void native_drained(struct conn *conn)
{
	const struct native *native = door_state(conn);

	if (native->greeted && native->hello == NULL)
		native_notice(conn, SLUICE__NOTICE_KIND__NOTICE_DRAINED, 0, 0, 0, 0,
			      "what has no answer was not taken");
}

static int hello_check(struct native *native)
{
	const Sluice__Hello *hello = native->hello;
	const char *why = "";
	int rc = 0;

	if (hello->version_min > SLUICE_PROTOCOL_VERSION ||
	    hello->version_max < SLUICE_PROTOCOL_VERSION_MIN ||
	    hello->version_max < hello->version_min)
		return (int)
			native_fail(native->conn, SLUICE_E_VERSION,
				    "the client speaks versions %u to %u; expected one of %d to %d",
				    hello->version_min, hello->version_max,
				    SLUICE_PROTOCOL_VERSION_MIN, SLUICE_PROTOCOL_VERSION);
	if (hello->session_name[0] != 0)
		rc = name_check((struct sluice_slice){hello->session_name,
						      strlen(hello->session_name)},
				&why);
	if (rc != 0)
		return (int)native_fail(native->conn, rc, "session name: %s", why);
	if (hello->instance.len != 0 &&
	    (hello->instance.len != DOOR_INSTANCE_BYTES || hello->attempt == 0))
		return (int)native_fail(native->conn, SLUICE_E_INVAL,
					"instance has %zu bytes and attempt is %llu; expected 16 "
					"bytes and a "
					"number from 1 on, or neither",
					hello->instance.len, (unsigned long long)hello->attempt);
	if (hello->lane != SLUICE__LANE__LANE_AHEAD && hello->lane != SLUICE__LANE__LANE_DATA)
		return (int)native_fail(native->conn, SLUICE_E_INVAL,
					"lane is %d; expected %d or %d", (int)hello->lane,
					SLUICE__LANE__LANE_AHEAD, SLUICE__LANE__LANE_DATA);
	if (strlen(hello->client) > LIMIT_TEXT_BYTES_MAX)
		return (int)native_fail(native->conn, SLUICE_E_LIMIT,
					"client has %zu bytes; expected at most %llu",
					strlen(hello->client),
					(unsigned long long)LIMIT_TEXT_BYTES_MAX);
	return 0;
}

int native_hello(struct native *native, struct sluice_slice body)
{
	struct conn *conn = native->conn;
	ProtobufCMessage *message = NULL;
	struct door_session session;
	const char *why = "";
	const char *name;
	bool resumed = false;
	int rc;

	if (native->hello == NULL) {
		rc = message_unpack(&sluice__hello__descriptor, body, LIMIT_PREAUTH_BYTES_MAX,
				    &message, &why);
		if (rc != 0)
			return (int)native_fail(conn, rc, "HELLO: %s", why);
		native->hello = (Sluice__Hello *)message;
		rc = hello_check(native);
		if (rc != 0)
			return rc;
	}
	name = native->hello->gateway[0] != 0 ? native->hello->gateway : "default";
	rc = door_enter(conn, (struct sluice_slice){name, strlen(name)});
	if (rc == SLUICE_E_NOT_FOUND)
		return (int)native_fail(conn, rc, "gateway '%.200s' does not exist", name);
	if (rc != 0)
		return (int)native_fail(conn, rc, "the store cannot be read");
	rc = session_take(native, &session, &resumed, &why);
	if (rc == SLUICE_E_BUSY)
		return 1;
	if (rc != 0) {
		rc = native_no_memory_is_busy(rc, &why);
		return (int)native_fail(conn, rc, "%s", why);
	}
	native->greeted = true;
	native->topology_data = native->hello->lane == SLUICE__LANE__LANE_DATA;
	if (resumed)
		welcome(conn, &session, true);
	else
		door_hold(conn, true); /* until the session is open */
	return 0;
}
