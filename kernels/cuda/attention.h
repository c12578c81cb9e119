/* Causal attention with grouped queries over packed documents on a GPU: the contract of
 * kernels/attention.h with activations of bfloat16. Dao et al., arXiv 2205.14135 and 2307.08691.
 *
 * Scores are never held. Every document is cut into tiles from its own first row on, so its numbers
 * do not depend on where it lies in the pack. Products are those of the tensor cores: bfloat16 with
 * float32 sums. Scores, softmax and its gradient are float32; probabilities and the gradients of
 * scores are rounded to bfloat16 for the second product, as on the CPU's bfloat16 level. */
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DURE_CUDA_HEAD_WIDEST = 256 };

/* Rows [row, row + n) of document `doc`, which has rows [first, end). */
typedef struct dure_cuda_tile {
    int32_t row, n, first, end, doc;
} dure_cuda_tile;

/* What a conversation has had so far: a key and then a value of heads_kv * dim a token. */
typedef struct dure_cuda_cache {
    uint16_t *rows;        /* of layer 0 */
    size_t layer;          /* elements from one layer to the next */
    int32_t first, n, had; /* the document's rows in the pass; they go on behind `had` others */
} dure_cuda_cache;

/* Rows of a tile, the last of a document aside; without caches a document's first tile starts at
 * its first row. */
unsigned dure_cuda_tile_rows(void);

/* What is read of q, k, v, out, dout and caches lies at multiples of 16 bytes, and what is written
 * of gradients at multiples of 8: ld and dim are multiples of 8, ldd is even. */
typedef struct dure_cuda_attention {
    const dure_cuda_tile *tiles;
    size_t n_tiles, rows;
    const uint16_t *q, *k, *v; /* rows, stride ld */
    size_t ld;
    uint32_t heads, heads_kv, dim; /* dim: at most DURE_CUDA_HEAD_WIDEST */
    uint32_t window;               /* tokens a query sees, itself included; 0: all */
    float scale;
    uint16_t *out; /* rows x heads*dim */
    float *lse;    /* rows x heads */
    /* Forward alone: documents that go on, one cache each; NULL: they are whole. */
    const dure_cuda_cache *caches;
    size_t n_caches, layer;
    /* Backward. */
    const uint16_t *dout; /* as out */
    float *delta;         /* as lse: room */
    float *dq, *dk, *dv;  /* rows, stride ldd: written whole */
    size_t ldd;
} dure_cuda_attention;
/* `out` and `lse` are written, and read on the way back; the pass's keys and values are added to
 * the caches. A conversation that goes on by one token alone is summed in another order than one of
 * more, whatever else is in the pass. */
void dure_cuda_attention_forward(dure_device *device, const dure_cuda_attention *args);
void dure_cuda_attention_backward(dure_device *device, const dure_cuda_attention *args);

#ifdef __cplusplus
}
#endif
