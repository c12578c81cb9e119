/* A GPU's clip against the host's, dp/quantize.h: the same bits of every norm, integer and verdict,
 * with the order of blocks and threads reversed too. */
#include "dp/quantize.h"
#include "kernels/cuda/clip.h"
#include "support/check.h"
#include "support/gpu.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DOCS = 7 };

static dure_device *gpu;
static uint64_t state_of_rng = 9;

static double uniform(void)
{
    state_of_rng = state_of_rng * 6364136223846793005u + 1442695040888963407u;
    return (double)(state_of_rng >> 11) * 0x1p-52 - 1;
}

static dure_dp_plan plan_of(size_t n, double clip)
{
    dure_dp_plan plan = {.clip = clip};
    assert_ok(dure_dp_grid_bits(&plan.grid_bits, n, NULL));
    return plan;
}

typedef struct batch {
    size_t n;
    float *gradients; /* DOCS x n */
    int64_t *before, *sum;
    dure_cuda_clipped clipped[DOCS];
} batch;

/* Gradients far below the clip and far above it, of numbers of every size. */
static batch new_batch(size_t n, double clip)
{
    batch b = {.n = n};
    b.gradients = malloc(DOCS * n * sizeof *b.gradients);
    b.before = malloc(n * sizeof *b.before);
    b.sum = malloc(n * sizeof *b.sum);
    assert_true(b.gradients && b.before && b.sum);
    for (size_t d = 0; d < DOCS; d++)
        for (size_t i = 0; i < n; i++)
            b.gradients[d * n + i] = (float)(uniform() * clip * ldexp(1, (int)d * 4 - 14) /
                                             sqrt((double)n) * (i % 13 ? 1 : 1e-30));
    for (size_t i = 0; i < n; i++)
        b.before[i] = (int64_t)(uniform() * 0x1p40);
    return b;
}

static void free_batch(batch *b)
{
    free(b->gradients);
    free(b->before);
    free(b->sum);
}

static void clip_on_gpu(batch *b, const dure_dp_plan *plan, uint64_t squares_most)
{
    const dure_quantize_bounds bounds = dure_quantize_bounds_of(b->n, plan);
    dure_cuda_clip args = {.n = b->n,
                           .stride = b->n,
                           .n_docs = DOCS,
                           .per_unit = bounds.per_unit,
                           .norm_most = bounds.norm_most,
                           .squares_most = squares_most};
    void *sum = gpu_new(gpu, b->before, b->n * sizeof *b->sum);
    void *gradients = gpu_new(gpu, b->gradients, DOCS * b->n * sizeof *b->gradients);
    void *clipped = gpu_new(gpu, NULL, sizeof b->clipped);
    void *room = gpu_new(gpu, NULL, dure_cuda_clip_room(b->n, DOCS));
    args.sum = sum, args.gradients = gradients, args.clipped = clipped, args.room = room;
    dure_cuda_clip_run(gpu, &args);
    gpu_read(b->sum, gpu, sum, b->n * sizeof *b->sum);
    gpu_read(b->clipped, gpu, clipped, sizeof b->clipped);
    dure_device_free(gpu, sum);
    dure_device_free(gpu, gradients);
    dure_device_free(gpu, clipped);
    dure_device_free(gpu, room);
}

static uint64_t squares_of(const int32_t *q, size_t n)
{
    uint64_t squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (uint64_t)((int64_t)q[i] * q[i]);
    return squares;
}

static double norm_square_of(const float *gradient, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i += DURE_QUANTIZE_PIECE)
        sum += dure_quantize_square(gradient + i,
                                    n - i < DURE_QUANTIZE_PIECE ? n - i : DURE_QUANTIZE_PIECE);
    return sum;
}

/* Documents with more squares than squares_most give nothing; returns how many were added. */
static int check(const batch *b, const dure_dp_plan *plan, uint64_t squares_most)
{
    int64_t *expected = malloc(b->n * sizeof *expected);
    int32_t *q = malloc(b->n * sizeof *q);
    int n_added = 0;
    assert_true(expected && q);
    memcpy(expected, b->before, b->n * sizeof *expected);
    for (size_t d = 0; d < DOCS; d++) {
        const float *gradient = b->gradients + d * b->n;
        bool added = dure_quantize(q, gradient, b->n, plan) && squares_of(q, b->n) <= squares_most;
        for (size_t i = 0; added && i < b->n; i++)
            expected[i] += q[i];
        assert_int_equal(b->clipped[d].added, added);
        double norm_square = norm_square_of(gradient, b->n);
        if (isnan(norm_square)) /* of which there are many */
            assert_true(isnan(b->clipped[d].norm_square));
        else
            assert_memory_equal(&b->clipped[d].norm_square, &norm_square, sizeof norm_square);
        n_added += added;
    }
    assert_memory_equal(b->sum, expected, b->n * sizeof *expected);
    free(expected);
    free(q);
    return n_added;
}

static const size_t lengths[] = {1,    2,     7,     8,     9,      255,   2047,
                                 2049, 65535, 65536, 65537, 131073, 150001};

static void test_cuda_clip_gives_the_bits_of_the_host(void **state)
{
    (void)state;
    static const double clips[] = {1, 0.37, 1e-6, 2500};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        const double clip = clips[l % 4];
        const dure_dp_plan plan = plan_of(lengths[l], clip);
        const uint64_t most = dure_quantize_bounds_of(lengths[l], &plan).squares_most;
        batch b = new_batch(lengths[l], clip);
        gpu_reverse(l % 2);
        clip_on_gpu(&b, &plan, most);
        assert_int_equal(check(&b, &plan, most), DOCS);
        gpu_reverse(false);
        free_batch(&b);
    }
}

/* Some of the lengths are clipped, some are not: or the test above would be of one branch alone. */
static void test_cuda_clip_scales_what_is_too_long_and_nothing_else(void **state)
{
    (void)state;
    const size_t n = 5000;
    const dure_dp_plan plan = plan_of(n, 1);
    batch b = new_batch(n, 1);
    clip_on_gpu(&b, &plan, UINT64_MAX);
    int scaled = 0;
    for (size_t d = 0; d < DOCS; d++)
        scaled += b.clipped[d].scale < dure_quantize_bounds_of(n, &plan).per_unit;
    assert_true(scaled > 0 && scaled < DOCS);
    free_batch(&b);
}

static void test_cuda_clip_leaves_out_what_is_not_finite(void **state)
{
    (void)state;
    const size_t n = 70000;
    const dure_dp_plan plan = plan_of(n, 1);
    const uint64_t most = dure_quantize_bounds_of(n, &plan).squares_most;
    batch b = new_batch(n, 1);
    b.gradients[0 * n + 3] = NAN;
    b.gradients[2 * n + n - 1] = INFINITY;
    b.gradients[3 * n + 65536] = -INFINITY;
    b.gradients[3 * n + 1] = INFINITY;
    for (size_t i = 0; i < n; i++)
        b.gradients[5 * n + i] = 3.4e38f; /* as large as floats are, and finite */
    clip_on_gpu(&b, &plan, most);
    assert_int_equal(check(&b, &plan, most), DOCS - 3);
    free_batch(&b);
}

/* The check in integers by itself: a record that fails it is taken back whole. */
static void test_cuda_clip_takes_back_what_does_not_fit(void **state)
{
    (void)state;
    const size_t n = 4500;
    const dure_dp_plan plan = plan_of(n, 1);
    batch b = new_batch(n, 1);
    const uint64_t most = dure_quantize_bounds_of(n, &plan).squares_most / 1000;
    clip_on_gpu(&b, &plan, most);
    int added = check(&b, &plan, most);
    assert_true(added > 0 && added < DOCS);
    free_batch(&b);
}

int main(void)
{
    gpu = gpu_open();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_clip_gives_the_bits_of_the_host),
        cmocka_unit_test(test_cuda_clip_scales_what_is_too_long_and_nothing_else),
        cmocka_unit_test(test_cuda_clip_leaves_out_what_is_not_finite),
        cmocka_unit_test(test_cuda_clip_takes_back_what_does_not_fit),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    dure_device_close(&gpu);
    return failed;
}
