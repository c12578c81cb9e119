#include "federation/quantise.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

static bool power_of_two(double x)
{
    int exponent;
    return x > 0 && isfinite(x) && frexp(x, &exponent) == 0.5 && exponent > -64 && exponent < 64;
}

dure_err dure_grid_check(const dure_grid *grid, uint32_t n_sites, dure_diag *diag)
{
    if (!power_of_two(grid->range))
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "grid.range is %g, but must be a power of two such as 0.0625",
                             grid->range);
    if (grid->limit == 0 || (grid->limit & (grid->limit - 1)) != 0)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "grid.limit is %u, but must be a power of two such as 65536",
                             grid->limit);
    if (grid->modulus_bits != 24 && grid->modulus_bits != 32)
        return dure_diag_set(diag, DURE_ERR_USAGE, "grid.modulus_bits is %u, but must be 24 or 32",
                             grid->modulus_bits);
    const uint64_t half = UINT64_C(1) << (grid->modulus_bits - 1);
    if (n_sites == 0 || (uint64_t)n_sites * grid->limit >= half)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "a sum over %u sites of up to %u units each does not fit in %u bits",
                             n_sites, grid->limit, grid->modulus_bits);
    return DURE_OK;
}

dure_err dure_quantise_update(int32_t *units, size_t *n_clamped, const float *trained,
                              const float *global, size_t n, const dure_grid *grid, dure_diag *diag)
{
    const double scale = (double)grid->limit / grid->range;
    const double limit = (double)grid->limit;
    size_t clamped = 0;
    for (size_t i = 0; i < n; i++) {
        /* The difference of two floats is exact enough in double, and the scale a power of two. */
        double u = ((double)trained[i] - (double)global[i]) * scale;
        if (!isfinite(u)) {
            memset(units, 0, n * sizeof *units);
            if (n_clamped) *n_clamped = 0;
            return dure_diag_set(diag, DURE_ERR_STATE,
                                 "the trained update is not finite and will not be sent; lower the "
                                 "learning rate");
        }
        if (u > limit || u < -limit) {
            clamped++;
            u = u > 0 ? limit : -limit;
        }
        units[i] = (int32_t)lrint(u);
    }
    if (n_clamped) *n_clamped = clamped;
    return DURE_OK;
}
