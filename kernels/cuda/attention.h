/* Causal attention with grouped queries over packed documents on a GPU: the contract of
 * kernels/attention.h with activations of bfloat16, n_keys == n for every document.
 * Dao et al., arXiv 2205.14135 and 2307.08691.
 *
 * Scores are never held. Every document is cut into tiles from its own first row on, so its numbers
 * do not depend on where it lies in the pack. Products here are float32 multiply-adds, not those of
 * the tensor cores. */
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { DURE_CUDA_HEAD_WIDEST = 256 };

/* Rows [row, row + n) of the document at rows [first, end). */
typedef struct dure_cuda_tile {
    int32_t row, n, first, end;
} dure_cuda_tile;

/* Rows of a tile, the last of a document aside. */
unsigned dure_cuda_tile_rows(unsigned dim);

typedef struct dure_cuda_attention {
    const dure_cuda_tile *tiles;
    size_t n_tiles, rows;
    const uint16_t *q, *k, *v; /* rows, stride ld */
    size_t ld;
    uint32_t heads, heads_kv, dim;
    uint32_t window; /* tokens a query sees, itself included; 0: all */
    float scale;
    uint16_t *out; /* rows x heads*dim */
    float *lse;    /* rows x heads */
    /* Backward. */
    const uint16_t *dout; /* as out */
    float *delta;         /* as lse: room */
    float *dq, *dk, *dv;  /* rows, stride ldd: written whole */
    size_t ldd;
} dure_cuda_attention;
/* `out` and `lse` are written, and read on the way back. */
void dure_cuda_attention_forward(dure_device *device, const dure_cuda_attention *args);
void dure_cuda_attention_backward(dure_device *device, const dure_cuda_attention *args);

#ifdef __cplusplus
}
#endif
