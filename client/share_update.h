/* A site's update where the site is what is protected: clipped as a whole, noised with its share,
 * in the integers that are masked and summed.
 *
 * The share of noise goes into the units before anything of the data is touched. Then the
 * difference trained - global is clipped to C, on the grid of G units, its sum of squares at most
 * G^2 in integers (dp/quantize.h), and added. It is zero if training failed or anything is not
 * finite.
 *
 * Nothing of this leaves the site but under the masks of the secure sum. Threads: pure functions.
 */
#pragma once

#include "common/err.h"
#include "common/rng.h"
#include "dp/plan.h"

#include <stddef.h>
#include <stdint.h>

typedef struct dure_share_update {
    const float *trained; /* n of each; trained NULL: training failed, and the update is zero */
    const float *global;
    size_t n;
    uint32_t limit; /* most that a unit may be, the grid's Q */
} dure_share_update;

/* units[0..n) under a plan of DURE_DP_SITE_GAUSSIAN for n parameters; `rng` is good for this call
 * alone. *zeroed says that the update counted as zero. On failure `units` are all zero and must not
 * be sent: DURE_ERR_USAGE for a plan of another length, DURE_ERR_RNG, DURE_ERR_NOMEM;
 * DURE_ERR_LIMIT when a share came out too long for the round, as likely as dure_share_delta()
 * says. */
DURE_MUST_USE dure_err dure_share_update_make(int32_t *units, bool *zeroed,
                                              const dure_share_update *update,
                                              const dure_dp_plan *plan, const dure_rng *rng,
                                              dure_diag *diag);
