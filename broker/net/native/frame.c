/* SPDX-License-Identifier: Apache-2.0
 * Frames out: header and body into the output of the connection, refusals, ERROR, notices. */
#include "broker/net/native/native.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "protocol/message.h"
#include "protocol/text.h"

void native_frame(struct conn *conn, uint8_t type, uint32_t corr, const void *body, size_t len)
{
	uint8_t small[FRAME_HEADER_BYTES + NATIVE_REPLY_BYTES_MAX];
	struct frame_header header = {.body_bytes = (uint32_t)len, .type = type, .corr = corr};
	/* A copy costs less than a second write. */
	bool together = len <= sizeof(small) - FRAME_HEADER_BYTES;

	frame_header_encode(small, &header);
	if (together && len > 0)
		memcpy(small + FRAME_HEADER_BYTES, body, len);
	(void)door_write(conn,
			 (const struct sluice_slice[]){{small,
							FRAME_HEADER_BYTES + (together ? len : 0)},
						       {body, len}},
			 together ? 1 : 2);
}

/* Most replies are small: one write, and no memory for them. */
void native_message(struct conn *conn, uint8_t type, uint32_t corr, const ProtobufCMessage *message)
{
	uint8_t small[1024], *bytes = small;
	size_t len = protobuf_c_message_get_packed_size(message);
	struct frame_header header = {.body_bytes = (uint32_t)len, .type = type, .corr = corr};

	invariant(message_text_bad(message) == NULL, "%s of %s is not text",
		  message_text_bad(message), message->descriptor->name);
	if (FRAME_HEADER_BYTES + len > sizeof(small)) {
		bytes = malloc(FRAME_HEADER_BYTES + len);
		if (bytes == NULL) {
			door_abort(conn, "no memory for a frame");
			return;
		}
	}
	frame_header_encode(bytes, &header);
	(void)protobuf_c_message_pack(message, bytes + FRAME_HEADER_BYTES);
	(void)door_write(conn, &(struct sluice_slice){bytes, FRAME_HEADER_BYTES + len}, 1);
	if (bytes != small)
		free(bytes);
}

/* A takeover of the session is no failure of its connection. */
static void log_failure(const struct conn *conn, int code, const char *text)
{
	static struct log_rate rate = {.per_second = 10};
	enum log_level level = code == SLUICE_E_SESSION_GONE ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN;
	char peer[DOOR_PEER_BYTES];
	struct door_facts facts;
	uint64_t left_out;

	if (!log_enabled(level) || !log_may(&rate, &left_out))
		return;
	door_facts(conn, &facts);
	log_line(level, log_id("net.refused", "a connection is ended with an ERROR"),
		 log_u64("thread", facts.thread), log_u64("conn", facts.id),
		 log_str("peer", door_peer(conn, peer)), log_u64("session", facts.session),
		 log_str("code", sluice_error_name(code)), log_str("text", text),
		 log_u64("left_out", left_out));
}

void native_log_refused(const struct conn *conn, uint64_t corr, int code, const char *text)
{
	static struct log_rate rate = {.per_second = 20};
	struct door_facts facts;
	uint64_t left_out;

	if (!log_enabled(LOG_LEVEL_DEBUG) || !log_may(&rate, &left_out))
		return;
	door_facts(conn, &facts);
	log_line(LOG_LEVEL_DEBUG, log_id("request.refused", "a request was refused"),
		 log_u64("thread", facts.thread), log_u64("conn", facts.id),
		 log_u64("session", facts.session), log_u64("corr", corr),
		 log_str("code", sluice_error_name(code)), log_str("text", text),
		 log_u64("left_out", left_out));
}

long native_fail(struct conn *conn, int code, const char *format, ...)
{
	Sluice__Failure failure = SLUICE__FAILURE__INIT;
	char text[256];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text_repair(text);
	failure.code = code;
	failure.text = text;
	log_failure(conn, code, text);
	native_message(conn, FRAME_ERROR, 0, &failure.base);
	door_close(conn, "an ERROR was sent");
	return -1;
}

/* One policy for NOMEM: a request that was not accepted is refused, and may be retried. */
int native_no_memory_is_busy(int code, const char **io_text)
{
	if (code != SLUICE_E_NOMEM)
		return code;
	*io_text = "the broker is out of memory; try again";
	return SLUICE_E_BUSY;
}

enum { REFUSAL_BYTES = 320 };

/* The Reply of a refusal; text is its memory. */
static void refusal(const struct conn *conn, uint32_t corr, int code, char text[REFUSAL_BYTES],
		    Sluice__Reply *ret)
{
	const char *no_memory = NULL;

	code = native_no_memory_is_busy(code, &no_memory);
	if (no_memory != NULL)
		(void)snprintf(text, REFUSAL_BYTES, "%s", no_memory);
	text_repair(text);
	sluice__reply__init(ret);
	ret->code = code;
	ret->text = text;
	native_log_refused(conn, corr, code, text);
}

void native_refuse(struct conn *conn, uint32_t corr, int code, const char *format, ...)
{
	char text[REFUSAL_BYTES];
	Sluice__Reply reply;
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	refusal(conn, corr, code, text, &reply);
	native_message(conn, FRAME_REPLY, corr, &reply.base);
}

void native_reply_shown(struct conn *conn, uint32_t corr, uint64_t number,
			const Sluice__Reply *reply)
{
	uint8_t *bytes;

	if (door_answer_is_due(conn, number)) {
		native_message(conn, FRAME_REPLY, corr, &reply->base);
		return;
	}
	bytes = malloc(sluice__reply__get_packed_size(reply) + 1);
	if (bytes == NULL) {
		door_abort(conn, "no memory for an answer");
		return;
	}
	door_answer(conn, corr, 0, bytes, sluice__reply__pack(reply, bytes), number);
}

void native_refuse_shown(struct conn *conn, uint32_t corr, uint64_t number, int code,
			 const char *format, ...)
{
	char text[REFUSAL_BYTES];
	Sluice__Reply reply;
	va_list args;

	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	refusal(conn, corr, code, text, &reply);
	native_reply_shown(conn, corr, number, &reply);
}

void native_notice(struct conn *conn, Sluice__NoticeKind kind, uint64_t number, uint64_t offset,
		   uint64_t to_offset, int code, const char *text)
{
	Sluice__Notice notice = SLUICE__NOTICE__INIT;

	notice.kind = kind;
	notice.subscription = (uint32_t)number;
	notice.offset = offset;
	notice.to_offset = to_offset;
	notice.code = code;
	notice.text = (char *)(uintptr_t)text;
	native_message(conn, FRAME_NOTICE, 0, &notice.base);
}
