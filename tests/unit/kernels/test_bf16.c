/* Packed bfloat16 products against sums in double of the rounded factors. oneDNN multiplies
 * bfloat16 on every CPU with AVX-512, in hardware or not; the tests take any implementation, and
 * ask for the row-independent one only where the CPU has it. */
#include "kernels/bf16.h"
#include "kernels/dequant.h"
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { OUT = 700, IN = 160, ROWS = 150, SKIP = 77 };

static uint64_t rng = 1;

static float *random_floats(size_t n)
{
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) {
        rng = rng * 6364136223846793005u + 1442695040888963407u;
        x[i] = (float)(rng >> 40) * 0x1p-23f - 1.0f;
    }
    return x;
}

static double rounded(float x)
{
    return (double)dure_bf16_to_float(dure_float_to_bf16(x));
}

static dure_compute compute(uint32_t threads)
{
    dure_compute c = {.ops = dure_cpu_ops_of(dure_cpu_best())};
    assert_ok(dure_pool_new(&c.pool, threads, dure_matmul_scratch_bytes(OUT)));
    return c;
}

static const dure_bf16_opts any = {.backward = true, .any_kernel = true};

static void test_bf16_forward_and_backward_are_right(void **state)
{
    (void)state;
    float *data = random_floats(OUT * IN), *x = random_floats(ROWS * IN);
    float *y = random_floats(ROWS * OUT), *dx = random_floats(ROWS * IN);
    dure_weight w = {.out = OUT, .in = IN, .data = data};
    dure_compute c = compute(2);
    assert_ok(dure_bf16_pack(&w, &any));
    dure_product p = {.y = y, .ldy = OUT, .x = x, .ldx = IN, .w = &w};
    dure_matmul_forward(&(dure_matmul){.rows = ROWS, .products = &p, .n_products = 1}, &c);
    dure_product_grad term = {.dy = y, .lddy = OUT, .w = &w};
    dure_matmul_grad grad = {.dx = dx, .lddx = IN, .terms = &term, .n_terms = 1};
    dure_matmul_backward(&grad, 1, ROWS, &c);
    for (size_t r = 0; r < ROWS; r += 13) {
        for (size_t o = 0; o < OUT; o++) {
            double sum = 0;
            for (size_t i = 0; i < IN; i++)
                sum += rounded(x[r * IN + i]) * rounded(data[o * IN + i]);
            assert_true(fabs((double)y[r * OUT + o] - sum) < 1e-4);
        }
        for (size_t i = 0; i < IN; i++) {
            double sum = 0, size = 0;
            for (size_t o = 0; o < OUT; o++) {
                double a = rounded(y[r * OUT + o]) * rounded(data[o * IN + i]);
                sum += a;
                size += fabs(a);
            }
            assert_true(fabs((double)dx[r * IN + i] - sum) < 1e-5 * size);
        }
    }
    dure_bf16_unpack(&w);
    dure_pool_free(&c.pool);
    free(data);
    free(x);
    free(y);
    free(dx);
}

/* Two threads run the one primitive of a narrow weight on different rows all the time; none may
 * see what the other is at. */
static void test_bf16_threads_do_not_meet(void **state)
{
    (void)state;
    enum { NARROW = 64, DEEP = 96, MANY = 1024, TIMES = 300 };
    float *data = random_floats(NARROW * DEEP), *x = random_floats(MANY * DEEP);
    float *y = random_floats(MANY * NARROW), *want = random_floats(MANY * NARROW);
    dure_weight w = {.out = NARROW, .in = DEEP, .data = data};
    dure_compute one = compute(1), two = compute(2);
    assert_ok(dure_bf16_pack(&w, &any));
    dure_product p = {.y = want, .ldy = NARROW, .x = x, .ldx = DEEP, .w = &w};
    const dure_matmul job = {.rows = MANY, .products = &p, .n_products = 1};
    dure_matmul_forward(&job, &one);
    p.y = y;
    for (int i = 0; i < TIMES; i++) {
        memset(y, 0, MANY * NARROW * sizeof *y);
        dure_matmul_forward(&job, &two);
        assert_memory_equal(y, want, MANY * NARROW * sizeof *y);
    }
    dure_bf16_unpack(&w);
    dure_pool_free(&one.pool);
    dure_pool_free(&two.pool);
    free(data);
    free(x);
    free(y);
    free(want);
}

static void test_bf16_mixes_with_plain_terms(void **state)
{
    (void)state;
    float *a = random_floats(OUT * IN), *b = random_floats(8 * IN), *dx = random_floats(3 * IN);
    float *dy = random_floats(3 * OUT), *dz = random_floats(3 * 8);
    dure_weight w = {.out = OUT, .in = IN, .data = a}, lora = {.out = 8, .in = IN, .data = b};
    dure_compute c = compute(1);
    assert_ok(dure_bf16_pack(&w, &any));
    dure_product_grad terms[] = {{.dy = dy, .lddy = OUT, .w = &w},
                                 {.dy = dz, .lddy = 8, .w = &lora}};
    dure_matmul_grad grad = {.dx = dx, .lddx = IN, .terms = terms, .n_terms = 2};
    dure_matmul_backward(&grad, 1, 3, &c);
    double sum = 0;
    for (size_t o = 0; o < OUT; o++)
        sum += rounded(dy[OUT + o]) * rounded(a[o * IN + 5]);
    for (size_t o = 0; o < 8; o++)
        sum += (double)dz[8 + o] * (double)b[o * IN + 5];
    assert_true(fabs((double)dx[IN + 5] - sum) < 1e-3);
    dure_bf16_unpack(&w);
    dure_pool_free(&c.pool);
    free(a);
    free(b);
    free(dx);
    free(dy);
    free(dz);
}

static void test_bf16_row_is_itself_where_the_kernel_promises_it(void **state)
{
    (void)state;
    char name[64];
    dure_bf16_opts strict = {.backward = true};
    if (!dure_bf16_available(name, OUT, IN, &strict)) {
        print_message("no row-independent bfloat16 kernel on this CPU\n");
        skip();
    }
    assert_memory_equal(name, "brg", 3);
    float *data = random_floats(OUT * IN), *x = random_floats(ROWS * IN);
    float *y = random_floats(ROWS * OUT), *z = random_floats(ROWS * OUT);
    dure_weight w = {.out = OUT, .in = IN, .data = data};
    assert_ok(dure_bf16_pack(&w, &strict));
    dure_product p = {.y = y, .ldy = OUT, .x = x, .ldx = IN, .w = &w};
    dure_compute one = compute(1), two = compute(2);
    dure_matmul_forward(&(dure_matmul){.rows = ROWS, .products = &p, .n_products = 1}, &one);
    p.x = x + SKIP * IN;
    p.y = z;
    dure_matmul_forward(&(dure_matmul){.rows = 9, .products = &p, .n_products = 1}, &two);
    assert_memory_equal(z, y + SKIP * OUT, 9 * OUT * sizeof *z);
    dure_bf16_unpack(&w);
    dure_pool_free(&one.pool);
    dure_pool_free(&two.pool);
    free(data);
    free(x);
    free(y);
    free(z);
}

int main(void)
{
    char name[64];
    if (!dure_bf16_available(name, OUT, IN, &any)) {
        print_message("SKIPPED: oneDNN has no bfloat16 product on this CPU\n");
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bf16_forward_and_backward_are_right),
        cmocka_unit_test(test_bf16_threads_do_not_meet),
        cmocka_unit_test(test_bf16_mixes_with_plain_terms),
        cmocka_unit_test(test_bf16_row_is_itself_where_the_kernel_promises_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
