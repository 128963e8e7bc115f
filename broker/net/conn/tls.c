/* SPDX-License-Identifier: Apache-2.0
 *
 * TLS 1.2 and 1.3 on a connection's socket, with the thread's buffers as they are. No
 * renegotiation, no compression, no resumption: connections here are long, and a resumed session
 * would not be judged again.
 *
 * A handshake continues when the socket is ready and its turn has come. Until it is finished
 * nothing is read or written, and the connection is counted (handshakes.h).
 */
#include "broker/net/conn/tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "broker/net/conn/handshakes.h"
#include "broker/net/conn/hello_check.h"
#include "broker/net/conn/internal.h"
#include "broker/net/conn/state.h"
#include "broker/net/conn/wire.h"
#include "broker/util/invariant.h"
#include "broker/util/log.h"
#include "protocol/limits.h"

enum { RECORD_BYTES_MAX = 16384, CERTIFICATES_BYTES_MAX = 16384 };

struct tls {
	SSL_CTX *context;
};

/* Of one connection. */
struct tls_end {
	struct handshake handshake;
	SSL *ssl;
	struct hello_check check;
	const char *refused; /* why the bytes of the handshake were; NULL: they were not */
	bool broken;	     /* after an error: OpenSSL must not be called again */
};

/* ---- certificate and key ---- */

static _Thread_local char why_text[512];

static int refuse(int code, const char *file, const char *what, const char **ret_why)
{
	(void)snprintf(why_text, sizeof(why_text), "%.200s: %.200s", file, what);
	*ret_why = why_text;
	return code;
}

/* Of OpenSSL's errors one of the system is the cause, else the last. */
static int refuse_ssl(const char *file, const char *what, const char **ret_why)
{
	unsigned long first = ERR_peek_error();
	const char *reason = ERR_SYSTEM_ERROR(first)
				     ? strerror(ERR_GET_REASON(first))
				     : ERR_reason_error_string(ERR_peek_last_error());

	ERR_clear_error();
	return refuse(SLUICE_E_INVAL, file, reason != NULL ? reason : what, ret_why);
}

/* Not asked for at a terminal. */
static int no_password(char *buffer, int size, int writing, void *user)
{
	(void)buffer;
	(void)size;
	(void)writing;
	(void)user;
	return -1;
}

static int key_load(SSL_CTX *context, const char *file, const char **ret_why)
{
	FILE *opened = fopen(file, "re");
	struct stat st;
	EVP_PKEY *key;
	int rc = 0;

	if (opened == NULL || fstat(fileno(opened), &st) != 0) {
		rc = refuse(SLUICE_E_INVAL, file, strerror(errno), ret_why);
		if (opened != NULL)
			(void)fclose(opened);
		return rc;
	}
	/* A group may read it (such as ssl-cert): somebody chose who is in there. */
	if ((st.st_mode & (S_IWGRP | S_IRWXO)) != 0) {
		(void)fclose(opened);
		return refuse(SLUICE_E_DENIED, file,
			      "other users can read the key, or change it; expected mode 0600 or "
			      "0640",
			      ret_why);
	}
	key = PEM_read_PrivateKey(opened, NULL, no_password, NULL);
	(void)fclose(opened);
	if (key == NULL)
		return refuse_ssl(file, "it is not a private key in PEM, without a password",
				  ret_why);
	if (SSL_CTX_use_PrivateKey(context, key) != 1)
		rc = refuse_ssl(file, "the key does not fit the certificate", ret_why);
	EVP_PKEY_free(key);
	return rc;
}

static SSL_CTX *context_new(void)
{
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());

	if (context == NULL)
		return NULL;
	SSL_CTX_set_security_level(context, 2);
	(void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
						   SSL_OP_NO_TICKET | SSL_OP_IGNORE_UNEXPECTED_EOF |
						   SSL_OP_CIPHER_SERVER_PREFERENCE);
	(void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
						SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
						SSL_MODE_RELEASE_BUFFERS);
	(void)SSL_CTX_set_max_cert_list(context, CERTIFICATES_BYTES_MAX);
	if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
	    SSL_CTX_set_num_tickets(context, 0) == 1)
		return context;
	SSL_CTX_free(context);
	return NULL;
}

/* No reason not to start: the clock may be wrong. */
static void validity_check(SSL_CTX *context, const char *file)
{
	const X509 *certificate = SSL_CTX_get0_certificate(context);
	const char *reason = NULL;

	if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0)
		reason = "it has expired";
	else if (X509_cmp_current_time(X509_get0_notBefore(certificate)) > 0)
		reason = "it is not valid yet";
	if (reason != NULL)
		log_line(LOG_LEVEL_WARN,
			 log_id("net.certificate", "clients refuse the certificate of the TLS "
						   "addresses"),
			 log_str("file", file), log_str("reason", reason));
}

int tls_create(const char *certificate_file, const char *key_file, struct tls **ret,
	       const char **ret_why)
{
	struct tls *tls = calloc(1, sizeof(*tls));
	int rc = 0;

	*ret_why = "out of memory";
	if (tls != NULL)
		tls->context = context_new();
	if (tls == NULL || tls->context == NULL) {
		free(tls);
		return SLUICE_E_NOMEM;
	}
	ERR_clear_error();
	if (SSL_CTX_use_certificate_chain_file(tls->context, certificate_file) != 1)
		rc = refuse_ssl(certificate_file, "it has no certificate in PEM", ret_why);
	if (rc == 0)
		rc = key_load(tls->context, key_file, ret_why);
	if (rc == 0 && SSL_CTX_check_private_key(tls->context) != 1)
		rc = refuse_ssl(key_file, "the key does not fit the certificate", ret_why);
	if (rc != 0) {
		tls_destroy(tls);
		return rc;
	}
	validity_check(tls->context, certificate_file);
	*ret = tls;
	return 0;
}

void tls_destroy(struct tls *tls)
{
	if (tls == NULL)
		return;
	SSL_CTX_free(tls->context);
	free(tls);
}

/* ---- the handshake ---- */

static void handshake_failed(struct conn *conn)
{
	static struct log_rate rate = {.per_second = 10};
	struct tls_end *tls = conn->tls;
	unsigned long error = ERR_peek_error();
	const char *reason = ERR_reason_error_string(error);
	char peer[PEER_TEXT_BYTES];
	uint64_t left_out;

	if (tls->refused != NULL)
		reason = tls->refused;
	else if (reason == NULL || ERR_SYSTEM_ERROR(error))
		reason = "the peer ended it";
	tls->broken = true;
	if (log_may(&rate, &left_out))
		log_line(LOG_LEVEL_INFO, log_id("net.handshake", "a TLS handshake failed"),
			 log_u64("thread", (uint64_t)(conn->io - conn->io->net->ios)),
			 log_u64("conn", conn->id), log_str("peer", conn_peer(conn->fd, peer)),
			 log_str("reason", reason), log_u64("left_out", left_out));
	ERR_clear_error();
	handshake_end(conn->io, &tls->handshake);
	conn_kill(conn, "its TLS handshake failed");
}

/* What OpenSSL reads of the handshake, before it looks at it. */
static long on_bio(BIO *bio, int what, const char *bytes, size_t len, int argi, long argl, int ret,
		   size_t *processed)
{
	struct tls_end *tls = (struct tls_end *)(void *)BIO_get_callback_arg(bio);

	(void)len;
	(void)argi;
	(void)argl;
	if (what != (BIO_CB_READ | BIO_CB_RETURN) || ret <= 0)
		return ret;
	tls->refused = hello_check(&tls->check, (const uint8_t *)bytes, *processed,
				   SSL_version(tls->ssl) == TLS1_2_VERSION);
	return tls->refused != NULL ? -1 : ret;
}

/* Frees what OpenSSL holds. Not from inside a call of it. */
static void end_free(struct conn *conn)
{
	struct tls_end *tls = conn->tls;

	if (tls == NULL)
		return;
	handshake_end(conn->io, &tls->handshake);
	SSL_free(tls->ssl);
	free(tls);
	conn->tls = NULL;
	conn->handshaking = conn->wire_waits = false;
}

static void log_excess(const struct conn *conn)
{
	static struct log_rate rate = {.per_second = 1};
	char peer[PEER_TEXT_BYTES];
	uint64_t left_out;

	if (log_may(&rate, &left_out))
		log_line(LOG_LEVEL_WARN,
			 log_id("net.handshakes",
				"too many TLS handshakes are unfinished; the oldest one of the "
				"address that has most is ended"),
			 log_str("peer", conn_peer(conn->fd, peer)), log_u64("left_out", left_out));
}

static int tls_open(struct conn *conn)
{
	struct tls_end *tls = calloc(1, sizeof(*tls));
	struct handshake *excess;

	if (tls == NULL)
		return SLUICE_E_NOMEM;
	conn->tls = tls;
	tls->handshake.conn = conn;
	tls->ssl = SSL_new(conn->listening->tls->context);
	if (tls->ssl == NULL || SSL_set_fd(tls->ssl, conn->fd) != 1 ||
	    handshake_begin(conn->io, &tls->handshake, conn->fd) != 0) {
		end_free(conn);
		ERR_clear_error();
		return SLUICE_E_NOMEM;
	}
	SSL_set_accept_state(tls->ssl);
	BIO_set_callback_arg(SSL_get_rbio(tls->ssl), (char *)tls);
	BIO_set_callback_ex(SSL_get_rbio(tls->ssl), on_bio);
	conn->handshaking = true;
	excess = handshake_excess(conn->io);
	if (excess != NULL) {
		struct conn *victim = excess->conn;

		invariant(victim != conn, "the newest handshake of %u is the oldest",
			  conn->io->handshake_count);
		log_excess(victim);
		conn_kill(victim, "too many TLS handshakes are unfinished");
		end_free(victim);
	}
	return 0;
}

/* Whether it is finished. If not: errno is EAGAIN, or the connection is dead. */
static bool handshake_step(struct conn *conn)
{
	struct tls_end *tls = conn->tls;
	int rc, error;

	ERR_clear_error();
	conn->wire_waits = false;
	rc = SSL_do_handshake(tls->ssl);
	if (rc == 1) {
		conn->handshaking = false;
		handshake_end(conn->io, &tls->handshake);
		BIO_set_callback_ex(SSL_get_rbio(tls->ssl), NULL);
		return true;
	}
	error = SSL_get_error(tls->ssl, rc);
	errno = EAGAIN;
	if (error == SSL_ERROR_WANT_READ)
		return false;
	conn->wire_waits = error == SSL_ERROR_WANT_WRITE;
	if (error != SSL_ERROR_WANT_WRITE) {
		handshake_failed(conn);
		errno = EPROTO;
	}
	return false;
}

/* ---- bytes ---- */

static bool may_call(struct conn *conn)
{
	errno = ECONNRESET;
	if (conn->tls == NULL || conn->tls->broken)
		return false;
	if (!conn->handshaking)
		return true;
	if (conn->shake_turn)
		return handshake_step(conn);
	/* Until its turn the loop does not look at its socket: conn_io.c adds it again. */
	handshake_wait(conn->io, &conn->tls->handshake);
	(void)event_del(conn->readable);
	conn->wire_waits = false;
	io_again(conn->io);
	errno = EAGAIN;
	return false;
}

/* After a call that gave or took no bytes: sets errno; 0 if it is the peer's end, else -1. */
static ssize_t nothing(struct tls_end *tls, int rc)
{
	int error = SSL_get_error(tls->ssl, rc);

	errno = EAGAIN;
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
		return -1;
	if (error == SSL_ERROR_ZERO_RETURN)
		return 0;
	tls->broken = true;
	ERR_clear_error();
	errno = ECONNRESET;
	return -1;
}

/* Fills a room as far as bytes are there; what stays in the last room is less than a record, so
 * that OpenSSL keeps no bytes of one, if the room was larger. */
static ssize_t room_fill(struct tls_end *tls, const struct iovec *room, bool is_last, bool is_first)
{
	size_t at = 0;

	while (at < room->iov_len) {
		size_t got = 0, left = room->iov_len - at;
		int rc;

		if (is_last && (at > 0 || !is_first) && left < RECORD_BYTES_MAX &&
		    SSL_pending(tls->ssl) == 0)
			break;
		ERR_clear_error();
		rc = SSL_read_ex(tls->ssl, (uint8_t *)room->iov_base + at, left, &got);
		if (rc != 1) {
			ssize_t none = nothing(tls, rc);

			return at > 0 ? (ssize_t)at : none;
		}
		at += got;
	}
	return (ssize_t)at;
}

static ssize_t tls_read(struct conn *conn, struct iovec *rooms, int count)
{
	struct tls_end *tls = conn->tls;
	ssize_t got = 0, more = 0;

	if (!may_call(conn))
		return -1;
	for (int i = 0; i < count; i++) {
		more = room_fill(tls, &rooms[i], i + 1 == count, got == 0);
		got += more > 0 ? more : 0;
		if (more < (ssize_t)rooms[i].iov_len)
			break;
	}
	/* The peer's end may have been read behind the bytes. The socket, which would not announce
	 * it again, announces its own. */
	if (got > 0 && (tls->broken || (SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN) != 0))
		(void)shutdown(conn->fd, SHUT_RD);
	return got > 0 ? got : more;
}

/* The next bytes of the pieces, as many as a record holds: where they lie, or a copy if several
 * pieces are small. */
static const uint8_t *record_next(const struct iovec *pieces, int count, size_t *ret_len)
{
	static _Thread_local uint8_t copy[RECORD_BYTES_MAX];
	size_t len = 0;

	if (count == 1 || pieces[0].iov_len >= RECORD_BYTES_MAX) {
		len = pieces[0].iov_len;
		*ret_len = len < RECORD_BYTES_MAX ? len : RECORD_BYTES_MAX;
		return pieces[0].iov_base;
	}
	for (int i = 0; i < count && len < RECORD_BYTES_MAX; i++) {
		size_t room = RECORD_BYTES_MAX - len,
		       more = pieces[i].iov_len < room ? pieces[i].iov_len : room;

		memcpy(copy + len, pieces[i].iov_base, more);
		len += more;
	}
	*ret_len = len;
	return copy;
}

static ssize_t tls_write(struct conn *conn, struct iovec *pieces, int count)
{
	ssize_t sent = 0;

	if (!may_call(conn))
		return -1;
	while (count > 0) {
		size_t len, put = 0;
		const uint8_t *bytes = record_next(pieces, count, &len);
		int rc;

		if (len == 0)
			break;
		ERR_clear_error();
		rc = SSL_write_ex(conn->tls->ssl, bytes, len, &put);
		if (rc != 1) {
			if (nothing(conn->tls, rc) == 0)
				errno = ECONNRESET;
			if (sent > 0 && errno == EAGAIN)
				break;
			return -1;
		}
		sent += (ssize_t)put;
		for (; count > 0 && put >= pieces[0].iov_len; pieces++, count--)
			put -= pieces[0].iov_len;
		if (count > 0) {
			pieces[0].iov_base = (uint8_t *)pieces[0].iov_base + put;
			pieces[0].iov_len -= put;
		}
	}
	return sent;
}

static bool tls_pending(const struct conn *conn)
{
	return conn->tls != NULL && !conn->tls->broken && !conn->handshaking &&
	       SSL_pending(conn->tls->ssl) > 0;
}

static void tls_end(struct conn *conn)
{
	if (conn->tls != NULL && !conn->tls->broken && !conn->handshaking) {
		ERR_clear_error();
		(void)SSL_shutdown(conn->tls->ssl); /* does not wait for the peer's */
		ERR_clear_error();
	}
	(void)shutdown(conn->fd, SHUT_WR);
}

static void tls_close(struct conn *conn)
{
	if (conn->tls == NULL)
		return;
	tls_end(conn);
	end_free(conn);
}

const struct wire_ops wire_tls = {
	.name = "tls",
	.open = tls_open,
	.read = tls_read,
	.write = tls_write,
	.pending = tls_pending,
	.end = tls_end,
	.close = tls_close,
};
