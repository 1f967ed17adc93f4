#include "publisher_window.h"

#include <stdlib.h>
#include <string.h>

static char reason_without_memory[] = "it cannot be published, and there was no memory to say why";

enum err window_open(struct window *window, size_t min_events, size_t flights, struct error *why)
{
    size_t capacity = 1;
    while (capacity < min_events) {
        capacity *= 2;
    }
    *window = (struct window){.capacity = capacity, .flight_capacity = flights};
    window->slots = calloc(capacity, sizeof *window->slots);
    window->flights = calloc(flights, sizeof *window->flights);
    if (!window->slots || !window->flights) {
        window_close(window);
        return error_set(why, ERR_MEMORY, "no memory for a window of %zu events", capacity);
    }
    return ERR_NONE;
}

void window_close(struct window *window)
{
    if (window->slots) {
        window_clear(window);
    }
    free(window->slots);
    free(window->flights);
    *window = (struct window){0};
}

static void slot_reset(struct slot *slot)
{
    route_table_unref(&slot->routes);
    if (slot->reason != reason_without_memory) {
        free(slot->reason);
    }
    *slot = (struct slot){0};
}

void window_clear(struct window *window)
{
    for (uint64_t place = window->head; place < window->tail; place++) {
        slot_reset(window_slot(window, place));
    }
    window->head = window->next = window->tail;
    window->bytes = 0;
    window->flight_count = 0;
}

bool window_is_empty(const struct window *window)
{
    return window->head == window->tail;
}

size_t window_room(const struct window *window)
{
    return window->capacity - (size_t)(window->tail - window->head);
}

struct slot *window_slot(struct window *window, uint64_t place)
{
    ASSERT(place >= window->head && place < window->tail);
    return &window->slots[place & (window->capacity - 1)];
}

static size_t stored_bytes(const struct journal_event *stored)
{
    return stored->head.size + stored->body.size;
}

void window_add(struct window *window, const struct journal_event *stored)
{
    ASSERT(window_room(window) > 0);
    window->tail++;
    window_slot(window, window->tail - 1)->stored = stored;
    window->bytes += stored_bytes(stored);
}

void window_release(struct window *window)
{
    struct slot *slot = window_slot(window, window->head);
    window->bytes -= stored_bytes(slot->stored);
    slot_reset(slot);
    window->head++;
    if (window->next < window->head) {
        window->next = window->head;
    }
}

struct slot *window_next(struct window *window)
{
    while (window->next < window->tail) {
        struct slot *slot = window_slot(window, window->next);
        if (slot_is_to_send(slot)) {
            return slot;
        }
        window->next++;
    }
    return NULL;
}

void window_sent(struct window *window, uint64_t place, unsigned number, int mid, bool unheard_is_dead, int64_t now_ms)
{
    struct slot *slot = window_slot(window, place);
    uint64_t bit = UINT64_C(1) << number;
    ASSERT(window->flight_count < window->flight_capacity);
    ASSERT(!((slot->in_flight | slot->done) & bit));
    slot->in_flight |= bit;
    slot->tried |= bit;
    slot->sent_ms = now_ms;
    window->flights[window->flight_count++] = (struct flight){.mid = mid,
                                                              .rendering = slot->rendering,
                                                              .place = place,
                                                              .number = (uint8_t)number,
                                                              .unheard_is_dead = unheard_is_dead};
}

bool window_landed(struct window *window, int mid, struct flight *flight)
{
    for (size_t i = 0; i < window->flight_count; i++) {
        if (window->flights[i].mid != mid) {
            continue;
        }
        *flight = window->flights[i];
        window->flights[i] = window->flights[--window->flight_count];
        struct slot *slot = window_owner(window, flight);
        if (slot) {
            slot->in_flight &= ~(UINT64_C(1) << flight->number);
            slot->done |= UINT64_C(1) << flight->number;
        }
        return true;
    }
    return false;
}

struct slot *window_owner(struct window *window, const struct flight *flight)
{
    if (flight->place < window->head) {
        return NULL;
    }
    struct slot *slot = window_slot(window, flight->place);
    return slot->rendering == flight->rendering ? slot : NULL;
}

void window_retry(struct window *window, const struct flight *flight)
{
    struct slot *slot = window_owner(window, flight);
    if (!slot) {
        return;
    }
    slot->done &= ~(UINT64_C(1) << flight->number);
    if (window->next > flight->place) {
        window->next = flight->place;
    }
}

void window_lost(struct window *window)
{
    for (uint64_t place = window->head; place < window->tail; place++) {
        window_slot(window, place)->in_flight = 0;
    }
    window->flight_count = 0;
    window->next = window->head;
}

bool window_in_flight(struct window *window, uint64_t *first, uint64_t *last)
{
    bool any = false;
    for (uint64_t place = window->head; place < window->tail; place++) {
        if (window_slot(window, place)->in_flight) {
            *first = any ? *first : place;
            *last = place;
            any = true;
        }
    }
    return any;
}

uint64_t slot_all(const struct slot *slot)
{
    return slot->count < 64 ? (UINT64_C(1) << slot->count) - 1 : UINT64_MAX;
}

bool slot_is_to_send(const struct slot *slot)
{
    if (slot->count == 0) {
        return !slot->reason;
    }
    return (slot->done | slot->in_flight) != slot_all(slot);
}

bool slot_has_begun(const struct slot *slot)
{
    return slot->done || slot->in_flight;
}

bool slot_is_complete(const struct slot *slot)
{
    return !slot_is_to_send(slot) && !slot->in_flight;
}

void slot_rendered(struct slot *slot, unsigned count, int64_t wall_ms)
{
    ASSERT(count > 0 && count <= ROUTE_MAX_MESSAGES);
    if (slot->count != count) {
        slot->rendering++;
        slot->done = slot->in_flight = 0;
        slot->count = count;
    }
    slot->rendered_ms = wall_ms;
}

void slot_blame(struct slot *slot, const char *reason)
{
    if (slot->reason) {
        return;
    }
    slot->reason = strdup(reason);
    if (!slot->reason) {
        slot->reason = reason_without_memory;
    }
}

void slot_kill(struct slot *slot, const char *reason)
{
    slot_blame(slot, reason);
    slot->done = slot_all(slot) & ~slot->in_flight;
}
