#include "dp/quantize.h"

#include <math.h>
#include <string.h>

#define LANES 8

/* The sum of squares in double. Eight partial sums in a fixed pattern let the compiler use vector
 * registers without reordering anything: the value depends on the gradient alone. */
static double square_norm(const float *v, size_t n)
{
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            lane[j] += (double)v[i + j] * (double)v[i + j];
    }
    for (; i < n; i++)
        lane[i % LANES] += (double)v[i] * (double)v[i];
    double sum = 0;
    for (size_t j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

/* Adding and taking away 1.5 * 2^52 rounds a double below 2^51 to the nearest integer, ties to
 * even, in the default rounding mode: two additions instead of a library call. */
static const double round_to_integer = 6755399441055744.0;

static void round_scaled(int32_t *q, const float *v, size_t n, double scale)
{
    for (size_t i = 0; i < n; i++) {
        double x = (double)v[i] * scale;
        q[i] = (int32_t)((x + round_to_integer) - round_to_integer);
    }
}

static uint64_t integer_square_norm(const int32_t *q, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (uint64_t)((int64_t)q[i] * q[i]);
    return sum;
}

bool dure_quantize(int32_t *q, const float *gradient, size_t n, const dure_dp_plan *plan)
{
    uint64_t grid = (uint64_t)1 << plan->grid_bits;
    double norm_square = square_norm(gradient, n);
    /* A float's square is at most 1.2e77, so only a NaN or an infinity makes this not finite. */
    if (isfinite(norm_square)) {
        double per_unit = (double)grid / plan->clip;
        double norm_units = sqrt(norm_square) * per_unit;
        double most = (double)grid - sqrt((double)n) / 2;
        double scale = norm_units > most ? per_unit * (most / norm_units) : per_unit;
        if (isfinite(norm_units)) {
            round_scaled(q, gradient, n, scale);
            if (integer_square_norm(q, n) <= grid * grid) return true;
        }
    }
    memset(q, 0, n * sizeof *q);
    return false;
}

void dure_quantize_add(int64_t *sum, const int32_t *q, size_t n)
{
    for (size_t i = 0; i < n; i++)
        sum[i] += q[i];
}

void dure_quantize_mean(float *mean, const int64_t *sum, size_t n, const dure_dp_plan *plan)
{
    double unit = plan->clip / ldexp((double)plan->batch, (int)plan->grid_bits);
    for (size_t i = 0; i < n; i++)
        mean[i] = (float)((double)sum[i] * unit);
}
