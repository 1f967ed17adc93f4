/* jsonscan: a strict scanner of JSON (RFC 8259 in UTF-8, RFC 3629) that copies nothing and knows where everything stands.
 *
 * It accepts exactly RFC 8259: no byte order mark, no leading zeros, no raw control characters, no invalid UTF-8, no trailing
 * bytes but white space. An escaped lone surrogate ("\ud800") is valid JSON and accepted. No recursion: nesting is counted,
 * the outermost value being depth 1, and held to JSONSCAN_MAX_DEPTH. Pure; any thread. */
#ifndef MEOWBRIDGE_JSONSCAN_H
#define MEOWBRIDGE_JSONSCAN_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stddef.h>

#define JSONSCAN_MAX_DEPTH 64

enum json_type { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json_value {
    enum json_type type;
    bool has_escapes;  /* a string: it holds a backslash */
    bool is_integer;   /* a number: -? digits only, no fraction, no exponent */
    struct slice text; /* the literal bytes: a string with its quotes, a container with its brackets; no white space around */
};

/* A place to go on scanning inside text that jsonscan_document has accepted. */
struct json_iterator {
    const char *at, *end;
    bool object;
};

/* Validates the whole text as one JSON document. On an error, *offset (may be NULL) is the first byte with which no JSON
 * document can go on (the size of the text where more was to come), and why says what is wrong there ("invalid UTF-8",
 * "a colon is expected", …) without quoting the input. ERR_INVALID: not JSON; ERR_FULL: "nesting deeper than 64 levels".
 * *value is set on success only. */
MUST_CHECK enum err jsonscan_document(struct slice text, struct json_value *value, size_t *offset, struct error *why);

/* True if the text is one string, number, true, false or null and nothing else, no white space either; *value is set then only. */
bool jsonscan_scalar(struct slice text, struct json_value *value);

/* As jsonscan_document, and tells of each member of the object while it validates, in order, if the text is an object; each may
 * be NULL. One pass is all that the text gets. What stands behind the member is not validated yet: only after ERR_NONE is what
 * each was told to be relied on. name is a string value with its quotes; both values are borrowed for the call, their slices are
 * of the text. */
typedef void jsonscan_each(void *ctx, const struct json_value *name, const struct json_value *value);
MUST_CHECK enum err jsonscan_members(struct slice text, struct json_value *value, jsonscan_each *each, void *ctx,
                                     size_t *offset, struct error *why);

/* Walks the members of an object or the elements of an array that a successful jsonscan_document covered. Each call gives
 * the next one; false at the end, which leaves key and value undefined. key (of an object) is a string value with its quotes;
 * may be NULL. Text that is no JSON after all ends the walk, never leaves the container. */
void jsonscan_enter(struct json_iterator *it, const struct json_value *container);
bool jsonscan_next(struct json_iterator *it, struct json_value *key, struct json_value *value);

/* The characters of a string value, unescaped. Without escapes that is a slice of the input; otherwise it is appended to
 * scratch (never moved: the caller reserves; see below) and the slice points there. A lone surrogate becomes its three
 * bytes (WTF-8), so distinct strings stay distinct; \u0000 becomes a NUL byte. An unescaped string is never longer than its
 * literal, so scratch with limit and reserved capacity of the literal's size always suffices.
 * out is empty and scratch->failed set if scratch has no room. */
struct slice jsonscan_unescape(const struct json_value *string, struct buf *scratch);

/* True if the string value, unescaped, equals text (which holds no surrogates). Allocates nothing. */
bool jsonscan_string_is(const struct json_value *string, struct slice text);

#endif
