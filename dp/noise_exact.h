/* round(N(0, sigma^2)) sampled exactly, for any scale: the reference, and what serves scales that
 * have no table. Part of dp/noise.h.
 *
 * A normal deviate is drawn by Karney's algorithm N ("Sampling exactly from the normal
 * distribution", arXiv 1303.6257): integer part k and fraction x with density proportional to
 * exp(-(k + x)^2 / 2), made of von Neumann comparisons of uniform numbers whose bits are drawn
 * only as they are needed. The scaled value's rounding is decided by interval arithmetic on
 * integers, with more bits of x where the interval spans a boundary. So the distribution is the
 * ideal one.
 *
 * Runs that no working generator produces (512 equal bits in one comparison, 1,024 rejections in
 * a row, |z| >= 64: each less likely than 2^-500) are refused with DURE_ERR_RNG. */
#pragma once

#include "dp/noise.h"
#include "dp/noise_digits.h"

typedef struct dure_noise_exact {
    dure_noise_scale scale;
    dure_noise_digits digits;
} dure_noise_exact;

/* The scale is in range; see dp/noise.h. Holds secrets once it has drawn: the caller wipes it. */
void dure_noise_exact_init(dure_noise_exact *exact, dure_noise_scale scale, const dure_rng *rng);
/* out[0..n) = independent draws. DURE_ERR_RNG as above or if `rng` fails; out is then of no use. */
DURE_MUST_USE dure_err dure_noise_exact_draw(int64_t *out, size_t n, dure_noise_exact *exact);
