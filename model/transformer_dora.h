/* DoRA in the engine (model/lora.h): norms of the rows of W + s B A, the gain of each row on the
 * way forward, and the magnitudes' gradients. */
#pragma once

#include "model/transformer_int.h"

/* Brings lora->norms up to date with the parameters, if they have changed; nothing without DoRA. */
DURE_MUST_USE dure_err dure_dora_settle(dure_transformer *t, const dure_lora *lora);

/* Puts itself before a product's finisher: the sums are kept for the way back, where the workspace
 * has room for them, and multiplied by their rows' gains. `out` must live until the product is
 * done. Nothing without DoRA. */
typedef struct dure_dora_sums {
    const float *gains;
    void *kept; /* rows x ld activations; NULL: not kept */
    size_t ld;
    dure_finisher *finish;
    void *state;
} dure_dora_sums;
void dure_dora_before(dure_product *product, dure_dora_sums *out, dure_transformer *t,
                      const dure_pass *pass, uint32_t layer, dure_lora_target target);

/* The way back of one adapted product: the magnitudes' gradients of each document (of all together,
 * if the map says so) are written where they belong, and dy becomes that of the sums. */
void dure_dora_back(dure_transformer *t, const dure_pass *pass, const dure_gradient_map *map,
                    uint32_t layer, dure_lora_target target, void *dy);
