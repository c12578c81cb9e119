/* Attention on a GPU against plain C, forward and backward: documents of many lengths, grouped
 * queries, windows, and heads of every width that a model has. */
#include "kernels/attention.h"
#include "kernels/cuda/attention.h"
#include "support/check.h"
#include "support/gpu.h"

#include <stdlib.h>
#include <string.h>

enum { DOCS = 4, ROWS = 1 + 33 + 70 + 16 };
static const size_t lengths[DOCS] = {1, 33, 70, 16};

typedef struct kind {
    uint32_t heads, heads_kv, dim, window;
} kind;

static dure_device *gpu;

typedef struct results {
    float *out, *lse, *dq, *dk, *dv;
} results;

static results results_new(const kind *k)
{
    size_t q = ROWS * (size_t)k->heads * k->dim, kv = ROWS * (size_t)k->heads_kv * k->dim;
    return (results){gpu_floats(q, 0), gpu_floats(ROWS * k->heads, 0), gpu_floats(q, 0),
                     gpu_floats(kv, 0), gpu_floats(kv, 0)};
}

static void results_free(results *r)
{
    free(r->out), free(r->lse), free(r->dq), free(r->dk), free(r->dv);
}

/* The heads of q and k as the way back of the reference wants them: nothing is done to them. */
static void run_cpu(results *to, const kind *k, const float *q, const float *kv, const float *dout)
{
    dure_compute c = {.ops = dure_cpu_ops_of(DURE_CPU_REFERENCE)};
    size_t width = (size_t)k->heads * k->dim, width_kv = (size_t)k->heads_kv * k->dim;
    const float *v = kv + ROWS * width_kv;
    dure_attention_doc docs[DOCS];
    size_t row = 0;
    for (size_t d = 0; d < DOCS; row += lengths[d++])
        docs[d] = (dure_attention_doc){.first = row,
                                       .n = lengths[d],
                                       .n_keys = lengths[d],
                                       .k = kv + row * width_kv,
                                       .v = v + row * width_kv};
    assert_ok(dure_pool_new(&c.pool, 1, dure_attention_scratch_bytes(ROWS, k->dim, c.ops)));
    void *packed = malloc(dure_attention_packed_bytes(ROWS, DOCS, k->heads_kv, k->dim, c.ops));
    dure_attention args = {.docs = docs,
                           .n_docs = DOCS,
                           .q = q,
                           .ldq = width,
                           .ldk = width_kv,
                           .ldv = width_kv,
                           .heads = k->heads,
                           .heads_kv = k->heads_kv,
                           .dim = k->dim,
                           .window = k->window,
                           .scale = 0.3f,
                           .packed = packed};
    dure_heads plain = {.dim = k->dim};
    dure_attention_grad grad = {.args = &args,
                                .out = to->out,
                                .dout = dout,
                                .lse = to->lse,
                                .dq = to->dq,
                                .dk = to->dk,
                                .dv = to->dv,
                                .heads_q = &plain,
                                .heads_k = &plain};
    dure_attention_forward(to->out, to->lse, &args, &c);
    dure_attention_backward(&grad, &c);
    dure_pool_free(&c.pool);
    free(packed);
}

static size_t cut(dure_cuda_tile *tiles, uint32_t dim)
{
    size_t n = 0, row = 0, height = dure_cuda_tile_rows(dim);
    for (size_t d = 0; d < DOCS; row += lengths[d++])
        for (size_t at = 0; at < lengths[d]; at += height) {
            size_t left = lengths[d] - at;
            tiles[n++] = (dure_cuda_tile){.row = (int32_t)(row + at),
                                          .n = (int32_t)(left < height ? left : height),
                                          .first = (int32_t)row,
                                          .end = (int32_t)(row + lengths[d])};
        }
    return n;
}

/* q, k and v of `rows` rows beside each other, and room for what comes out. */
static dure_cuda_attention arguments(const kind *k, const float *qkv, size_t rows,
                                     const dure_cuda_tile *tiles, size_t n_tiles)
{
    size_t width = (size_t)k->heads * k->dim, width_kv = (size_t)k->heads_kv * k->dim;
    size_t ld = width + 2 * width_kv;
    uint16_t *at = gpu_new_bf16(gpu, qkv, rows * ld);
    return (dure_cuda_attention){.tiles = gpu_new(gpu, tiles, n_tiles * sizeof *tiles),
                                 .n_tiles = n_tiles,
                                 .rows = rows,
                                 .q = at,
                                 .k = at + width,
                                 .v = at + width + width_kv,
                                 .ld = ld,
                                 .heads = k->heads,
                                 .heads_kv = k->heads_kv,
                                 .dim = k->dim,
                                 .window = k->window,
                                 .scale = 0.3f,
                                 .out = gpu_new(gpu, NULL, 2 * rows * width),
                                 .lse = gpu_new(gpu, NULL, 4 * rows * k->heads)};
}

static void run_gpu(results *to, const kind *k, const float *q, const float *kv, const float *dout)
{
    size_t width = (size_t)k->heads * k->dim, width_kv = (size_t)k->heads_kv * k->dim;
    size_t ld = width + 2 * width_kv, n = ROWS * width, n_kv = ROWS * width_kv;
    dure_cuda_tile tiles[ROWS];
    float *all = gpu_floats(ROWS * ld, 0), *grads = gpu_floats(ROWS * ld, 0);
    for (size_t r = 0; r < ROWS; r++) {
        memcpy(all + r * ld, q + r * width, width * 4);
        memcpy(all + r * ld + width, kv + r * width_kv, width_kv * 4);
        memcpy(all + r * ld + width + width_kv, kv + n_kv + r * width_kv, width_kv * 4);
    }
    dure_cuda_attention args = arguments(k, all, ROWS, tiles, cut(tiles, k->dim));
    float *dqkv = gpu_new(gpu, NULL, ROWS * ld * 4);
    args.dout = gpu_new_bf16(gpu, dout, n);
    args.delta = gpu_new(gpu, NULL, 4 * ROWS * k->heads);
    args.dq = dqkv;
    args.dk = dqkv + width;
    args.dv = dqkv + width + width_kv;
    args.ldd = ld;
    dure_cuda_attention_forward(gpu, &args);
    dure_cuda_attention_backward(gpu, &args);
    gpu_read_bf16(to->out, gpu, args.out, n);
    gpu_read(to->lse, gpu, args.lse, 4 * ROWS * k->heads);
    gpu_read(grads, gpu, dqkv, ROWS * ld * 4);
    for (size_t r = 0; r < ROWS; r++) {
        memcpy(to->dq + r * width, grads + r * ld, width * 4);
        memcpy(to->dk + r * width_kv, grads + r * ld + width, width_kv * 4);
        memcpy(to->dv + r * width_kv, grads + r * ld + width + width_kv, width_kv * 4);
    }
    free(all), free(grads);
}

static void check(const kind *k)
{
    size_t n = ROWS * (size_t)k->heads * k->dim, n_kv = ROWS * (size_t)k->heads_kv * k->dim;
    float *q = gpu_floats(n, 2), *kv = gpu_floats(2 * n_kv, 1), *dout = gpu_floats(n, 1);
    results cpu = results_new(k), first = results_new(k), second = results_new(k);
    run_cpu(&cpu, k, q, kv, dout);
    gpu_reverse(false);
    run_gpu(&first, k, q, kv, dout);
    gpu_reverse(true);
    run_gpu(&second, k, q, kv, dout);
    assert_memory_equal(first.out, second.out, n * 4);
    assert_memory_equal(first.dq, second.dq, n * 4);
    assert_memory_equal(first.dk, second.dk, n_kv * 4);
    assert_memory_equal(first.dv, second.dv, n_kv * 4);
    gpu_near(first.out, cpu.out, n, 0x1p-8);
    gpu_near(first.lse, cpu.lse, ROWS * k->heads, 1e-5);
    /* The output that delta is made of is in bfloat16. */
    gpu_near(first.dq, cpu.dq, n, 0x1p-7);
    gpu_near(first.dk, cpu.dk, n_kv, 0x1p-7);
    gpu_near(first.dv, cpu.dv, n_kv, 1e-5);
    results_free(&cpu), results_free(&first), results_free(&second);
    free(q), free(kv), free(dout);
}

/* The rows of q, then k and v, that documents have from `from[d]` to `to[d]`, one behind the other.
 */
static size_t gather(float *all, dure_cuda_tile *tiles, size_t *n_tiles, dure_cuda_cache *caches,
                     const kind *k, const float *q, const float *kv, const size_t *from,
                     const size_t *to)
{
    size_t width = (size_t)k->heads * k->dim, width_kv = (size_t)k->heads_kv * k->dim;
    size_t ld = width + 2 * width_kv, rows = 0, first = 0, height = dure_cuda_tile_rows(k->dim);
    *n_tiles = 0;
    for (size_t d = 0; d < DOCS; first += lengths[d++]) {
        caches[d].first = (int32_t)rows;
        caches[d].had = (int32_t)from[d];
        caches[d].n = (int32_t)(to[d] - from[d]);
        for (size_t r = from[d]; r < to[d]; r++, rows++) {
            const float *key = kv + (first + r) * width_kv;
            memcpy(all + rows * ld, q + (first + r) * width, width * 4);
            memcpy(all + rows * ld + width, key, width_kv * 4);
            memcpy(all + rows * ld + width + width_kv, key + ROWS * width_kv, width_kv * 4);
        }
        for (size_t at = from[d]; at < to[d]; at += height) {
            size_t left = to[d] - at;
            tiles[(*n_tiles)++] = (dure_cuda_tile){
                .row = (int32_t)(rows - left),
                .n = (int32_t)(left < height ? left : height),
                .doc = (int32_t)d,
            };
        }
    }
    return rows;
}

/* Documents that arrive in pieces, with caches of two layers of which the second is used. */
static void check_pieces(const kind *k)
{
    static const size_t cuts[][DOCS] = {
        {0, 0, 0, 0}, {1, 5, 40, 16}, {1, 6, 41, 16}, {1, 33, 70, 16}};
    size_t width = (size_t)k->heads * k->dim, width_kv = (size_t)k->heads_kv * k->dim;
    size_t ld = width + 2 * width_kv, n = ROWS * width;
    float *q = gpu_floats(n, 2), *kv = gpu_floats(2 * ROWS * width_kv, 1);
    float *all = gpu_floats(ROWS * ld, 0), *out = gpu_floats(n, 0);
    results cpu = results_new(k);
    run_cpu(&cpu, k, q, kv, all);
    dure_cuda_cache caches[DOCS];
    for (size_t d = 0; d < DOCS; d++) {
        caches[d].layer = lengths[d] * 2 * width_kv;
        caches[d].rows = gpu_new(gpu, NULL, 2 * caches[d].layer * sizeof(uint16_t));
    }
    for (size_t i = 0; i < 3; i++) {
        dure_cuda_tile tiles[ROWS];
        size_t n_tiles, row = 0;
        size_t rows = gather(all, tiles, &n_tiles, caches, k, q, kv, cuts[i], cuts[i + 1]);
        dure_cuda_attention args = arguments(k, all, rows, tiles, n_tiles);
        args.caches = gpu_new(gpu, caches, sizeof caches);
        args.n_caches = DOCS;
        args.layer = 1;
        dure_cuda_attention_forward(gpu, &args);
        gpu_read_bf16(out, gpu, args.out, rows * width);
        for (size_t d = 0, first = 0; d < DOCS; first += lengths[d++]) {
            size_t count = (cuts[i + 1][d] - cuts[i][d]) * width;
            gpu_near(out + row, cpu.out + (first + cuts[i][d]) * width, count, 0x1p-7);
            row += count;
        }
    }
    results_free(&cpu);
    free(q), free(kv), free(all), free(out);
}

static void test_cuda_attention_goes_on_behind_a_cache(void **state)
{
    (void)state;
    check_pieces(&(kind){3, 1, 64, 0});
    check_pieces(&(kind){4, 2, 16, 9});
    check_pieces(&(kind){2, 1, 256, 0});
}

static void test_cuda_attention_matches_plain_c(void **state)
{
    (void)state;
    check(&(kind){2, 2, 16, 0});
    check(&(kind){3, 1, 64, 0});
    check(&(kind){2, 1, 80, 0});
    check(&(kind){2, 1, 256, 0});
}

static void test_cuda_attention_in_a_window_matches_plain_c(void **state)
{
    (void)state;
    check(&(kind){4, 2, 16, 2});
    check(&(kind){4, 2, 16, 9});
    check(&(kind){2, 1, 32, 33});
    check(&(kind){1, 1, 160, 40});
}

static int open_gpu(void **state)
{
    (void)state;
    gpu = gpu_open();
    return 0;
}

static int close_gpu(void **state)
{
    (void)state;
    dure_device_close(&gpu);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_attention_matches_plain_c),
        cmocka_unit_test(test_cuda_attention_in_a_window_matches_plain_c),
        cmocka_unit_test(test_cuda_attention_goes_on_behind_a_cache),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
