/* Optimizers over one float32 vector. AdamW: Loshchilov and Hutter, arXiv 1711.05101.
 * Deterministic: element i depends on element i alone. */
#pragma once

#include "kernels/compute.h"

typedef struct dure_adamw {
    float *m, *v; /* moments, n floats each, owned */
    size_t n;
    uint64_t step; /* steps taken */
} dure_adamw;

typedef struct dure_adamw_opts {
    double learning_rate;
    double beta1, beta2, epsilon; /* 0: 0.9, 0.999, 1e-8 */
    double weight_decay;
} dure_adamw_opts;

DURE_MUST_USE dure_err dure_adamw_init(dure_adamw *adam, size_t n);
void dure_adamw_fini(dure_adamw *adam);
/* w -= lr * (m^ / (sqrt(v^) + eps) + decay * w), with bias-corrected moments of g. */
void dure_adamw_update(float *w, dure_adamw *adam, const float *g, const dure_adamw_opts *opts,
                       const dure_compute *c);
/* Euclidean norm, summed in double in order of the index. */
double dure_gradient_norm(const float *g, size_t n);
/* w -= learning_rate * g */
void dure_sgd_update(float *w, const float *g, size_t n, double learning_rate,
                     const dure_compute *c);
