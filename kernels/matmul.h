/* Products with frozen weights that stay in the form the file has them.
 *
 * A weight is W[out x in] in any decodable ggml type. A product decodes it in panels that fit the
 * cache and uses each panel for all rows, so no float32 copy of the model is ever held. Where the
 * CPU multiplies bfloat16 in hardware and oneDNN has a row-independent kernel for it
 * dure_bf16_pack() (kernels/bf16.h) keeps a packed bfloat16 copy instead.
 *
 * Every output element is a sum in one fixed order: independent of rows, threads and packing. */
#pragma once

#include "kernels/compute.h"

typedef struct dure_weight_bf16 dure_weight_bf16;

typedef struct dure_weight {
    uint32_t type;            /* ggml id; 0 is float32 */
    size_t out, in;           /* rows and columns */
    const void *data;         /* borrowed; row-major */
    dure_weight_bf16 *packed; /* NULL: decode on the fly */
} dure_weight;

/* One product: y[rows x w->out] = x[rows x w->in] W^T, or += with `accumulate`; ldy and ldx are
 * strides. */
typedef struct dure_product {
    float *y;
    size_t ldy;
    const float *x;
    size_t ldx;
    const dure_weight *w;
    bool accumulate;
} dure_product;

/* Products that run side by side: none reads what another writes. */
enum { DURE_PRODUCTS_MAX = 8 };
typedef struct dure_matmul {
    size_t rows;
    const dure_product *products;
    size_t n_products;
} dure_matmul;

void dure_matmul_forward(const dure_matmul *job, const dure_compute *c);
/* The same for a handful of rows (one token of generation): each row of W is decoded and
 * multiplied at once. Its sums run in another order than dure_matmul_forward()'s, so whoever
 * needs results that do not depend on the number of rows must not choose by it. */
void dure_matmul_few(const dure_matmul *job, const dure_compute *c);

/* One term of an input's gradient: dy[rows x w->out] with stride lddy, times W. */
typedef struct dure_product_grad {
    const float *dy;
    size_t lddy;
    const dure_weight *w;
} dure_product_grad;

/* dx[rows x in] = sum over the terms, in their order; or += with `accumulate`. */
typedef struct dure_matmul_grad {
    float *dx;
    size_t lddx;
    const dure_product_grad *terms;
    size_t n_terms;
    bool accumulate;
} dure_matmul_grad;

/* n <= DURE_PRODUCTS_MAX gradients over the same number of rows, side by side. */
void dure_matmul_backward(const dure_matmul_grad *grads, size_t n, size_t rows,
                          const dure_compute *c);

/* Row `row` of W as float32 into out[0..in). */
void dure_weight_row(float *out, const dure_weight *w, size_t row, const dure_compute *c);

/* Scratch a thread needs for any product whose inner dimension is at most `inner`. */
size_t dure_matmul_scratch_bytes(size_t inner);
