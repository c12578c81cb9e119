#include "dp/calibrate.h"
#include "dp/noise.h"
#include "unit/dp/plan_of.h"

#include <math.h>
#include <string.h>

static double epsilon_of(const dure_dp_plan *plan, const dure_dp_history *before, double delta)
{
    double epsilon = -1;
    assert_ok(dure_calibrate_epsilon(&epsilon, plan, before, delta));
    return epsilon;
}

static void test_calibrate_sigma_is_the_least_that_meets_the_target(void **state)
{
    (void)state;
    const double rates[] = {0.001, 0.0128, 0.04, 0.5, 1}, targets[] = {0.1, 1, 8, 50};
    for (size_t i = 0; i < 5; i++) {
        for (size_t j = 0; j < 4; j++) {
            dure_dp_plan plan = plan_of(rates[i], 0, 100);
            assert_ok(dure_calibrate_sigma(&plan, NULL, (dure_privacy){targets[j], 1e-5}, NULL));
            assert_true(epsilon_of(&plan, NULL, 1e-5) <= targets[j]);
            assert_true(epsilon_of(&plan, NULL, 1e-5) > 0.998 * targets[j]);
            plan.sigma_num -= plan.sigma_num / 200;
            assert_true(epsilon_of(&plan, NULL, 1e-5) > targets[j]);
        }
    }
}

static void test_calibrate_sigma_agrees_with_opacus(void **state)
{
    (void)state;
    /* opacus tests/accountants_test.py, PRV: 1.34765625 and 1.2915 for epsilon 8, of which it keeps
     * 0.01 to itself. */
    dure_dp_plan plan = plan_of(0.04, 0, 2250);
    assert_ok(dure_calibrate_sigma(&plan, NULL, (dure_privacy){8, 1e-5}, NULL));
    assert_true(fabs(dure_dp_plan_sigma(&plan) - 1.34765625) < 3e-3);
    plan.steps = 2000;
    assert_ok(dure_calibrate_sigma(&plan, NULL, (dure_privacy){8, 1e-5}, NULL));
    assert_true(fabs(dure_dp_plan_sigma(&plan) - 1.2915) < 3e-3);
}

static void test_calibrate_sigma_composes_with_the_past(void **state)
{
    (void)state;
    dure_dp_plan past = plan_of(0.02, 1.2, 300), plan = plan_of(0.02, 0, 300), fresh = plan;
    dure_dp_history before = {&past, 1};
    dure_privacy target = {3, 1e-5};
    assert_ok(dure_calibrate_sigma(&plan, &before, target, NULL));
    assert_ok(dure_calibrate_sigma(&fresh, NULL, target, NULL));
    assert_true(epsilon_of(&plan, &before, 1e-5) <= 3);
    assert_true(plan.sigma_num > fresh.sigma_num);
}

static void test_calibrate_sigma_refuses_a_spent_budget(void **state)
{
    (void)state;
    dure_dp_plan past = plan_of(0.5, 0.6, 100), plan = plan_of(0.02, 0, 10);
    dure_dp_history before = {&past, 1};
    dure_diag diag = {0};
    assert_err(dure_calibrate_sigma(&plan, &before, (dure_privacy){1, 1e-5}, &diag),
               DURE_ERR_BUDGET);
    assert_non_null(strstr(diag.text, "no amount of noise"));
}

static void test_calibrate_steps_is_the_most_that_fits(void **state)
{
    (void)state;
    const double sigmas[] = {0.6, 0.8, 2};
    for (size_t i = 0; i < 3; i++) {
        dure_dp_plan plan = plan_of(0.0128, sigmas[i], 1);
        dure_privacy target = {4, 1e-5};
        assert_ok(dure_calibrate_steps(&plan, NULL, target, UINT64_MAX, NULL));
        assert_true(epsilon_of(&plan, NULL, 1e-5) <= 4);
        plan.steps += plan.steps / 200 + 1;
        assert_true(epsilon_of(&plan, NULL, 1e-5) > 4);
        assert_ok(dure_calibrate_steps(&plan, NULL, target, 2, NULL));
        assert_int_equal(plan.steps, 2);
    }
}

static void test_calibrate_steps_refuses_when_none_fits(void **state)
{
    (void)state;
    dure_dp_plan plan = plan_of(1, 0.1, 1), bare = plan_of(0.1, 0, 1);
    dure_diag diag = {0};
    dure_privacy target = {1, 1e-5};
    assert_err(dure_calibrate_steps(&plan, NULL, target, 100, &diag), DURE_ERR_BUDGET);
    assert_err(dure_calibrate_steps(&bare, NULL, target, 100, &diag), DURE_ERR_BUDGET);
    assert_err(dure_calibrate_steps(&plan, NULL, target, 0, &diag), DURE_ERR_BUDGET);
}

/* Every mix of more kinds of step than the PLD accountant takes is answered by the other one. */
static void test_calibrate_history_of_many_kinds_is_bounded(void **state)
{
    (void)state;
    enum { KINDS = 70 };
    dure_dp_plan plans[KINDS];
    double many = 0, one = 0;
    for (size_t i = 0; i < KINDS; i++)
        plans[i] = plan_of(0.01, 1 + (double)i * 1e-4, 10);
    assert_ok(dure_calibrate_history(&many, (dure_dp_history){plans, KINDS}, 1e-5));
    dure_dp_plan all = plan_of(0.01, 1, 10 * KINDS);
    assert_ok(dure_calibrate_history(&one, (dure_dp_history){&all, 1}, 1e-5));
    assert_true(many > 0.95 * one && many < 1.5 * one);
    assert_ok(dure_calibrate_history(&one, (dure_dp_history){NULL, 0}, 1e-5));
    assert_true(one == 0);
}

/* At a delta that is none nothing holds, and no error may look like a small epsilon. */
static void test_calibrate_refuses_what_is_no_delta(void **state)
{
    (void)state;
    static const double wrong[] = {0, -1e-5, 1, 2, NAN, INFINITY};
    const dure_dp_plan plans[] = {plan_of(0.01, 1, 10), plan_of(1, 1, 1)};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        for (size_t k = 0; k < 2; k++) {
            double epsilon = 0;
            bool fits = true;
            assert_err(dure_calibrate_epsilon(&epsilon, &plans[k], NULL, wrong[i]), DURE_ERR_USAGE);
            assert_true(isinf(epsilon));
            assert_err(dure_calibrate_fits(&fits, &plans[k], NULL, (dure_privacy){8, wrong[i]}),
                       DURE_ERR_USAGE);
            assert_false(fits);
        }
    }
}

/* The noise sampler's part comes off delta first. */
static void test_calibrate_charges_the_sampler(void **state)
{
    (void)state;
    dure_dp_plan plan = plan_of(0.0128, 0.8, 20), question = plan;
    double with = 0, without = 0;
    bool fits = true;
    plan.grid_bits = 24;
    plan.sigma_num /= 4; /* a finer grid than sigma, or no table would serve it */
    question.sigma_num /= 4;
    double some = dure_noise_delta(&plan, 20);
    assert_true(some > 0 && some < 1e-9);
    /* With about as much delta as the sampler takes there is little left, with less nothing. */
    assert_ok(dure_calibrate_epsilon(&without, &question, NULL, some));
    assert_ok(dure_calibrate_epsilon(&with, &plan, NULL, some));
    assert_true(isfinite(without) && with > without);
    assert_ok(dure_calibrate_epsilon(&with, &plan, NULL, dure_noise_delta(&plan, 0) / 2));
    assert_true(isinf(with));
    assert_ok(dure_calibrate_fits(&fits, &plan, NULL, (dure_privacy){100, some / 1e6}));
    assert_false(fits);
}

static void test_calibrate_refuses_targets_out_of_range(void **state)
{
    (void)state;
    const dure_privacy wrong[] = {{0, 1e-5}, {-1, 1e-5}, {INFINITY, 1e-5}, {NAN, 1e-5},
                                  {1, 0},    {1, 1},     {1, -1},          {1, NAN}};
    dure_diag diag = {0};
    for (size_t i = 0; i < 8; i++) {
        dure_dp_plan plan = plan_of(0.1, 1, 10);
        assert_err(dure_calibrate_sigma(&plan, NULL, wrong[i], &diag), DURE_ERR_USAGE);
        assert_err(dure_calibrate_steps(&plan, NULL, wrong[i], 10, &diag), DURE_ERR_USAGE);
    }
    double epsilon = 0;
    dure_dp_plan plan = plan_of(0.1, 1, 10);
    assert_err(dure_calibrate_epsilon(&epsilon, &plan, NULL, 1), DURE_ERR_USAGE);
    assert_true(isinf(epsilon));
}

static void test_calibrate_epsilon_without_noise_is_infinite(void **state)
{
    (void)state;
    dure_dp_plan plan = plan_of(0.001, 0, 1);
    assert_true(isinf(epsilon_of(&plan, NULL, 1e-5)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_calibrate_sigma_is_the_least_that_meets_the_target),
        cmocka_unit_test(test_calibrate_sigma_agrees_with_opacus),
        cmocka_unit_test(test_calibrate_sigma_composes_with_the_past),
        cmocka_unit_test(test_calibrate_sigma_refuses_a_spent_budget),
        cmocka_unit_test(test_calibrate_steps_is_the_most_that_fits),
        cmocka_unit_test(test_calibrate_steps_refuses_when_none_fits),
        cmocka_unit_test(test_calibrate_history_of_many_kinds_is_bounded),
        cmocka_unit_test(test_calibrate_refuses_what_is_no_delta),
        cmocka_unit_test(test_calibrate_charges_the_sampler),
        cmocka_unit_test(test_calibrate_refuses_targets_out_of_range),
        cmocka_unit_test(test_calibrate_epsilon_without_noise_is_infinite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
