/* SPDX-License-Identifier: Apache-2.0
 * The link to the broker: one connection after the other, and their session. */
#ifndef SLUICE_CLIENT_LINK_LINK_H
#define SLUICE_CLIENT_LINK_LINK_H

#include "client/base/client.h"
#include "client/base/memory.h"
#include "protocol/frame.h"

/* Reports of the link to the upper layers; filled by client.c. */
struct link_ops {
	/* A frame for an upper layer. False: no memory; the frame is passed again later. */
	bool (*frame)(sluice_client *client, const struct frame_header *header,
		      struct sluice_slice body);
	/* The broker has announced its features; nothing was sent to it yet. */
	void (*accepted)(sluice_client *client);
	void (*connected)(sluice_client *client, bool session_lost);
	/* Whether an answer to a frame of this connection is still to come. */
	bool (*waits)(sluice_client *client);
	void (*broken)(sluice_client *client);		 /* the connection ended */
	void (*failed)(sluice_client *client, int code); /* permanently: there is no next try */
};

struct link {
	const struct link_ops *ops;
	int socket_fd;
	bool wants_write;
	struct buffer in, out;
	uint32_t next_corr; /* of all frames with an answer */
	/* Out of memory. lacking: a frame could not be written; the link is closed at the loop's
	 * next turn, and resumed. stalled: a received frame could not be handled; it stays in `in`,
	 * and nothing after it is read, until stalled_ms. */
	bool lacking, stalled;
	uint64_t stalled_ms;
	bool begun;	/* of that frame: */
	uint32_t taken; /* entries that were handled before */
	/* ---- connecting ---- */
	struct resolver *resolver;
	char tls_host[300];   /* whom the certificate has to name; "": this address has no TLS */
	struct link_tls *tls; /* of the socket; NULL: plain */
	struct link_trust *trust; /* for all connections; NULL: none was TLS */
	size_t address_index;
	uint64_t attempt; /* since the last success */
	uint64_t next_try_ms, connect_deadline_ms;
	/* Code in the broker's answer to the last try, NO_SPACE for example; 0: it did not
	 * answer. */
	int refused_code;
	/* ---- heartbeats ---- */
	uint32_t heartbeat_ms;
	uint64_t last_in_ms, last_out_ms;
	uint64_t ping_ms;	/* of the last PING; 0: none on this connection */
	uint64_t unanswered_ms; /* of the first PING since something was received; 0: none */
	uint64_t stop_by_ms;	/* the stopping broker closes the connection before that */
	/* ---- the session ---- */
	uint64_t session_id;
	uint8_t secret[16];
	size_t secret_len;
	bool had_session;
	/* random; together with tries the order of this client's connections */
	uint8_t instance[16];
	uint64_t tries; /* HELLOs sent in total */
	/* ---- features of this broker ---- */
	bool zstd;
	/* Session_close may name another session: older brokers end the caller's own. */
	bool closes_sessions;
	/* Operations 3 and 4 of ACK: an older broker would end the connection. */
	bool rejects;
	/* Operations 5 and 6 of ACK: an older broker would end the connection. */
	bool supports_begun;
};

void link_io(sluice_client *client, uint32_t events);
void link_due(sluice_client *client, uint64_t now);
uint64_t link_next(const sluice_client *client); /* when link_due() is to be called */
void link_broken(sluice_client *client, int code, const char *why);
void link_flush(sluice_client *client);
/* The broker stops and reads nothing more; it closes the connection within so many ms. */
void link_stops(sluice_client *client, uint64_t within_ms);
/* Leaves a broker that stops, when the last answer has come or its time is over. */
void link_leave(sluice_client *client, uint64_t now);
/* Sends from any thread. True: everything was sent; the loop detects errors. */
bool link_push(sluice_client *client);
/* NULL: there is no connection, its broker stops, or no memory, which closes it. From any
 * thread. */
uint8_t *link_frame(sluice_client *client, uint8_t type, uint32_t corr, size_t body_bytes);
/* No memory for data that must not be lost: the connection is closed at the loop's next turn, and
 * the broker redelivers on the next one. From any thread. */
void link_lacks(sluice_client *client);
uint32_t link_corr(sluice_client *client); /* the next correlation number; never 0 */
void link_free(sluice_client *client);

#endif
