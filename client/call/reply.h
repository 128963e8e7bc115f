/* SPDX-License-Identifier: Apache-2.0
 * Replies: a broker's, or the library's own of a code and a text. */
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
	/* What all of it lives in but json; NULL: reply and text are allocated. */
	struct message_block *block;
	uint64_t index, affected, offset;
	bool duplicate;
	char *json;
	const char **spare; /* string arrays handed out */
};

sluice_reply *reply_new(int code, const char *text, size_t text_len);
/* Of a broker's message that lives in block, as the reply does then; takes block on success.
 * NULL: no memory. */
sluice_reply *reply_in_block(struct message_block *block, Sluice__Reply *message);

#endif
