#include "fake_journal.h"

#include "meowbridge/clock.h"
#include "meowbridge/event.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_EVENTS 4096

struct journal {
    pthread_mutex_t lock;
    bool keeps;
    struct journal_event *events[MAX_EVENTS + 1]; /* by seq */
    char *reasons[MAX_EVENTS + 1];
    uint64_t last, claimed, settled;
    int settle_calls, rewinds;
    char link[256];
    const char *claim_trouble;
    bool refuse_burials;
    int failures;
};

static void lock(struct journal *journal)
{
    pthread_mutex_lock(&journal->lock);
}

static void unlock(struct journal *journal)
{
    pthread_mutex_unlock(&journal->lock);
}

struct journal *fake_journal_open(bool keeps)
{
    struct journal *journal = calloc(1, sizeof *journal);
    ASSERT(journal);
    pthread_mutex_init(&journal->lock, NULL);
    journal->keeps = keeps;
    snprintf(journal->link, sizeof journal->link, "never told");
    return journal;
}

static void give_back(struct journal *journal, uint64_t seq)
{
    struct journal_event *event = journal->events[seq];
    journal->events[seq] = NULL;
    if (event) {
        free((char *)event->head.data);
        free((char *)event->body.data);
        free(event);
    }
}

void fake_journal_close(struct journal **journal)
{
    for (uint64_t seq = 1; seq <= (*journal)->last; seq++) {
        give_back(*journal, seq);
        free((*journal)->reasons[seq]);
    }
    pthread_mutex_destroy(&(*journal)->lock);
    free(*journal);
    *journal = NULL;
}

static void add(struct journal *journal, struct slice head, struct slice body)
{
    struct journal_event *event = calloc(1, sizeof *event);
    ASSERT(event && journal->last < MAX_EVENTS);
    event->seq = ++journal->last;
    event->accepted_ms = clock_wall_ms();
    event->head = (struct slice){slice_dup(head), head.size};
    event->body = (struct slice){slice_dup(body), body.size};
    journal->events[event->seq] = event;
}

uint64_t fake_journal_add_sized(struct journal *journal, int id, const char *event_name, size_t payload_bytes)
{
    struct buf body, scratch, head;
    buf_init(&body, 1 << 24);
    buf_init(&scratch, 1 << 24);
    buf_init(&head, 1 << 20);
    buf_appendf(
        &body,
        "{\"id\":\"%d\",\"webhookId\":\"7\",\"appId\":\"12345\",\"event\":\"%s\",\"objectId\":\"o\\u0041\",\"payload\":", id,
        event_name);
    if (payload_bytes) {
        buf_append_char(&body, '"');
        for (size_t i = 2; i < payload_bytes; i++) {
            buf_append_char(&body, 'x');
        }
        buf_append_char(&body, '"');
    } else {
        buf_appendf(&body, "{\"n\":%d}", id);
    }
    buf_append_text(&body, ",\"pushTime\":\"2024-08-31T12:00:00Z\"}");
    struct event event = {0};
    struct error why;
    enum err err = event_parse(&event, buf_slice(&body), &scratch, &why);
    ASSERT(err == ERR_NONE);
    event_encode_head(&event, &head);
    ASSERT(!head.failed && !body.failed);
    lock(journal);
    add(journal, buf_slice(&head), buf_slice(&body));
    uint64_t seq = journal->last;
    unlock(journal);
    buf_free(&body);
    buf_free(&scratch);
    buf_free(&head);
    return seq;
}

uint64_t fake_journal_add(struct journal *journal, int id, const char *event_name)
{
    return fake_journal_add_sized(journal, id, event_name, 0);
}

void fake_journal_damage(struct journal *journal, uint64_t seq)
{
    struct slice *head = &journal->events[seq]->head;
    memset((char *)head->data, 0xee, head->size);
}

uint64_t fake_journal_settled(struct journal *journal)
{
    lock(journal);
    uint64_t settled = journal->settled;
    unlock(journal);
    return settled;
}

int fake_journal_settle_calls(struct journal *journal)
{
    return journal->settle_calls;
}

const char *fake_journal_reason(struct journal *journal, uint64_t seq)
{
    return journal->reasons[seq];
}

uint64_t fake_journal_claimed(struct journal *journal)
{
    return journal->claimed;
}

int fake_journal_rewinds(struct journal *journal)
{
    return journal->rewinds;
}

const char *fake_journal_link(struct journal *journal)
{
    return journal->link;
}

void fake_journal_fail_claims(struct journal *journal, const char *text)
{
    journal->claim_trouble = text;
}

int fake_journal_failures(struct journal *journal)
{
    return journal->failures;
}

void fake_journal_refuse_burials(struct journal *journal, bool refuse)
{
    journal->refuse_burials = refuse;
}

enum err journal_claim(struct journal *journal, size_t max, size_t max_bytes, struct journal_event **list, struct error *why)
{
    *list = NULL;
    if (journal->claim_trouble) {
        journal->failures++;
        return error_set(why, ERR_IO, "%s", journal->claim_trouble);
    }
    lock(journal);
    struct journal_event **end = list;
    size_t bytes = 0;
    for (size_t n = 0; n < max && journal->claimed < journal->last; n++) {
        struct journal_event *event = journal->events[journal->claimed + 1];
        bytes += event->head.size + event->body.size;
        if (n > 0 && bytes > max_bytes) {
            break;
        }
        journal->claimed++;
        event->next = NULL;
        *end = event;
        end = &event->next;
    }
    unlock(journal);
    return ERR_NONE;
}

void journal_settle(struct journal *journal, uint64_t seq)
{
    lock(journal);
    ASSERT(seq <= journal->claimed && seq > journal->settled);
    while (journal->settled < seq) {
        give_back(journal, ++journal->settled);
    }
    journal->settle_calls++;
    unlock(journal);
}

enum err journal_bury(struct journal *journal, uint64_t seq, const char *reason, struct error *why)
{
    if (journal->refuse_burials) {
        journal->failures++;
        return error_set(why, ERR_BUSY, "too many burials wait");
    }
    lock(journal);
    ASSERT(seq <= journal->claimed && seq > journal->settled && !journal->reasons[seq]);
    journal->reasons[seq] = strdup(reason);
    unlock(journal);
    return ERR_NONE;
}

void journal_rewind(struct journal *journal)
{
    lock(journal);
    journal->claimed = journal->settled;
    journal->rewinds++;
    unlock(journal);
}

void journal_link(struct journal *journal, bool up, const char *why)
{
    lock(journal);
    snprintf(journal->link, sizeof journal->link, "%s", up ? "up" : why ? why : "the broker is away");
    if (!up && !journal->keeps) { /* what waits is refused, and settled by itself */
        while (journal->settled < journal->last) {
            give_back(journal, ++journal->settled);
        }
    }
    unlock(journal);
}

bool journal_keeps(const struct journal *journal)
{
    return journal->keeps;
}
