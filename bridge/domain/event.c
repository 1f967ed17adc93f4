/* The members that matter are one table: parsing, the stored head and its reading all walk it.
 *
 * The stored head, version 1 (integers are LEB128: seven bits a byte, the lowest first, the top bit says that more follow):
 *
 *     version byte = 1
 *     for each field in the table's order: offset and size of its literal in the body, a string's quotes included
 *     size and bytes of traceparent, size and bytes of tracestate (0: none)
 *     checksum over all before it and the body's size, four bytes, little-endian
 *
 * A literal says by itself whether it is a string or an integer and whether it holds escapes, so reading a head applies the
 * same rules as reading a body, to the few bytes of the fields alone. The payload is not looked into again: that its span is
 * still the right one is what the checksum is for. */
#include "meowbridge/event.h"

#include "meowbridge/jsonscan.h"
#include "meowbridge/signature.h"

#include <stdlib.h>
#include <string.h>

#define HEAD_VERSION 1
#define TRACEPARENT_SIZE 55
#define TRACEPARENT_MAX 128 /* later versions may append fields */
#define TRACESTATE_MAX 512
#define TRACESTATE_MAX_MEMBERS 32

enum field_type { FIELD_ID, FIELD_STRING, FIELD_ANY };
enum { FIELD_APP_ID = 2, FIELD_NAME = 3 }; /* those two in the table, and in every stored head */

static const struct field {
    struct slice name;
    size_t slot; /* where struct event keeps it */
    enum field_type type;
    bool may_be_empty;
} fields[] = {
    {{"id", 2}, offsetof(struct event, id), FIELD_ID, false},
    {{"webhookId", 9}, offsetof(struct event, webhook_id), FIELD_ID, false},
    [FIELD_APP_ID] = {{"appId", 5}, offsetof(struct event, app_id), FIELD_ID, false},
    [FIELD_NAME] = {{"event", 5}, offsetof(struct event, name), FIELD_STRING, false},
    {{"objectId", 8}, offsetof(struct event, object_id), FIELD_ID, true},
    {{"payload", 7}, offsetof(struct event, payload), FIELD_ANY, false},
    {{"pushTime", 8}, offsetof(struct event, push_time), FIELD_STRING, true},
};
#define FIELD_COUNT (sizeof fields / sizeof fields[0])

struct members {
    struct json_value object;
    struct json_value field[FIELD_COUNT]; /* text.data is NULL where the member is missing */
    size_t next;                          /* the field behind the one found last */
    const struct field *twice;            /* the first that was found again */
    size_t others;                        /* members that are no field */
    size_t escaped_bytes;                 /* of all literals that may need scratch */
};

/* Looks at `first` first, and then round the table: whoever sends the members in the table's order has each found at once. */
static size_t find_field(const struct json_value *name, size_t first)
{
    size_t i = first;
    do {
        if (jsonscan_string_is(name, fields[i].name)) {
            return i;
        }
        i = i + 1 < FIELD_COUNT ? i + 1 : 0;
    } while (i != first);
    return FIELD_COUNT;
}

static size_t scratch_bytes(const struct json_value *value)
{
    return value->has_escapes ? value->text.size : 0;
}

static void collect_member(void *ctx, const struct json_value *name, const struct json_value *value)
{
    struct members *members = ctx;
    size_t i = find_field(name, members->next);
    if (i == FIELD_COUNT) {
        members->others++;
        members->escaped_bytes += scratch_bytes(name);
        return;
    }
    if (members->field[i].text.data && !members->twice) {
        members->twice = &fields[i];
    }
    members->field[i] = *value;
    members->escaped_bytes += scratch_bytes(value);
    members->next = i + 1 < FIELD_COUNT ? i + 1 : 0;
}

static enum err read_members(struct members *members, struct slice body, struct error *why)
{
    size_t offset;
    struct error cause;
    *members = (struct members){0};
    enum err err = jsonscan_members(body, &members->object, collect_member, members, &offset, &cause);
    if (err == ERR_FULL) {
        return error_set(why, ERR_INVALID, "%s", cause.text);
    }
    if (err) {
        return error_set(why, ERR_INVALID, "the body is not JSON: %s at byte %zu", cause.text, offset);
    }
    if (members->object.type != JSON_OBJECT) {
        return error_set(why, ERR_INVALID, "the body is not a JSON object");
    }
    if (members->twice) {
        return error_set(why, ERR_INVALID, "member %s stands twice", members->twice->name.data);
    }
    return ERR_NONE;
}

static int compare_names(const void *a, const void *b)
{
    const struct slice *left = a, *right = b;
    if (left->size != right->size) {
        return left->size < right->size ? -1 : 1;
    }
    return left->size ? memcmp(left->data, right->data, left->size) : 0;
}

static bool has_twins(struct slice *names, size_t count)
{
    qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 1; i < count; i++) {
        if (slice_equal(names[i - 1], names[i])) {
            return true;
        }
    }
    return false;
}

/* The names that are no field are compared by sorting: a body may bring a hundred thousand of them. */
static enum err check_other_names(const struct members *members, struct buf *scratch, struct error *why)
{
    if (members->others < 2) {
        return ERR_NONE;
    }
    struct slice *names = calloc(members->others, sizeof *names);
    if (!names) {
        return error_set(why, ERR_MEMORY, "no memory for the event");
    }
    struct json_iterator it;
    struct json_value name, value;
    size_t count = 0;
    for (jsonscan_enter(&it, &members->object); jsonscan_next(&it, &name, &value);) {
        if (find_field(&name, 0) == FIELD_COUNT) {
            names[count++] = jsonscan_unescape(&name, scratch);
        }
    }
    ASSERT(count == members->others && !scratch->failed);
    bool twins = has_twins(names, count);
    free(names);
    buf_reset(scratch);
    return twins ? error_set(why, ERR_INVALID, "a top-level member stands twice") : ERR_NONE;
}

static enum err read_field(const struct field *field, const struct json_value *value, struct buf *scratch, struct slice *out,
                           struct error *why)
{
    const char *name = field->name.data;
    if (!value->text.data) {
        return error_set(why, ERR_INVALID, "member %s is missing", name);
    }
    if (field->type == FIELD_ANY || (field->type == FIELD_ID && value->type == JSON_NUMBER && value->is_integer)) {
        *out = value->text;
        return ERR_NONE;
    }
    if (value->type != JSON_STRING) {
        return error_set(why, ERR_INVALID, "member %s must be a string%s", name,
                         field->type == FIELD_ID ? " or an integer" : "");
    }
    *out = jsonscan_unescape(value, scratch);
    if (out->size == 0 && !field->may_be_empty) {
        return error_set(why, ERR_INVALID, "member %s must not be empty", name);
    }
    return ERR_NONE;
}

static struct slice *slot_of(struct event *event, size_t i)
{
    return (struct slice *)((char *)event + fields[i].slot);
}

static enum err read_fields(struct event *event, const struct members *members, struct buf *scratch, struct error *why)
{
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        enum err err = read_field(&fields[i], &members->field[i], scratch, slot_of(event, i), why);
        if (err) {
            return err;
        }
    }
    ASSERT(!scratch->failed);
    return ERR_NONE;
}

/* All of it at once, so that nothing moves while slices point into it. */
static enum err reserve_scratch(struct buf *scratch, size_t bytes, struct error *why)
{
    buf_reset(scratch);
    if (bytes > 0 && !buf_reserve(scratch, bytes)) {
        return error_set(why, ERR_MEMORY, "no memory for the event");
    }
    return ERR_NONE;
}

enum err event_parse(struct event *out, struct slice body, struct buf *scratch, struct error *why)
{
    struct members members;
    struct event event = {.body = body};
    enum err err = read_members(&members, body, why);
    if (!err) {
        err = reserve_scratch(scratch, members.escaped_bytes, why);
    }
    if (!err) {
        err = check_other_names(&members, scratch, why);
    }
    if (!err) {
        err = read_fields(&event, &members, scratch, why);
    }
    if (!err) {
        *out = event;
    }
    return err;
}

static bool is_lower_hex(struct slice s)
{
    bool good = true;
    for (size_t i = 0; i < s.size; i++) {
        good = good && ((s.data[i] >= '0' && s.data[i] <= '9') || (s.data[i] >= 'a' && s.data[i] <= 'f'));
    }
    return good;
}

static bool is_within(struct slice s, char lowest, char highest)
{
    bool good = true;
    for (size_t i = 0; i < s.size; i++) {
        good = good && s.data[i] >= lowest && s.data[i] <= highest;
    }
    return good;
}

/* W3C Trace Context, section 3.2. A version after 00 may go on behind a dash. */
static bool is_traceparent(struct slice s)
{
    if (s.size < TRACEPARENT_SIZE || s.size > TRACEPARENT_MAX || s.data[2] != '-' || s.data[35] != '-' || s.data[52] != '-') {
        return false;
    }
    struct slice version = {s.data, 2}, trace_id = {s.data + 3, 32}, parent_id = {s.data + 36, 16}, flags = {s.data + 53, 2};
    struct slice more = {s.data + TRACEPARENT_SIZE, s.size - TRACEPARENT_SIZE};
    bool good = is_lower_hex(version) && is_lower_hex(trace_id) && is_lower_hex(parent_id) && is_lower_hex(flags);
    good = good && !slice_equal(version, SLICE("ff")) && !is_within(trace_id, '0', '0') && !is_within(parent_id, '0', '0');
    return good && (more.size == 0 || (!slice_equal(version, SLICE("00")) && more.data[0] == '-' && is_within(more, '!', '~')));
}

static struct slice trim_spaces(struct slice s)
{
    while (s.size > 0 && s.data[0] == ' ') {
        s = (struct slice){s.data + 1, s.size - 1};
    }
    while (s.size > 0 && s.data[s.size - 1] == ' ') {
        s.size--;
    }
    return s;
}

static bool is_tracestate_key(struct slice key)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_-*/@";
    bool good = key.size > 0 && key.size <= 256 && !strchr("_-*/@", key.data[0]);
    for (size_t i = 0; good && i < key.size; i++) {
        good = memchr(letters, key.data[i], sizeof letters - 1) != NULL;
    }
    return good;
}

/* key=value, or nothing: empty members are allowed. */
static bool is_tracestate_member(struct slice member)
{
    member = trim_spaces(member);
    if (member.size == 0) {
        return true;
    }
    const char *equals = memchr(member.data, '=', member.size);
    if (!equals) {
        return false;
    }
    struct slice key = {member.data, (size_t)(equals - member.data)};
    struct slice value = {equals + 1, member.size - key.size - 1};
    return is_tracestate_key(key) && value.size > 0 && value.size <= 256 && !memchr(value.data, '=', value.size);
}

/* W3C Trace Context, section 3.3. */
static bool is_tracestate(struct slice s)
{
    if (s.size == 0 || s.size > TRACESTATE_MAX || !is_within(s, ' ', '~')) {
        return false;
    }
    size_t count = 0;
    bool good = true;
    for (const char *at = s.data, *end = s.data + s.size; good && at <= end; count++) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma ? comma : end;
        good = is_tracestate_member((struct slice){at, (size_t)(stop - at)});
        at = stop + 1;
    }
    return good && count <= TRACESTATE_MAX_MEMBERS;
}

void event_set_trace(struct event *event, struct slice traceparent, struct slice tracestate)
{
    bool good = is_traceparent(traceparent);
    event->traceparent = good ? traceparent : (struct slice){0};
    event->tracestate = good && is_tracestate(tracestate) ? tracestate : (struct slice){0};
}

static void put_big_endian(uint64_t value, uint8_t out[8])
{
    for (int i = 7; i >= 0; i--) {
        out[i] = (uint8_t)value;
        value >>= 8;
    }
}

static bool is_small_decimal(struct slice id, uint64_t *number)
{
    return id.size <= 18 && slice_to_u64(id, number) && (id.size == 1 || id.data[0] != '0');
}

bool event_key(const struct event *event, uint8_t key[EVENT_KEY_BYTES])
{
    uint8_t digest[32], app_size[8];
    uint64_t number;
    if (is_small_decimal(event->id, &number)) {
        put_big_endian(number, key);
        bool good = signature_sha256(&event->app_id, 1, digest);
        memcpy(key + 8, digest, 8);
        return good;
    }
    /* The size in front keeps ("a", "bc") and ("ab", "c") apart. */
    put_big_endian(event->app_id.size, app_size);
    const struct slice parts[] = {{(const char *)app_size, sizeof app_size}, event->app_id, event->id};
    bool good = signature_sha256(parts, sizeof parts / sizeof parts[0], digest);
    memcpy(key, digest, EVENT_KEY_BYTES);
    key[0] |= 0x80;
    return good;
}

static bool lies_within(struct slice s, struct slice body)
{
    uintptr_t start = (uintptr_t)body.data, at = (uintptr_t)s.data;
    return s.data && at >= start && s.size <= body.size && at - start <= body.size - s.size;
}

/* The literal that a field was read from, if it is plain to see: the text itself, or with the quotes around it. */
static bool see_literal(const struct field *field, struct slice text, struct slice body, struct slice *literal)
{
    if (!lies_within(text, body)) {
        return false; /* it held escapes and stands in scratch */
    }
    *literal = text;
    if (field->type == FIELD_ANY || (text.data > body.data && text.data[-1] != '"')) {
        return true;
    }
    *literal = (struct slice){text.data - 1, text.size + 2};
    return text.data > body.data && lies_within(*literal, body);
}

static void locate_literals(const struct event *event, struct slice literals[FIELD_COUNT])
{
    size_t seen = 0;
    while (seen < FIELD_COUNT) {
        struct slice text = *(const struct slice *)((const char *)event + fields[seen].slot);
        if (!see_literal(&fields[seen], text, event->body, &literals[seen])) {
            break;
        }
        seen++;
    }
    if (seen == FIELD_COUNT) {
        return;
    }
    struct members members;
    ASSERT(read_members(&members, event->body, NULL) == ERR_NONE);
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        ASSERT(members.field[i].text.data);
        literals[i] = members.field[i].text;
    }
}

static char *put_integer(char *at, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        *at++ = (char)(0x80 | (value & 0x7f));
    }
    *at++ = (char)value;
    return at;
}

static char *put_bytes(char *at, struct slice bytes)
{
    at = put_integer(at, bytes.size);
    if (bytes.size > 0) {
        memcpy(at, bytes.data, bytes.size);
    }
    return at + bytes.size;
}

/* FNV-1a: it tells any change of a single byte, and nearly all others, for the price of reading. */
static uint32_t checksum(struct slice head, struct slice body)
{
    uint32_t sum = 2166136261u ^ (uint32_t)body.size;
    for (size_t i = 0; i < head.size; i++) {
        sum = (sum ^ (unsigned char)head.data[i]) * 16777619u;
    }
    return sum;
}

enum { INTEGER_MAX = 10, SHORT_INTEGER_MAX = 2 }; /* bytes of any integer, and of one below 16,384 */
_Static_assert(1 + FIELD_COUNT * 2 * INTEGER_MAX + SHORT_INTEGER_MAX + TRACEPARENT_MAX + SHORT_INTEGER_MAX + TRACESTATE_MAX +
                       4 <=
                   EVENT_HEAD_MAX,
               "every head fits");

void event_encode_head(const struct event *event, struct buf *head)
{
    struct slice literals[FIELD_COUNT];
    char text[EVENT_HEAD_MAX], *at = text;
    ASSERT(event->traceparent.size <= TRACEPARENT_MAX && event->tracestate.size <= TRACESTATE_MAX);
    locate_literals(event, literals);
    *at++ = HEAD_VERSION;
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        at = put_integer(at, (uint64_t)(literals[i].data - event->body.data));
        at = put_integer(at, literals[i].size);
    }
    at = put_bytes(at, event->traceparent);
    at = put_bytes(at, event->tracestate);
    uint32_t sum = checksum((struct slice){text, (size_t)(at - text)}, event->body);
    for (unsigned i = 0; i < 4; i++) {
        *at++ = (char)(sum >> 8 * i);
    }
    buf_append(head, (struct slice){text, (size_t)(at - text)});
}

/* What is left of a head; a reader that fails leaves nothing and reads zeros from then on. */
struct reader {
    const unsigned char *at, *end;
    bool failed;
};

static struct reader reader_of(struct slice head)
{
    const unsigned char *start = (const unsigned char *)(head.size > 0 ? head.data : "");
    return (struct reader){.at = start, .end = start + head.size};
}

static uint64_t reader_fail(struct reader *r)
{
    r->at = r->end;
    r->failed = true;
    return 0;
}

static struct slice take_bytes(struct reader *r, uint64_t size)
{
    if (size > (size_t)(r->end - r->at)) {
        size = reader_fail(r);
    }
    struct slice taken = {(const char *)r->at, (size_t)size};
    r->at += size;
    return taken;
}

static uint64_t take_integer(struct reader *r)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 63 && r->at < r->end; shift += 7) {
        const unsigned char byte = *r->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            return byte == 0 && shift > 0 ? reader_fail(r) : value; /* there is one way to write a number */
        }
    }
    return reader_fail(r);
}

static struct slice take_span(struct reader *r, struct slice body)
{
    uint64_t offset = take_integer(r), size = take_integer(r);
    if (size == 0 || offset > body.size || size > body.size - offset) {
        reader_fail(r);
        return (struct slice){0};
    }
    return (struct slice){body.data + offset, (size_t)size};
}

static void take_field(struct reader *r, size_t i, struct members *members, struct slice body)
{
    struct slice literal = take_span(r, body);
    struct json_value *value = &members->field[i];
    value->text = literal;
    if (!r->failed && fields[i].type != FIELD_ANY) {
        r->failed = !jsonscan_scalar(literal, value);
        members->escaped_bytes += scratch_bytes(value);
    }
}

static bool take_checksum(struct slice *head, struct slice body)
{
    if (head->size < 4) {
        return false;
    }
    head->size -= 4;
    const unsigned char *sum = (const unsigned char *)head->data + head->size;
    return checksum(*head, body) ==
           ((uint32_t)sum[0] | (uint32_t)sum[1] << 8 | (uint32_t)sum[2] << 16 | (uint32_t)sum[3] << 24);
}

static bool read_head(struct slice head, struct event *event, struct members *members)
{
    if (!take_checksum(&head, event->body)) {
        return false;
    }
    struct reader r = reader_of(head);
    struct slice version = take_bytes(&r, 1);
    r.failed = r.failed || version.data[0] != HEAD_VERSION;
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        take_field(&r, i, members, event->body);
    }
    struct slice traceparent = take_bytes(&r, take_integer(&r));
    struct slice tracestate = take_bytes(&r, take_integer(&r));
    event_set_trace(event, traceparent, tracestate);
    return !r.failed && r.at == r.end && event->traceparent.size == traceparent.size &&
           event->tracestate.size == tracestate.size;
}

enum err event_decode(struct event *out, struct slice head, struct slice body, struct buf *scratch, struct error *why)
{
    static const char corrupt[] = "the stored event is damaged: its head does not fit its body";
    struct event event = {.body = body};
    struct members members = {0};
    if (!read_head(head, &event, &members)) {
        return error_set(why, ERR_CORRUPT, corrupt);
    }
    enum err err = reserve_scratch(scratch, members.escaped_bytes, why);
    if (err) {
        return err;
    }
    if (read_fields(&event, &members, scratch, NULL) != ERR_NONE) {
        return error_set(why, ERR_CORRUPT, corrupt);
    }
    *out = event;
    return ERR_NONE;
}

/* --- labels: two literals, with a byte in between that none can hold --- */

enum { LABEL_SEPARATOR = '\n' };

bool event_label(struct slice head, struct slice body, struct buf *out)
{
    struct reader r = reader_of(head);
    struct slice version = take_bytes(&r, 1), spans[FIELD_NAME + 1];
    r.failed = r.failed || version.data[0] != HEAD_VERSION;
    for (size_t i = 0; i <= FIELD_NAME; i++) {
        spans[i] = take_span(&r, body);
    }
    if (r.failed) {
        return false;
    }
    const struct slice app_id = spans[FIELD_APP_ID], name = spans[FIELD_NAME];
    const size_t size = app_id.size + 1 + name.size;
    char *place = buf_reserve(out, size);
    if (!place) {
        return false;
    }
    memcpy(place, app_id.data, app_id.size);
    place[app_id.size] = LABEL_SEPARATOR;
    memcpy(place + app_id.size + 1, name.data, name.size);
    place[size] = 0;
    out->size += size;
    return true;
}

static bool read_literal(size_t field, struct slice literal, struct buf *scratch, struct slice *out)
{
    struct json_value value;
    return jsonscan_document(literal, &value, NULL, NULL) == ERR_NONE &&
           read_field(&fields[field], &value, scratch, out, NULL) == ERR_NONE;
}

bool event_label_read(struct slice label, struct slice *app_id, struct slice *name, struct buf *scratch)
{
    const char *separator = label.size > 0 ? memchr(label.data, LABEL_SEPARATOR, label.size) : NULL;
    if (!separator || reserve_scratch(scratch, label.size, NULL) != ERR_NONE) {
        return false;
    }
    const size_t size = (size_t)(separator - label.data);
    return read_literal(FIELD_APP_ID, (struct slice){label.data, size}, scratch, app_id) &&
           read_literal(FIELD_NAME, (struct slice){separator + 1, label.size - size - 1}, scratch, name);
}
