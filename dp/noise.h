/* round(N(0, sigma^2)) on the integers, without floating point in any decision. For an integer v,
 * v + round(g) = round(v + g), so the release is post-processing of the continuous Gaussian
 * mechanism.
 *
 * Scales of 16 to 2^23 grid units, which all sensible plans have, are drawn from tables
 * (dp/noise_table.h), whose distribution is within a total variation distance of 2^-108 of the
 * ideal one a draw: it is part of delta (dure_noise_delta()). Other scales are drawn
 * exactly (dp/noise_exact.h). docs/noise.md has the proof.
 *
 * The draws are a function of the generator's bytes and the scale alone, the same on every machine.
 *
 * Observer: the tables are read at addresses that depend on the noise, and the exact sampler's time
 * depends on it. Fill a whole vector at once, before data are touched, and never let a peer time
 * single elements. */
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
/* The same of the count that an adaptive clip follows. */
dure_noise_scale dure_noise_scale_of_count(const dure_dp_plan *plan);

/* An upper bound on the total variation distance between one draw and the ideal. */
double dure_noise_distance(dure_noise_scale scale);

/* delta_extra of the plan's noise, (1 + e^epsilon) d T distance (of a site's plan
 * dure_share_delta()): what the accountant's delta is
 * less by. d is the most parameters that the plan's grid takes, so at most four times their number;
 * 0 for a plan without a grid, which is a question and not trained. */
double dure_noise_delta(const dure_dp_plan *plan, double epsilon);

/* out[0..n) = independent draws. Reads `rng` in blocks: what is left of the last block is wiped,
 * so a stream is good for one call. DURE_ERR_USAGE for a scale out of range, DURE_ERR_NOMEM;
 * DURE_ERR_RNG if `rng` fails or repeats itself; on any failure out is all zero: no partly noised
 * vector escapes. num 0 gives zeros. The first call at a scale makes its table, which takes some
 * milliseconds and is kept. Threads: any number. */
DURE_MUST_USE dure_err dure_noise_fill(int64_t *out, size_t n, dure_noise_scale scale,
                                       const dure_rng *rng);
/* One draw, exact at every scale, for a number beside the vector: it makes no table, and nothing of
 * it is part of dure_noise_delta(). Errors as of fill. */
DURE_MUST_USE dure_err dure_noise_one(int64_t *out, dure_noise_scale scale, const dure_rng *rng);
/* sum[i] += draw. On failure `sum` is zeroed. */
DURE_MUST_USE dure_err dure_noise_add(int64_t *sum, size_t n, dure_noise_scale scale,
                                      const dure_rng *rng);
