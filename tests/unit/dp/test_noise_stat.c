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

/* Moments in standard errors of DRAWS draws: mean, variance, skewness, kurtosis, and the
 * autocorrelation at some lags, for deviation sigma plus the 1/12 that rounding adds. */
enum { MOMENTS = 4, LAGS = 6 };

static void measure(double *score, const int64_t *v, double sigma)
{
    static const size_t lags[LAGS] = {1, 2, 3, 8, 512, 4096};
    double unit = sqrt(sigma * sigma + 1.0 / 12), power[MOMENTS] = {0}, lagged[LAGS] = {0};
    for (size_t i = 0; i < DRAWS; i++) {
        double x = (double)v[i] / unit;
        power[0] += x;
        power[1] += x * x - 1;
        power[2] += x * x * x;
        power[3] += x * x * x * x - 3;
        for (size_t k = 0; k < LAGS; k++)
            if (i >= lags[k]) lagged[k] += x * (double)v[i - lags[k]] / unit;
    }
    /* The variances of x, x^2, x^3 and x^4 for a normal x. */
    const double variance[MOMENTS] = {1, 2, 15, 96};
    for (size_t k = 0; k < MOMENTS; k++)
        score[k] = power[k] / sqrt(DRAWS * variance[k]);
    for (size_t k = 0; k < LAGS; k++)
        score[MOMENTS + k] = lagged[k] / sqrt(DRAWS);
}

static double worst(const int64_t *v, double sigma)
{
    double score[MOMENTS + LAGS], most = 0;
    measure(score, v, sigma);
    for (size_t k = 0; k < MOMENTS + LAGS; k++)
        most = fmax(most, fabs(score[k]));
    return most;
}

/* Within 4 standard errors; a sigma that is off by 1 % is seen at 20 of them. */
static void check_moments(dure_noise_scale scale, uint64_t seed)
{
    int64_t *v = drawn(scale, seed);
    double sigma = ldexp((double)scale.num, -(int)scale.shift);
    assert_true(worst(v, sigma) < 4);
    assert_true(worst(v, 0.99 * sigma) > 15 && worst(v, 1.01 * sigma) > 15);
    free(v);
}

static void test_noise_moments_agree(void **state)
{
    (void)state;
    check_moments((dure_noise_scale){3, 1}, 1);
    check_moments((dure_noise_scale){52429, 2}, 2);
    check_moments((dure_noise_scale){52429 * 4, 0}, 3);
    check_moments((dure_noise_scale){(uint64_t)1 << 36, 0}, 4); /* exact */
    check_moments((dure_noise_scale){1000, 0}, 11);
    check_moments((dure_noise_scale){1 << 20, 0}, 12);
    check_moments((dure_noise_scale){8388607, 0}, 13);
}

/* Chi-square of the counts against the normal integrated over each integer's cell. */
static double chi_of_cells(const int64_t *v, double sigma, int most)
{
    double chi = 0;
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
    return chi;
}

static void check_cells(dure_noise_scale scale, int most, double limit, uint64_t seed)
{
    double sigma = ldexp((double)scale.num, -(int)scale.shift);
    int64_t *v = drawn(scale, seed);
    assert_true(chi_of_cells(v, sigma, most) < limit);
    assert_true(chi_of_cells(v, 0.99 * sigma, most) > limit);
    assert_true(chi_of_cells(v, 1.01 * sigma, most) > limit);
    free(v);
}

static void test_noise_cells_agree(void **state)
{
    (void)state;
    /* Limits: chi-square quantiles at 1 - 10^-4 for 2 * most degrees of freedom. */
    check_cells((dure_noise_scale){1, 2}, 1, 18.4, 5);
    check_cells((dure_noise_scale){1, 0}, 4, 31.8, 6);
    check_cells((dure_noise_scale){5, 1}, 10, 52.4, 7);
    check_cells((dure_noise_scale){10, 0}, 40, 134.7, 8);
    check_cells((dure_noise_scale){16, 0}, 40, 134.7, 14);
}

/* Chi-square over cells of equal probability, for a sigma where rounding is invisible. */
static double chi_of_bulk(const int64_t *v, double sigma)
{
    enum { CELLS = 64 };
    size_t counts[CELLS] = {0};
    for (size_t i = 0; i < DRAWS; i++)
        counts[(size_t)(CELLS * normal_below((double)v[i] / sigma))]++;
    double chi = 0, expected = (double)DRAWS / CELLS;
    for (size_t j = 0; j < CELLS; j++)
        chi += ((double)counts[j] - expected) * ((double)counts[j] - expected) / expected;
    return chi;
}

static void test_noise_is_normal_in_its_bulk(void **state)
{
    (void)state;
    const uint32_t bits[] = {24, 20, 17};
    for (size_t i = 0; i < 3; i++) {
        int64_t *v = drawn((dure_noise_scale){(uint64_t)1 << bits[i], 0}, 9 + i);
        double sigma = ldexp(1, (int)bits[i]);
        assert_true(chi_of_bulk(v, sigma) < 112); /* 63 degrees of freedom, 1 - 10^-4 */
        assert_true(chi_of_bulk(v, 0.99 * sigma) > 112 && chi_of_bulk(v, 1.01 * sigma) > 112);
        free(v);
    }
}

/* The coarse and the fine part of a table's draw leave no trace: residues modulo w, and modulo
 * powers of two, are even. */
static void test_noise_low_bits_are_even(void **state)
{
    (void)state;
    const int64_t modulus[] = {2, 21, 64};
    int64_t *v = drawn((dure_noise_scale){26214, 0}, 15);
    for (size_t k = 0; k < 3; k++) {
        size_t counts[64] = {0}, cells = (size_t)modulus[k];
        double chi = 0, expected = (double)DRAWS / (double)cells;
        for (size_t i = 0; i < DRAWS; i++)
            counts[(v[i] % modulus[k] + modulus[k]) % modulus[k]]++;
        for (size_t j = 0; j < cells; j++)
            chi += ((double)counts[j] - expected) * ((double)counts[j] - expected) / expected;
        double free_cells = (double)cells - 1;
        assert_true(chi < free_cells + 4.5 * sqrt(2 * free_cells) + 10);
    }
    free(v);
}

/* Counts beyond 2, 3, 4 and 4.5 deviations, each within 4 of its own. */
static bool tail_agrees(const int64_t *v, double sigma)
{
    static const double from[] = {2, 3, 4, 4.5};
    bool agrees = true;
    for (size_t t = 0; t < sizeof from / sizeof *from; t++) {
        /* Integers over `from`, whose cells begin half below the least of them. */
        const double least = floor(from[t] * sigma) + 0.5;
        const double expected = DRAWS * erfc(least / sigma / M_SQRT2);
        double seen = 0;
        for (size_t i = 0; i < DRAWS; i++)
            seen += fabs((double)v[i]) > from[t] * sigma;
        agrees = agrees && fabs(seen - expected) < 4 * sqrt(expected) + 1;
    }
    return agrees;
}

static void test_noise_tail_agrees(void **state)
{
    (void)state;
    const uint32_t bits[] = {20, 15, 10};
    for (size_t k = 0; k < 3; k++) {
        const double sigma = ldexp(1, (int)bits[k]);
        int64_t *v = drawn((dure_noise_scale){(uint64_t)1 << bits[k], 0}, 20 + k);
        assert_true(tail_agrees(v, sigma));
        assert_false(tail_agrees(v, 0.99 * sigma) || tail_agrees(v, 1.01 * sigma));
        free(v);
    }
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
        cmocka_unit_test(test_noise_low_bits_are_even),
        cmocka_unit_test(test_noise_tail_agrees),
        cmocka_unit_test(test_sample_counts_are_binomial),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
