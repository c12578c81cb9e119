/* What becomes of the heads of q and k between their product and the scores: a bias, an RMS norm
 * over each head, the rotation; in this order, any of them or none. */
#pragma once

#include "kernels/matmul.h"
#include "kernels/rope.h"

enum { DURE_HEADS_WIDEST = 256 }; /* elements of a head with a norm */

typedef struct dure_heads {
    void *y; /* activations, rows x heads*dim, stride ldy */
    size_t ldy, dim;
    const float *bias; /* heads*dim, or NULL */
    const float *norm; /* dim gains, or NULL */
    float eps;
    void *kept; /* with a norm: what is normed, for the backward pass, laid out as y */
    const dure_rope_table *table; /* NULL: not turned */
    const uint32_t *position;     /* of every row of the pass */
} dure_heads;

/* What the columns of a product's blocks must be a multiple of; 0: any. */
size_t dure_heads_grain(const dure_heads *heads);
/* Finishes such a product. */
void dure_finish_heads(void *heads, const dure_sums *sums, const dure_cpu_ops *ops);

/* One head of one row on the way back: x[dim], the gradient of what the scores saw, becomes that of
 * the product and is stored at `to`. x is lost. */
void dure_heads_back(void *to, float *x, const dure_heads *heads, size_t row, size_t head,
                     const dure_cpu_ops *ops);
