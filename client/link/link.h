/* SPDX-License-Identifier: Apache-2.0
 *
 * The link to the broker: one connection after the other, and the session that they carry.
 */
#ifndef SLUICE_CLIENT_LINK_LINK_H
#define SLUICE_CLIENT_LINK_LINK_H

#include "client/base/client.h"
#include "client/base/memory.h"
#include "protocol/frame.h"

/* What the link reports upward; filled by client.c. */
struct link_ops {
	/* A frame that is not the link's own. False: there was no memory for it; it comes again. */
	bool (*frame)(sluice_client *client, const struct frame_header *header, struct sluice_slice body);
	/* The broker has said which features it has; nothing was sent to it yet. */
	void (*accepted)(sluice_client *client);
	void (*connected)(sluice_client *client, bool session_lost);
	void (*broken)(sluice_client *client);		 /* the connection ended */
	void (*failed)(sluice_client *client, int code); /* for good: there is no next try */
};

struct link {
	const struct link_ops *ops;
	int socket_fd;
	bool wants_write;
	struct buffer in, out;
	uint32_t next_corr; /* of all frames that have an answer */
	/* Without memory. A frame that cannot be written: the link is given up at the loop's next
	 * turn, and resumed. One that came and cannot be taken stays in `in`, and nothing behind it
	 * is read, until stalled_ms. */
	bool lacking, stalled;
	uint64_t stalled_ms;
	bool begun;	/* of that frame: */
	uint32_t taken; /* how many entries were taken before */
	/* Connecting. */
	struct resolver *resolver;
	size_t address_index;
	uint64_t attempt; /* since the last success */
	uint64_t next_try_ms, connect_deadline_ms;
	/* Of the last try: the broker answered it, with NO_SPACE, say; 0: it did not. */
	int refused_code;
	/* The broker's life. */
	uint32_t heartbeat_ms;
	uint64_t last_in_ms, last_out_ms;
	uint64_t ping_ms;	/* of the last PING; 0: none since the connect */
	uint64_t unanswered_ms; /* of the first PING since something came; 0: none */
	/* The session. */
	uint64_t session_id;
	uint8_t secret[16];
	size_t secret_len;
	bool had_session;
	uint8_t instance[16]; /* random; with tries, the order of this client's connections */
	uint64_t tries;	      /* HELLOs sent, all in all */
	/* What this broker can. */
	bool zstd;
	/* Session_close may name another one: older brokers end the caller's own. */
	bool closes_sessions;
	/* Operations 5 and 6 of ACK: an older broker would end the connection. */
	bool supports_begun;
};

void link_io(sluice_client *client, uint32_t events);
void link_due(sluice_client *client, uint64_t now);
uint64_t link_next(const sluice_client *client); /* when link_due() has something to do */
void link_broken(sluice_client *client, int code, const char *why);
void link_flush(sluice_client *client);
/* The same, from any thread. True: all was sent; an error is the loop's to find. */
bool link_push(sluice_client *client);
/* NULL: there is no connection, or no memory: it is given up then. From any thread. */
uint8_t *link_frame(sluice_client *client, uint8_t type, uint32_t corr, size_t body_bytes);
/* There was no memory for what must not be lost: the connection is given up at the loop's next
 * turn, and what the broker knows comes again with the next one. From any thread. */
void link_lacks(sluice_client *client);
uint32_t link_corr(sluice_client *client); /* the next correlation number; never 0 */
void link_free(sluice_client *client);

#endif
