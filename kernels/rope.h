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

typedef struct dure_rope {
    const dure_rope_table *table;
    const uint32_t *position; /* of every row of the pass */
    size_t head_dim;
} dure_rope;

/* Turns n columns of row `row` in place by its position; the first column is the first of a head
 * plus `column` (even). `sign` -1 turns back, which is the transpose. */
void dure_rope_turn(float *x, size_t n, const dure_rope *rope, size_t row, size_t column,
                    float sign, const dure_cpu_ops *ops);
