/* http_tls: internal to the HTTP server. The server's certificate and key, exchangeable while connections live. All that
 * knows GnuTLS is behind it, and its gnutls_record_recv stands before GnuTLS's own: what libmicrohttpd receives by it,
 * http_socket_took is told of (http_socket.h).
 *
 * Each connection holds the credentials that stood when it came (http_tls_acquire), so a reload changes nothing under a
 * handshake; the last holder's release frees them. */
#ifndef MEOWBRIDGE_HTTP_TLS_H
#define MEOWBRIDGE_HTTP_TLS_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

struct http_tls;
struct http_tls_credentials;

extern const char http_tls_priorities[]; /* TLS 1.2 and 1.3 */

/* ERR_CONFIG names the file at fault; ERR_MEMORY; ERR_LIBRARY. */
MUST_CHECK enum err http_tls_open(struct http_tls **out, const char *certificate_file, const char *key_file, struct error *why);
void http_tls_close(struct http_tls **tls); /* accepts NULL */
/* Any thread. On error the old ones stay. */
MUST_CHECK enum err http_tls_reload(struct http_tls *tls, const char *certificate_file, const char *key_file,
                                    struct error *why);

struct http_tls_credentials *http_tls_acquire(struct http_tls *tls); /* any thread */
void http_tls_release(struct http_tls_credentials *credentials);     /* any thread; accepts NULL */

/* For MHD_OPTION_HTTPS_CERT_CALLBACK. It has no argument of ours, so it asks http_tls_credentials_of. */
void (*http_tls_certificate_callback(void))(void);
/* Provided by http_server.c: those of a connection, from libmicrohttpd's pointer, which is GnuTLS's session pointer. */
const struct http_tls_credentials *http_tls_credentials_of(void *mhd_connection);

/* The last words on a session of libmicrohttpd's: sends what fits, then close_notify. Errors do not matter any more. */
void http_tls_send_last(void *session, struct slice data);

#endif
