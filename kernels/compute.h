/* What every op runs on: the leaf kernels of one instruction set, and a pool of threads.
 *
 * Activations (what flows between products) are kept in the number that the level multiplies:
 * bfloat16 where the CPU has a dot product for it, float32 elsewhere. They are `void *` here, and
 * dure_act_at() steps through them. Sums, the residual stream and all parameters are float32.
 *
 * A leaf kernel works on one thread, allocates nothing, and computes each output element by one
 * fixed sequence of operations: the rows beside it, their number and the number of threads never
 * change a bit of it. Sums over a row depend on that row's length alone. Levels may differ from
 * each other by rounding.
 *
 * Letters: rows are tokens; all matrices are row-major with a stride ("ld") in elements. W is the
 * width of a vector in floats; G the activations that one multiplication takes at once (1, or 2
 * bfloat16). */
#pragma once

#include "kernels/dropout.h"
#include "kernels/profile.h"
#include "kernels/threads.h"

#include <stdbool.h>

/* The right factor of a product, B[k x n], is laid out in panels of W columns:
 * panel[k / G][W][G], `panel` elements from one to the next. Columns up to a multiple of W and
 * depth up to a multiple of G are filled with zeros. */
typedef struct dure_panels {
    void *at;
    size_t panel;
} dure_panels;

/* Memory that is wanted soon, in `pieces` of `lines` cache lines, `stride` bytes apart; to be
 * written: other cores then give it up in time. */
typedef struct dure_near_run {
    const char *at;
    size_t lines, stride, pieces;
    bool written;
} dure_near_run;
enum { DURE_NEAR_LINE = 64, DURE_NEAR_RUNS = 12 };
/* What a gemm brings nearer line by line while it multiplies: a hint, so any address is good. */
typedef struct dure_near {
    const char *line; /* the next one, */
    size_t lines;     /* of those left of the piece */
    size_t run, n;    /* the run under way, all */
    bool written;
    dure_near_run runs[DURE_NEAR_RUNS];
} dure_near;
/* `bytes` at each piece. Leaves it out when there is no more room. */
void dure_near_add(dure_near *near, const void *at, size_t bytes, size_t stride, size_t pieces,
                   bool written);

/* C[m x n] = A[m x k] B, or += with `accumulate`. The sum over k runs upward from zero, one fused
 * multiply-add (of a pair, with G = 2) a step; what C held is added last, so a long sum made of
 * many calls keeps the rounding of its parts. Elements (i, p .. p + G) of A are at
 * a[i * a_row + p / G * a_step]: rows have a_step = G; the panels of a transposed A have a_row = G
 * and a_step = W * G. k is a multiple of G. */
typedef struct dure_gemm {
    float *c;
    size_t ldc;
    const void *a;
    size_t a_row, a_step;
    const void *b;
    size_t b_panel;
    size_t m, n, k;
    bool accumulate;
    /* The sums go on over a second pair of factors of k2 (0: none): rows of A with a_step = G. */
    const void *a2;
    size_t a2_row;
    const void *b2;
    size_t b2_panel, k2;
    dure_near *near; /* NULL: nothing */
} dure_gemm;

/* C[m x n] = X[m x k] Y[n x k]^T for few columns, from rows of activations; n is a multiple of 4.
 * The sum over k runs in the lanes of a vector, which are added at the end. */
typedef struct dure_dots {
    float *c;
    size_t ldc;
    const void *x;
    size_t ldx;
    const void *y;
    size_t ldy;
    size_t m, n, k;
} dure_dots;

/* Panels of a matrix X: of X^T for X[n x k], of X itself for X[k x n]. */
typedef struct dure_pack {
    dure_panels to;
    const void *x;
    size_t ld, n, k;
} dure_pack;

/* Constants of one AdamW step, see kernels/optimizer.h. */
typedef struct dure_adamw_step {
    float beta1, beta2, step_size, inverse_correction2, epsilon, decay;
} dure_adamw_step;

/* One row of attention scores on the way back. */
typedef struct dure_score_row {
    const float *s, *dp; /* scores before scaling; gradient of the probabilities */
    size_t seen, padded; /* elements to compute, and to write (the rest is zero) */
    float scale, lse, d; /* p = exp(scale s - lse); ds = p (dp - d) scale */
} dure_score_row;

typedef struct dure_cpu_ops {
    const char *name; /* "avx512" */
    size_t act_bytes; /* of an activation: 4 float32, 2 bfloat16 */
    size_t width, group;
    size_t rows; /* rows of a block that the gemm kernel likes */
    void (*gemm)(const dure_gemm *g);
    void (*dots)(const dure_dots *d);
    /* From activations and from float32. */
    void (*pack_nt)(const dure_pack *p);
    void (*pack_nn)(const dure_pack *p);
    void (*pack_nt_f32)(const dure_pack *p);
    void (*pack_nn_f32)(const dure_pack *p);
    /* Panels of X[k x n], given the panels of X^T (as pack_nt makes them of X, `from` at their
     * first, W apart in k): n columns from `column` on. n, k and `column` are multiples of W.
     * NULL at levels of float32. */
    void (*repack)(dure_panels to, dure_panels from, size_t column, size_t n, size_t k);
    /* n weights of a ggml type (kernels/dequant.h); n is a multiple of its block. */
    void (*dequant)(float *out, const uint8_t *blocks, size_t n, uint32_t type);
    /* to[p * width + r] = rows[r * ld + p] for r < n, 0 for r in [n, width), p < k. */
    void (*transpose)(float *to, size_t width, const float *rows, size_t ld, size_t n, size_t k);
    void (*to_bf16)(uint16_t *y, const float *x, size_t n); /* rounded to nearest even */

    /* Activations and float32. */
    void (*store)(void *y, const float *x, size_t n, float scale); /* y = scale x */
    void (*load)(float *y, const void *x, size_t n);
    float (*dot)(const float *x, const float *y, size_t n);
    float (*dot_acts)(const void *x, const void *y, size_t n);
    /* y = w . x / sqrt(mean(x^2) + eps) for one row; `kept` (may be NULL) gets x. */
    void (*rmsnorm)(void *y, void *kept, const float *x, const float *w, size_t n, float eps);
    /* y from what was kept. */
    void (*rmsnorm_again)(void *y, const void *kept, const float *w, size_t n, float eps);
    /* The same in float32: y may be x. */
    void (*norm)(float *y, void *kept, const float *x, const float *w, size_t n, float eps);
    /* dx += the gradient through rmsnorm of one row; `out` (may be NULL) gets dx. */
    void (*rmsnorm_backward)(float *dx, void *out, const float *dy, const void *kept,
                             const float *w, size_t n, float eps);
    /* h = silu(e) . u */
    void (*swiglu)(void *h, const void *e, const void *u, size_t n);
    /* h again, and e and u become their own gradients. */
    void (*swiglu_backward)(void *h, void *e, void *u, const float *dh, size_t n);
    /* The same with gelu (the form with tanh) for silu. */
    void (*geglu)(void *h, const void *e, const void *u, size_t n);
    void (*geglu_backward)(void *h, void *e, void *u, const float *dh, size_t n);
    /* Turns pairs (x[2i], x[2i+1]) by the angle whose (cos, sin) is at cos_sin[2i]; `sign` -1 turns
     * back. n is even. */
    void (*rotate)(float *x, const float *cos_sin, size_t n, float sign);
    /* Turns pairs (x[i], x[i + n/2]) by the angles with the cosines cos_sin[0..n/2) and the sines
     * after them. */
    void (*rotate_halves)(float *x, const float *cos_sin, size_t n, float sign);
    /* p = softmax(scale s) over s[0..seen), zero up to `padded`; returns log sum exp(scale s). What
     * s holds is lost. */
    float (*softmax)(void *p, float *s, size_t seen, size_t padded, float scale);
    void (*softmax_backward)(void *p, void *ds, const dure_score_row *row);
    /* e = exp(x - max x); returns the sum. */
    float (*exp_part)(void *e, float *max, const float *x, size_t n);
    void (*scale_acts)(void *x, float by, size_t n);           /* x *= by */
    void (*add)(float *y, const float *x, size_t n);           /* y += x */
    void (*axpy)(float *y, float a, const float *x, size_t n); /* y += a x */
    void (*scale)(float *y, float a, size_t n);                /* y *= a */
    void (*adamw)(float *w, float *m, float *v, const float *g, size_t n, const dure_adamw_step *s);
    /* y = x where the row's mask keeps columns [0, n), zero elsewhere. */
    void (*drop)(void *y, const void *x, size_t n, const dure_drop *d);
    /* y += x where it keeps columns [column, column + n); `column` is a multiple of
     * DURE_DROP_LANES. */
    void (*add_kept)(float *y, const float *x, size_t column, size_t n, const dure_drop *d);
} dure_cpu_ops;

typedef enum dure_cpu_level {
    DURE_CPU_REFERENCE,   /* plain C, one element after the other: the truth */
    DURE_CPU_PORTABLE,    /* the vector code for any CPU */
    DURE_CPU_AVX2,        /* with FMA and F16C */
    DURE_CPU_AVX512,      /* F, BW, DQ, VL */
    DURE_CPU_AVX512_BF16, /* and its bfloat16 dot product */
} dure_cpu_level;

/* The best level of this CPU, lowered by DURE_MAX_CPU_ISA in the environment: one of
 * DURE_CPU_LIMITS, in whatever case. Another value lowers nothing. */
#define DURE_CPU_LIMITS "PORTABLE, AVX2 or AVX512"
dure_cpu_level dure_cpu_best(void);
/* NULL, or the value of DURE_MAX_CPU_ISA that means nothing. */
const char *dure_cpu_limit_unknown(void);
/* The best level, at most `limit`. */
dure_cpu_level dure_cpu_best_up_to(dure_cpu_level limit);
/* NULL when this CPU or this build lacks the level. */
const dure_cpu_ops *dure_cpu_ops_of(dure_cpu_level level);

/* Activation i of an array. */
static inline void *dure_act_at(const dure_cpu_ops *ops, void *acts, size_t i)
{
    return (char *)acts + i * ops->act_bytes;
}
static inline const void *dure_act_in(const dure_cpu_ops *ops, const void *acts, size_t i)
{
    return (const char *)acts + i * ops->act_bytes;
}
static inline size_t dure_round_up(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

typedef struct dure_compute {
    const dure_cpu_ops *ops;
    dure_pool *pool;       /* borrowed */
    dure_profile *profile; /* NULL: not measured */
} dure_compute;

/* Runs body(state, first, last, scratch) over [0, n) in pieces of `grain` rows. */
typedef void dure_rows_body(void *state, size_t first, size_t last, void *scratch);
void dure_compute_rows(const dure_compute *c, size_t n, size_t grain, dure_rows_body *body,
                       void *state);
