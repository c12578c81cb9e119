/* What the coordinator does with the sum, and every site recomputes: the new global factor B.
 *
 *   B_new = float( double(B_old) + double(sum) * (range / Q) / n_sites * rate )
 *
 * in IEEE 754 double, one coordinate after the other, without contraction. range / Q is a power of
 * two, so the product is exact, and the division, the addition and the conversion are each
 * correctly rounded: the result is the same bits on every machine.
 *
 * Factor A is frozen with orthonormal rows (FFA-LoRA, arXiv 2403.12313), so averaging B averages
 * the product B A exactly. FedSVD's re-basis (arXiv 2505.12805) keeps the row space of A when B
 * alone is trained; it would add only the conditioning that an orthonormal A has from the start.
 *
 * Threads: pure functions. */
#pragma once

#include "common/err.h"
#include "federation/quantise.h"

#include <stddef.h>
#include <stdint.h>

typedef struct dure_server_step {
    dure_grid grid;
    uint32_t n_sites; /* |U3|: the sites whose vectors are in the sum */
    double rate;      /* the server's learning rate, usually 1 */
    size_t first;     /* coordinates before these, for what is said of one */
} dure_server_step;

/* b_new[0..n) from b_old and the unmasked sum, in units. In place is fine. DURE_ERR_PROTO, with
 * b_new untouched, when a coordinate of the sum exceeds n_sites * Q (an honest sum cannot) or a
 * result is not finite. */
DURE_MUST_USE dure_err dure_server_step_apply(float *b_new, const float *b_old, const int32_t *sum,
                                              size_t n, const dure_server_step *step,
                                              dure_diag *diag);

/* The sum as the blob that Result names by its SHA-256: int32, little-endian. `bytes` may be the
 * sum's own memory. */
void dure_server_step_sum_put(uint8_t *bytes, const int32_t *sum, size_t n);
void dure_server_step_sum_take(int32_t *sum, const uint8_t *bytes, size_t n);
