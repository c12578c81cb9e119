/* Cross-entropy of next-token labels: loss = logsumexp(logits) - logits[label]. */
#pragma once

#include "kernels/compute.h"

typedef struct dure_cross_entropy {
    float *logits; /* rows x vocab */
    const int32_t *labels;
    size_t rows, vocab, ld; /* ld: the stride of a row */
} dure_cross_entropy;

/* nll[rows] */
void dure_cross_entropy_forward(float *nll, const dure_cross_entropy *args, const dure_compute *c);
/* As forward, and turns the logits into weight[row] * (softmax - onehot): dL/dlogits of
 * L = sum weight * nll. */
void dure_cross_entropy_backward(float *nll, const dure_cross_entropy *args, const float *weight,
                                 const dure_compute *c);
