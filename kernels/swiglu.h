/* h = silu(gate) * up. Shazeer, arXiv 2002.05202. */
#pragma once

#include "kernels/matmul.h"

/* n activations each. */
void dure_swiglu_forward(void *h, const void *gate, const void *up, size_t n,
                         const dure_compute *c);

/* A way to finish the product that makes dh: gate and up (rows x width, dense) become their own
 * gradients, and h is made once more. */
typedef struct dure_swiglu_grad {
    void *h, *gate, *up;
    size_t width;
} dure_swiglu_grad;
void dure_finish_swiglu_backward(void *grad, const dure_sums *dh, const dure_cpu_ops *ops);
