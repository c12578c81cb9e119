#include "dp/accountant_rdp.h"
#include "dp/adaptive_clip.h"
#include "dp/calibrate.h"
#include "dp/gaussian.h"
#include "support/check.h"

#include <math.h>
#include <string.h>

enum { GRID_BITS = 15, BATCH = 100 };

static dure_dp_plan plan_of(double sigma, double count_sigma, double quantile, double rate)
{
    dure_dp_plan plan = {
        .mechanism = DURE_DP_POISSON_GAUSSIAN, .clip = 1, .grid_bits = GRID_BITS, .steps = 50};
    assert_ok(dure_dp_plan_set_batch(&plan, BATCH, 1000, NULL));
    assert_ok(dure_dp_plan_set_sigma(&plan, sigma, NULL));
    assert_ok(dure_dp_adaptive_set(&plan.adaptive, count_sigma, quantile, rate, NULL));
    return plan;
}

/* The count of a batch of L of which so many norms lie under the clip. */
static int64_t count_of(int below)
{
    return (int64_t)(2 * below - BATCH) * (1 << GRID_BITS);
}

static void test_clip_stays_at_its_quantile(void **state)
{
    (void)state;
    const double quantiles[] = {0.25, 0.5, 0.75};
    for (size_t i = 0; i < 3; i++) {
        dure_dp_plan plan = plan_of(1, 10, quantiles[i], 0.2);
        assert_true(dure_adaptive_clip_next(0.7, count_of((int)(100 * quantiles[i])), &plan) ==
                    0.7);
    }
}

/* Andrew et al., section 2.1: C exp(-rate (b - quantile)). */
static void test_clip_moves_as_published(void **state)
{
    (void)state;
    dure_dp_plan plan = plan_of(1, 10, 0.5, 0.2);
    for (int below = 0; below <= BATCH; below++) {
        double expected = 3 * exp(-0.2 * (below / 100.0 - 0.5));
        double next = dure_adaptive_clip_next(3, count_of(below), &plan);
        assert_true(fabs(next / expected - 1) < 1e-15);
    }
    plan = plan_of(1, 10, 0x1p-16, 1);
    assert_true(fabs(dure_adaptive_clip_next(1, count_of(BATCH), &plan) - exp(0x1p-16 - 1)) <
                1e-15);
}

static void test_clip_takes_any_count(void **state)
{
    (void)state;
    dure_dp_plan plan = plan_of(1, 10, 0.5, 0.2);
    const int64_t many = INT64_MAX, none = INT64_MIN;
    assert_true(dure_adaptive_clip_next(1, many, &plan) ==
                dure_adaptive_clip_next(1, count_of(BATCH), &plan));
    assert_true(dure_adaptive_clip_next(1, none, &plan) ==
                dure_adaptive_clip_next(1, count_of(0), &plan));
    assert_true(dure_adaptive_clip_next(DURE_DP_CLIP_MIN, many, &plan) == DURE_DP_CLIP_MIN);
    assert_true(dure_adaptive_clip_next(DURE_DP_CLIP_MAX, none, &plan) == DURE_DP_CLIP_MAX);
}

static void test_effective_noise_is_that_of_one_event(void **state)
{
    (void)state;
    const double sigmas[] = {0.5, 1, 4, 20}, counts[] = {0.5, 5, 12.8, 1000};
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < 4; k++) {
            dure_dp_plan plan = plan_of(sigmas[i], counts[k], 0.5, 0.2);
            double sigma = dure_dp_plan_sigma(&plan), count = dure_dp_plan_count_sigma(&plan);
            double effective = dure_dp_plan_sigma_effective(&plan);
            double precision = 1 / (sigma * sigma) + 1 / (count * count);
            assert_true(effective * effective * precision <= 1);
            assert_true(effective * effective * precision > 1 - 1e-14);
        }
    }
    dure_dp_plan fixed = plan_of(1, 10, 0.5, 0.2);
    fixed.adaptive = (dure_dp_adaptive){0};
    assert_true(dure_dp_plan_sigma_effective(&fixed) == 1);
}

/* What both accountants charge is sum and count together: without sampling there is a closed form.
 */
static void test_count_is_charged(void **state)
{
    (void)state;
    const double counts[] = {1, 5, 12.8};
    for (size_t k = 0; k < 3; k++) {
        dure_dp_plan plan = plan_of(1, counts[k], 0.5, 0.2);
        assert_ok(dure_dp_plan_set_batch(&plan, 1000, 1000, NULL));
        plan.grid_bits = 0; /* a question: no part of delta is the sampler's */
        double count = dure_dp_plan_count_sigma(&plan), epsilon = 0, rdp_epsilon = 0;
        double mu = sqrt(50 * (1 + 1 / (count * count)));
        double exact = dure_gaussian_epsilon(mu, 1e-6);
        dure_rdp rdp = {{0}};
        assert_ok(dure_calibrate_epsilon(&epsilon, &plan, NULL, 1e-6));
        assert_true(epsilon >= exact && epsilon < exact * (1 + 1e-9));
        dure_rdp_add(&rdp, &plan);
        for (size_t i = 0; i < DURE_RDP_ORDERS; i++) {
            double expected = dure_rdp_orders[i] * mu * mu / 2;
            assert_true(fabs(rdp.total[i] / expected - 1) < 1e-12);
        }
        assert_ok(dure_rdp_epsilon(&rdp_epsilon, &rdp, 1e-6));
        assert_true(rdp_epsilon >= exact);
    }
}

static void test_calibration_leaves_room_for_the_count(void **state)
{
    (void)state;
    dure_privacy target = {3, 1e-5};
    dure_diag diag = {{0}};
    dure_dp_plan fixed = plan_of(0, 10, 0.5, 0.2), plan = fixed;
    fixed.adaptive = (dure_dp_adaptive){0};
    assert_ok(dure_calibrate_sigma(&fixed, NULL, target, NULL));
    assert_ok(dure_calibrate_sigma(&plan, NULL, target, NULL));
    assert_true(plan.sigma_num > fixed.sigma_num);
    assert_true(fabs(dure_dp_plan_sigma_effective(&plan) / dure_dp_plan_sigma(&fixed) - 1) < 1e-3);
    /* A count that costs more than the budget by itself: no noise on the sum helps. */
    assert_ok(dure_dp_adaptive_set(&plan.adaptive, 0.1, 0.5, 0.2, NULL));
    assert_err(dure_calibrate_sigma(&plan, NULL, target, &diag), DURE_ERR_BUDGET);
    assert_non_null(strstr(diag.text, "count"));
}

static void test_adaptive_refuses_what_is_out_of_range(void **state)
{
    (void)state;
    dure_dp_adaptive a;
    const double wrong[][3] = {{0, 0.5, 0.2},  {-1, 0.5, 0.2}, {65536, 0.5, 0.2}, {NAN, 0.5, 0.2},
                               {10, 0, 0.2},   {10, 1, 0.2},   {10, NAN, 0.2},    {10, -0.5, 0.2},
                               {10, 5e9, 0.2}, {10, 0.5, 0},   {10, 0.5, 1.001},  {10, 0.5, NAN}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        dure_diag diag = {{0}};
        assert_err(dure_dp_adaptive_set(&a, wrong[i][0], wrong[i][1], wrong[i][2], &diag),
                   DURE_ERR_USAGE);
        assert_true(diag.text[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clip_stays_at_its_quantile),
        cmocka_unit_test(test_clip_moves_as_published),
        cmocka_unit_test(test_clip_takes_any_count),
        cmocka_unit_test(test_effective_noise_is_that_of_one_event),
        cmocka_unit_test(test_count_is_charged),
        cmocka_unit_test(test_calibration_leaves_room_for_the_count),
        cmocka_unit_test(test_adaptive_refuses_what_is_out_of_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
