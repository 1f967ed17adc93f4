/* A journal's row that was damaged, or made by somebody else: an error, or an event whose fields lie where they may.
 * Input: a byte that chooses; then either a number of changes (two bytes of place, one that is flipped into it) and a body whose
 * own head is changed, or the size of a head, the head, and the body. The checksum is made to fit in half of the cases, so that
 * what stands behind it is reached. */
#include "fuzz.h"

#include "meowbridge/event.h"
#include "meowbridge/jsonscan.h"

enum { FITS = 1, OWN = 2 };

static bool lies_within(struct slice inner, struct slice outer)
{
    return inner.size == 0 || (inner.data >= outer.data && inner.data + inner.size <= outer.data + outer.size);
}

static void fit_checksum(char *head, size_t size, size_t body_size)
{
    uint32_t sum = 2166136261u ^ (uint32_t)body_size;
    if (size < 4) {
        return;
    }
    for (size_t i = 0; i + 4 < size; i++) {
        sum = (sum ^ (unsigned char)head[i]) * 16777619u;
    }
    for (unsigned i = 0; i < 4; i++) {
        head[size - 4 + i] = (char)(sum >> 8 * i);
    }
}

/* Of a good event (not NULL) its label tells appId and name. */
static void check_label(struct slice head, struct slice body, const struct event *event)
{
    struct slice app_id, name;
    struct buf label, scratch;
    buf_init(&label, body.size * 2 + 1);
    buf_init(&scratch, body.size * 2 + 1);
    bool has_label = event_label(head, body, &label);
    bool is_read = has_label && event_label_read(buf_slice(&label), &app_id, &name, &scratch);
    ASSERT(!event || (is_read && slice_equal(app_id, event->app_id) && slice_equal(name, event->name)));
    buf_free(&label);
    buf_free(&scratch);
}

static void check(struct slice head, struct slice body)
{
    struct event event;
    struct error why = {0};
    struct buf scratch;
    buf_init(&scratch, body.size);
    enum err err = event_decode(&event, head, body, &scratch, &why);
    if (err) {
        ASSERT(err == ERR_CORRUPT && why.code == ERR_CORRUPT && why.text[0]);
    } else {
        const struct slice fields[] = {event.id, event.webhook_id, event.app_id, event.name, event.object_id, event.push_time};
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
            ASSERT(lies_within(fields[i], body) || lies_within(fields[i], buf_slice(&scratch)));
            ASSERT(fuzz_is_utf8(fields[i], true));
        }
        ASSERT(event.payload.size > 0 && lies_within(event.payload, body));
        ASSERT(lies_within(event.traceparent, head) && lies_within(event.tracestate, head));
        ASSERT(event.id.size > 0 && event.webhook_id.size > 0 && event.app_id.size > 0 && event.name.size > 0);
    }
    check_label(head, body, err ? NULL : &event);
    buf_free(&scratch);
}

/* The head that event_encode_head writes for this body, in memory of its own; empty if it is no event. */
static struct slice own_head(struct fuzz_input *in, struct slice body)
{
    struct event event;
    struct buf scratch, head;
    struct slice own = {0};
    buf_init(&scratch, body.size);
    buf_init(&head, EVENT_HEAD_MAX);
    if (event_parse(&event, body, &scratch, NULL) == ERR_NONE) {
        event_set_trace(&event, SLICE("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), SLICE("a=1,b=2"));
        event_encode_head(&event, &head);
        ASSERT(!head.failed);
        own = fuzz_own(in, buf_slice(&head));
    }
    buf_free(&scratch);
    buf_free(&head);
    return own;
}

static void change(struct slice changes, struct slice head, struct slice body)
{
    for (; changes.size >= 3; changes = (struct slice){changes.data + 3, changes.size - 3}) {
        size_t at = (size_t)(uint8_t)changes.data[0] << 8 | (uint8_t)changes.data[1];
        at %= head.size + body.size;
        char *place = (char *)(at < head.size ? head.data + at : body.data + (at - head.size));
        *place = (char)(*place ^ changes.data[2]);
    }
}

static struct slice take(struct fuzz_input *in, size_t size)
{
    size = size < in->rest.size ? size : in->rest.size;
    struct slice taken = {in->rest.data, size};
    in->rest = (struct slice){in->rest.data + size, in->rest.size - size};
    return fuzz_own(in, taken);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    struct fuzz_input in = fuzz_begin(data, size);
    uint8_t mode = fuzz_byte(&in), count = fuzz_byte(&in);
    struct slice front = take(&in, mode & OWN ? count % 8 * 3u : count), body = fuzz_rest(&in);
    struct slice head = mode & OWN ? own_head(&in, body) : front;
    if (mode & OWN && head.size > 0) {
        change(front, head, body);
    }
    if (mode & FITS) {
        fit_checksum((char *)head.data, head.size, body.size);
    }
    check(head, body);
    fuzz_end(&in);
    return 0;
}
