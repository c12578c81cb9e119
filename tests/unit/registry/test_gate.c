#include "registry/gate.h"

#include "support/check.h"

#include <math.h>
#include <string.h>

#define N 64

/* Losses about 3 that differ from record to record, as real ones do. */
static void fill(double *losses, double shift, double wobble)
{
    for (int i = 0; i < N; i++)
        losses[i] = 3 + sin(i * 1.7) + shift + wobble * cos(i * 2.3);
}

static void test_gate_passes_a_better_candidate(void **state)
{
    (void)state;
    double reference[N], candidate[N];
    dure_gate_result result;
    fill(reference, 0, 0);
    fill(candidate, -0.5, 0.3);
    assert_ok(dure_gate_compare(&result, reference, candidate, N, &(dure_gate_opts){0}, NULL));
    assert_true(result.passed);
    assert_int_equal(result.n_records, N);
    assert_true(result.high < 0 && result.low < result.difference &&
                result.difference < result.high);
    assert_true(fabs(result.candidate_loss - result.reference_loss - result.difference) < 1e-12);
}

static void test_gate_blocks_a_worse_candidate(void **state)
{
    (void)state;
    double reference[N], candidate[N];
    dure_gate_result result;
    fill(reference, 0, 0);
    fill(candidate, 0.2, 0.3);
    assert_ok(dure_gate_compare(&result, reference, candidate, N, &(dure_gate_opts){0}, NULL));
    assert_false(result.passed);
    assert_true(result.low > 0);
}

static void test_gate_blocks_what_chance_explains(void **state)
{
    (void)state;
    double reference[N], candidate[N];
    dure_gate_result result;
    fill(reference, 0, 0);
    fill(candidate, -0.01, 1.0);
    assert_ok(dure_gate_compare(&result, reference, candidate, N, &(dure_gate_opts){0}, NULL));
    assert_true(result.difference < 0.05 && result.high > 0);
    assert_false(result.passed);
    /* The same candidate is let through by who allows 0.5 nats of loss. */
    assert_ok(dure_gate_compare(&result, reference, candidate, N, &(dure_gate_opts){.margin = 0.5},
                                NULL));
    assert_true(result.passed);
}

static void test_gate_blocks_the_same_model(void **state)
{
    (void)state;
    double reference[N];
    dure_gate_result result;
    fill(reference, 0, 0);
    assert_ok(dure_gate_compare(&result, reference, reference, N, &(dure_gate_opts){0}, NULL));
    assert_false(result.passed);
}

static void test_gate_repeats_its_decision_exactly(void **state)
{
    (void)state;
    double reference[N], candidate[N];
    dure_gate_result a, b;
    fill(reference, 0, 0);
    fill(candidate, -0.1, 0.4);
    assert_ok(dure_gate_compare(&a, reference, candidate, N, &(dure_gate_opts){0}, NULL));
    assert_ok(dure_gate_compare(&b, reference, candidate, N, &(dure_gate_opts){0}, NULL));
    assert_true(a.low == b.low && a.high == b.high && a.passed == b.passed);
}

/* The bootstrap of a mean agrees with the normal interval, 1.96 sd / sqrt(n), which it approaches
 * for symmetric differences. */
static void test_gate_interval_is_that_of_the_mean(void **state)
{
    (void)state;
    enum { MANY = 2000 };
    static double reference[MANY], candidate[MANY];
    dure_gate_result result;
    double sum = 0, squares = 0;
    for (int i = 0; i < MANY; i++) {
        double d = sin(i * 0.7) + 0.5 * cos(i * 1.9);
        candidate[i] = d;
        sum += d;
        squares += d * d;
    }
    double mean = sum / MANY, half = 1.96 * sqrt(squares / MANY - mean * mean) / sqrt(MANY);
    assert_ok(dure_gate_compare(&result, reference, candidate, MANY,
                                &(dure_gate_opts){.resamples = 20000}, NULL));
    assert_true(fabs(result.low - (mean - half)) < 0.05 * half);
    assert_true(fabs(result.high - (mean + half)) < 0.05 * half);
}

static void test_gate_blocks_a_candidate_that_is_not_finite(void **state)
{
    (void)state;
    double reference[N], candidate[N];
    dure_gate_result result;
    fill(reference, 0, 0);
    fill(candidate, -1, 0);
    candidate[40] = NAN;
    assert_ok(dure_gate_compare(&result, reference, candidate, N, &(dure_gate_opts){0}, NULL));
    assert_false(result.passed);
    assert_true(isinf(result.high));
}

static void test_gate_refuses_what_it_cannot_judge(void **state)
{
    (void)state;
    double reference[N], candidate[N];
    dure_gate_result result;
    dure_diag diag = {0};
    fill(reference, 0, 0);
    fill(candidate, -1, 0);
    assert_err(dure_gate_compare(&result, reference, candidate, 7, &(dure_gate_opts){0}, &diag),
               DURE_ERR_USAGE);
    assert_non_null(strstr(diag.text, "there are 7"));
    assert_err(dure_gate_compare(&result, reference, candidate, N,
                                 &(dure_gate_opts){.resamples = 10}, NULL),
               DURE_ERR_USAGE);
    assert_err(
        dure_gate_compare(&result, reference, candidate, N, &(dure_gate_opts){.margin = NAN}, NULL),
        DURE_ERR_USAGE);
    reference[2] = INFINITY;
    assert_err(dure_gate_compare(&result, reference, candidate, N, &(dure_gate_opts){0}, &diag),
               DURE_ERR_USAGE);
    assert_non_null(strstr(diag.text, "record 3"));
}

static void test_gate_text_says_what_was_decided(void **state)
{
    (void)state;
    char text[192];
    dure_gate_result result = {.n_records = 64,
                               .reference_loss = 2.871,
                               .candidate_loss = 1.403,
                               .difference = -1.468,
                               .low = -1.601,
                               .high = -1.336,
                               .passed = true};
    dure_gate_text(text, &result);
    assert_string_equal(text, "passed: loss 2.871 -> 1.403, difference -1.468 [-1.601, -1.336] "
                              "over 64 records");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gate_passes_a_better_candidate),
        cmocka_unit_test(test_gate_blocks_a_worse_candidate),
        cmocka_unit_test(test_gate_blocks_what_chance_explains),
        cmocka_unit_test(test_gate_blocks_the_same_model),
        cmocka_unit_test(test_gate_repeats_its_decision_exactly),
        cmocka_unit_test(test_gate_interval_is_that_of_the_mean),
        cmocka_unit_test(test_gate_blocks_a_candidate_that_is_not_finite),
        cmocka_unit_test(test_gate_refuses_what_it_cannot_judge),
        cmocka_unit_test(test_gate_text_says_what_was_decided),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
