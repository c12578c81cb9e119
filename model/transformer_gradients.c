#include "model/transformer_int.h"

#include "kernels/lora.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Gradients of the documents of one pass are held together, at most this much of them. */
enum { GRADIENT_BYTES = 256 << 20 };

static void map_free(dure_gradient_map *map)
{
    free(map->offset);
    map->offset = NULL;
}

/* The order of dure_lora_pack(): by layer, by target, A before B, trained factors only. */
static dure_err map_make(dure_gradient_map *map, const dure_lora_layout *layout,
                         dure_lora_factor factors)
{
    const dure_model_shape *shape = &layout->shape;
    map->n = 0;
    map->offset = malloc(shape->n_layers * sizeof *map->offset);
    if (!map->offset) return DURE_ERR_NOMEM;
    for (uint32_t layer = 0; layer < shape->n_layers; layer++)
        for (int k = 0; k < DURE_LORA_TARGETS; k++) {
            dure_lora_target target = (dure_lora_target)k;
            size_t *offset = map->offset[layer][target], unused;
            bool adapted = dure_lora_find(&unused, layout, layer, target, DURE_LORA_FACTOR_A);
            offset[0] = offset[1] = SIZE_MAX;
            if (adapted && (factors & DURE_LORA_FACTOR_A)) {
                offset[0] = map->n;
                map->n += (size_t)layout->rank * dure_lora_in(shape, target);
            }
            if (adapted && (factors & DURE_LORA_FACTOR_B)) {
                offset[1] = map->n;
                map->n += (size_t)layout->rank * dure_lora_out(shape, target);
            }
        }
    return DURE_OK;
}

/* A label's weight in its record's loss: one, or one over the record's labels. */
static void weigh_labels(dure_transformer *t, const dure_pass *pass, bool sum_of_labels)
{
    dure_workspace *ws = &t->ws;
    size_t label = 0;
    for (size_t d = 0; d < pass->n_docs; d++) {
        size_t end = ws->docs[d].first + ws->docs[d].n, first = label;
        while (label < pass->n_labels && ws->label_row[label] < end)
            label++;
        float weight = sum_of_labels ? 1.0f : 1.0f / (float)(label - first);
        for (; first < label; first++)
            ws->label_weight[first] = weight;
    }
}

static void pass_gradients(dure_transformer *t, dure_pass *pass, const dure_gradient_map *map,
                           float *gradients)
{
    dure_workspace *ws = &t->ws;
    dure_transformer_run(t, pass);
    memset(ws->dx, 0, pass->rows * t->shape.n_embd * sizeof *ws->dx);
    for (size_t i = 0; i < pass->n_labels; i += ws->labels) {
        size_t left = pass->n_labels - i;
        dure_transformer_head(t, i, left < ws->labels ? left : ws->labels, true);
    }
    dure_transformer_run_backward(t, pass, map, gradients);
}

/* Hands documents [*told, end) of the caller's list to the sink: those of the pass with their
 * gradients, those that were left out without. */
typedef struct teller {
    dure_gradient_sink *sink;
    void *state;
    size_t told;
} teller;

static dure_err tell(teller *to, const dure_transformer *t, const dure_pass *pass, size_t end,
                     const float *gradients, size_t n)
{
    static const dure_document_loss none = {.finite = true};
    dure_document_loss loss;
    size_t in_pass = 0, label = 0;
    const dure_workspace *ws = &t->ws;
    for (; to->told < end; to->told++) {
        const float *gradient = NULL;
        loss = none;
        if (in_pass < pass->n_docs && ws->doc_index[in_pass] == to->told) {
            size_t last = ws->docs[in_pass].first + ws->docs[in_pass].n;
            for (; label < pass->n_labels && ws->label_row[label] < last; label++) {
                loss.nll_sum += (double)ws->nll[label];
                loss.n_labels++;
            }
            loss.finite = isfinite(loss.nll_sum);
            gradient = gradients + in_pass++ * n;
        }
        dure_err err = to->sink(to->state, to->told, gradient, &loss);
        if (err) return err;
    }
    return DURE_OK;
}

static dure_err check_opts(const dure_lora *lora, const dure_gradient_opts *opts, dure_diag *diag)
{
    if (!lora) return dure_diag_set(diag, DURE_ERR_USAGE, "gradients need an adapter to train");
    if (opts->factors < DURE_LORA_FACTOR_A || opts->factors > DURE_LORA_FACTOR_BOTH)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the trained factors must be A, B or both");
    return DURE_OK;
}

/* The most rank x out floats a thread turns over for dB. */
static size_t scratch_bytes(const dure_lora_layout *layout)
{
    size_t widest = 0;
    for (int k = 0; k < DURE_LORA_TARGETS; k++) {
        size_t out = dure_lora_out(&layout->shape, (dure_lora_target)k);
        if (out > widest) widest = out;
    }
    return widest * layout->rank * sizeof(float);
}

dure_err dure_transformer_gradients(dure_transformer *t, const dure_lora *lora,
                                    const dure_gradient_opts *opts, const dure_document *docs,
                                    size_t n_docs, dure_gradient_sink *sink, void *state,
                                    dure_diag *diag)
{
    dure_gradient_map map = {0};
    float *gradients = NULL;
    teller to = {.sink = sink, .state = state};
    dure_err err = check_opts(lora, opts, diag);
    if (err) return err;
    err = dure_transformer_prepare(t, lora, docs, n_docs, true, diag);
    if (!err) err = dure_pool_reserve(t->pool, scratch_bytes(&lora->layout));
    if (!err && t->bf16) err = dure_transformer_pack_bf16(t, true);
    if (!err) err = map_make(&map, &lora->layout, opts->factors);
    if (err) goto out;
    size_t max_docs = GRADIENT_BYTES / sizeof(float) / map.n;
    if (max_docs == 0) max_docs = 1;
    if (max_docs > t->ws.rows) max_docs = t->ws.rows;
    if (max_docs > n_docs) max_docs = n_docs ? n_docs : 1;
    gradients = malloc(max_docs * map.n * sizeof *gradients);
    err = gradients ? DURE_OK : DURE_ERR_NOMEM;
    for (size_t next = 0; next < n_docs && !err;) {
        dure_pass pass = {.lora = lora};
        dure_transformer_pack(&pass, &next, t, docs, n_docs, max_docs);
        weigh_labels(t, &pass, opts->sum_of_labels);
        if (pass.n_docs) pass_gradients(t, &pass, &map, gradients);
        err = tell(&to, t, &pass, next, gradients, map.n);
    }
out:
    free(gradients);
    map_free(&map);
    return err;
}
