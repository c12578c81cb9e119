/* Causal attention with grouped queries over packed documents: a token sees the earlier tokens of
 * its own document and itself. Dao et al., arXiv 2205.14135, for the backward from lse.
 *
 * Each document is worked on from its own first row in tiles of fixed height, so its numbers do
 * not depend on where it lies in the pack. */
#pragma once

#include "kernels/compute.h"

/* Queries are rows [first, first + n) of q; keys and values are n_keys rows of k and v from
 * first_key on. Query i sees keys [0, n_keys - n + i]. */
typedef struct dure_attention_doc {
    size_t first, n;
    const float *k, *v; /* this document's first key and value row */
    size_t n_keys;
} dure_attention_doc;

typedef struct dure_attention {
    const dure_attention_doc *docs;
    size_t n_docs;
    const float *q; /* rows x heads*dim */
    size_t ldq, ldk, ldv;
    size_t heads, heads_kv, dim;
    float scale;
    float *packed; /* dure_attention_packed_floats(), for transposed keys (and values) */
} dure_attention;

/* Floats that `packed` needs for documents of `rows` keys in all. */
size_t dure_attention_packed_floats(size_t rows, size_t docs, size_t heads_kv, size_t dim);
/* Scratch a thread needs for documents of at most `keys` keys. */
size_t dure_attention_scratch_bytes(size_t keys);

/* out[rows x heads*dim] with stride ldq; lse[rows x heads]. */
void dure_attention_forward(float *out, float *lse, const dure_attention *args,
                            const dure_compute *c);

/* dq, dk, dv are written whole (strides ldq, ldk, ldv); dk and dv point at the rows of the pack
 * as q does, so this needs n_keys == n for every document. */
typedef struct dure_attention_grad {
    const dure_attention *args;
    const float *out, *lse, *dout;
    float *dq, *dk, *dv;
} dure_attention_grad;

void dure_attention_backward(const dure_attention_grad *grad, const dure_compute *c);
