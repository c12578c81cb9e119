#include "federation/server_step.h"

#include <float.h>
#include <math.h>

/* Bit-reproducibility rests on evaluation in the declared types: no x87 extended precision. */
_Static_assert(FLT_EVAL_METHOD == 0, "needs float and double evaluated as such");

/* One coordinate, in the order that the header fixes. */
static double stepped(float b_old, int32_t sum, double unit, const dure_server_step *step)
{
    const double exact = (double)sum * unit;
    const double mean = exact / (double)step->n_sites;
    const double delta = mean * step->rate;
    return (double)b_old + delta;
}

static dure_err check(const float *b_old, const int32_t *sum, size_t n,
                      const dure_server_step *step, dure_diag *diag)
{
    const double unit = step->grid.range / (double)step->grid.limit;
    const int64_t most = (int64_t)step->n_sites * step->grid.limit;
    for (size_t i = 0; i < n; i++) {
        if (sum[i] > most || sum[i] < -most)
            return dure_diag_set(
                diag, DURE_ERR_PROTO,
                "coordinate %zu of the sum is %d, outside what %u honest sites can "
                "sum to: a site or the coordinator sent a wrong vector",
                step->first + i, (int)sum[i], step->n_sites);
        const double b = stepped(b_old[i], sum[i], unit, step);
        if (!isfinite(b) || fabs(b) > (double)FLT_MAX)
            return dure_diag_set(diag, DURE_ERR_PROTO,
                                 "parameter %zu of the new adapter would not be finite",
                                 step->first + i);
    }
    return DURE_OK;
}

dure_err dure_server_step_apply(float *b_new, const float *b_old, const int32_t *sum, size_t n,
                                const dure_server_step *step, dure_diag *diag)
{
    dure_err err = dure_grid_check(&step->grid, step->n_sites, diag);
    if (!err && !(step->rate > 0 && isfinite(step->rate)))
        err = dure_diag_set(diag, DURE_ERR_USAGE, "the server's rate must be above 0 and finite");
    if (!err) err = check(b_old, sum, n, step, diag);
    if (err) return err;
    const double unit = step->grid.range / (double)step->grid.limit;
    for (size_t i = 0; i < n; i++)
        b_new[i] = (float)stepped(b_old[i], sum[i], unit, step);
    return DURE_OK;
}

void dure_server_step_sum_put(uint8_t *bytes, const int32_t *sum, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t word = (uint32_t)sum[i];
        for (unsigned k = 0; k < 4; k++)
            bytes[4 * i + k] = (uint8_t)(word >> (8 * k));
    }
}

void dure_server_step_sum_take(int32_t *sum, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t word = 0;
        for (unsigned k = 0; k < 4; k++)
            word |= (uint32_t)bytes[4 * i + k] << (8 * k);
        sum[i] = (int32_t)word;
    }
}
