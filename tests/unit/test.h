/* What every unit test includes: cmocka's headers in the one order that works. */
#ifndef TEST_H
#define TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "meowbridge/bytes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define assert_slice(actual, expected_text)                                                    \
    do {                                                                                       \
        struct slice actual_ = (actual), expected_ = slice_of(expected_text);                  \
        assert_int_equal(actual_.size, expected_.size);                                        \
        assert_memory_equal(actual_.data ? actual_.data : "", expected_.data, expected_.size); \
    } while (0)

/* A new folder of the test's own, below the system's for what is temporary. The test removes it. */
static inline void make_folder(char *out, size_t size)
{
    int length = snprintf(out, size, "%s/meowbridge-test-XXXXXX", P_tmpdir);
    assert_true(length > 0 && (size_t)length < size);
    assert_non_null(mkdtemp(out));
}

#endif
