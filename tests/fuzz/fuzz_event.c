/* A request body to an event, its stored head and back. Input: body, traceparent, tracestate. */
#include "fuzz.h"

#include "meowbridge/event.h"
#include "meowbridge/jsonscan.h"

enum { FIELDS = 7, MAX_NAMES = 64 };

static void fields_of(const struct event *event, struct slice out[FIELDS])
{
    const struct slice fields[FIELDS] = {event->id,        event->webhook_id, event->app_id,   event->name,
                                         event->object_id, event->payload,    event->push_time};
    memcpy(out, fields, sizeof fields);
}

static bool lies_within(struct slice inner, struct slice outer)
{
    return outer.size > 0 && inner.data >= outer.data && inner.data + inner.size <= outer.data + outer.size;
}

/* The rules of contract.md 3, without the module's table: every member once, and what the fields hold. */
static void check_members(struct slice body)
{
    struct json_value object, key, value;
    struct json_iterator it;
    struct slice names[MAX_NAMES];
    struct buf scratch;
    size_t count = 0;
    buf_init(&scratch, body.size);
    ASSERT(buf_reserve(&scratch, body.size));
    ASSERT(jsonscan_document(body, &object, NULL, NULL) == ERR_NONE && object.type == JSON_OBJECT);
    for (jsonscan_enter(&it, &object); count < MAX_NAMES && jsonscan_next(&it, &key, &value);) {
        names[count++] = jsonscan_unescape(&key, &scratch);
        for (size_t i = 0; i + 1 < count; i++) {
            ASSERT(!slice_equal(names[i], names[count - 1]));
        }
    }
    buf_free(&scratch);
}

static void check_fields(const struct event *event, struct slice body, const struct buf *scratch)
{
    struct slice fields[FIELDS];
    struct json_value value;
    fields_of(event, fields);
    for (size_t i = 0; i < FIELDS; i++) {
        ASSERT(lies_within(fields[i], body) || lies_within(fields[i], buf_slice(scratch)));
        ASSERT(fuzz_is_utf8(fields[i], true));
    }
    ASSERT(event->id.size > 0 && event->webhook_id.size > 0 && event->app_id.size > 0 && event->name.size > 0);
    ASSERT(lies_within(event->payload, body) && slice_equal(event->body, body));
    ASSERT(jsonscan_document(event->payload, &value, NULL, NULL) == ERR_NONE && slice_equal(value.text, event->payload));
}

static void check_same(const struct event *a, const struct event *b)
{
    struct slice of_a[FIELDS], of_b[FIELDS];
    uint8_t key_a[EVENT_KEY_BYTES], key_b[EVENT_KEY_BYTES];
    fields_of(a, of_a);
    fields_of(b, of_b);
    for (size_t i = 0; i < FIELDS; i++) {
        ASSERT(slice_equal(of_a[i], of_b[i]));
    }
    ASSERT(a->payload.data == b->payload.data);
    ASSERT(slice_equal(a->traceparent, b->traceparent) && slice_equal(a->tracestate, b->tracestate));
    ASSERT(event_key(a, key_a) && event_key(b, key_b) && memcmp(key_a, key_b, sizeof key_a) == 0);
}

/* What is stored comes back the same, and is the same when stored again. */
static void check_stored(const struct event *event)
{
    struct buf head, again, scratch;
    struct event decoded;
    buf_init(&head, EVENT_HEAD_MAX);
    buf_init(&again, EVENT_HEAD_MAX);
    buf_init(&scratch, event->body.size);
    event_encode_head(event, &head);
    ASSERT(!head.failed && event_decode(&decoded, buf_slice(&head), event->body, &scratch, NULL) == ERR_NONE);
    check_same(event, &decoded);
    event_encode_head(&decoded, &again);
    ASSERT(slice_equal(buf_slice(&head), buf_slice(&again)));
    buf_free(&head);
    buf_free(&again);
    buf_free(&scratch);
}

static void check_trace(const struct event *event, struct slice traceparent, struct slice tracestate)
{
    ASSERT(event->traceparent.size == 0 || slice_equal(event->traceparent, traceparent));
    ASSERT(event->tracestate.size == 0 || slice_equal(event->tracestate, tracestate));
    ASSERT(event->traceparent.size > 0 || event->tracestate.size == 0);
    for (size_t i = 0; i < event->traceparent.size; i++) {
        ASSERT(event->traceparent.data[i] > ' ' && event->traceparent.data[i] <= '~');
    }
    for (size_t i = 0; i < event->tracestate.size; i++) {
        ASSERT(event->tracestate.data[i] >= ' ' && event->tracestate.data[i] <= '~');
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    struct slice body = fuzz_field(&in), traceparent = fuzz_field(&in), tracestate = fuzz_field(&in);
    struct event event;
    struct error why = {0};
    struct buf scratch;
    buf_init(&scratch, body.size);
    enum err err = event_parse(&event, body, &scratch, &why);
    if (err) {
        ASSERT(err == ERR_INVALID && why.code == ERR_INVALID && why.text[0] && fuzz_is_utf8(slice_of(why.text), false));
    } else {
        check_members(body);
        check_fields(&event, body, &scratch);
        event_set_trace(&event, traceparent, tracestate);
        check_trace(&event, traceparent, tracestate);
        check_stored(&event);
    }
    buf_free(&scratch);
    fuzz_end(&in);
    return 0;
}
