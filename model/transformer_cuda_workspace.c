/* The memory of a pass on a GPU: how much there is room for, and taking it. */
#include "model/transformer_cuda_int.h"

#include <stdlib.h>

/* Gradients of this many bytes, or of one document, are held at a time. */
static const size_t gradient_bytes = (size_t)1 << 30;
/* Of what is free, gradients and logits have a share of 1 / PORTIONS each. */
enum { LABELS = 1024, LEAST_LABELS = 32, MOST_DOCS = 8000, PORTIONS = 8 };

/* `kept`: a way back goes over them. */
static void take_acts(dure_cuda_acts *acts, dure_cuda_engine *e, const dure_transformer *t,
                      bool kept)
{
    const dure_lora_layout *layout = &e->layout;
    dure_cuda_owned *o = &e->workspace;
    size_t n = e->rows * sizeof(uint16_t), d = t->shape.n_embd;
    acts->x = dure_cuda_take(o, n * d);
    acts->mid = dure_cuda_take(o, n * d);
    acts->qkv = dure_cuda_take(o, n * e->out[DURE_CUDA_QKV]);
    acts->att = dure_cuda_take(o, n * e->in[DURE_CUDA_O]);
    acts->both = dure_cuda_take(o, n * e->out[DURE_CUDA_GATE_UP]);
    if (e->z_width) acts->z = dure_cuda_take(o, n * e->z_width);
    if (t->arch.qk_norm) acts->heads_kept = dure_cuda_take(o, n * e->out[DURE_CUDA_QKV]);
    if (t->arch.post_norms) {
        acts->att_kept = dure_cuda_take(o, n * d);
        acts->ffn_kept = dure_cuda_take(o, n * d);
    }
    acts->lse = dure_cuda_take(o, e->rows * t->shape.n_head * sizeof(float));
    for (int k = 0; k < DURE_LORA_TARGETS && layout->dora && kept; k++)
        if (layout->targets >> k & 1) acts->sums[k] = dure_cuda_take(o, n * e->width[k]);
}

static void take_pass(dure_cuda_engine *e)
{
    dure_cuda_owned *o = &e->workspace;
    size_t n = e->rows;
    e->tokens = dure_cuda_take(o, n * sizeof *e->tokens);
    e->position = dure_cuda_take(o, n * sizeof *e->position);
    e->label = dure_cuda_take(o, n * sizeof *e->label);
    e->label_row = dure_cuda_take(o, n * sizeof *e->label_row);
    e->label_weight = dure_cuda_take(o, n * sizeof *e->label_weight);
    e->nll = dure_cuda_take(o, n * sizeof *e->nll);
    e->tiles = dure_cuda_take(o, n * sizeof *e->tiles);
    e->doc_rows = dure_cuda_take(o, n * sizeof *e->doc_rows);
    e->caches = dure_cuda_take(o, sizeof e->host_caches);
}

static void take_shared(dure_cuda_engine *e, const dure_transformer *t)
{
    dure_cuda_owned *o = &e->workspace;
    size_t n = e->rows, d = t->shape.n_embd, widest = e->out[DURE_CUDA_GATE_UP];
    if (e->out[DURE_CUDA_QKV] > widest) widest = e->out[DURE_CUDA_QKV];
    if (d > widest) widest = d;
    e->res = dure_cuda_take(o, n * d * sizeof(float));
    e->sums = dure_cuda_take(o, n * widest * sizeof(float));
    e->norm = dure_cuda_take(o, n * d * sizeof(uint16_t));
    e->h = dure_cuda_take(o, n * t->shape.n_ff * sizeof(uint16_t));
    e->head_x = dure_cuda_take(o, e->labels * d * sizeof(float));
    e->head_norm = dure_cuda_take(o, e->labels * d * sizeof(uint16_t));
    e->head_kept = dure_cuda_take(o, e->labels * d * sizeof(uint16_t));
    e->logits = dure_cuda_take(o, e->labels * e->vocab * sizeof(float));
    if (!e->gradient) return;
    e->head_dnorm = dure_cuda_take(o, e->labels * d * sizeof(float));
    e->p = dure_cuda_take(o, e->labels * e->vocab * sizeof(uint16_t));
    e->dres = dure_cuda_take(o, n * d * sizeof(float));
    e->dnorm = dure_cuda_take(o, n * d * sizeof(float));
    e->dy = dure_cuda_take(o, n * d * sizeof(uint16_t));
    e->datt = dure_cuda_take(o, n * e->in[DURE_CUDA_O] * sizeof(uint16_t));
    e->dqkv = dure_cuda_take(o, n * e->out[DURE_CUDA_QKV] * sizeof(uint16_t));
    e->dz = dure_cuda_take(o, n * e->z_width * sizeof(uint16_t));
    e->delta = dure_cuda_take(o, n * t->shape.n_head * sizeof(float));
    e->gradients = dure_cuda_take(o, e->docs * e->gradient * sizeof(float));
}

static void take_dropout(dure_cuda_engine *e)
{
    size_t widest = 0;
    for (int g = 0; g < DURE_CUDA_GROUPS; g++)
        if (e->in[g] > widest) widest = e->in[g];
    e->seeds = dure_cuda_take(&e->workspace, e->rows * sizeof *e->seeds);
    e->masked = dure_cuda_take(&e->workspace, e->rows * widest * sizeof *e->masked);
    e->apart = dure_cuda_take(&e->workspace, e->rows * widest * sizeof *e->apart);
}

static void take_clip(dure_cuda_engine *e)
{
    e->clip_sum = dure_cuda_take(&e->workspace, e->gradient * sizeof *e->clip_sum);
    e->clipped = dure_cuda_take(&e->workspace, e->docs * sizeof *e->clipped);
    e->clip_room = dure_cuda_take(&e->workspace, dure_cuda_clip_room(e->gradient, e->docs));
}

static float *take_rope(dure_cuda_engine *e, const dure_rope_table *table)
{
    size_t bytes = table->positions * table->dim * sizeof(float);
    float *at = dure_cuda_take(&e->workspace, bytes);
    if (at) dure_device_upload(e->device, at, table->cos_sin, bytes);
    return at;
}

static void take_all(dure_cuda_engine *e, const dure_transformer *t)
{
    for (size_t i = 0; i <= e->stored; i++)
        take_acts(&e->acts[i], e, t, i > 0 || e->again > 0);
    e->inputs =
        dure_cuda_take(&e->workspace, e->again * e->rows * t->shape.n_embd * sizeof *e->inputs);
    take_pass(e);
    take_shared(e, t);
    if (e->dropout) take_dropout(e);
    if (e->clips) take_clip(e);
    e->rope = take_rope(e, &t->rope);
    if (t->arch.window) e->rope_sliding = take_rope(e, &t->rope_sliding);
}

static dure_err take_host(dure_cuda_engine *e, const dure_transformer *t)
{
    e->acts = calloc(t->shape.n_layers + 1, sizeof *e->acts);
    e->host_rows = calloc(e->rows, sizeof *e->host_rows);
    e->host_tiles = calloc(e->rows, sizeof *e->host_tiles);
    e->host_docs = calloc(e->rows, sizeof *e->host_docs);
    e->host_seeds = calloc(e->rows, sizeof *e->host_seeds);
    e->host_clipped = calloc(e->docs + 1, sizeof *e->host_clipped);
    bool got = e->acts && e->host_rows && e->host_tiles && e->host_docs && e->host_seeds &&
               e->host_clipped;
    return got ? DURE_OK : DURE_ERR_NOMEM;
}

void dure_cuda_workspace_fini(dure_cuda_engine *e)
{
    dure_cuda_give_back(&e->workspace);
    free(e->acts);
    free(e->host_rows);
    free(e->host_tiles);
    free(e->host_docs);
    free(e->host_seeds);
    free(e->host_clipped);
    e->acts = NULL;
    e->host_rows = NULL;
    e->host_tiles = NULL;
    e->host_docs = NULL;
    e->host_seeds = NULL;
    e->host_clipped = NULL;
    e->rows = 0;
}

/* --- what fits --- */

static size_t room_of(const dure_cuda_engine *e)
{
    size_t room = dure_device_room(e->device);
    return room < e->left ? room : e->left;
}

/* What take_all() would take. */
static size_t bytes_of(dure_cuda_engine *e, const dure_transformer *t)
{
    const dure_cuda_owned taken = e->workspace;
    e->workspace = (dure_cuda_owned){.counts = true};
    take_all(e, t);
    size_t bytes = e->workspace.bytes;
    e->workspace = taken;
    return bytes;
}

/* Gradients and logits are worked on in portions, which change no bit. */
static void set_portions(dure_cuda_engine *e, const dure_transformer *t, size_t room)
{
    size_t portion = room / PORTIONS, label = e->vocab * (sizeof(float) + sizeof(uint16_t));
    label += t->shape.n_embd * 2 * (sizeof(float) + sizeof(uint16_t));
    e->labels = portion / label < LABELS ? portion / label : LABELS;
    if (e->labels < LEAST_LABELS) e->labels = LEAST_LABELS;
    if (e->labels > e->rows) e->labels = e->rows;
    e->docs = 0;
    if (!e->gradient) return;
    if (portion > gradient_bytes) portion = gradient_bytes;
    e->docs = e->together ? 1 : portion / (e->gradient * sizeof(float));
    if (e->docs > e->rows) e->docs = e->rows;
    if (e->docs > MOST_DOCS) e->docs = MOST_DOCS;
    if (e->docs == 0) e->docs = 1;
}

/* Takes all, with `again` of the trained layers computed twice. */
static dure_err take_with(dure_cuda_engine *e, const dure_transformer *t, size_t trained,
                          size_t again, dure_diag *diag)
{
    e->again = again;
    e->stored = trained - again;
    dure_err err = take_host(e, t);
    if (!err && bytes_of(e, t) > room_of(e))
        err = dure_diag_set(diag, DURE_ERR_NOMEM,
                            "the GPU has %.0f MB free for them, and %.0f MB are needed",
                            (double)room_of(e) / 1e6, (double)bytes_of(e, t) / 1e6);
    if (!err) {
        e->workspace.diag = diag;
        take_all(e, t);
        err = e->workspace.err;
        e->workspace.diag = NULL;
    }
    if (err) {
        size_t rows = e->rows;
        dure_cuda_workspace_fini(e);
        e->rows = rows;
    }
    return err;
}

static bool has_room(const dure_cuda_engine *e, const dure_transformer *t, size_t trained,
                     const dure_gradient_map *map)
{
    if (e->rows != t->ws.has.rows || e->positions != t->rope.positions) return false;
    if (!map) return true;
    return e->stored + e->again == trained && e->gradient == map->n &&
           (map->together || !e->together) && e->dropout >= map->dropout &&
           (e->clips || !map->clip);
}

dure_err dure_cuda_workspace_reserve(dure_cuda_engine *e, const dure_transformer *t,
                                     const dure_lora *lora, const dure_gradient_map *map,
                                     bool twice, dure_diag *diag)
{
    size_t trained = map ? t->shape.n_layers - lora->layout.first_layer : 0;
    if (has_room(e, t, trained, map)) return DURE_OK;
    dure_cuda_workspace_fini(e);
    e->rows = t->ws.has.rows;
    e->gradient = map ? map->n : 0;
    e->positions = t->rope.positions;
    e->dropout = map && map->dropout;
    e->clips = map && map->clip;
    e->together = map && map->together;
    set_portions(e, t, room_of(e));
    size_t again = t->recompute < trained ? t->recompute : trained;
    dure_err err = take_with(e, t, trained, again, diag);
    while (err == DURE_ERR_NOMEM && twice && again < trained)
        err = take_with(e, t, trained, ++again, diag);
    if (err == DURE_ERR_NOMEM)
        dure_diag_prefix(diag, err,
                         "passes of %zu tokens do not fit the GPU (fewer rows, a lower rank or "
                         "fewer layers take less)",
                         e->rows);
    if (err) e->rows = 0;
    return err;
}
