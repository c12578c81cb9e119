#include "dp/adaptive_clip.h"

#include <math.h>

/* e^x for |x| <= 1, to some ulp. The C library's differs from machine to machine. */
static double exponential(double x)
{
    double sum = 1;
    for (int i = 20; i > 0; i--)
        sum = 1 + x / i * sum;
    return sum;
}

double dure_adaptive_clip_next(double clip, int64_t count, const dure_dp_plan *plan)
{
    double most = ldexp(2 * (double)plan->batch, (int)plan->grid_bits);
    double below = 0.5 + (double)count / most;
    if (below < 0) below = 0;
    if (below > 1) below = 1;
    double quantile = (double)plan->adaptive.quantile_num / DURE_DP_SIGMA_DEN;
    double next = clip * exponential(-plan->adaptive.rate * (below - quantile));
    if (next < DURE_DP_CLIP_MIN) return DURE_DP_CLIP_MIN;
    return next > DURE_DP_CLIP_MAX ? DURE_DP_CLIP_MAX : next;
}
