/* RMSNorm with a frozen gain. Zhang and Sennrich, arXiv 1910.07467. */
#pragma once

#include "kernels/compute.h"

typedef struct dure_rmsnorm {
    const float *x; /* rows x width, dense */
    const float *w; /* width */
    size_t rows, width;
    float eps;
} dure_rmsnorm;

/* y[rows x width] */
void dure_rmsnorm_forward(float *y, const dure_rmsnorm *args, const dure_compute *c);
/* dx += dL/dx for dy = dL/dy; dx and dy rows x width. */
void dure_rmsnorm_backward(float *dx, const float *dy, const dure_rmsnorm *args,
                           const dure_compute *c);
