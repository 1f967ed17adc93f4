/* The search: combinations of choices, those that deviate in one part first, then in two, in three. Bodies are in the outermost
 * loop, as each has to be made. The bound counts bytes that are signed or printed, so a large body is tried in fewer forms. */
#include "explain_internal.h"

#include "meowbridge/signature.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEVIATIONS = 3, OVERHEAD = 256 };
static const uint64_t MAX_WORK = UINT64_C(1) << 30;

struct search {
    const struct explain_request *request;
    uint8_t mac[SIGNATURE_BYTES];
    struct choices parts[EXPLAIN_BODY]; /* of all parts but the body */
    struct signer *signers[EXPLAIN_CHOICES];
    size_t chosen[EXPLAIN_PARTS];
    struct slice body;
    uint64_t work, tried;
};

static bool verifies(struct search *s)
{
    struct slice text[EXPLAIN_BODY];
    for (int part = 0; part < EXPLAIN_BODY; part++) {
        text[part] = s->parts[part].items[s->chosen[part]].text;
    }
    const struct signed_request request = {
        .method = text[EXPLAIN_METHOD],
        .domain = text[EXPLAIN_HOST],
        .path = text[EXPLAIN_PATH],
        .body = s->body,
        .timestamp = text[EXPLAIN_TIMESTAMP],
    };
    s->tried++;
    s->work += s->body.size + OVERHEAD;
    return signer_verify(s->signers[s->chosen[EXPLAIN_SECRET]], &request, s->mac);
}

/* Tries every way to deviate in exactly so many of the parts from part on. True: s->chosen is what was signed. */
static bool deviate(struct search *s, int part, int deviations)
{
    if (deviations == 0) {
        return verifies(s);
    }
    for (; part < EXPLAIN_BODY; part++) {
        for (size_t n = 1; n < s->parts[part].count && s->work < MAX_WORK; n++) {
            s->chosen[part] = n;
            if (deviate(s, part + 1, deviations - 1)) {
                return true;
            }
        }
        s->chosen[part] = 0;
    }
    return false;
}

static bool deviate_with_body(struct search *s, int deviations, struct buf *out)
{
    for (size_t n = 1; n < body_choices() && s->work < MAX_WORK; n++) {
        bool made = body_choose(n, s->request->body, out);
        s->work += s->request->body.size;
        s->body = buf_slice(out);
        s->chosen[EXPLAIN_BODY] = n;
        if (made && deviate(s, 0, deviations)) {
            return true;
        }
    }
    s->chosen[EXPLAIN_BODY] = 0;
    s->body = s->request->body;
    return false;
}

static bool find(struct search *s)
{
    struct buf body;
    buf_init(&body, s->request->body.size * 8 + 1024 * 1024);
    s->body = s->request->body;
    bool found = verifies(s);
    for (int n = 1; n <= MAX_DEVIATIONS && !found; n++) {
        found = deviate(s, 0, n) || deviate_with_body(s, n - 1, &body);
    }
    buf_free(&body);
    return found;
}

/* --- before and after --- */

static bool read_signature(struct search *s, struct explain_result *out)
{
    struct slice text = explain_trim(s->request->signature), prefix = SLICE("sha256=");
    if (text.size > prefix.size && slice_equal_nocase((struct slice){text.data, prefix.size}, prefix)) {
        text = (struct slice){text.data + prefix.size, text.size - prefix.size};
    }
    if (text.size != s->request->signature.size) {
        out->clean_advice =
            "The signature header must hold the 64 hex digits and nothing else: no \"sha256=\", no white space.";
    }
    if (hex_decode(text, s->mac, sizeof s->mac)) {
        return true;
    }
    bool is_hex = true;
    for (size_t i = 0; i < text.size; i++) {
        is_hex = is_hex && isxdigit((unsigned char)text.data[i]);
    }
    out->verdict = EXPLAIN_BAD_SIGNATURE;
    snprintf(out->complaint, sizeof out->complaint,
             "the signature is no HMAC-SHA256 in hex: it has %zu characters%s, expected 64 hex digits", text.size,
             is_hex ? "" : ", not all of them hex digits");
    return false;
}

static void judge_clock(const struct explain_request *r, struct explain_result *out)
{
    int64_t timestamp_ms, reference_ms = r->is_received_known ? r->received_ms : r->now_ms;
    if (!signature_parse_timestamp(r->timestamp, &timestamp_ms)) {
        out->clock = EXPLAIN_NO_TIME;
        return;
    }
    out->age_ms = reference_ms - timestamp_ms;
    if (signature_is_fresh(timestamp_ms, reference_ms)) {
        out->clock = EXPLAIN_FRESH;
    } else if (out->age_ms < 0) {
        out->clock = EXPLAIN_AHEAD;
    } else {
        out->clock = r->is_received_known ? EXPLAIN_STALE : EXPLAIN_OLD;
    }
}

static enum err open_search(struct search *s, struct error *why)
{
    enum err err = ERR_NONE;
    for (int part = 0; part < EXPLAIN_BODY && !err; part++) {
        err = choices_open(&s->parts[part], (enum explain_part)part, s->request) ? ERR_NONE
                                                                                 : error_set(why, ERR_MEMORY, "no memory");
    }
    const struct choices *secrets = &s->parts[EXPLAIN_SECRET];
    for (size_t i = 0; i < secrets->count && !err; i++) {
        err = signer_open(&s->signers[i], secrets->items[i].text, why);
    }
    return err;
}

static void close_search(struct search *s)
{
    for (int i = 0; i < EXPLAIN_CHOICES; i++) {
        signer_close(&s->signers[i]);
    }
    for (int part = 0; part < EXPLAIN_BODY; part++) {
        choices_close(&s->parts[part]);
    }
    signature_wipe(s, sizeof *s);
    free(s);
}

/* Printable: what was signed may be anything. */
static void copy_printable(char *out, size_t size, struct slice text)
{
    size_t at = 0;
    for (size_t i = 0; i < text.size && at + 1 < size; i++) {
        unsigned char c = (unsigned char)text.data[i];
        out[at++] = c < ' ' || c == 0x7f ? '?' : (char)c;
    }
    out[at] = 0;
}

static void describe(const struct search *s, struct explain_result *out)
{
    for (int part = 0; part < EXPLAIN_PARTS; part++) {
        if (s->chosen[part] == 0) {
            continue;
        }
        struct explain_deviation *deviation = &out->deviations[out->deviation_count++];
        deviation->part = (enum explain_part)part;
        if (part == EXPLAIN_BODY) {
            body_describe(s->chosen[part], deviation);
            continue;
        }
        const struct choice *choice = &s->parts[part].items[s->chosen[part]];
        snprintf(deviation->what, sizeof deviation->what, "%s", choice->what);
        deviation->advice = choice->advice;
        if (part != EXPLAIN_SECRET) {
            copy_printable(deviation->signed_as, sizeof deviation->signed_as, choice->text);
        }
    }
}

enum err explain_find(const struct explain_request *request, struct explain_result *out, struct error *why)
{
    *out = (struct explain_result){0};
    struct search *s = calloc(1, sizeof *s);
    if (!s) {
        return error_set(why, ERR_MEMORY, "no memory");
    }
    s->request = request;
    judge_clock(request, out);
    enum err err = request->secret.size > 0 ? ERR_NONE : error_set(why, ERR_INVALID, "the secret is empty");
    if (!err && read_signature(s, out)) {
        err = open_search(s, why);
        if (!err) {
            bool found = find(s);
            describe(s, out);
            out->verdict = !found ? EXPLAIN_NOT_FOUND : out->deviation_count > 0 ? EXPLAIN_FOUND : EXPLAIN_VERIFIES;
            out->tried = s->tried;
            out->is_cut = !found && s->work >= MAX_WORK;
        }
    }
    close_search(s);
    return err;
}
