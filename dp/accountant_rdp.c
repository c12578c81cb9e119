#include "dp/accountant_rdp.h"

#include "dp/accountant_zcdp.h"

#include <math.h>

const double dure_rdp_orders[DURE_RDP_ORDERS] = {
    1.1, 1.2, 1.3, 1.4, 1.5, 1.6,  1.7,  1.8,  1.9,  2,    2.1,  2.2,  2.3,  2.4,  2.5, 2.6, 2.7,
    2.8, 2.9, 3,   3.1, 3.2, 3.3,  3.4,  3.5,  3.6,  3.7,  3.8,  3.9,  4,    4.1,  4.2, 4.3, 4.4,
    4.5, 4.6, 4.7, 4.8, 4.9, 5,    5.1,  5.2,  5.3,  5.4,  5.5,  5.6,  5.7,  5.8,  5.9, 6,   6.1,
    6.2, 6.3, 6.4, 6.5, 6.6, 6.7,  6.8,  6.9,  7,    7.1,  7.2,  7.3,  7.4,  7.5,  7.6, 7.7, 7.8,
    7.9, 8,   8.1, 8.2, 8.3, 8.4,  8.5,  8.6,  8.7,  8.8,  8.9,  9,    9.1,  9.2,  9.3, 9.4, 9.5,
    9.6, 9.7, 9.8, 9.9, 10,  10.1, 10.2, 10.3, 10.4, 10.5, 10.6, 10.7, 10.8, 10.9, 11,  12,  13,
    14,  15,  16,  17,  18,  19,   20,   21,   22,   23,   24,   25,   26,   27,   28,  29,  30,
    31,  32,  33,  34,  35,  36,   37,   38,   39,   40,   41,   42,   43,   44,   45,  46,  47,
    48,  49,  50,  51,  52,  53,   54,   55,   56,   57,   58,   59,   60,   61,   62,  63,  64,
    72,  80,  96,  112, 128, 160,  192,  224,  256,  320,  384,  448,  512,  640,  768, 1024};

/* log(e^a + e^b), either of which may be minus infinity. */
static double log_add(double a, double b)
{
    double high = fmax(a, b), low = fmin(a, b);
    if (isinf(low) && low < 0) return high;
    return high + log1p(exp(low - high));
}

/* log erfc(x). Past 26 erfc nears the smallest double, so the asymptotic series takes over; it
 * alternates and ends here on a positive term, so it is an upper bound, good to 1e-11. */
static double log_erfc(double x)
{
    if (x < 26) return log(erfc(x));
    double r = 1 / (2 * x * x);
    double correction = -r * (1 - 3 * r * (1 - 5 * r * (1 - 7 * r)));
    return -x * x - log(x) - 0.5 * log(M_PI) + log1p(correction);
}

/* log A for an integer order: the binomial expansion of E_Q[((1-q) + q P/Q)^alpha]. */
static double log_moment_integer(double q, double sigma, double alpha)
{
    double total = -INFINITY, log_choose = 0;
    for (double i = 0; i <= alpha; i++) {
        double term =
            log_choose + i * log(q) + (alpha - i) * log1p(-q) + (i * i - i) / (2 * sigma * sigma);
        total = log_add(total, term);
        log_choose += log(alpha - i) - log(i + 1);
    }
    return total;
}

/* One term of the fractional series: the half that integrates over x <= z0 (i counts the powers
 * of q) or over x >= z0 (i counts the powers of 1 - q); `tail` is the argument of erfc. */
static double half_term(double log_choose, double power, double tail, double sigma)
{
    return log_choose + (power * power - power) / (2 * sigma * sigma) + log_erfc(tail) - M_LN2;
}

/* log A for a fractional order. The binomials alternate in sign past alpha; taking all terms as
 * positive gives an upper bound that cannot cancel below the truth. */
static double log_moment_fractional(double q, double sigma, double alpha)
{
    const int most_terms = 1000;
    const double negligible = 30; /* e^-30 of the sum */
    double z0 = sigma * sigma * log(1 / q - 1) + 0.5;
    double total = -INFINITY, log_choose = 0, before0 = INFINITY, before1 = INFINITY;
    for (int i = 0; i < most_terms; i++) {
        double j = alpha - i;
        double s0 = half_term(log_choose, i, (i - z0) / (M_SQRT2 * sigma), sigma) + i * log(q) +
                    j * log1p(-q);
        double s1 = half_term(log_choose, j, (z0 - j) / (M_SQRT2 * sigma), sigma) + j * log(q) +
                    i * log1p(-q);
        total = log_add(total, log_add(s0, s1));
        if (s0 < before0 && s1 < before1 && fmax(s0, s1) < total - negligible) return total;
        before0 = s0;
        before1 = s1;
        log_choose += log(fabs(alpha - i)) - log(i + 1.0);
    }
    return INFINITY;
}

/* A moment below 1 can only be rounding; NaN can only be inf - inf. Neither may lower the figure
 * that a budget is held to. */
static double divergence(double log_moment, double alpha)
{
    if (isnan(log_moment)) return INFINITY;
    return fmax(log_moment, 0) / (alpha - 1);
}

double dure_rdp_step(double rate, double sigma, double alpha)
{
    if (rate <= 0) return 0;
    if (!(sigma > 0)) return INFINITY;
    if (rate >= 1) return alpha / (2 * sigma * sigma);
    /* Renyi divergence does not fall with the order, so the next integer order bounds a
     * fractional one too, and is the better bound where the absolute form is loose. */
    double whole = ceil(alpha);
    double above = divergence(log_moment_integer(rate, sigma, whole), whole);
    if (whole == alpha) return above;
    return fmin(above, divergence(log_moment_fractional(rate, sigma, alpha), alpha));
}

static double epsilon_at(double alpha, double rdp, double delta)
{
    if (delta * delta + expm1(-rdp) > 0) return 0;
    if (alpha <= 1.01 || !isfinite(rdp)) return INFINITY;
    return fmax(0, rdp + log1p(-1 / alpha) - log(delta * alpha) / (alpha - 1));
}

double dure_rdp_to_epsilon(const double *orders, const double *rdp, size_t n, double delta,
                           double *order)
{
    double best = INFINITY;
    for (size_t i = 0; i < n; i++) {
        double epsilon = epsilon_at(orders[i], rdp[i], delta);
        if (epsilon >= best) continue;
        best = epsilon;
        if (order) *order = orders[i];
    }
    return best;
}

void dure_rdp_add(dure_rdp *rdp, const dure_dp_plan *plan)
{
    double rate = dure_dp_plan_rate(plan), sigma = dure_dp_plan_sigma_effective(plan);
    if (plan->steps == 0) return;
    for (size_t i = 0; i < DURE_RDP_ORDERS; i++) {
        double order = dure_rdp_orders[i];
        double step = plan->mechanism == DURE_DP_SITE_GAUSSIAN ? dure_zcdp_rdp(plan, order)
                                                               : dure_rdp_step(rate, sigma, order);
        rdp->total[i] += (double)plan->steps * step;
    }
}

void dure_rdp_merge(dure_rdp *rdp, const dure_rdp *other)
{
    for (size_t i = 0; i < DURE_RDP_ORDERS; i++)
        rdp->total[i] += other->total[i];
}

dure_err dure_rdp_epsilon(double *epsilon, const dure_rdp *rdp, double delta)
{
    *epsilon = INFINITY;
    if (!(delta > 0 && delta < 1)) return DURE_ERR_USAGE;
    *epsilon = dure_rdp_to_epsilon(dure_rdp_orders, rdp->total, DURE_RDP_ORDERS, delta, NULL);
    return DURE_OK;
}
