#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool terminal_has_colour(void)
{
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    return isatty(STDOUT_FILENO) && !(no_colour && *no_colour) && term && *term && strcmp(term, "dumb") != 0;
}

static bool is_within(uint32_t c, const uint32_t (*ranges)[2], size_t count)
{
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        found = found || (c >= ranges[i][0] && c <= ranges[i][1]);
    }
    return found;
}

/* Controls, surrogates, non-characters, line and paragraph separators, and what changes the direction of text. */
static bool is_printable(uint32_t c)
{
    static const uint32_t no[][2] = {{0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}};
    return !utf8_is_forbidden_in_mqtt(c) && !is_within(c, no, sizeof no / sizeof no[0]);
}

/* Unicode's East Asian Width, W and F, in rough; combining marks of the common blocks take no column. */
static size_t columns_of(uint32_t c)
{
    static const uint32_t wide[][2] = {{0x1100, 0x115f},   {0x2e80, 0x303e},   {0x3041, 0xa4cf},   {0xac00, 0xd7a3},
                                       {0xf900, 0xfaff},   {0xfe30, 0xfe6f},   {0xff00, 0xff60},   {0xffe0, 0xffe6},
                                       {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff}, {0x1f900, 0x1faff}, {0x20000, 0x3fffd}};
    static const uint32_t none[][2] = {{0x300, 0x36f}, {0x1ab0, 0x1aff}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}};
    return is_within(c, wide, sizeof wide / sizeof wide[0]) ? 2 : !is_within(c, none, sizeof none / sizeof none[0]);
}

/* The next character: its bytes as they are to be printed, and its columns. */
static struct slice next_character(struct slice *rest, size_t *columns)
{
    uint32_t c = 0;
    size_t size = utf8_decode(*rest, &c);
    struct slice shown = {rest->data, size};
    if (size == 0 || !is_printable(c)) {
        shown = SLICE("?");
        c = '?';
    }
    size = size == 0 ? 1 : size;
    *rest = (struct slice){rest->data + size, rest->size - size};
    *columns = columns_of(c);
    return shown;
}

static bool fits(struct slice text, size_t columns)
{
    size_t used = 0;
    while (text.size > 0 && used <= columns) {
        size_t more;
        next_character(&text, &more);
        used += more;
    }
    return used <= columns;
}

size_t terminal_append(struct buf *out, struct slice text, size_t columns)
{
    bool whole = columns == SIZE_MAX || fits(text, columns);
    size_t used = 0, room = whole ? SIZE_MAX : columns > 0 ? columns - 1 : 0;
    while (text.size > 0) {
        size_t more;
        struct slice shown = next_character(&text, &more);
        if (more > room - used) {
            break;
        }
        buf_append(out, shown);
        used += more;
    }
    if (!whole && columns > 0) {
        buf_append_text(out, "…");
        used++;
    }
    return used;
}

void terminal_append_padded(struct buf *out, struct slice text, size_t columns)
{
    for (size_t used = terminal_append(out, text, columns); used < columns; used++) {
        buf_append_char(out, ' ');
    }
}

/* The word that text begins with, and its columns. */
static struct slice word_of(struct slice text, size_t *columns)
{
    struct slice rest = text;
    *columns = 0;
    while (rest.size > 0 && *rest.data != ' ' && *rest.data != '\n') {
        size_t more;
        next_character(&rest, &more);
        *columns += more;
    }
    return (struct slice){text.data, text.size - rest.size};
}

static size_t next_line(struct buf *out, size_t indent)
{
    buf_appendf(out, "\n%*s", (int)indent, "");
    return indent;
}

/* A word that is too wide for a line is broken. Returns the column behind it. */
static size_t append_word(struct buf *out, struct slice word, size_t column, size_t indent)
{
    while (word.size > 0) {
        size_t more;
        const struct slice shown = next_character(&word, &more);
        column = column > indent && column + more > TERMINAL_COLUMNS ? next_line(out, indent) : column;
        buf_append(out, shown);
        column += more;
    }
    return column;
}

void terminal_append_wrapped(struct buf *out, struct slice text, size_t column, size_t indent)
{
    bool goes_on = column > indent;
    if (text.size > 0 && column < indent) {
        buf_appendf(out, "%*s", (int)(indent - column), "");
        column = indent;
    }
    while (text.size > 0) {
        size_t columns;
        const struct slice word = word_of(text, &columns);
        const size_t next = word.size + (word.size < text.size);
        if (goes_on && column + 1 + columns > TERMINAL_COLUMNS) {
            column = next_line(out, indent);
        } else if (goes_on) {
            buf_append_char(out, ' ');
            column++;
        }
        column = append_word(out, word, column, indent);
        text = (struct slice){text.data + next, text.size - next};
        goes_on = true;
    }
}
