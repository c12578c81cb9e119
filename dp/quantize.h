/* One record's gradient, clipped and put on the integer grid: the only place where sensitivity
 * is decided, and it is decided in integers.
 *
 * 1. The norm is taken in double over the whole gradient (all adapter tensors jointly).
 * 2. The gradient is scaled so that its norm is at most C - (C/G) sqrt(d)/2; rounding d numbers
 *    to the nearest grid point adds at most (C/G) sqrt(d)/2, so the integer vector's norm is at
 *    most G whatever the rounding does (jax_privacy, clipping.py, _adjusted_clip_norm).
 * 3. sum q_i^2 <= G^2 is then checked in integers. If it fails, or if anything was not finite,
 *    the record contributes nothing.
 *
 * Only + - * / and sqrt in a fixed order, no contraction: a record's integers are the same on
 * every IEEE 754 machine, in any batch, packing and number of threads. Allocates nothing.
 * Observer: nothing of this leaves the site before noise is added. */
#pragma once

#include "common/err.h"
#include "dp/plan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* q[0..n) = the integers of gradient[0..n); returns false, with q all zero, if the record may not
 * contribute (something was not finite, or the integer check failed). `plan` has passed
 * dure_dp_plan_check() and n has passed dure_dp_grid_bits() for its grid. */
bool dure_quantize(int32_t *q, const float *gradient, size_t n, const dure_dp_plan *plan);

/* The same in pieces, for several threads and without holding q: the square norm of every piece of
 * DURE_QUANTIZE_PIECE coordinates (the last may be shorter), their sum in order, the scale it
 * gives, then every piece added to the sum. If the integers' squares do not fit, every piece is
 * taken back. The integers are those of dure_quantize(). */
#define DURE_QUANTIZE_PIECE 65536
double dure_quantize_square(const float *gradient, size_t n);
/* What a plan says of gradients of n coordinates, for those who do these steps elsewhere
 * (kernels/cuda/clip.h). */
typedef struct dure_quantize_bounds {
    double per_unit;       /* grid units of 1.0, before clipping */
    double norm_most;      /* of a gradient, in grid units; a longer one is scaled down to it */
    uint64_t squares_most; /* of its integers, in all: G^2 */
} dure_quantize_bounds;
dure_quantize_bounds dure_quantize_bounds_of(size_t n, const dure_dp_plan *plan);
/* Grid units of 1.0, after clipping, of the whole gradient of n coordinates; false if it is not
 * finite. */
bool dure_quantize_scale(double *scale, double norm_square, size_t n, const dure_dp_plan *plan);
/* sum[i] += the integer of gradient[i]; returns the sum of their squares. Exact: 2^38 records of
 * the largest grid fit. */
uint64_t dure_quantize_add_piece(int64_t *sum, const float *gradient, size_t n, double scale);
void dure_quantize_take_back(int64_t *sum, const float *gradient, size_t n, double scale);
/* Whether all squares together are at most G^2. */
bool dure_quantize_fits(uint64_t squares, const dure_dp_plan *plan);

/* mean[i] = sum[i] C / (G L) as float: the noisy sum in the gradient's units over the public
 * batch size. For sums to which noise has been added. */
void dure_quantize_mean(float *mean, const int64_t *sum, size_t n, const dure_dp_plan *plan);
