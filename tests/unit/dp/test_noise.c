/* The sampler's decisions, digit by digit. Distribution tests are in test_noise_stat.c. */
#include "dp/noise.h"
#include "support/check.h"
#include "support/seeded_rng.h"

#include <math.h>
#include <string.h>

/* Digits that make the sampler accept k = 0 and the fraction that begins with `first`: the run
 * below 1/2 has length one, so exp(-1/2) is refused and k stays 0; the run below x is empty. */
#define OPENING 0x10000000u, 0x20000000u
#define ACCEPT 0xffffffffu
#define PLUS 0u
#define MINUS 0x80000000u

static dure_err draw_one(int64_t *out, dure_noise_scale scale, const uint32_t *words, size_t n)
{
    played_rng state;
    dure_rng rng = played_rng_of(&state, words, n);
    return dure_noise_fill(out, 1, scale, &rng);
}

static void test_noise_rounds_half_up_at_an_exact_boundary(void **state)
{
    (void)state;
    /* 3 x at x in [1/2, 1/2 + 2^-32): never below 1.5. */
    const uint32_t at[] = {OPENING, 0x80000000u, ACCEPT, PLUS};
    const uint32_t below[] = {OPENING, 0x7fffffffu, ACCEPT, PLUS};
    const uint32_t negative[] = {OPENING, 0x80000000u, ACCEPT, MINUS};
    int64_t v = 0;
    assert_ok(draw_one(&v, (dure_noise_scale){3, 0}, at, 5));
    assert_int_equal(v, 2);
    assert_ok(draw_one(&v, (dure_noise_scale){3, 0}, below, 5));
    assert_int_equal(v, 1);
    assert_ok(draw_one(&v, (dure_noise_scale){3, 0}, negative, 5));
    assert_int_equal(v, -2);
}

/* 3 x rounds up from x = 1/6 = 0.2AAAAAAA AAAAAAAA ... on: the digits of 1/6 decide nothing, the
 * first that differs does. */
static void test_noise_draws_digits_until_the_rounding_is_decided(void **state)
{
    (void)state;
    const uint32_t up[] = {OPENING,     0x2aaaaaaau, ACCEPT, 0xaaaaaaaau,
                           0xaaaaaaaau, 0xaaaaaaabu, PLUS};
    const uint32_t down[] = {OPENING,     0x2aaaaaaau, ACCEPT, 0xaaaaaaaau,
                             0xaaaaaaaau, 0xaaaaaaa9u, PLUS};
    int64_t v = -1;
    assert_ok(draw_one(&v, (dure_noise_scale){3, 0}, up, 8));
    assert_int_equal(v, 1);
    assert_ok(draw_one(&v, (dure_noise_scale){3, 0}, down, 8));
    assert_int_equal(v, 0);
}

static void test_noise_refuses_512_undecided_bits(void **state)
{
    (void)state;
    uint32_t words[40] = {OPENING, 0x2aaaaaaau, ACCEPT};
    for (size_t i = 4; i < 40; i++)
        words[i] = 0xaaaaaaaau;
    int64_t v = 7;
    assert_err(draw_one(&v, (dure_noise_scale){3, 0}, words, 40), DURE_ERR_RNG);
    assert_int_equal(v, 0);
}

static void test_noise_scales_by_a_dyadic_rational(void **state)
{
    (void)state;
    /* x = 3/4: 5/4 x = 0.9375, 7/8 x = 0.65625, 1/2 x = 0.375. */
    const uint32_t words[] = {OPENING, 0xc0000000u, ACCEPT, PLUS};
    int64_t v = -1;
    assert_ok(draw_one(&v, (dure_noise_scale){5, 2}, words, 5));
    assert_int_equal(v, 1);
    assert_ok(draw_one(&v, (dure_noise_scale){7, 3}, words, 5));
    assert_int_equal(v, 1);
    assert_ok(draw_one(&v, (dure_noise_scale){1, 1}, words, 5));
    assert_int_equal(v, 0);
}

/* At scales of 2^32 and over one digit of x spans many integers: the second is read first. */
static void test_noise_reads_two_digits_for_large_scales(void **state)
{
    (void)state;
    const uint32_t words[] = {OPENING, 0x40000000u, ACCEPT, 0x00010000u, PLUS};
    int64_t v = 0;
    assert_ok(draw_one(&v, (dure_noise_scale){(uint64_t)1 << 40, 0}, words, 6));
    /* 2^40 (2^-2 + 2^16 / 2^64) = 2^38 + 2^-8 */
    assert_int_equal(v, (int64_t)1 << 38);
}

static void test_noise_of_a_stuck_generator_is_refused(void **state)
{
    (void)state;
    const uint32_t stuck[] = {0, 0xffffffffu, 0x7fffffffu, 0x12345678u};
    const uint64_t sigma[] = {10, 1000, 100000};
    for (size_t i = 0; i < 12; i++) {
        int64_t v[4] = {1, 1, 1, 1};
        played_rng playing;
        dure_rng rng = played_rng_of(&playing, &stuck[i % 4], 1);
        dure_noise_scale scale = {sigma[i / 4], 0};
        assert_err(dure_noise_fill(v, 4, scale, &rng), DURE_ERR_RNG);
        assert_true(v[0] == 0 && v[1] == 0 && v[2] == 0 && v[3] == 0);
    }
}

static void test_noise_failure_leaves_nothing(void **state)
{
    (void)state;
    enum { N = 4096 };
    static int64_t sum[N];
    failing_rng failing;
    dure_rng rng = failing_rng_of(&failing, 3);
    for (size_t i = 0; i < N; i++)
        sum[i] = 5;
    assert_err(dure_noise_add(sum, N, (dure_noise_scale){100, 0}, &rng), DURE_ERR_RNG);
    for (size_t i = 0; i < N; i++)
        assert_true(sum[i] == 0);
}

static void test_noise_is_a_function_of_its_generator(void **state)
{
    (void)state;
    int64_t a[500], b[500], sum[500];
    seeded_rng seeded;
    dure_noise_scale scale = {26214, 1};
    dure_rng rng = seeded_rng_of(&seeded, 11);
    assert_ok(dure_noise_fill(a, 500, scale, &rng));
    rng = seeded_rng_of(&seeded, 11);
    assert_ok(dure_noise_fill(b, 500, scale, &rng));
    rng = seeded_rng_of(&seeded, 11);
    for (size_t i = 0; i < 500; i++)
        sum[i] = (int64_t)i;
    assert_ok(dure_noise_add(sum, 500, scale, &rng));
    for (size_t i = 0; i < 500; i++)
        assert_true(a[i] == b[i] && sum[i] == a[i] + (int64_t)i);
}

static void test_noise_of_zero_sigma_is_zero(void **state)
{
    (void)state;
    int64_t sum[3] = {4, -5, 6};
    failing_rng failing;
    dure_rng rng = failing_rng_of(&failing, 0);
    assert_ok(dure_noise_add(sum, 3, (dure_noise_scale){0, 0}, &rng));
    assert_true(sum[0] == 4 && sum[1] == -5 && sum[2] == 6);
}

static void test_noise_refuses_a_scale_out_of_range(void **state)
{
    (void)state;
    int64_t v[1] = {1};
    seeded_rng seeded;
    dure_rng rng = seeded_rng_of(&seeded, 1);
    dure_noise_scale much = {(uint64_t)1 << 44, 0}, shifted = {1, 33};
    assert_err(dure_noise_fill(v, 1, much, &rng), DURE_ERR_USAGE);
    assert_err(dure_noise_fill(v, 1, shifted, &rng), DURE_ERR_USAGE);
    assert_true(v[0] == 0);
}

static void test_noise_scale_is_sigma_times_the_grid(void **state)
{
    (void)state;
    dure_dp_plan plan = {.sigma_num = 52429, .grid_bits = 14};
    dure_noise_scale scale = dure_noise_scale_of(&plan);
    assert_true(scale.num == 52429 && scale.shift == 2);
    plan.grid_bits = 18;
    scale = dure_noise_scale_of(&plan);
    assert_true(scale.num == 52429u * 4 && scale.shift == 0);
}

static void test_noise_delta_is_the_sum_over_all_draws(void **state)
{
    (void)state;
    dure_dp_plan plan = {.sigma_num = 52429, .grid_bits = 15, .steps = 1000};
    double expected = (1 + exp(8)) * 512 * 512 * 1000 * 0x1p-108;
    assert_true(fabs(dure_noise_delta(&plan, 8) / expected - 1) < 1e-12);
    plan.sigma_num = 1; /* half a unit of the grid: drawn exactly */
    assert_true(dure_noise_delta(&plan, 8) == 0);
    plan.sigma_num = 0;
    assert_true(dure_noise_delta(&plan, INFINITY) == 0);
    plan = (dure_dp_plan){.sigma_num = 52429, .steps = 1000};
    assert_true(dure_noise_delta(&plan, 8) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_noise_rounds_half_up_at_an_exact_boundary),
        cmocka_unit_test(test_noise_draws_digits_until_the_rounding_is_decided),
        cmocka_unit_test(test_noise_refuses_512_undecided_bits),
        cmocka_unit_test(test_noise_scales_by_a_dyadic_rational),
        cmocka_unit_test(test_noise_reads_two_digits_for_large_scales),
        cmocka_unit_test(test_noise_of_a_stuck_generator_is_refused),
        cmocka_unit_test(test_noise_failure_leaves_nothing),
        cmocka_unit_test(test_noise_is_a_function_of_its_generator),
        cmocka_unit_test(test_noise_of_zero_sigma_is_zero),
        cmocka_unit_test(test_noise_refuses_a_scale_out_of_range),
        cmocka_unit_test(test_noise_scale_is_sigma_times_the_grid),
        cmocka_unit_test(test_noise_delta_is_the_sum_over_all_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
