/* A clock that stands still until a test moves it, or (real) the system's. */
#ifndef FAKE_CLOCK_H
#define FAKE_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

void fake_clock_reset(bool real);
void fake_clock_advance(int64_t ms); /* both clocks */

#endif
