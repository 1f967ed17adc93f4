#include "test.h"

#include "meowbridge/signature.h"

#include <cjson/cJSON.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

/* OpenSSL's functions stand in a shared library, so these take their place, and fail on demand. */
int EVP_MAC_init(void *ctx, const unsigned char *key, size_t size, const void *parameters);
int EVP_MAC_update(void *ctx, const unsigned char *data, size_t size);
int EVP_MAC_final(void *ctx, unsigned char *out, size_t *size, size_t room);
int EVP_DigestUpdate(void *ctx, const void *data, size_t size);

static enum { NOTHING, INIT, UPDATE, FINAL, SHORT_FINAL, DIGEST_UPDATE } failing;

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    assert_non_null(function);
    return function;
}

int EVP_MAC_init(void *ctx, const unsigned char *key, size_t size, const void *parameters)
{
    int (*call)(void *, const unsigned char *, size_t, const void *) = real("EVP_MAC_init");
    return failing == INIT ? 0 : call(ctx, key, size, parameters);
}

int EVP_MAC_update(void *ctx, const unsigned char *data, size_t size)
{
    int (*call)(void *, const unsigned char *, size_t) = real("EVP_MAC_update");
    return failing == UPDATE ? 0 : call(ctx, data, size);
}

int EVP_MAC_final(void *ctx, unsigned char *out, size_t *size, size_t room)
{
    int (*call)(void *, unsigned char *, size_t *, size_t) = real("EVP_MAC_final");
    int good = call(ctx, out, size, room);
    *size -= failing == SHORT_FINAL;
    return failing == FINAL ? 0 : good;
}

int EVP_DigestUpdate(void *ctx, const void *data, size_t size)
{
    int (*call)(void *, const void *, size_t) = real("EVP_DigestUpdate");
    return failing == DIGEST_UPDATE ? 0 : call(ctx, data, size);
}

struct vector {
    struct slice secret, host;
    struct signed_request request;
    uint8_t mac[SIGNATURE_BYTES];
};

static cJSON *read_vectors(void)
{
    FILE *file = fopen(TEST_SOURCE_DIR "/tests/vectors/signature.json", "rb");
    assert_non_null(file);
    static char text[65536];
    size_t size = fread(text, 1, sizeof text - 1, file);
    assert_int_equal(fclose(file), 0);
    cJSON *root = cJSON_ParseWithLength(text, size);
    assert_non_null(root);
    return root;
}

static struct slice member(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    assert_non_null(text);
    return slice_of(text);
}

static struct vector read_vector(const cJSON *object)
{
    struct vector v = {.secret = member(object, "secret"), .host = member(object, "host")};
    v.request = (struct signed_request){.method = member(object, "method"),
                                        .domain = signature_domain(v.host),
                                        .path = member(object, "path"),
                                        .body = member(object, "body"),
                                        .timestamp = member(object, "timestamp")};
    assert_true(hex_decode(member(object, "signature"), v.mac, sizeof v.mac));
    return v;
}

static struct signer *open_signer(struct slice secret)
{
    struct signer *signer;
    struct error why;
    assert_int_equal(signer_open(&signer, secret, &why), ERR_NONE);
    return signer;
}

static void each_vector(void (*check)(const struct vector *))
{
    cJSON *root = read_vectors();
    const cJSON *object;
    int count = 0;
    cJSON_ArrayForEach(object, cJSON_GetObjectItemCaseSensitive(root, "cases"))
    {
        struct vector v = read_vector(object);
        check(&v);
        count++;
    }
    assert_int_equal(count, 11);
    cJSON_Delete(root);
}

static void check_signed(const struct vector *v)
{
    struct signer *signer = open_signer(v->secret);
    uint8_t mac[SIGNATURE_BYTES];
    for (int i = 0; i < 3; i++) { /* a signer is used again and again */
        assert_true(signer_sign(signer, &v->request, mac));
        assert_memory_equal(mac, v->mac, sizeof mac);
        assert_true(signer_verify(signer, &v->request, v->mac));
    }
    signer_close(&signer);
    assert_null(signer);
}

static void every_vector_is_signed_and_verified(void **state)
{
    (void)state;
    each_vector(check_signed);
}

/* Flips the lowest bit of each byte of *part in turn. */
static void check_flips(struct signer *signer, const struct vector *v, struct signed_request *request, struct slice *part)
{
    struct slice whole = *part;
    char *copy = slice_dup(whole);
    *part = (struct slice){copy, whole.size};
    for (size_t i = 0; i < whole.size; i++) {
        copy[i] ^= 1;
        assert_false(signer_verify(signer, request, v->mac));
        copy[i] ^= 1;
    }
    assert_true(signer_verify(signer, request, v->mac));
    *part = whole;
    free(copy);
}

static void check_flipped(const struct vector *v)
{
    struct signer *signer = open_signer(v->secret);
    struct signed_request request = v->request;
    check_flips(signer, v, &request, &request.method);
    check_flips(signer, v, &request, &request.domain);
    check_flips(signer, v, &request, &request.path);
    check_flips(signer, v, &request, &request.body);
    check_flips(signer, v, &request, &request.timestamp);
    uint8_t mac[SIGNATURE_BYTES];
    for (size_t bit = 0; bit < 8 * sizeof mac; bit++) {
        memcpy(mac, v->mac, sizeof mac);
        mac[bit / 8] ^= (uint8_t)(1u << bit % 8);
        assert_false(signer_verify(signer, &v->request, mac));
    }
    signer_close(&signer);
}

static void one_flipped_bit_anywhere_is_refused(void **state)
{
    (void)state;
    each_vector(check_flipped);
}

static void check_other_secret(const struct vector *v)
{
    char *secret = slice_dup(v->secret);
    for (size_t i = 0; i < v->secret.size; i++) {
        secret[i] ^= 1;
        struct signer *signer = open_signer((struct slice){secret, v->secret.size});
        secret[i] ^= 1;
        assert_false(signer_verify(signer, &v->request, v->mac));
        signer_close(&signer);
    }
    free(secret);
}

static void one_flipped_bit_of_the_secret_is_refused(void **state)
{
    (void)state;
    each_vector(check_other_secret);
}

static void a_part_moved_to_its_neighbour_is_refused(void **state)
{
    (void)state;
    struct signer *signer = open_signer(SLICE("secret"));
    struct signed_request request = {SLICE("POST"), SLICE("host"), SLICE("/path"), SLICE("body"), SLICE("1725105600000")};
    uint8_t mac[SIGNATURE_BYTES];
    assert_true(signer_sign(signer, &request, mac));
    request.path = SLICE("/path body");
    request.body = SLICE("");
    assert_false(signer_verify(signer, &request, mac));
    request.path = SLICE("/path");
    request.body = SLICE("body\n");
    assert_false(signer_verify(signer, &request, mac));
    signer_close(&signer);
}

static void an_empty_body_is_signed_like_any_other(void **state)
{
    (void)state;
    struct signer *signer = open_signer(SLICE("k"));
    struct signed_request request = {SLICE("POST"), SLICE("a"), SLICE("/"), {NULL, 0}, SLICE("1725105600000")};
    uint8_t mac[SIGNATURE_BYTES], again[SIGNATURE_BYTES];
    assert_true(signer_sign(signer, &request, mac));
    request.body = SLICE("");
    assert_true(signer_sign(signer, &request, again));
    assert_memory_equal(mac, again, sizeof mac);
    signer_close(&signer);
}

static void an_empty_secret_is_refused(void **state)
{
    (void)state;
    struct signer *signer = (struct signer *)state;
    struct error why;
    assert_int_equal(signer_open(&signer, SLICE(""), &why), ERR_INVALID);
    assert_string_equal(why.text, "the secret is empty");
    assert_null(signer);
    signer_close(&signer);
    assert_int_equal(signer_open(&signer, (struct slice){NULL, 0}, NULL), ERR_INVALID);
}

static void nothing_verifies_while_openssl_fails(void **state)
{
    (void)state;
    cJSON *root = read_vectors();
    struct vector v = read_vector(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(root, "cases"), 0));
    struct signer *signer = open_signer(v.secret);
    static const uint8_t zero[SIGNATURE_BYTES];
    for (failing = INIT; failing <= SHORT_FINAL; failing++) {
        uint8_t mac[SIGNATURE_BYTES];
        memset(mac, 0x55, sizeof mac);
        assert_false(signer_sign(signer, &v.request, mac));
        assert_memory_equal(mac, zero, sizeof mac);
        assert_false(signer_verify(signer, &v.request, v.mac));
        assert_false(signer_verify(signer, &v.request, zero)); /* what a failed signature looks like */
    }
    failing = INIT;
    struct signer *other;
    struct error why;
    assert_int_equal(signer_open(&other, v.secret, &why), ERR_LIBRARY);
    assert_null(other);
    failing = NOTHING;
    assert_true(signer_verify(signer, &v.request, v.mac)); /* and it is well again afterwards */
    signer_close(&signer);
    cJSON_Delete(root);
}

static void default_ports_are_no_part_of_the_domain(void **state)
{
    (void)state;
    static const struct {
        const char *host, *domain;
    } cases[] = {{"example.com", "example.com"},
                 {"example.com:80", "example.com"},
                 {"example.com:443", "example.com"},
                 {"Example.com:443", "Example.com"},
                 {"example.com:8080", "example.com:8080"},
                 {"example.com:8443", "example.com:8443"},
                 {"example.com:1443", "example.com:1443"},
                 {"example.com:180", "example.com:180"},
                 {"example.com:080", "example.com:080"},
                 {"example.com:", "example.com:"},
                 {"example.com:80:80", "example.com:80:80"},
                 {"127.0.0.1:80", "127.0.0.1"},
                 {"[::1]:443", "[::1]"},
                 {"[::1]:80", "[::1]"},
                 {"[::1]:8080", "[::1]:8080"},
                 {"[::1]", "[::1]"},
                 {"[fe80::80]", "[fe80::80]"},
                 {"[fe80::443]:443", "[fe80::443]"},
                 {"[fe80::1%25eth0]:80", "[fe80::1%25eth0]"},
                 {"::1", "::1"},
                 {"::80", "::80"},
                 {"fe80::443", "fe80::443"},
                 {"[::1:80", "[::1:80"},
                 {"::1]:80", "::1]:80"},
                 {":80", ""},
                 {"80", "80"},
                 {"", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_slice(signature_domain(slice_of(cases[i].host)), cases[i].domain);
    }
    assert_int_equal(signature_domain((struct slice){NULL, 0}).size, 0);
}

static void a_timestamp_is_thirteen_digits(void **state)
{
    (void)state;
    int64_t value = -1;
    assert_true(signature_parse_timestamp(SLICE("1693497601234"), &value));
    assert_true(value == 1693497601234);
    assert_true(signature_parse_timestamp(SLICE("0000000000000"), &value));
    assert_true(value == 0);
    assert_true(signature_parse_timestamp(SLICE("9999999999999"), &value));
    assert_true(value == 9999999999999);
    static const char *const bad[] = {"",
                                      "169349760123",
                                      "16934976012345",
                                      "-693497601234",
                                      "+693497601234",
                                      " 693497601234",
                                      "169349760123 ",
                                      "1693497601.23",
                                      "0x93497601234",
                                      "169349760123a",
                                      "1693497601234\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(signature_parse_timestamp(slice_of(bad[i]), &value));
    }
    assert_false(signature_parse_timestamp((struct slice){"169349760\0234", 13}, &value));
    assert_true(value == 9999999999999);
}

static void a_timestamp_is_fresh_for_five_minutes_either_way(void **state)
{
    (void)state;
    const int64_t now = 1725105600000;
    assert_true(signature_is_fresh(now, now));
    assert_true(signature_is_fresh(now - 300000, now));
    assert_true(signature_is_fresh(now + 300000, now));
    assert_false(signature_is_fresh(now - 300001, now));
    assert_false(signature_is_fresh(now + 300001, now));
    assert_false(signature_is_fresh(0, now));
    assert_false(signature_is_fresh(INT64_MIN, INT64_MAX));
    assert_false(signature_is_fresh(INT64_MAX, INT64_MIN));
}

static void sha256_runs_over_all_parts(void **state)
{
    (void)state;
    uint8_t digest[32], expected[32];
    const struct slice parts[] = {SLICE("a"), {NULL, 0}, SLICE("bc")};
    assert_true(
        hex_decode(SLICE("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"), expected, 32)); /* FIPS 180 */
    assert_true(signature_sha256(parts, 3, digest));
    assert_memory_equal(digest, expected, 32);
    assert_true(hex_decode(SLICE("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"), expected, 32));
    assert_true(signature_sha256(NULL, 0, digest));
    assert_memory_equal(digest, expected, 32);
    failing = DIGEST_UPDATE;
    assert_false(signature_sha256(parts, 3, digest));
    failing = NOTHING;
    assert_memory_equal(digest, (uint8_t[32]){0}, 32);
}

static void wiping_leaves_zeros(void **state)
{
    (void)state;
    char secret[16] = "meow-secret";
    signature_wipe(secret, sizeof secret);
    assert_memory_equal(secret, (char[16]){0}, sizeof secret);
    struct signer *none = NULL;
    signer_close(&none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_vector_is_signed_and_verified),
        cmocka_unit_test(one_flipped_bit_anywhere_is_refused),
        cmocka_unit_test(one_flipped_bit_of_the_secret_is_refused),
        cmocka_unit_test(a_part_moved_to_its_neighbour_is_refused),
        cmocka_unit_test(an_empty_body_is_signed_like_any_other),
        cmocka_unit_test(an_empty_secret_is_refused),
        cmocka_unit_test(nothing_verifies_while_openssl_fails),
        cmocka_unit_test(default_ports_are_no_part_of_the_domain),
        cmocka_unit_test(a_timestamp_is_thirteen_digits),
        cmocka_unit_test(a_timestamp_is_fresh_for_five_minutes_either_way),
        cmocka_unit_test(sha256_runs_over_all_parts),
        cmocka_unit_test(wiping_leaves_zeros),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
