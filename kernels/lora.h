/* LoRA beside a frozen product: y += s (x A^T) B^T, and the gradients of A and B for one document
 * at a time. Hu et al., arXiv 2106.09685.
 *
 * A and B are plain dure_weight of type float32, so the skinny products are those of
 * kernels/matmul.h; this header has what is special: sums over the rows of one document alone. */
#pragma once

#include "kernels/compute.h"

/* Rows [first, first + n) of one document. */
typedef struct dure_lora_rows {
    size_t first, n;
} dure_lora_rows;

/* da[rank x in] = dz^T x over the document's rows. */
typedef struct dure_lora_grad_a {
    float *da;
    const float *dz; /* rows x rank, stride lddz */
    size_t lddz;
    const float *x; /* rows x in, stride ldx */
    size_t ldx, in, rank;
} dure_lora_grad_a;

/* db[out x rank] = dy^T z over the document's rows; z has the scale in it. */
typedef struct dure_lora_grad_b {
    float *db;
    const float *dy; /* rows x out, stride lddy */
    size_t lddy;
    const float *z; /* rows x rank, stride ldz */
    size_t ldz, out, rank;
} dure_lora_grad_b;

/* One thread each; `scratch` for b holds rank * out floats. */
void dure_lora_grad_a_run(const dure_lora_grad_a *g, dure_lora_rows doc, const dure_cpu_ops *ops);
void dure_lora_grad_b_run(const dure_lora_grad_b *g, dure_lora_rows doc, float *scratch,
                          const dure_cpu_ops *ops);
