/* SPDX-License-Identifier: Apache-2.0
 *
 * A minimal line protocol that tests the listener interface: it includes include/sluice only. One
 * line, one answer:
 *   PUB SUBJECT BODY      -> +OK OFFSET | -CODE text
 *   PUT QUEUE BODY        -> +OK OFFSET
 *   GET QUEUE CREDIT      -> +OK, then ITEM TOKEN SEQ SUBJECT BODY lines, never more than CREDIT
 *   MORE N                -> more credit for the consumer
 *   ACK TOKEN SEQ         -> +OK | -CODE text
 *   FOLLOW STREAM OFFSET CREDIT -> EVENT OFFSET SUBJECT BODY lines
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sluice/plugin.h"

enum tag { TAG_SESSION = 1, TAG_ANSWER, TAG_CONSUMER, TAG_FOLLOWER };

struct line {
	const struct sluice_listener_host *host;
	sluice_conn *conn;
	bool open; /* the session is */
};

static void say(struct line *line, const char *text)
{
	(void)line->host->write(line->conn, text, strlen(text));
}

static void say_code(struct line *line, int code, const char *text)
{
	char answer[512];

	(void)snprintf(answer, sizeof(answer), "%c%s %.400s\n", code == 0 ? '+' : '-',
		       code == 0 ? "OK" : "ERR", text);
	say(line, answer);
}

__attribute__((unused)) static int line_accept(const struct sluice_listener_host *host,
					       sluice_conn *conn, void **ret_state)
{
	struct line *line = calloc(1, sizeof(*line));

	if (line == NULL || host->struct_size < sizeof(*host))
		return SLUICE_E_UNSUPPORTED;
	line->host = host;
	line->conn = conn;
	*ret_state = line;
	return host->session(conn, "default", 5000, TAG_SESSION);
}

static struct sluice_slice slice(const char *text)
{
	return (struct sluice_slice){text, text != NULL ? strlen(text) : 0};
}

/* Returns a code; BUSY: the line is delivered again. */
static int command(struct line *line, char *text)
{
	char *save = NULL, *verb = strtok_r(text, " ", &save), *a = strtok_r(NULL, " ", &save),
	     *rest = save;
	const struct sluice_slice none = {NULL, 0};

	if (verb == NULL || a == NULL)
		return SLUICE_E_INVAL;
	if (strcmp(verb, "PUB") == 0)
		return line->host->publish(line->conn, TAG_ANSWER, slice(a), none, slice(rest));
	if (strcmp(verb, "PUT") == 0)
		return line->host->publish(line->conn, TAG_ANSWER, slice("line.item"), slice(a),
					   slice(rest));
	if (strcmp(verb, "GET") == 0)
		return line->host->consume(line->conn, TAG_CONSUMER, slice(a),
					   (uint32_t)strtoul(rest, NULL, 10), 0);
	if (strcmp(verb, "MORE") == 0)
		return line->host->credit(line->conn, TAG_CONSUMER, (uint32_t)strtoul(a, NULL, 10));
	if (strcmp(verb, "ACK") == 0)
		return line->host->ack(line->conn, TAG_ANSWER, TAG_CONSUMER, strtoull(a, NULL, 10),
				       strtoull(rest, NULL, 10), true);
	if (strcmp(verb, "FOLLOW") == 0) {
		char *end = NULL;
		unsigned long long offset = strtoull(rest, &end, 10);

		return line->host->follow(line->conn, TAG_FOLLOWER, slice(a), offset,
					  (uint32_t)strtoul(end, NULL, 10));
	}
	return SLUICE_E_UNKNOWN_TYPE;
}

static long line_bytes(void *state, const void *bytes, size_t len)
{
	struct line *line = state;
	const char *end = memchr(bytes, '\n', len);
	char text[1024];
	size_t used;
	int rc;

	if (end == NULL)
		return len >= sizeof(text) ? SLUICE_E_LIMIT : 0;
	used = (size_t)(end - (const char *)bytes);
	if (used >= sizeof(text))
		return SLUICE_E_LIMIT;
	if (!line->open)
		return 0; /* delivered again when the session is open */
	memcpy(text, bytes, used);
	text[used] = 0;
	rc = command(line, text);
	if (rc == SLUICE_E_BUSY)
		return 0;
	if (rc != 0)
		say_code(line, rc, sluice_error_name(rc));
	else if (strncmp(text, "GET", 3) == 0 || strncmp(text, "MORE", 4) == 0 ||
		 strncmp(text, "FOLLOW", 6) == 0)
		say_code(line, 0, "");
	return (long)used + 1;
}

static void line_effect(void *state, const struct sluice_listener_effect *effect)
{
	struct line *line = state;
	char head[600];

	switch (effect->kind) {
	case SLUICE_EFFECT_ANSWER:
		if (effect->tag == TAG_SESSION) {
			line->open = effect->code == 0;
			return;
		}
		(void)snprintf(head, sizeof(head), "%llu", (unsigned long long)effect->offset);
		say_code(line, effect->code,
			 effect->code == 0 ? head : sluice_error_name(effect->code));
		return;
	case SLUICE_EFFECT_ITEM:
		(void)snprintf(head, sizeof(head), "ITEM %llu %llu %.*s ",
			       (unsigned long long)effect->token, (unsigned long long)effect->seq,
			       (int)effect->subject.len, (const char *)effect->subject.data);
		break;
	case SLUICE_EFFECT_EVENT:
		(void)snprintf(head, sizeof(head), "EVENT %llu %.*s ",
			       (unsigned long long)effect->offset, (int)effect->subject.len,
			       (const char *)effect->subject.data);
		break;
	default:
		return;
	}
	say(line, head);
	(void)line->host->write(line->conn, effect->body.data, effect->body.len);
	say(line, "\n");
}

static void line_closed(void *state)
{
	free(state);
}

#ifndef LINE_ACCEPT
#define LINE_ACCEPT line_accept
#endif

static const struct sluice_listener_ops ops = {
	.struct_size = sizeof(struct sluice_listener_ops),
	.protocol = "line",
	.default_port = 7599,
	.accept = LINE_ACCEPT,
	.bytes = line_bytes,
	.effect = line_effect,
	.closed = line_closed,
};

/* Variants that the ABI check must refuse, naming the file. */
#ifndef LINE_ABI_MAJOR
#define LINE_ABI_MAJOR SLUICE_PLUGIN_ABI_MAJOR
#endif
#ifndef LINE_ABI_MINOR
#define LINE_ABI_MINOR SLUICE_PLUGIN_ABI_MINOR
#endif
#ifndef LINE_STRUCT_SIZE
#define LINE_STRUCT_SIZE sizeof(struct sluice_plugin)
#endif
#ifdef LINE_NO_SYMBOL
#define LINE_SYMBOL line_plugin_of_another_name
#else
#define LINE_SYMBOL SLUICE_PLUGIN_SYMBOL
#endif

SLUICE_API extern const struct sluice_plugin LINE_SYMBOL;
const struct sluice_plugin LINE_SYMBOL = {
	.struct_size = LINE_STRUCT_SIZE,
	.abi_major = LINE_ABI_MAJOR,
	.abi_minor = LINE_ABI_MINOR,
	.kind = SLUICE_PLUGIN_LISTENER,
	.name = "line",
	.version = "1",
	.ops = &ops,
};
