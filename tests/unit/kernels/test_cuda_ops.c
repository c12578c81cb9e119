/* The GPU's kernels against plain C. Those with barriers run twice, with the order of blocks and
 * threads reversed the second time. Inputs are exact in bfloat16, so what differs is the
 * rounding of results (2^-8 for bfloat16) and of sums. */
#include "kernels/cuda/cross_entropy.h"
#include "kernels/cuda/dequant.h"
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/heads.h"
#include "kernels/cuda/lora.h"
#include "kernels/cuda/rows.h"
#include "kernels/dequant.h"
#include "kernels/dropout.h"
#include "kernels/heads.h"
#include "kernels/quant_types.h"
#include "support/check.h"
#include "support/gpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDED 0x1p-8 /* one rounding to bfloat16, of the largest number of an array */
#define SUMMED 1e-5    /* sums in float32 */

static dure_device *gpu;

static const dure_cpu_ops *truth(void)
{
    return dure_cpu_ops_of(DURE_CPU_REFERENCE);
}

/* --- weights --- */

static const uint32_t types[] = {QUANT_F32,    QUANT_F16,  QUANT_BF16, QUANT_Q4_0,
                                 QUANT_Q4_1,   QUANT_Q5_0, QUANT_Q5_1, QUANT_Q8_0,
                                 QUANT_IQ4_NL, QUANT_Q2_K, QUANT_Q3_K, QUANT_Q4_K,
                                 QUANT_Q5_K,   QUANT_Q6_K, QUANT_Q8_K, QUANT_IQ4_XS};
enum { N_TYPES = sizeof types / sizeof types[0], WEIGHTS = 4096 };

/* Random bytes whose scales are finite. */
static uint8_t *random_blocks(uint32_t type, size_t n)
{
    size_t weights, bytes;
    static uint64_t state = 3;
    assert_true(dure_quant_block(&weights, &bytes, type));
    uint8_t *blocks = malloc(n / weights * bytes);
    assert_non_null(blocks);
    for (size_t b = 0; b < n / weights; b++) {
        uint8_t *block = blocks + b * bytes;
        do {
            for (size_t i = 0; i < bytes; i++) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                block[i] = (uint8_t)(state >> 56);
            }
        } while (!dure_quant_finite(block, weights, type));
    }
    return blocks;
}

static void test_cuda_dequant_gives_the_bits_of_the_cpu(void **state)
{
    (void)state;
    for (size_t t = 0; t < N_TYPES; t++) {
        uint8_t *blocks = random_blocks(types[t], WEIGHTS);
        size_t bytes = dure_quant_row_bytes(types[t], WEIGHTS);
        float *expected = gpu_floats(WEIGHTS, 0);
        uint16_t got[WEIGHTS];
        truth()->dequant(expected, blocks, WEIGHTS, types[t]);
        void *from = gpu_new(gpu, blocks, bytes);
        uint16_t *to = gpu_new(gpu, NULL, sizeof got);
        dure_cuda_dequant(gpu, to, from, WEIGHTS, types[t]);
        gpu_read(got, gpu, to, sizeof got);
        for (size_t i = 0; i < WEIGHTS; i++)
            assert_int_equal(got[i], dure_float_to_bf16(expected[i]));
        free(expected);
        free(blocks);
    }
}

static void test_cuda_embedding_gives_the_bits_of_the_cpu(void **state)
{
    (void)state;
    enum { WIDTH = 256, ROWS = 5 };
    const int32_t tokens[ROWS] = {15, 0, 7, 7, 3};
    for (size_t t = 0; t < N_TYPES; t++) {
        uint8_t *blocks = random_blocks(types[t], 16 * WIDTH);
        size_t row_bytes = dure_quant_row_bytes(types[t], WIDTH);
        float got[ROWS * WIDTH], expected[WIDTH];
        dure_cuda_embed args = {.x = gpu_new(gpu, NULL, sizeof got),
                                .table = gpu_new(gpu, blocks, 16 * row_bytes),
                                .tokens = gpu_new(gpu, tokens, sizeof tokens),
                                .rows = ROWS,
                                .width = WIDTH,
                                .row_bytes = row_bytes,
                                .scale = 1,
                                .type = types[t]};
        dure_cuda_embed_rows(gpu, &args);
        gpu_read(got, gpu, args.x, sizeof got);
        for (size_t i = 0; i < ROWS; i++) {
            truth()->dequant(expected, blocks + (size_t)tokens[i] * row_bytes, WIDTH, types[t]);
            assert_memory_equal(got + i * WIDTH, expected, sizeof expected);
        }
        free(blocks);
    }
}

/* --- rows --- */

static const size_t widths[] = {8, 64, 97, 576, 1025};
enum { N_WIDTHS = sizeof widths / sizeof widths[0], ROWS = 5 };

static void test_cuda_dropout_draws_the_bits_of_the_cpu(void **state)
{
    (void)state;
    enum { WIDTH = 72, LAYER = 3, INPUT = 4, N = ROWS * WIDTH };
    const uint64_t seeds[ROWS] = {1, 1, 2, UINT64_MAX, 0};
    const uint32_t positions[ROWS] = {0, 1, 0, 7, 4000000};
    float *x = gpu_floats(N, 1), *sum = gpu_floats(N, 1), got[N], y[WIDTH];
    dure_cuda_drop args = {.seed = gpu_new(gpu, seeds, sizeof seeds),
                           .position = gpu_new(gpu, positions, sizeof positions),
                           .layer = LAYER,
                           .input = INPUT,
                           .threshold = 20000,
                           .scale = 1,
                           .rows = ROWS,
                           .width = WIDTH,
                           .y = gpu_new(gpu, NULL, 2 * N),
                           .x = gpu_new_bf16(gpu, x, N)};
    dure_cuda_drop_run(gpu, &args);
    gpu_read_bf16(got, gpu, args.y, N);
    size_t dropped = 0;
    for (size_t r = 0; r < ROWS; r++) {
        const dure_drop mask = {dure_drop_row_key(seeds[r], LAYER, INPUT, positions[r]), 20000};
        truth()->drop(y, x + r * WIDTH, WIDTH, &mask);
        assert_memory_equal(got + r * WIDTH, y, sizeof y);
        for (size_t i = 0; i < WIDTH; i++)
            dropped += !dure_drop_keeps(&mask, i);
    }
    assert_in_range(dropped, N / 5, N / 2);
    args.y = NULL;
    args.scale = 2;
    args.sum = gpu_new(gpu, sum, 4 * N);
    args.apart = gpu_new(gpu, x, 4 * N);
    dure_cuda_drop_run(gpu, &args);
    float *added = gpu_floats(N, 0);
    gpu_read(added, gpu, args.sum, 4 * N);
    for (size_t i = 0; i < N; i++)
        sum[i] += 2 * got[i];
    assert_memory_equal(added, sum, sizeof got);
    free(x), free(sum), free(added);
}

static void check_norm(size_t width, bool reverse)
{
    size_t n = ROWS * width;
    float *x = gpu_floats(n, 3), *w = gpu_floats(width, 1), *add = gpu_floats(n, 1);
    float *y = gpu_floats(n, 0), *got = gpu_floats(n, 0), *kept = gpu_floats(n, 0);
    gpu_reverse(reverse);
    dure_cuda_norm args = {.y = gpu_new(gpu, NULL, 2 * n),
                           .kept = gpu_new(gpu, NULL, 2 * n),
                           .x = gpu_new(gpu, x, 4 * n),
                           .gain = gpu_new(gpu, w, 4 * width),
                           .rows = ROWS,
                           .width = width,
                           .eps = 1e-5f};
    for (size_t r = 0; r < ROWS; r++)
        truth()->rmsnorm(y + r * width, NULL, x + r * width, w, width, 1e-5f);
    dure_cuda_norm_forward(gpu, &args);
    gpu_read_bf16(got, gpu, args.y, n);
    gpu_near(got, y, n, ROUNDED);
    gpu_read_bf16(kept, gpu, args.kept, n);
    assert_memory_equal(kept, x, n * sizeof *x);
    args.x = NULL;
    dure_device_zero(gpu, args.y, 2 * n);
    dure_cuda_norm_forward(gpu, &args);
    gpu_read_bf16(kept, gpu, args.y, n);
    assert_memory_equal(kept, got, n * sizeof *x);
    args.add = gpu_new(gpu, add, 4 * n);
    dure_cuda_norm_forward(gpu, &args);
    gpu_read(kept, gpu, args.add, 4 * n);
    truth()->add(y, add, n);
    gpu_near(kept, y, n, SUMMED);
    free(x), free(w), free(add), free(y), free(got), free(kept);
}

static void test_cuda_norm_matches_plain_c(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_WIDTHS; i++) {
        check_norm(widths[i], false);
        check_norm(widths[i], true);
    }
}

static void test_cuda_norm_backward_matches_plain_c(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_WIDTHS; i++) {
        size_t width = widths[i], n = ROWS * width;
        float *x = gpu_floats(n, 2), *w = gpu_floats(width, 1), *dy = gpu_floats(n, 1),
              *dx = gpu_floats(n, 1);
        float *first = gpu_floats(n, 0), *second = gpu_floats(n, 0), *rounded = gpu_floats(n, 0);
        float *anew = gpu_floats(n, 0);
        dure_cuda_norm_grad args = {.out = gpu_new(gpu, NULL, 2 * n),
                                    .dy = gpu_new(gpu, dy, 4 * n),
                                    .kept = gpu_new_bf16(gpu, x, n),
                                    .gain = gpu_new(gpu, w, 4 * width),
                                    .rows = ROWS,
                                    .width = width,
                                    .eps = 1e-5f};
        for (int way = 0; way < 2; way++) {
            gpu_reverse(way);
            args.dx = gpu_new(gpu, dx, 4 * n);
            dure_cuda_norm_backward(gpu, &args);
            gpu_read(way ? second : first, gpu, args.dx, 4 * n);
        }
        assert_memory_equal(first, second, 4 * n);
        args.anew = 1;
        dure_cuda_norm_backward(gpu, &args);
        gpu_read(second, gpu, args.dx, 4 * n);
        for (size_t j = 0; j < n; j++)
            anew[j] = second[j] + dx[j];
        gpu_near(anew, first, n, SUMMED);
        gpu_read_bf16(rounded, gpu, args.out, n);
        gpu_near(rounded, second, n, ROUNDED);
        for (size_t r = 0; r < ROWS; r++)
            truth()->rmsnorm_backward(dx + r * width, NULL, dy + r * width, x + r * width, w, width,
                                      1e-5f);
        gpu_near(first, dx, n, SUMMED);
        free(x), free(w), free(dy), free(dx), free(first), free(second), free(rounded), free(anew);
    }
}

static void test_cuda_rounding_is_to_nearest_even(void **state)
{
    (void)state;
    enum { N = 1000 };
    float x[N];
    uint16_t got[N];
    for (size_t i = 0; i < N; i++) {
        uint32_t bits = (uint32_t)(i * 0x9E3779B9u);
        memcpy(&x[i], &bits, sizeof bits);
    }
    x[0] = INFINITY;
    x[1] = NAN;
    x[2] = 1.00390625f; /* a tie */
    void *to = gpu_new(gpu, NULL, sizeof got), *from = gpu_new(gpu, x, sizeof x);
    dure_cuda_round(gpu, to, from, N);
    gpu_read(got, gpu, to, sizeof got);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(got[i], dure_float_to_bf16(x[i]));
}

static void test_cuda_rows_are_picked_and_put_back(void **state)
{
    (void)state;
    enum { ALL = 7, SOME = 3, WIDTH = 300 };
    const int32_t row[SOME] = {6, 0, 4};
    float x[ALL * WIDTH], got[ALL * WIDTH], zero[WIDTH] = {0};
    gpu_fill(x, ALL * WIDTH, 1);
    dure_cuda_pick args = {.y = gpu_new(gpu, NULL, SOME * WIDTH * 4),
                           .x = gpu_new(gpu, x, sizeof x),
                           .row = gpu_new(gpu, row, sizeof row),
                           .rows = SOME,
                           .width = WIDTH};
    dure_cuda_pick_rows(gpu, &args);
    gpu_read(got, gpu, args.y, SOME * WIDTH * 4);
    for (size_t i = 0; i < SOME; i++)
        assert_memory_equal(got + i * WIDTH, x + row[i] * WIDTH, WIDTH * 4);
    args.x = args.y;
    args.y = gpu_new(gpu, NULL, sizeof x);
    args.scatter = 1;
    dure_device_zero(gpu, args.y, sizeof x);
    dure_cuda_pick_rows(gpu, &args);
    gpu_read(got, gpu, args.y, sizeof x);
    for (size_t i = 0; i < ALL; i++) {
        bool picked = i == 6 || i == 0 || i == 4;
        assert_memory_equal(got + i * WIDTH, picked ? x + i * WIDTH : zero, WIDTH * 4);
    }
}

static void check_gate(int gelu)
{
    enum { N = 3, WIDTH = 97, ALL = N * WIDTH };
    float sums[2 * ALL], dh[ALL], h[ALL], got[ALL], both[2 * ALL];
    gpu_fill(sums, 2 * ALL, 4);
    gpu_fill(dh, ALL, 1);
    dure_cuda_gate args = {.h = gpu_new(gpu, NULL, 2 * ALL),
                           .both = gpu_new(gpu, NULL, 4 * ALL),
                           .sums = gpu_new(gpu, sums, sizeof sums),
                           .rows = N,
                           .width = WIDTH,
                           .gelu = gelu};
    dure_cuda_gate_forward(gpu, &args);
    gpu_read_bf16(got, gpu, args.h, ALL);
    for (size_t r = 0; r < N; r++) {
        float *gate = sums + r * 2 * WIDTH, *up = gate + WIDTH;
        (gelu ? truth()->geglu : truth()->swiglu)(h + r * WIDTH, gate, up, WIDTH);
    }
    gpu_near(got, h, ALL, ROUNDED);
    args.sums = gpu_new(gpu, dh, sizeof dh);
    dure_cuda_gate_backward(gpu, &args);
    gpu_read_bf16(got, gpu, args.h, ALL);
    gpu_near(got, h, ALL, ROUNDED);
    gpu_read_bf16(both, gpu, args.both, 2 * ALL);
    for (size_t r = 0; r < N; r++) {
        float *gate = sums + r * 2 * WIDTH, *up = gate + WIDTH;
        (gelu ? truth()->geglu_backward : truth()->swiglu_backward)(h + r * WIDTH, gate, up,
                                                                    dh + r * WIDTH, WIDTH);
    }
    gpu_near(both, sums, 2 * ALL, ROUNDED);
}

static void test_cuda_gates_match_plain_c(void **state)
{
    (void)state;
    check_gate(0);
    check_gate(1);
}

/* --- heads --- */

typedef struct heads_case {
    uint32_t heads, dim, turned;
    bool bias, norm, halves;
} heads_case;

static void check_heads(const heads_case *k, bool reverse)
{
    enum { N = 6, MOST = N * 512 };
    size_t width = (size_t)k->heads * k->dim, n = N * width;
    float x[MOST], y[MOST], got[MOST], kept[MOST], bias[512], norm[512], back[MOST];
    const uint32_t position[N] = {0, 1, 2, 0, 1, 30};
    dure_rope_table table;
    assert_ok(dure_rope_table_init(
        &table, &(dure_rope_opts){.dim = k->turned, .freq_base = 10000, .halves = k->halves}));
    assert_ok(dure_rope_table_reserve(&table, 31));
    gpu_fill(x, n, 2);
    gpu_fill(bias, width, 1);
    gpu_fill(norm, k->dim, 1);
    gpu_reverse(reverse);
    dure_heads cpu = {.y = y,
                      .ldy = width,
                      .dim = k->dim,
                      .eps = 1e-6f,
                      .kept = kept,
                      .bias = k->bias ? bias : NULL,
                      .norm = k->norm ? norm : NULL,
                      .table = &table,
                      .position = position};
    dure_cuda_heads args = {.y = gpu_new(gpu, NULL, 2 * n),
                            .x = gpu_new(gpu, x, 4 * n),
                            .ld = width,
                            .ldx = width,
                            .rows = N,
                            .heads = k->heads,
                            .dim = k->dim,
                            .bias = k->bias ? gpu_new(gpu, bias, 4 * width) : NULL,
                            .norm = k->norm ? gpu_new(gpu, norm, 4 * k->dim) : NULL,
                            .kept = gpu_new(gpu, NULL, 2 * n),
                            .eps = 1e-6f,
                            .cos_sin = gpu_new(gpu, table.cos_sin, 31 * k->turned * 4),
                            .turned = k->turned,
                            .halves = k->halves,
                            .position = gpu_new(gpu, position, sizeof position)};
    dure_cuda_heads_forward(gpu, &args);
    dure_sums sums = {.at = x, .ld = width, .rows = N, .columns = width};
    dure_finish_heads(&cpu, &sums, truth());
    gpu_read_bf16(got, gpu, args.y, n);
    gpu_near(got, y, n, ROUNDED);
    gpu_fill(x, n, 1);
    args.x = gpu_new(gpu, x, 4 * n);
    dure_cuda_heads_backward(gpu, &args);
    for (size_t r = 0; r < N; r++)
        for (size_t h = 0; h < k->heads; h++)
            dure_heads_back(back + r * width + h * k->dim, x + r * width + h * k->dim, &cpu, r, h,
                            truth());
    gpu_read_bf16(got, gpu, args.y, n);
    /* What was normed is kept in bfloat16: two more roundings. */
    gpu_near(got, back, n, k->norm ? 4 * ROUNDED : ROUNDED);
    dure_rope_table_fini(&table);
}

static void test_cuda_heads_match_plain_c(void **state)
{
    (void)state;
    static const heads_case cases[] = {
        {3, 16, 16, false, false, false}, {2, 64, 48, true, false, false},
        {4, 80, 80, true, false, true},   {2, 128, 128, false, true, true},
        {2, 256, 256, false, true, true},
    };
    for (size_t i = 0; i < 2 * sizeof cases / sizeof cases[0]; i++)
        check_heads(&cases[i / 2], i % 2);
}

/* --- the loss --- */

static void check_cross_entropy(size_t vocab, bool reverse)
{
    enum { N = 4 };
    size_t ld = (vocab + 7) / 8 * 8;
    float *x = gpu_floats(N * ld, 9), nll[N], *p = gpu_floats(N * ld, 0),
          *got = gpu_floats(N * ld, 0);
    const int32_t labels[N] = {0, (int32_t)vocab - 1, (int32_t)vocab / 2, 1};
    const float weight[N] = {1, 0.25f, 0, 2};
    x[3 * ld + 1] = 80; /* a label that is all but certain */
    gpu_reverse(reverse);
    dure_cuda_cross_entropy args = {.logits = gpu_new(gpu, x, 4 * N * ld),
                                    .labels = gpu_new(gpu, labels, sizeof labels),
                                    .weight = gpu_new(gpu, weight, sizeof weight),
                                    .p = gpu_new(gpu, NULL, 2 * N * ld),
                                    .nll = gpu_new(gpu, NULL, sizeof nll),
                                    .rows = N,
                                    .vocab = vocab,
                                    .ld = ld};
    dure_cuda_cross_entropy_run(gpu, &args);
    gpu_read(nll, gpu, args.nll, sizeof nll);
    gpu_read_bf16(got, gpu, args.p, N * ld);
    for (size_t r = 0; r < N; r++) {
        double sum = 0;
        for (size_t i = 0; i < vocab; i++)
            sum += exp((double)x[r * ld + i]);
        double own = (double)x[r * ld + (size_t)labels[r]];
        assert_true(fabs((double)nll[r] - (log(sum) - own)) <= SUMMED * (1 + fabs(log(sum))));
        for (size_t i = 0; i < vocab; i++)
            p[r * ld + i] = (float)((double)weight[r] *
                                    (exp((double)x[r * ld + i]) / sum - (i == (size_t)labels[r])));
        gpu_near(got + r * ld, p + r * ld, ld, ROUNDED + SUMMED);
    }
    free(x), free(p), free(got);
}

static void test_cuda_cross_entropy_matches_plain_c(void **state)
{
    (void)state;
    static const size_t vocabularies[] = {2, 100, 256, 1031};
    for (size_t i = 0; i < 8; i++)
        check_cross_entropy(vocabularies[i / 2], i % 2);
}

/* --- adapters --- */

static void check_lora(size_t rank, size_t width, int turned)
{
    enum { N = 71, DOCS = 3, LDZ = 72 };
    const dure_cuda_rows docs[DOCS] = {{0, 1}, {1, 38}, {39, 32}};
    size_t one = rank * width;
    float *z = gpu_floats(N * LDZ, 1), *x = gpu_floats(N * width, 1), *got[2],
          *sum = gpu_floats(DOCS * one, 0);
    for (size_t d = 0; d < DOCS; d++)
        for (size_t j = 0; j < one; j++) {
            size_t r = turned ? j % rank : j / width, c = turned ? j / rank : j % width;
            double s = 0;
            for (size_t i = (size_t)docs[d].first; i < (size_t)(docs[d].first + docs[d].n); i++)
                s += (double)z[i * LDZ + r] * (double)x[i * width + c];
            sum[d * one + j] = (float)(0.5 * s);
        }
    dure_cuda_lora args = {.stride = one,
                           .z = gpu_new_bf16(gpu, z, N * LDZ),
                           .x = gpu_new_bf16(gpu, x, N * width),
                           .ldz = LDZ,
                           .ldx = width,
                           .rank = rank,
                           .width = width,
                           .docs = gpu_new(gpu, docs, sizeof docs),
                           .n_docs = DOCS,
                           .by = 0.5f,
                           .turned = turned};
    for (int way = 0; way < 2; way++) {
        gpu_reverse(way);
        got[way] = gpu_floats(DOCS * one, 0);
        args.out = gpu_new(gpu, NULL, DOCS * one * 4);
        dure_cuda_lora_gradients(gpu, &args);
        gpu_read(got[way], gpu, args.out, DOCS * one * 4);
    }
    assert_memory_equal(got[0], got[1], DOCS * one * 4);
    gpu_near(got[0], sum, DOCS * one, SUMMED);
    free(z), free(x), free(got[0]), free(got[1]), free(sum);
}

static void test_cuda_lora_gradients_match_plain_c(void **state)
{
    (void)state;
    check_lora(3, 65, 0);
    check_lora(3, 65, 1);
    check_lora(16, 128, 0);
    check_lora(70, 40, 1);
}

static void test_cuda_factors_are_padded_with_zeros(void **state)
{
    (void)state;
    const float from[6] = {1, 2, 3, 4, 5, 6};
    float got[4 * 8];
    dure_cuda_pad args = {.to = gpu_new(gpu, NULL, sizeof got / 2),
                          .from = gpu_new(gpu, from, sizeof from),
                          .to_rows = 4,
                          .ld = 8,
                          .rows = 2,
                          .columns = 3,
                          .by = 2};
    dure_cuda_pad_matrix(gpu, &args);
    gpu_read_bf16(got, gpu, args.to, 4 * 8);
    for (size_t i = 0; i < 4 * 8; i++) {
        bool inside = i / 8 < 2 && i % 8 < 3;
        assert_true(got[i] == (inside ? 2 * from[i / 8 * 3 + i % 8] : 0.0f));
    }
}

/* --- products --- */

static void check_product(const dure_device_product *kind)
{
    enum { M = 19, N = 24, K = 40 };
    float a[M * K], w[N * K], c[M * N], sum[M * N], got[M * N];
    gpu_fill(a, M * K, 1);
    gpu_fill(w, N * K, 1);
    gpu_fill(c, M * N, 1);
    for (size_t i = 0; i < M * N; i++) {
        double s = kind->add ? (double)c[i] : 0;
        for (size_t k = 0; k < K; k++)
            s += (double)a[i / N * K + k] *
                 (double)(kind->as_is ? w[k * N + i % N] : w[i % N * K + k]);
        sum[i] = (float)s;
    }
    dure_device_product p = {.c = gpu_new(gpu, c, sizeof c),
                             .a = gpu_new_bf16(gpu, a, M * K),
                             .w = gpu_new_bf16(gpu, w, N * K),
                             .ldc = N,
                             .lda = K,
                             .ldw = kind->as_is ? N : K,
                             .m = M,
                             .n = N,
                             .k = K,
                             .as_is = kind->as_is,
                             .add = kind->add,
                             .rounded = kind->rounded};
    dure_device_multiply(gpu, &p);
    if (kind->rounded)
        gpu_read_bf16(got, gpu, p.c, M * N);
    else
        gpu_read(got, gpu, p.c, sizeof got);
    gpu_near(got, sum, M * N, kind->rounded ? ROUNDED : SUMMED);
}

static void test_cuda_products_match_plain_c(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++)
        if (!(i & 2 && i & 4))
            check_product(&(dure_device_product){.as_is = i & 1, .add = i & 2, .rounded = i & 4});
}

static void test_cuda_no_such_device(void **state)
{
    (void)state;
    dure_device *device = NULL;
    dure_diag diag = {{0}};
    assert_err(dure_device_open(&device, 4000, &diag), DURE_ERR_DEVICE);
    assert_null(device);
    assert_non_null(strstr(diag.text, "no GPU number 4000"));
}

static int open_gpu(void **state)
{
    (void)state;
    gpu = gpu_open();
    printf("on: %s\n", dure_device_name(gpu));
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
        cmocka_unit_test(test_cuda_dequant_gives_the_bits_of_the_cpu),
        cmocka_unit_test(test_cuda_embedding_gives_the_bits_of_the_cpu),
        cmocka_unit_test(test_cuda_norm_matches_plain_c),
        cmocka_unit_test(test_cuda_norm_backward_matches_plain_c),
        cmocka_unit_test(test_cuda_rounding_is_to_nearest_even),
        cmocka_unit_test(test_cuda_rows_are_picked_and_put_back),
        cmocka_unit_test(test_cuda_gates_match_plain_c),
        cmocka_unit_test(test_cuda_heads_match_plain_c),
        cmocka_unit_test(test_cuda_cross_entropy_matches_plain_c),
        cmocka_unit_test(test_cuda_lora_gradients_match_plain_c),
        cmocka_unit_test(test_cuda_dropout_draws_the_bits_of_the_cpu),
        cmocka_unit_test(test_cuda_factors_are_padded_with_zeros),
        cmocka_unit_test(test_cuda_products_match_plain_c),
        cmocka_unit_test(test_cuda_no_such_device),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
