/* h = g(gate) * up. Shazeer, arXiv 2002.05202. */
#pragma once

#include "kernels/matmul.h"

typedef enum dure_activation {
    DURE_ACTIVATION_SILU,
    DURE_ACTIVATION_GELU, /* the form with tanh */
} dure_activation;

/* n activations each. */
typedef struct dure_swiglu {
    void *h;
    const void *gate, *up;
    size_t n;
    dure_activation of_gate;
} dure_swiglu;
void dure_swiglu_forward(const dure_swiglu *args, const dure_compute *c);

/* A way to finish the product that makes dh: gate and up (rows x width, dense) become their own
 * gradients, and h is made once more. */
typedef struct dure_swiglu_grad {
    void *h, *gate, *up;
    size_t width;
    dure_activation of_gate;
} dure_swiglu_grad;
void dure_finish_swiglu_backward(void *grad, const dure_sums *dh, const dure_cpu_ops *ops);
