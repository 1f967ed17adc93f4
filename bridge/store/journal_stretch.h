/* journal_stretch: says of each stretch of DB_STRETCH numbers what is in it, so that whoever looks for something rare passes
 * over the rest of the journal instead of reading it: between which times its events were accepted, and which labels they bear
 * (journal_options.label), each once.
 *
 * A stretch is gathered in memory while its events are stored, for the price of comparing a label, and is written in the
 * transaction that stores its last one. Those of which that was not seen, because the bridge was started anew in between or an
 * older one stored them, are read again by upkeep, one a step. A stretch that is not written down is read by those who look.
 *
 * S1  What is written of a stretch holds for every event with such a number, alive or dead, for good: it is written when the
 *     last of its numbers is given, in the same transaction or later, and numbers are never given twice (J2).
 *
 * One thread. */
#ifndef JOURNAL_STRETCH_H
#define JOURNAL_STRETCH_H

#include "journal_db.h"

struct stretches;

/* db must outlive it. label: NULL, nothing is known of labels. NULL without memory. */
struct stretches *stretches_open(struct db *db, journal_label *label);
void stretches_close(struct stretches **stretches); /* accepts NULL */

/* --- what is written of a stretch --- */

/* May one of its events have been accepted in since <= time < until? */
bool stretch_overlaps(const struct db_stretch *stretch, int64_t since_ms, int64_t until_ms);
/* Takes the next of its labels, of which there must be some. False if they are damaged. */
bool stretch_take_label(struct slice *labels, struct slice *label);

/* --- a batch: within one transaction of the caller's --- */

/* Of an event that the transaction stores, its seq set. */
MUST_CHECK enum err stretches_add(struct stretches *stretches, const struct journal_event *event, struct error *why);
void stretches_commit(struct stretches *stretches);
void stretches_undo(struct stretches *stretches); /* it was rolled back */

/* --- upkeep: between batches, a transaction of its own and bounded to a few milliseconds --- */

/* oldest_seq: of the events that are there, 0: none. last_seq: committed. */
bool stretches_has_work(struct stretches *stretches, uint64_t oldest_seq, uint64_t last_seq);
MUST_CHECK enum err stretches_step(struct stretches *stretches, uint64_t last_seq, struct error *why);

#endif
