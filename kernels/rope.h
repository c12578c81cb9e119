/* Rotary position embedding on adjacent pairs (2i, 2i+1), the order of arch `llama` in GGUF.
 * Su et al., arXiv 2104.09864. */
#pragma once

#include "kernels/compute.h"

/* cos and sin of position * freq_base^(-2i/dim) / factor[i], computed in double. */
typedef struct dure_rope_table {
    float *cos_sin; /* positions x dim: (cos, sin) pairs; owned */
    size_t positions, dim;
} dure_rope_table;

typedef struct dure_rope_opts {
    size_t positions, dim; /* dim rotated elements of each head, even */
    double freq_base;
    const float *factors; /* dim / 2 divisors, or NULL */
} dure_rope_opts;

DURE_MUST_USE dure_err dure_rope_table_init(dure_rope_table *out, const dure_rope_opts *opts);
void dure_rope_table_fini(dure_rope_table *table);

/* x[rows x heads*head_dim], stride ld, rotated in place by +position[row], or by -position[row]
 * with `backward` (the transpose of the rotation). */
typedef struct dure_rope {
    const dure_rope_table *table;
    const uint32_t *position; /* rows */
    size_t rows, ld, heads, head_dim;
    bool backward;
} dure_rope;

void dure_rope_apply(float *x, const dure_rope *args, const dure_compute *c);
