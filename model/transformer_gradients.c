#include "model/transformer_device.h"
#include "model/transformer_dropout.h"
#include "model/transformer_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void map_free(dure_gradient_map *map)
{
    free(map->offset);
    free(map->layer_at);
    map->offset = NULL;
    map->layer_at = NULL;
}

static void map_layer(dure_gradient_map *map, const dure_lora_layout *layout, uint32_t layer,
                      dure_lora_factor factors)
{
    const dure_model_shape *shape = &layout->shape;
    map->layer_at[layer] = map->n;
    for (int k = 0; k < DURE_LORA_TARGETS; k++) {
        dure_lora_target target = (dure_lora_target)k;
        size_t *offset = map->offset[layer][target], rank = dure_lora_rank(layout, target), unused;
        bool adapted = dure_lora_find(&unused, layout, layer, target, DURE_LORA_FACTOR_A);
        offset[0] = offset[1] = SIZE_MAX;
        if (adapted && (factors & DURE_LORA_FACTOR_A)) {
            offset[0] = map->n;
            map->n += rank * dure_lora_in(shape, target);
        }
        if (adapted && (factors & DURE_LORA_FACTOR_B)) {
            offset[1] = map->n;
            map->n += (rank + layout->dora) * dure_lora_out(shape, target);
        }
    }
    map->layer_at[layer + 1] = map->n;
    if (map->n - map->layer_at[layer] > map->widest) map->widest = map->n - map->layer_at[layer];
}

/* The order of dure_lora_pack(): by layer, by target, A before B, trained factors only. */
static dure_err map_make(dure_gradient_map *map, const dure_lora_layout *layout,
                         dure_lora_factor factors)
{
    size_t layers = layout->shape.n_layers;
    map->offset = malloc(layers * sizeof *map->offset);
    map->layer_at = malloc((layers + 1) * sizeof *map->layer_at);
    if (!map->offset || !map->layer_at) return DURE_ERR_NOMEM;
    for (uint32_t layer = 0; layer < layers; layer++)
        map_layer(map, layout, layer, factors);
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

static dure_err pass_gradients(dure_transformer *t, dure_pass *pass, const dure_gradient_map *map,
                               dure_diag *diag)
{
    dure_workspace *ws = &t->ws;
    if (t->device) return t->device->run(t, pass, map, diag);
    dure_transformer_run(t, pass);
    memset(ws->dres, 0, pass->rows * t->shape.n_embd * sizeof *ws->dres);
    for (size_t i = 0; i < pass->n_labels; i += ws->labels) {
        size_t left = pass->n_labels - i;
        dure_transformer_head(t, i, left < ws->labels ? left : ws->labels, true);
    }
    dure_transformer_run_backward(t, pass, map);
    return DURE_OK;
}

/* Tells the sink about documents [told, end): those of the pass with their gradients, those that
 * were left out without. */
typedef struct teller {
    dure_gradient_sink *sink;
    void *state;
    size_t told;
    const dure_gradient_map *map;
    const dure_dropout *dropout;
    dure_diag *diag;
} teller;

typedef struct gather_job {
    const teller *to;
    dure_transformer *t;
    size_t doc;
} gather_job;

static void gather_layers(void *state, size_t first, size_t last, void *scratch)
{
    const gather_job *job = state;
    const dure_gradient_map *map = job->to->map;
    (void)scratch;
    for (size_t layer = first; layer < last; layer++) {
        size_t n = map->layer_at[layer + 1] - map->layer_at[layer];
        if (n == 0) continue;
        memcpy(job->t->ws.gradient + map->layer_at[layer],
               dure_transformer_layer_gradients(job->t, map, (uint32_t)layer, job->doc),
               n * sizeof(float));
    }
}

/* The gradient of document `in_pass` of the pass, or of all of them, or NULL: it comes later. */
static dure_err gradient_of(const float **gradient, const teller *to, dure_transformer *t,
                            const dure_pass *pass, size_t in_pass)
{
    *gradient = NULL;
    if (to->map->together && in_pass + 1 < pass->n_docs) return DURE_OK;
    if (to->map->clip && !to->map->clip->show) return DURE_OK;
    gather_job job = {.to = to, .t = t, .doc = to->map->together ? 0 : in_pass};
    dure_profile_enter(t->compute.profile, DURE_PHASE_CLIP);
    *gradient = t->ws.gradient;
    if (t->device) return t->device->gradient(t, to->map, job.doc, to->diag);
    if (t->ws.has.checkpoints) {
        *gradient += job.doc * to->map->n;
        return DURE_OK;
    }
    dure_profile_work(t->compute.profile, 0, 2.0 * (double)to->map->n * sizeof(float));
    dure_compute_rows(&t->compute, t->shape.n_layers, 1, gather_layers, &job);
    return DURE_OK;
}

static dure_err tell(teller *to, dure_transformer *t, const dure_pass *pass, size_t end)
{
    static const dure_document_loss none = {.finite = true};
    dure_document_loss loss;
    size_t in_pass = 0, label = 0;
    dure_err err = DURE_OK;
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
            err = gradient_of(&gradient, to, t, pass, in_pass++);
        }
        if (!err) err = to->sink(to->state, to->told, gradient, &loss);
        if (err) return err;
    }
    return DURE_OK;
}

static dure_err check_opts(const dure_lora *lora, const dure_gradient_opts *opts, dure_diag *diag)
{
    if (!lora) return dure_diag_set(diag, DURE_ERR_USAGE, "gradients need an adapter to train");
    if (opts->factors < DURE_LORA_FACTOR_A || opts->factors > DURE_LORA_FACTOR_BOTH)
        return dure_diag_set(diag, DURE_ERR_USAGE, "the trained factors must be A, B or both");
    if (!(opts->dropout >= 0 && opts->dropout <= 0.95) ||
        (opts->dropout > 0 && !opts->dropout_seeds))
        return dure_diag_set(diag, DURE_ERR_USAGE, "dropout must be from 0 to 0.95, not %g",
                             opts->dropout);
    return DURE_OK;
}

static dure_err all_passes(teller *to, dure_transformer *t, const dure_lora *lora,
                           const dure_gradient_opts *opts, const dure_document *docs, size_t n_docs)
{
    /* As many documents as a set has room for their gradients. */
    const dure_workspace_need *has = &t->ws.has;
    size_t max_docs = has->checkpoints ? has->gradient * has->whole / to->map->n
                                       : t->ws.set_floats / to->map->widest;
    if (t->device) max_docs = t->device->most_docs(t);
    if (opts->together) max_docs = SIZE_MAX;
    dure_err err = DURE_OK;
    if (to->map->clip) t->device->clip_begin(t, to->map);
    for (size_t next = 0; next < n_docs && !err;) {
        dure_pass pass = {.lora = lora, .keep = true, .dropout = to->dropout};
        dure_transformer_pack(&pass, &next, t, docs, n_docs, max_docs);
        weigh_labels(t, &pass, opts->sum_of_labels);
        if (pass.n_docs) err = pass_gradients(t, &pass, to->map, to->diag);
        if (!err) err = tell(to, t, &pass, next);
    }
    if (!err && to->map->clip) err = t->device->clip_end(t, to->map, to->diag);
    dure_profile_enter(t->compute.profile, DURE_PHASE_OTHER);
    return err;
}

dure_err dure_transformer_gradients(dure_transformer *t, const dure_lora *lora,
                                    const dure_gradient_opts *opts, const dure_document *docs,
                                    size_t n_docs, dure_gradient_sink *sink, void *state,
                                    dure_diag *diag)
{
    DURE_ASSERT(!opts->clip || (t->device && !opts->together));
    dure_gradient_map map = {
        .together = opts->together, .dropout = opts->dropout > 0, .clip = opts->clip};
    dure_dropout dropout = {.seeds = NULL};
    teller to = {.sink = sink, .state = state, .map = &map, .diag = diag};
    dure_err err = check_opts(lora, opts, diag);
    if (!err) err = map_make(&map, &lora->layout, opts->factors);
    if (!err) err = dure_transformer_prepare(t, lora, docs, n_docs, &map, diag);
    if (!err && opts->dropout > 0) {
        err = dure_dropout_init(&dropout, t, opts->dropout, opts->dropout_seeds);
        to.dropout = &dropout;
    }
    if (!err) err = all_passes(&to, t, lora, opts, docs, n_docs);
    dure_dropout_fini(&dropout);
    map_free(&map);
    return err;
}
