/* explain_internal: what explain.c (the search), explain_parts.c (what may stand in for host, path, …) and explain_body.c (for the
 * body) share. The first choice of a part is always what was captured. */
#ifndef EXPLAIN_INTERNAL_H
#define EXPLAIN_INTERNAL_H

#include "meowbridge/explain.h"

enum { EXPLAIN_CHOICES = 80 }; /* EXPLAIN_MAX_SECRETS and some */

struct choice {
    const char *what, *advice; /* static */
    struct slice text;         /* of the choices' arena, or the request's */
};

struct choices {
    struct choice items[EXPLAIN_CHOICES];
    size_t count;
    struct buf arena; /* reserved once: texts stay where they are */
};

/* False without memory. */
MUST_CHECK bool choices_open(struct choices *choices, enum explain_part part, const struct explain_request *request);
void choices_close(struct choices *choices); /* wipes; accepts zeroes */

struct slice explain_trim(struct slice s); /* without the white space around it */

/* --- bodies: made one at a time, since each is as large as the body --- */

size_t body_choices(void);
/* Makes number n (from 1) in out. False if that does not apply to this body, or gives the same as another does, or without
 * memory (out->failed). */
bool body_choose(size_t n, struct slice body, struct buf *out);
void body_describe(size_t n, struct explain_deviation *out);

#endif
