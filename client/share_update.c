#include "client/share_update.h"

#include "crypto/wipe.h"
#include "dp/noise_share.h"
#include "dp/quantize.h"

#include <stdlib.h>
#include <string.h>

/* False: nothing of the update may count, and q is zero. */
static bool clip(int32_t *q, float *delta, const dure_share_update *u, const dure_dp_plan *plan)
{
    memset(q, 0, u->n * sizeof *q);
    if (!u->trained) return false;
    for (size_t i = 0; i < u->n; i++)
        delta[i] = u->trained[i] - u->global[i];
    return dure_quantize(q, delta, u->n, plan);
}

static dure_err add_clipped(int32_t *units, const int32_t *q, const dure_share_update *u,
                            dure_diag *diag)
{
    for (size_t i = 0; i < u->n; i++) {
        int64_t sum = (int64_t)units[i] + q[i];
        if (sum > u->limit || sum < -(int64_t)u->limit)
            return dure_diag_set(diag, DURE_ERR_LIMIT,
                                 "this site's share of the noise is longer than the round takes; "
                                 "the next round draws another");
        units[i] = (int32_t)sum;
    }
    return DURE_OK;
}

dure_err dure_share_update_make(int32_t *units, bool *zeroed, const dure_share_update *u,
                                const dure_dp_plan *plan, const dure_rng *rng, dure_diag *diag)
{
    *zeroed = true;
    memset(units, 0, u->n * sizeof *units);
    if (plan->mechanism != DURE_DP_SITE_GAUSSIAN || plan->n_params != u->n)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the plan shares noise for %llu parameters, and the update has %zu",
                             (unsigned long long)plan->n_params, u->n);
    int32_t *q = malloc(u->n * sizeof *q);
    float *delta = malloc(u->n * sizeof *delta);
    dure_err err = q && delta ? DURE_OK : DURE_ERR_NOMEM;
    if (!err) err = dure_share_fill(units, u->n, dure_share_variance(plan), rng);
    if (!err) {
        *zeroed = !clip(q, delta, u, plan);
        err = add_clipped(units, q, u, diag);
    }
    if (err) memset(units, 0, u->n * sizeof *units);
    if (q) dure_wipe(q, u->n * sizeof *q);
    if (delta) dure_wipe(delta, u->n * sizeof *delta);
    free(q);
    free(delta);
    return err;
}
