/* event: one MeowFlow webhook event (meowflow.md, "The request"), as slices of the bytes that were received.
 *
 *   request body ──event_parse──▶ struct event ──event_encode_head──▶ head ─┐
 *                                      ▲                                    ├─ what the journal keeps: head and body
 *                                      └───────────event_decode─────────────┘
 * The payload is never printed again: it is a slice of the body. The head is a compact record of where each field stands in
 * the body, with the trace headers, so that publishing needs no second scan. Pure; any thread. */
#ifndef MEOWBRIDGE_EVENT_H
#define MEOWBRIDGE_EVENT_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"

#include <stdbool.h>
#include <stdint.h>

#define EVENT_KEY_BYTES 16

/* Fields are unescaped text, borrowed: from body, or from the scratch buffer where the literal held escapes. Unescaped text
 * can hold NUL and (as three bytes) lone surrogates; who passes it on encodes it. */
struct event {
    struct slice id, webhook_id, app_id, name, object_id, push_time; /* name: the member "event" */
    struct slice payload;                 /* the literal bytes of the member "payload": any JSON value */
    struct slice body;                    /* the whole request body */
    struct slice traceparent, tracestate; /* of the request's headers, well-formed; else empty */
    int64_t accepted_ms;                  /* wall clock, when the bridge took it */
    uint64_t seq;                         /* its place in the journal, 0 before it has one */
    bool is_replay;
};

/* Reads a verified request body. scratch is emptied and receives the unescaped text: it belongs to this event as long as *out
 * is used, and needs a limit of at least body.size (what is needed is reserved first, so slices stay valid).
 * Rules (contract.md 3): strict JSON; an object; no top-level member stands twice, names compared unescaped; id, webhookId,
 * appId, objectId are strings or integers, an integer standing for its literal digits; event, pushTime are strings; none of
 * these is empty but objectId and pushTime; payload is there; other members are ignored.
 * ERR_INVALID: why->text is the sentence for the 400 answer; it names the member or the byte and quotes no input beyond
 * the names of the protocol's own members. ERR_MEMORY: 503. *out is set on success only. */
MUST_CHECK enum err event_parse(struct event *out, struct slice body, struct buf *scratch, struct error *why);

/* Sets traceparent and tracestate from the request's headers if they are well-formed, else leaves them empty. W3C Trace
 * Context: version-traceid-parentid-flags in lower-case hex, not version ff, ids not all zero, a later version than 00 may go
 * on behind a dash (128 bytes at most); tracestate only beside a good traceparent, a list of at most 32 key=value members in
 * printable ASCII, at most 512 bytes. Borrowed. */
void event_set_trace(struct event *event, struct slice traceparent, struct slice tracestate);

/* The identity of (appId, id) in 16 bytes. Equal pairs give equal keys and different pairs different ones (a 128-bit digest
 * at worst). Keys of ids that are decimal numbers of up to 18 digits without leading zeros grow with the number, whatever
 * the app: byte 0..7 the number, big-endian, top bit 0; 8..15 a digest of appId. All others: a digest with the top bit set.
 * False without memory. */
MUST_CHECK bool event_key(const struct event *event, uint8_t key[EVENT_KEY_BYTES]);

/* The stored form, appended to head: about 25 bytes and the trace headers, never over EVENT_HEAD_MAX. The event must come
 * from event_parse or event_decode, and its body must still be there. */
#define EVENT_HEAD_MAX 800
void event_encode_head(const struct event *event, struct buf *head);
/* Reads a stored event. Fields are slices of body, scratch (as in event_parse) and, the trace headers, of head. seq,
 * accepted_ms and is_replay are set by the caller. ERR_CORRUPT if the head is not one that event_encode_head wrote for a body
 * of this size, as far as its checksum and the rules of event_parse for the fields can tell; nothing is read out of bounds. */
MUST_CHECK enum err event_decode(struct event *out, struct slice head, struct slice body, struct buf *scratch,
                                 struct error *why);

/* The label of a stored event for the journal (journal_options.label): its appId and its name, as literals, in few
 * instructions. False if the head is damaged; the checksum is not looked at. */
bool event_label(struct slice head, struct slice body, struct buf *out);
/* Reads one that event_label made. False if it is none. scratch as in event_parse, with a limit of at least label.size. */
bool event_label_read(struct slice label, struct slice *app_id, struct slice *name, struct buf *scratch);

#endif
