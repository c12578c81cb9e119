/* Gradients of an adapter's factors for one document at a time: sums over its rows alone. For
 * y = x W^T + z B^T with z = s x A^T: dA = dz^T x and dB = dy^T z. Hu et al., arXiv 2106.09685. */
#pragma once

#include "kernels/compute.h"

/* Rows [first, first + n) of one document. */
typedef struct dure_lora_rows {
    size_t first, n;
} dure_lora_rows;

/* One factor's gradient from activations z[rows x rank]: z^T x into out[rank x width], or x^T z
 * into out[width x rank] with `turned`. */
typedef struct dure_lora_sum {
    float *out;
    const void *z;
    size_t ldz;
} dure_lora_sum;

enum { DURE_LORA_SUMS_MAX = 3 };

/* Sums that share x[rows x width]. */
typedef struct dure_lora_sums {
    const void *x;
    size_t ldx, width, rank;
    dure_lora_sum list[DURE_LORA_SUMS_MAX];
    size_t n;
    bool turned;
} dure_lora_sums;

/* Columns [column, column + n) of x alone; in pieces of DURE_LORA_PIECE for threads to share. */
typedef struct dure_lora_columns {
    size_t column, n;
} dure_lora_columns;
enum { DURE_LORA_PIECE = 256 };

/* On the calling thread; `scratch` holds dure_lora_scratch_bytes(). */
void dure_lora_sums_run(const dure_lora_sums *sums, dure_lora_rows doc, dure_lora_columns columns,
                        void *scratch, const dure_cpu_ops *ops);
size_t dure_lora_scratch_bytes(size_t rank);
