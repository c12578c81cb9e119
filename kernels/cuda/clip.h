/* Each record's gradient clipped to integers, and their sum, on a GPU: the steps of dp/quantize.h,
 * which is the contract and the reference. The integers are the host's bit for bit, because each
 * operation is done in double and in the same order: + * / and sqrt of doubles are rounded to
 * nearest on every GPU (IEEE 754), none is contracted, and the sums of integers are exact in any
 * order. A gradient is read twice, for its norm and for its integers. */
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What became of one record. */
typedef struct dure_cuda_clipped {
    double norm_square; /* of the gradient as it came */
    double scale;       /* grid units of 1.0, where the gradient is finite */
    int32_t finite, added;
} dure_cuda_clipped;

/* Document d's n floats are at gradients + d * stride. A document that is not finite, or whose
 * integers' squares are more than squares_most in all, adds nothing. */
typedef struct dure_cuda_clip {
    int64_t *sum; /* n: the integers are added to it */
    const float *gradients;
    size_t stride, n;
    size_t n_docs; /* at most 65535 */
    /* dure_quantize_bounds */
    double per_unit, norm_most;
    uint64_t squares_most;
    dure_cuda_clipped *clipped; /* n_docs, written */
    void *room;                 /* dure_cuda_clip_room() bytes, of doubles */
} dure_cuda_clip;
void dure_cuda_clip_run(dure_device *device, const dure_cuda_clip *args);
size_t dure_cuda_clip_room(size_t n, size_t n_docs);

#ifdef __cplusplus
}
#endif
