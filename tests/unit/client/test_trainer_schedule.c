/* The learning rate over the steps of a run. */
#include "client/trainer_schedule.h"
#include "support/check.h"

#include <string.h>

#include <math.h>

static void check_factor(const dure_schedule *s, uint64_t step, double want)
{
    double got = dure_schedule_factor(s, step);
    if (fabs(got - want) > 1e-12)
        fail_msg("step %llu: %.17g, not %.17g", (unsigned long long)step, got, want);
}

static void test_schedule_of_zeros_is_the_full_rate(void **state)
{
    (void)state;
    const dure_schedule s = {0};
    assert_ok(dure_schedule_check(&s, NULL));
    check_factor(&s, 0, 1);
    check_factor(&s, 1000000, 1);
}

static void test_schedule_warms_up_in_a_straight_line(void **state)
{
    (void)state;
    const dure_schedule s = {.warmup_steps = 3};
    for (uint64_t i = 0; i < 3; i++)
        check_factor(&s, i, (double)(i + 1) / 4);
    check_factor(&s, 3, 1);
    check_factor(&s, 4, 1);
}

static void test_schedule_linear_would_reach_zero_after_the_last_step(void **state)
{
    (void)state;
    const dure_schedule s = {DURE_SCHEDULE_LINEAR, .warmup_steps = 2, .steps = 10};
    check_factor(&s, 1, 2.0 / 3);
    check_factor(&s, 2, 1);
    check_factor(&s, 6, 0.5);
    check_factor(&s, 9, 0.125);
    check_factor(&s, 10, 0);
    check_factor(&s, 11, 0);
}

static void test_schedule_cosine_falls_along_half_a_wave(void **state)
{
    (void)state;
    const dure_schedule s = {DURE_SCHEDULE_COSINE, .steps = 4};
    check_factor(&s, 0, 1);
    check_factor(&s, 1, 0.5 + sqrt(0.125));
    check_factor(&s, 2, 0.5);
    check_factor(&s, 3, 0.5 - sqrt(0.125));
    check_factor(&s, 4, 0);
}

static void test_schedule_refuses_a_warmup_of_the_whole_run(void **state)
{
    (void)state;
    dure_diag diag = {{0}};
    dure_schedule s = {DURE_SCHEDULE_LINEAR, .warmup_steps = 10, .steps = 10};
    assert_err(dure_schedule_check(&s, &diag), DURE_ERR_USAGE);
    assert_non_null(strstr(diag.text, "10 steps"));
    s.warmup_steps = 9;
    assert_ok(dure_schedule_check(&s, &diag));
    s = (dure_schedule){DURE_SCHEDULE_COSINE, .steps = 0};
    assert_err(dure_schedule_check(&s, &diag), DURE_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedule_of_zeros_is_the_full_rate),
        cmocka_unit_test(test_schedule_warms_up_in_a_straight_line),
        cmocka_unit_test(test_schedule_linear_would_reach_zero_after_the_last_step),
        cmocka_unit_test(test_schedule_cosine_falls_along_half_a_wave),
        cmocka_unit_test(test_schedule_refuses_a_warmup_of_the_whole_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
