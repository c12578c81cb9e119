/* SplitMix64 (Steele, Lea and Flood 2014): the next word of a stream. Not secret and not for noise:
 * for orders, starts and resamples that must be the same on every machine. */
#pragma once

#include <stdint.h>

static inline uint64_t dure_splitmix64(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}
