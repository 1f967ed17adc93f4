/* bench_fill_journal: makes a journal as a bridge leaves it that has taken so many events.
 *
 *   bench_fill_journal [-n EVENTS] [-p PENDING] [-s BODY-BYTES] [-i FIRST-ID] [-r RARE] PATH
 *
 * The last PENDING events are not published yet. Every RARE-th one is named workflowTask.cancelled, the others
 * workflowTask.completed. The ids grow, as the journal's events came in that order. */
#include "sample.h"
#include "tool.h"

#include "meowbridge/clock.h"
#include "meowbridge/event.h"
#include "meowbridge/journal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 512 };

struct filler {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    size_t left; /* of the batch under way */
    struct journal *journal;
    struct samples samples;
    struct buf scratch, head;
    uint64_t rare; /* 0: none */
    struct journal_append appends[BATCH];
};

static void appended(void *ctx, struct journal_append *batch)
{
    struct filler *filler = ctx;
    pthread_mutex_lock(&filler->lock);
    for (; batch; batch = batch->next) {
        if (batch->outcome != JOURNAL_STORED) {
            tool_die("an event was not stored: %s", batch->why ? batch->why : "known already");
        }
        filler->left--;
    }
    pthread_cond_signal(&filler->wake);
    pthread_mutex_unlock(&filler->lock);
}

static void claimable(void *ctx)
{
    (void)ctx;
}

static struct journal_event *make_event(struct filler *filler, uint64_t n)
{
    const struct samples *samples = &filler->samples;
    struct sample sample;
    struct event event;
    struct error why;
    uint8_t key[EVENT_KEY_BYTES];
    char *body = tool_alloc(samples->body_bytes);
    samples_make(samples, n, &sample);
    memcpy(body, sample.head, samples->head_bytes);
    memcpy(body + samples->head_bytes, sample.filler, samples->filler_bytes);
    memcpy(body + samples->head_bytes + samples->filler_bytes, sample.tail, samples->tail_bytes);
    if (filler->rare > 0 && n % filler->rare == filler->rare / 2) {
        static const char usual[] = "completed", rare[] = "cancelled";
        memcpy(memmem(body, samples->body_bytes, usual, sizeof usual - 1), rare, sizeof rare - 1);
    }
    if (event_parse(&event, (struct slice){body, samples->body_bytes}, &filler->scratch, &why) != ERR_NONE ||
        !event_key(&event, key)) {
        tool_die("the event is none: %s", why.text);
    }
    buf_reset(&filler->head);
    event_encode_head(&event, &filler->head);
    struct journal_event *made = journal_event_new(key, clock_wall_ms(), buf_slice(&filler->head), body, samples->body_bytes);
    if (!made) {
        tool_die("no memory");
    }
    return made;
}

static void append(struct filler *filler, uint64_t first, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        filler->appends[i] = (struct journal_append){.next = i + 1 < count ? &filler->appends[i + 1] : NULL,
                                                     .event = make_event(filler, first + i)};
    }
    filler->left = count;
    journal_append(filler->journal, filler->appends);
    pthread_mutex_lock(&filler->lock);
    while (filler->left > 0) {
        pthread_cond_wait(&filler->wake, &filler->lock);
    }
    pthread_mutex_unlock(&filler->lock);
}

/* Claims what is there and settles it as published, up to an event. */
static void settle(struct filler *filler, uint64_t upto)
{
    struct journal_event *list;
    struct error why;
    for (uint64_t last = 1; last > 0;) {
        if (journal_claim(filler->journal, 1024, 1 << 20, &list, &why) != ERR_NONE) {
            tool_die("claim: %s", why.text);
        }
        for (last = 0; list && list->seq <= upto; list = list->next) {
            last = list->seq;
        }
        if (last > 0) {
            journal_settle(filler->journal, last);
        }
    }
}

int main(int argc, char **argv)
{
    static struct filler filler = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    size_t events = 1000000, pending = 0, body_bytes = 600;
    uint64_t first_id = 151066840347062275;
    tool_name = "bench_fill_journal";
    for (int option; (option = getopt(argc, argv, "n:p:s:i:r:")) != -1;) {
        switch (option) {
        case 'n':
            events = tool_number(optarg);
            break;
        case 'p':
            pending = tool_number(optarg);
            break;
        case 's':
            body_bytes = tool_number(optarg);
            break;
        case 'i':
            first_id = tool_number(optarg);
            break;
        case 'r':
            filler.rare = tool_number(optarg);
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != argc || pending > events) {
        fprintf(stderr, "usage: bench_fill_journal [options] PATH\n");
        return 2;
    }
    const struct journal_options options = {
        .path = argv[optind], .retention_ms = INT64_C(7) * 86400 * 1000, .label = event_label};
    const struct journal_hooks hooks = {appended, &filler, claimable, NULL};
    struct error why;
    samples_init(&filler.samples, body_bytes, first_id, false);
    buf_init(&filler.scratch, body_bytes);
    buf_init(&filler.head, EVENT_HEAD_MAX);
    if (journal_open_sqlite(&filler.journal, &options, &why) != ERR_NONE ||
        journal_start(filler.journal, &hooks, &why) != ERR_NONE) {
        tool_die("%s: %s", argv[optind], why.text);
    }
    for (size_t n = 0; n < events; n += BATCH) {
        append(&filler, n, events - n < BATCH ? events - n : BATCH);
        settle(&filler, events - pending);
    }
    journal_close(&filler.journal);
    return 0;
}
