/* A whole configuration. No file is touched: the linker puts the calls below in the place of the system's (--wrap), and they
 * know one configuration, "fuzz.json", and one file that can be read, "secret".
 * Errors must name places that there are, and nothing that a variable or a secret file holds; what is accepted is printed, and
 * what is printed is accepted again and is the same. */
#include "fuzz.h"

#include "../../bridge/domain/config_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>

#if defined __has_include
#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(data, size) ((void)(data), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(data, size) ((void)(data), (void)(size))
#endif

#define FILE_NAME "fuzz.json"
#define FILE_SECRET "Wd7fq-held-by-file"
#define VARIABLE_SECRET "Xk29z-held-by-variable"

enum { OUR_FD = 1 << 20, SECRET_FD, CONFIG_FD };
static struct slice content; /* of the file that is open */
static struct slice file;

int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
int __real_fstat(int fd, struct stat *status);
ssize_t __real_read(int fd, void *data, size_t size);
int __wrap_open(const char *path, int flags, ...);
int __wrap_close(int fd);
int __wrap_fstat(int fd, struct stat *status);
ssize_t __wrap_read(int fd, void *data, size_t size);

static bool loading;

/* --- memory: the loader's large blocks, which the sanitizer would map anew each time, for most of the time --- */

enum { LARGE = 96 << 10, POOL_SIZE = (1 << 20) + 4096, POOL_BLOCKS = 8 };
static char pool[POOL_BLOCKS][POOL_SIZE];
static size_t pool_sizes[POOL_BLOCKS]; /* 0: free */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *data, size_t size);
void __real_free(void *data);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *data, size_t size);
void __wrap_free(void *data);

static size_t pool_index(const void *data)
{
    uintptr_t at = (uintptr_t)data, start = (uintptr_t)pool;
    return at >= start && at < start + sizeof pool ? (at - start) / POOL_SIZE : POOL_BLOCKS;
}

void *__wrap_malloc(size_t size)
{
    for (size_t i = 0; loading && size >= LARGE && size <= POOL_SIZE - 64 && i < POOL_BLOCKS; i++) {
        if (pool_sizes[i] == 0) {
            pool_sizes[i] = size;
            ASAN_UNPOISON_MEMORY_REGION(pool[i], size);
            ASAN_POISON_MEMORY_REGION(pool[i] + size, POOL_SIZE - size);
            return pool[i];
        }
    }
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    if (!loading || count != 1 || size < LARGE) {
        return __real_calloc(count, size);
    }
    void *data = __wrap_malloc(size);
    return data ? memset(data, 0, size) : NULL;
}

void *__wrap_realloc(void *data, size_t size)
{
    size_t index = pool_index(data);
    if (index == POOL_BLOCKS && (data || size < LARGE)) {
        return __real_realloc(data, size);
    }
    void *grown = __wrap_malloc(size);
    if (grown && data) {
        memcpy(grown, data, pool_sizes[index] < size ? pool_sizes[index] : size);
        __wrap_free(data);
    }
    return grown;
}

void __wrap_free(void *data)
{
    size_t index = pool_index(data);
    if (index == POOL_BLOCKS) {
        __real_free(data);
    } else {
        ASAN_POISON_MEMORY_REGION(pool[index], POOL_SIZE);
        pool_sizes[index] = 0;
    }
}

/* --- files --- */

int __wrap_open(const char *path, int flags, ...)
{
    if (!loading) {
        va_list arguments;
        va_start(arguments, flags);
        int mode = flags & O_CREAT ? va_arg(arguments, int) : 0;
        va_end(arguments);
        return __real_open(path, flags, mode);
    }
    if (strcmp(path, FILE_NAME) == 0) {
        content = file;
        return CONFIG_FD;
    }
    if (strcmp(path, "secret") == 0) {
        content = SLICE(FILE_SECRET "\n");
        return SECRET_FD;
    }
    errno = ENOENT;
    return -1;
}

int __wrap_close(int fd)
{
    return fd > OUR_FD ? 0 : __real_close(fd);
}

int __wrap_fstat(int fd, struct stat *status)
{
    if (fd <= OUR_FD) {
        return __real_fstat(fd, status);
    }
    *status = (struct stat){.st_mode = S_IFREG | (fd == SECRET_FD ? 0644 : 0600)};
    return 0;
}

ssize_t __wrap_read(int fd, void *data, size_t size)
{
    if (fd <= OUR_FD) {
        return __real_read(fd, data, size);
    }
    size_t taken = size < content.size ? size : content.size;
    if (taken > 0) {
        memcpy(data, content.data, taken);
        content = (struct slice){content.data + taken, content.size - taken};
    }
    return (ssize_t)taken;
}

struct result {
    enum err err;
    struct config *config;
    struct config_errors errors, warnings;
};

static void load(struct result *r, struct slice text)
{
    file = text;
    loading = true;
    r->err = config_load(&r->config, FILE_NAME, &r->errors, &r->warnings);
    loading = false;
    ASSERT(r->err == ERR_NONE || r->err == ERR_CONFIG);
    ASSERT((r->err == ERR_NONE) == (r->config != NULL) && (r->err == ERR_NONE) == (r->errors.count == 0));
}

static void unload(struct result *r)
{
    config_free(&r->config);
    config_errors_free(&r->errors);
    config_errors_free(&r->warnings);
}

static struct slice take_line(struct slice *rest)
{
    const char *end = rest->size > 0 ? memchr(rest->data, '\n', rest->size) : NULL;
    size_t size = end ? (size_t)(end - rest->data) : rest->size, taken = end ? size + 1 : size;
    struct slice line = {rest->data, size};
    *rest = (struct slice){rest->data + taken, rest->size - taken};
    return line;
}

/* Characters of a line of the file, and one: where more was to come. */
static bool is_place(struct slice text, unsigned long line, unsigned long column)
{
    struct slice found = {0};
    size_t lines = 0, columns = 0;
    do {
        found = text.size > 0 ? take_line(&text) : (struct slice){0};
        lines++;
    } while (lines < line && text.size > 0);
    bool behind = lines + 1 == line && column == 1; /* the file ends with a newline */
    for (size_t i = 0; i < found.size; i++) {
        columns += ((unsigned char)found.data[i] & 0xc0) != 0x80;
    }
    return line > 0 && column > 0 && (behind || (lines == line && column <= columns + 1));
}

static void check_report(const struct config_errors *errors, struct slice text)
{
    struct slice rest = buf_slice(&errors->text);
    size_t lines = 0;
    ASSERT(!errors->text.failed && fuzz_is_utf8(text, false) <= fuzz_is_utf8(rest, false));
    for (; rest.size > 0; lines++) {
        char line[256];
        unsigned long row = 0, column = 0;
        struct slice got = take_line(&rest);
        ASSERT(slice_starts(got, SLICE(FILE_NAME ":")));
        snprintf(line, sizeof line, "%.*s", (int)(got.size < 200 ? got.size : 200), got.data);
        if (sscanf(line, FILE_NAME ":%lu:%lu: ", &row, &column) == 2) {
            ASSERT(is_place(text, row, column));
        }
        ASSERT(got.size > sizeof FILE_NAME + 2);
    }
    size_t told = errors->count < CONFIG_MAX_PROBLEMS ? errors->count : CONFIG_MAX_PROBLEMS;
    ASSERT(lines == told + (errors->count > CONFIG_MAX_PROBLEMS));
}

static bool tells(struct slice said, struct slice text, struct slice secret)
{
    return fuzz_contains(said, secret) && !fuzz_contains(text, secret);
}

static void check_whole(struct config *config, struct slice text)
{
    struct buf printed, again, changes;
    struct result r;
    buf_init(&printed, 1 << 22);
    buf_init(&again, 1 << 22);
    buf_init(&changes, 1 << 16);
    ASSERT(config->app_count > 0 && config->mqtt.broker_count > 0);
    for (size_t i = 0; i < config->app_count; i++) {
        ASSERT(config->apps[i].secret.size > 0 && config->apps[i].path[0] == '/');
        ASSERT((config->apps[i].public_host != NULL) == (config->apps[i].public_url[0] != 0));
    }
    config_print(config, &printed);
    ASSERT(!printed.failed && !tells(buf_slice(&printed), text, SLICE(FILE_SECRET)));
    load(&r, buf_slice(&printed));
    ASSERT(r.err == ERR_NONE);
    config_print(r.config, &again);
    ASSERT(slice_equal(buf_slice(&printed), buf_slice(&again)));
    config_fixed_changes(config, r.config, &changes);
    ASSERT(changes.size == 0);
    unload(&r);
    buf_free(&printed);
    buf_free(&again);
    buf_free(&changes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool prepared;
    if (!prepared) {
        clearenv();
        setenv("FUZZ_SECRET", VARIABLE_SECRET, 1);
        setenv("FUZZ_EMPTY", "", 1);
        prepared = true;
    }
    struct fuzz_input in = fuzz_begin(data, size);
    struct slice text = fuzz_rest(&in);
    struct result r;
    load(&r, text);
    check_report(&r.errors, text);
    check_report(&r.warnings, text);
    const struct config_errors *reports[] = {&r.errors, &r.warnings};
    for (size_t i = 0; i < 2; i++) {
        ASSERT(!tells(buf_slice(&reports[i]->text), text, SLICE(FILE_SECRET)));
        ASSERT(!tells(buf_slice(&reports[i]->text), text, SLICE(VARIABLE_SECRET)));
    }
    if (r.config) {
        check_whole(r.config, text);
    }
    unload(&r);
    fuzz_end(&in);
    return 0;
}
