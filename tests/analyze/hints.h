/* What tools that see one file at a time cannot know; put before each file that tests/analyze/run looks at, and in no build. */
#ifndef MEOWBRIDGE_ANALYZE_HINTS_H
#define MEOWBRIDGE_ANALYZE_HINTS_H

#include "meowbridge/err.h"
#include "meowbridge/log.h"

#ifdef __cppcheck__ /* 2.10 does not know __VA_OPT__, and gives a file up at the first */
#undef log_at
#define log_at(level, ...) log_emit((level), __VA_ARGS__)
#else
/* It returns the code that it is given, and that is never ERR_NONE. */
#define error_set(why, code, ...)                                    \
    __extension__({                                                  \
        enum err error_set_ = error_set((why), (code), __VA_ARGS__); \
        (void)error_set_;                                            \
        (code);                                                      \
    })
#endif

#endif
