#include "dp/quantize.h"
#include "support/check.h"
#include "support/seeded_rng.h"

#include <math.h>
#include <string.h>

enum { N = 4099 };

static dure_dp_plan plan_of(double clip, uint32_t bits)
{
    dure_dp_plan plan = {.clip = clip, .grid_bits = bits, .batch = 10};
    return plan;
}

/* Uniform in +-size. */
static void fill(float *v, size_t n, double size, uint64_t seed)
{
    seeded_rng seeded;
    dure_rng rng = seeded_rng_of(&seeded, seed);
    for (size_t i = 0; i < n; i++) {
        int32_t word = 0;
        assert_ok(dure_rng_fill(&rng, &word, sizeof word));
        v[i] = (float)(size * (double)word / 2147483648.0);
    }
}

static uint64_t square_norm(const int32_t *q, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (uint64_t)((int64_t)q[i] * q[i]);
    return sum;
}

static void test_quantize_norm_never_exceeds_the_grid(void **state)
{
    (void)state;
    static float v[N];
    static int32_t q[N];
    for (int power = -40; power <= 120; power += 5) {
        for (uint64_t seed = 0; seed < 8; seed++) {
            dure_dp_plan plan = plan_of(seed % 2 ? 1.0 : 0.37, 14 + (uint32_t)seed % 5);
            fill(v, N, ldexp(1, power), seed);
            assert_true(dure_quantize(q, v, N, &plan));
            assert_true(square_norm(q, N) <= (uint64_t)1 << (2 * plan.grid_bits));
        }
    }
}

/* All coordinates just past a half after scaling: rounding adds as much as it can. */
static void test_quantize_norm_holds_when_all_rounding_is_up(void **state)
{
    (void)state;
    static float v[N];
    static int32_t q[N];
    for (int step = 0; step < 400; step++) {
        dure_dp_plan plan = plan_of(1, 14);
        for (size_t i = 0; i < N; i++)
            v[i] = 1.0f + (float)step * 0.0005f;
        assert_true(dure_quantize(q, v, N, &plan));
        assert_true(square_norm(q, N) <= (uint64_t)1 << 28);
    }
}

static void test_quantize_keeps_a_small_gradient_as_it_is(void **state)
{
    (void)state;
    const float v[4] = {0.25f, -0.5f, 0.0f, 0.125f};
    int32_t q[4];
    dure_dp_plan plan = plan_of(1, 14);
    assert_true(dure_quantize(q, v, 4, &plan));
    assert_true(q[0] == 4096 && q[1] == -8192 && q[2] == 0 && q[3] == 2048);
}

static void test_quantize_clips_to_the_adjusted_norm(void **state)
{
    (void)state;
    const float v[1] = {-250.0f};
    int32_t q[1];
    dure_dp_plan plan = plan_of(2, 14);
    assert_true(dure_quantize(q, v, 1, &plan));
    assert_int_equal(q[0], -16384); /* 16384 - 1/2 rounds, ties to even, to the grid's edge */
}

static void test_quantize_refuses_what_is_not_finite(void **state)
{
    (void)state;
    static float v[N];
    static int32_t q[N];
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t b = 0; b < 3; b++) {
        for (size_t at = 0; at < N; at += 1366) {
            dure_dp_plan plan = plan_of(1, 14);
            fill(v, N, 1, b);
            v[at] = bad[b];
            memset(q, 1, sizeof q);
            assert_false(dure_quantize(q, v, N, &plan));
            assert_true(square_norm(q, N) == 0);
        }
    }
}

static void test_quantize_clips_the_largest_floats(void **state)
{
    (void)state;
    static float v[N];
    static int32_t q[N];
    dure_dp_plan plan = plan_of(1e-9, 14);
    for (size_t i = 0; i < N; i++)
        v[i] = 3.4e38f;
    assert_true(dure_quantize(q, v, N, &plan));
    assert_true(square_norm(q, N) <= (uint64_t)1 << 28 && q[0] > 0);
}

static void test_quantize_of_zero_is_zero(void **state)
{
    (void)state;
    const float v[3] = {0, -0.0f, 0};
    int32_t q[3] = {1, 1, 1};
    dure_dp_plan plan = plan_of(1, 14);
    assert_true(dure_quantize(q, v, 3, &plan));
    assert_true(square_norm(q, 3) == 0);
}

/* The same bits as these operations written one by one, in the documented order. */
static void test_quantize_is_bit_identical(void **state)
{
    (void)state;
    static float v[N];
    static int32_t q[N];
    dure_dp_plan plan = plan_of(1, 16);
    fill(v, N, 3, 99);
    assert_true(dure_quantize(q, v, N, &plan));
    volatile double lane[8] = {0}, sum = 0;
    for (size_t i = 0; i < N; i++)
        lane[i % 8] = lane[i % 8] + (double)v[i] * (double)v[i];
    for (size_t j = 0; j < 8; j++)
        sum = sum + lane[j];
    volatile double norm = sqrt(sum) * 65536.0;
    volatile double most = 65536.0 - sqrt(N) / 2;
    volatile double scale = 65536.0 * (most / norm);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(q[i], (int32_t)nearbyint((double)v[i] * scale));
}

enum { LONG = 2 * DURE_QUANTIZE_PIECE + 77 };

/* In pieces, over three of them: the integers of the whole; and taken back, nothing is left. */
static void test_quantize_pieces_give_the_whole(void **state)
{
    (void)state;
    static float v[LONG];
    static int32_t q[LONG];
    static int64_t sum[LONG];
    dure_dp_plan plan = plan_of(1, 16);
    double norm_square = 0, scale;
    uint64_t squares = 0;
    fill(v, LONG, 3, 7);
    assert_true(dure_quantize(q, v, LONG, &plan));
    for (size_t i = 0; i < LONG; i += DURE_QUANTIZE_PIECE)
        norm_square += dure_quantize_square(
            v + i, LONG - i < DURE_QUANTIZE_PIECE ? LONG - i : DURE_QUANTIZE_PIECE);
    assert_true(dure_quantize_scale(&scale, norm_square, LONG, &plan));
    memset(sum, 0, sizeof sum);
    for (size_t i = 0; i < LONG; i += DURE_QUANTIZE_PIECE)
        squares += dure_quantize_add_piece(
            sum + i, v + i, LONG - i < DURE_QUANTIZE_PIECE ? LONG - i : DURE_QUANTIZE_PIECE, scale);
    for (size_t i = 0; i < LONG; i++)
        assert_int_equal(sum[i], q[i]);
    assert_true(squares == square_norm(q, LONG));
    assert_true(dure_quantize_fits(squares, &plan));
    assert_true(dure_quantize_fits((uint64_t)1 << 32, &plan));
    assert_false(dure_quantize_fits(((uint64_t)1 << 32) + 1, &plan));
    dure_quantize_take_back(sum, v, LONG, scale);
    for (size_t i = 0; i < LONG; i++)
        assert_true(sum[i] == 0);
}

static void test_quantize_mean_is_in_the_gradients_units(void **state)
{
    (void)state;
    const int64_t sum[3] = {5, -81920, 81920};
    float mean[3];
    dure_dp_plan plan = plan_of(2, 14);
    dure_quantize_mean(mean, sum, 3, &plan);
    assert_true(mean[1] == -1.0f && mean[2] == 1.0f); /* 5 records of norm C = 2 over L = 10 */
    assert_true(mean[0] == (float)(5 * 2.0 / (16384.0 * 10)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantize_norm_never_exceeds_the_grid),
        cmocka_unit_test(test_quantize_norm_holds_when_all_rounding_is_up),
        cmocka_unit_test(test_quantize_keeps_a_small_gradient_as_it_is),
        cmocka_unit_test(test_quantize_clips_to_the_adjusted_norm),
        cmocka_unit_test(test_quantize_refuses_what_is_not_finite),
        cmocka_unit_test(test_quantize_clips_the_largest_floats),
        cmocka_unit_test(test_quantize_of_zero_is_zero),
        cmocka_unit_test(test_quantize_is_bit_identical),
        cmocka_unit_test(test_quantize_pieces_give_the_whole),
        cmocka_unit_test(test_quantize_mean_is_in_the_gradients_units),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
