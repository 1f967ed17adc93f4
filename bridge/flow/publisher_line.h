/* publisher_line: the line of events from the journal to the broker: claims, renders, sends, judges the answers, settles and
 * buries. It knows connections only as "there is one" and "it is lost"; their life is publisher_uplink's. One thread. */
#ifndef MEOWBRIDGE_PUBLISHER_LINE_H
#define MEOWBRIDGE_PUBLISHER_LINE_H

#include "meowbridge/err.h"
#include "meowbridge/journal.h"
#include "meowbridge/mqtt_client.h"
#include "meowbridge/route.h"

#include <stdbool.h>
#include <stdint.h>

/* What a connection was lost over, possibly (invariant P4).
 *
 * A broker that closes the connection shortly after a message was sent may mean that message, or may have been stopped. Three
 * things tell them apart. The accused is sent alone from then on, so the blame is not shared and an innocent one has only the
 * moment of its own round trip in which the broker could be stopped. The verdict waits for the next attempt to connect: a
 * broker that took offence is there at once, a broker that was stopped is mostly not. And only a loss within seconds of
 * sending counts, never silence and never a DISCONNECT that speaks of the broker's own troubles. A message that brings the
 * broker down each time would pass for a series of outages; after ten of them it is believed. */
struct blame {
    uint64_t accused; /* the event's sequence number; 0: nobody */
    bool is_open;     /* the verdict waits for the next attempt */
    unsigned strikes; /* the broker was there afterwards */
    unsigned outages; /* it was not */
};
#define BLAME_MAX_STRIKES 3
#define BLAME_MAX_OUTAGES 10
void blame_accuse(struct blame *blame, uint64_t accused);
void blame_broker_is_there(struct blame *blame);
void blame_broker_is_away(struct blame *blame);
bool blame_is_proven(const struct blame *blame);
const char *blame_reason(const struct blame *blame); /* if it is proven */

/* An event is dead after so many doubtful refusals (invariant P3). */
#define LINE_MAX_DOUBTS 8

struct line;

MUST_CHECK enum err line_open(struct line **out, struct journal *journal, struct route_table *routes, int version,
                              unsigned inflight, int64_t max_rate, struct error *why);
void line_close(struct line **line); /* accepts NULL; gives claimed events back to the journal */
void line_set_routes(struct line *line, struct route_table *routes); /* takes a reference */
void line_wake(struct line *line);                                   /* there may be something to claim */

/* A broker has accepted us: events may go from the next turn on. True if the event that cost the last connections is buried
 * now, so that they may last again. */
bool line_connected(struct line *line);
/* An attempt to come back to the broker that was lost has failed. */
void line_unreachable(struct line *line);
/* The connection is lost. closed_by_broker: it may have been over one of our messages. True if it was over one that the broker
 * refused for good just before, as some do (Mosquitto 2.0): then nobody else is to blame, and the next connection can be better. */
bool line_lost(struct line *line, bool closed_by_broker, const char *why);

/* Claims and sends what may be sent now. True if it sent anything, whose answer may be there already. */
bool line_turn(struct line *line, struct mqtt_client *client);
void line_acked(struct line *line, int mid, uint8_t reason_code);
/* Settles and buries what is complete at the head. True if there was any, so that there is room to claim. Once a turn. */
bool line_settle(struct line *line);
/* When line_turn wants to be called again though nothing happens: clock_mono_ms, INT64_MAX for never. Right after line_turn
 * and line_settle. */
int64_t line_due_ms(const struct line *line);

/* From now on a journal that keeps is claimed from no more, and no event is begun; one whose senders wait for the answer is
 * emptied. */
void line_stop(struct line *line);
bool line_is_drained(struct line *line); /* after line_stop: there is nothing to wait for */
unsigned line_in_flight(const struct line *line);
/* Some event is accused: it pays to make sure that a connection stands before anything is sent. */
bool line_is_wary(const struct line *line);

#endif
