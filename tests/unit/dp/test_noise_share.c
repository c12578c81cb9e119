/* Distribution of one share and of the sum of shares, and what a share may be. Seeds are fixed, so
 * a pass is a pass for good; the limits are those that a right sampler exceeds once in 10^4 seeds.
 */
#include "dp/noise_share.h"
#include "support/check.h"
#include "support/seeded_rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DRAWS = 1000000 };

static int32_t *drawn(uint64_t variance, uint64_t seed)
{
    int32_t *v = malloc(DRAWS * sizeof *v);
    assert_non_null(v);
    seeded_rng seeded;
    dure_rng rng = seeded_rng_of(&seeded, seed);
    assert_ok(dure_share_fill(v, DRAWS, variance, &rng));
    return v;
}

/* Variance and fourth moment in standard errors, the mean and neighbouring products too. */
static double worst_moment(const double *x, double sigma)
{
    double power[3] = {0}, lagged = 0, worst = 0;
    for (size_t i = 0; i < DRAWS; i++) {
        double z = x[i] / sigma;
        power[0] += z;
        power[1] += z * z - 1;
        power[2] += z * z * z * z - 3;
        if (i > 0) lagged += z * x[i - 1] / sigma;
    }
    worst = fmax(fabs(power[0]), fabs(lagged)) / sqrt(DRAWS);
    worst = fmax(worst, fabs(power[1]) / sqrt(DRAWS * 2.0));
    return fmax(worst, fabs(power[2]) / sqrt(DRAWS * 96.0));
}

/* Within 4 standard errors; a deviation that is off by 1 % is seen at ten of them. */
static void check_moments(const double *x, double sigma)
{
    assert_true(worst_moment(x, sigma) < 4);
    assert_true(worst_moment(x, 0.99 * sigma) > 10 && worst_moment(x, 1.01 * sigma) > 10);
}

static void test_share_moments_agree(void **state)
{
    (void)state;
    const uint64_t variances[] = {16, 17, 1000, 268435456, 8947848534, UINT64_C(1) << 46};
    double *x = malloc(DRAWS * sizeof *x);
    assert_non_null(x);
    for (size_t k = 0; k < 6; k++) {
        int32_t *v = drawn(variances[k], 100 + k);
        for (size_t i = 0; i < DRAWS; i++)
            x[i] = v[i];
        check_moments(x, sqrt((double)variances[k]));
        free(v);
    }
    free(x);
}

/* The claim itself: h shares of a plan together have the deviation sigma C, that is sigma G units,
 * to within 1 %. A share sized for one site more (or scaled by 0.9) fails it. */
static void test_share_sum_has_the_claimed_deviation(void **state)
{
    (void)state;
    const uint32_t honest[] = {2, 4, 9};
    double *sum = malloc(DRAWS * sizeof *sum);
    assert_non_null(sum);
    for (size_t k = 0; k < 3; k++) {
        dure_dp_plan plan = {.mechanism = DURE_DP_SITE_GAUSSIAN,
                             .sigma_num = 3 * DURE_DP_SIGMA_DEN / 2,
                             .grid_bits = 15,
                             .honest = honest[k]};
        memset(sum, 0, DRAWS * sizeof *sum);
        for (uint32_t site = 0; site < honest[k]; site++) {
            int32_t *v = drawn(dure_share_variance(&plan), 200 + 10 * k + site);
            for (size_t i = 0; i < DRAWS; i++)
                sum[i] += v[i];
            free(v);
        }
        check_moments(sum, 1.5 * 32768);
    }
    free(sum);
}

/* Chi-square of the counts against exp(-x^2 / 2 V), normalised. */
static double chi_of_counts(const int32_t *v, double variance, int most)
{
    double chi = 0, sum = 0;
    size_t *counts = calloc((size_t)(2 * most + 1), sizeof *counts);
    assert_non_null(counts);
    for (size_t i = 0; i < DRAWS; i++) {
        int32_t cell = v[i] < -most ? -most : v[i] > most ? most : v[i];
        counts[cell + most]++;
    }
    for (int x = -40 * most; x <= 40 * most; x++)
        sum += exp(-x * x / (2 * variance));
    for (int cell = -most; cell <= most; cell++) {
        double expected = 0;
        int end = abs(cell) == most ? 40 * most : abs(cell); /* the last cells take the tails */
        for (int x = abs(cell); x <= end; x++)
            expected += DRAWS * exp(-x * x / (2 * variance)) / sum;
        double gap = (double)counts[cell + most] - expected;
        chi += gap * gap / expected;
    }
    free(counts);
    return chi;
}

static void test_share_cells_agree(void **state)
{
    (void)state;
    /* Limits: chi-square quantiles at 1 - 10^-4 for 2 * most degrees of freedom. */
    const struct {
        uint64_t variance;
        int most;
        double limit;
    } rows[] = {{16, 14, 62.2}, {20, 16, 67.9}, {100, 36, 121.7}};
    for (size_t k = 0; k < 3; k++) {
        int32_t *v = drawn(rows[k].variance, 300 + k);
        double variance = (double)rows[k].variance;
        assert_true(chi_of_counts(v, variance, rows[k].most) < rows[k].limit);
        assert_true(chi_of_counts(v, variance * 0.98, rows[k].most) > rows[k].limit);
        assert_true(chi_of_counts(v, variance * 1.02, rows[k].most) > rows[k].limit);
        free(v);
    }
}

/* Tails: how many lie past 2, 3 and 4 deviations, in standard errors. */
static void test_share_tails_agree(void **state)
{
    (void)state;
    int32_t *v = drawn(268435456, 400);
    for (int z = 2; z <= 4; z++) {
        double beyond = erfc(z / M_SQRT2), n = 0;
        for (size_t i = 0; i < DRAWS; i++)
            n += abs(v[i]) > z * 16384;
        assert_true(fabs(n - DRAWS * beyond) < 4 * sqrt(DRAWS * beyond));
    }
    free(v);
}

static void test_share_variance_is_the_least_that_suffices(void **state)
{
    (void)state;
    /* 1.5 * 2^14 squared over 7, and where it does not come out even. */
    dure_dp_plan plan = {
        .mechanism = DURE_DP_SITE_GAUSSIAN, .sigma_num = 98304, .grid_bits = 14, .honest = 7};
    assert_true(dure_share_variance(&plan) == (24576u * 24576u + 6) / 7);
    plan.honest = 9;
    assert_true(dure_share_variance(&plan) == 24576u * 24576u / 9);
    plan.sigma_num = UINT32_MAX;
    plan.grid_bits = 24;
    plan.honest = 2;
    assert_true(dure_share_variance(&plan) == UINT64_MAX);
    plan.sigma_num = 0;
    assert_true(dure_share_variance(&plan) == 0);
    for (uint32_t num = 1; num < 2000000; num += 12347) {
        plan.sigma_num = num;
        plan.grid_bits = 14;
        plan.honest = 3;
        unsigned __int128 claim = (unsigned __int128)num * num << 28;
        unsigned __int128 have = (unsigned __int128)dure_share_variance(&plan) * 3 << 32;
        assert_true(have >= claim && have - ((unsigned __int128)3 << 32) < claim);
    }
}

static void test_share_reach_covers_twelve_deviations(void **state)
{
    (void)state;
    dure_dp_plan plan = {.mechanism = DURE_DP_SITE_GAUSSIAN,
                         .sigma_num = 2 * DURE_DP_SIGMA_DEN,
                         .grid_bits = 15,
                         .honest = 4};
    assert_true(dure_share_variance(&plan) == 32768u * 32768u);
    assert_true(dure_share_reach(&plan) == 13 * 32768u);
    plan.honest = 5; /* a root that is no integer is rounded up */
    uint64_t each = (dure_share_reach(&plan) - 32768) / 12;
    assert_true(each * each >= dure_share_variance(&plan));
    assert_true((each - 1) * (each - 1) < dure_share_variance(&plan));
    plan.sigma_num = UINT32_MAX;
    assert_true(dure_share_reach(&plan) == UINT64_MAX);
}

static void test_share_refuses_what_it_cannot_draw(void **state)
{
    (void)state;
    int32_t out[8];
    seeded_rng seeded;
    dure_rng rng = seeded_rng_of(&seeded, 1);
    const uint64_t wrong[] = {0, 15, (UINT64_C(1) << 46) + 1, UINT64_MAX};
    for (size_t i = 0; i < 4; i++)
        assert_err(dure_share_fill(out, 8, wrong[i], &rng), DURE_ERR_USAGE);
    assert_ok(dure_share_fill(out, 0, 16, &rng));
}

/* A generator that fails or stands still leaves no share that was noised in part. */
static void test_share_of_a_broken_generator_is_nothing(void **state)
{
    (void)state;
    enum { N = 5000 };
    static int32_t out[N], none[N];
    failing_rng failing;
    dure_rng rng = failing_rng_of(&failing, 3);
    assert_err(dure_share_fill(out, N, 1000, &rng), DURE_ERR_RNG);
    assert_memory_equal(out, none, sizeof out);
    for (size_t k = 0; k < 2; k++) {
        const uint32_t word[] = {k ? UINT32_MAX : 0};
        played_rng played;
        rng = played_rng_of(&played, word, 1);
        assert_err(dure_share_fill(out, N, 1000, &rng), DURE_ERR_RNG);
        assert_memory_equal(out, none, sizeof out);
    }
}

/* The same bytes, the same shares; other bytes, others. */
static void test_share_is_a_function_of_the_stream(void **state)
{
    (void)state;
    int32_t *a = drawn(4096, 7), *b = drawn(4096, 7), *c = drawn(4096, 8);
    assert_memory_equal(a, b, DRAWS * sizeof *a);
    assert_true(memcmp(a, c, 100 * sizeof *a) != 0);
    free(a);
    free(b);
    free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_share_moments_agree),
        cmocka_unit_test(test_share_sum_has_the_claimed_deviation),
        cmocka_unit_test(test_share_cells_agree),
        cmocka_unit_test(test_share_tails_agree),
        cmocka_unit_test(test_share_variance_is_the_least_that_suffices),
        cmocka_unit_test(test_share_reach_covers_twelve_deviations),
        cmocka_unit_test(test_share_refuses_what_it_cannot_draw),
        cmocka_unit_test(test_share_of_a_broken_generator_is_nothing),
        cmocka_unit_test(test_share_is_a_function_of_the_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
