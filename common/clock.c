#include "common/clock.h"

#include <errno.h>
#include <stdio.h>

double dure_clock_monotonic_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

uint64_t dure_clock_monotonic_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

int64_t dure_clock_wall_s(void)
{
    return (int64_t)time(NULL);
}

void dure_clock_text(char text[DURE_CLOCK_TEXT_SIZE], int64_t wall_s)
{
    time_t t = (time_t)wall_s;
    struct tm parts;
    if (!gmtime_r(&t, &parts) ||
        !strftime(text, DURE_CLOCK_TEXT_SIZE, "%Y-%m-%dT%H:%M:%SZ", &parts))
        snprintf(text, DURE_CLOCK_TEXT_SIZE, "%lld", (long long)wall_s);
}

void dure_clock_sleep_ms(uint32_t ms)
{
    struct timespec left = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&left, &left) && errno == EINTR) {
    }
}

struct timespec dure_clock_deadline(uint32_t ms)
{
    struct timespec end;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += ms / 1000;
    end.tv_nsec += (long)(ms % 1000) * 1000000;
    if (end.tv_nsec >= 1000000000) {
        end.tv_sec++;
        end.tv_nsec -= 1000000000;
    }
    return end;
}
