/* One site's share of the noise of a secure sum: the discrete Gaussian on the integers,
 *     P(x) proportional to exp(-x^2 / 2 V),   V a whole number of grid units squared,
 * exactly, without floating point (Canonne, Kamath, Steinke, arXiv 2004.00010, algorithm 3). A
 * magnitude is proposed by their discrete Laplace of scale t = floor(sqrt(V)) + 1 (algorithm 2) and
 * kept with probability exp(-(|x| - V/t)^2 / 2 V), a rational exponent; every exp(-r) is von
 * Neumann's comparison of r with uniform digits, where the digits of r come from long division.
 *
 * All sites of a round draw with the same V, the least whole number with
 *     h V >= (sigma G)^2,   h = honest sites that arrive at least, G = 2^grid_bits,
 * so h shares together have at least the variance that the plan claims; what more sites add only
 * helps. The sum of shares is not a discrete Gaussian: dp/accountant_zcdp.h charges the gap.
 *
 * Proposals of 64 t and more are drawn again, which cuts off less than 2 exp(-2000) of the
 * distribution. The draws are a function of the generator's bytes and V alone.
 *
 * Observer: time depends on the noise. Fill a whole vector at once, and never let a peer time
 * single elements. */
#pragma once

#include "common/err.h"
#include "common/rng.h"
#include "dp/plan.h"

#include <stddef.h>
#include <stdint.h>

/* A deviation of 4: below it the sum of shares is not close to a discrete Gaussian. */
#define DURE_SHARE_VARIANCE_MIN UINT64_C(16)
/* A deviation of 2^23: all products of the sampler stay below 2^126. */
#define DURE_SHARE_VARIANCE_MAX (UINT64_C(1) << 46)
/* The vector's words have room for this many deviations of a share beside the clipped update; what
 * lies beyond stops the round at that site, and dure_share_delta() charges it. */
#define DURE_SHARE_DEVIATIONS 12

/* V of the plan, whose mechanism is DURE_DP_SITE_GAUSSIAN; 0 without noise, UINT64_MAX if it
 * overflows. */
uint64_t dure_share_variance(const dure_dp_plan *plan);

/* The largest magnitude of a clipped update with its share that a round allows for: G and
 * DURE_SHARE_DEVIATIONS deviations, rounded up. */
uint64_t dure_share_reach(const dure_dp_plan *plan);
/* (1 + e^epsilon) times the probability that one of h honest sites goes beyond it in any coordinate
 * and round: a discrete Gaussian is subgaussian with V, as docs/noise.md proves. */
double dure_share_delta(const dure_dp_plan *plan, double epsilon);

/* out[0..n) = independent draws. DURE_ERR_USAGE for a variance out of range; DURE_ERR_RNG if `rng`
 * fails or repeats itself; `out` is then all zero: no partly noised vector escapes. Reads `rng` in
 * blocks: a stream is good for one call. Threads: any number. */
DURE_MUST_USE dure_err dure_share_fill(int32_t *out, size_t n, uint64_t variance,
                                       const dure_rng *rng);
