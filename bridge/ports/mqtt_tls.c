#include "mqtt_tls.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mqtt_tls {
    SSL_CTX *files; /* never connects: it holds the trust store, the certificate with its chain, and the key */
};

struct mqtt_tls_session {
    SSL_CTX *context;
    char *server_name; /* for SNI; NULL if the host is an address, which RFC 6066 keeps out of it */
    char trouble[256]; /* the first one */
};

/* The first error of the queue is the cause, those above it say who passed it on. */
static const char *openssl_reason(void)
{
    unsigned long code = ERR_peek_error();
    const char *reason = ERR_SYSTEM_ERROR(code) ? strerror(ERR_GET_REASON(code)) : ERR_reason_error_string(code);
    return reason ? reason : "no reason given";
}

static bool is_given(const char *file)
{
    return file && *file;
}

/* OpenSSL would ask on the terminal, which a daemon has none of. */
static int refuse_passphrase(char *buffer, int size, int writing, void *ctx)
{
    (void)buffer, (void)size, (void)writing, (void)ctx;
    return -1;
}

static enum err load_trust(SSL_CTX *files, const char *ca_file, struct error *why)
{
    if (!is_given(ca_file)) {
        return SSL_CTX_set_default_verify_paths(files) == 1
                   ? ERR_NONE
                   : error_set(why, ERR_CONFIG, "cannot read the system's trust store: %s", openssl_reason());
    }
    return SSL_CTX_load_verify_file(files, ca_file) == 1
               ? ERR_NONE
               : error_set(why, ERR_CONFIG, "cannot read CA certificates from %s: %s", ca_file, openssl_reason());
}

static enum err load_certificate(SSL_CTX *files, const struct mqtt_tls_options *options, struct error *why)
{
    const char *certificate = options->certificate_file, *key = options->key_file;
    if (is_given(certificate) != is_given(key)) {
        return error_set(why, ERR_CONFIG, "a client certificate needs both certificate_file and key_file");
    }
    if (!is_given(certificate)) {
        return ERR_NONE;
    }
    SSL_CTX_set_default_passwd_cb(files, refuse_passphrase);
    if (SSL_CTX_use_certificate_chain_file(files, certificate) != 1) {
        return error_set(why, ERR_CONFIG, "cannot read a certificate from %s: %s", certificate, openssl_reason());
    }
    if (SSL_CTX_use_PrivateKey_file(files, key, SSL_FILETYPE_PEM) != 1) {
        return error_set(why, ERR_CONFIG,
                         "cannot use the private key in %s (it must be PEM, not encrypted, and belong to %s): %s", key,
                         certificate, openssl_reason());
    }
    return ERR_NONE;
}

enum err mqtt_tls_open(struct mqtt_tls **out, const struct mqtt_tls_options *options, struct error *why)
{
    ERR_clear_error();
    struct mqtt_tls *tls = calloc(1, sizeof *tls);
    if (!tls || !(tls->files = SSL_CTX_new(TLS_client_method()))) {
        free(tls);
        return error_set(why, ERR_MEMORY, "no memory for TLS");
    }
    enum err err = load_trust(tls->files, options->ca_file, why);
    if (err == ERR_NONE) {
        err = load_certificate(tls->files, options, why);
    }
    ERR_clear_error();
    if (err != ERR_NONE) {
        mqtt_tls_close(&tls);
        return err;
    }
    *out = tls;
    return ERR_NONE;
}

void mqtt_tls_close(struct mqtt_tls **tls)
{
    if (*tls) {
        SSL_CTX_free((*tls)->files);
        free(*tls);
        *tls = NULL;
    }
}

static void note_trouble(struct mqtt_tls_session *session, const char *what, const char *cause)
{
    if (!session->trouble[0]) {
        snprintf(session->trouble, sizeof session->trouble, "%s%s%s", what, cause ? ": " : "", cause ? cause : "");
    }
}

/* libmosquitto takes a lost connection in the handshake for "not finished yet", and tells of other failures in a log line
 * only; the cause is at hand here. A handshake that merely waits leaves the error queue empty and the BIO ready to retry. */
static void note_failed_handshake(const SSL *ssl, struct mqtt_tls_session *session)
{
    int error = errno;
    unsigned long code = ERR_peek_error();
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_CERTIFICATE_VERIFY_FAILED) {
        note_trouble(session, "certificate verify failed", X509_verify_cert_error_string(SSL_get_verify_result(ssl)));
    } else if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        note_trouble(session, "the broker closed the connection", NULL);
    } else if (code) {
        note_trouble(session, openssl_reason(), NULL);
    } else if (!BIO_should_retry(SSL_get_rbio(ssl))) {
        note_trouble(session,
                     error == ECONNRESET ? "the broker reset the connection"
                     : error             ? strerror(error)
                                         : "the broker closed the connection",
                     NULL);
    }
}

/* OpenSSL's info callback: the one moment between SSL_new and the ClientHello that the library leaves to us, and the one place
 * that sees alerts. */
static void observe(const SSL *ssl, int where, int value)
{
    struct mqtt_tls_session *session = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    if (where & SSL_CB_HANDSHAKE_START) {
        /* The callback's const is for show: the object is the library's own, and it has put the address in here. */
        SSL_set_tlsext_host_name((SSL *)(uintptr_t)ssl, session->server_name);
    } else if (where == SSL_CB_READ_ALERT && value >> 8 == SSL3_AL_FATAL) {
        /* SSL_alert_desc_string_long does not know those of TLS 1.3; the reasons of errors do. */
        const char *reason = ERR_reason_error_string(ERR_PACK(ERR_LIB_SSL, 0, SSL_AD_REASON_OFFSET + (value & 0xff)));
        note_trouble(session, "the broker ended TLS", reason ? reason : SSL_alert_desc_string_long(value));
    } else if (where == SSL_CB_CONNECT_EXIT && value <= 0) {
        note_failed_handshake(ssl, session);
    }
}

static bool expect_name(struct mqtt_tls_session *session, const char *host)
{
    X509_VERIFY_PARAM *verify = SSL_CTX_get0_param(session->context);
    if (X509_VERIFY_PARAM_set1_ip_asc(verify, host) == 1) {
        return true;
    }
    session->server_name = strdup(host);
    if (!session->server_name) {
        return false;
    }
    /* "broker.example." is the same host, but neither certificates nor SNI know the dot. */
    size_t size = strlen(host);
    if (size > 1 && host[size - 1] == '.') {
        session->server_name[size - 1] = 0;
    }
    X509_VERIFY_PARAM_set_hostflags(verify, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(verify, session->server_name, 0) == 1;
}

static bool take_certificate(SSL_CTX *context, SSL_CTX *files)
{
    X509 *certificate = SSL_CTX_get0_certificate(files);
    STACK_OF(X509) *chain = NULL;
    if (!certificate) {
        return true;
    }
    SSL_CTX_get0_chain_certs(files, &chain);
    return SSL_CTX_use_cert_and_key(context, certificate, SSL_CTX_get0_privatekey(files), chain, 1) == 1;
}

static bool set_up(struct mqtt_tls_session *session, struct mqtt_tls *tls, const char *host)
{
    session->context = SSL_CTX_new(TLS_client_method());
    if (!session->context || !expect_name(session, host) || !take_certificate(session->context, tls->files) ||
        SSL_CTX_set_min_proto_version(session->context, TLS1_2_VERSION) != 1) {
        return false;
    }
    SSL_CTX_set1_cert_store(session->context, SSL_CTX_get_cert_store(tls->files));
    SSL_CTX_set_verify(session->context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_options(session->context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_mode(session->context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(session->context, 1);
    SSL_CTX_set_app_data(session->context, session);
    SSL_CTX_set_info_callback(session->context, observe);
    return true;
}

enum err mqtt_tls_session_open(struct mqtt_tls_session **out, struct mqtt_tls *tls, const char *host, struct error *why)
{
    ERR_clear_error();
    struct mqtt_tls_session *session = calloc(1, sizeof *session);
    if (!session || !set_up(session, tls, host)) {
        mqtt_tls_session_close(&session);
        return error_set(why, ERR_MEMORY, "no memory for TLS to %s", host);
    }
    *out = session;
    return ERR_NONE;
}

void mqtt_tls_session_close(struct mqtt_tls_session **session)
{
    if (*session) {
        SSL_CTX_free((*session)->context);
        free((*session)->server_name);
        free(*session);
        *session = NULL;
    }
}

void *mqtt_tls_session_context(struct mqtt_tls_session *session)
{
    return session->context;
}

void mqtt_tls_session_restart(struct mqtt_tls_session *session)
{
    session->trouble[0] = 0;
}

const char *mqtt_tls_session_trouble(const struct mqtt_tls_session *session)
{
    return session->trouble[0] ? session->trouble : NULL;
}

bool mqtt_tls_is_established(const void *ssl)
{
    return ssl && SSL_is_init_finished(ssl);
}

bool mqtt_tls_wants_write(const void *ssl)
{
    return ssl && SSL_want_write((const SSL *)ssl);
}

/* What kept a read or a write from being done. */
static enum mqtt_io io_trouble(SSL *ssl, int done, int *error)
{
    int code = errno;
    unsigned long reason = ERR_peek_error();
    switch (SSL_get_error(ssl, done)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return MQTT_IO_MORE;
    case SSL_ERROR_ZERO_RETURN:
        return MQTT_IO_CLOSED;
    case SSL_ERROR_SYSCALL:
        *error = code;
        return code ? MQTT_IO_FAILED : MQTT_IO_CLOSED;
    default:
        if (ERR_GET_REASON(reason) == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
            return MQTT_IO_CLOSED;
        }
        note_trouble(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)), openssl_reason(), NULL);
        return MQTT_IO_FAILED;
    }
}

enum mqtt_io mqtt_tls_write(void *ssl, struct slice bytes, size_t *taken, int *error)
{
    *error = errno = 0;
    *taken = 0;
    ERR_clear_error();
    int done = SSL_write_ex(ssl, bytes.data, bytes.size, taken);
    return done == 1 ? MQTT_IO_DONE : io_trouble(ssl, done, error);
}

/* Brokers send each PUBACK in a record of its own, and OpenSSL gives one record at a time of the many that it has read. An end
 * that comes with bytes is told by the next call. */
enum mqtt_io mqtt_tls_read(void *ssl, char *to, size_t room, size_t *size, int *error)
{
    *error = errno = 0;
    *size = 0;
    ERR_clear_error();
    while (*size < room) {
        size_t taken;
        int done = SSL_read_ex(ssl, to + *size, room - *size, &taken);
        if (done != 1) {
            enum mqtt_io io = io_trouble(ssl, done, error);
            return io == MQTT_IO_MORE ? MQTT_IO_DONE : io == MQTT_IO_CLOSED && *size > 0 ? MQTT_IO_MORE : io;
        }
        *size += taken;
        if (!SSL_has_pending(ssl)) {
            return MQTT_IO_DONE;
        }
    }
    return MQTT_IO_MORE;
}

void mqtt_tls_clear_errors(void)
{
    ERR_clear_error();
}
