/* The micro-kernel: a block of up to MR rows by two vectors of C stays in registers while k runs.
 *
 * Each element of C is one chain of fused multiply-adds over k from zero, to which an earlier value
 * is added last, whatever the block it falls in: that is what makes a row independent of the rows
 * beside it. Columns past n are zero in the panels, so an edge differs only in what is stored. */
#pragma once

#include "kernels/compute.h"
#include "kernels/cpu/act.h"

/* Rows of the largest block: the accumulators, two vectors of B and one of A fill the registers. */
#if defined(__AVX512F__)
enum { MR = 14 };
#else
enum { MR = 6 };
#endif

/* Steps over k for each line that is brought nearer. */
enum { NEAR_STEPS = 2 };

/* A pair of factors. */
typedef struct factors {
    const act *a, *b;
    size_t a_row, a_step, b_panel, k;
} factors;

typedef struct block {
    float *c;
    size_t ldc;
    factors of[2];
    bool accumulate;
    dure_near *near;
} block;

/* One line. It calls nothing: that would cost the micro-kernel its registers. */
static inline void bring_nearer(dure_near *near)
{
    if (near->lines == 0) {
        if (near->run == near->n) return;
        dure_near_run *run = &near->runs[near->run];
        near->line = run->at;
        near->lines = run->lines;
        near->written = run->written;
        run->at += run->stride;
        if (--run->pieces == 0) near->run++;
    }
    if (near->written)
        __builtin_prefetch(near->line, 1, 2);
    else
        __builtin_prefetch(near->line, 0, 2);
    near->line += DURE_NEAR_LINE;
    near->lines--;
}

/* rows and vectors are constants at every call, so the arrays become registers. */
static inline __attribute__((always_inline)) void
block_add(const int rows, const int vectors, vec acc[MR][2], const factors *f, dure_near *near)
{
    const act *a[(MR + 2) / 3], *b = f->b;
    const size_t row = f->a_row, step = f->a_step, panel = f->b_panel;
    /* One pointer for three rows keeps the addresses in registers too. */
#pragma GCC unroll 8
    for (int r = 0; r < rows; r += 3)
        a[r / 3] = f->a + (size_t)r * row;
    for (size_t left = f->k / G; left;) {
        size_t n = left < NEAR_STEPS ? left : NEAR_STEPS;
        left -= n;
        bring_nearer(near);
        do {
            act_vec b0 = a_panel(b), b1 = vectors == 2 ? a_panel(b + panel) : b0;
            b += W * G;
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                act_vec x = a_group(a[r / 3] + (size_t)(r % 3) * row);
                acc[r][0] = a_multiply(x, b0, acc[r][0]);
                if (vectors == 2) acc[r][1] = a_multiply(x, b1, acc[r][1]);
            }
#pragma GCC unroll 8
            for (int r = 0; r < rows; r += 3)
                a[r / 3] += step;
        } while (--n);
    }
}

static inline __attribute__((always_inline)) void block_run(const int rows, const int vectors,
                                                            const block *t)
{
    vec acc[MR][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            acc[r][v] = v_set(0);
    block_add(rows, vectors, acc, &t->of[0], t->near);
    if (t->of[1].k) block_add(rows, vectors, acc, &t->of[1], t->near);
    float *c = t->c;
    const size_t ldc = t->ldc;
    if (t->accumulate) {
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                acc[r][v] = v_load(c + (size_t)r * ldc + v * W) + acc[r][v];
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++, c += ldc)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            v_store(c + v * W, acc[r][v]);
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

/* The last n < W columns: a whole vector of sums in a block of its own. */
static void gemm_edge(block t, size_t rows, size_t n)
{
    float c[MR * W], *out = t.c;
    size_t ldc = t.ldc;
    for (size_t r = 0; r < rows && t.accumulate; r++)
        v_store(c + r * W, v_load_n(out + r * ldc, n));
    t.c = c;
    t.ldc = W;
    micro_kernels[rows][1](&t);
    for (size_t r = 0; r < rows; r++)
        v_store_n(out + r * ldc, v_load(c + r * W), n);
}

static void gemm(const dure_gemm *g)
{
    dure_near nothing;
    nothing.lines = nothing.run = nothing.n = 0;
    /* Blocks of about the same height: a last one of few rows would wait for its own sums. */
    size_t blocks = (g->m + MR - 1) / MR, height = blocks ? (g->m + blocks - 1) / blocks : 1;
    for (size_t i = 0; i < g->m; i += height) {
        size_t rows = g->m - i < height ? g->m - i : height, j = 0;
        block t = {.ldc = g->ldc,
                   .of = {{.a = (const act *)g->a + i * g->a_row,
                           .a_row = g->a_row,
                           .a_step = g->a_step,
                           .b_panel = g->b_panel,
                           .k = g->k},
                          {.a = (const act *)g->a2 + i * g->a2_row,
                           .a_row = g->a2_row,
                           .a_step = G,
                           .b_panel = g->b2_panel,
                           .k = g->k2}},
                   .accumulate = g->accumulate,
                   .near = g->near ? g->near : &nothing};
        while (j < g->n) {
            size_t vectors = g->n - j >= 2 * W ? 2 : 1;
            t.c = g->c + i * g->ldc + j;
            t.of[0].b = (const act *)g->b + j / W * g->b_panel;
            t.of[1].b = (const act *)g->b2 + j / W * g->b2_panel;
            if (g->n - j < W)
                gemm_edge(t, rows, g->n - j);
            else
                micro_kernels[rows][vectors](&t);
            j += vectors * W;
        }
    }
}
