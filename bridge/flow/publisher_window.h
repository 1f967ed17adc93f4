/* publisher_window: the events that are being published, and which of their messages are where. Pure bookkeeping: nothing is
 * sent, nothing is settled, no clock is read.
 *
 *      head             next                 tail
 *       │ settled in     │ the first that     │
 *       ▼ this order     ▼ may have to be sent▼        a message:  to send ──▶ in flight ──▶ done
 *   ────┬────┬────┬────┬────┬────┬────┬────┬────                      ▲ RETRY, or  │
 *       │ ✓  │ in flight │ to send           │                        └─ lost ◀────┘
 *   ────┴────┴────┴────┴────┴────┴────┴────┴────
 *
 * head, next and tail are places that only grow: head <= next <= tail <= head + capacity. A message is named by its event's
 * place, the event's rendering, and its number in it. Messages themselves are not kept: they are rendered again to be sent
 * again. */
#ifndef MEOWBRIDGE_PUBLISHER_WINDOW_H
#define MEOWBRIDGE_PUBLISHER_WINDOW_H

#include "meowbridge/err.h"
#include "meowbridge/journal.h"
#include "meowbridge/route.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One event. A message is one bit; done and in_flight exclude each other. */
struct slot {
    const struct journal_event *stored; /* lent by the journal until it is settled */
    struct route_table *routes;         /* what it was rendered with (a reference); NULL before */
    unsigned count;                     /* its messages; 0 until it is rendered */
    unsigned rendering;                 /* counts up when the numbers of its messages change their meaning */
    uint64_t done, in_flight;
    uint64_t tried;      /* sent at some time */
    int64_t rendered_ms; /* wall clock of the rendering: the same again gives the same messages */
    int64_t sent_ms;     /* monotonic, of the last message */
    unsigned doubts;     /* pauses in which it was refused doubtfully while it was the oldest */
    uint64_t doubted;    /* the last of those pauses, by number */
    char *reason;        /* why it is dead; NULL: it is not. Owned unless it is reason_without_memory */
};

/* One message in flight. */
struct flight {
    int mid;
    unsigned rendering;
    uint64_t place;
    uint8_t number;
    bool unheard_is_dead;
};

struct window {
    struct slot *slots; /* a ring of capacity, a power of two */
    size_t capacity;
    uint64_t head, next, tail;
    size_t bytes; /* of heads and bodies held */
    struct flight *flights;
    size_t flight_count, flight_capacity;
};

MUST_CHECK enum err window_open(struct window *window, size_t min_events, size_t flights, struct error *why);
void window_close(struct window *window);
/* Forgets all events and flights. Reads no event, so the journal may have taken them back. */
void window_clear(struct window *window);

bool window_is_empty(const struct window *window);
size_t window_room(const struct window *window); /* events that may be added */
void window_add(struct window *window, const struct journal_event *stored);
struct slot *window_slot(struct window *window, uint64_t place);
/* Takes the event at the head out. */
void window_release(struct window *window);

/* Moves next over what needs no sending, and gives the event there, or NULL if everything is sent. */
struct slot *window_next(struct window *window);

/* slot is the one at place; number is one of its messages that was to be sent. */
void window_sent(struct window *window, uint64_t place, unsigned number, int mid, bool unheard_is_dead, int64_t now_ms);
/* Takes a message out of flight. False: none has this mid. What becomes of it, window_done or window_retry, is the caller's.
 * flight->place may be behind head by then (a rendering that was given up): window_owner tells. */
bool window_landed(struct window *window, int mid, struct flight *flight);
/* The event that a flight belongs to, or NULL if it is gone or its messages have got other numbers. */
struct slot *window_owner(struct window *window, const struct flight *flight);
void window_retry(struct window *window, const struct flight *flight); /* to send again, before all that follow */
/* The connection is lost: what was in flight is to be sent again. */
void window_lost(struct window *window);
/* The first and the last event with a message in flight. False: nothing is in flight. */
bool window_in_flight(struct window *window, uint64_t *first, uint64_t *last);

/* All messages of a rendering, as bits. */
uint64_t slot_all(const struct slot *slot);
bool slot_is_to_send(const struct slot *slot);
bool slot_has_begun(const struct slot *slot); /* a message is done or in flight */
/* Nothing is left to send or to wait for: it is published, or dead where it has a reason. */
bool slot_is_complete(const struct slot *slot);
/* Its rendering now has count messages. If that is another number than before, the event begins anew: a message too many
 * rather than one too few. */
void slot_rendered(struct slot *slot, unsigned count, int64_t wall_ms);
/* The event is dead; the first reason stays. Its other messages are still sent. */
void slot_blame(struct slot *slot, const char *reason);
/* The event is dead and nothing more of it is sent. */
void slot_kill(struct slot *slot, const char *reason);

#endif
