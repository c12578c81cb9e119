#include "dp/quantize.h"

#include <math.h>
#include <string.h>

#define LANES 8

/* The same loops for wider vectors, where the CPU has them: every operation is exact or rounded on
 * its own, so the results are the same bits. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__SANITIZE_THREAD__)
#define WIDE __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define WIDE
#endif

/* Eight partial sums in a fixed pattern let the compiler use vector registers without reordering
 * anything: the value depends on the gradient alone. */
WIDE double dure_quantize_square(const float *gradient, size_t n)
{
    double lane[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (size_t j = 0; j < LANES; j++)
            lane[j] += (double)gradient[i + j] * (double)gradient[i + j];
    }
    for (; i < n; i++)
        lane[i % LANES] += (double)gradient[i] * (double)gradient[i];
    double sum = 0;
    for (size_t j = 0; j < LANES; j++)
        sum += lane[j];
    return sum;
}

/* Adding 1.5 * 2^52 rounds a double below 2^51 to the nearest integer, ties to even, in the default
 * rounding mode, and leaves it in the low bits. */
static const double round_to_integer = 6755399441055744.0;

static inline int64_t to_grid(float v, double scale)
{
    double x = (double)v * scale + round_to_integer;
    int64_t bits, zero;
    memcpy(&bits, &x, sizeof bits);
    memcpy(&zero, &round_to_integer, sizeof zero);
    return bits - zero;
}

WIDE uint64_t dure_quantize_add_piece(int64_t *sum, const float *gradient, size_t n, double scale)
{
    uint64_t squares = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t q = (int32_t)to_grid(gradient[i], scale);
        sum[i] += q;
        squares += (uint64_t)((int64_t)q * q);
    }
    return squares;
}

WIDE void dure_quantize_take_back(int64_t *sum, const float *gradient, size_t n, double scale)
{
    for (size_t i = 0; i < n; i++)
        sum[i] -= (int32_t)to_grid(gradient[i], scale);
}

dure_quantize_bounds dure_quantize_bounds_of(size_t n, const dure_dp_plan *plan)
{
    uint64_t grid = (uint64_t)1 << plan->grid_bits;
    return (dure_quantize_bounds){.per_unit = (double)grid / plan->clip,
                                  .norm_most = (double)grid - sqrt((double)n) / 2,
                                  .squares_most = (uint64_t)1 << 2 * plan->grid_bits};
}

bool dure_quantize_scale(double *scale, double norm_square, size_t n, const dure_dp_plan *plan)
{
    const dure_quantize_bounds b = dure_quantize_bounds_of(n, plan);
    *scale = 0;
    /* A float's square is at most 1.2e77, so only a NaN or an infinity makes this not finite. */
    if (!isfinite(norm_square)) return false;
    double norm_units = sqrt(norm_square) * b.per_unit;
    if (!isfinite(norm_units)) return false;
    *scale = norm_units > b.norm_most ? b.per_unit * (b.norm_most / norm_units) : b.per_unit;
    return true;
}

bool dure_quantize_fits(uint64_t squares, const dure_dp_plan *plan)
{
    return squares <= dure_quantize_bounds_of(1, plan).squares_most;
}

bool dure_quantize(int32_t *q, const float *gradient, size_t n, const dure_dp_plan *plan)
{
    double norm_square = 0, scale;
    uint64_t squares = 0;
    for (size_t i = 0; i < n; i += DURE_QUANTIZE_PIECE)
        norm_square += dure_quantize_square(
            gradient + i, n - i < DURE_QUANTIZE_PIECE ? n - i : DURE_QUANTIZE_PIECE);
    if (dure_quantize_scale(&scale, norm_square, n, plan)) {
        for (size_t i = 0; i < n; i++) {
            q[i] = (int32_t)to_grid(gradient[i], scale);
            squares += (uint64_t)((int64_t)q[i] * q[i]);
        }
        if (dure_quantize_fits(squares, plan)) return true;
    }
    memset(q, 0, n * sizeof *q);
    return false;
}

void dure_quantize_mean(float *mean, const int64_t *sum, size_t n, const dure_dp_plan *plan)
{
    double unit = plan->clip / ldexp((double)plan->batch, (int)plan->grid_bits);
    for (size_t i = 0; i < n; i++)
        mean[i] = (float)((double)sum[i] * unit);
}
