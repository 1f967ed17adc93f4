/* The signature headers of a request. Input: timestamp, signature, host, path, body. */
#include "fuzz.h"

#include "meowbridge/signature.h"

static void check_timestamp(struct slice text)
{
    int64_t ms = -1;
    bool good = text.size == 13;
    for (size_t i = 0; i < text.size; i++) {
        good = good && text.data[i] >= '0' && text.data[i] <= '9';
    }
    ASSERT(signature_parse_timestamp(text, &ms) == good);
    if (good) {
        ASSERT(ms >= 0 && ms <= INT64_C(9999999999999));
        ASSERT(signature_is_fresh(ms, ms) && signature_is_fresh(ms, ms + SIGNATURE_MAX_SKEW_MS));
        ASSERT(!signature_is_fresh(ms, ms + SIGNATURE_MAX_SKEW_MS + 1) &&
               !signature_is_fresh(ms, ms - SIGNATURE_MAX_SKEW_MS - 1));
        ASSERT(!signature_is_fresh(ms, INT64_MIN) && !signature_is_fresh(ms, INT64_MAX));
    }
}

static void check_domain(struct slice host)
{
    struct slice domain = signature_domain(host);
    struct slice cut = {host.data + domain.size, host.size - domain.size};
    ASSERT(domain.data == host.data && domain.size <= host.size);
    ASSERT(cut.size == 0 || slice_equal(cut, SLICE(":80")) || slice_equal(cut, SLICE(":443")));
}

/* What is signed verifies; what differs in one bit of anything does not. */
static void check_request(const struct signed_request *request, struct slice claimed)
{
    static struct signer *signer, *other;
    uint8_t mac[SIGNATURE_BYTES], from_hex[SIGNATURE_BYTES];
    char hex[SIGNATURE_HEX_DIGITS];
    if (!signer) {
        ASSERT(signer_open(&signer, SLICE("meow-secret"), NULL) == ERR_NONE);
        ASSERT(signer_open(&other, SLICE("meow-secreu"), NULL) == ERR_NONE);
    }
    ASSERT(signer_sign(signer, request, mac) && signer_verify(signer, request, mac) && !signer_verify(other, request, mac));
    hex_encode(mac, sizeof mac, hex);
    ASSERT(hex_decode((struct slice){hex, sizeof hex}, from_hex, sizeof from_hex) && memcmp(mac, from_hex, sizeof mac) == 0);
    if (hex_decode(claimed, from_hex, sizeof from_hex)) {
        ASSERT(signer_verify(signer, request, from_hex) == slice_equal_nocase(claimed, (struct slice){hex, sizeof hex}));
    }
    struct signed_request changed = *request;
    changed.timestamp = SLICE("");
    ASSERT(request->timestamp.size == 0 || !signer_verify(signer, &changed, mac));
    mac[claimed.size % SIGNATURE_BYTES] ^= 1;
    ASSERT(!signer_verify(signer, request, mac));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    struct slice timestamp = fuzz_field(&in), claimed = fuzz_field(&in), host = fuzz_field(&in), path = fuzz_field(&in);
    struct slice body = fuzz_rest(&in);
    check_timestamp(timestamp);
    check_domain(host);
    const struct signed_request request = {SLICE("POST"), signature_domain(host), path, body, timestamp};
    check_request(&request, claimed);
    fuzz_end(&in);
    return 0;
}
