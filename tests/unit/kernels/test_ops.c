/* The row kernels at every level of the CPU against plain C, and each backward against
 * differences of its forward. */
#include "kernels/cross_entropy.h"
#include "kernels/optimizer.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"
#include "support/check.h"

#include <math.h>
#include <string.h>

enum { MOST = 3016 }; /* the longest, and room to see that nothing behind it is touched */
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

/* How far a level's activations may be from the number meant: one rounding to 8 bits. */
static double act_error(const dure_cpu_ops *ops)
{
    return ops->act_bytes == 2 ? 0x1p-8 : 0;
}

/* x as activations of the level; x becomes what they hold. */
static void *hold(float *x, void *acts, size_t n, const dure_cpu_ops *ops)
{
    ops->store(acts, x, n, 1.0f);
    ops->load(x, acts, n);
    return acts;
}

typedef void check_ops(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n);

static void at_every_level(check_ops *check)
{
    for (int level = DURE_CPU_PORTABLE; level <= DURE_CPU_AVX512_BF16; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        for (size_t i = 0; ops && i < N_LENGTHS; i++)
            check(ops, dure_cpu_ops_of(DURE_CPU_REFERENCE), lengths[i]);
    }
}

static float a[MOST], b[MOST], c[MOST], d[MOST], e[MOST], f[MOST], g[MOST];
/* The same as activations. */
static float acts_a[MOST], acts_b[MOST], acts_c[MOST];

static void check_acts(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    (void)truth;
    fill(a, n, 3);
    memset(acts_a, 0, sizeof acts_a);
    ops->store(acts_a, a, n, 2.0f);
    ops->load(d, acts_a, n);
    for (size_t i = 0; i < n; i++)
        assert_true(fabs((double)d[i] - 2 * (double)a[i]) <=
                    act_error(ops) * 2 * fabs((double)a[i]));
    /* What lies behind the last one is not touched. */
    const unsigned char *after = dure_act_in(ops, acts_a, n);
    for (size_t i = 0; i < 2 * ops->act_bytes; i++)
        assert_int_equal(after[i], 0);
    ops->scale_acts(acts_a, 0.5f, n);
    ops->load(e, acts_a, n);
    for (size_t i = 0; i < n; i++)
        assert_true(e[i] == d[i] / 2);
    hold(a, acts_a, n, ops);
    fill(b, n, 1);
    hold(b, acts_b, n, ops);
    assert_true(fabsf(ops->dot_acts(acts_a, acts_b, n) - truth->dot(a, b, n)) <= 3e-5f * (float)n);
}

static void test_ops_activations_hold_their_numbers(void **state)
{
    (void)state;
    at_every_level(check_acts);
}

static void check_norm(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    fill(a, n, 3);
    fill(b, n, 1);
    fill(c, n, 1);
    assert_true(fabsf(ops->dot(a, b, n) - truth->dot(a, b, n)) <= 1e-5f * (float)n);
    ops->rmsnorm(acts_a, acts_b, a, b, n, 1e-5f);
    ops->load(d, acts_a, n);
    truth->rmsnorm(e, f, a, b, n, 1e-5f);
    assert_near(d, e, n, 1e-6 + act_error(ops));
    memcpy(g, a, sizeof g);
    ops->norm(g, acts_c, g, b, n, 1e-5f); /* in place */
    assert_near(g, e, n, 1e-6);
    assert_memory_equal(acts_c, acts_b, n * ops->act_bytes);
    ops->load(a, acts_b, n); /* what was kept */
    assert_near(a, f, n, act_error(ops));
    ops->rmsnorm_again(acts_a, acts_b, b, n, 1e-5f);
    ops->load(d, acts_a, n);
    truth->rmsnorm_again(e, a, b, n, 1e-5f);
    assert_near(d, e, n, 1e-6 + act_error(ops));
    memset(d, 0, sizeof d);
    memset(e, 0, sizeof e);
    ops->rmsnorm_backward(d, acts_c, c, acts_b, b, n, 1e-5f);
    truth->rmsnorm_backward(e, NULL, c, a, b, n, 1e-5f);
    /* With one element the exact gradient nearly vanishes, so only its size is compared. */
    assert_near(d, e, n, n == 1 ? 2 : 2e-6);
    ops->load(f, acts_c, n);
    assert_near(f, d, n, act_error(ops));
}

static void test_ops_rmsnorm_agrees(void **state)
{
    (void)state;
    at_every_level(check_norm);
}

/* silu, or gelu, for the gate. */
static void check_gated(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n, bool gelu)
{
    fill(a, n, gelu ? 6 : 20);
    fill(b, n, 2);
    fill(c, n, 1);
    hold(a, acts_a, n, ops);
    hold(b, acts_b, n, ops);
    (gelu ? ops->geglu : ops->swiglu)(acts_c, acts_a, acts_b, n);
    ops->load(d, acts_c, n);
    (gelu ? truth->geglu : truth->swiglu)(e, a, b, n);
    assert_near(d, e, n, 1e-6 + act_error(ops));
    memset(acts_c, 0, sizeof acts_c);
    (gelu ? ops->geglu_backward : ops->swiglu_backward)(acts_c, acts_a, acts_b, c, n);
    (gelu ? truth->geglu_backward : truth->swiglu_backward)(g, a, b, c, n);
    ops->load(d, acts_c, n);
    assert_near(d, e, n, 1e-6 + act_error(ops));
    ops->load(d, acts_a, n);
    assert_near(d, a, n, 2e-6 + act_error(ops));
    ops->load(d, acts_b, n);
    assert_near(d, b, n, 2e-6 + act_error(ops));
}

static void check_swiglu(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    check_gated(ops, truth, n, false);
    check_gated(ops, truth, n, true);
}

static void test_ops_swiglu_agrees(void **state)
{
    (void)state;
    at_every_level(check_swiglu);
}

static void check_softmax(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    enum { PAD = 1 };
    fill(a, n, 30);
    memcpy(b, a, sizeof a);
    memcpy(c, a, sizeof a);
    float lse = ops->softmax(acts_a, a, n, n + PAD, 0.5f);
    float expected = truth->softmax(e, b, n, n + PAD, 0.5f);
    assert_true(fabsf(lse - expected) <= 4e-6f * (1 + fabsf(expected)));
    ops->load(d, acts_a, n + PAD);
    assert_near(d, e, n + PAD, 5e-6 + act_error(ops));
    assert_true(d[n] == 0);
    fill(f, n, 1);
    dure_score_row row = {
        .s = c, .dp = f, .seen = n, .padded = n + PAD, .scale = 0.5f, .lse = expected, .d = 0.25f};
    ops->softmax_backward(acts_a, acts_b, &row);
    truth->softmax_backward(d, g, &row);
    ops->load(a, acts_a, n + PAD);
    ops->load(b, acts_b, n + PAD);
    assert_near(a, d, n + PAD, 5e-6 + act_error(ops));
    assert_near(b, g, n + PAD, 5e-6 + act_error(ops));
    assert_true(a[n] == 0 && b[n] == 0);
}

static void test_ops_softmax_agrees(void **state)
{
    (void)state;
    at_every_level(check_softmax);
}

static void check_exp_part(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    float max, truth_max;
    fill(a, n, 30);
    float sum = ops->exp_part(acts_a, &max, a, n);
    float truth_sum = truth->exp_part(e, &truth_max, a, n);
    assert_true(max == truth_max && fabsf(sum - truth_sum) < 5e-6f * truth_sum);
    ops->load(d, acts_a, n);
    assert_near(d, e, n, 5e-6 + act_error(ops));
}

static void test_ops_exp_part_agrees(void **state)
{
    (void)state;
    at_every_level(check_exp_part);
}

static void check_rotate(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    n = n / 2 * 2;
    fill(a, n, 1);
    fill(b, n, 1);
    memcpy(c, a, sizeof a);
    ops->rotate(a, b, n, -1.0f);
    truth->rotate(c, b, n, -1.0f);
    assert_near(a, c, n, 1e-6);
    ops->rotate_halves(a, b, n, -1.0f);
    truth->rotate_halves(c, b, n, -1.0f);
    assert_near(a, c, n, 2e-6);
}

static void test_ops_rotate_agrees(void **state)
{
    (void)state;
    at_every_level(check_rotate);
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

/* Element (k, j) of panels. */
static float panel_at(const dure_cpu_ops *ops, dure_panels p, size_t k, size_t j)
{
    float x;
    size_t w = ops->width, group = ops->group;
    size_t at = j / w * p.panel + k / group * w * group + j % w * group + k % group;
    ops->load(&x, dure_act_in(ops, p.at, at), 1);
    return x;
}

/* Panels of x[n x k] turned and of x[k x n], from both kinds of numbers. */
static void check_panels(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    enum { K = 35 };
    (void)truth;
    n = n % 50 + 1;
    size_t panel = dure_round_up(K, ops->group) * ops->width;
    fill(a, n * K, 1);
    hold(a, acts_a, n * K, ops);
    for (int kind = 0; kind < 4; kind++) {
        bool turned = kind % 2, floats = kind / 2;
        dure_pack p = {
            .to = {acts_b, panel}, .x = floats ? a : acts_a, .ld = turned ? K : n, .n = n, .k = K};
        memset(acts_b, 0xff, sizeof acts_b);
        if (floats)
            (turned ? ops->pack_nt_f32 : ops->pack_nn_f32)(&p);
        else
            (turned ? ops->pack_nt : ops->pack_nn)(&p);
        for (size_t j = 0; j < dure_round_up(n, ops->width); j++)
            for (size_t k = 0; k < dure_round_up(K, ops->group); k++) {
                float expected = j < n && k < K ? a[turned ? j * K + k : k * n + j] : 0;
                assert_true(panel_at(ops, p.to, k, j) == expected);
            }
    }
}

static void test_ops_panels_hold_the_matrix(void **state)
{
    (void)state;
    at_every_level(check_panels);
}

static void check_dots(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    enum { ROWS = 8, COLUMNS = 8, MOST_K = 300 };
    size_t k = n % MOST_K;
    float x[ROWS * COLUMNS], y[ROWS * COLUMNS];
    fill(a, ROWS * k, 1);
    fill(b, COLUMNS * k, 1);
    hold(a, acts_a, ROWS * k, ops);
    hold(b, acts_b, COLUMNS * k, ops);
    dure_dots some = {.c = x,
                      .ldc = COLUMNS,
                      .x = acts_a,
                      .ldx = k,
                      .y = acts_b,
                      .ldy = k,
                      .m = ROWS,
                      .n = COLUMNS,
                      .k = k};
    ops->dots(&some);
    dure_dots same = some;
    same.c = y;
    same.x = a;
    same.y = b;
    truth->dots(&same);
    for (size_t i = 0; i < ROWS * COLUMNS; i++)
        assert_true(fabsf(x[i] - y[i]) <= 1e-6f * (float)k);
    /* A row alone. */
    some.c = y;
    some.x = dure_act_in(ops, acts_a, 5 * k);
    some.m = 1;
    ops->dots(&some);
    assert_memory_equal(y, x + 5 * COLUMNS, COLUMNS * sizeof *y);
}

static void test_ops_dots_agree(void **state)
{
    (void)state;
    at_every_level(check_dots);
}

static void test_ops_repacked_panels_are_the_turned_matrix(void **state)
{
    (void)state;
    enum { OUT = 32, IN = 48, COLUMN = 16, N = 32 };
    const dure_cpu_ops *ops = dure_cpu_ops_of(DURE_CPU_AVX512_BF16);
    if (!ops) skip();
    fill(a, OUT * IN, 1);
    hold(a, acts_a, OUT * IN, ops);
    dure_panels from = {acts_b, IN * ops->width}, to = {acts_c, OUT * ops->width};
    ops->pack_nt(&(dure_pack){.to = from, .x = acts_a, .ld = IN, .n = OUT, .k = IN});
    ops->repack(to, from, COLUMN, N, OUT);
    for (size_t j = 0; j < N; j++)
        for (size_t k = 0; k < OUT; k++)
            assert_true(panel_at(ops, to, k, j) == a[k * IN + COLUMN + j]);
}

static void test_ops_nan_is_never_lost(void **state)
{
    (void)state;
    for (int level = DURE_CPU_REFERENCE; level <= DURE_CPU_AVX512_BF16; level++) {
        const dure_cpu_ops *ops = dure_cpu_ops_of((dure_cpu_level)level);
        for (size_t at = 0; ops && at < 40; at += 3) {
            float max;
            fill(a, 40, 1);
            a[at] = NAN;
            assert_true(isnan(ops->exp_part(acts_a, &max, a, 40)));
            assert_true(isnan(ops->softmax(acts_a, a, 40, 40, 1.0f)));
            fill(a, 40, 1);
            a[at] = NAN;
            ops->store(acts_a, a, 40, 1.0f);
            ops->swiglu(acts_b, acts_a, acts_a, 40);
            ops->load(b, acts_b, 40);
            assert_true(isnan(b[at]));
        }
    }
}

static dure_compute compute(void)
{
    dure_compute made = {.ops = dure_cpu_ops_of(dure_cpu_best_up_to(DURE_CPU_AVX512))};
    assert_ok(dure_pool_new(&made.pool, 2, 1 << 16));
    return made;
}

/* The slope of sum(c . y) in x[i], by differences; in float32, where differences show it. */
static void test_ops_rmsnorm_backward_matches_differences(void **state)
{
    (void)state;
    enum { N = 33 };
    dure_compute on = compute();
    fill(a, N, 1);
    fill(b, N, 1);
    fill(c, N, 1);
    memset(e, 0, sizeof e);
    dure_rmsnorm args = {.w = b, .rows = 1, .width = N, .eps = 1e-5f};
    dure_rmsnorm_backward(e, NULL, c, a, &args, &on);
    for (size_t i = 0; i < N; i++) {
        double slope[2];
        for (int side = 0; side < 2; side++) {
            float saved = a[i];
            a[i] += side ? -0x1p-7f : 0x1p-7f;
            dure_rmsnorm_forward(d, NULL, a, &args, &on);
            a[i] = saved;
            slope[side] = 0;
            for (size_t j = 0; j < N; j++)
                slope[side] += (double)c[j] * (double)d[j];
        }
        assert_true(fabs((slope[0] - slope[1]) * 0x1p6 - (double)e[i]) < 1e-3);
    }
    dure_pool_free(&on.pool);
}

static void check_gate_slopes(dure_activation of_gate)
{
    enum { N = 20 };
    dure_compute on = compute();
    fill(a, N, 3);
    fill(b, N, 1);
    fill(c, N, 1);
    memcpy(d, a, sizeof d);
    memcpy(e, b, sizeof e);
    dure_swiglu_grad grad = {.h = f, .gate = d, .up = e, .width = N, .of_gate = of_gate};
    dure_sums dh = {.at = c, .ld = N, .rows = 1, .columns = N};
    dure_finish_swiglu_backward(&grad, &dh, on.ops);
    const dure_swiglu forward = {.h = f, .gate = a, .up = b, .n = N, .of_gate = of_gate};
    for (size_t i = 0; i < N; i++) {
        float h[2], u[2], saved = a[i], step = 0x1p-7f;
        for (int side = 0; side < 2; side++) {
            a[i] = saved + (side ? -step : step);
            dure_swiglu_forward(&forward, &on);
            h[side] = f[i];
            a[i] = saved;
            b[i] += side ? -step : step;
            dure_swiglu_forward(&forward, &on);
            u[side] = f[i];
            b[i] -= side ? -step : step;
        }
        assert_true(fabsf((h[0] - h[1]) / (2 * step) * c[i] - d[i]) < 1e-3f);
        assert_true(fabsf((u[0] - u[1]) / (2 * step) * c[i] - e[i]) < 1e-3f);
    }
    dure_pool_free(&on.pool);
}

static void test_ops_swiglu_backward_matches_differences(void **state)
{
    (void)state;
    check_gate_slopes(DURE_ACTIVATION_SILU);
    check_gate_slopes(DURE_ACTIVATION_GELU);
}

/* torch.nn.functional.gelu(x, approximate="tanh") in float64, PyTorch 2.15. */
static void test_ops_gelu_matches_pytorch(void **state)
{
    (void)state;
    static const float x[6] = {-4, -1, -0.25f, 0, 0.5f, 3};
    static const double expected[6] = {-7.02459481922713e-05, -0.158808009391723,
                                       -0.100324649298315,    0,
                                       0.345714009825144,     2.99636260791823};
    const float ones[6] = {1, 1, 1, 1, 1, 1};
    dure_compute on = compute();
    const dure_swiglu args = {
        .h = f, .gate = x, .up = ones, .n = 6, .of_gate = DURE_ACTIVATION_GELU};
    dure_swiglu_forward(&args, &on);
    for (int i = 0; i < 6; i++)
        assert_true(fabs((double)f[i] - expected[i]) < 1e-6);
    dure_pool_free(&on.pool);
}

static void test_ops_rmsnorm_add_adds_the_norm(void **state)
{
    (void)state;
    enum { ROWS = 3, WIDTH = 40, N = ROWS * WIDTH };
    dure_compute on = compute();
    fill(a, N, 2);
    fill(b, WIDTH, 1);
    fill(c, N, 1);
    memcpy(d, a, sizeof d);
    memcpy(e, c, sizeof e);
    const dure_rmsnorm args = {.w = b, .rows = ROWS, .width = WIDTH, .eps = 1e-5f};
    dure_rmsnorm_add(e, g, d, &args, &on);
    dure_rmsnorm_forward(f, NULL, a, &args, &on);
    for (size_t i = 0; i < N; i++)
        assert_true(fabsf(e[i] - c[i] - f[i]) < 1e-6f);
    assert_memory_equal(g, a, N * sizeof *g); /* kept */
    dure_pool_free(&on.pool);
}

enum { CE_ROWS = 3, CE_VOCAB = 300, CE_LD = 320 };

/* nll of the logits, and their gradient in p unless `weight` is NULL, by blocks as they come. */
static void cross_entropy(float *nll, float *p, float *logits, const float *weight,
                          const dure_compute *on)
{
    const int32_t labels[CE_ROWS] = {0, 17, 299};
    float max[CE_ROWS * 3], sum[CE_ROWS * 3], at_label[CE_ROWS];
    assert_int_equal(dure_cross_entropy_blocks(CE_VOCAB), 3);
    dure_cross_entropy args = {.labels = labels,
                               .rows = CE_ROWS,
                               .vocab = CE_VOCAB,
                               .p = p,
                               .ld = CE_LD,
                               .max = max,
                               .sum = sum,
                               .at_label = at_label};
    for (size_t j = 0; j < CE_VOCAB; j += 256)
        dure_finish_cross_entropy(&args,
                                  &(dure_sums){.at = logits + j,
                                               .ld = CE_LD,
                                               .rows = CE_ROWS,
                                               .column = j,
                                               .columns = CE_VOCAB - j < 256 ? CE_VOCAB - j : 256},
                                  on->ops);
    dure_cross_entropy_end(nll, &args, weight, on);
}

static void test_ops_cross_entropy_backward_matches_differences(void **state)
{
    (void)state;
    static float logits[CE_ROWS * CE_LD], p[CE_ROWS * CE_LD], unused[CE_ROWS * CE_LD];
    const float weight[CE_ROWS] = {1, 0.5f, 0.25f};
    float nll[CE_ROWS], moved[2][CE_ROWS];
    dure_compute on = compute();
    fill(logits, CE_ROWS * CE_LD, 4);
    cross_entropy(nll, p, logits, weight, &on);
    for (size_t i = 0; i < CE_VOCAB; i++) {
        for (int side = 0; side < 2; side++) {
            for (size_t r = 0; r < CE_ROWS; r++)
                logits[r * CE_LD + i] += side ? -0x1p-5f : 0x1p-5f;
            cross_entropy(moved[side], unused, logits, NULL, &on);
            for (size_t r = 0; r < CE_ROWS; r++)
                logits[r * CE_LD + i] -= side ? -0x1p-5f : 0x1p-5f;
        }
        for (size_t r = 0; r < CE_ROWS; r++) {
            float slope = (moved[0][r] - moved[1][r]) * 0x1p4f * weight[r];
            assert_true(fabsf(slope - p[r * CE_LD + i]) < 2e-4f);
        }
    }
    dure_pool_free(&on.pool);
}

/* A label that is all but certain: p - 1 keeps its digits although p is rounded to eight bits. */
static void test_ops_cross_entropy_near_certainty(void **state)
{
    (void)state;
    static float logits[CE_ROWS * CE_LD], p[CE_ROWS * CE_LD];
    const float weight[CE_ROWS] = {1, 1, 1};
    float nll[CE_ROWS], got;
    dure_compute on = compute();
    on.ops = dure_cpu_ops_of(dure_cpu_best());
    memset(logits, 0, sizeof logits);
    logits[CE_LD + 17] = 12;
    cross_entropy(nll, p, logits, weight, &on);
    double rest = 299 * exp(-12.0), expected = -rest / (1 + rest);
    on.ops->load(&got, dure_act_in(on.ops, p, CE_LD + 17), 1);
    assert_true(fabs((double)got - expected) < 0x1p-7 * fabs(expected));
    /* The lane of sums that holds the 1 is rounded to 2^-24 with each of its additions. */
    double additions = (double)(DURE_CROSS_ENTROPY_BLOCK / on.ops->width) + 1;
    assert_true(fabs((double)nll[1] - log1p(rest)) < additions * 0x1p-24);
    dure_pool_free(&on.pool);
}

/* Every level drops what the definition says, from whatever column on, and touches nothing behind;
 * the mask keeps about the share it is asked for. */
static void check_drop(const dure_cpu_ops *ops, const dure_cpu_ops *truth, size_t n)
{
    const dure_drop mask = {.key = 0x1234567 + n, .threshold = 16384}, none = {.key = n};
    size_t column = n % 24 / 4 * 4, kept = 0;
    fill(a, n, 3);
    hold(a, acts_a, n, ops);
    memset(acts_b, 1, sizeof acts_b);
    ops->drop(acts_b, acts_a, n, &mask);
    ops->load(d, acts_b, n);
    truth->drop(e, a, n, &mask);
    assert_memory_equal(d, e, n * sizeof *d);
    for (size_t i = 0; i < n; i++)
        kept += d[i] != 0;
    assert_true(fabs((double)kept - 0.75 * (double)n) <= 5 * sqrt((double)n) / 2 + 1);
    const unsigned char *after = dure_act_in(ops, acts_b, n);
    for (size_t i = 0; i < 2 * ops->act_bytes; i++)
        assert_int_equal(after[i], 1);
    ops->drop(acts_b, acts_a, n, &none);
    assert_memory_equal(acts_b, acts_a, n * ops->act_bytes);
    fill(b, n, 1);
    memcpy(c, b, sizeof c);
    ops->add_kept(b, a, column, n, &mask);
    truth->add_kept(c, a, column, n, &mask);
    assert_memory_equal(b, c, n * sizeof *b);
    for (size_t i = 0; column == 0 && i < n; i++) /* the same mask as drop()'s */
        assert_true(dure_drop_keeps(&mask, i) == (d[i] != 0));
}

static void test_ops_dropout_is_the_same_everywhere(void **state)
{
    (void)state;
    at_every_level(check_drop);
    /* What SplitMix64 with the seed 1234567 gives first (its authors' own program). */
    assert_true(dure_drop_mix(1234567 + DURE_DROP_STEP) == UINT64_C(6457827717110365317));
    assert_true(dure_drop_mix(1234567 + 2 * DURE_DROP_STEP) == UINT64_C(3203168211198807973));
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
        cmocka_unit_test(test_ops_activations_hold_their_numbers),
        cmocka_unit_test(test_ops_rmsnorm_agrees),
        cmocka_unit_test(test_ops_swiglu_agrees),
        cmocka_unit_test(test_ops_softmax_agrees),
        cmocka_unit_test(test_ops_exp_part_agrees),
        cmocka_unit_test(test_ops_rotate_agrees),
        cmocka_unit_test(test_ops_sums_agree),
        cmocka_unit_test(test_ops_transpose_agrees),
        cmocka_unit_test(test_ops_dots_agree),
        cmocka_unit_test(test_ops_panels_hold_the_matrix),
        cmocka_unit_test(test_ops_repacked_panels_are_the_turned_matrix),
        cmocka_unit_test(test_ops_nan_is_never_lost),
        cmocka_unit_test(test_ops_rmsnorm_backward_matches_differences),
        cmocka_unit_test(test_ops_swiglu_backward_matches_differences),
        cmocka_unit_test(test_ops_gelu_matches_pytorch),
        cmocka_unit_test(test_ops_rmsnorm_add_adds_the_norm),
        cmocka_unit_test(test_ops_cross_entropy_backward_matches_differences),
        cmocka_unit_test(test_ops_cross_entropy_near_certainty),
        cmocka_unit_test(test_ops_dropout_is_the_same_everywhere),
        cmocka_unit_test(test_ops_adamw_matches_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
