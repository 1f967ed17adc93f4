/* signature: MeowFlow's request signature (meowflow.md, "The signature").
 *
 * String to sign, byte for byte:  {METHOD} {domain}{path} {raw body}{timestamp}
 * Signature: lower-case hex of HMAC-SHA256 over it, keyed with the App Secret. */
#ifndef MEOWBRIDGE_SIGNATURE_H
#define MEOWBRIDGE_SIGNATURE_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stdint.h>

#define SIGNATURE_BYTES 32
#define SIGNATURE_HEX_DIGITS 64
#define SIGNATURE_MAX_SKEW_MS (5 * 60 * 1000)
#define SIGNATURE_TIMESTAMP_HEADER "X-Meowflow-Timestamp"
#define SIGNATURE_HEADER "X-Meowflow-Signature"

/* What is signed, borrowed. domain: the host as signature_domain gives it. path: as it stands in the request line, up to '?'.
 * timestamp: the header's value, 13 digits. */
struct signed_request {
    struct slice method, domain, path, body, timestamp;
};

/* One secret, keyed once, so that a signature costs no key schedule. Owned by one thread at a time. */
struct signer;

/* ERR_INVALID for an empty secret: an empty key must never verify anything. The secret is copied into the key schedule only. */
MUST_CHECK enum err signer_open(struct signer **out, struct slice secret, struct error *why);
void signer_close(struct signer **signer); /* wipes; accepts NULL */

/* False only if OpenSSL fails (no memory); then mac is all zero and nothing may be trusted. */
MUST_CHECK bool signer_sign(struct signer *signer, const struct signed_request *request, uint8_t mac[SIGNATURE_BYTES]);
/* True if mac is this request's signature under this secret. Constant time in mac. */
MUST_CHECK bool signer_verify(struct signer *signer, const struct signed_request *request, const uint8_t mac[SIGNATURE_BYTES]);

/* The signed domain of a Host header or of a URL's authority: ":80" and ":443" are dropped, any other port is kept. The
 * slice points into host. "[::1]:443" gives "[::1]". */
struct slice signature_domain(struct slice host);

/* True if text is 13 digits (returned as milliseconds since 1970) and nothing else. */
bool signature_parse_timestamp(struct slice text, int64_t *timestamp_ms);
/* True if |now - timestamp| <= SIGNATURE_MAX_SKEW_MS. */
bool signature_is_fresh(int64_t timestamp_ms, int64_t now_ms);

/* SHA-256, for whoever needs a digest. */
MUST_CHECK bool signature_sha256(const struct slice *parts, size_t count, uint8_t digest[32]);
/* Overwrites secrets in a way that the compiler keeps. */
void signature_wipe(void *memory, size_t size);

#endif
