/* The micro-kernel: a block of MR rows by two vectors of C stays in registers while k runs.
 *
 * Each element of C is one chain of fused multiply-adds over k from zero, to which an earlier value
 * is added last, whatever the block it falls in: that is what makes a row independent of the rows
 * beside it. Edges in n go through a padded copy of the panel; edges in m through kernels of fewer
 * rows. */
#pragma once

#include "kernels/compute.h"
#include "kernels/cpu/vec.h"

/* Rows of the largest block: the accumulators, two vectors of B and one of A fill the registers. */
#if defined(__AVX512F__)
enum { MR = 14 };
#elif defined(__AVX2__)
enum { MR = 6 };
#else
enum { MR = 6 };
#endif
enum { NR = 2 * W, K_PAD = 256 };

typedef struct block {
    float *c;
    const float *a, *b;
    size_t ldc, a_row, a_step, ldb, k;
    bool accumulate;
} block;

/* rows and vectors are constants at every call, so the arrays become registers. */
static inline __attribute__((always_inline)) void block_run(const int rows, const int vectors,
                                                            const block *t)
{
    vec acc[MR][2];
    const float *a[(MR + 2) / 3], *b = t->b;
    const size_t row = t->a_row, step = t->a_step, ldb = t->ldb;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            acc[r][v] = v_set(0);
    /* One pointer for three rows keeps the addresses in registers too. */
#pragma GCC unroll 8
    for (int r = 0; r < rows; r += 3)
        a[r / 3] = t->a + (size_t)r * row;
    for (size_t k = t->k; k; k--) {
        vec b0 = v_load(b), b1 = vectors == 2 ? v_load(b + W) : b0;
        b += ldb;
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vec x = v_set(a[r / 3][(size_t)(r % 3) * row]);
            acc[r][0] = v_fma(x, b0, acc[r][0]);
            if (vectors == 2) acc[r][1] = v_fma(x, b1, acc[r][1]);
        }
#pragma GCC unroll 8
        for (int r = 0; r < rows; r += 3)
            a[r / 3] += step;
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            float *c = t->c + (size_t)r * t->ldc + v * W;
            if (t->accumulate) acc[r][v] = v_load(c) + acc[r][v];
            v_store(c, acc[r][v]);
        }
}

#define BLOCK(rows)                                                                                \
    static void block_##rows##_1(const block *t)                                                   \
    {                                                                                              \
        block_run(rows, 1, t);                                                                     \
    }                                                                                              \
    static void block_##rows##_2(const block *t)                                                   \
    {                                                                                              \
        block_run(rows, 2, t);                                                                     \
    }
BLOCK(1)
BLOCK(2)
BLOCK(3)
BLOCK(4)
BLOCK(5)
BLOCK(6)
#if defined(__AVX512F__)
BLOCK(7)
BLOCK(8)
BLOCK(9)
BLOCK(10)
BLOCK(11)
BLOCK(12)
BLOCK(13)
BLOCK(14)
#endif

static void (*const micro_kernels[MR + 1][3])(const block *) = {
    {NULL, NULL, NULL},
    {NULL, block_1_1, block_1_2},
    {NULL, block_2_1, block_2_2},
    {NULL, block_3_1, block_3_2},
    {NULL, block_4_1, block_4_2},
    {NULL, block_5_1, block_5_2},
    {NULL, block_6_1, block_6_2},
#if defined(__AVX512F__)
    {NULL, block_7_1, block_7_2},
    {NULL, block_8_1, block_8_2},
    {NULL, block_9_1, block_9_2},
    {NULL, block_10_1, block_10_2},
    {NULL, block_11_1, block_11_2},
    {NULL, block_12_1, block_12_2},
    {NULL, block_13_1, block_13_2},
    {NULL, block_14_1, block_14_2},
#endif
};

/* All m rows of n = 1 or 2 whole vectors of columns. */
static void gemm_columns(const dure_gemm *g, size_t column, size_t vectors)
{
    block t = {.b = g->b + column,
               .ldc = g->ldc,
               .a_row = g->a_row,
               .a_step = g->a_step,
               .ldb = g->ldb,
               .k = g->k,
               .accumulate = g->accumulate};
    for (size_t i = 0; i < g->m; i += MR) {
        size_t rows = g->m - i < MR ? g->m - i : MR;
        t.c = g->c + i * g->ldc + column;
        t.a = g->a + i * g->a_row;
        micro_kernels[rows][vectors](&t);
    }
}

/* The last n < W columns: the same chain in pieces of K_PAD steps over padded copies. */
static void gemm_edge(const dure_gemm *g, size_t column, size_t n)
{
    float b[K_PAD * W], c[MR * W];
    for (size_t k = 0; k == 0 || k < g->k; k += K_PAD) {
        size_t depth = g->k - k < K_PAD ? g->k - k : K_PAD;
        for (size_t p = 0; p < depth; p++)
            v_store(b + p * W, v_load_n(g->b + (k + p) * g->ldb + column, n));
        block t = {.c = c,
                   .b = b,
                   .ldc = W,
                   .a_row = g->a_row,
                   .a_step = g->a_step,
                   .ldb = W,
                   .k = depth,
                   .accumulate = true};
        for (size_t i = 0; i < g->m; i += MR) {
            size_t rows = g->m - i < MR ? g->m - i : MR;
            float *out = g->c + i * g->ldc + column;
            for (size_t r = 0; r < rows; r++)
                v_store(c + r * W, k || g->accumulate ? v_load_n(out + r * g->ldc, n) : v_set(0));
            t.a = g->a + i * g->a_row + k * g->a_step;
            micro_kernels[rows][1](&t);
            for (size_t r = 0; r < rows; r++)
                v_store_n(out + r * g->ldc, v_load(c + r * W), n);
        }
    }
}

static void gemm(const dure_gemm *g)
{
    size_t j = 0;
    for (; j + NR <= g->n; j += NR)
        gemm_columns(g, j, 2);
    if (j + W <= g->n) {
        gemm_columns(g, j, 1);
        j += W;
    }
    if (j < g->n) gemm_edge(g, j, g->n - j);
}

static void transpose(float *panel, size_t width, const float *rows, size_t ld, size_t n, size_t k)
{
    size_t p = 0;
#if defined(__AVX2__)
    /* Eight columns at a time: 8 x 8 blocks through the registers. */
    for (; p + 8 <= k; p += 8) {
        size_t r = 0;
        for (; r + 8 <= n; r += 8) {
            const float *x = rows + r * ld + p;
            __m256 a[8], b[8];
#pragma GCC unroll 8
            for (int i = 0; i < 8; i++)
                a[i] = _mm256_loadu_ps(x + (size_t)i * ld);
#pragma GCC unroll 4
            for (int i = 0; i < 8; i += 2) {
                b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
                b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
            }
#pragma GCC unroll 2
            for (int i = 0; i < 8; i += 4) {
                a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
                a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xEE);
                a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
                a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xEE);
            }
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                _mm256_storeu_ps(panel + (p + (size_t)i) * width + r,
                                 _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
                _mm256_storeu_ps(panel + (p + (size_t)i + 4) * width + r,
                                 _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
            }
        }
        for (; r < width; r++)
            for (size_t q = p; q < p + 8; q++)
                panel[q * width + r] = r < n ? rows[r * ld + q] : 0;
    }
#endif
    for (; p < k; p++)
        for (size_t r = 0; r < width; r++)
            panel[p * width + r] = r < n ? rows[r * ld + p] : 0;
}
