/* round(N(0, sigma^2)) from tables: some ten nanoseconds a draw. Part of dp/noise.h; the proof is
 * docs/noise.md.
 *
 * Up to sigma 1310 one table holds the distribution itself. Beyond, a draw is w Y + U:
 *   Y  discrete Gaussian, P(Y = y) proportional to exp(-y^2 / (2 sigma_Y^2)), sigma_Y^2 = A /
 * 4^shift, U  = round(N(0, sigma_U^2)), sigma_U^2 = B / 4^shift, with sigma^2 = w^2 sigma_Y^2 +
 * sigma_U^2 exactly, w the least that keeps the tables small (sigma / 1310 rounded up as far as
 * 2^20) and sigma_U from 2 w to sqrt(5) w, so that the lattice w Z that Y lives on is smooth under
 * U (Micciancio and Walter 2017).
 *
 * A table is Walker's alias table of the magnitude over 2^bits columns, made by integer arithmetic:
 * masses are whole multiples of 2^-128 that add up to 1. A draw takes one 64-bit word: the low
 * `bits` the column, bit 63 the sign, bits 62 to 16 the first bits of the comparison with the
 * column's threshold. Where these are equal, once in 2^47 draws, further 128 bits decide. */
#pragma once

#include "dp/noise.h"

#include <stdbool.h>

#define DURE_NOISE_BLOCK 512
/* Over the sum of what docs/noise.md adds up. */
#define DURE_NOISE_TABLE_DISTANCE 0x1p-108

/* Alias table of a magnitude. Column c stands for c with probability threshold / 2^(128 - bits),
 * else for the alias. */
typedef struct dure_noise_part {
    unsigned bits;
    size_t n;        /* magnitudes 0 to n - 1 have mass */
    uint64_t *entry; /* 2^bits: the threshold's first 47 bits in bits 62 to 16, the alias below */
    unsigned __int128 *threshold; /* 2^bits */
} dure_noise_part;

typedef struct dure_noise_table {
    dure_noise_scale scale;
    uint64_t w; /* 0: `fine` alone */
    dure_noise_part coarse, fine;
    unsigned users;
} dure_noise_table;

/* Whether scales like this are drawn from a table: 16 <= sigma < 2^23. */
bool dure_noise_table_serves(dure_noise_scale scale);
/* The table, made or shared; DURE_ERR_NOMEM. Release it with the other. */
DURE_MUST_USE dure_err dure_noise_table_take(const dure_noise_table **out, dure_noise_scale scale);
void dure_noise_table_release(const dure_noise_table **table); /* NULL-safe, nulls */

/* out[0..n), n <= DURE_NOISE_BLOCK. DURE_ERR_RNG if `rng` fails, or gives four equal words in a
 * row; out is then of no use. */
DURE_MUST_USE dure_err dure_noise_table_draw(int64_t *out, size_t n, const dure_noise_table *table,
                                             const dure_rng *rng);
