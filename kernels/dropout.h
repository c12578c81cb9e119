/* The mask of dropout as a function of place: SplitMix64 (Steele, Lea and Flood 2014) counted
 * through, so that any part of a row can be drawn at any time. A word of 64 bits decides four
 * columns, 16 bits each. All levels of the CPU draw the same bits. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A row of a mask: column i is dropped where its 16 bits are below `threshold`, which is at most
 * 65535. */
typedef struct dure_drop {
    uint64_t key;
    uint32_t threshold;
} dure_drop;

enum { DURE_DROP_LANES = 4 };
#define DURE_DROP_STEP UINT64_C(0x9e3779b97f4a7c15)

#ifdef __CUDACC__
#define DURE_DROP_INLINE static __host__ __device__ inline
#else
#define DURE_DROP_INLINE static inline
#endif

/* The finaliser: a bijection whose output looks random. */
DURE_DROP_INLINE uint64_t dure_drop_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The key of a row: of the token at `position` of a record, where input `input` of a layer reads
 * it. */
DURE_DROP_INLINE uint64_t dure_drop_row_key(uint64_t seed, uint32_t layer, uint32_t input,
                                            size_t position)
{
    uint64_t place = ((uint64_t)layer << 8 | input) << 32 | (uint64_t)position;
    return dure_drop_mix(seed + dure_drop_mix(place + DURE_DROP_STEP));
}

DURE_DROP_INLINE bool dure_drop_keeps(const dure_drop *d, size_t column)
{
    uint64_t word = dure_drop_mix(d->key + (column / DURE_DROP_LANES + 1) * DURE_DROP_STEP);
    return (word >> column % DURE_DROP_LANES * 16 & 0xffff) >= d->threshold;
}
