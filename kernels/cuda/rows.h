/* What is done to rows of numbers between products on a GPU: RMS norms, rounding, gathering, and
 * the gate of the feed-forward half. The contracts are those of kernels/rmsnorm.h and
 * kernels/swiglu.h with activations of bfloat16. */
#pragma once

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* y from x (float32) or, where that is NULL, from what was kept. */
typedef struct dure_cuda_norm {
    uint16_t *y;    /* rows x width */
    uint16_t *kept; /* gets x where x is given; may be NULL then */
    const float *x;
    const float *gain; /* width */
    float *add;        /* not NULL: the norm is added to it in float32, and y is not used */
    size_t rows, width;
    float eps;
} dure_cuda_norm;
void dure_cuda_norm_forward(dure_device *device, const dure_cuda_norm *args);

/* dx += dL/dx, or = with `anew`; `out` (may be NULL) gets the new dx. */
typedef struct dure_cuda_norm_grad {
    float *dx;
    uint16_t *out;
    const float *dy;
    const uint16_t *kept;
    const float *gain;
    size_t rows, width;
    float eps;
    int anew;
} dure_cuda_norm_grad;
void dure_cuda_norm_backward(dure_device *device, const dure_cuda_norm_grad *args);

/* y = x for n numbers. */
void dure_cuda_round(dure_device *device, uint16_t *y, const float *x, size_t n);

/* y[i] = x[row[i]], or with `scatter` y[row[i]] = x[i]; rows of `width`. */
typedef struct dure_cuda_pick {
    float *y;
    const float *x;
    const int32_t *row;
    size_t rows, width;
    int scatter;
} dure_cuda_pick;
void dure_cuda_pick_rows(dure_device *device, const dure_cuda_pick *args);

/* rows x 2 width: gate, then up. Forward: `both` from sums, and h = g(gate) * up. Backward: both
 * becomes its gradient, and h is made once more. */
typedef struct dure_cuda_gate {
    uint16_t *h, *both;
    const float *sums; /* rows x 2 width; backward: dh, rows x width */
    size_t rows, width;
    int gelu; /* the form with tanh; else silu */
} dure_cuda_gate;
void dure_cuda_gate_forward(dure_device *device, const dure_cuda_gate *args);
void dure_cuda_gate_backward(dure_device *device, const dure_cuda_gate *args);

#ifdef __cplusplus
}
#endif
