/* An adapter's factors on a GPU: rounding them to bfloat16, and their gradients for one document at
 * a time, as kernels/lora.h. */
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* to[i][j] = by * from[i][j] for i < rows and j < columns, zero up to to_rows and ld. */
typedef struct dure_cuda_pad {
    uint16_t *to; /* to_rows x ld */
    const float *from;
    size_t to_rows, ld, rows, columns;
    float by;
} dure_cuda_pad;
void dure_cuda_pad_matrix(dure_device *device, const dure_cuda_pad *args);

/* Rows [first, first + n). */
typedef struct dure_cuda_rows {
    int32_t first, n;
} dure_cuda_rows;

/* The sum over each document's rows of by * z^T x into out[rank x width] or, turned, x^T z into
 * out[width x rank]; document d's at out + d * stride. In order of the rows, in float32. */
typedef struct dure_cuda_lora {
    float *out;
    size_t stride;
    const uint16_t *z, *x;
    size_t ldz, ldx, rank, width;
    const dure_cuda_rows *docs;
    size_t n_docs; /* at most 65535 / 8 */
    float by;
    int turned;
} dure_cuda_lora;
void dure_cuda_lora_gradients(dure_device *device, const dure_cuda_lora *args);

#ifdef __cplusplus
}
#endif
