/* The scanner against a second recogniser of RFC 8259, written the plain way; and walking and unescaping what it accepts. */
#include "fuzz.h"

#include "meowbridge/jsonscan.h"

struct reference {
    struct slice rest;
    unsigned depth;
    bool too_deep;
};

static bool take(struct reference *r, const char *text)
{
    struct slice expected = slice_of(text);
    if (!slice_starts(r->rest, expected)) {
        return false;
    }
    r->rest = (struct slice){r->rest.data + expected.size, r->rest.size - expected.size};
    return true;
}

static void space(struct reference *r)
{
    while (take(r, " ") || take(r, "\t") || take(r, "\r") || take(r, "\n")) {
    }
}

static bool one_of(struct reference *r, const char *set)
{
    if (r->rest.size == 0 || !memchr(set, r->rest.data[0], strlen(set))) {
        return false;
    }
    r->rest = (struct slice){r->rest.data + 1, r->rest.size - 1};
    return true;
}

static bool digits(struct reference *r)
{
    bool any = false;
    while (one_of(r, "0123456789")) {
        any = true;
    }
    return any;
}

static bool number(struct reference *r)
{
    (void)take(r, "-");
    if (!take(r, "0") && !(r->rest.size > 0 && r->rest.data[0] != '0' && digits(r))) {
        return false;
    }
    if (take(r, ".") && !digits(r)) {
        return false;
    }
    if (one_of(r, "eE")) {
        (void)one_of(r, "+-");
        return digits(r);
    }
    return true;
}

static bool string(struct reference *r)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    if (!take(r, "\"")) {
        return false;
    }
    while (!take(r, "\"")) {
        uint32_t c;
        if (take(r, "\\u")) {
            if (!one_of(r, hex) || !one_of(r, hex) || !one_of(r, hex) || !one_of(r, hex)) {
                return false;
            }
        } else if (take(r, "\\")) {
            if (!one_of(r, "\"\\/bfnrt")) {
                return false;
            }
        } else {
            size_t length = utf8_decode(r->rest, &c);
            if (length == 0 || c < 0x20 || (c >= 0xd800 && c <= 0xdfff)) {
                return false;
            }
            r->rest = (struct slice){r->rest.data + length, r->rest.size - length};
        }
    }
    return true;
}

static bool value(struct reference *r);

static bool members(struct reference *r, bool object)
{
    const char *end = object ? "}" : "]";
    space(r);
    if (take(r, end)) {
        return true;
    }
    do {
        space(r);
        if (object) {
            bool named = string(r);
            space(r);
            if (!named || !take(r, ":")) {
                return false;
            }
            space(r);
        }
        if (!value(r)) {
            return false;
        }
        space(r);
    } while (take(r, ","));
    return take(r, end);
}

/* Recursion is fine here: its depth is bounded below. */
static bool value(struct reference *r)
{
    bool object = take(r, "{");
    if (object || take(r, "[")) {
        if (++r->depth > JSONSCAN_MAX_DEPTH) {
            r->too_deep = true;
            return false;
        }
        bool good = members(r, object);
        r->depth--;
        return good;
    }
    if (r->rest.size > 0 && r->rest.data[0] == '"') {
        return string(r);
    }
    return take(r, "true") || take(r, "false") || take(r, "null") || number(r);
}

static enum err judge(struct slice text)
{
    struct reference r = {.rest = text};
    space(&r);
    bool good = value(&r);
    space(&r);
    return r.too_deep ? ERR_FULL : good && r.rest.size == 0 ? ERR_NONE : ERR_INVALID;
}

static bool lies_within(struct slice inner, struct slice outer)
{
    return inner.data >= outer.data && inner.data + inner.size <= outer.data + outer.size;
}

static void check_string(const struct json_value *string)
{
    struct buf scratch;
    buf_init(&scratch, string->text.size);
    ASSERT(buf_reserve(&scratch, string->text.size));
    struct slice text = jsonscan_unescape(string, &scratch);
    ASSERT(!scratch.failed && text.size + 2 <= string->text.size);
    ASSERT(string->has_escapes == (memchr(string->text.data, '\\', string->text.size) != NULL));
    ASSERT(fuzz_is_utf8(text, string->has_escapes));
    if (fuzz_is_utf8(text, false)) {
        ASSERT(jsonscan_string_is(string, text));
    }
    buf_free(&scratch);
}

static void walk(const struct json_value *container)
{
    struct json_iterator it;
    struct json_value key, element;
    bool object = container->type == JSON_OBJECT;
    for (jsonscan_enter(&it, container); jsonscan_next(&it, &key, &element);) {
        ASSERT(lies_within(element.text, container->text) && judge(element.text) == ERR_NONE);
        if (object) {
            ASSERT(key.type == JSON_STRING && lies_within(key.text, container->text) && judge(key.text) == ERR_NONE);
            check_string(&key);
        }
        if (element.type == JSON_STRING) {
            check_string(&element);
        }
    }
}

static bool same(const struct json_value *a, const struct json_value *b)
{
    return a->type == b->type && a->text.data == b->text.data && a->text.size == b->text.size &&
           a->has_escapes == b->has_escapes && a->is_integer == b->is_integer;
}

struct told {
    struct json_iterator it; /* walks the same object, in step */
    bool walks;
};

static void on_member(void *ctx, const struct json_value *name, const struct json_value *value)
{
    struct told *told = ctx;
    struct json_value key, element;
    if (told->walks) {
        ASSERT(jsonscan_next(&told->it, &key, &element) && same(&key, name) && same(&element, value));
    }
}

/* Telling of the members changes no verdict, and tells what a walk gives. */
static void check_members(struct slice text, enum err expected, size_t expected_offset, const struct json_value *document)
{
    struct told told = {.walks = expected == ERR_NONE && document->type == JSON_OBJECT};
    struct json_value found, key, element;
    size_t offset = SIZE_MAX;
    if (told.walks) {
        jsonscan_enter(&told.it, document);
    }
    ASSERT(jsonscan_members(text, &found, on_member, &told, &offset, NULL) == expected && offset == expected_offset);
    ASSERT(expected != ERR_NONE || same(&found, document));
    ASSERT(!told.walks || !jsonscan_next(&told.it, &key, &element));
}

/* Up to the offset of the error the text is the beginning of some document: cut there, it is whole or lacks only more. */
static void check_offset(struct slice text, size_t offset)
{
    struct json_value found;
    struct error why = {0};
    size_t again = 0;
    ASSERT(offset <= text.size);
    enum err err = jsonscan_document((struct slice){text.data, offset}, &found, &again, &why);
    ASSERT(err == ERR_NONE || (err == ERR_INVALID && again == offset && strcmp(why.text, "unexpected end") == 0));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    struct slice text = fuzz_rest(&in);
    struct json_value found;
    struct error why = {0};
    size_t offset = SIZE_MAX;
    enum err err = jsonscan_document(text, &found, &offset, &why), expected = judge(text);
    ASSERT(err == expected);
    check_members(text, err, offset, &found);
    if (err) {
        ASSERT(why.code == err && why.text[0]);
        check_offset(text, offset);
    } else {
        ASSERT(lies_within(found.text, text) && judge(found.text) == ERR_NONE);
        if (found.type == JSON_ARRAY || found.type == JSON_OBJECT) {
            walk(&found);
        } else if (found.type == JSON_STRING) {
            check_string(&found);
        }
    }
    fuzz_end(&in);
    return 0;
}
