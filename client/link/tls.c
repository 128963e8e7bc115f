/* SPDX-License-Identifier: Apache-2.0
 *
 * See tls.h. A certificate is always verified: its chain, its time, its name.
 *
 * OpenSSL reaches the socket by a BIO of our own: its socket BIO would raise SIGPIPE in the program
 * that uses this library.
 */
#include "client/link/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "client/base/memory.h"

enum { RECORD_BYTES_MAX = 16384 };

/* By what a change of a file, or a replacement, shows. All 0: there is none. */
struct file_stamp {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec changed;
};

struct link_trust {
	SSL_CTX *context;
	struct file_stamp stamps[2]; /* of what was read, from before that */
};

struct link_tls {
	SSL *ssl;
	int fd;
	bool done, broken;
};

/* ---- the socket ---- */

static int socket_write(BIO *bio, const char *bytes, int len)
{
	const struct link_tls *tls = BIO_get_data(bio);
	ssize_t sent = send(tls->fd, bytes, (size_t)len, MSG_NOSIGNAL);

	BIO_clear_retry_flags(bio);
	if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		BIO_set_retry_write(bio);
	return (int)sent;
}

static int socket_read(BIO *bio, char *bytes, int len)
{
	const struct link_tls *tls = BIO_get_data(bio);
	ssize_t got = recv(tls->fd, bytes, (size_t)len, 0);

	BIO_clear_retry_flags(bio);
	if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		BIO_set_retry_read(bio);
	if (got == 0)
		BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
	return (int)got;
}

static long socket_ctrl(BIO *bio, int what, long number, void *pointer)
{
	(void)number;
	(void)pointer;
	if (what == BIO_CTRL_EOF)
		return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0;
	return what == BIO_CTRL_FLUSH;
}

static BIO_METHOD *socket_method;

/* For the life of the process: a library has no end that is known. */
static void socket_method_make(void)
{
	BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice");

	if (method != NULL && BIO_meth_set_write(method, socket_write) == 1 &&
	    BIO_meth_set_read(method, socket_read) == 1 &&
	    BIO_meth_set_ctrl(method, socket_ctrl) == 1)
		socket_method = method;
	else
		BIO_meth_free(method);
}

static bool socket_bind(struct link_tls *tls)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	(void)pthread_once(&once, socket_method_make);
	bio = socket_method != NULL ? BIO_new(socket_method) : NULL;
	if (bio == NULL)
		return false;
	BIO_set_data(bio, tls);
	BIO_set_init(bio, 1);
	SSL_set_bio(tls->ssl, bio, bio);
	return true;
}

/* ---- begin ---- */

/* The name is looked for among the SANs only. A numeric address is compared as one. */
static bool name_set(SSL *ssl, const char *host)
{
	X509_VERIFY_PARAM *param = SSL_get0_param(ssl);
	unsigned char address[sizeof(struct in6_addr)];

	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT |
						       X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	if (inet_pton(AF_INET, host, address) == 1)
		return X509_VERIFY_PARAM_set1_ip(param, address, 4) == 1;
	if (inet_pton(AF_INET6, host, address) == 1)
		return X509_VERIFY_PARAM_set1_ip(param, address, 16) == 1;
	return X509_VERIFY_PARAM_set1_host(param, host, 0) == 1 &&
	       SSL_set_tlsext_host_name(ssl, host) == 1;
}

static SSL_CTX *context_new(void)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());

	if (context == NULL)
		return NULL;
	SSL_CTX_set_security_level(context, 2);
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
	(void)SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
						   SSL_OP_IGNORE_UNEXPECTED_EOF);
	(void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	(void)SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE |
						SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
						SSL_MODE_RELEASE_BUFFERS);
	if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1)
		return context;
	SSL_CTX_free(context);
	return NULL;
}

static void stamp_take(const char *path, struct file_stamp *ret)
{
	struct stat st;

	memset(ret, 0, sizeof(*ret));
	if (path[0] == 0 || stat(path, &st) != 0)
		return;
	ret->device = st.st_dev;
	ret->inode = st.st_ino;
	ret->size = st.st_size;
	ret->changed = st.st_ctim;
}

static bool stamp_same(const struct file_stamp *a, const struct file_stamp *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
	       a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

/* Where OpenSSL looks. */
static const char *system_path(const char *variable, const char *fallback)
{
	const char *path = getenv(variable);

	return path != NULL ? path : fallback;
}

static void stamps_take(const char *ca_file, struct file_stamp stamps[2])
{
	bool is_system = ca_file[0] == 0;

	stamp_take(is_system ? system_path(X509_get_default_cert_file_env(),
					   X509_get_default_cert_file())
			     : ca_file,
		   &stamps[0]);
	stamp_take(is_system ? system_path(X509_get_default_cert_dir_env(),
					   X509_get_default_cert_dir())
			     : "",
		   &stamps[1]);
}

static bool certificates_read(SSL_CTX *context, const char *ca_file)
{
	return ca_file[0] != 0 ? SSL_CTX_load_verify_file(context, ca_file) == 1
			       : SSL_CTX_set_default_verify_paths(context) == 1;
}

/* Reads the certificates that are trusted, unless those that were read last are the present ones.
 * If they cannot be read now, those that were read last stay. */
static int trust_update(struct link_trust *trust, const char *ca_file)
{
	struct file_stamp stamps[2];
	SSL_CTX *context;
	int rc = 0;

	stamps_take(ca_file, stamps);
	if (trust->context != NULL && stamp_same(&trust->stamps[0], &stamps[0]) &&
	    stamp_same(&trust->stamps[1], &stamps[1]))
		return 0;
	context = context_new();
	if (context == NULL)
		rc = SLUICE_E_NOMEM;
	else if (!certificates_read(context, ca_file))
		rc = SLUICE_E_INVAL;
	if (rc != 0) {
		SSL_CTX_free(context);
		return trust->context != NULL ? 0 : rc;
	}
	SSL_CTX_free(trust->context); /* a connection keeps its own */
	trust->context = context;
	memcpy(trust->stamps, stamps, sizeof(stamps));
	return 0;
}

void link_trust_free(struct link_trust *trust)
{
	if (trust == NULL)
		return;
	SSL_CTX_free(trust->context);
	mem_free(trust);
}

int link_tls_begin(int fd, const char *host, const char *ca_file, struct link_trust **io_trust,
		   struct link_tls **ret, char *why, size_t why_bytes)
{
	struct link_tls *tls = mem_alloc(sizeof(*tls));
	int rc = SLUICE_E_NOMEM;

	(void)snprintf(why, why_bytes, "out of memory");
	if (*io_trust == NULL)
		*io_trust = mem_alloc(sizeof(**io_trust));
	if (tls == NULL || *io_trust == NULL) {
		mem_free(tls);
		return rc;
	}
	tls->fd = fd;
	ERR_clear_error();
	rc = trust_update(*io_trust, ca_file);
	if (rc == SLUICE_E_INVAL)
		(void)snprintf(why, why_bytes, "tls_ca %.200s has no certificate that can be read",
			       ca_file);
	if (rc == 0) {
		tls->ssl = SSL_new((*io_trust)->context);
		if (tls->ssl == NULL || !socket_bind(tls) || !name_set(tls->ssl, host))
			rc = SLUICE_E_NOMEM;
	}
	ERR_clear_error();
	if (rc != 0) {
		link_tls_end(tls);
		return rc;
	}
	SSL_set_connect_state(tls->ssl);
	*ret = tls;
	return 0;
}

/* ---- handshake ---- */

static void failed(struct link_tls *tls, char *why, size_t why_bytes)
{
	unsigned long error = ERR_peek_error();
	const char *reason = ERR_reason_error_string(error);
	long verified = SSL_get_verify_result(tls->ssl);

	if (verified != X509_V_OK)
		(void)snprintf(why, why_bytes, "TLS: the broker's certificate is refused: %s",
			       X509_verify_cert_error_string(verified));
	else if (ERR_GET_REASON(error) == SSL_R_WRONG_VERSION_NUMBER)
		(void)snprintf(why, why_bytes, "TLS: the broker does not speak TLS on this port");
	else
		(void)snprintf(why, why_bytes, "TLS: %s",
			       reason != NULL ? reason : "the broker closed the connection");
}

int link_tls_handshake(struct link_tls *tls, bool *ret_writes, char *why, size_t why_bytes)
{
	int rc, error;

	ERR_clear_error();
	rc = SSL_do_handshake(tls->ssl);
	if (rc == 1) {
		tls->done = true;
		return 0;
	}
	error = SSL_get_error(tls->ssl, rc);
	if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
		*ret_writes = error == SSL_ERROR_WANT_WRITE;
		return SLUICE_E_BUSY;
	}
	tls->broken = true;
	failed(tls, why, why_bytes);
	ERR_clear_error();
	return SLUICE_E_DISCONNECTED;
}

/* ---- bytes ---- */

/* After a call that moved no bytes: as recv() and send(). */
static ssize_t nothing(struct link_tls *tls, int rc)
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

static bool may_call(const struct link_tls *tls)
{
	errno = ECONNRESET;
	return !tls->broken;
}

ssize_t link_tls_send(struct link_tls *tls, const void *bytes, size_t len)
{
	size_t sent = 0;
	int rc;

	if (!may_call(tls))
		return -1;
	ERR_clear_error();
	rc = SSL_write_ex(tls->ssl, bytes, len < RECORD_BYTES_MAX ? len : RECORD_BYTES_MAX, &sent);
	if (rc == 1)
		return (ssize_t)sent;
	if (nothing(tls, rc) == 0)
		errno = ECONNRESET;
	return -1;
}

/* Stops when the rest of the room is smaller than a record: then OpenSSL keeps no bytes that the
 * socket would not announce. */
ssize_t link_tls_recv(struct link_tls *tls, void *bytes, size_t len)
{
	size_t at = 0;

	if (!may_call(tls))
		return -1;
	while (at == 0 || len - at >= RECORD_BYTES_MAX) {
		size_t got = 0;
		int rc;

		ERR_clear_error();
		rc = SSL_read_ex(tls->ssl, (uint8_t *)bytes + at, len - at, &got);
		if (rc != 1) {
			ssize_t none = nothing(tls, rc);

			if (at == 0)
				return none;
			/* The end was read behind the bytes: the socket announces it once more. */
			if (none == 0 || tls->broken)
				(void)shutdown(tls->fd, SHUT_RD);
			break;
		}
		at += got;
	}
	return (ssize_t)at;
}

void link_tls_end(struct link_tls *tls)
{
	if (tls == NULL)
		return;
	if (tls->done && !tls->broken) {
		ERR_clear_error();
		(void)SSL_shutdown(tls->ssl);
		ERR_clear_error();
	}
	SSL_free(tls->ssl);
	mem_free(tls);
}
