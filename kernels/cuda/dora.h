/* DoRA on a GPU (model/lora.h): the gain of each row of an adapted matrix on the way forward, and
 * the gradients of the magnitudes, one document at a time. */
#pragma once

#include "kernels/cuda/device.h"
#include "kernels/cuda/lora.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The sums of one product, rows x width from `sums` on: `kept` gets them, rounded, and they become
 * gain * sums, or with `add` are added to it in that form. */
typedef struct dure_cuda_dora {
    float *sums;
    size_t ld;
    float *add;     /* rows x width; NULL: in place */
    uint16_t *kept; /* rows x width; NULL: not kept */
    const float *gain;
    size_t rows, width;
} dure_cuda_dora;
void dure_cuda_dora_forward(dure_device *device, const dure_cuda_dora *args);

/* dy becomes gain * dy. Before that, `out` (NULL: nobody asks) gets the sum of dy * kept over the
 * document's rows, in their order, over the norm; document d's at out + d * stride. */
typedef struct dure_cuda_dora_grad {
    uint16_t *dy;
    size_t ld;
    const uint16_t *kept; /* rows x width */
    const float *norm, *gain;
    float *out;
    size_t stride, width;
    const dure_cuda_rows *docs;
    size_t n_docs; /* at most 65535; they cover every row */
} dure_cuda_dora_grad;
void dure_cuda_dora_backward(dure_device *device, const dure_cuda_dora_grad *args);

#ifdef __cplusplus
}
#endif
