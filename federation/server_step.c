#include "federation/server_step.h"

#include <float.h>
#include <math.h>

/* Bit-reproducibility rests on evaluation in the declared types: no x87 extended precision. */
_Static_assert(FLT_EVAL_METHOD == 0, "needs float and double evaluated as such");

static dure_err check(const float *b_old, const int32_t *sum, size_t n,
                      const dure_server_step *step, double unit, dure_diag *diag)
{
    const int64_t most = (int64_t)step->n_sites * step->grid.limit;
    for (size_t i = 0; i < n; i++) {
        if (sum[i] > most || sum[i] < -most)
            return dure_diag_set(
                diag, DURE_ERR_PROTO,
                "coordinate %zu of the sum is %d, outside what %u honest sites can "
                "sum to: a site or the coordinator sent a wrong vector",
                i, (int)sum[i], step->n_sites);
        const double b = (double)b_old[i] + (double)sum[i] * unit / step->n_sites;
        if (!isfinite(b) || fabs(b) > FLT_MAX)
            return dure_diag_set(diag, DURE_ERR_PROTO,
                                 "parameter %zu of the new adapter would not be finite", i);
    }
    return DURE_OK;
}

dure_err dure_server_step_apply(float *b_new, const float *b_old, const int32_t *sum, size_t n,
                                const dure_server_step *step, dure_diag *diag)
{
    dure_err err = dure_grid_check(&step->grid, step->n_sites, diag);
    if (err) return err;
    const double unit = step->grid.range / (double)step->grid.limit;
    err = check(b_old, sum, n, step, unit, diag);
    if (err) return err;
    for (size_t i = 0; i < n; i++) {
        const double exact = (double)sum[i] * unit;
        const double mean = exact / (double)step->n_sites;
        b_new[i] = (float)((double)b_old[i] + mean);
    }
    return DURE_OK;
}

dure_err dure_server_step_sum_digest(dure_hash *out, const int32_t *sum, size_t n)
{
    static const char label[] = "dure/1/sum";
    dure_hasher *hasher = NULL;
    dure_err err = dure_hasher_new(&hasher);
    if (!err) err = dure_hasher_update(hasher, dure_span_of(label, sizeof label - 1));
    uint8_t tile[4096];
    size_t at = 0;
    for (size_t i = 0; !err && i < n; i++) {
        const uint32_t word = (uint32_t)sum[i];
        for (int shift = 24; shift >= 0; shift -= 8)
            tile[at++] = (uint8_t)(word >> shift);
        if (at == sizeof tile || i + 1 == n) {
            err = dure_hasher_update(hasher, dure_span_of(tile, at));
            at = 0;
        }
    }
    if (!err) err = dure_hasher_final(out, hasher);
    dure_hasher_free(&hasher);
    return err;
}
