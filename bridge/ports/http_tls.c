#include "http_tls.h"

#include "http_socket.h"

#include <dlfcn.h>
#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CHAIN = 16, MAX_KEY_ID = 64 };

struct http_tls_credentials {
    atomic_uint holders;
    gnutls_pcert_st chain[MAX_CHAIN];
    unsigned chain_length;
    gnutls_privkey_t key;
};

struct http_tls {
    pthread_mutex_t mutex;
    struct http_tls_credentials *current;
};

const char http_tls_priorities[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE";

static void credentials_free(struct http_tls_credentials *credentials)
{
    for (unsigned i = 0; i < credentials->chain_length; i++) {
        gnutls_pcert_deinit(&credentials->chain[i]);
    }
    if (credentials->key) {
        gnutls_privkey_deinit(credentials->key);
    }
    free(credentials);
}

void http_tls_release(struct http_tls_credentials *credentials)
{
    if (credentials && atomic_fetch_sub(&credentials->holders, 1) == 1) {
        credentials_free(credentials);
    }
}

struct http_tls_credentials *http_tls_acquire(struct http_tls *tls)
{
    pthread_mutex_lock(&tls->mutex);
    struct http_tls_credentials *credentials = tls->current;
    atomic_fetch_add(&credentials->holders, 1);
    pthread_mutex_unlock(&tls->mutex);
    return credentials;
}

/* --- reading them --- */

static enum err read_file(const char *path, const char *what, gnutls_datum_t *out, struct error *why)
{
    errno = 0;
    int code = gnutls_load_file(path, out);
    if (code == 0) {
        return ERR_NONE;
    }
    return error_set(why, code == GNUTLS_E_MEMORY_ERROR ? ERR_MEMORY : ERR_CONFIG, "cannot read the %s file %s: %s", what, path,
                     errno ? strerror(errno) : gnutls_strerror(code));
}

static enum err read_chain(struct http_tls_credentials *credentials, const char *path, struct error *why)
{
    gnutls_datum_t pem;
    if (read_file(path, "certificate", &pem, why)) {
        return why ? why->code : ERR_CONFIG;
    }
    unsigned length = MAX_CHAIN;
    int code = gnutls_pcert_list_import_x509_raw(credentials->chain, &length, &pem, GNUTLS_X509_FMT_PEM,
                                                 GNUTLS_X509_CRT_LIST_IMPORT_FAIL_IF_EXCEED);
    gnutls_free(pem.data);
    if (code < 0) {
        return error_set(why, ERR_CONFIG,
                         "the certificate file %s cannot be used: %s (PEM certificates are expected, at most %d)", path,
                         gnutls_strerror(code), MAX_CHAIN);
    }
    credentials->chain_length = length;
    return ERR_NONE;
}

static enum err read_key(struct http_tls_credentials *credentials, const char *path, struct error *why)
{
    gnutls_datum_t pem;
    if (read_file(path, "key", &pem, why)) {
        return why ? why->code : ERR_CONFIG;
    }
    int code = gnutls_privkey_init(&credentials->key);
    if (code == 0) {
        code = gnutls_privkey_import_x509_raw(credentials->key, &pem, GNUTLS_X509_FMT_PEM, NULL, 0);
    }
    gnutls_memset(pem.data, 0, pem.size);
    gnutls_free(pem.data);
    if (code == GNUTLS_E_DECRYPTION_FAILED) {
        return error_set(why, ERR_CONFIG, "the key file %s is encrypted; a key without a passphrase is expected", path);
    }
    if (code < 0) {
        return error_set(why, ERR_CONFIG, "the key file %s cannot be used: %s (one PEM key is expected)", path,
                         gnutls_strerror(code));
    }
    return ERR_NONE;
}

static enum err check_match(struct http_tls_credentials *credentials, const char *certificate_file, const char *key_file,
                            struct error *why)
{
    unsigned char ids[2][MAX_KEY_ID];
    size_t sizes[2] = {MAX_KEY_ID, MAX_KEY_ID};
    gnutls_pubkey_t of_key;
    if (gnutls_pubkey_init(&of_key) < 0) {
        return error_set(why, ERR_MEMORY, "no memory for the key file %s", key_file);
    }
    bool read = gnutls_pubkey_import_privkey(of_key, credentials->key, 0, 0) == 0 &&
                gnutls_pubkey_get_key_id(of_key, 0, ids[0], &sizes[0]) == 0 &&
                gnutls_pubkey_get_key_id(credentials->chain[0].pubkey, 0, ids[1], &sizes[1]) == 0;
    gnutls_pubkey_deinit(of_key);
    if (!read || sizes[0] != sizes[1] || memcmp(ids[0], ids[1], sizes[0]) != 0) {
        return error_set(why, ERR_CONFIG,
                         "the key file %s does not belong to the certificate file %s (whose first must be the server's own)",
                         key_file, certificate_file);
    }
    return ERR_NONE;
}

static enum err credentials_read(struct http_tls_credentials **out, const char *certificate_file, const char *key_file,
                                 struct error *why)
{
    struct error ignored = {0};
    why = why ? why : &ignored;
    struct http_tls_credentials *credentials = calloc(1, sizeof *credentials);
    if (!credentials) {
        return error_set(why, ERR_MEMORY, "no memory for the certificate file %s", certificate_file);
    }
    atomic_init(&credentials->holders, 1);
    enum err err = read_chain(credentials, certificate_file, why);
    err = err ? err : read_key(credentials, key_file, why);
    err = err ? err : check_match(credentials, certificate_file, key_file, why);
    if (err) {
        credentials_free(credentials);
        return err;
    }
    *out = credentials;
    return ERR_NONE;
}

/* --- what stands behind gnutls_record_recv here --- */

typedef ssize_t record_recv(gnutls_session_t session, void *data, size_t size);

static record_recv *found;

static void find_next(void)
{
    *(void **)&found = dlsym(RTLD_NEXT, "gnutls_record_recv");
}

static record_recv *next(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, find_next);
    return found;
}

ssize_t gnutls_record_recv(gnutls_session_t session, void *data, size_t size)
{
    ssize_t received = next()(session, data, size);
    if (received > 0) {
        http_socket_took(gnutls_transport_get_int(session), (struct slice){data, (size_t)received});
    }
    return received;
}

/* --- opening --- */

enum err http_tls_open(struct http_tls **out, const char *certificate_file, const char *key_file, struct error *why)
{
    if (!next()) {
        return error_set(why, ERR_LIBRARY, "GnuTLS is not the one that is known here");
    }
    struct http_tls *tls = calloc(1, sizeof *tls);
    if (!tls) {
        return error_set(why, ERR_MEMORY, "no memory for TLS");
    }
    enum err err = credentials_read(&tls->current, certificate_file, key_file, why);
    if (err) {
        free(tls);
        return err;
    }
    pthread_mutex_init(&tls->mutex, NULL);
    *out = tls;
    return ERR_NONE;
}

enum err http_tls_reload(struct http_tls *tls, const char *certificate_file, const char *key_file, struct error *why)
{
    struct http_tls_credentials *fresh = NULL;
    enum err err = credentials_read(&fresh, certificate_file, key_file, why);
    if (err) {
        return err;
    }
    pthread_mutex_lock(&tls->mutex);
    struct http_tls_credentials *old = tls->current;
    tls->current = fresh;
    pthread_mutex_unlock(&tls->mutex);
    http_tls_release(old);
    return ERR_NONE;
}

void http_tls_close(struct http_tls **tls)
{
    if (*tls) {
        http_tls_release((*tls)->current);
        pthread_mutex_destroy(&(*tls)->mutex);
        free(*tls);
        *tls = NULL;
    }
}

/* --- on a session --- */

static int give_certificate(gnutls_session_t session, const gnutls_datum_t *ca_names, int ca_count,
                            const gnutls_pk_algorithm_t *algorithms, int algorithm_count, gnutls_pcert_st **chain,
                            unsigned *chain_length, gnutls_privkey_t *key)
{
    (void)ca_names, (void)ca_count, (void)algorithms, (void)algorithm_count;
    const struct http_tls_credentials *credentials = http_tls_credentials_of(gnutls_session_get_ptr(session));
    *chain = (gnutls_pcert_st *)credentials->chain; /* GnuTLS reads it only */
    *chain_length = credentials->chain_length;
    *key = credentials->key;
    return 0;
}

void (*http_tls_certificate_callback(void))(void)
{
    gnutls_certificate_retrieve_function2 *callback = give_certificate;
    return (void (*)(void))callback;
}

void http_tls_send_last(void *session, struct slice data)
{
    if (gnutls_record_send(session, data.data, data.size) > 0) {
        gnutls_bye(session, GNUTLS_SHUT_WR);
    }
}
