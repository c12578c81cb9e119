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

/* x[rows x heads*head_dim], stride ld, rotated in place by +position[row], or by -position[row]
 * with `backward` (the transpose of the rotation). The table has every position. */
typedef struct dure_rope {
    const dure_rope_table *table;
    const uint32_t *position; /* rows */
    size_t rows, ld, heads, head_dim;
    bool backward;
} dure_rope;

void dure_rope_apply(float *x, const dure_rope *args, const dure_compute *c);
