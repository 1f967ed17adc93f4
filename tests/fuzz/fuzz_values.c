/* The texts of the configuration that stand for something. Input: any bytes but NUL, which no text of a configuration holds. */
#include "fuzz.h"

#include "../../bridge/domain/config_internal.h"

static void check_size_and_span(struct slice text)
{
    int64_t value, again;
    struct buf out;
    buf_init(&out, 64);
    if (config_parse_size(text, &value, NULL) == ERR_NONE) {
        config_append_size(&out, value);
        ASSERT(value >= 0 && config_parse_size(buf_slice(&out), &again, NULL) == ERR_NONE && again == value);
    }
    buf_reset(&out);
    if (config_parse_span(text, &value, NULL) == ERR_NONE) {
        config_append_span(&out, value);
        ASSERT(value >= 0 && config_parse_span(buf_slice(&out), &again, NULL) == ERR_NONE && again == value);
    }
    buf_free(&out);
}

static void check_listen(struct slice text)
{
    struct listen_address address, again;
    struct buf out;
    buf_init(&out, 256);
    if (config_parse_listen(text, &address, NULL) == ERR_NONE) {
        ASSERT(memchr(address.host, 0, sizeof address.host) && memchr(address.path, 0, sizeof address.path));
        ASSERT(address.is_unix == (address.path[0] != 0) && address.is_unix == (address.host[0] == 0));
        config_append_listen(&out, &address);
        ASSERT(!out.failed && config_parse_listen(buf_slice(&out), &again, NULL) == ERR_NONE);
        ASSERT(strcmp(address.host, again.host) == 0 && strcmp(address.path, again.path) == 0 && address.port == again.port);
        ASSERT(!address.is_unix || listen_is_local(&address));
    }
    buf_free(&out);
}

static void check_broker(struct slice text)
{
    struct broker_address broker;
    if (config_parse_broker(text, &broker, NULL) == ERR_NONE) {
        ASSERT(slice_equal(slice_of(broker.url), text) && broker.port > 0);
        ASSERT(broker.host[0] && strlen(broker.host) <= 253 && !strpbrk(broker.host, "/@[]?# \r\n"));
        ASSERT(slice_starts(text, SLICE("mqtts://")) == broker.tls);
        broker_address_free(&broker);
    }
}

static void check_public_url(struct slice text)
{
    struct slice host, path;
    if (config_split_public_url(text, &host, &path, NULL) == ERR_NONE) {
        ASSERT(host.size > 0 && path.size > 0 && path.data[0] == '/');
        ASSERT(config_check_path(path, NULL) == ERR_NONE && config_check_public_url(text, NULL) == ERR_NONE);
        for (size_t i = 0; i < host.size; i++) {
            ASSERT(host.data[i] > ' ' && host.data[i] <= '~' && !strchr("/?#@", host.data[i]));
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    struct slice text = fuzz_rest(&in);
    ASSERT((config_check_mqtt_text(text, NULL) == ERR_NONE) == (fuzz_is_mqtt_text(text) && text.size <= UINT16_MAX));
    bool is_text = fuzz_is_utf8(text, false) && (text.size == 0 || !memchr(text.data, 0, text.size));
    ASSERT((config_check_text(text, NULL) == ERR_NONE) == is_text);
    check_size_and_span(text);
    if (is_text) {
        check_listen(text);
        check_broker(text);
        check_public_url(text);
    }
    fuzz_end(&in);
    return 0;
}
