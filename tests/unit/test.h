/* What every unit test includes: cmocka's headers in the one order that works. */
#ifndef TEST_H
#define TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "meowbridge/bytes.h"

#include <string.h>

#define assert_slice(actual, expected_text)                                                    \
    do {                                                                                       \
        struct slice actual_ = (actual), expected_ = slice_of(expected_text);                  \
        assert_int_equal(actual_.size, expected_.size);                                        \
        assert_memory_equal(actual_.data ? actual_.data : "", expected_.data, expected_.size); \
    } while (0)

#endif
