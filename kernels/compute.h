/* What every op runs on: the leaf kernels of one instruction set, and a pool of threads.
 *
 * A leaf kernel works on one thread, allocates nothing, and computes each output element by one
 * fixed sequence of operations: the rows beside it, their number and the number of threads never
 * change a bit of it. Sums over a row depend on that row's length alone. Instruction sets may
 * differ from each other by rounding.
 *
 * Letters: rows are tokens; all matrices are row-major float32 with a stride ("ld") in elements. */
#pragma once

#include "kernels/threads.h"

#include <stdbool.h>

/* C[m x n] = A[m x k] B[k x n], or += with `accumulate`. The sum over k runs upward from zero, one
 * fused multiply-add a term; what C held is added last, so a long sum made of many calls keeps the
 * rounding of its parts. A's element (i, p) is a[i * a_row + p * a_step]: A may be transposed. */
typedef struct dure_gemm {
    float *c;
    size_t ldc;
    const float *a;
    size_t a_row, a_step;
    const float *b;
    size_t ldb;
    size_t m, n, k;
    bool accumulate;
} dure_gemm;

/* Constants of one AdamW step, see kernels/optimizer.h. */
typedef struct dure_adamw_step {
    float beta1, beta2, step_size, inverse_correction2, epsilon, decay;
} dure_adamw_step;

typedef struct dure_cpu_ops {
    const char *name; /* "avx512" */
    void (*gemm)(const dure_gemm *g);
    /* n weights of a ggml type (kernels/dequant.h); n is a multiple of its block. */
    void (*dequant)(float *out, const uint8_t *blocks, size_t n, uint32_t type);
    /* panel[p * width + r] = rows[r * ld + p] for r < n, 0 for r in [n, width), p < k. */
    void (*transpose)(float *panel, size_t width, const float *rows, size_t ld, size_t n, size_t k);
    void (*to_bf16)(uint16_t *y, const float *x, size_t n); /* rounded to nearest even */
    float (*dot)(const float *x, const float *y, size_t n);
    /* y = w . x / sqrt(mean(x^2) + eps) for one row. */
    void (*rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps);
    /* dx += the gradient through rmsnorm of one row. */
    void (*rmsnorm_backward)(float *dx, const float *dy, const float *x, const float *w, size_t n,
                             float eps);
    /* h = silu(e) . u */
    void (*swiglu)(float *h, const float *e, const float *u, size_t n);
    /* de, du from dh; may write over e and u. */
    void (*swiglu_backward)(float *de, float *du, const float *dh, const float *e, const float *u,
                            size_t n);
    /* s = exp(scale * s - lse) in place and its lse = log sum exp(scale * s), returned. */
    float (*softmax)(float *s, size_t n, float scale);
    /* s = exp(scale * s - lse), with lse known. */
    void (*softmax_again)(float *s, size_t n, float scale, float lse);
    /* ds = p . (dp - d) * scale in place of dp. */
    void (*softmax_backward)(float *dp, const float *p, size_t n, float d, float scale);
    /* log sum exp of a row; sums in double in blocks of fixed length. */
    float (*logsumexp)(const float *x, size_t n);
    /* x = weight * exp(x - lse) */
    void (*exp_scaled)(float *x, size_t n, float lse, float weight);
    void (*add)(float *y, const float *x, size_t n);           /* y += x */
    void (*axpy)(float *y, float a, const float *x, size_t n); /* y += a x */
    void (*scale)(float *y, float a, size_t n);                /* y *= a */
    void (*adamw)(float *w, float *m, float *v, const float *g, size_t n, const dure_adamw_step *s);
} dure_cpu_ops;

typedef enum dure_cpu_level {
    DURE_CPU_REFERENCE, /* plain C, one element after the other: the truth */
    DURE_CPU_PORTABLE,  /* the vector code for any CPU */
    DURE_CPU_AVX2,      /* with FMA and F16C */
    DURE_CPU_AVX512,    /* F, BW, DQ, VL */
} dure_cpu_level;

/* The best level of this CPU, lowered by ONEDNN_MAX_CPU_ISA (SSE41, AVX, AVX2, AVX512_CORE, ...)
 * so that one variable limits all products of a run. */
dure_cpu_level dure_cpu_best(void);
/* NULL when this CPU or this build lacks the level. */
const dure_cpu_ops *dure_cpu_ops_of(dure_cpu_level level);

typedef struct dure_compute {
    const dure_cpu_ops *ops;
    dure_pool *pool; /* borrowed */
} dure_compute;

/* Runs body(state, first, last, scratch) over [0, n) in pieces of `grain` rows. */
typedef void dure_rows_body(void *state, size_t first, size_t last, void *scratch);
void dure_compute_rows(const dure_compute *c, size_t n, size_t grain, dure_rows_body *body,
                       void *state);
