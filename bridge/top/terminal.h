/* terminal: text of events on a terminal: what comes from outside cannot move the cursor, and columns line up, also in Chinese. */
#ifndef TERMINAL_H
#define TERMINAL_H

#include "meowbridge/bytes.h"

#include <stdbool.h>
#include <stddef.h>

enum { TERMINAL_COLUMNS = 80 };

/* Standard output is a terminal that takes colours, and NO_COLOR is not set. */
bool terminal_has_colour(void);

/* Appends text with '?' for whatever is not printable (controls, marks of direction, invalid UTF-8), cut to so many columns with
 * an ellipsis at its end (SIZE_MAX: whole). Returns the columns it takes. */
size_t terminal_append(struct buf *out, struct slice text, size_t columns);
/* The same, and fills up with spaces. */
void terminal_append_padded(struct buf *out, struct slice text, size_t columns);
/* The whole of it, on as many lines of TERMINAL_COLUMNS as it takes, broken at spaces and newlines, and within a word only where that
 * is wider than a line. The first line goes on at column, behind a space if that is beyond indent; the others begin at indent, and
 * so does the first if it is not so far yet. No newline at its end. */
void terminal_append_wrapped(struct buf *out, struct slice text, size_t column, size_t indent);

#endif
