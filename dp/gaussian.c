#include "dp/gaussian.h"

#include <float.h>
#include <math.h>

double dure_normal_log_cdf(double x)
{
    if (x > -37) return log(0.5 * erfc(-x / M_SQRT2));
    /* The asymptotic series; its first neglected term is below 1e-11 here, and ending on a positive
     * one makes it an upper bound. */
    double r = 1 / (x * x);
    double series = -r * (1 - 3 * r * (1 - 5 * r * (1 - 7 * r)));
    return -0.5 * x * x - log(-x) - 0.5 * log(2 * M_PI) + log1p(series);
}

double dure_gaussian_delta(double mu, double epsilon)
{
    if (!(mu > 0)) return epsilon >= 0 ? 0 : -expm1(epsilon);
    if (isinf(mu)) return 1;
    double first = dure_normal_log_cdf(mu / 2 - epsilon / mu);
    double second = epsilon + dure_normal_log_cdf(-mu / 2 - epsilon / mu);
    /* second <= first; the difference of exponentials without cancelling the large part. */
    double delta = second < first ? -exp(first) * expm1(second - first) : 0;
    return fmin(1, fmax(delta, 0));
}

typedef double (*curve)(const double *parameters, double epsilon);

/* The smallest epsilon >= 0 at which a falling curve is at most delta. */
static double invert(curve f, const double *parameters, double delta)
{
    if (f(parameters, 0) <= delta) return 0;
    double low = 0, high = 1;
    while (f(parameters, high) > delta) {
        low = high;
        high *= 2;
        if (high > DBL_MAX / 4) return INFINITY;
    }
    for (;;) {
        double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high) return high;
        if (f(parameters, middle) <= delta)
            high = middle;
        else
            low = middle;
    }
}

static double gaussian_curve(const double *mu, double epsilon)
{
    return dure_gaussian_delta(*mu, epsilon);
}

double dure_gaussian_epsilon(double mu, double delta)
{
    return isinf(mu) ? INFINITY : invert(gaussian_curve, &mu, delta);
}

double dure_subsampled_delta(double rate, double sigma, double epsilon)
{
    double mu = 1 / sigma, rest = 1 - rate;
    if (rate >= 1) return dure_gaussian_delta(mu, epsilon);
    /* g = log(1 + (e^epsilon - 1) / q), by the second form where e^epsilon would overflow. */
    double g = epsilon < 30 ? log1p(expm1(epsilon) / rate)
                            : epsilon - log(rate) + log1p(-rest * exp(-epsilon));
    double remove = rate * dure_gaussian_delta(mu, g);
    double left = exp(-epsilon) - rest; /* adding a record costs less than -log(1 - q) */
    if (left <= 0) return remove;
    g = epsilon < 0.5 ? -log1p(expm1(-epsilon) / rate) : -log(left / rate);
    return fmax(remove, (1 - rest * exp(epsilon)) * dure_gaussian_delta(mu, g));
}

static double subsampled_curve(const double *step, double epsilon)
{
    return dure_subsampled_delta(step[0], step[1], epsilon);
}

double dure_subsampled_epsilon(double rate, double sigma, double delta)
{
    const double step[] = {rate, sigma};
    return sigma > 0 ? invert(subsampled_curve, step, delta) : INFINITY;
}

double dure_gaussian_limit_mu(double rate, double sigma, double steps)
{
    if (rate >= 1) return sqrt(steps) / sigma;
    return rate * sqrt(steps * expm1(1 / (sigma * sigma)));
}
