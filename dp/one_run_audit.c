#include "dp/one_run_audit.h"

#include "dp/gaussian.h"

#include <math.h>
#include <stdbool.h>

enum { EPSILON_MOST = 50, MU_MOST = 50, HALVINGS = 46 };

/* B is the number of right ones of n guesses, each right with probability e^epsilon / (1 +
 * e^epsilon); right and wrong ones thus weigh as e^epsilon to 1, also where the probability itself
 * is 1 as a double. log P[B = k]: */
static double log_mass(double n, double k, double epsilon)
{
    double choose = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1);
    return choose - (n - k) * epsilon - n * log1p(exp(-epsilon));
}

/* P[B >= k]: the masses from k up. */
static double upper_tail(double n, double k, double epsilon)
{
    double sum = 0, mean = n / (1 + exp(-epsilon));
    double log_of = log_mass(n, k, epsilon);
    for (double i = k; i <= n; i++) {
        double mass = exp(log_of);
        sum += mass;
        if (i > mean && mass < 1e-18 * sum) break;
        if (i < n) log_of += log(n - i) - log(i + 1) + epsilon;
    }
    return fmin(sum, 1);
}

double dure_one_run_p_value(const dure_guesses *g, double epsilon, double delta)
{
    const double n = (double)g->n_guess, v = (double)g->n_correct;
    const double beta = v > 0 ? upper_tail(n, v, epsilon) : 1;
    if (!(delta > 0) || beta >= 1) return beta;
    /* alpha: the largest average of P[B = v - 1], .., P[B = v - i] over i. */
    double alpha = 0, sum = 0, log_of = log_mass(n, v - 1, epsilon);
    for (double i = 1; i <= v; i++) {
        double k = v - i;
        sum += exp(log_of);
        alpha = fmax(alpha, sum / i);
        if (k > 0) log_of += log(k) - log(n - k + 1) - epsilon;
        if (sum + beta > 1 - 1e-15) break; /* what is left adds nothing, and i grows */
    }
    return fmin(beta + alpha * delta * 2 * (double)g->m, 1);
}

/* The largest x in [0, most] for which `rejected` holds, which it does below some point only. */
typedef bool rejects(const dure_guesses *g, double significance, double delta, double x);

static double largest(rejects *rejected, const dure_guesses *g, double significance, double delta,
                      double most)
{
    double low = 0, high = most;
    if (!rejected(g, significance, delta, 0)) return 0;
    if (rejected(g, significance, delta, most)) return INFINITY;
    for (int i = 0; i < HALVINGS; i++) {
        double middle = low + (high - low) / 2;
        if (rejected(g, significance, delta, middle))
            low = middle;
        else
            high = middle;
    }
    return low;
}

static bool rejects_epsilon(const dure_guesses *g, double significance, double delta,
                            double epsilon)
{
    return dure_one_run_p_value(g, epsilon, delta) <= significance;
}

double dure_one_run_epsilon(const dure_guesses *guesses, double significance, double delta)
{
    return largest(rejects_epsilon, guesses, significance, delta, EPSILON_MOST);
}

/* ---- the Gaussian claim ---- */

static double normal_cdf(double x)
{
    return 0.5 * erfc(-x / M_SQRT2);
}

/* A rational approximation of the quantile of p <= 1/2, good to 1e-9 (Acklam), and two steps of
 * Halley's method. */
static double lower_quantile(double p)
{
    static const double a[] = {-3.969683028665376e+01, 2.209460984245205e+02,
                               -2.759285104469687e+02, 1.383577518672690e+02,
                               -3.066479806614716e+01, 2.506628277459239e+00},
                        b[] = {-5.447609879822406e+01, 1.615858368580409e+02,
                               -1.556989798598866e+02, 6.680131188771972e+01,
                               -1.328068155288572e+01, 1},
                        c[] = {-7.784894002430293e-03, -3.223964580411365e-01,
                               -2.400758277161838e+00, -2.549732539343734e+00,
                               4.374664141464968e+00,  2.938163982698783e+00},
                        d[] = {7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00,
                               3.754408661907416e+00, 1};
    double x, top = 0, bottom = 0;
    if (p < 0.02425) {
        double r = sqrt(-2 * log(p));
        for (int i = 0; i < 6; i++)
            top = top * r + c[i];
        for (int i = 0; i < 5; i++)
            bottom = bottom * r + d[i];
        x = top / bottom;
    } else {
        double r = (p - 0.5) * (p - 0.5);
        for (int i = 0; i < 6; i++)
            top = top * r + a[i];
        for (int i = 0; i < 6; i++)
            bottom = bottom * r + b[i];
        x = (p - 0.5) * top / bottom;
    }
    for (int i = 0; i < 2; i++) {
        double error = (normal_cdf(x) - p) * sqrt(2 * M_PI) * exp(x * x / 2);
        x -= error / (1 + x * error / 2);
    }
    return x;
}

/* Phi(Phi^-1(p) - mu): how much of the wrong guesses a share p of the right ones may come with. */
static double inverse_blow_up(double p, double mu)
{
    if (!(p > 0)) return 0;
    if (!(p < 1)) return 1;
    double x = p <= 0.5 ? lower_quantile(p) : -lower_quantile(1 - p);
    return normal_cdf(x - mu);
}

/* Algorithm 3 for guesses between two: r and h bound, from the last guess back, how much
 * probability right and wrong guesses can have together if the claim holds. More than there are
 * guesses is a contradiction. */
static bool rejects_mu(const dure_guesses *g, double significance, double delta, double mu)
{
    const double m = (double)g->m, n = (double)g->n_guess, v = (double)g->n_correct;
    double r = significance * v / m, h = significance * (n - v) / m;
    (void)delta;
    for (double i = v - 1; i >= 0; i--) {
        double more = fmax(h, inverse_blow_up(r, mu));
        if (!(more > h)) break;
        r = fmin(r + i / (n - i) * (more - h), 1);
        h = more;
    }
    return r + h > n / m;
}

double dure_one_run_mu(const dure_guesses *guesses, double significance)
{
    return largest(rejects_mu, guesses, significance, 0, MU_MOST);
}

double dure_one_run_epsilon_gaussian(const dure_guesses *guesses, double significance, double delta)
{
    double mu = dure_one_run_mu(guesses, significance);
    if (!(mu > 0)) return 0;
    return isfinite(mu) ? dure_gaussian_epsilon(mu, delta) : INFINITY;
}
