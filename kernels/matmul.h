/* Products with frozen weights that stay in the form the file has them.
 *
 * A weight is W[out x in] in any decodable ggml type. A product decodes it in panels that fit the
 * cache and uses each panel for all rows, so no float32 copy of the model is ever held. Where the
 * CPU multiplies bfloat16 in hardware and oneDNN has a row-independent kernel for it
 * (`brg...bf16`), dure_weight_pack() keeps a packed bfloat16 copy instead.
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

/* One product of a group that shares its input: y[rows x w->out] with stride ldy. */
typedef struct dure_product {
    float *y;
    size_t ldy;
    const dure_weight *w;
} dure_product;

enum { DURE_PRODUCTS_MAX = 4 };

/* y = x W^T for each product of the group; x[rows x in], stride ldx. `accumulate`: y += . */
typedef struct dure_matmul {
    const float *x;
    size_t ldx, rows;
    const dure_product *products;
    size_t n_products;
    bool accumulate;
} dure_matmul;

void dure_matmul_forward(const dure_matmul *job, const dure_compute *c);

/* dx[rows x in] = dy[rows x out] W, or += with `accumulate`. */
typedef struct dure_matmul_grad {
    float *dx;
    size_t lddx;
    const float *dy;
    size_t lddy, rows;
    const dure_weight *w;
    bool accumulate;
} dure_matmul_grad;

void dure_matmul_backward(const dure_matmul_grad *job, const dure_compute *c);

/* y[out] = W x for one row: decodes W row by row, as fast as memory delivers it. */
void dure_matvec(float *y, const float *x, const dure_weight *w, const dure_compute *c);

/* Row `row` of W as float32 into out[0..in). */
void dure_weight_row(float *out, const dure_weight *w, size_t row, const dure_compute *c);

/* Scratch a thread needs for any product whose inner dimension is at most `inner`. */
size_t dure_matmul_scratch_bytes(size_t inner);
