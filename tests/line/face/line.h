/* SPDX-License-Identifier: Apache-2.0
 *
 * The line protocol of the tests, which uses every call of broker/net/conn/door.h. One line is one
 * command; some have bytes after their line, whose number is the last word. The number of a line
 * on its connection, from 1 on, is its tag. For the files of this folder.
 *
 *   TAG CODE[ TEXT]    the answer: OK or the name of an error (sluice/error.h)
 *   * KIND ...         everything else that the broker sends
 *
 * text.c writes lines, effects.c has what the broker sends, commands.c the commands, line.c the
 * connection.
 */
#ifndef TESTS_LINE_H
#define TESTS_LINE_H

#include "broker/net/conn/door.h"
#include "broker/net/conn/protocol.h"

enum { LINE_BYTES_MAX = 4096, LINE_WORD_MAX = 1024 };

struct line {
	uint64_t lines; /* parsed so far: the tag of the last one */
	uint64_t rounds;
	bool holds; /* until the next answer of the broker */
};

/* A line with its bytes. */
struct line_request {
	struct conn *conn;
	uint64_t tag;
	char *rest; /* of the line: words that are not used yet */
	struct sluice_slice bytes;
};

void line_put(struct conn *conn, const void *bytes, size_t len);
/* Writes one line of the format; cut at LINE_BYTES_MAX. */
void line_say(struct conn *conn, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* `TAG CODE[ text]` */
void line_answer(struct conn *conn, uint64_t tag, int code, const char *text);
/* The same, behind the effects of the commit that it shows. */
void line_answer_shown(struct conn *conn, uint64_t tag, int code, const char *text,
		       uint64_t number);
/* `answer` of the table: what line_answer_shown wrote, or a Reply as hexadecimal text. */
void line_due(struct conn *conn, uint64_t tag, int code, const uint8_t *reply, size_t len);

/* `TAG CODE HEX[ text]`: with the Reply as hexadecimal text; reply NULL: `-`. */
void line_answer_reply(struct conn *conn, uint64_t tag, int code, const uint8_t *reply, size_t len,
		       const char *text);

/* How many bytes follow this line; text is the line. */
size_t line_bytes_after(const char *text);
/* Runs a line. True: the broker was at a bound, and the line is to be given again. */
bool line_run(struct line_request *request);

/* Of the table. */
void line_reply(struct conn *conn, uint64_t tag, const struct outcome *outcome,
		struct sluice_slice payload);
void line_session(struct conn *conn, uint64_t tag, int code, const char *text,
		  const struct door_session *session);
void line_in_order(struct conn *conn, uint64_t tag, int rc, const Sluice__Request *request,
		   struct message_block **block, size_t bytes);
void line_read_done(struct conn *conn, uint64_t tag, const struct read_result *result);
void line_waited(struct conn *conn, uint64_t tag, const struct job_waited *result);
void line_effect(struct conn *conn, struct sub *sub, const struct effect *effect);
int line_deliver_segment(struct sub *sub, const struct segment *segment, uint64_t *io_budget);
void line_gap(struct sub *sub, uint64_t to_offset);
void line_caught_up(struct sub *sub);
void line_subscription_end(struct sub *sub, int code, const char *text);

#endif
