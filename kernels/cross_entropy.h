/* Cross-entropy of next-token labels: loss = logsumexp(logits) - logits[label].
 *
 * The logits are never held: as the head's product finishes a block of them, the block becomes
 * exp(logit - its largest), kept as activations, and its sum. With all blocks of a row known, its
 * loss is, and the gradient is the kept numbers times one factor a block. Milakov and Gimelshein,
 * arXiv 1805.02867, for the sums; Hsu et al., arXiv 2410.10989, for the fusion. */
#pragma once

#include "kernels/matmul.h"

/* Columns of a block are a multiple of it: dure_product.grain. */
enum { DURE_CROSS_ENTROPY_BLOCK = 128 };

typedef struct dure_cross_entropy {
    const int32_t *labels;
    size_t rows, vocab;
    void *p; /* rows x ld activations; afterwards the gradient of the logits */
    size_t ld;
    float *max, *sum; /* rows x dure_cross_entropy_blocks(vocab) */
    float *at_label;  /* rows */
} dure_cross_entropy;

size_t dure_cross_entropy_blocks(size_t vocab);

/* The way to finish the head's product. */
void dure_finish_cross_entropy(void *args, const dure_sums *logits, const dure_cpu_ops *ops);
/* After it: nll[rows]; and unless `weight` is NULL, p = weight[row] * (softmax - onehot), which is
 * dL/dlogits of L = sum weight * nll. */
void dure_cross_entropy_end(float *nll, const dure_cross_entropy *args, const float *weight,
                            const dure_compute *c);
