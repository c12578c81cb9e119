/* Published figures: G2 to G4 google/differential-privacy (pld_privacy_accountant_test.py,
 * pld/accountant_test.py, privacy_loss_distribution_test.py), O1 opacus tests/accountants_test.py,
 * F google-research/federated notebooks. */
#include "dp/gaussian.h"
#include "support/check.h"

#include <math.h>

static void check_close(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance))
        fail_msg("%.12g is not within %g of %.12g", value, tolerance, expected);
}

static void test_gaussian_delta_agrees_with_published_figures(void **state)
{
    (void)state;
    check_close(dure_gaussian_delta(3, 1), 0.78760074, 5e-9);               /* G3, sigma 1/3 */
    check_close(dure_gaussian_delta(sqrt(3) / sqrt(3), 1), 0.126936, 2e-6); /* G2, 3 of sqrt(3) */
}

static void test_gaussian_epsilon_agrees_with_published_figures(void **state)
{
    (void)state;
    /* F: Gboard's matrix mechanisms, given as rho = mu^2 / 2. */
    check_close(dure_gaussian_epsilon(sqrt(2 * 0.1506840301548885), 1e-10), 3.424007273, 1e-9);
    check_close(dure_gaussian_epsilon(sqrt(2 * 0.014342572340349278), 1e-10), 0.993549957, 1e-9);
    check_close(dure_gaussian_epsilon(sqrt(2 * 0.81), 1e-10), 8.549, 1e-3);
    check_close(dure_gaussian_epsilon(1 / 4.530877117, 1e-6), 0.9274, 1e-4);
}

/* The density's integral by Simpson's rule over the outputs whose loss exceeds epsilon. */
static double integrated(double q, double sigma, double epsilon, int remove)
{
    const int cells = 200000;
    double from = -12 * sigma, to = 1 + 12 * sigma, width = (to - from) / cells, sum = 0;
    for (int i = 0; i <= cells; i++) {
        double x = from + i * width;
        double without = exp(-x * x / (2 * sigma * sigma));
        double with = exp(-(x - 1) * (x - 1) / (2 * sigma * sigma));
        double mixed = (1 - q) * without + q * with;
        double gap = remove ? mixed - exp(epsilon) * without : without - exp(epsilon) * mixed;
        sum += (i == 0 || i == cells ? 1 : i % 2 ? 4 : 2) * fmax(gap, 0);
    }
    return sum * width / 3 / (sigma * sqrt(2 * M_PI));
}

static void test_subsampled_delta_is_the_integral(void **state)
{
    (void)state;
    const double q[] = {0.001, 0.2, 0.9, 1}, sigma[] = {0.4, 1, 5}, epsilon[] = {0, 0.05, 1, 3};
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 3; j++) {
            for (size_t k = 0; k < 4; k++) {
                double add = integrated(q[i], sigma[j], epsilon[k], 0);
                double expected = fmax(integrated(q[i], sigma[j], epsilon[k], 1), add);
                check_close(dure_subsampled_delta(q[i], sigma[j], epsilon[k]), expected, 1e-8);
            }
        }
    }
}

static void test_subsampled_epsilon_inverts_delta(void **state)
{
    (void)state;
    const double q[] = {1e-4, 0.01, 0.5, 1}, sigma[] = {0.4, 1, 20}, delta[] = {1e-4, 1e-8, 1e-30};
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 3; j++) {
            for (size_t k = 0; k < 3; k++) {
                double epsilon = dure_subsampled_epsilon(q[i], sigma[j], delta[k]);
                assert_true(dure_subsampled_delta(q[i], sigma[j], epsilon) <= delta[k]);
                if (epsilon == 0) continue;
                double less = epsilon * (1 - 1e-12);
                assert_true(dure_subsampled_delta(q[i], sigma[j], less) >= delta[k] * (1 - 1e-9));
            }
        }
    }
    /* G3: sigma 0.67379294682 was calibrated for epsilon 1 at rate 0.01. */
    check_close(dure_subsampled_epsilon(0.01, 0.67379294682, 1e-5), 1, 1e-6);
}

static void test_gaussian_at_the_edges(void **state)
{
    (void)state;
    assert_true(dure_gaussian_delta(0, 1) == 0 && dure_gaussian_delta(0, 0) == 0);
    check_close(dure_gaussian_delta(0, -1), 1 - exp(-1), 1e-15);
    assert_true(dure_gaussian_delta(INFINITY, 5) == 1);
    assert_true(isinf(dure_gaussian_epsilon(INFINITY, 1e-5)));
    assert_true(isinf(dure_subsampled_epsilon(0.5, 0, 1e-5)));
    assert_true(dure_gaussian_epsilon(1e-9, 1e-5) == 0);
    assert_true(dure_gaussian_epsilon(100, 1e-5) > 5000 && dure_gaussian_epsilon(100, 1e-5) < 5500);
    /* Where e^epsilon overflows. */
    assert_true(dure_subsampled_epsilon(0.5, 0.01, 1e-5) > 5000);
    for (double x = -60; x < 8; x += 0.37) {
        double step = dure_normal_log_cdf(x + 0.01) - dure_normal_log_cdf(x);
        assert_true(step >= 0 && step < 0.7);
    }
    check_close(dure_normal_log_cdf(-37.0001) - dure_normal_log_cdf(-36.9999), -0.0002 * 37.027,
                1e-6);
}

static void test_gaussian_limit_is_lower_than_the_truth(void **state)
{
    (void)state;
    /* O1: epsilon of the central limit lies in (6.59, 6.60); the exact one is 6.767. */
    double mu = dure_gaussian_limit_mu(0.04, 1.5, 2249);
    check_close(dure_gaussian_epsilon(mu, 1e-5), 6.59982, 1e-5);
    check_close(dure_gaussian_limit_mu(1, 2, 16), 2, 1e-15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gaussian_delta_agrees_with_published_figures),
        cmocka_unit_test(test_gaussian_epsilon_agrees_with_published_figures),
        cmocka_unit_test(test_subsampled_delta_is_the_integral),
        cmocka_unit_test(test_subsampled_epsilon_inverts_delta),
        cmocka_unit_test(test_gaussian_at_the_edges),
        cmocka_unit_test(test_gaussian_limit_is_lower_than_the_truth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
