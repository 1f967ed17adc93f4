/* topic: MQTT topic templates (contract.md 5).
 *
 * A template is literal text with the placeholders {event} {appId} {webhookId} {objectId} {id}. {event} is the event's name
 * with each '.' turned into '/'. In what is filled in, '/', '+', '#', '%', a leading '$', and whatever
 * utf8_is_forbidden_in_mqtt names is percent-encoded byte by byte (upper-case hex), so that different values never give the
 * same topic and none reaches outside its level. Pure; any thread. */
#ifndef MEOWBRIDGE_TOPIC_H
#define MEOWBRIDGE_TOPIC_H

#include "meowbridge/bytes.h"
#include "meowbridge/err.h"
#include "meowbridge/event.h"

#define TOPIC_MAX_BYTES 65535

/* ERR_INVALID with a sentence for the configuration's user: empty, an unknown placeholder (the nearest known is named), an
 * unclosed or a lone brace, '+' or '#', a forbidden character, no UTF-8, over TOPIC_MAX_BYTES. */
MUST_CHECK enum err topic_check_template(struct slice template, struct error *why);
/* The same for the status topic, whose only placeholder is {client_id}. */
MUST_CHECK enum err topic_check_status_template(struct slice template, struct error *why);

/* Appends the topic of this event. The template must have passed topic_check_template. Nothing is appended long after
 * TOPIC_MAX_BYTES are passed, however long the values are (320 KiB at most in all), so out->failed means no memory, or a limit
 * that leaves less room than that. The caller checks for a topic that is empty or over TOPIC_MAX_BYTES. */
void topic_expand(struct buf *out, struct slice template, const struct event *event);
void topic_expand_status(struct buf *out, struct slice template, struct slice client_id);

/* The two encodings of an event's other strings. Text over TOPIC_MAX_BYTES, for which MQTT has no room, is cut short, but
 * what is appended is then still over TOPIC_MAX_BYTES (192 KiB at most), so that the caller sees it. */

/* Appends text with whatever MQTT or CloudEvents forbids in a string percent-encoded; all else, '%' too, stays as it is. */
void topic_append_mqtt_text(struct buf *out, struct slice text);
/* Appends text as a path segment of a URI (RFC 3986, 3.3): all but its unreserved characters is percent-encoded. */
void topic_append_uri_segment(struct buf *out, struct slice text);

#endif
