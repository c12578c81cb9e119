/* Dropout before factor A (Srivastava et al. 2014, as PEFT's lora_dropout): each element of the
 * adapter's input is zero with the rate's probability and 1 / (1 - rate) times itself otherwise,
 * while the frozen product sees all of it. Targets that share an input share its mask.
 *
 * A mask is a function of the record's seed, the layer, the input, the token's position and the
 * column, so a record's gradient is its own in any packing and on any number of threads, and the
 * backward pass draws again what the forward pass drew. */
#pragma once

#include "model/transformer_int.h"

typedef struct dure_dropout {
    uint32_t threshold;    /* of 65536: lanes below it are dropped */
    float scale;           /* 1 / (1 - threshold / 65536) */
    const uint64_t *seeds; /* one a document of the caller's list; borrowed */
    void *masked;          /* rows x widest activations, owned */
} dure_dropout;

/* Room for passes of t's present workspace. `rate` in (0, 1). dure_dropout_fini(d). */
DURE_MUST_USE dure_err dure_dropout_init(dure_dropout *d, const dure_transformer *t, double rate,
                                         const uint64_t *seeds);
void dure_dropout_fini(dure_dropout *d); /* idempotent */
/* Bytes that it takes for passes of so many rows. */
size_t dure_dropout_bytes(const dure_model_shape *shape, size_t rows, const dure_cpu_ops *ops);

/* x[rows x width] with the dropped elements zero (not scaled: that is folded into the adapter's
 * scale), valid until the next call; x itself without dropout. `input` is the first target that
 * reads x. */
const void *dure_dropout_masked(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                                dure_lora_target input, const void *x, size_t width);

/* For the way back: adds the sums of dz A, whose dropped elements become zero, to those of the
 * other terms. A dure_joiner. */
typedef struct dure_dropout_sums {
    const dure_transformer *t;
    const dure_pass *pass;
    uint32_t layer;
    dure_lora_target input;
    size_t width;
} dure_dropout_sums;
void dure_dropout_join(void *state, const dure_sums *sums, const float *apart,
                       const dure_cpu_ops *ops);
