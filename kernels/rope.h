/* Rotary position embedding: pairs of elements of each head turn by an angle that is the position
 * times the pair's frequency. Su et al., arXiv 2104.09864; frequencies stretched to longer contexts
 * as in Peng et al., arXiv 2309.00071 (YaRN), in llama.cpp's form (ggml-cpu/ops.cpp, rope_yarn). */
#pragma once

#include "kernels/compute.h"

/* Frequencies above `fast` turns in the original context stay, below `slow` turns they are
 * stretched, and are mixed in between. */
typedef struct dure_rope_yarn {
    double fast, slow; /* 32 and 1 in most models */
    double context;    /* the original one; 0: no YaRN */
} dure_rope_yarn;

typedef struct dure_rope_opts {
    size_t dim; /* rotated elements of each head, even */
    double freq_base;
    const float *factors; /* dim / 2 divisors of the frequencies, or NULL */
    bool halves;          /* pairs are (i, i + dim/2), else (2i, 2i+1) */
    double stretch;       /* every frequency is divided by it; 0 means 1 */
    dure_rope_yarn yarn;
    double magnitude; /* of the rotated vector; 0 means 1 */
} dure_rope_opts;

/* cos and sin of position * frequency, computed in double, times the magnitude. */
typedef struct dure_rope_table {
    float *cos_sin; /* positions x dim, owned: cosine and sine of pair after pair, or with halves
                       all cosines and then all sines */
    size_t positions, dim;
    double *frequency; /* dim / 2; owned */
    double magnitude;
    bool halves;
} dure_rope_table;

/* A table without any position yet; contexts are long, and most records short. */
DURE_MUST_USE dure_err dure_rope_table_init(dure_rope_table *out, const dure_rope_opts *opts);
/* Grows it to at least [0, positions); no rotation may be under way. On error it is as before. */
DURE_MUST_USE dure_err dure_rope_table_reserve(dure_rope_table *table, size_t positions);
void dure_rope_table_fini(dure_rope_table *table);

typedef struct dure_rope {
    const dure_rope_table *table;
    const uint32_t *position; /* of every row of the pass */
    size_t head_dim;
} dure_rope;

/* Turns n columns of row `row` in place by its position; the first column is the first of a head
 * plus `column` (even; whole heads with table->halves). `sign` -1 turns back, which is the
 * transpose. The table has the row's position. */
void dure_rope_turn(float *x, size_t n, const dure_rope *rope, size_t row, size_t column,
                    float sign, const dure_cpu_ops *ops);
