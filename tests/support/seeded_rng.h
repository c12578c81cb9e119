/* Generators for tests: one that is a function of its seed, one that plays back given words, and
 * one that fails. Not for anything that protects data. */
#pragma once

#include "common/rng.h"

#include <stddef.h>
#include <stdint.h>

/* SplitMix64 (Steele, Lea, Flood 2014). */
typedef struct seeded_rng {
    uint64_t state;
} seeded_rng;
dure_rng seeded_rng_of(seeded_rng *state, uint64_t seed);

/* Plays words[0..n) as little-endian bytes, then repeats the last one. */
typedef struct played_rng {
    const uint32_t *words;
    size_t n, at;
} played_rng;
dure_rng played_rng_of(played_rng *state, const uint32_t *words, size_t n);

/* As seeded, but every call after the first n fails with DURE_ERR_RNG. */
typedef struct failing_rng {
    seeded_rng inner;
    size_t calls_left;
} failing_rng;
dure_rng failing_rng_of(failing_rng *state, size_t calls);
