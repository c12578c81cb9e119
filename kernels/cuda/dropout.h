/* The masks of kernels/dropout.h on a GPU: the same bits. */
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A mask for rows x width elements, width a multiple of DURE_DROP_LANES. */
typedef struct dure_cuda_drop {
    const uint64_t *seed;     /* of each row's record */
    const uint32_t *position; /* of each row in it */
    uint32_t layer, input;
    uint32_t threshold;
    float scale; /* of what is kept */
    size_t rows, width;
    /* y = the kept elements of x. */
    uint16_t *y;
    const uint16_t *x;
    /* Or, where y is NULL, sum += the kept elements of apart. */
    float *sum;
    const float *apart;
} dure_cuda_drop;
void dure_cuda_drop_run(dure_device *device, const dure_cuda_drop *args);

#ifdef __cplusplus
}
#endif
