/* h = silu(gate) * up. Shazeer, arXiv 2002.05202. */
#pragma once

#include "kernels/compute.h"

/* n elements; h may be the same array as gate or up. */
void dure_swiglu_forward(float *h, const float *gate, const float *up, size_t n,
                         const dure_compute *c);

typedef struct dure_swiglu_grad {
    float *dgate, *dup; /* may be `gate` and `up` themselves */
    const float *dh, *gate, *up;
    size_t n;
} dure_swiglu_grad;

void dure_swiglu_backward(const dure_swiglu_grad *grad, const dure_compute *c);
