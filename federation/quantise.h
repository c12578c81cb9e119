/* From a trained update to the integers that are masked and summed, and back.
 *
 * A site's update is the difference of its trained parameters from the global ones. It is counted
 * in units of range / Q, rounded to the nearest integer (ties to even) and clamped to [-Q, Q]; the
 * integers travel as b-bit words in two's complement (crypto/mask.h), so that the sum over n sites
 * is exact while n Q < 2^(b-1). Rounding and clamping come after the noise of the privacy mechanism
 * and therefore cost accuracy only, never privacy. Where the noise is shared among sites, an update
 * is clipped and rounded by dp/quantize.h instead, on the same units, and noised as integers.
 *
 * Threads: pure functions. */
#pragma once

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

typedef struct dure_grid {
    double range;          /* largest difference a site may send; a power of two */
    uint32_t limit;        /* Q: units in `range`; a power of two */
    uint32_t modulus_bits; /* b: 24 (packed) or 32 */
} dure_grid;

/* DURE_ERR_USAGE unless range and Q are powers of two, b is 24 or 32 and `n_sites` updates of Q
 * units each stay below 2^(b-1): then the sum never wraps and every step of it is exact. */
DURE_MUST_USE dure_err dure_grid_check(const dure_grid *grid, uint32_t n_sites, dure_diag *diag);

/* units[0..n) from two parameter vectors. *n_clamped (may be NULL) counts the coordinates that were
 * cut to +-Q; it is private to the site. DURE_ERR_STATE, with `units` zeroed, when a parameter is
 * not finite: such an update must not leave. */
DURE_MUST_USE dure_err dure_quantise_update(int32_t *units, size_t *n_clamped, const float *trained,
                                            const float *global, size_t n, const dure_grid *grid,
                                            dure_diag *diag);
