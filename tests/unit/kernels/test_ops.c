/* The row kernels at every level of the CPU against plain C, and each backward against
 * differences of its forward. */
#include "kernels/cross_entropy.h"
#include "kernels/optimizer.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"
#include "support/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 3000 };
static const size_t lengths[] = {1, 3, 15, 16, 17, 64, 97, 576, 1025, 2999};
enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

static uint64_t rng = 1;

static float uniform(void)
{
    rng = rng * 6364136223846793005u + 1442695040888963407u;
    return (float)(rng >> 40) * 0x1p-23f - 1.0f;
}

static void fill(float *x, size_t n, float size)
{
    for (size_t i = 0; i < n; i++)
        x[i] = size * uniform();
}

static void assert_near(const float *x, const float *y, size_t n, double relative)
{
    double size = 1e-30, error = 0;
    for (size_t i = 0; i < n; i++) {
        size = fmax(size, fabs((double)y[i]));
        error = fmax(error, fabs((double)x[i] - (double)y[i]));
        assert_true(isfinite(x[i]) && isfinite(y[i]));
    }
    assert_true(error <= relative * size);
}

typedef void check_ops(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n);

static void at_every_level(check_ops *check)
{
    for (int level = DURE_CPU_PORTABLE; level <= DURE_CPU_AVX512; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        for (size_t i = 0; ops && i < N_LENGTHS; i++)
            check(ops, dure_cpu_ops_of(DURE_CPU_REFERENCE), lengths[i]);
    }
}

static float a[MOST], b[MOST], c[MOST], d[MOST], e[MOST], f[MOST];

static void check_norm(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    fill(a, n, 3);
    fill(b, n, 1);
    fill(c, n, 1);
    assert_true(fabsf(ops->dot(a, b, n) - truth->dot(a, b, n)) <= 1e-5f * (float)n);
    ops->rmsnorm(d, a, b, n, 1e-5f);
    truth->rmsnorm(e, a, b, n, 1e-5f);
    assert_near(d, e, n, 1e-6);
    memset(d, 0, sizeof d);
    memset(e, 0, sizeof e);
    ops->rmsnorm_backward(d, c, a, b, n, 1e-5f);
    truth->rmsnorm_backward(e, c, a, b, n, 1e-5f);
    /* With one element the exact gradient nearly vanishes, so only its size is compared. */
    assert_near(d, e, n, n == 1 ? 2 : 2e-6);
}

static void test_ops_rmsnorm_agrees(void **state)
{
    (void)state;
    at_every_level(check_norm);
}

static void check_swiglu(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    fill(a, n, 20);
    fill(b, n, 2);
    fill(c, n, 1);
    ops->swiglu(d, a, b, n);
    truth->swiglu(e, a, b, n);
    assert_near(d, e, n, 1e-6);
    truth->swiglu_backward(e, f, c, a, b, n);
    ops->swiglu_backward(a, b, c, a, b, n); /* in place */
    assert_near(a, e, n, 2e-6);
    assert_near(b, f, n, 2e-6);
}

static void test_ops_swiglu_agrees(void **state)
{
    (void)state;
    at_every_level(check_swiglu);
}

static void check_softmax(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    fill(a, n, 30);
    memcpy(b, a, sizeof a);
    memcpy(c, a, sizeof a);
    float lse = ops->softmax(a, n, 0.5f), expected = truth->softmax(b, n, 0.5f);
    assert_true(fabsf(lse - expected) <= 4e-6f * (1 + fabsf(expected)));
    assert_near(a, b, n, 5e-6);
    ops->softmax_again(c, n, 0.5f, expected);
    assert_near(c, b, n, 5e-6);
    fill(d, n, 1);
    memcpy(e, d, sizeof d);
    ops->softmax_backward(d, b, n, 0.25f, 0.5f);
    truth->softmax_backward(e, b, n, 0.25f, 0.5f);
    assert_near(d, e, n, 1e-6);
    fill(a, n, 30);
    assert_true(fabsf(ops->logsumexp(a, n) - truth->logsumexp(a, n)) < 1e-5f);
    memcpy(b, a, sizeof a);
    ops->exp_scaled(a, n, 31.0f, 0.1f);
    truth->exp_scaled(b, n, 31.0f, 0.1f);
    assert_near(a, b, n, 5e-6);
}

static void test_ops_softmax_agrees(void **state)
{
    (void)state;
    at_every_level(check_softmax);
}

static void check_sums(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    fill(a, n, 1);
    fill(b, n, 1);
    memcpy(c, a, sizeof a);
    ops->axpy(a, 0.3f, b, n);
    truth->axpy(c, 0.3f, b, n);
    assert_near(a, c, n, 1e-6);
    ops->add(a, b, n);
    truth->add(c, b, n);
    assert_near(a, c, n, 1e-6);
    ops->scale(a, -1.5f, n);
    truth->scale(c, -1.5f, n);
    assert_near(a, c, n, 1e-6);
}

static void test_ops_sums_agree(void **state)
{
    (void)state;
    at_every_level(check_sums);
}

static void check_transpose(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    enum { ROWS = 13, WIDTH = 16 };
    size_t k = n % 90;
    fill(a, ROWS * k, 1);
    memset(b, 0xff, sizeof b);
    memset(c, 0xff, sizeof c);
    ops->transpose(b, WIDTH, a, k, ROWS, k);
    truth->transpose(c, WIDTH, a, k, ROWS, k);
    assert_memory_equal(b, c, sizeof b);
}

static void test_ops_transpose_agrees(void **state)
{
    (void)state;
    at_every_level(check_transpose);
}

static void test_ops_nan_is_never_lost(void **state)
{
    (void)state;
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        for (size_t at = 0; ops && at < 40; at += 3) {
            fill(a, 40, 1);
            a[at] = NAN;
            assert_true(isnan(ops->logsumexp(a, 40)));
            assert_true(isnan(ops->softmax(a, 40, 1.0f)));
            a[at] = NAN;
            ops->swiglu(b, a, a, 40);
            assert_true(isnan(b[at]));
        }
    }
}

static dure_compute compute(void)
{
    dure_compute made = {.ops = dure_cpu_ops_of(dure_cpu_best())};
    assert_ok(dure_pool_new(&made.pool, 2, 1 << 16));
    return made;
}

/* The slope of sum(c . y) in x[i], by differences. */
static void test_ops_rmsnorm_backward_matches_differences(void **state)
{
    (void)state;
    enum { N = 33 };
    dure_compute on = compute();
    fill(a, N, 1);
    fill(b, N, 1);
    fill(c, N, 1);
    memset(e, 0, sizeof e);
    dure_rmsnorm args = {.x = a, .w = b, .rows = 1, .width = N, .eps = 1e-5f};
    dure_rmsnorm_backward(e, c, &args, &on);
    for (size_t i = 0; i < N; i++) {
        double slope[2];
        for (int side = 0; side < 2; side++) {
            float saved = a[i];
            a[i] += side ? -0x1p-7f : 0x1p-7f;
            dure_rmsnorm_forward(d, &args, &on);
            a[i] = saved;
            slope[side] = 0;
            for (size_t j = 0; j < N; j++)
                slope[side] += (double)c[j] * (double)d[j];
        }
        assert_true(fabs((slope[0] - slope[1]) * 0x1p6 - (double)e[i]) < 1e-3);
    }
    dure_pool_free(&on.pool);
}

static void test_ops_swiglu_backward_matches_differences(void **state)
{
    (void)state;
    enum { N = 20 };
    dure_compute on = compute();
    fill(a, N, 3);
    fill(b, N, 1);
    fill(c, N, 1);
    dure_swiglu_grad grad = {.dgate = d, .dup = e, .dh = c, .gate = a, .up = b, .n = N};
    dure_swiglu_backward(&grad, &on);
    for (size_t i = 0; i < N; i++) {
        float h[2], u[2], saved = a[i], step = 0x1p-7f;
        for (int side = 0; side < 2; side++) {
            a[i] = saved + (side ? -step : step);
            dure_swiglu_forward(f, a, b, N, &on);
            h[side] = f[i];
            a[i] = saved;
            b[i] += side ? -step : step;
            dure_swiglu_forward(f, a, b, N, &on);
            u[side] = f[i];
            b[i] -= side ? -step : step;
        }
        assert_true(fabsf((h[0] - h[1]) / (2 * step) * c[i] - d[i]) < 1e-3f);
        assert_true(fabsf((u[0] - u[1]) / (2 * step) * c[i] - e[i]) < 1e-3f);
    }
    dure_pool_free(&on.pool);
}

static void test_ops_cross_entropy_backward_matches_differences(void **state)
{
    (void)state;
    enum { ROWS = 3, VOCAB = 50, LD = 64 };
    static float logits[ROWS * LD], kept[ROWS * LD];
    const int32_t labels[ROWS] = {0, 17, 49};
    const float weight[ROWS] = {1, 0.5f, 0.25f};
    float nll[ROWS], moved[2][ROWS];
    dure_compute on = compute();
    fill(kept, ROWS * LD, 4);
    dure_cross_entropy args = {
        .logits = logits, .labels = labels, .rows = ROWS, .vocab = VOCAB, .ld = LD};
    memcpy(logits, kept, sizeof kept);
    dure_cross_entropy_backward(nll, &args, weight, &on);
    memcpy(a, logits, sizeof logits);
    for (size_t i = 0; i < VOCAB; i++) {
        for (int side = 0; side < 2; side++) {
            memcpy(logits, kept, sizeof kept);
            for (size_t r = 0; r < ROWS; r++)
                logits[r * LD + i] += side ? -0x1p-5f : 0x1p-5f;
            dure_cross_entropy_forward(moved[side], &args, &on);
        }
        for (size_t r = 0; r < ROWS; r++) {
            float slope = (moved[0][r] - moved[1][r]) * 0x1p4f * weight[r];
            assert_true(fabsf(slope - a[r * LD + i]) < 2e-4f);
        }
    }
    dure_pool_free(&on.pool);
}

/* Three steps of torch.optim.AdamW (PyTorch 2.15, float64): lr 0.01, weight decay 0.1. */
static void test_ops_adamw_matches_pytorch(void **state)
{
    (void)state;
    static const float gradients[3][5] = {{0.1f, -0.2f, 0.3f, 0, 1e-4f},
                                          {-0.5f, 0.25f, 0.125f, 1, 2},
                                          {0.3f, 0.3f, -0.3f, 0.1f, -0.7f}};
    static const double expected[5] = {0.9937458921479091, -1.9909388887722848, 0.4786805623460362,
                                       -0.013793508630439034, 3.2195285283525994};
    float w[5] = {1, -2, 0.5f, 0, 3.25f};
    dure_compute on = compute();
    dure_adamw adam;
    dure_adamw_opts opts = {.learning_rate = 0.01, .weight_decay = 0.1};
    assert_ok(dure_adamw_init(&adam, 5));
    for (int step = 0; step < 3; step++)
        dure_adamw_update(w, &adam, gradients[step], &opts, &on);
    for (int i = 0; i < 5; i++)
        assert_true(fabs((double)w[i] - expected[i]) < 1e-6);
    assert_int_equal(adam.step, 3);
    dure_adamw_fini(&adam);
    dure_sgd_update(w, gradients[0], 5, 0.5, &on);
    assert_true(fabs((double)w[0] - (expected[0] - 0.05)) < 1e-6);
    dure_pool_free(&on.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ops_rmsnorm_agrees),
        cmocka_unit_test(test_ops_swiglu_agrees),
        cmocka_unit_test(test_ops_softmax_agrees),
        cmocka_unit_test(test_ops_sums_agree),
        cmocka_unit_test(test_ops_transpose_agrees),
        cmocka_unit_test(test_ops_nan_is_never_lost),
        cmocka_unit_test(test_ops_rmsnorm_backward_matches_differences),
        cmocka_unit_test(test_ops_swiglu_backward_matches_differences),
        cmocka_unit_test(test_ops_cross_entropy_backward_matches_differences),
        cmocka_unit_test(test_ops_adamw_matches_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
