/* clock: the two clocks. The wall clock may step in either direction; whatever measures a span or a deadline uses the
 * monotonic one. Tests link a clock of their own. Any thread. */
#ifndef MEOWBRIDGE_CLOCK_H
#define MEOWBRIDGE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t clock_wall_ms(void); /* since 1970-01-01T00:00:00Z */
int64_t clock_mono_ms(void); /* since some fixed moment; never goes back */
int64_t clock_mono_us(void);

/* "2026-11-24T05:00:00.123Z": 24 characters and a NUL. Years 0000 to 9999; beyond them the nearest is printed. */
#define CLOCK_RFC3339_SIZE 25
void clock_rfc3339(int64_t wall_ms, char out[CLOCK_RFC3339_SIZE]);

#endif
