/* SPDX-License-Identifier: Apache-2.0
 *
 * HELLO and WELCOME. A client's attempts to connect are handled in their order (instance.h). A
 * connection either resumes the session whose id and secret are in HELLO, or opens a new one: a
 * command, so WELCOME follows its commit, and frames received meanwhile wait.
 */
#include "broker/net/native/native.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "broker/net/conn/conn.h"
#include "broker/net/conn/conn_io.h"
#include "broker/net/conn/instance.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/state.h"
#include "broker/util/log.h"
#include "protocol/envelope.h"
#include "protocol/limits.h"
#include "protocol/message.h"
#include "sluice/version.h"

enum { SESSION_TIMEOUT_DEFAULT_MS = 30000 };

/* Compares all bytes, also after a difference: the time reveals nothing about the secret. */
static bool secret_equal(const uint8_t a[16], const uint8_t *b, size_t len)
{
	unsigned difference = len != 16;

	for (size_t i = 0; i < 16 && i < len; i++)
		difference |= (unsigned)(a[i] ^ b[i]);
	return difference == 0;
}

static uint32_t timeout_of(const Sluice__Hello *hello)
{
	uint64_t timeout = hello->session_timeout_ms != 0 ? hello->session_timeout_ms
							  : SESSION_TIMEOUT_DEFAULT_MS;

	if (timeout < LIMIT_SESSION_TIMEOUT_MS_MIN)
		timeout = LIMIT_SESSION_TIMEOUT_MS_MIN;
	if (timeout > LIMIT_SESSION_TIMEOUT_MS_MAX)
		timeout = LIMIT_SESSION_TIMEOUT_MS_MAX;
	return (uint32_t)timeout;
}

static void log_session(const struct conn *conn, const Sluice__Hello *hello, bool resumed)
{
	static struct log_rate rate = {.per_second = 100};
	uint64_t left_out;

	if (!log_enabled(LOG_LEVEL_DEBUG) || !log_may(&rate, &left_out))
		return;
	log_line(LOG_LEVEL_DEBUG,
		 resumed ? log_id("session.resumed", "a connection has resumed a session")
			 : log_id("session.opened", "a session was opened"),
		 log_u64("gateway", conn->gateway), log_u64("session", conn->session),
		 log_u64("thread", (uint64_t)(conn->io - conn->io->net->ios)),
		 log_u64("conn", conn->id), log_str("name", hello->session_name),
		 log_str("client", hello->client), log_u64("timeout_ms", conn->session_timeout_ms),
		 log_u64("attempt", hello->attempt), log_u64("left_out", left_out));
}

static void welcome(struct conn *conn, const uint8_t secret[16], bool resumed)
{
	struct native *native = conn->state;
	Sluice__Welcome message = SLUICE__WELCOME__INIT;
	struct store_txn *txn = NULL;
	char server[] = "sluiced/" SLUICE_VERSION;
	char zstd[] = "zstd", session_close[] = "session-close";
	char *features[2];
	uint64_t sequence, index = 0;
	bool zstd_asked = false, close_asked = false;

	if (engine_read_begin(conn->io->engine, &txn, &sequence) == 0) {
		/* Only a hint for the client; 0: not known. */
		if (core_index_read(txn, conn->gateway, &index) != 0)
			index = 0;
		store_abort(txn);
	}
	message.version = SLUICE_PROTOCOL_VERSION;
	for (size_t i = 0; i < native->hello->n_features; i++) {
		const char *asked = native->hello->features[i];

		zstd_asked |= strcmp(asked, zstd) == 0;
		close_asked |= strcmp(asked, session_close) == 0;
	}
	if (zstd_asked && conn->io->net->config.zstd)
		features[message.n_features++] = zstd;
	if (close_asked)
		features[message.n_features++] = session_close;
	message.features = features;
	message.server = server;
	message.session_id = conn->session;
	message.session_secret = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)secret};
	message.resumed = resumed;
	message.session_timeout_ms = conn->session_timeout_ms;
	message.heartbeat_ms = conn->session_timeout_ms / 3;
	message.index = index;
	message.wall_time_ms = engine_clock(conn->io->engine).wall_ms;
	native_message(conn, FRAME_WELCOME, 0, &message.base);
	log_session(conn, native->hello, resumed);
	sluice__hello__free_unpacked(native->hello, NULL);
	native->hello = NULL;
	conn->held = false;
}

struct open_block {
	struct cmd_session_open open;
	uint8_t bytes[];
};

static int session_open(struct native *native)
{
	struct conn *conn = native->conn;
	const Sluice__Hello *hello = native->hello;
	size_t name_len = strlen(hello->session_name), client_len = strlen(hello->client);
	size_t address_len = strlen(conn->address);
	struct open_block *block = malloc(sizeof(*block) + name_len + client_len + address_len);
	struct command command = {.type = COMMAND_SESSION_OPEN};
	int rc;

	if (block == NULL)
		return SLUICE_E_NOMEM;
	if (getrandom(native->secret, sizeof(native->secret), 0) !=
	    (ssize_t)sizeof(native->secret)) {
		free(block);
		return SLUICE_E_INTERNAL;
	}
	memset(&block->open, 0, sizeof(block->open));
	memcpy(block->open.secret, native->secret, sizeof(native->secret));
	memcpy(block->bytes, hello->session_name, name_len);
	memcpy(block->bytes + name_len, hello->client, client_len);
	block->open.name = (struct sluice_slice){block->bytes, name_len};
	block->open.client = (struct sluice_slice){block->bytes + name_len, client_len};
	memcpy(block->bytes + name_len + client_len, conn->address, address_len);
	block->open.address =
		(struct sluice_slice){block->bytes + name_len + client_len, address_len};
	block->open.face = SESSION_FACE_NATIVE;
	block->open.timeout_ms = timeout_of(hello);
	command.body = &block->open;
	conn->held = true;
	rc = conn_submit(conn, &command, block,
			 sizeof(*block) + name_len + client_len + address_len, true, NATIVE_WELCOME,
			 0);
	return rc;
}

void native_welcome(struct conn *conn, const struct outcome *outcome)
{
	struct native *native = conn->state;

	if (outcome->code != 0) {
		(void)native_fail(conn, outcome->code, "%s", outcome->text);
		return;
	}
	if (conn_attach(conn, conn->gateway, outcome->id, timeout_of(native->hello)) != 0) {
		conn_kill(conn, "no memory to attach its session");
		return;
	}
	welcome(conn, native->secret, false);
	conn_parse(conn);
}

/* Returns true when the session has become this connection's. */
static bool session_resume(struct native *native, struct store_txn *txn)
{
	const Sluice__Hello *hello = native->hello;
	struct session_ref session;

	if (hello->session_id == 0 ||
	    core_session_find(txn, native->conn->gateway, hello->session_id, &session) != 0)
		return false;
	if (!secret_equal(session.secret, hello->session_secret.data, hello->session_secret.len))
		return false;
	memcpy(native->secret, session.secret, sizeof(native->secret));
	native->conn->used = true;
	return conn_attach(native->conn, native->conn->gateway, hello->session_id,
			   session.timeout_ms) == 0;
}

/* Resumes the session that HELLO names, or submits the command that opens one. 0, or BUSY: the
 * inbox is full. */
static int session_take(struct native *native, struct store_txn *txn, bool *ret_resumed)
{
	struct conn *conn = native->conn;
	int rc;

	*ret_resumed = session_resume(native, txn);
	if (*ret_resumed)
		return 0;
	rc = session_open(native);
	if (rc == SLUICE_E_BUSY) {
		conn->held = false;
		conn->gateway = 0;
	}
	return rc;
}

/* The same in the order of the client's attempts, if the client counts them. Below 0 and not BUSY:
 * the reason is in why. */
static int session_take_in_order(struct native *native, struct store_txn *txn, bool *ret_resumed,
				 char *why, size_t why_bytes)
{
	const Sluice__Hello *hello = native->hello;
	struct instances *instances = native->conn->io->net->instances;
	struct instance *instance = NULL;
	uint64_t last = 0;
	int rc;

	(void)snprintf(why, why_bytes, "a session could not be opened");
	if (hello->instance.len == 0)
		return session_take(native, txn, ret_resumed);
	rc = instance_enter(instances, hello->instance.data, hello->attempt, &instance, &last);
	if (rc == SLUICE_E_WRONG_STATE)
		(void)snprintf(why, why_bytes,
			       "attempt %llu of this client is late: its attempt %llu was "
			       "accepted before; the client has abandoned this connection",
			       (unsigned long long)hello->attempt, (unsigned long long)last);
	if (rc == SLUICE_E_WRONG_STATE)
		return SLUICE_E_STALE_ATTEMPT;
	if (rc != 0)
		return rc;
	rc = session_take(native, txn, ret_resumed);
	instance_leave(instances, instance, hello->attempt, rc == 0);
	native->conn->instance = rc == 0 ? instance : NULL;
	return rc;
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
	    (hello->instance.len != INSTANCE_BYTES || hello->attempt == 0))
		return (int)native_fail(native->conn, SLUICE_E_INVAL,
					"instance has %zu bytes and attempt is %llu; expected 16 "
					"bytes and a "
					"number from 1 on, or neither",
					hello->instance.len, (unsigned long long)hello->attempt);
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
	struct store_txn *txn = NULL;
	const char *why = "";
	const char *name;
	char late[256];
	uint64_t sequence;
	uint32_t gateway = 0;
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
	rc = engine_read_begin(conn->io->engine, &txn, &sequence);
	if (rc != 0)
		return (int)native_fail(conn, rc, "the store cannot be read");
	name = native->hello->gateway[0] != 0 ? native->hello->gateway : "default";
	rc = core_gateway_find(txn, (struct sluice_slice){name, strlen(name)}, &gateway);
	if (rc != 0) {
		store_abort(txn);
		return (int)native_fail(conn, rc, "gateway '%.200s' does not exist", name);
	}
	conn->gateway = gateway;
	rc = session_take_in_order(native, txn, &resumed, late, sizeof(late));
	store_abort(txn);
	if (rc == SLUICE_E_BUSY)
		return 1;
	if (rc != 0)
		return (int)native_fail(conn, rc, "%s", late);
	native->greeted = true;
	if (resumed)
		welcome(conn, native->secret, true);
	return 0;
}
