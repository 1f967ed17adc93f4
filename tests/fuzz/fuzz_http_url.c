/* A URL for the HTTP client: what is taken can be written into a request line and a Host header as it is. */
#include "fuzz.h"

#include "meowbridge/http_client.h"

static bool is_visible(const char *text)
{
    for (; *text; text++) {
        if (*text <= ' ' || *text > '~') {
            return false;
        }
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    struct slice text = fuzz_rest(&in);
    struct http_url url, again;
    struct error why = {0};
    enum err err = http_url_parse(text, &url, &why);
    if (err) {
        ASSERT(err == ERR_INVALID && why.text[0]);
    } else {
        ASSERT(memchr(url.host, 0, sizeof url.host) && memchr(url.authority, 0, sizeof url.authority));
        ASSERT(memchr(url.target, 0, sizeof url.target) && url.target[0] == '/' && is_visible(url.target));
        ASSERT(!strchr(url.target, '#') && url.host[0] && url.authority[0] && is_visible(url.authority));
        ASSERT(url.is_unix == (url.port == 0) && !strpbrk(url.authority, "/@?#"));
        ASSERT(url.is_unix || is_visible(url.host));
        /* Put together again it is the same. */
        if (!url.is_unix) {
            struct buf joined;
            buf_init(&joined, 4096);
            buf_appendf(&joined, "%s://%s%s", url.tls ? "https" : "http", url.authority, url.target);
            ASSERT(http_url_parse(buf_slice(&joined), &again, NULL) == ERR_NONE);
            ASSERT(strcmp(url.host, again.host) == 0 && url.port == again.port && strcmp(url.target, again.target) == 0);
            buf_free(&joined);
        }
        ASSERT(!fuzz_contains(text, SLICE("@")) || url.is_unix || memchr(url.target, '@', sizeof url.target) ||
               memchr(text.data, '#', text.size));
    }
    fuzz_end(&in);
    return 0;
}
