/* SPDX-License-Identifier: Apache-2.0
 * The connection: lines in, and the table of the protocol. */
#include "tests/line/face/line.h"

#include <stdlib.h>
#include <string.h>

#include "protocol/limits.h"

/* ---- in ---- */

/* One line of the bytes. Returns the number of bytes used; 0: it is not complete, or it is to be
 * given again; negative: the connection ends. */
static long take(struct conn *conn, const char *bytes, size_t len)
{
	struct line *line = door_state(conn);
	const char *end = memchr(bytes, '\n', len < LINE_BYTES_MAX ? len : LINE_BYTES_MAX);
	char text[LINE_BYTES_MAX];
	struct line_request request = {.conn = conn, .tag = line->lines + 1, .rest = text};
	size_t used;

	if (end == NULL && len < LINE_BYTES_MAX)
		return 0;
	if (end == NULL) {
		line_answer(conn, request.tag, SLUICE_E_LIMIT, "a line of 4096 bytes or more");
		return -1;
	}
	used = (size_t)(end - bytes) + 1;
	memcpy(text, bytes, used - 1);
	text[used - 1] = 0;
	request.bytes = (struct sluice_slice){end + 1, line_bytes_after(text)};
	if (request.bytes.len > LIMIT_FRAME_BYTES_MAX) {
		line_answer(conn, request.tag, SLUICE_E_LIMIT, "more bytes than a frame may have");
		return -1;
	}
	if (len - used < request.bytes.len) {
		door_want(conn, used + request.bytes.len);
		return 0;
	}
	if (line_run(&request))
		return 0;
	line->lines++;
	return (long)(used + request.bytes.len);
}

static long line_bytes(struct conn *conn, const void *bytes, size_t len)
{
	size_t used = 0;

	door_want(conn, 0);
	while (used < len) {
		long took = take(conn, (const char *)bytes + used, len - used);

		if (took < 0)
			return -1;
		used += (size_t)took;
		if (took == 0 || !door_may_take(conn))
			break;
	}
	return (long)used;
}

/* ---- life ---- */

static const char *line_name(const struct conn *conn)
{
	(void)conn;
	return "line";
}

static int line_accept(struct conn *conn)
{
	struct line *line = calloc(1, sizeof(*line));

	if (line == NULL)
		return SLUICE_E_NOMEM;
	door_state_set(conn, line);
	return 0;
}

static void line_round(struct conn *conn)
{
	struct line *line = door_state(conn);

	line->rounds++;
}

static void line_ready(struct conn *conn, enum door_ready what)
{
	line_say(conn, "* ready %s", what == DOOR_READY_OUTPUT ? "output" : "inbox");
}

static void line_timer(struct conn *conn)
{
	line_say(conn, "* timer");
}

static void line_stop(struct conn *conn, uint64_t within_ms)
{
	line_say(conn, "* stop %llu", (unsigned long long)within_ms);
}

static void line_closed(struct conn *conn)
{
	free(door_state(conn));
}

const struct protocol_ops line_protocol = {
	.name = line_name,
	.accept = line_accept,
	.bytes = line_bytes,
	.round = line_round,
	.ready = line_ready,
	.timer = line_timer,
	.stop = line_stop,
	.closed = line_closed,
	.reply = line_reply,
	.session = line_session,
	.request = line_in_order,
	.read_done = line_read_done,
	.answer = line_due,
	.waited = line_waited,
	.effect = line_effect,
	.deliver_segment = line_deliver_segment,
	.gap = line_gap,
	.caught_up = line_caught_up,
	.subscription_end = line_subscription_end,
};
