/* Attention on a GPU against plain C, forward and backward: documents of many lengths, grouped
 * queries, windows, and heads of every width that a model has; and that a document's numbers are
 * the same bits in any pack.
 *
 * Tolerances are relative to the largest number of a result. The scores are sums of float32 on both
 * sides, so lse agrees within 1e-5. On the GPU probabilities, the gradients of scores and the
 * output are rounded to bfloat16, each off by up to 2^-9 of itself: an output is a mean of values
 * with such weights, 2^-8 with its own rounding; a gradient is a sum in which terms cancel, and
 * delta comes from the rounded output: 2^-7. */
#include "kernels/attention.h"
#include "kernels/cuda/attention.h"
#include "support/check.h"
#include "support/gpu.h"
#ifdef DURE_TEST_EMULATED
#include "kernels/cuda/emulated.h"
#endif

#include <stdlib.h>
#include <string.h>

enum { MOST_DOCS = 8, MOST_ROWS = 400 };
static const float scale = 0.3f;

typedef struct kind {
    uint32_t heads, heads_kv, dim, window;
} kind;

static size_t width(const kind *k)
{
    return (size_t)k->heads * k->dim;
}

static size_t width_kv(const kind *k)
{
    return (size_t)k->heads_kv * k->dim;
}

/* Documents one behind the other; no lengths are no document. */
typedef struct pack {
    size_t lengths[MOST_DOCS];
} pack;

static size_t first_row(const pack *p, size_t doc)
{
    size_t row = 0;
    for (size_t d = 0; d < doc; d++)
        row += p->lengths[d];
    return row;
}

static size_t rows_of(const pack *p)
{
    return first_row(p, MOST_DOCS);
}

static dure_device *gpu;

typedef struct inputs {
    float *q, *k, *v, *dout;
} inputs;

static inputs inputs_new(const kind *k, size_t rows)
{
    return (inputs){gpu_floats(rows * width(k), 2), gpu_floats(rows * width_kv(k), 1),
                    gpu_floats(rows * width_kv(k), 1), gpu_floats(rows * width(k), 1)};
}

static void inputs_free(inputs *in)
{
    free(in->q), free(in->k), free(in->v), free(in->dout);
}

static inputs inputs_from(const inputs *in, const kind *k, size_t row)
{
    return (inputs){in->q + row * width(k), in->k + row * width_kv(k), in->v + row * width_kv(k),
                    in->dout + row * width(k)};
}

typedef struct results {
    float *out, *lse, *dq, *dk, *dv;
} results;

static results results_new(const kind *k, size_t rows)
{
    size_t q = rows * width(k), kv = rows * width_kv(k);
    return (results){gpu_floats(q, 0), gpu_floats(rows * k->heads, 0), gpu_floats(q, 0),
                     gpu_floats(kv, 0), gpu_floats(kv, 0)};
}

static void results_free(results *r)
{
    free(r->out), free(r->lse), free(r->dq), free(r->dk), free(r->dv);
}

/* `some` are the rows from `row` on of `all`, bit for bit. */
static void assert_same(const results *some, const results *all, const kind *k, size_t row,
                        size_t rows)
{
    size_t q = row * width(k), kv = row * width_kv(k);
    size_t q_bytes = rows * width(k) * sizeof(float), kv_bytes = rows * width_kv(k) * sizeof(float);
    assert_memory_equal(some->out, all->out + q, q_bytes);
    assert_memory_equal(some->lse, all->lse + row * k->heads, rows * k->heads * sizeof(float));
    assert_memory_equal(some->dq, all->dq + q, q_bytes);
    assert_memory_equal(some->dk, all->dk + kv, kv_bytes);
    assert_memory_equal(some->dv, all->dv + kv, kv_bytes);
}

/* The heads of q and k as the way back of the reference wants them: nothing is done to them. */
static void run_cpu(results *to, const kind *k, const pack *p, const inputs *in)
{
    dure_compute c = {.ops = dure_cpu_ops_of(DURE_CPU_REFERENCE)};
    dure_attention_doc docs[MOST_DOCS];
    size_t n = 0, rows = rows_of(p);
    for (size_t row = 0; n < MOST_DOCS && p->lengths[n]; row += p->lengths[n++])
        docs[n] = (dure_attention_doc){.first = row,
                                       .n = p->lengths[n],
                                       .n_keys = p->lengths[n],
                                       .k = in->k + row * width_kv(k),
                                       .v = in->v + row * width_kv(k)};
    assert_ok(dure_pool_new(&c.pool, 1, dure_attention_scratch_bytes(rows, k->dim, c.ops)));
    void *packed = malloc(dure_attention_packed_bytes(rows, n, k->heads_kv, k->dim, c.ops));
    dure_attention args = {.docs = docs,
                           .n_docs = n,
                           .q = in->q,
                           .ldq = width(k),
                           .ldk = width_kv(k),
                           .ldv = width_kv(k),
                           .heads = k->heads,
                           .heads_kv = k->heads_kv,
                           .dim = k->dim,
                           .window = k->window,
                           .scale = scale,
                           .packed = packed};
    dure_heads plain = {.dim = k->dim};
    dure_attention_grad grad = {.args = &args,
                                .out = to->out,
                                .dout = in->dout,
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

/* The tiles of rows [row, row + n) of the pass, of a document that begins at `first`. */
static size_t cut(dure_cuda_tile *tiles, size_t doc, size_t row, size_t n)
{
    size_t height = dure_cuda_tile_rows(), cuts = 0;
    for (size_t at = 0; at < n; at += height)
        tiles[cuts++] = (dure_cuda_tile){.row = (int32_t)(row + at),
                                         .n = (int32_t)(n - at < height ? n - at : height),
                                         .first = (int32_t)row,
                                         .end = (int32_t)(row + n),
                                         .doc = (int32_t)doc};
    return cuts;
}

/* Puts `rows` rows of q, k and v beside each other, behind `to`'s `at` rows. */
static void interleave(float *to, size_t at, const inputs *in, const kind *k, size_t rows)
{
    size_t ld = width(k) + 2 * width_kv(k);
    for (size_t r = 0; r < rows; r++) {
        float *row = to + (at + r) * ld;
        memcpy(row, in->q + r * width(k), width(k) * sizeof *row);
        memcpy(row + width(k), in->k + r * width_kv(k), width_kv(k) * sizeof *row);
        memcpy(row + ld - width_kv(k), in->v + r * width_kv(k), width_kv(k) * sizeof *row);
    }
}

/* q, k and v of `rows` rows beside each other, and room for what comes out. */
static dure_cuda_attention arguments(const kind *k, const float *qkv, size_t rows,
                                     const dure_cuda_tile *tiles, size_t n_tiles)
{
    size_t ld = width(k) + 2 * width_kv(k);
    uint16_t *at = gpu_new_bf16(gpu, qkv, rows * ld);
    return (dure_cuda_attention){.tiles = gpu_new(gpu, tiles, n_tiles * sizeof *tiles),
                                 .n_tiles = n_tiles,
                                 .rows = rows,
                                 .q = at,
                                 .k = at + width(k),
                                 .v = at + width(k) + width_kv(k),
                                 .ld = ld,
                                 .heads = k->heads,
                                 .heads_kv = k->heads_kv,
                                 .dim = k->dim,
                                 .window = k->window,
                                 .scale = scale,
                                 .out = gpu_new(gpu, NULL, 2 * rows * width(k)),
                                 .lse = gpu_new(gpu, NULL, 4 * rows * k->heads)};
}

static void run_gpu(results *to, const kind *k, const pack *p, const inputs *in)
{
    size_t rows = rows_of(p), ld = width(k) + 2 * width_kv(k), n_tiles = 0;
    dure_cuda_tile tiles[MOST_ROWS];
    float *all = gpu_floats(rows * ld, 0);
    for (size_t d = 0; d < MOST_DOCS; d++)
        n_tiles += cut(tiles + n_tiles, d, first_row(p, d), p->lengths[d]);
    interleave(all, 0, in, k, rows);
    dure_cuda_attention args = arguments(k, all, rows, tiles, n_tiles);
    float *dqkv = gpu_new(gpu, NULL, rows * ld * sizeof *dqkv);
    args.dout = gpu_new_bf16(gpu, in->dout, rows * width(k));
    args.delta = gpu_new(gpu, NULL, 4 * rows * k->heads);
    args.dq = dqkv;
    args.dk = dqkv + width(k);
    args.dv = dqkv + width(k) + width_kv(k);
    args.ldd = ld;
    dure_cuda_attention_forward(gpu, &args);
    dure_cuda_attention_backward(gpu, &args);
    gpu_read_bf16(to->out, gpu, args.out, rows * width(k));
    gpu_read(to->lse, gpu, args.lse, 4 * rows * k->heads);
    gpu_read(all, gpu, dqkv, rows * ld * sizeof *all);
    for (size_t r = 0; r < rows; r++) {
        const float *row = all + r * ld;
        memcpy(to->dq + r * width(k), row, width(k) * sizeof *row);
        memcpy(to->dk + r * width_kv(k), row + width(k), width_kv(k) * sizeof *row);
        memcpy(to->dv + r * width_kv(k), row + ld - width_kv(k), width_kv(k) * sizeof *row);
    }
    free(all);
}

/* Against plain C, and with blocks and threads last to first. */
static void check(const kind *k, const pack *p)
{
    size_t rows = rows_of(p), n = rows * width(k), n_kv = rows * width_kv(k);
    inputs in = inputs_new(k, rows);
    results cpu = results_new(k, rows), first = results_new(k, rows), second = results_new(k, rows);
    run_cpu(&cpu, k, p, &in);
    gpu_reverse(false);
    run_gpu(&first, k, p, &in);
    gpu_reverse(true);
    run_gpu(&second, k, p, &in);
    gpu_reverse(false);
    assert_same(&second, &first, k, 0, rows);
    gpu_near(first.out, cpu.out, n, 0x1p-8);
    gpu_near(first.lse, cpu.lse, rows * k->heads, 1e-5);
    gpu_near(first.dq, cpu.dq, n, 0x1p-7);
    gpu_near(first.dk, cpu.dk, n_kv, 0x1p-7);
    gpu_near(first.dv, cpu.dv, n_kv, 0x1p-7);
    results_free(&cpu), results_free(&first), results_free(&second);
    inputs_free(&in);
}

static const pack odd = {{1, 33, 130, 16, 65, 64}}, few = {{3, 70, 17}};

static void test_cuda_attention_matches_plain_c(void **state)
{
    (void)state;
    check(&(kind){2, 2, 16, 0}, &odd);
    check(&(kind){3, 1, 64, 0}, &odd);
    check(&(kind){2, 1, 80, 0}, &few);
    check(&(kind){2, 2, 128, 0}, &odd);
    check(&(kind){1, 1, 200, 0}, &few);
    check(&(kind){2, 1, 256, 0}, &few);
}

static void test_cuda_attention_in_a_window_matches_plain_c(void **state)
{
    (void)state;
    check(&(kind){4, 2, 16, 2}, &few);
    check(&(kind){2, 1, 64, 9}, &few);
    check(&(kind){2, 1, 32, 33}, &odd);
    check(&(kind){1, 1, 72, 65}, &odd);
    check(&(kind){1, 1, 160, 40}, &few);
}

static void check_alone(const kind *k, const pack *p)
{
    size_t rows = rows_of(p);
    inputs in = inputs_new(k, rows);
    results together = results_new(k, rows);
    run_gpu(&together, k, p, &in);
    for (size_t d = 0; d < MOST_DOCS && p->lengths[d]; d++) {
        size_t first = first_row(p, d);
        pack one = {{p->lengths[d]}};
        inputs its = inputs_from(&in, k, first);
        results alone = results_new(k, one.lengths[0]);
        run_gpu(&alone, k, &one, &its);
        assert_same(&alone, &together, k, first, one.lengths[0]);
        results_free(&alone);
    }
    results_free(&together);
    inputs_free(&in);
}

/* What privacy counts on: a record's numbers are its own. */
static void test_cuda_attention_of_a_document_is_the_same_bits_in_any_pack(void **state)
{
    (void)state;
    check_alone(&(kind){2, 1, 64, 0}, &odd);
    check_alone(&(kind){2, 2, 128, 50}, &odd);
    check_alone(&(kind){2, 1, 256, 0}, &few);
}

/* Documents that arrive in pieces: each to its own place in `out`. `only` one document, or all for
 * MOST_DOCS. The caches have two layers, of which the second is used. */
static void run_pieces(float *out, const kind *k, const pack *p, const inputs *in,
                       const size_t (*cuts)[MOST_DOCS], size_t n_cuts, size_t only)
{
    size_t ld = width(k) + 2 * width_kv(k), n = rows_of(p) * width(k);
    float *all = gpu_floats(rows_of(p) * ld, 0), *piece = gpu_floats(n, 0);
    dure_cuda_cache caches[MOST_DOCS];
    for (size_t d = 0; d < MOST_DOCS; d++) {
        caches[d].layer = p->lengths[d] * 2 * width_kv(k);
        caches[d].rows = gpu_new(gpu, NULL, 2 * caches[d].layer * sizeof(uint16_t));
    }
    for (size_t i = 0; i + 1 < n_cuts; i++) {
        dure_cuda_tile tiles[MOST_ROWS];
        size_t n_tiles = 0, rows = 0;
        for (size_t d = 0; d < MOST_DOCS; d++) {
            size_t from = cuts[i][d], to = only == MOST_DOCS || only == d ? cuts[i + 1][d] : from;
            inputs its = inputs_from(in, k, first_row(p, d) + from);
            caches[d].first = (int32_t)rows;
            caches[d].had = (int32_t)from;
            caches[d].n = (int32_t)(to - from);
            interleave(all, rows, &its, k, to - from);
            n_tiles += cut(tiles + n_tiles, d, rows, to - from);
            rows += to - from;
        }
        if (!rows) continue;
        dure_cuda_attention args = arguments(k, all, rows, tiles, n_tiles);
        args.caches = gpu_new(gpu, caches, sizeof caches);
        args.n_caches = MOST_DOCS;
        args.layer = 1;
        dure_cuda_attention_forward(gpu, &args);
        gpu_read_bf16(piece, gpu, args.out, rows * width(k));
        for (size_t d = 0; d < MOST_DOCS; d++)
            memcpy(out + (first_row(p, d) + cuts[i][d]) * width(k),
                   piece + (size_t)caches[d].first * width(k),
                   (size_t)caches[d].n * width(k) * sizeof *out);
    }
    free(all), free(piece);
}

static void check_pieces(const kind *k)
{
    static const pack talks = {{1, 33, 150, 16}};
    static const size_t cuts[][MOST_DOCS] = {
        {0, 0, 0, 0}, {1, 5, 70, 16}, {1, 6, 71, 16}, {1, 7, 149, 16}, {1, 33, 150, 16}};
    enum { CUTS = sizeof cuts / sizeof *cuts };
    size_t rows = rows_of(&talks), n = rows * width(k);
    inputs in = inputs_new(k, rows);
    results cpu = results_new(k, rows);
    float *first = gpu_floats(n, 0), *again = gpu_floats(n, 0);
    run_cpu(&cpu, k, &talks, &in);
    run_pieces(first, k, &talks, &in, cuts, CUTS, MOST_DOCS);
    gpu_near(first, cpu.out, n, 0x1p-8);
    gpu_reverse(true);
    run_pieces(again, k, &talks, &in, cuts, CUTS, MOST_DOCS);
    gpu_reverse(false);
    assert_memory_equal(again, first, n * sizeof *first);
    for (size_t d = 0; talks.lengths[d]; d++)
        run_pieces(again, k, &talks, &in, cuts, CUTS, d);
    assert_memory_equal(again, first, n * sizeof *first);
    results_free(&cpu);
    inputs_free(&in);
    free(first), free(again);
}

/* In pieces of many rows and of one, and beside others or not. */
static void test_cuda_attention_goes_on_behind_a_cache(void **state)
{
    (void)state;
    check_pieces(&(kind){3, 1, 64, 0});
    check_pieces(&(kind){4, 2, 16, 9});
    check_pieces(&(kind){1, 1, 96, 70});
    check_pieces(&(kind){2, 1, 256, 0});
}

/* In pieces of two rows or more, which begin anywhere in a step of keys. */
static void test_cuda_attention_behind_a_cache_is_the_same_bits_however_it_is_cut(void **state)
{
    (void)state;
    static const pack talks = {{33, 150, 16}};
    static const size_t whole[][MOST_DOCS] = {{0, 0, 0}, {33, 150, 16}},
                        cuts[][MOST_DOCS] = {{0, 0, 0}, {5, 70, 2}, {31, 101, 14}, {33, 150, 16}};
    static const kind kinds[] = {{2, 1, 64, 0}, {2, 1, 128, 40}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const kind *k = &kinds[i];
        size_t rows = rows_of(&talks), n = rows * width(k);
        inputs in = inputs_new(k, rows);
        float *once = gpu_floats(n, 0), *pieces = gpu_floats(n, 0);
        run_pieces(once, k, &talks, &in, whole, 2, MOST_DOCS);
        run_pieces(pieces, k, &talks, &in, cuts, 4, MOST_DOCS);
        assert_memory_equal(pieces, once, n * sizeof *once);
        inputs_free(&in);
        free(once), free(pieces);
    }
}

#ifdef DURE_TEST_EMULATED
/* The tests before this one have run every kernel. */
static void test_cuda_attention_has_no_bank_conflicts(void **state)
{
    (void)state;
    assert_int_equal(dure_emulated_bank_conflicts(), 0);
}
#endif

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
        cmocka_unit_test(test_cuda_attention_of_a_document_is_the_same_bits_in_any_pack),
        cmocka_unit_test(test_cuda_attention_goes_on_behind_a_cache),
        cmocka_unit_test(test_cuda_attention_behind_a_cache_is_the_same_bits_however_it_is_cut),
#ifdef DURE_TEST_EMULATED
        cmocka_unit_test(test_cuda_attention_has_no_bank_conflicts),
#endif
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
