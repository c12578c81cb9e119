/* round(N(0, sigma^2)) sampled exactly: no floating point takes part in any decision.
 *
 * A normal deviate is drawn by Karney's algorithm N ("Sampling exactly from the normal
 * distribution", arXiv 1303.6257): integer part k and fraction x with density proportional to
 * exp(-(k + x)^2 / 2), made of von Neumann comparisons of uniform numbers whose bits are drawn
 * only as they are needed. The scaled value's rounding is decided by interval arithmetic on
 * integers, with more bits of x where the interval spans a boundary. So the distribution is the
 * ideal one, and for an integer v, v + round(g) = round(v + g): the release is post-processing of
 * the continuous Gaussian mechanism.
 *
 * Runs that no working generator produces (512 equal bits in one comparison, 1,024 rejections in
 * a row, |z| >= 64: each less likely than 2^-500) are refused with DURE_ERR_RNG.
 *
 * The time taken depends on the noise drawn. Fill a whole vector at once, before data are
 * touched, and never let a peer time single elements. */
#pragma once

#include "common/err.h"
#include "common/rng.h"
#include "dp/plan.h"

#include <stddef.h>
#include <stdint.h>

/* sigma in grid units = num / 2^shift */
typedef struct dure_noise_scale {
    uint64_t num;   /* < 2^44 */
    uint32_t shift; /* <= 32 */
} dure_noise_scale;

/* sigma_num / 65536 * 2^grid_bits, exactly. */
dure_noise_scale dure_noise_scale_of(const dure_dp_plan *plan);

/* out[0..n) = independent draws. Reads `rng` in blocks: what is left of the last block is wiped,
 * so a stream is good for one call. DURE_ERR_USAGE for a scale out of range; DURE_ERR_RNG if
 * `rng` fails, with out all zero: no partly noised vector escapes. num 0 gives zeros. */
DURE_MUST_USE dure_err dure_noise_fill(int64_t *out, size_t n, dure_noise_scale scale,
                                       const dure_rng *rng);
/* The same draws as int32; DURE_ERR_USAGE if 64 sigma does not fit. */
DURE_MUST_USE dure_err dure_noise_fill_i32(int32_t *out, size_t n, dure_noise_scale scale,
                                           const dure_rng *rng);
/* sum[i] += draw. On failure `sum` is zeroed. */
DURE_MUST_USE dure_err dure_noise_add(int64_t *sum, size_t n, dure_noise_scale scale,
                                      const dure_rng *rng);
