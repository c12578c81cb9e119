/* Distribution of the sampled noise and of the Poisson batches. Seeds are fixed, so a pass is a
 * pass for good; the limits are those that a right sampler exceeds once in 10^4 seeds. */
#include "dp/noise.h"
#include "dp/sample.h"
#include "support/check.h"
#include "support/seeded_rng.h"

#include <math.h>
#include <stdlib.h>

enum { DRAWS = 2000000 };

static int64_t *drawn(dure_noise_scale scale, uint64_t seed)
{
    int64_t *v = malloc(DRAWS * sizeof *v);
    assert_non_null(v);
    seeded_rng seeded;
    dure_rng rng = seeded_rng_of(&seeded, seed);
    assert_ok(dure_noise_fill(v, DRAWS, scale, &rng));
    return v;
}

static double normal_below(double z)
{
    return 0.5 * erfc(-z / M_SQRT2);
}

/* Mean within 4 standard errors, variance within 0.5 % (5 standard errors at 2 million draws)
 * of sigma^2 plus the 1/12 that rounding adds. */
static void check_moments(dure_noise_scale scale, uint64_t seed)
{
    int64_t *v = drawn(scale, seed);
    double sigma = ldexp((double)scale.num, -(int)scale.shift);
    double sum = 0, squares = 0, lagged = 0;
    for (size_t i = 0; i < DRAWS; i++) {
        double x = (double)v[i];
        sum += x;
        squares += x * x;
        if (i > 0) lagged += x * (double)v[i - 1];
    }
    double variance = sigma * sigma + 1.0 / 12;
    assert_true(fabs(sum / DRAWS) < 4 * sqrt(variance / DRAWS));
    assert_true(fabs(squares / DRAWS / variance - 1) < 0.005);
    assert_true(fabs(lagged / DRAWS) < 4 * variance / sqrt(DRAWS));
    free(v);
}

static void test_noise_moments_agree(void **state)
{
    (void)state;
    check_moments((dure_noise_scale){3, 1}, 1);
    check_moments((dure_noise_scale){52429, 2}, 2);
    check_moments((dure_noise_scale){52429 * 4, 0}, 3);
    check_moments((dure_noise_scale){(uint64_t)1 << 36, 0}, 4);
}

/* Chi-square of the counts against the normal integrated over each integer's cell. */
static void check_cells(dure_noise_scale scale, int most, double limit, uint64_t seed)
{
    double sigma = ldexp((double)scale.num, -(int)scale.shift), chi = 0;
    int64_t *v = drawn(scale, seed);
    size_t *counts = calloc((size_t)(2 * most + 1), sizeof *counts);
    assert_non_null(counts);
    for (size_t i = 0; i < DRAWS; i++) {
        int64_t cell = v[i] < -most ? -most : v[i] > most ? most : v[i];
        counts[cell + most]++;
    }
    for (int j = -most; j <= most; j++) {
        double below = j == -most ? 0 : normal_below((j - 0.5) / sigma);
        double through = j == most ? 1 : normal_below((j + 0.5) / sigma);
        double expected = DRAWS * (through - below);
        double gap = (double)counts[j + most] - expected;
        chi += gap * gap / expected;
    }
    free(counts);
    free(v);
    assert_true(chi < limit);
}

static void test_noise_cells_agree(void **state)
{
    (void)state;
    /* Limits: chi-square quantiles at 1 - 10^-4 for 2 * most degrees of freedom. */
    check_cells((dure_noise_scale){1, 2}, 1, 18.4, 5);
    check_cells((dure_noise_scale){1, 0}, 4, 31.8, 6);
    check_cells((dure_noise_scale){5, 1}, 10, 52.4, 7);
    check_cells((dure_noise_scale){10, 0}, 40, 134.7, 8);
}

/* The fraction in 64 equal cells of probability, for a scale where rounding is invisible. */
static void test_noise_is_normal_in_its_bulk(void **state)
{
    (void)state;
    enum { CELLS = 64 };
    int64_t *v = drawn((dure_noise_scale){1u << 24, 0}, 9);
    size_t counts[CELLS] = {0};
    for (size_t i = 0; i < DRAWS; i++)
        counts[(size_t)(CELLS * normal_below((double)v[i] / (1 << 24)))]++;
    double chi = 0, expected = (double)DRAWS / CELLS;
    for (size_t j = 0; j < CELLS; j++)
        chi += ((double)counts[j] - expected) * ((double)counts[j] - expected) / expected;
    assert_true(chi < 112); /* 63 degrees of freedom, 1 - 10^-4 */
    free(v);
}

static void test_noise_tail_agrees(void **state)
{
    (void)state;
    int64_t *v = drawn((dure_noise_scale){1u << 20, 0}, 10);
    const double from[] = {2, 3, 4, 4.5};
    for (size_t t = 0; t < 4; t++) {
        double expected = DRAWS * erfc(from[t] / M_SQRT2), seen = 0;
        for (size_t i = 0; i < DRAWS; i++)
            seen += fabs((double)v[i]) > from[t] * (1 << 20);
        assert_true(fabs(seen - expected) < 4 * sqrt(expected) + 1);
    }
    free(v);
}

static void test_sample_counts_are_binomial(void **state)
{
    (void)state;
    enum { RECORDS = 1000, STEPS = 4000 };
    dure_dp_plan plan = {0};
    size_t chosen[RECORDS], hits[RECORDS] = {0};
    seeded_rng seeded;
    dure_rng rng = seeded_rng_of(&seeded, 21);
    assert_ok(dure_dp_plan_set_batch(&plan, 30, RECORDS, NULL));
    double sum = 0, squares = 0;
    for (size_t s = 0; s < STEPS; s++) {
        size_t n = 0;
        assert_ok(dure_sample_poisson(chosen, &n, RECORDS, &plan, &rng));
        sum += (double)n;
        squares += (double)n * (double)n;
        for (size_t i = 0; i < n; i++)
            hits[chosen[i]]++;
    }
    double mean = sum / STEPS, variance = squares / STEPS - mean * mean, each = 0.03 * STEPS;
    assert_true(fabs(mean - 30) < 4 * sqrt(29.1 / STEPS));
    assert_true(fabs(variance / 29.1 - 1) < 4 * sqrt(2.0 / STEPS));
    double chi = 0;
    for (size_t i = 0; i < RECORDS; i++)
        chi += ((double)hits[i] - each) * ((double)hits[i] - each) / (each * 0.97);
    assert_true(chi > 840 && chi < 1176); /* 1000 degrees of freedom, 10^-4 on either side */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise_moments_agree),
        cmocka_unit_test(test_noise_cells_agree),
        cmocka_unit_test(test_noise_is_normal_in_its_bulk),
        cmocka_unit_test(test_noise_tail_agrees),
        cmocka_unit_test(test_sample_counts_are_binomial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
