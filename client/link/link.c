/* SPDX-License-Identifier: Apache-2.0
 * The link: address, connect, HELLO, frames in and out, and the next try after a failure. Nothing
 * here blocks. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/base/error.h"
#include "client/base/loop.h"
#include "client/base/memory.h"
#include "client/link/link.h"
#include "client/link/resolve.h"
#include "client/link/tls.h"
#include "protocol/frame.h"
#include "protocol/limits.h"
#include "sluice.pb-c.h"

enum { READ_BYTES = 1 << 18, SILENT_BEATS = 3 };

static void watch(sluice_client *client, bool read, bool write)
{
	struct link *link = client->link;
	struct epoll_event event = {.events = (read ? EPOLLIN : 0u) | (write ? EPOLLOUT : 0u),
				    .data.fd = link->socket_fd};

	if (link->wants_write == write && link->stalled == !read)
		return;
	link->wants_write = write;
	link->stalled = !read;
	(void)epoll_ctl(client->epoll_fd, EPOLL_CTL_MOD, link->socket_fd, &event);
}

/* No memory for received data: nothing is read until the retry. */
static void stall(sluice_client *client)
{
	struct link *link = client->link;

	link->stalled_ms = now_ms() + MEMORY_MS;
	watch(client, false, link->wants_write);
}

static void close_socket(sluice_client *client)
{
	struct link *link = client->link;

	if (link->socket_fd < 0)
		return;
	link_tls_end(link->tls);
	link->tls = NULL;
	(void)epoll_ctl(client->epoll_fd, EPOLL_CTL_DEL, link->socket_fd, NULL);
	(void)close(link->socket_fd);
	link->socket_fd = -1;
	link->in.start = link->in.end = 0;
	link->out.start = link->out.end = 0;
	link->wants_write = link->stalled = link->lacking = link->begun = link->supports_begun =
		false;
	link->taken = 0;
	link->ping_ms = link->unanswered_ms = 0;
}

static void error_note(sluice_client *client, const char *why)
{
	(void)snprintf(client->error, sizeof(client->error), "%s", why);
}

/* Errors that a retry cannot correct: those of HELLO, which would be the same again, and the loss
 * of a session's name to another client. */
static bool is_final(const sluice_client *client, int code)
{
	return code == SLUICE_E_VERSION || code == SLUICE_E_DENIED || code == SLUICE_E_INVAL ||
	       code == SLUICE_E_NOT_FOUND ||
	       (client->state == STATE_HELLO &&
		(code == SLUICE_E_PROTOCOL || code == SLUICE_E_LIMIT)) ||
	       (code == SLUICE_E_SESSION_GONE && client->config.session[0] != 0);
}

static void end_for_good(sluice_client *client, int code)
{
	client->state = STATE_FAILED;
	client->fail_code = code;
	client->link->ops->failed(client, code);
	(void)pthread_cond_broadcast(&client->changed);
}

/* Answers to HELLO after which a later one may be accepted. */
static bool error_is_refusal(int code)
{
	return code == SLUICE_E_NO_SPACE || code == SLUICE_E_BUSY || code == SLUICE_E_LIMIT;
}

static uint64_t next_delay(sluice_client *client)
{
	uint64_t delay = client->config.reconnect_min_ms, most = client->config.reconnect_max_ms;
	uint32_t noise = 0;

	for (uint64_t i = 0; i < client->link->attempt && delay < most; i++)
		delay *= 2;
	if (delay > most)
		delay = most;
	(void)!getrandom(&noise, sizeof(noise), 0);
	/* Jitter: many clients do not reconnect at the same time. */
	return delay / 2 + noise % (delay / 2 + 1);
}

void link_broken(sluice_client *client, int code, const char *why)
{
	struct link *link = client->link;
	bool was_ready = client->state == STATE_READY || client->state == STATE_STOPPING, final;

	if (client->state == STATE_FAILED)
		return;
	close_socket(client);
	link->refused_code = client->state == STATE_HELLO && error_is_refusal(code) ? code : 0;
	if (why != client->error)
		error_note(client, why);
	link->ops->broken(client);
	final = is_final(client, code);
	if (final || !client->config.reconnect || client->config.transport_fd >= 0) {
		end_for_good(client, final ? code : SLUICE_E_DISCONNECTED);
	} else {
		client->state = STATE_WAITING;
		link->next_try_ms = now_ms() + next_delay(client);
		link->attempt++;
	}
	if (was_ready || client->state == STATE_FAILED)
		client_notice(client,
			      &SLUICE_MAKE(sluice_notice, .kind = SLUICE_NOTICE_DISCONNECTED,
					   .code = code, .text = client->error));
}

/* ---- connecting ---- */

static void send_hello(sluice_client *client)
{
	struct link *link = client->link;
	Sluice__Hello hello = SLUICE__HELLO__INIT;
	char zstd[] = "zstd", session_close[] = "session-close", reject[] = "reject-renew",
	     *features[] = {zstd, session_close, reject};
	uint8_t *at;
	size_t len;

	hello.version_min = SLUICE_PROTOCOL_VERSION_MIN;
	hello.version_max = SLUICE_PROTOCOL_VERSION;
	hello.client = client->config.client;
	hello.gateway = client->config.gateway;
	hello.session_name = client->config.session;
	hello.session_id = link->session_id;
	hello.session_secret = (ProtobufCBinaryData){link->secret_len, link->secret};
	hello.session_timeout_ms = client->config.session_timeout_ms;
	hello.features = features;
	hello.n_features = sizeof(features) / sizeof(features[0]);
	if (link->tries++ == 0)
		(void)!getrandom(link->instance, sizeof(link->instance), 0);
	hello.instance = (ProtobufCBinaryData){sizeof(link->instance), link->instance};
	hello.attempt = link->tries;
	len = sluice__hello__get_packed_size(&hello);
	client->state = STATE_HELLO;
	at = link_frame(client, FRAME_HELLO, 0, len);
	if (at != NULL)
		(void)sluice__hello__pack(&hello, at);
}

static void handshake(sluice_client *client)
{
	bool writes = false;
	char cause[TEXT_MAX / 2], why[TEXT_MAX];
	int rc = link_tls_handshake(client->link->tls, &writes, cause, sizeof(cause));

	if (rc == SLUICE_E_BUSY) {
		watch(client, true, writes);
	} else if (rc == 0) {
		send_hello(client);
	} else {
		(void)snprintf(why, sizeof(why), "%.200s: %s", client->config.address, cause);
		link_broken(client, rc, why);
	}
}

/* The socket is connected. */
static void greet(sluice_client *client)
{
	struct link *link = client->link;
	char why[TEXT_MAX];
	int rc;

	if (link->tls_host[0] == 0) {
		send_hello(client);
		return;
	}
	rc = link_tls_begin(link->socket_fd, link->tls_host, client->config.tls_ca, &link->trust,
			    &link->tls, why, sizeof(why));
	if (rc == 0)
		handshake(client);
	else
		link_broken(client, rc, why);
}

static void adopt_socket(sluice_client *client, int fd, bool connected)
{
	struct link *link = client->link;
	struct epoll_event event = {.events = EPOLLIN | (connected ? 0u : EPOLLOUT), .data.fd = fd};
	int on = 1;

	link->socket_fd = fd;
	link->wants_write = !connected;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (epoll_ctl(client->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
		link_broken(client, SLUICE_E_IO, "epoll refused the socket");
		return;
	}
	client->state = STATE_CONNECTING;
	if (connected)
		greet(client);
}

static void connect_to(sluice_client *client, const void *addr, socklen_t len)
{
	int fd = socket(((const struct sockaddr *)addr)->sa_family,
			SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0) {
		link_broken(client, SLUICE_E_IO, strerror(errno));
		return;
	}
	if (connect(fd, addr, len) == 0) {
		adopt_socket(client, fd, true);
	} else if (errno == EINPROGRESS) {
		adopt_socket(client, fd, false);
	} else {
		char why[TEXT_MAX];

		(void)snprintf(why, sizeof(why), "%.200s: %s", client->config.address,
			       strerror(errno));
		(void)close(fd);
		link_broken(client, SLUICE_E_DISCONNECTED, why);
	}
}

/* The address_index-th of the comma-separated list; NULL: it is empty. */
static char *pick_address(sluice_client *client, char list[512])
{
	char *save = NULL, *word;
	size_t count = 1, wanted;

	(void)snprintf(list, 512, "%s", client->config.address);
	for (const char *c = list; *c != 0; c++)
		count += *c == ',';
	wanted = client->link->address_index++ % count;
	word = strtok_r(list, ",", &save);
	for (size_t i = 0; i < wanted && word != NULL; i++)
		word = strtok_r(NULL, ",", &save);
	return word;
}

static bool is_loopback(const char *host)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (inet_pton(AF_INET, host, &v4) == 1)
		return ntohl(v4.s_addr) >> 24 == 127;
	return strcmp(host, "localhost") == 0 ||
	       (inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6));
}

/* Whom the certificate of a broker at this host has to name; "": no TLS. */
static void tls_choose(sluice_client *client, const char *host, bool asked)
{
	struct link *link = client->link;
	enum client_tls tls = client->config.tls;
	bool wanted = asked || tls == TLS_VERIFY_FULL || (tls == TLS_AUTO && !is_loopback(host));

	(void)snprintf(link->tls_host, sizeof(link->tls_host), "%s", wanted ? host : "");
}

/* "host:port", "host", "[v6]:port", "tls:" before each; changes word. */
static bool split_address(sluice_client *client, char *word, char *host, size_t host_bytes,
			  char *port, size_t port_bytes)
{
	bool tls = strncmp(word, "tls:", 4) == 0;
	char *colon = strrchr(word += tls ? 4 : 0, ':');

	if (colon != NULL)
		*colon = 0;
	(void)snprintf(port, port_bytes, "%s", colon != NULL ? colon + 1 : "7584");
	if (word[0] == '[' && strlen(word) > 2 && word[strlen(word) - 1] == ']') {
		word[strlen(word) - 1] = 0;
		word++;
	}
	tls_choose(client, word, tls);
	(void)snprintf(host, host_bytes, "%s", strcmp(word, "localhost") == 0 ? "127.0.0.1" : word);
	return host[0] != 0;
}

static void connect_unix(sluice_client *client, const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};

	if (path[0] == 0 || strlen(path) >= sizeof(addr.sun_path)) {
		link_broken(client, SLUICE_E_INVAL,
			    "the address is malformed; expected unix:PATH, at most 107 bytes of "
			    "path");
		return;
	}
	(void)snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	connect_to(client, &addr, sizeof(addr));
}

static void connect_start(sluice_client *client)
{
	struct sockaddr_storage addr = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&addr;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&addr;
	char list[512], host[300], port[16], *word;
	unsigned long number;
	char *end = NULL;

	client->link->connect_deadline_ms = now_ms() + client->config.connect_timeout_ms;
	client->link->tls_host[0] = 0;
	if (client->config.transport_fd >= 0) {
		(void)fcntl(client->config.transport_fd, F_SETFL,
			    fcntl(client->config.transport_fd, F_GETFL) | O_NONBLOCK);
		adopt_socket(client, client->config.transport_fd, true);
		return;
	}
	word = pick_address(client, list);
	if (word != NULL && strncmp(word, "unix:", 5) == 0) {
		connect_unix(client, word + 5);
		return;
	}
	if (word == NULL || !split_address(client, word, host, sizeof(host), port, sizeof(port)) ||
	    ((number = strtoul(port, &end, 10)) == 0 || *end != 0 || number > 65535)) {
		link_broken(client, SLUICE_E_INVAL,
			    "the address is malformed; expected host:port, tls:host:port "
			    "or unix:PATH, several separated by commas");
		return;
	}
	if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)number);
		connect_to(client, &addr, sizeof(*v4));
	} else if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)number);
		connect_to(client, &addr, sizeof(*v6));
	} else {
		client->state = STATE_RESOLVING;
		if (resolver_start(client, host, port) != 0)
			link_broken(client, SLUICE_E_NOMEM, "no thread for the name look-up");
	}
}

void link_free(sluice_client *client)
{
	close_socket(client);
	resolver_drop(client);
	link_trust_free(client->link->trust);
	buffer_free(&client->link->in);
	buffer_free(&client->link->out);
}

/* ---- frames out ---- */

uint32_t link_corr(sluice_client *client)
{
	if (++client->link->next_corr == 0)
		client->link->next_corr++;
	return client->link->next_corr;
}

void link_lacks(sluice_client *client)
{
	struct link *link = client->link;

	if (link->socket_fd < 0)
		return;
	link->lacking = true;
	client_wake(client);
}

uint8_t *link_frame(sluice_client *client, uint8_t type, uint32_t corr, size_t body_bytes)
{
	struct link *link = client->link;
	struct frame_header header = {.body_bytes = (uint32_t)body_bytes,
				      .type = type,
				      .corr = corr};
	uint8_t *at;

	if (link->socket_fd < 0 || client->state == STATE_STOPPING || link->lacking)
		return NULL; /* frames after one that could not be written must not overtake it */
	at = buffer_room(&link->out, FRAME_HEADER_BYTES + body_bytes);
	if (at == NULL) {
		link_lacks(client);
		return NULL;
	}
	frame_header_encode(at, &header);
	link->out.end += FRAME_HEADER_BYTES + body_bytes;
	return at + FRAME_HEADER_BYTES;
}

/* 0: everything was sent; EAGAIN: the rest when the socket is writable; or the error after which
 * nothing can be sent. */
static int flush(sluice_client *client)
{
	struct link *link = client->link;

	while (buffer_len(&link->out) > 0) {
		const uint8_t *bytes = link->out.bytes + link->out.start;
		size_t len = buffer_len(&link->out);
		ssize_t sent = link->tls != NULL ? link_tls_send(link->tls, bytes, len)
						 : send(link->socket_fd, bytes, len, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0)
			return errno == EWOULDBLOCK ? EAGAIN : errno;
		link->out.start += (size_t)sent;
		link->last_out_ms = now_ms();
	}
	return 0;
}

void link_flush(sluice_client *client)
{
	struct link *link = client->link;
	int error;

	if (link->socket_fd < 0 || client->state == STATE_CONNECTING)
		return;
	error = flush(client);
	if (error != 0 && error != EAGAIN)
		link_broken(client, SLUICE_E_DISCONNECTED, strerror(error));
	else
		watch(client, !link->stalled, error != 0);
}

bool link_push(sluice_client *client)
{
	return client->link->socket_fd >= 0 && client->state == STATE_READY && flush(client) == 0;
}

/* ---- a broker that stops ---- */

static const char broker_stops[] = "the broker stops";

void link_stops(sluice_client *client, uint64_t within_ms)
{
	struct link *link = client->link;
	uint64_t silence = (uint64_t)SILENT_BEATS * link->heartbeat_ms, now = now_ms();

	if (client->state != STATE_READY)
		return;
	client->state = STATE_STOPPING;
	error_note(client, broker_stops);
	/* It does not read PINGs either: its own time is the limit. */
	link->stop_by_ms =
		within_ms < UINT64_MAX - now - silence ? now + within_ms + silence : UINT64_MAX;
	link->out.start = link->out.end = 0; /* it would not read that */
}

void link_leave(sluice_client *client, uint64_t now)
{
	if (client->state != STATE_STOPPING)
		return;
	if (!client->link->ops->waits(client))
		link_broken(client, SLUICE_E_DISCONNECTED, broker_stops);
	else if (client->link->stop_by_ms <= now)
		link_broken(client, SLUICE_E_DISCONNECTED,
			    "the broker stops, and did not close the connection in time");
}

/* ---- frames in ---- */

static bool on_welcome(sluice_client *client, struct sluice_slice body)
{
	struct link *link = client->link;
	Sluice__Welcome *welcome = sluice__welcome__unpack(&mem_protobuf, body.len, body.data);
	bool first = !link->had_session, lost;

	if (welcome == NULL && mem_lacked())
		return false;
	if (welcome == NULL || client->state != STATE_HELLO ||
	    welcome->session_secret.len > sizeof(link->secret)) {
		if (welcome != NULL)
			sluice__welcome__free_unpacked(welcome, &mem_protobuf);
		link_broken(client, SLUICE_E_PROTOCOL, "the broker sent a malformed WELCOME");
		return true;
	}
	lost = link->had_session && !welcome->resumed;
	link->session_id = welcome->session_id;
	link->secret_len = welcome->session_secret.len;
	if (link->secret_len > 0)
		memcpy(link->secret, welcome->session_secret.data, link->secret_len);
	link->heartbeat_ms = welcome->heartbeat_ms != 0 ? welcome->heartbeat_ms : 10000;
	link->zstd = link->closes_sessions = link->rejects = false;
	for (size_t i = 0; i < welcome->n_features; i++) {
		const char *feature = welcome->features[i];

		link->zstd = link->zstd || (client->config.zstd && strcmp(feature, "zstd") == 0);
		link->closes_sessions |= strcmp(feature, "session-close") == 0;
		link->rejects |= strcmp(feature, "reject-renew") == 0;
	}
	sluice__welcome__free_unpacked(welcome, &mem_protobuf);
	link->had_session = true;
	link->ops->accepted(client);
	client->state = STATE_READY;
	link->attempt = 0;
	client->error[0] = 0;
	link->last_in_ms = link->last_out_ms = now_ms();
	link->ops->connected(client, lost);
	client_notice(client, &SLUICE_MAKE(sluice_notice,
					   .kind = first || lost ? SLUICE_NOTICE_CONNECTED
								 : SLUICE_NOTICE_RESUMED,
					   .text = "", .session = link->session_id));
	(void)pthread_cond_broadcast(&client->changed);
	return true;
}

static bool on_failure(sluice_client *client, struct sluice_slice body)
{
	struct link *link = client->link;
	Sluice__Failure *failure = sluice__failure__unpack(&mem_protobuf, body.len, body.data);
	char text[TEXT_MAX];
	int code;

	if (failure == NULL && mem_lacked())
		return false;
	if (failure == NULL) {
		link_broken(client, SLUICE_E_PROTOCOL, "the broker sent a malformed ERROR");
		return true;
	}
	code = failure->code;
	(void)snprintf(text, sizeof(text), "%s", failure->text);
	sluice__failure__free_unpacked(failure, &mem_protobuf);
	if (code == SLUICE_E_SESSION_GONE) {
		/* The next HELLO opens a new session. A named session that was taken over is not
		 * reclaimed. */
		link->session_id = 0;
		link->secret_len = 0;
	}
	link_broken(client, code, text);
	return true;
}

/* False: no memory; the same frame is to be passed again. */
static bool on_frame(sluice_client *client, const struct frame_header *header,
		     struct sluice_slice body)
{
	switch (header->type) {
	case FRAME_WELCOME:
		return on_welcome(client, body);
	case FRAME_ERROR:
		return on_failure(client, body);
	case FRAME_PONG:
		return true;
	default:
		return client->link->ops->frame(client, header, body);
	}
}

static void parse(sluice_client *client)
{
	struct link *link = client->link;

	(void)mem_lacked(); /* resets an earlier failure */
	while (buffer_len(&link->in) >= FRAME_HEADER_BYTES) {
		struct frame_header header;
		const char *why = "";
		size_t size;
		const uint8_t *at = link->in.bytes + link->in.start;

		if (frame_header_decode(at, LIMIT_FRAME_BYTES_MAX, &header, &why) != 0) {
			link_broken(client, SLUICE_E_PROTOCOL, why);
			return;
		}
		size = FRAME_HEADER_BYTES + (size_t)header.body_bytes;
		if (buffer_len(&link->in) < size)
			return;
		link->in.start += size;
		if (!on_frame(client, &header,
			      (struct sluice_slice){at + FRAME_HEADER_BYTES, header.body_bytes}) &&
		    link->socket_fd >= 0) {
			link->in.start -= size;
			stall(client);
			return;
		}
		if (link->socket_fd < 0)
			return;
		link->begun = false;
		link->taken = 0;
	}
}

static void read_some(sluice_client *client)
{
	struct link *link = client->link;

	for (int n = 0; n < 16 && link->socket_fd >= 0 && !link->stalled; n++) {
		uint8_t *at = buffer_room(&link->in, READ_BYTES);
		ssize_t got;

		if (at == NULL) {
			stall(client);
			return;
		}
		got = link->tls != NULL ? link_tls_recv(link->tls, at, READ_BYTES)
					: recv(link->socket_fd, at, READ_BYTES, 0);
		if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
			return;
		if (got <= 0) {
			link_broken(client, SLUICE_E_DISCONNECTED,
				    got == 0 ? "the broker closed the connection"
					     : strerror(errno));
			return;
		}
		link->in.end += (size_t)got;
		link->last_in_ms = now_ms();
		link->unanswered_ms = 0;
		parse(client);
		if (got < READ_BYTES)
			return;
	}
}

void link_io(sluice_client *client, uint32_t events)
{
	struct link *link = client->link;

	if (client->state == STATE_CONNECTING && link->tls != NULL) {
		handshake(client);
		return;
	}
	if (client->state == STATE_CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
		int error = 0;
		socklen_t len = sizeof(error);
		char why[TEXT_MAX];

		(void)getsockopt(link->socket_fd, SOL_SOCKET, SO_ERROR, &error, &len);
		if (error != 0) {
			(void)snprintf(why, sizeof(why), "%.200s: %s", client->config.address,
				       strerror(error));
			link_broken(client, SLUICE_E_DISCONNECTED, why);
			return;
		}
		greet(client);
		if (client->state != STATE_HELLO)
			return;
	}
	if (link->stalled && (events & (EPOLLERR | EPOLLHUP)) != 0)
		link_broken(client, SLUICE_E_DISCONNECTED,
			    "the connection ended while there was no memory to read from it");
	else if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		read_some(client);
}

/* Handles the frame that could not be handled before, and those after it. */
static void unstall(sluice_client *client)
{
	watch(client, true, client->link->wants_write);
	parse(client);
}

/* The broker answers a PING, while few other frames have an answer of their own. So a PING is sent
 * when nothing was received for a heartbeat, whatever was sent; and when nothing was sent, to show
 * the broker that this side is alive. */
static uint64_t ping_next(const sluice_client *client)
{
	const struct link *link = client->link;
	uint64_t in = link->last_in_ms, out = link->last_out_ms, quiet = in < out ? in : out;

	return (link->ping_ms > quiet ? link->ping_ms : quiet) + link->heartbeat_ms;
}

/* A broker is silent if it does not answer a PING; an application may not turn its loop for
 * long. */
static uint64_t silent_next(const sluice_client *client)
{
	const struct link *link = client->link;

	if (link->unanswered_ms == 0)
		return UINT64_MAX;
	return link->unanswered_ms + (SILENT_BEATS - 1ull) * link->heartbeat_ms;
}

static bool is_connecting(const sluice_client *client)
{
	return client->state == STATE_CONNECTING || client->state == STATE_HELLO ||
	       client->state == STATE_RESOLVING;
}

uint64_t link_next(const sluice_client *client)
{
	const struct link *link = client->link;
	uint64_t next = UINT64_MAX;

	if (client->state == STATE_READY)
		next = ping_next(client) < silent_next(client) ? ping_next(client)
							       : silent_next(client);
	else if (client->state == STATE_STOPPING)
		next = link->stop_by_ms;
	else if (client->state == STATE_WAITING)
		next = link->next_try_ms;
	else if (is_connecting(client))
		next = link->connect_deadline_ms;
	return link->stalled && link->stalled_ms < next ? link->stalled_ms : next;
}

static void ready_due(sluice_client *client, uint64_t now)
{
	struct link *link = client->link;

	if (silent_next(client) <= now && !link->stalled)
		read_some(client); /* the answer may have arrived and not been read yet */
	if (client->state != STATE_READY)
		return;
	if (silent_next(client) <= now) {
		link_broken(client, link->stalled ? SLUICE_E_NOMEM : SLUICE_E_DISCONNECTED,
			    link->stalled ? "there was no memory for what the broker sent"
					  : "the broker was silent for too long");
		return;
	}
	if (ping_next(client) <= now && link_frame(client, FRAME_PING, 0, 0) != NULL) {
		link->ping_ms = now;
		if (link->unanswered_ms == 0)
			link->unanswered_ms = now;
	}
}

void link_due(sluice_client *client, uint64_t now)
{
	struct link *link = client->link;
	struct sockaddr_storage addr;
	socklen_t len = 0;
	int rc;

	if (link->lacking)
		link_broken(client, SLUICE_E_NOMEM, "out of memory");
	if (link->stalled && link->stalled_ms <= now)
		unstall(client);
	if (client->state == STATE_IDLE)
		connect_start(client);
	if (client->state == STATE_RESOLVING && resolver_poll(link->resolver, &addr, &len, &rc)) {
		resolver_drop(client);
		if (rc == 0)
			connect_to(client, &addr, len);
		else
			link_broken(client, SLUICE_E_DISCONNECTED,
				    "the host name could not be resolved");
	}
	if (client->state == STATE_WAITING && link->next_try_ms <= now)
		connect_start(client);
	if (is_connecting(client) && link->connect_deadline_ms <= now) {
		resolver_drop(client);
		link_broken(client, SLUICE_E_DISCONNECTED, "the broker did not answer in time");
	}
	if (client->state == STATE_READY)
		ready_due(client, now);
}
