/* SPDX-License-Identifier: Apache-2.0
 * Replies: a broker's, or the library's own from a code and a text. */
#ifndef SLUICE_CLIENT_CALL_REPLY_H
#define SLUICE_CLIENT_CALL_REPLY_H

#include "protocol/message_block.h"
#include "sluice.pb-c.h"
#include "sluice/client.h"

struct sluice_reply {
	int refs; /* atomic */
	int code;
	char *text;
	uint64_t request;
	Sluice__Reply *message; /* NULL: an answer without one */
	/* Holds all of it except json; NULL: reply and text are allocated. */
	struct message_block *block;
	uint64_t index, affected, offset;
	bool duplicate;
	char *json;
	const char **spare; /* string arrays passed to the application */
};

sluice_reply *reply_new(int code, const char *text, size_t text_len);
/* From a broker's message in block, which then also holds the reply; takes block on success. NULL:
 * no memory. */
sluice_reply *reply_in_block(struct message_block *block, Sluice__Reply *message);

#endif
