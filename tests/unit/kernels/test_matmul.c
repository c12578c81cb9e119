/* Products against sums in double, at every level of the CPU; and the promise that a row's result
 * does not depend on the rows beside it, on their number or on the threads. */
#include "kernels/dequant.h"
#include "kernels/matmul.h"
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t rng = 1;

static float uniform(void)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (float)(rng >> 40) * 0x1p-23f - 1.0f;
}

static float *random_floats(size_t n)
{
    float *x = malloc((n + 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = uniform();
    return x;
}

/* Random Q8_0 or Q4_1 blocks, or float32. */
static dure_weight random_weight(uint32_t type, size_t out, size_t in)
{
    size_t bytes = dure_quant_row_bytes(type, in) * out;
    uint8_t *data = type ? malloc(bytes) : (uint8_t *)random_floats(out * in);
    size_t block = type == 8 ? 34 : 20;
    for (size_t i = 0; type && i < bytes; i++)
        data[i] = (uint8_t)(rng = rng * 6364136223846793005u + 1442695040888963407u, rng >> 56);
    for (size_t i = 0; type && i < bytes; i += block) {
        uint16_t scales[2] = {dure_float_to_half(0.01f * uniform()), dure_float_to_half(uniform())};
        memcpy(data + i, scales, type == 8 ? 2 : 4);
    }
    return (dure_weight){.type = type, .out = out, .in = in, .data = data};
}

static void free_weight(dure_weight *w)
{
    union {
        const void *shared;
        void *owned;
    } data = {.shared = w->data};
    free(data.owned);
}

static float *decoded(const dure_weight *w)
{
    float *x = malloc(w->out * w->in * sizeof *x);
    dure_cpu_ops_of(DURE_CPU_REFERENCE)->dequant(x, w->data, w->out * w->in, w->type);
    return x;
}

/* |y - a b^T| over |a| |b|^T, the measure in which float32 sums are judged. */
static void check_product(const float *y, const float *a, const float *b, const size_t mnk[3],
                          bool transposed)
{
    size_t m = mnk[0], n = mnk[1], k = mnk[2];
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0, size = 0;
            for (size_t p = 0; p < k; p++) {
                double term =
                    (double)a[i * k + p] * (double)(transposed ? b[j * k + p] : b[p * n + j]);
                sum += term;
                size += fabs(term);
            }
            assert_true(fabs((double)y[i * n + j] - sum) <= 1e-6 * size + 1e-30);
        }
}

static const size_t shapes[][3] = {/* rows, out, in */
                                   {1, 32, 32},  {5, 7, 64},     {14, 33, 96}, {57, 200, 288},
                                   {29, 64, 32}, {70, 130, 320}, {3, 48, 1056}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0] };

static void check_level(dure_cpu_level level, uint32_t type)
{
    dure_compute c = {.ops = dure_cpu_ops_of(level)};
    if (!c.ops) return;
    assert_ok(dure_pool_new(&c.pool, 2, dure_matmul_scratch_bytes(2048)));
    for (size_t s = 0; s < N_SHAPES; s++) {
        size_t rows = shapes[s][0], out = shapes[s][1], in = shapes[s][2];
        dure_weight w = random_weight(type, out, in);
        float *x = random_floats(rows * in), *y = random_floats(rows * out), *b = decoded(&w);
        dure_product p = {.y = y, .ldy = out, .x = x, .ldx = in, .w = &w};
        dure_matmul job = {.rows = rows, .products = &p, .n_products = 1};
        dure_matmul_forward(&job, &c);
        check_product(y, x, b, (size_t[3]){rows, out, in}, true);
        dure_matmul_few(&job, &c);
        check_product(y, x, b, (size_t[3]){rows, out, in}, true);
        dure_product_grad term = {.dy = y, .lddy = out, .w = &w};
        dure_matmul_grad grad = {.dx = x, .lddx = in, .terms = &term, .n_terms = 1};
        dure_matmul_backward(&grad, 1, rows, &c);
        check_product(x, y, b, (size_t[3]){rows, in, out}, false);
        free(x);
        free(y);
        free(b);
        free_weight(&w);
    }
    dure_pool_free(&c.pool);
}

static void test_matmul_is_right_at_every_level(void **state)
{
    (void)state;
    static const uint32_t types[] = {0, 3, 8};
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512; level++)
        for (size_t t = 0; t < 3; t++)
            check_level((dure_cpu_level)level, types[t]);
}

/* Forward of `rows` rows of x from `first` on, with `threads` threads. */
static float *product_of(const float *x, const dure_weight *w, const size_t range[2],
                         uint32_t threads)
{
    dure_compute c = {.ops = dure_cpu_ops_of(dure_cpu_best())};
    float *y = malloc(range[1] * w->out * sizeof *y);
    assert_ok(dure_pool_new(&c.pool, threads, dure_matmul_scratch_bytes(2048)));
    dure_product p = {.y = y, .ldy = w->out, .x = x + range[0] * w->in, .ldx = w->in, .w = w};
    dure_matmul job = {.rows = range[1], .products = &p, .n_products = 1};
    dure_matmul_forward(&job, &c);
    dure_pool_free(&c.pool);
    return y;
}

static void test_matmul_row_is_itself_among_any_rows(void **state)
{
    (void)state;
    enum { ROWS = 75, OUT = 200, IN = 1056 };
    dure_weight w = random_weight(3, OUT, IN);
    float *x = random_floats(ROWS * IN), *all = product_of(x, &w, (size_t[]){0, ROWS}, 1);
    static const size_t ranges[][2] = {{0, 1}, {3, 9}, {10, 14}, {13, 57}, {74, 1}, {0, 75}};
    for (size_t r = 0; r < sizeof ranges / sizeof ranges[0]; r++) {
        float *some = product_of(x, &w, ranges[r], (uint32_t)r % 3 + 1);
        assert_memory_equal(some, all + ranges[r][0] * OUT, ranges[r][1] * OUT * sizeof *some);
        free(some);
    }
    free(x);
    free(all);
    free_weight(&w);
}

static void test_matmul_accumulates_and_groups(void **state)
{
    (void)state;
    enum { ROWS = 9, IN = 64 };
    dure_compute c = {.ops = dure_cpu_ops_of(dure_cpu_best())};
    assert_ok(dure_pool_new(&c.pool, 2, dure_matmul_scratch_bytes(2048)));
    dure_weight a = random_weight(0, 40, IN), b = random_weight(8, 24, IN);
    float *x = random_floats(ROWS * IN), *ya = random_floats(ROWS * 40),
          *yb = random_floats(ROWS * 24);
    float before = yb[5];
    dure_product products[] = {
        {.y = ya, .ldy = 40, .x = x, .ldx = IN, .w = &a},
        {.y = yb, .ldy = 24, .x = x, .ldx = IN, .w = &b, .accumulate = true}};
    dure_matmul job = {.rows = ROWS, .products = products, .n_products = 2};
    float *decoded_b = decoded(&b);
    dure_matmul_forward(&job, &c);
    check_product(ya, x, a.data, (size_t[3]){ROWS, 40, IN}, true);
    double expected = (double)before;
    for (size_t k = 0; k < IN; k++)
        expected += (double)x[k] * (double)decoded_b[5 * IN + k];
    assert_true(fabs((double)yb[5] - expected) < 1e-4);
    free(decoded_b);
    free(x);
    free(ya);
    free(yb);
    free_weight(&a);
    free_weight(&b);
    dure_pool_free(&c.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul_is_right_at_every_level),
        cmocka_unit_test(test_matmul_row_is_itself_among_any_rows),
        cmocka_unit_test(test_matmul_accumulates_and_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
