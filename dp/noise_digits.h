/* Random digits for the exact samplers (dp/noise_exact.c, dp/noise_share.c): uniform numbers in
 * (0, 1) as strings of 32-bit digits that are drawn only as a comparison needs them, so that every
 * comparison is decided exactly and no number is ever rounded.
 *
 * Runs that no working generator produces (512 equal bits in one comparison) are refused with
 * DURE_ERR_RNG. Holds secrets once it has drawn: the caller wipes it. */
#pragma once

#include "common/err.h"
#include "common/rng.h"

#include <stdbool.h>
#include <string.h>

#define DURE_NOISE_DIGITS 1024
#define DURE_UNIFORM_DIGITS_MAX 16

/* Reads `rng` in blocks of digits; the first failure is kept, and digits are zero from then on. */
typedef struct dure_noise_digits {
    const dure_rng *rng; /* borrowed */
    uint32_t block[DURE_NOISE_DIGITS];
    size_t at;
    dure_err err;
} dure_noise_digits;

static inline void dure_noise_digits_init(dure_noise_digits *s, const dure_rng *rng)
{
    *s = (dure_noise_digits){.rng = rng, .at = DURE_NOISE_DIGITS};
}

static inline uint32_t dure_noise_digit(dure_noise_digits *s)
{
    if (s->at == DURE_NOISE_DIGITS) {
        if (!s->err) s->err = dure_rng_fill(s->rng, s->block, sizeof s->block);
        if (s->err) memset(s->block, 0, sizeof s->block);
        s->at = 0;
    }
    return s->block[s->at++];
}

/* A uniform number in (0, 1) of which the first n digits are known. */
typedef struct dure_uniform {
    uint32_t digit[DURE_UNIFORM_DIGITS_MAX];
    unsigned n;
} dure_uniform;

static inline void dure_uniform_start(dure_uniform *u, dure_noise_digits *s)
{
    u->digit[0] = dure_noise_digit(s);
    u->n = 1;
}

/* Digit i, which is known or the next one. */
static inline uint32_t dure_uniform_digit(dure_uniform *u, unsigned i, dure_noise_digits *s)
{
    if (u->n == i) u->digit[u->n++] = dure_noise_digit(s);
    return u->digit[i];
}

/* a < b, drawing digits of both until they differ. */
static inline bool dure_uniform_less(dure_uniform *a, dure_uniform *b, dure_noise_digits *s)
{
    for (unsigned i = 0; i < DURE_UNIFORM_DIGITS_MAX; i++) {
        uint32_t of_a = dure_uniform_digit(a, i, s), of_b = dure_uniform_digit(b, i, s);
        if (of_a != of_b) return of_a < of_b;
    }
    s->err = DURE_ERR_RNG; /* 512 equal bits */
    return false;
}
