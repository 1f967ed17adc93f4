/* A journal in memory that keeps a protocol of what the publisher did, and holds it to its duties: what is settled must have
 * been claimed; what is given back is freed, so that a later touch is seen by the sanitizer. */
#ifndef FAKE_JOURNAL_H
#define FAKE_JOURNAL_H

#include "meowbridge/journal.h"

struct journal *fake_journal_open(bool keeps);
void fake_journal_close(struct journal **journal);
/* A webhook of {id, event name}, with payload {"n":ID}. Returns its sequence number. */
uint64_t fake_journal_add(struct journal *journal, int id, const char *event_name);
uint64_t fake_journal_add_sized(struct journal *journal, int id, const char *event_name, size_t payload_bytes);
void fake_journal_damage(struct journal *journal, uint64_t seq);

uint64_t fake_journal_settled(struct journal *journal);
int fake_journal_settle_calls(struct journal *journal);
const char *fake_journal_reason(struct journal *journal, uint64_t seq); /* NULL: not buried */
uint64_t fake_journal_claimed(struct journal *journal);                 /* the last one lent */
int fake_journal_rewinds(struct journal *journal);
const char *fake_journal_link(struct journal *journal); /* "up", or why it is down */

void fake_journal_fail_claims(struct journal *journal, const char *text); /* NULL: no more */
int fake_journal_failures(struct journal *journal);                       /* claims and burials that failed so */
void fake_journal_refuse_burials(struct journal *journal, bool refuse);

#endif
