/* The page, one file compiled in. Its script and its style stand in it and run by a nonce that is new for each answer, so that
 * whatever else might get into it does not. */
#include "admin_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* MEOWBRIDGE_PAGE: the file's place. */
__asm__(".pushsection .rodata\n"
        ".global admin_page_begin\n"
        ".global admin_page_end\n"
        "admin_page_begin:\n"
        ".incbin \"" MEOWBRIDGE_PAGE "\"\n"
        "admin_page_end:\n"
        ".byte 0\n"
        ".popsection\n");
extern const char admin_page_begin[], admin_page_end[];

enum { NONCE_BYTES = 16, NONCE_SIZE = 2 * NONCE_BYTES };

static void append_page(struct buf *out, struct slice nonce)
{
    static const struct slice mark = SLICE("@NONCE@");
    const char *at = admin_page_begin;
    for (;;) {
        const char *next = memmem(at, (size_t)(admin_page_end - at), mark.data, mark.size);
        buf_append(out, (struct slice){at, (size_t)((next ? next : admin_page_end) - at)});
        if (!next) {
            return;
        }
        buf_append(out, nonce);
        at = next + mark.size;
    }
}

void serve_page(struct http_request *request, unsigned status, const char *www_authenticate)
{
    uint8_t random[NONCE_BYTES];
    char nonce[NONCE_SIZE + 1] = "", policy[400];
    struct buf text;
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        answer_problem(request, 503, "the system gives no random numbers");
        return;
    }
    hex_encode(random, sizeof random, nonce);
    snprintf(policy, sizeof policy,
             "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; connect-src 'self'; img-src data:; "
             "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'",
             nonce, nonce);
    const char *const headers[] = {"Cache-Control",
                                   "no-store",
                                   "X-Content-Type-Options",
                                   "nosniff",
                                   "Content-Security-Policy",
                                   policy,
                                   "X-Frame-Options",
                                   "DENY",
                                   "Referrer-Policy",
                                   "no-referrer",
                                   "Cross-Origin-Opener-Policy",
                                   "same-origin",
                                   "Cross-Origin-Resource-Policy",
                                   "same-origin",
                                   NULL};
    buf_init(&text, 1 << 20);
    append_page(&text, (struct slice){nonce, NONCE_SIZE});
    if (text.failed) {
        answer_problem(request, 503, "there is no memory for the answer");
    } else {
        http_request_answer(request, &(struct http_answer){.status = status,
                                                           .body = buf_slice(&text),
                                                           .content_type = "text/html; charset=utf-8",
                                                           .www_authenticate = www_authenticate,
                                                           .headers = headers});
    }
    buf_free(&text);
}
