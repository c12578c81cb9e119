/* RMSNorm with a frozen gain. Zhang and Sennrich, arXiv 1910.07467. */
#pragma once

#include "kernels/compute.h"

/* Activations and float32 arrays are rows x width, dense. */
typedef struct dure_rmsnorm {
    const float *w; /* width */
    size_t rows, width;
    float eps;
} dure_rmsnorm;

/* y from x; `kept` (may be NULL) gets x as the backward pass wants it. */
void dure_rmsnorm_forward(void *y, void *kept, const float *x, const dure_rmsnorm *args,
                          const dure_compute *c);
/* y += the norm of x, in float32; x is lost. */
void dure_rmsnorm_add(float *y, void *kept, float *x, const dure_rmsnorm *args,
                      const dure_compute *c);
/* y once more, from what was kept. */
void dure_rmsnorm_again(void *y, const void *kept, const dure_rmsnorm *args, const dure_compute *c);
/* dx += dL/dx for dy = dL/dy; `out` (may be NULL) gets the new dx as activations. */
void dure_rmsnorm_backward(float *dx, void *out, const float *dy, const void *kept,
                           const dure_rmsnorm *args, const dure_compute *c);
