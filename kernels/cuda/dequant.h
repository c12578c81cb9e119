/* Quantized weights on a GPU: whole matrices as bfloat16, once, and the rows of the embedding as
 * float32. Every type of kernels/quant_types.h, bit for bit what kernels/dequant.h says (and that
 * rounded to bfloat16). */
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* n weights of a ggml type, a multiple of its block. */
void dure_cuda_dequant(dure_device *device, uint16_t *out, const uint8_t *blocks, size_t n,
                       uint32_t type);

/* x[i] = scale * the weights of row tokens[i]. */
typedef struct dure_cuda_embed {
    float *x;             /* rows x width */
    const uint8_t *table; /* rows of row_bytes */
    const int32_t *tokens;
    size_t rows, width, row_bytes;
    float scale;
    uint32_t type;
} dure_cuda_embed;
void dure_cuda_embed_rows(dure_device *device, const dure_cuda_embed *args);

#ifdef __cplusplus
}
#endif
