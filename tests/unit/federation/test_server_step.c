#include "federation/quantise.h"
#include "federation/server_step.h"
#include "support/check.h"

#include "crypto/hash.h"

#include <math.h>
#include <string.h>

static const dure_grid grid = {.range = 0.0625, .limit = 65536, .modulus_bits = 24};

static void test_quantise_rounds_to_nearest_and_clamps(void **state)
{
    (void)state;
    const float unit = 0.0625f / 65536.0f;
    const float global[] = {0, 0, 0, 1, 0, 0};
    const float trained[] = {2.4f * unit, -2.6f * unit, 1, 1, -1, 0.0625f};
    int32_t units[6];
    size_t clamped;
    assert_ok(dure_quantise_update(units, &clamped, trained, global, 6, &grid, NULL));
    const int32_t want[] = {2, -3, 65536, 0, -65536, 65536};
    assert_memory_equal(units, want, sizeof want);
    assert_int_equal(clamped, 2);
}

static void test_quantise_refuses_what_is_not_finite(void **state)
{
    (void)state;
    const float bad[] = {0, NAN, INFINITY};
    const float global[] = {0, 0, 0};
    int32_t units[3] = {7, 7, 7};
    assert_err(dure_quantise_update(units, NULL, bad, global, 3, &grid, NULL), DURE_ERR_STATE);
    assert_int_equal(units[0], 0);
    assert_int_equal(units[2], 0);
}

static void test_grid_refuses_what_could_wrap(void **state)
{
    (void)state;
    assert_ok(dure_grid_check(&grid, 100, NULL));
    assert_err(dure_grid_check(&grid, 128, NULL), DURE_ERR_USAGE);
    const dure_grid wide = {.range = 0.0625, .limit = 65536, .modulus_bits = 32};
    assert_ok(dure_grid_check(&wide, 128, NULL));
    const dure_grid odd = {.range = 0.06, .limit = 65536, .modulus_bits = 24};
    assert_err(dure_grid_check(&odd, 3, NULL), DURE_ERR_USAGE);
    const dure_grid packed = {.range = 0.0625, .limit = 65536, .modulus_bits = 16};
    assert_err(dure_grid_check(&packed, 3, NULL), DURE_ERR_USAGE);
}

static void test_server_step_adds_the_mean(void **state)
{
    (void)state;
    const dure_server_step step = {.grid = grid, .n_sites = 4, .rate = 1};
    const float old[] = {1, -1, 0};
    const int32_t sum[] = {4 * 65536, -2 * 65536, 0};
    float b[3];
    assert_ok(dure_server_step_apply(b, old, sum, 3, &step, NULL));
    assert_true(b[0] == 1.0625f && b[1] == -1.03125f && b[2] == 0);
}

static void test_server_step_refuses_an_impossible_sum(void **state)
{
    (void)state;
    const dure_server_step step = {.grid = grid, .n_sites = 3, .rate = 1};
    const float old[] = {1, 1};
    const int32_t sum[] = {0, 3 * 65536 + 1};
    float b[] = {9, 9};
    dure_diag diag = {0};
    assert_err(dure_server_step_apply(b, old, sum, 2, &step, &diag), DURE_ERR_PROTO);
    assert_true(b[0] == 9);
    assert_non_null(strstr(diag.text, "coordinate 1"));
}

/* The reference result of 4,096 coordinates, computed once with Python's integers and fractions,
 * each operation rounded to the nearest double and the last to the nearest float. */
static void test_server_step_is_the_same_bits_everywhere(void **state)
{
    (void)state;
    enum { N = 4096 };
    static float old[N], b[N];
    static int32_t sum[N];
    uint64_t x = 1;
    for (size_t i = 0; i < N; i++) {
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        old[i] = (float)((double)(int64_t)(x >> 40) * 0x1p-24 - 0.5);
        x = x * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        sum[i] = (int32_t)((x >> 33) % (2 * 7 * 65536 + 1)) - 7 * 65536;
    }
    const dure_server_step step = {.grid = grid, .n_sites = 7, .rate = 0.9};
    assert_ok(dure_server_step_apply(b, old, sum, N, &step, NULL));
    static uint8_t bytes[4 * N];
    for (size_t i = 0; i < N; i++) {
        int32_t bits;
        memcpy(&bits, &b[i], sizeof bits);
        dure_server_step_sum_put(bytes + 4 * i, &bits, 1);
    }
    dure_hash digest;
    char hex[65];
    assert_ok(dure_hash_bytes(&digest, dure_span_of(bytes, sizeof bytes)));
    dure_hex_encode(hex, digest.b, sizeof digest.b);
    assert_string_equal(hex, "a2e618b3cf5bd37852ed453c194cd71e4e6e9192972f0662f77a293b848f1a88");
}

static void test_sum_round_trips_as_little_endian(void **state)
{
    (void)state;
    const int32_t sum[] = {1, -2, 458752};
    const uint8_t want[] = {1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff, 0, 0, 7, 0};
    uint8_t bytes[12];
    int32_t back[3];
    dure_server_step_sum_put(bytes, sum, 3);
    assert_memory_equal(bytes, want, sizeof want);
    dure_server_step_sum_take(back, bytes, 3);
    assert_memory_equal(back, sum, sizeof sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantise_rounds_to_nearest_and_clamps),
        cmocka_unit_test(test_quantise_refuses_what_is_not_finite),
        cmocka_unit_test(test_grid_refuses_what_could_wrap),
        cmocka_unit_test(test_server_step_adds_the_mean),
        cmocka_unit_test(test_server_step_refuses_an_impossible_sum),
        cmocka_unit_test(test_server_step_is_the_same_bits_everywhere),
        cmocka_unit_test(test_sum_round_trips_as_little_endian),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
