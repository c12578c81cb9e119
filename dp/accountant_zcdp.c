#include "dp/accountant_zcdp.h"

#include "dp/noise_share.h"

#include <float.h>
#include <math.h>

/* Each figure is the result of fewer than 16 operations on positive terms, each good to 2 units in
 * the last place of its result or better: raised by 2^-45 of its terms it is not below the truth.
 */
#define RAISE 0x1p-45

static double raised(double x)
{
    return x * (1 + RAISE);
}

double dure_zcdp_tau(const dure_dp_plan *plan)
{
    double variance = (double)dure_share_variance(plan), sum = 0;
    for (uint32_t k = 1; k < plan->honest; k++)
        sum += exp(-2 * M_PI * M_PI * variance * k / (k + 1.0));
    /* An exponent of at most 745 is good to 2^-41, so exp is to 2^-41 of itself; past 745 it is
     * below the smallest double. */
    return 10 * sum * (1 + 0x1p-39) + DBL_MIN;
}

/* (G / sqrt(h V))^2 */
static double shift_square(const dure_dp_plan *plan)
{
    double total = (double)plan->honest * (double)dure_share_variance(plan);
    return total > 0 ? raised(ldexp(1, 2 * (int)plan->grid_bits) / total) : INFINITY;
}

double dure_zcdp_rho(const dure_dp_plan *plan)
{
    double root = sqrt(shift_square(plan)) + dure_zcdp_tau(plan) * sqrt((double)plan->n_params);
    return raised((double)plan->steps * (root * root / 2));
}

double dure_zcdp_rho_all(const dure_dp_plan *plans, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += dure_zcdp_rho(&plans[i]);
    return sum * (1 + (double)n * DBL_EPSILON);
}

double dure_zcdp_rdp(const dure_dp_plan *plan, double alpha)
{
    return raised(alpha * shift_square(plan) / 2 + dure_zcdp_tau(plan) * (double)plan->n_params);
}

/* With b = alpha - 1, epsilon is rho (1 + b) - log(1 + 1/b) - (log delta + log(1 + b)) / b, whose
 * derivative vanishes where rho b^2 + log delta + log(1 + b) = 0: once, since that grows. */
static double best_for_epsilon(double rho, double delta)
{
    double low = 0x1p-60, high = 0x1p60;
    for (int i = 0; i < 200; i++) {
        double b = sqrt(low * high);
        if (rho * b * b + log(delta) + log1p(b) < 0)
            low = b;
        else
            high = b;
    }
    return high;
}

double dure_zcdp_epsilon(double rho, double delta)
{
    if (!(rho > 0)) return 0;
    if (!isfinite(rho)) return INFINITY;
    double b = best_for_epsilon(rho, delta);
    double divergence = rho * (1 + b), gain = log1p(1 / b);
    double of_delta = -log(delta) / b, of_order = log1p(b) / b;
    double error = RAISE * (divergence + gain + of_delta + of_order);
    return fmax(0, divergence - gain + of_delta - of_order + error);
}

/* log delta = b ((1 + b) rho - epsilon) - (1 + b) log(1 + 1/b) - log b, whose derivative is
 * (1 + 2 b) rho - epsilon - log(1 + 1/b): it grows, too. */
static double best_for_delta(double rho, double epsilon)
{
    double low = 0x1p-60, high = 0x1p60;
    for (int i = 0; i < 200; i++) {
        double b = sqrt(low * high);
        if ((1 + 2 * b) * rho - epsilon - log1p(1 / b) < 0)
            low = b;
        else
            high = b;
    }
    return high;
}

double dure_zcdp_delta(double rho, double epsilon)
{
    if (!(rho > 0)) return 0;
    if (!isfinite(rho)) return 1;
    double b = best_for_delta(rho, epsilon);
    double divergence = b * (1 + b) * rho, allowed = b * epsilon;
    double gain = (1 + b) * log1p(1 / b), of_order = log(b);
    double error = RAISE * (divergence + allowed + gain + fabs(of_order));
    return fmin(1, raised(exp(divergence - allowed - gain - of_order + error)));
}
