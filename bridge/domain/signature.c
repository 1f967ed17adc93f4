#include "meowbridge/signature.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct signer {
    EVP_MAC_CTX *keyed;
};

/* Fetching an algorithm costs more than a signature and takes a lock that all threads share, so it is done once. Both stay
 * NULL if OpenSSL cannot offer them; then no signer opens. Freed by the end of the process. */
static pthread_once_t fetched = PTHREAD_ONCE_INIT;
static EVP_MAC *hmac;
static EVP_MD *sha256;
/* One a thread, made at its first digest: a new one each time costs as much as the digest. */
static pthread_key_t digest_contexts;
static bool keeps_contexts;

static void free_context(void *context)
{
    EVP_MD_CTX_free(context);
}

static void fetch(void)
{
    hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    keeps_contexts = pthread_key_create(&digest_contexts, free_context) == 0;
}

/* This thread's, or NULL. */
static EVP_MD_CTX *digest_context(void)
{
    pthread_once(&fetched, fetch);
    EVP_MD_CTX *context = keeps_contexts ? pthread_getspecific(digest_contexts) : NULL;
    if (!context && keeps_contexts && (context = EVP_MD_CTX_new()) && pthread_setspecific(digest_contexts, context) != 0) {
        EVP_MD_CTX_free(context);
        context = NULL;
    }
    return context;
}

enum err signer_open(struct signer **out, struct slice secret, struct error *why)
{
    *out = NULL;
    if (secret.size == 0) {
        return error_set(why, ERR_INVALID, "the secret is empty");
    }
    pthread_once(&fetched, fetch);
    if (!hmac) {
        return error_set(why, ERR_LIBRARY, "OpenSSL offers no HMAC");
    }
    struct signer *signer = calloc(1, sizeof *signer);
    if (!signer || !(signer->keyed = EVP_MAC_CTX_new(hmac))) {
        signer_close(&signer);
        return error_set(why, ERR_MEMORY, "no memory for a signer");
    }
    char digest[] = "SHA256";
    OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
    if (EVP_MAC_init(signer->keyed, (const unsigned char *)secret.data, secret.size, parameters) != 1) {
        signer_close(&signer);
        return error_set(why, ERR_LIBRARY, "OpenSSL refuses HMAC-SHA256");
    }
    *out = signer;
    return ERR_NONE;
}

void signer_close(struct signer **signer)
{
    if (*signer) {
        EVP_MAC_CTX_free((*signer)->keyed); /* wipes the key schedule */
        free(*signer);
        *signer = NULL;
    }
}

static bool update(EVP_MAC_CTX *keyed, struct slice piece)
{
    return piece.size == 0 || EVP_MAC_update(keyed, (const unsigned char *)piece.data, piece.size) == 1;
}

/* What is short is put together first: an update costs more than the bytes of a host or a path. */
static bool update_all(EVP_MAC_CTX *keyed, const struct slice *pieces, size_t count)
{
    char joined[256];
    size_t size = 0;
    bool good = true;
    for (size_t i = 0; good && i < count; i++) {
        if (pieces[i].size > sizeof joined - size) {
            good = update(keyed, (struct slice){joined, size}) && update(keyed, pieces[i]);
            size = 0;
        } else if (pieces[i].size > 0) {
            memcpy(joined + size, pieces[i].data, pieces[i].size);
            size += pieces[i].size;
        }
    }
    return good && update(keyed, (struct slice){joined, size});
}

bool signer_sign(struct signer *signer, const struct signed_request *request, uint8_t mac[SIGNATURE_BYTES])
{
    const struct slice pieces[] = {request->method, SLICE(" "),    request->domain,   request->path,
                                   SLICE(" "),      request->body, request->timestamp};
    /* Without a key, init starts again from the schedule of signer_open. */
    bool good = EVP_MAC_init(signer->keyed, NULL, 0, NULL) == 1;
    good = good && update_all(signer->keyed, pieces, sizeof pieces / sizeof pieces[0]);
    size_t size = 0;
    good = good && EVP_MAC_final(signer->keyed, mac, &size, SIGNATURE_BYTES) == 1 && size == SIGNATURE_BYTES;
    if (!good) {
        memset(mac, 0, SIGNATURE_BYTES);
    }
    return good;
}

bool signer_verify(struct signer *signer, const struct signed_request *request, const uint8_t mac[SIGNATURE_BYTES])
{
    uint8_t right[SIGNATURE_BYTES];
    bool good = signer_sign(signer, request, right) && CRYPTO_memcmp(right, mac, SIGNATURE_BYTES) == 0;
    /* What is on the stack of a refused request would be a signature that verifies. */
    signature_wipe(right, sizeof right);
    return good;
}

static bool is_host_without_port(struct slice host)
{
    bool bracketed = host.size >= 2 && host.data[0] == '[' && host.data[host.size - 1] == ']';
    return bracketed || host.size == 0 || !memchr(host.data, ':', host.size);
}

struct slice signature_domain(struct slice host)
{
    static const char *const unsigned_ports[] = {":80", ":443"};
    for (size_t i = 0; i < sizeof unsigned_ports / sizeof unsigned_ports[0]; i++) {
        struct slice port = slice_of(unsigned_ports[i]);
        if (host.size < port.size || memcmp(host.data + host.size - port.size, port.data, port.size) != 0) {
            continue;
        }
        /* An IPv6 address without brackets ("fe80::80") has no port, only something that looks like one. */
        struct slice rest = {host.data, host.size - port.size};
        return is_host_without_port(rest) ? rest : host;
    }
    return host;
}

bool signature_parse_timestamp(struct slice text, int64_t *timestamp_ms)
{
    uint64_t value;
    if (text.size != 13 || !slice_to_u64(text, &value)) {
        return false;
    }
    *timestamp_ms = (int64_t)value;
    return true;
}

bool signature_is_fresh(int64_t timestamp_ms, int64_t now_ms)
{
    int64_t age_ms;
    return !__builtin_sub_overflow(now_ms, timestamp_ms, &age_ms) && age_ms >= -SIGNATURE_MAX_SKEW_MS &&
           age_ms <= SIGNATURE_MAX_SKEW_MS;
}

bool signature_sha256(const struct slice *parts, size_t count, uint8_t digest[32])
{
    EVP_MD_CTX *context = digest_context();
    bool good = context && sha256 && EVP_DigestInit_ex2(context, sha256, NULL) == 1;
    for (size_t i = 0; good && i < count; i++) {
        good = parts[i].size == 0 || EVP_DigestUpdate(context, parts[i].data, parts[i].size) == 1;
    }
    good = good && EVP_DigestFinal_ex(context, digest, NULL) == 1;
    if (!good) {
        memset(digest, 0, 32);
    }
    return good;
}

void signature_wipe(void *memory, size_t size)
{
    OPENSSL_cleanse(memory, size);
}
