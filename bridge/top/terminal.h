/* terminal: text of events on a terminal: what comes from outside cannot move the cursor, and columns line up, also in Chinese. */
#ifndef TERMINAL_H
#define TERMINAL_H

#include "meowbridge/bytes.h"

#include <stdbool.h>
#include <stddef.h>

/* Standard output is a terminal that takes colours, and NO_COLOR is not set. */
bool terminal_has_colour(void);

/* Appends text with '?' for whatever is not printable (controls, marks of direction, invalid UTF-8), cut to so many columns with
 * an ellipsis at its end (SIZE_MAX: whole). Returns the columns it takes. */
size_t terminal_append(struct buf *out, struct slice text, size_t columns);
/* The same, and fills up with spaces. */
void terminal_append_padded(struct buf *out, struct slice text, size_t columns);
/* The whole of it, on as many lines as it takes, each with indent spaces before it and at most so many columns wide with them;
 * broken at spaces where there are any. No newline at its end. */
void terminal_append_wrapped(struct buf *out, struct slice text, size_t indent, size_t columns);

#endif
