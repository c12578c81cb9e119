/* Decoding against blocks that the `gguf` package decoded (tests/oracle/dequant_vectors.py). */
#include "kernels/compute.h"
#include "kernels/dequant.h"
#include "support/check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WEIGHTS = 4096, MAX_BYTES = 8192, N_TYPES = 16 };

static bool next_vector(FILE *f, uint32_t head[3], uint8_t *blocks, float *weights)
{
    if (fread(head, sizeof *head, 3, f) != 3) return false;
    assert_true(head[1] <= MAX_WEIGHTS && head[2] <= MAX_BYTES);
    assert_int_equal(fread(blocks, 1, head[2], f), head[2]);
    assert_int_equal(fread(weights, sizeof *weights, head[1], f), head[1]);
    return true;
}

static void check_level(dure_cpu_level level)
{
    static uint8_t blocks[MAX_BYTES];
    static float expected[MAX_WEIGHTS], decoded[MAX_WEIGHTS];
    uint32_t head[3];
    int n = 0;
    const dure_cpu_ops *ops = dure_cpu_ops_of(level);
    if (!ops) return;
    FILE *f = fopen(DURE_TEST_VECTORS "/dequant.bin", "rb");
    assert_non_null(f);
    while (next_vector(f, head, blocks, expected)) {
        assert_int_equal(dure_quant_row_bytes(head[0], head[1]), head[2]);
        ops->dequant(decoded, blocks, head[1], head[0]);
        for (uint32_t i = 0; i < head[1]; i++)
            /* The bits, so that the sign of a zero counts. */
            if (memcmp(&decoded[i], &expected[i], sizeof decoded[i]) != 0)
                fail_msg("%s, type %u, weight %u: %a, not %a", ops->name, head[0], i,
                         (double)decoded[i], (double)expected[i]);
        n++;
    }
    fclose(f);
    assert_int_equal(n, N_TYPES);
}

static void test_dequant_gives_the_format_s_values(void **state)
{
    (void)state;
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512; level++)
        check_level((dure_cpu_level)level);
}

static void test_dequant_knows_what_it_cannot_decode(void **state)
{
    (void)state;
    size_t weights, bytes;
    static const uint32_t unknown[] = {4, 5, 9, 16, 22, 24, 35, 99};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        assert_false(dure_quant_block(&weights, &bytes, unknown[i]));
    assert_true(dure_quant_block(&weights, &bytes, 14));
    assert_int_equal(weights, 256);
    assert_int_equal(bytes, 210);
}

static void test_dequant_half_round_trip(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        float value = dure_half_to_float((uint16_t)half);
        if (isnan(value))
            assert_true(isnan(dure_half_to_float(dure_float_to_half(value))));
        else
            assert_int_equal(dure_float_to_half(value), half);
    }
}

static void test_dequant_half_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(dure_float_to_half(1.0f + 0x1p-11f), 0x3C00);            /* tie, down */
    assert_int_equal(dure_float_to_half(1.0f + 0x3p-11f), 0x3C02);            /* tie, up */
    assert_int_equal(dure_float_to_half(1.0f + 0x1p-11f + 0x1p-20f), 0x3C01); /* above the tie */
    assert_int_equal(dure_float_to_half(65519.0f), 0x7BFF);                   /* largest finite */
    assert_int_equal(dure_float_to_half(65520.0f), 0x7C00);                   /* infinity */
    assert_int_equal(dure_float_to_half(0x1p-25f), 0);                        /* tie to zero */
    assert_int_equal(dure_float_to_half(0x1.8p-25f), 1);                      /* to the least */
    assert_int_equal(dure_float_to_half(-0x1p-24f), 0x8001);
}

static void test_dequant_bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(dure_float_to_bf16(1.0f), 0x3F80);
    assert_int_equal(dure_float_to_bf16(1.0f + 0x1p-8f), 0x3F80);
    assert_int_equal(dure_float_to_bf16(1.0f + 0x3p-8f), 0x3F82);
    assert_true(isnan(dure_bf16_to_float(dure_float_to_bf16(NAN))));
    assert_true(isinf(dure_bf16_to_float(dure_float_to_bf16(INFINITY))));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dequant_gives_the_format_s_values),
        cmocka_unit_test(test_dequant_knows_what_it_cannot_decode),
        cmocka_unit_test(test_dequant_half_round_trip),
        cmocka_unit_test(test_dequant_half_rounds_to_nearest_even),
        cmocka_unit_test(test_dequant_bf16_rounds_to_nearest_even),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
