/* mqtt_tls: the TLS side of an MQTT connection; internal to the port, between mqtt_client.c and OpenSSL.
 *
 * libmosquitto makes the SSL object itself and is given a numeric address, so neither the name to verify nor the name to send
 * (SNI) can come from it. Each connection therefore gets an SSL_CTX of its own, with the broker's name in it, built from what
 * mqtt_tls_open has read once. Pointers to OpenSSL's objects travel as void *. */
#ifndef MEOWBRIDGE_MQTT_TLS_H
#define MEOWBRIDGE_MQTT_TLS_H

#include "meowbridge/err.h"
#include "meowbridge/mqtt_client.h"
#include "mqtt_stream.h"

#include <stdbool.h>

struct mqtt_tls_session;

/* For one connection to host, a name or an address in figures. May be closed only after the SSL objects made of it are freed. */
MUST_CHECK enum err mqtt_tls_session_open(struct mqtt_tls_session **out, struct mqtt_tls *tls, const char *host,
                                          struct error *why);
void mqtt_tls_session_close(struct mqtt_tls_session **session);
void *mqtt_tls_session_context(struct mqtt_tls_session *session); /* an SSL_CTX *, still the session's */
/* Before another connection is tried with it. */
void mqtt_tls_session_restart(struct mqtt_tls_session *session);
/* Why the handshake failed, or what alert the broker sent; NULL if neither happened. */
const char *mqtt_tls_session_trouble(const struct mqtt_tls_session *session);

/* What an SSL * (NULL gives false) is at. */
bool mqtt_tls_is_established(const void *ssl);
bool mqtt_tls_wants_write(const void *ssl);

/* What mqtt_stream.h says of sending and receiving, for an established session. */
enum mqtt_io mqtt_tls_write(void *ssl, struct slice bytes, size_t *taken, int *error);
enum mqtt_io mqtt_tls_read(void *ssl, char *to, size_t room, size_t *size, int *error);

/* To be called before a library works with an SSL object: what stands in the thread's error queue is mistaken for its result. */
void mqtt_tls_clear_errors(void);

#endif
