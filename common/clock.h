/* The two clocks: monotonic for durations and deadlines, wall for what people and records read. */
#pragma once

#include <stdint.h>
#include <time.h>

uint64_t dure_clock_monotonic_ms(void);
double dure_clock_monotonic_s(void);
int64_t dure_clock_wall_s(void); /* seconds since 1970, UTC */

/* "2026-03-01T12:00:00Z" for `wall_s`, NUL included. */
#define DURE_CLOCK_TEXT_SIZE 32
void dure_clock_text(char text[DURE_CLOCK_TEXT_SIZE], int64_t wall_s);
void dure_clock_sleep_ms(uint32_t ms);
/* The monotonic time `ms` from now, for a wait on a condition that is set to CLOCK_MONOTONIC. */
struct timespec dure_clock_deadline(uint32_t ms);

/* 0 when `since_ms` was read after `now_ms`. */
static inline uint64_t dure_elapsed_ms(uint64_t now_ms, uint64_t since_ms)
{
    return now_ms > since_ms ? now_ms - since_ms : 0;
}
