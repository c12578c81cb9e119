/* Causal attention with grouped queries over packed documents: a token sees the earlier tokens of
 * its own document and itself. Dao et al., arXiv 2205.14135, for the backward from lse.
 *
 * Each document is worked on from its own first row in tiles of fixed height, so its numbers do
 * not depend on where it lies in the pack. With a window, a token sees only the last `window` of
 * these, itself included. q, k, v, out and their gradients are activations. */
#pragma once

#include "kernels/heads.h"

/* Queries are rows [first, first + n) of q; keys and values are n_keys rows of k and v from this
 * document's first on. Query i sees keys [0, n_keys - n + i]. */
typedef struct dure_attention_doc {
    size_t first, n;
    const void *k, *v;
    size_t n_keys;
} dure_attention_doc;

typedef struct dure_attention {
    const dure_attention_doc *docs;
    size_t n_docs;
    const void *q; /* rows x heads*dim */
    size_t ldq, ldk, ldv;
    size_t heads, heads_kv, dim; /* dim is even */
    size_t window;               /* 0: all */
    float scale;
    void *packed; /* dure_attention_packed_bytes(), for panels of keys and values */
} dure_attention;

/* Bytes that `packed` needs for documents of `keys` keys in all. */
size_t dure_attention_packed_bytes(size_t keys, size_t docs, size_t heads_kv, size_t dim,
                                   const dure_cpu_ops *ops);
/* Scratch a thread needs for documents of at most `keys` keys. */
size_t dure_attention_scratch_bytes(size_t keys, size_t dim, const dure_cpu_ops *ops);

/* out[rows x heads*dim] with stride ldq; lse[rows x heads]. */
void dure_attention_forward(void *out, float *lse, const dure_attention *args,
                            const dure_compute *c);

/* dq, dk, dv are written whole (strides ldq, ldk, ldv); dk and dv point at the rows of the pack
 * as q does, so this needs n_keys == n for every document. dq and dk are taken back to the products
 * (dure_heads_back) before they are rounded. */
typedef struct dure_attention_grad {
    const dure_attention *args;
    const void *out, *dout;
    const float *lse;
    void *dq, *dk, *dv;
    const dure_heads *heads_q, *heads_k;
} dure_attention_grad;

void dure_attention_backward(const dure_attention_grad *grad, const dure_compute *c);
