#include "dp/gaussian.h"
#include "dp/membership.h"
#include "unit/dp/plan_of.h"

#include <math.h>

static double most(const dure_dp_plan *plan, double fpr)
{
    double tpr = -1;
    assert_ok(dure_membership_most(&tpr, plan, 1, fpr));
    return tpr;
}

static void check_ratio(double value, double expected, double tolerance)
{
    if (!(fabs(value / expected - 1) <= tolerance))
        fail_msg("%.9g is not within %g of %.9g", value, tolerance, expected);
}

/* google/differential-privacy pld tests: one Gaussian of mu 1 in three steps of sqrt(3), and the
 * same at tiny rates. sigma is rounded up to 1/65536. */
static void test_membership_published_rows(void **state)
{
    (void)state;
    dure_dp_plan three = plan_of(1, sqrt(3), 3), one = plan_of(1, 1, 1);
    check_ratio(most(&three, 0.1), 0.38914, 2e-5);
    check_ratio(most(&one, 1e-5), 5.475e-4, 1e-4);
    check_ratio(most(&one, 1e-5), 5.47531e-4, 1e-5);
    check_ratio(most(&one, 1e-10), 4.1303e-8, 2e-5);
}

/* The best test against a Gaussian: 1 - Phi(Phi^-1(1 - fpr) - mu), at thresholds z. */
static void test_membership_is_the_best_test_of_a_gaussian(void **state)
{
    (void)state;
    const double mus[] = {0.25, 1, 3}, thresholds[] = {1.6, 2, 2.5, 4};
    for (size_t i = 0; i < 3; i++) {
        dure_dp_plan plan = plan_of(1, 1 / mus[i], 1);
        double mu = 1 / dure_dp_plan_sigma(&plan);
        for (size_t k = 0; k < 4; k++) {
            double z = thresholds[k];
            double best = exp(dure_normal_log_cdf(mu - z));
            double found = most(&plan, exp(dure_normal_log_cdf(-z)));
            if (!(found >= best * (1 - 1e-12))) fail_msg("%.17g below %.17g", found, best);
            check_ratio(found, best, 1e-5);
        }
    }
}

static void test_membership_grows_with_what_is_released(void **state)
{
    (void)state;
    double before = 0.01;
    for (uint64_t steps = 1; steps <= 1000; steps *= 10) {
        dure_dp_plan plan = plan_of(0.02, 1, steps);
        double tpr = most(&plan, 0.01);
        assert_true(tpr > before && tpr < 1);
        before = tpr;
    }
    dure_dp_plan bare = plan_of(0.02, 0, 1);
    assert_true(most(&bare, 0.01) == 1);
}

static void test_membership_refuses_rates_out_of_range(void **state)
{
    (void)state;
    const double wrong[] = {0, -1, 0.51, 1, NAN};
    dure_dp_plan plan = plan_of(1, 1, 1);
    for (size_t i = 0; i < 5; i++) {
        double tpr = 0;
        assert_err(dure_membership_most(&tpr, &plan, 1, wrong[i]), DURE_ERR_USAGE);
        assert_true(tpr == 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_membership_published_rows),
        cmocka_unit_test(test_membership_is_the_best_test_of_a_gaussian),
        cmocka_unit_test(test_membership_grows_with_what_is_released),
        cmocka_unit_test(test_membership_refuses_rates_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
