/* Cross-entropy of next-token labels on a GPU, from the logits of a chunk of supervised rows; only
 * a chunk's logits are held at a time. See kernels/cross_entropy.h. */
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct dure_cuda_cross_entropy {
    const float *logits; /* rows, stride ld */
    const int32_t *labels;
    const float *weight; /* rows; NULL: no gradient */
    uint16_t *p; /* rows, stride ld: weight * (softmax - onehot), zero past the vocabulary */
    float *nll;  /* rows */
    size_t rows, vocab, ld;
} dure_cuda_cross_entropy;
void dure_cuda_cross_entropy_run(dure_device *device, const dure_cuda_cross_entropy *args);

#ifdef __cplusplus
}
#endif
