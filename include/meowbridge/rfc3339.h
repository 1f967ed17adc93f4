/* rfc3339: moments as people and MeowFlow write them. clock_rfc3339 (clock.h) prints them. Pure; any thread. */
#ifndef MEOWBRIDGE_RFC3339_H
#define MEOWBRIDGE_RFC3339_H

#include "meowbridge/bytes.h"

#include <stdbool.h>
#include <stdint.h>

/* True if text is a date-time of RFC 3339 (5.6, 5.7) with values that the calendar knows, leap seconds included, and nothing
 * else. *wall_ms (may be NULL): milliseconds since 1970-01-01T00:00:00Z, cut; a leap second counts as the second after it. */
bool rfc3339_parse(struct slice text, int64_t *wall_ms);

#endif
