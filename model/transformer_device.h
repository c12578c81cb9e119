/* What takes a transformer's passes off the CPU. A pass and its documents lie in the workspace's
 * host arrays (model/transformer_int.h); the activations, the weights and the gradients of all its
 * documents stay on the device. */
#pragma once

#include "model/transformer_int.h"

struct dure_transformer_device {
    void *state;
    /* Memory for the passes that the workspace has room for, and the adapter as it is now. `map`
     * NULL: no backward. With `twice`, layers are computed twice where that is what fits. */
    dure_err (*prepare)(dure_transformer *t, const dure_lora *lora, const dure_gradient_map *map,
                        bool twice, dure_diag *diag);
    /* ws.nll of every label of the pass; with `map`, and the gradients of its documents. */
    dure_err (*run)(dure_transformer *t, const dure_pass *pass, const dure_gradient_map *map,
                    dure_diag *diag);
    /* With map->clip, before the first pass and after the last: its sum goes there and comes back.
     * Each pass writes the outcomes of its documents. */
    void (*clip_begin)(dure_transformer *t, const dure_gradient_map *map);
    dure_err (*clip_end)(dure_transformer *t, const dure_gradient_map *map, dure_diag *diag);
    /* Document `doc` of that pass: map->n floats into ws.gradient. */
    dure_err (*gradient)(dure_transformer *t, const dure_gradient_map *map, size_t doc,
                         dure_diag *diag);
    /* Room for the keys and values of a conversation: what dure_kv_cache.k then is. */
    dure_err (*cache_new)(void **out, dure_transformer *t, size_t positions);
    void (*cache_free)(dure_transformer *t, void *cache);
    /* A pass that goes on with caches, and the logits of n of its rows into ws.logits. */
    dure_err (*decode)(dure_transformer *t, const dure_pass *pass, const size_t *row, size_t n,
                       dure_diag *diag);
    /* Documents of a pass that there is room for. */
    size_t (*most_docs)(const dure_transformer *t);
    dure_transformer_fit (*fit)(const dure_transformer *t); /* dure_transformer_device_fit() */
    void (*close)(void *state);
};
