#include "http_parser.h"

#include <limits.h>
#include <string.h>

/* What the head says about the message as a whole. */
struct head {
    bool is_1_0, close, keep_alive;
    bool chunked, has_length;
    uint64_t length;
};

void http_parser_init(struct http_parser *parser, size_t max_body)
{
    *parser = (struct http_parser){.state = HTTP_PARSER_HEAD};
    buf_init(&parser->line, HTTP_PARSER_MAX_HEAD);
    buf_init(&parser->body, max_body);
}

void http_parser_free(struct http_parser *parser)
{
    buf_free(&parser->line);
    buf_free(&parser->body);
}

void http_parser_start(struct http_parser *parser, bool head_only)
{
    buf_reset(&parser->line);
    buf_reset(&parser->body);
    *parser = (struct http_parser){.head_only = head_only, .line = parser->line, .body = parser->body};
}

void http_parser_start_body(struct http_parser *parser)
{
    http_parser_start(parser, false);
    parser->state = HTTP_PARSER_CHUNK_LINE;
    parser->is_body = parser->keep_alive = true;
}

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool is_token(struct slice s)
{
    bool is_one = s.size > 0;
    for (size_t i = 0; i < s.size; i++) {
        is_one = is_one && is_token_char(s.data[i]);
    }
    return is_one;
}

static bool has_control(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        unsigned char c = (unsigned char)s.data[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return true;
        }
    }
    return false;
}

static struct slice trim(struct slice s)
{
    while (s.size > 0 && (s.data[0] == ' ' || s.data[0] == '\t')) {
        s = (struct slice){s.data + 1, s.size - 1};
    }
    while (s.size > 0 && (s.data[s.size - 1] == ' ' || s.data[s.size - 1] == '\t')) {
        s.size--;
    }
    return s;
}

/* The part of *rest up to separator (or all of it), which is taken off together with the separator. */
static struct slice split(struct slice *rest, char separator)
{
    const char *at = rest->size ? memchr(rest->data, separator, rest->size) : NULL;
    size_t size = at ? (size_t)(at - rest->data) : rest->size;
    struct slice part = {rest->data, size};
    size_t taken = at ? size + 1 : size;
    *rest = (struct slice){rest->data + taken, rest->size - taken};
    return part;
}

static enum err take_length(struct head *head, struct slice value, struct error *why)
{
    if (head->has_length || !slice_to_u64(value, &head->length)) {
        return error_set(why, ERR_INVALID, "the answer's Content-Length is not one number");
    }
    head->has_length = true;
    return ERR_NONE;
}

static enum err take_coding(struct head *head, struct slice value, struct error *why)
{
    if (head->chunked || head->is_1_0 || !slice_equal_nocase(value, SLICE("chunked"))) {
        return error_set(why, ERR_INVALID, "the answer's Transfer-Encoding is not \"chunked\"");
    }
    head->chunked = true;
    return ERR_NONE;
}

static void take_connection(struct head *head, struct slice value)
{
    while (value.size > 0) {
        struct slice option = trim(split(&value, ','));
        head->close |= slice_equal_nocase(option, SLICE("close"));
        head->keep_alive |= slice_equal_nocase(option, SLICE("keep-alive"));
    }
}

static void take_retry_after(struct http_parser *parser, struct slice value)
{
    uint64_t seconds = 0;
    if (slice_to_u64(value, &seconds)) {
        parser->has_retry_after = true;
        parser->retry_after_s = seconds < UINT_MAX ? (unsigned)seconds : UINT_MAX;
    }
}

static enum err take_field(struct http_parser *parser, struct head *head, struct slice line, struct error *why)
{
    struct slice value = line;
    struct slice name = split(&value, ':');
    if (name.size == line.size || !is_token(name)) {
        return error_set(why, ERR_INVALID, "the answer has a malformed header line");
    }
    value = trim(value);
    if (slice_equal_nocase(name, SLICE("Content-Length"))) {
        return take_length(head, value, why);
    }
    if (slice_equal_nocase(name, SLICE("Transfer-Encoding"))) {
        return take_coding(head, value, why);
    }
    if (slice_equal_nocase(name, SLICE("Connection"))) {
        take_connection(head, value);
    } else if (slice_equal_nocase(name, SLICE("Retry-After"))) {
        take_retry_after(parser, value);
    }
    return ERR_NONE;
}

static enum err take_status_line(struct http_parser *parser, struct head *head, struct slice line, struct error *why)
{
    /* HTTP/1.1 200 OK */
    bool is_sound = line.size >= 12 && slice_starts(line, SLICE("HTTP/1.")) && line.data[8] == ' ' &&
                    (line.data[7] == '0' || line.data[7] == '1') && (line.size == 12 || line.data[12] == ' ');
    uint64_t status = 0;
    if (!is_sound || !slice_to_u64((struct slice){line.data + 9, 3}, &status) || status < 100 || status > 599) {
        return error_set(why, ERR_INVALID, "the answer's status line is malformed");
    }
    head->is_1_0 = line.data[7] == '0';
    parser->status = (unsigned)status;
    return ERR_NONE;
}

/* The next line of *rest without its CR LF. False if it holds a control character, a lone CR or LF among them. */
static bool next_line(struct slice *rest, struct slice *line)
{
    *line = split(rest, '\n');
    if (line->size == 0 || line->data[line->size - 1] != '\r') {
        return false;
    }
    line->size--;
    return !has_control(*line);
}

/* How the body is delimited: RFC 9112, section 6.3. */
static enum err choose_body(struct http_parser *parser, const struct head *head, struct error *why)
{
    if (head->chunked && head->has_length) {
        return error_set(why, ERR_INVALID, "the answer has both Content-Length and Transfer-Encoding");
    }
    parser->keep_alive = !head->close && (!head->is_1_0 || head->keep_alive);
    parser->left = head->length;
    if (parser->head_only || parser->status == 204 || parser->status == 304) {
        parser->state = HTTP_PARSER_DONE;
    } else if (head->chunked) {
        parser->state = HTTP_PARSER_CHUNK_LINE;
    } else if (head->has_length) {
        parser->state = head->length > 0 ? HTTP_PARSER_LENGTH : HTTP_PARSER_DONE;
    } else {
        parser->state = HTTP_PARSER_UNTIL_CLOSE;
        parser->keep_alive = false;
    }
    return ERR_NONE;
}

static enum err parse_head(struct http_parser *parser, struct error *why)
{
    struct head head = {0};
    struct slice rest = buf_slice(&parser->line), line;
    rest.size -= 2; /* without the empty line */
    for (bool first = true; rest.size > 0; first = false) {
        if (!next_line(&rest, &line)) {
            return error_set(why, ERR_INVALID, "the answer has a malformed header line");
        }
        enum err err = first ? take_status_line(parser, &head, line, why) : take_field(parser, &head, line, why);
        if (err) {
            return err;
        }
    }
    buf_reset(&parser->line);
    if (parser->status >= 200) {
        return choose_body(parser, &head, why);
    }
    if (parser->status == 101) {
        return error_set(why, ERR_INVALID, "the answer is 101 to a request that asked for no other protocol");
    }
    parser->has_retry_after = false; /* an interim answer: the real one follows */
    return ERR_NONE;
}

/* What cannot become HTTP is refused at its first bytes: a TLS or a mail server would leave us waiting for the headers' end. */
static bool begins_like_http(struct slice head)
{
    size_t size = head.size < 7 ? head.size : 7;
    return memcmp(head.data, "HTTP/1.", size) == 0;
}

static enum err step_head(struct http_parser *parser, struct slice bytes, size_t *used, struct error *why)
{
    size_t before = parser->line.size, room = parser->line.limit - before;
    buf_append(&parser->line, (struct slice){bytes.data, bytes.size < room ? bytes.size : room});
    if (parser->line.failed) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    if (!begins_like_http(buf_slice(&parser->line))) {
        return error_set(why, ERR_INVALID, "the answer is not HTTP/1.1");
    }
    size_t from = before > 3 ? before - 3 : 0; /* the end may have begun in what came before */
    const char *end = memmem(parser->line.data + from, parser->line.size - from, "\r\n\r\n", 4);
    if (!end) {
        *used = bytes.size;
        return bytes.size <= room ? ERR_NONE : error_set(why, ERR_INVALID, "the answer's headers are over 64 KiB");
    }
    parser->line.size = (size_t)(end + 4 - parser->line.data);
    *used = parser->line.size - before;
    return parse_head(parser, why);
}

/* Keeps what fits; a body that is too long ends the answer here. */
static enum err keep_body(struct http_parser *parser, struct slice bytes, struct error *why)
{
    size_t room = parser->body.limit - parser->body.size;
    bool cut = bytes.size > room;
    buf_append(&parser->body, (struct slice){bytes.data, cut ? room : bytes.size});
    if (parser->body.failed) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    if (cut) {
        parser->keep_alive = false;
        parser->state = HTTP_PARSER_DONE;
    }
    return ERR_NONE;
}

/* LENGTH and CHUNK_DATA; then is what follows the last byte. */
static enum err step_counted(struct http_parser *parser, struct slice bytes, size_t *used, enum http_parser_state then,
                             struct error *why)
{
    *used = bytes.size < parser->left ? bytes.size : (size_t)parser->left;
    parser->left -= *used;
    if (parser->left == 0) {
        parser->state = then;
    }
    return keep_body(parser, (struct slice){bytes.data, *used}, why);
}

/* Gathers a line of the chunked coding; *whole says that parser->line ends in CR LF now. */
static enum err gather_line(struct http_parser *parser, struct slice bytes, size_t *used, bool *whole, struct error *why)
{
    const char *end = memchr(bytes.data, '\n', bytes.size);
    *used = end ? (size_t)(end - bytes.data) + 1 : bytes.size;
    *whole = end != NULL;
    if (*used > parser->line.limit - parser->line.size) {
        return error_set(why, ERR_INVALID, "a line of the answer's chunked coding is over 64 KiB");
    }
    buf_append(&parser->line, (struct slice){bytes.data, *used});
    if (parser->line.failed) {
        return error_set(why, ERR_MEMORY, "out of memory");
    }
    if (end && (parser->line.size < 2 || parser->line.data[parser->line.size - 2] != '\r')) {
        return error_set(why, ERR_INVALID, "a line of the answer's chunked coding does not end in CR LF");
    }
    return ERR_NONE;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* chunk-size [ chunk-ext ] */
static bool parse_chunk_size(struct slice line, bool strict, uint64_t *size)
{
    struct slice digits = split(&line, ';');
    digits = strict ? digits : trim(digits);
    if (digits.size == 0 || digits.size > 16) {
        return false;
    }
    *size = 0;
    for (size_t i = 0; i < digits.size; i++) {
        int value = hex_value(digits.data[i]);
        if (value < 0) {
            return false;
        }
        *size = *size << 4 | (unsigned)value;
    }
    return true;
}

static enum err end_chunk_line(struct http_parser *parser, struct slice line, struct error *why)
{
    if (!parse_chunk_size(line, parser->is_body, &parser->left)) {
        return error_set(why, ERR_INVALID, "a chunk of the answer has a malformed size");
    }
    parser->state = parser->left > 0 ? HTTP_PARSER_CHUNK_DATA : HTTP_PARSER_TRAILER;
    return ERR_NONE;
}

static enum err end_trailer_line(struct http_parser *parser, struct slice line, struct error *why)
{
    struct slice rest = line, name = split(&rest, ':');
    if (parser->is_body && line.size > 0 && (name.size == line.size || !is_token(name))) {
        return error_set(why, ERR_INVALID, "a trailer is no header line");
    }
    parser->trailer_size += line.size;
    if (parser->is_body && parser->trailer_size > HTTP_PARSER_MAX_BODY_TRAILER) {
        return error_set(why, ERR_FULL, "the trailers are over 16 KiB");
    }
    if (parser->trailer_size > HTTP_PARSER_MAX_HEAD) {
        return error_set(why, ERR_INVALID, "the answer's trailers are over 64 KiB");
    }
    if (line.size == 0) {
        parser->state = HTTP_PARSER_DONE;
    }
    return ERR_NONE;
}

/* CHUNK_LINE, CHUNK_END and TRAILER. */
static enum err step_line(struct http_parser *parser, struct slice bytes, size_t *used, struct error *why)
{
    bool whole = false;
    enum err err = gather_line(parser, bytes, used, &whole, why);
    if (err || !whole) {
        return err;
    }
    struct slice line = {parser->line.data, parser->line.size - 2};
    if (parser->is_body && has_control(line)) {
        err = error_set(why, ERR_INVALID, "a line of the chunked coding has a control character");
    } else if (parser->state == HTTP_PARSER_CHUNK_LINE) {
        err = end_chunk_line(parser, line, why);
    } else if (parser->state == HTTP_PARSER_TRAILER) {
        err = end_trailer_line(parser, line, why);
    } else if (line.size == 0) {
        parser->state = HTTP_PARSER_CHUNK_LINE;
    } else {
        err = error_set(why, ERR_INVALID, "a chunk of the answer is longer than its size");
    }
    buf_reset(&parser->line);
    return err;
}

static enum err step(struct http_parser *parser, struct slice bytes, size_t *used, struct error *why)
{
    switch (parser->state) {
    case HTTP_PARSER_HEAD:
        return step_head(parser, bytes, used, why);
    case HTTP_PARSER_LENGTH:
        return step_counted(parser, bytes, used, HTTP_PARSER_DONE, why);
    case HTTP_PARSER_CHUNK_DATA:
        return step_counted(parser, bytes, used, HTTP_PARSER_CHUNK_END, why);
    case HTTP_PARSER_UNTIL_CLOSE:
        *used = bytes.size;
        return keep_body(parser, bytes, why);
    case HTTP_PARSER_CHUNK_LINE:
    case HTTP_PARSER_CHUNK_END:
    case HTTP_PARSER_TRAILER:
        return step_line(parser, bytes, used, why);
    case HTTP_PARSER_DONE:
        break;
    }
    ASSERT(!"a step in a known state");
    return ERR_INVALID;
}

enum err http_parser_feed(struct http_parser *parser, struct slice bytes, size_t *used, struct error *why)
{
    *used = 0;
    parser->started = parser->started || bytes.size > 0;
    while (*used < bytes.size && parser->state != HTTP_PARSER_DONE) {
        size_t taken = 0;
        enum err err = step(parser, (struct slice){bytes.data + *used, bytes.size - *used}, &taken, why);
        if (err) {
            return err;
        }
        *used += taken;
    }
    return ERR_NONE;
}

enum err http_parser_close(struct http_parser *parser, struct error *why)
{
    if (parser->state == HTTP_PARSER_UNTIL_CLOSE) {
        parser->state = HTTP_PARSER_DONE;
    }
    if (parser->state == HTTP_PARSER_DONE) {
        return ERR_NONE;
    }
    return error_set(why, ERR_CLOSED, "the server closed the connection %s",
                     parser->started ? "in the middle of its answer" : "without an answer");
}
