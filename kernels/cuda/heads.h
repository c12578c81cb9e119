/* The heads of q, k and v between their product and the scores, on a GPU: a bias, an RMS norm over
 * each head, the rotation; any of them or none, as kernels/heads.h. */
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dure_cuda_heads {
    uint16_t *y; /* rows, stride ld: what the scores see; backward: gradient of the product */
    float *x;    /* rows, stride ldx: the product; backward: gradient of what the scores see */
    size_t ld, ldx, rows;
    uint32_t heads, dim;
    const float *bias; /* heads*dim, or NULL; forward alone */
    const float *norm; /* dim gains, or NULL */
    uint16_t *kept;    /* with a norm: what is normed, laid out as y */
    float eps;
    const float *cos_sin; /* of every position, turned elements each; NULL: not turned */
    uint32_t turned;
    int halves; /* pairs are (i, i + turned/2), else (2i, 2i+1): kernels/rope.h */
    const uint32_t *position;
} dure_cuda_heads;
void dure_cuda_heads_forward(dure_device *device, const dure_cuda_heads *args);
void dure_cuda_heads_backward(dure_device *device, const dure_cuda_heads *args);

#ifdef __cplusplus
}
#endif
