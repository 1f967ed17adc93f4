/* What comes from outside stands in a log line as text: one line a matter, whatever it holds, and nothing that a terminal would
 * obey. write is ours (--wrap). Input: a byte that chooses the format, two values. */
#include "fuzz.h"

#include "meowbridge/jsonscan.h"
#include "meowbridge/log.h"

#include <unistd.h>

static bool capturing;
static struct buf captured;

ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    if (!capturing) {
        return __real_write(fd, data, size);
    }
    ASSERT(fd == STDERR_FILENO);
    buf_append(&captured, (struct slice){data, size});
    return (ssize_t)size;
}

static void check_line(struct slice line, bool json)
{
    struct json_value object, value, key;
    struct json_iterator it;
    size_t members = 0;
    ASSERT(line.size > 0 && line.data[line.size - 1] == '\n');
    line.size--;
    ASSERT(fuzz_is_mqtt_text(line) || fuzz_is_utf8(line, false));
    for (struct slice rest = line; rest.size > 0;) {
        uint32_t c = 0;
        size_t length = utf8_decode(rest, &c);
        ASSERT(c >= 0x20 && !(c >= 0x7f && c <= 0x9f));
        rest = (struct slice){rest.data + length, rest.size - length};
    }
    if (json) {
        ASSERT(jsonscan_document(line, &object, NULL, NULL) == ERR_NONE && object.type == JSON_OBJECT);
        for (jsonscan_enter(&it, &object); jsonscan_next(&it, &key, &value); members++) {
            ASSERT(value.type == JSON_STRING || value.type == JSON_NUMBER);
        }
        ASSERT(members == 6 || members == 3);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = fuzz_begin(data, size);
    bool json = fuzz_byte(&in) & 1;
    struct slice first = fuzz_field(&in), second = fuzz_rest(&in);
    buf_init(&captured, 1 << 16);
    log_open(LOG_INFO, json ? LOG_JSON : LOG_TEXT);
    capturing = true;
    log_info("an event was refused", LOG_SLICE("event", first), LOG_SLICE("id", second), LOG_INT("size", size));
    capturing = false;
    ASSERT(!captured.failed);
    check_line(buf_slice(&captured), json);
    buf_free(&captured);
    fuzz_end(&in);
    return 0;
}
