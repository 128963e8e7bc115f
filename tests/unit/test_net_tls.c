/* SPDX-License-Identifier: Apache-2.0
 * TLS on a connection: what lies between the socket and the protocol, the watch over the lengths of
 * a handshake, the bound on unfinished ones. */
#include <criterion/criterion.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <sys/stat.h>

#include "broker/net/conn/handshakes.h"
#include "broker/net/conn/hello_check.h"
#include "broker/net/conn/wire.h"
#include "protocol/limits.h"
#include "tests/unit/net_rig.h"

/* ---- the watch over lengths ---- */

/* In pieces of so many bytes. */
static const char *watch(const uint8_t *bytes, size_t len, size_t piece, bool encrypts)
{
	struct hello_check check = {0};
	const char *why = NULL;

	for (size_t at = 0; at < len && why == NULL; at += piece)
		why = hello_check(&check, bytes + at, len - at < piece ? len - at : piece,
				  encrypts);
	return why;
}

static size_t record_put(uint8_t *at, uint8_t type, const uint8_t *bytes, size_t len)
{
	const uint8_t header[5] = {type, 3, 3, (uint8_t)(len >> 8), (uint8_t)len};

	memcpy(at, header, sizeof(header));
	memcpy(at + sizeof(header), bytes, len);
	return sizeof(header) + len;
}

/* A message of that length, in records of at most so many bytes, then one of 5 bytes. */
static size_t messages_put(uint8_t *at, size_t len, size_t record)
{
	static uint8_t message[4 + 20000 + 4 + 5];
	size_t all = 4 + len + 4 + 5, put = 0;

	memset(message, 0xff, sizeof(message));
	message[0] = 1;
	message[1] = (uint8_t)(len >> 16);
	message[2] = (uint8_t)(len >> 8);
	message[3] = (uint8_t)len;
	memcpy(message + 4 + len, "\x10\0\0\5", 4);
	for (size_t from = 0; from < all; from += record)
		put += record_put(at + put, 22, message + from,
				  all - from < record ? all - from : record);
	return put;
}

/* limit: TLS_HELLO_BYTES_MAX */
Test(net_tls, a_message_of_a_handshake_has_a_bound_however_it_is_cut)
{
	static uint8_t bytes[1 << 17];
	static const size_t pieces[] = {1, 2, 5, 9, 100, sizeof(bytes)};

	for (size_t record = 1; record <= 16384; record = record * 4 + 1) {
		for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
			size_t len = messages_put(bytes, LIMIT_TLS_HELLO_BYTES_MAX, record);

			cr_expect_null(watch(bytes, len, pieces[i], false), "record %zu, piece %zu",
				       record, pieces[i]);
			len = messages_put(bytes, LIMIT_TLS_HELLO_BYTES_MAX + 1, record);
			cr_expect_not_null(watch(bytes, len, pieces[i], false),
					   "record %zu, piece %zu", record, pieces[i]);
		}
	}
}

Test(net_tls, what_is_announced_is_enough)
{
	static const uint8_t bytes[] = {22, 3, 1, 0x40, 0, 1, 1, 0xff, 0xff};

	cr_expect_null(watch(bytes, sizeof(bytes) - 1, 1, false));
	cr_expect_not_null(watch(bytes, sizeof(bytes), 1, false));
	cr_expect_not_null(watch((const uint8_t *)"GET /", 1, 1, false), "not TLS");
}

/* After a ChangeCipherSpec the records of TLS 1.2 are encrypted, those of 1.3 may be plain. */
Test(net_tls, encrypted_records_are_not_looked_at)
{
	static const uint8_t one = 1, encrypted[] = {9, 0xff, 0xff, 0xff, 7, 7};
	uint8_t bytes[256];
	size_t len = messages_put(bytes, 20, 16384);

	len += record_put(bytes + len, 20, &one, 1);
	len += record_put(bytes + len, 22, encrypted, sizeof(encrypted));
	cr_expect_null(watch(bytes, len, 3, true));
	cr_expect_not_null(watch(bytes, len, 3, false));
}

/* ---- the bound on unfinished handshakes ---- */

static int fd_from(const char *address)
{
	struct sockaddr_in to = {.sin_family = AF_INET}, from = {.sin_family = AF_INET};
	int listening = socket(AF_INET, SOCK_STREAM, 0), fd, accepted;
	socklen_t len = sizeof(to);

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(inet_pton(AF_INET, address, &from.sin_addr), 1);
	cr_assert_eq(bind(listening, (struct sockaddr *)&to, sizeof(to)), 0);
	cr_assert_eq(listen(listening, 1), 0);
	cr_assert_eq(getsockname(listening, (struct sockaddr *)&to, &len), 0);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&from, sizeof(from)), 0);
	cr_assert_eq(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	accepted = accept(listening, NULL, NULL);
	cr_assert_geq(accepted, 0);
	(void)close(listening);
	return accepted;
}

/* limit: HANDSHAKES_MAX */
Test(net_tls, threads_share_the_bound_on_handshakes)
{
	static struct handshake many[LIMIT_SIZE(HANDSHAKES_MAX)], early, late;
	struct net net = {.io_count = 4};
	struct io io = {.net = &net};
	const int loud = fd_from("127.0.0.1"), quiet = fd_from("127.0.0.2");
	const size_t share = LIMIT_SIZE(HANDSHAKES_MAX) / 4;

	cr_assert_eq(handshake_begin(&io, &early, quiet), 0);
	for (size_t i = 0; i + 1 < share; i++)
		cr_assert_eq(handshake_begin(&io, &many[i], loud), 0);
	cr_expect_null(handshake_excess(&io), "at the bound");
	cr_assert_eq(handshake_begin(&io, &late, quiet), 0);
	cr_expect_eq(handshake_excess(&io), &many[0], "the oldest of the address that has most");
	handshake_end(&io, &many[0]);
	cr_expect_null(handshake_excess(&io));
	handshake_end(&io, &many[0]);
	cr_expect_eq(io.handshake_count, share, "it counts once");
	for (size_t i = 1; i + 1 < share; i++)
		handshake_end(&io, &many[i]);
	handshake_end(&io, &early);
	handshake_end(&io, &late);
	cr_expect_null(io.handshakes, "nothing is left");
	(void)close(loud);
	(void)close(quiet);
}

Test(net_tls, addresses_take_turns)
{
	static struct handshake loud[3], quiet;
	struct net net = {.io_count = 1};
	struct io io = {.net = &net};
	const int from_loud = fd_from("127.0.0.1"), from_quiet = fd_from("127.0.0.2");

	cr_assert_eq(handshake_begin(&io, &quiet, from_quiet), 0);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(handshake_begin(&io, &loud[i], from_loud), 0);
		handshake_wait(&io, &loud[i]);
		handshake_wait(&io, &loud[i]);
	}
	handshake_wait(&io, &quiet);
	cr_expect_eq(handshake_turn(&io), &loud[0]);
	cr_expect_eq(handshake_turn(&io), &quiet, "it does not wait for all of the other address");
	handshake_wait(&io, &loud[0]);
	handshake_end(&io, &loud[1]);
	cr_expect_eq(handshake_turn(&io), &loud[2]);
	cr_expect_eq(handshake_turn(&io), &loud[0], "it has waited again");
	cr_expect_null(handshake_turn(&io));
	handshake_wait(&io, &quiet);
	handshake_end(&io, &quiet);
	cr_expect_null(handshake_turn(&io), "what has ended has no turn");
	handshake_end(&io, &loud[0]);
	handshake_end(&io, &loud[2]);
	cr_expect_null(io.handshakes);
	(void)close(from_loud);
	(void)close(from_quiet);
}

/* ---- connections ---- */

static char folder[] = "/tmp/sluice-tls-XXXXXX";
static char certificate_file[64], key_file[64];

static void files_make(void)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *certificate = X509_new();
	FILE *file;

	cr_assert_not_null(mkdtemp(folder));
	(void)snprintf(certificate_file, sizeof(certificate_file), "%s/c.pem", folder);
	(void)snprintf(key_file, sizeof(key_file), "%s/k.pem", folder);
	cr_assert(key != NULL && certificate != NULL);
	cr_assert_eq(X509_set_version(certificate, X509_VERSION_3), 1);
	(void)ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
	(void)X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
	(void)X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
	cr_assert_eq(X509_set_pubkey(certificate, key), 1);
	cr_assert_gt(X509_sign(certificate, key, EVP_sha256()), 0);
	file = fopen(certificate_file, "w");
	cr_assert_eq(PEM_write_X509(file, certificate), 1);
	(void)fclose(file);
	(void)umask(077);
	file = fopen(key_file, "w");
	cr_assert_eq(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
	(void)fclose(file);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

static void files_remove(void)
{
	(void)unlink(certificate_file);
	(void)unlink(key_file);
	(void)rmdir(folder);
}

struct tls_rig {
	struct rig rig;
	struct tls *tls;
	SSL_CTX *context;
	SSL *ssl; /* the client */
	int fd;
	struct conn *conn;
};

/* A protocol that keeps what it gets. */
static struct {
	uint8_t bytes[1 << 16];
	size_t len;
	const char *greeting;
	bool closed;
} seen;

static const char *keep_name(const struct conn *conn)
{
	(void)conn;
	return "keep";
}

static int keep_accept(struct conn *conn)
{
	door_state_set(conn, &seen);
	if (seen.greeting != NULL)
		(void)door_write(conn, &(struct sluice_slice){seen.greeting, strlen(seen.greeting)},
				 1);
	return 0;
}

static long keep_bytes(struct conn *conn, const void *bytes, size_t len)
{
	(void)conn;
	cr_assert_leq(seen.len + len, sizeof(seen.bytes));
	memcpy(seen.bytes + seen.len, bytes, len);
	seen.len += len;
	return (long)len;
}

static void keep_closed(struct conn *conn)
{
	(void)conn;
	seen.closed = true;
}

static const struct protocol_ops keep_protocol = {.name = keep_name,
						  .accept = keep_accept,
						  .bytes = keep_bytes,
						  .closed = keep_closed};

static void tls_rig_open(struct tls_rig *rig)
{
	struct net_listener row = {.protocol = &keep_protocol, .address = "127.0.0.1"};
	struct sockaddr_in addr = {.sin_family = AF_INET};
	struct conn *conn, *next;
	const char *why = "";
	const int on = 1;
	uint16_t port = 0;

	files_make();
	rig_open(&rig->rig);
	cr_assert_eq(tls_create(certificate_file, key_file, &rig->tls, &why), 0, "%s", why);
	row.tls = rig->tls;
	cr_assert_eq(net_listen(rig->rig.net, &row, &port, &why), 0, "%s", why);
	rig->fd = socket(AF_INET, SOCK_STREAM, 0);
	addr.sin_port = htons(port);
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(connect(rig->fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	cr_assert_eq(fcntl(rig->fd, F_SETFL, O_NONBLOCK), 0);
	cr_assert_eq(setsockopt(rig->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)), 0);
	turns(&rig->rig);
	HASH_ITER(hh, rig->rig.net->ios[0].conns, conn, next) {
		if (conn->tls != NULL)
			rig->conn = conn;
	}
	cr_assert_not_null(rig->conn);
	rig->context = SSL_CTX_new(TLS_client_method());
	rig->ssl = SSL_new(rig->context);
	cr_assert_eq(SSL_set_fd(rig->ssl, rig->fd), 1);
}

static void shake(struct tls_rig *rig)
{
	for (int n = 0; n < 100 && SSL_connect(rig->ssl) != 1; n++)
		turn(&rig->rig);
	cr_assert(SSL_is_init_finished(rig->ssl));
	turns(&rig->rig);
}

static void tls_rig_close(struct tls_rig *rig)
{
	SSL_free(rig->ssl);
	SSL_CTX_free(rig->context);
	(void)close(rig->fd);
	rig_close(&rig->rig);
	tls_destroy(rig->tls);
	files_remove();
}

/* A step takes as long as hundreds of frames: the sockets are served in between. */
Test(net_tls, a_round_continues_one_of_many_handshakes)
{
	enum {
		MANY = 20,
		ROUNDS = 2
	}; /* of one turn of the loop: its own, and that of the timer */
	struct sockaddr_in to;
	socklen_t len = sizeof(to);
	struct tls_rig rig = {0};
	SSL *ssl[MANY];
	int fds[MANY], answered = 0, before;
	char byte;

	tls_rig_open(&rig);
	shake(&rig);
	cr_assert_eq(getpeername(rig.fd, (struct sockaddr *)&to, &len), 0);
	for (int i = 0; i < MANY; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM, 0);
		cr_assert_eq(connect(fds[i], (struct sockaddr *)&to, sizeof(to)), 0);
		cr_assert_eq(fcntl(fds[i], F_SETFL, O_NONBLOCK), 0);
	}
	turns(&rig.rig);
	for (int i = 0; i < MANY; i++) {
		ssl[i] = SSL_new(rig.context);
		cr_assert_eq(SSL_set_fd(ssl[i], fds[i]), 1);
		cr_assert_neq(SSL_connect(ssl[i]), 1);
	}
	for (int n = 0; n < 100 && answered < MANY; n++) {
		before = answered;
		(void)event_base_loop(rig.rig.net->ios[0].base, EVLOOP_ONCE | EVLOOP_NONBLOCK);
		answered = 0;
		for (int i = 0; i < MANY; i++)
			answered += recv(fds[i], &byte, 1, MSG_PEEK) == 1;
		cr_expect_leq(answered - before, ROUNDS, "%d at once", answered - before);
	}
	cr_expect_eq(answered, MANY, "%d have had their turn", answered);
	for (int n = 0; n < 100 && SSL_connect(ssl[MANY - 1]) != 1; n++)
		turn(&rig.rig);
	cr_expect(SSL_is_init_finished(ssl[MANY - 1]));
	for (int i = 0; i < MANY; i++) {
		SSL_free(ssl[i]);
		(void)close(fds[i]);
	}
	turns(&rig.rig);
	cr_expect_eq(rig.rig.net->ios[0].handshake_count, 0u, "those that left are not counted");
	cr_expect_null(rig.rig.net->ios[0].handshake_turns);
	tls_rig_close(&rig);
}

static void put(struct tls_rig *rig, const void *bytes, int len)
{
	cr_assert_eq(SSL_write(rig->ssl, bytes, len), len);
}

Test(net_tls, output_before_the_end_of_the_handshake_is_sent_after_it)
{
	struct tls_rig rig = {0};
	char got[16] = "";

	seen.greeting = "welcome";
	tls_rig_open(&rig);
	cr_expect(rig.conn->handshaking);
	cr_expect(!rig.conn->writing, "the loop does not turn for a socket that is writable");
	cr_expect_eq(conn_unsent(rig.conn), 7u);
	shake(&rig);
	cr_expect(!rig.conn->handshaking);
	cr_expect_eq(rig.rig.net->ios[0].handshake_count, 0u);
	cr_expect_eq(SSL_read(rig.ssl, got, sizeof(got)), 7);
	cr_expect_str_eq(got, "welcome");
	cr_expect_eq(conn_unsent(rig.conn), 0u);
	tls_rig_close(&rig);
}

Test(net_tls, what_a_small_room_leaves_is_pending)
{
	struct tls_rig rig = {0};
	uint8_t a[10], b[20], c[1000];
	struct iovec rooms[2] = {{a, sizeof(a)}, {b, sizeof(b)}};
	struct iovec large = {c, sizeof(c)};

	tls_rig_open(&rig);
	shake(&rig);
	put(&rig, "0123456789abcdefghijklmnopqrstuvwxyz", 36);
	cr_expect_eq(wire_tls.read(rig.conn, rooms, 2), 30);
	cr_expect_eq(memcmp(a, "0123456789", 10), 0);
	cr_expect_eq(memcmp(b, "abcdefghijklmnopqrst", 20), 0);
	cr_expect(wire_tls.pending(rig.conn));
	cr_expect_eq(wire_tls.read(rig.conn, &large, 1), 6);
	cr_expect_eq(memcmp(c, "uvwxyz", 6), 0);
	cr_expect(!wire_tls.pending(rig.conn));
	cr_expect_eq(wire_tls.read(rig.conn, &large, 1), -1);
	cr_expect_eq(errno, EAGAIN);
	tls_rig_close(&rig);
}

/* The socket is not readable any more, so only the loop can know of them. */
Test(net_tls, pending_bytes_are_read_when_reading_goes_on)
{
	struct tls_rig rig = {0};
	uint8_t a[10];
	struct iovec room = {a, sizeof(a)};

	tls_rig_open(&rig);
	shake(&rig);
	conn_reading_set(rig.conn, false);
	(void)event_del(rig.conn->readable);
	put(&rig, "0123456789abcdef", 16);
	cr_expect_eq(wire_tls.read(rig.conn, &room, 1), 10);
	cr_expect(wire_tls.pending(rig.conn));
	conn_flow(rig.conn);
	turns(&rig.rig);
	cr_expect_eq(seen.len, 6u, "%zu", seen.len);
	cr_expect_eq(memcmp(seen.bytes, "abcdef", 6), 0);
	tls_rig_close(&rig);
}

/* The second try of a write that the socket did not take comes from other memory, because more
 * output has joined it. */
Test(net_tls, output_survives_a_socket_that_takes_little, .timeout = 60)
{
	enum { PIECE = 100, MORE = 100000, BYTES = 1 << 24 };
	static uint8_t out[BYTES], in[BYTES];
	struct tls_rig rig = {0};
	const int small = 8192;
	size_t at = 0, written = 0, got;

	for (size_t i = 0; i < BYTES; i++)
		out[i] = (uint8_t)(i * 2654435761u >> 13);
	tls_rig_open(&rig);
	shake(&rig);
	cr_assert_eq(setsockopt(rig.conn->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	for (int round = 0; round < 3; round++) {
		while (conn_unsent(rig.conn) == 0 && written < BYTES - MORE) {
			conn_write(rig.conn, out + written, PIECE);
			written += PIECE;
			conns_flush(rig.conn->io);
		}
		cr_assert_eq(conn_unsent(rig.conn), (size_t)PIECE, "the socket is full");
		conn_write(rig.conn, out + written, MORE);
		written += MORE;
		for (int n = 0; n < 1000000 && at < written; n++) {
			turn(&rig.rig);
			ERR_clear_error();
			if (SSL_read_ex(rig.ssl, in + at, BYTES - at, &got) == 1)
				at += got;
		}
		cr_assert_eq(at, written, "%zu of %zu", at, written);
	}
	cr_expect_eq(memcmp(in, out, written), 0);
	cr_expect(!rig.conn->dead && rig.conn->unsent_answers == 0 && !rig.conn->writing);
	tls_rig_close(&rig);
}

/* A part of it is sent from where it lies; the rest, of which the socket refused a record, comes
 * from the copy. */
Test(net_tls, large_parts_survive_a_socket_that_takes_little, .timeout = 60)
{
	enum { BYTES = 1 << 20 };
	static uint8_t out[BYTES], in[BYTES + 1];
	const struct sluice_slice parts[2] = {{out, 77777}, {out + 77777, BYTES - 77777}};
	struct tls_rig rig = {0};
	const int small = 8192;
	size_t at = 0, got;

	for (size_t i = 0; i < BYTES; i++)
		out[i] = (uint8_t)(i * 2654435761u >> 13);
	tls_rig_open(&rig);
	shake(&rig);
	cr_assert_eq(setsockopt(rig.conn->fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
	(void)door_write(rig.conn, parts, 2);
	cr_expect(conn_unsent(rig.conn) > 0 && conn_unsent(rig.conn) < BYTES);
	conns_flush(rig.conn->io);
	for (int n = 0; n < 1000000 && at < BYTES; n++) {
		turn(&rig.rig);
		ERR_clear_error();
		if (SSL_read_ex(rig.ssl, in + at, sizeof(in) - at, &got) == 1)
			at += got;
	}
	cr_assert_eq(at, (size_t)BYTES, "%zu", at);
	cr_expect_eq(memcmp(in, out, BYTES), 0);
	tls_rig_close(&rig);
}

/* A peer may end TLS and leave its socket open. */
Test(net_tls, bytes_before_the_end_are_given_and_the_end_is_noticed)
{
	struct tls_rig rig = {0};

	tls_rig_open(&rig);
	shake(&rig);
	put(&rig, "last", 4);
	(void)SSL_shutdown(rig.ssl);
	turns(&rig.rig);
	cr_expect_eq(seen.len, 4u);
	cr_expect_eq(memcmp(seen.bytes, "last", 4), 0);
	cr_expect(seen.closed);
	tls_rig_close(&rig);
}

Test(net_tls, the_broker_ends_tls_before_it_closes)
{
	struct tls_rig rig = {0};
	char got[16];

	tls_rig_open(&rig);
	shake(&rig);
	conn_write(rig.conn, "bye", 3);
	conn_close_soon(rig.conn, "the test ends it");
	conns_flush(rig.conn->io);
	turns(&rig.rig);
	cr_expect_eq(SSL_read(rig.ssl, got, sizeof(got)), 3);
	cr_expect_eq(SSL_read(rig.ssl, got, sizeof(got)), 0);
	cr_expect_eq(SSL_get_error(rig.ssl, 0), SSL_ERROR_ZERO_RETURN);
	tls_rig_close(&rig);
}

Test(net_tls, bytes_that_are_not_whole_end_the_connection)
{
	struct tls_rig rig = {0};
	static const uint8_t forged[] = {23, 3,	 3,  0,	 32, 1,	 2,  3,	 4,  5,	 6,  7,	 8,
					 9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
					 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32};

	tls_rig_open(&rig);
	shake(&rig);
	put(&rig, "good", 4);
	cr_assert_eq(write(rig.fd, forged, sizeof(forged)), (ssize_t)sizeof(forged));
	turns(&rig.rig);
	cr_expect_eq(seen.len, 4u, "what came before is given");
	cr_expect(seen.closed);
	tls_rig_close(&rig);
}
