#include "model/transformer_int.h"

#include "kernels/cross_entropy.h"
#include "kernels/lora.h"
#include "model/memory.h"

#include <stdlib.h>
#include <string.h>

/* LABELS rows of the head at a time: the head's weights pass through the cache once for each such
 * block, and LABELS x vocabulary activations are held. PAD keeps the rows of an array off a
 * power-of-two stride, which would put one column of every row in the same cache set. */
enum { LABELS = 512, PAD = 32, ALIGN = 64 };

void dure_workspace_fini(dure_workspace *ws)
{
    dure_block_free(ws->arena, ws->arena_bytes);
    free(ws->sets);
    free(ws->tokens);
    free(ws->position);
    free(ws->docs);
    free(ws->doc_index);
    free(ws->label_row);
    free(ws->label);
    free(ws->label_weight);
    free(ws->nll);
    *ws = (dure_workspace){0};
}

/* Hands out slices of the arena; with base NULL it only counts. */
typedef struct slicer {
    char *base;
    size_t used, act_bytes;
} slicer;

static void *slice(slicer *s, size_t bytes)
{
    void *at = s->base ? s->base + s->used : NULL;
    s->used += dure_round_up(bytes, ALIGN);
    return at;
}

static float *floats(slicer *s, size_t n)
{
    return slice(s, n * sizeof(float));
}

static void *acts(slicer *s, size_t n)
{
    return slice(s, n * s->act_bytes);
}

/* The widths that recur. */
typedef struct widths {
    size_t d, f, q, kv;
} widths;

static widths widths_of(const dure_model_shape *s)
{
    return (widths){.d = s->n_embd,
                    .f = s->n_ff,
                    .q = (size_t)s->n_head * s->head_dim,
                    .kv = (size_t)s->n_head_kv * s->head_dim};
}

/* A set is also room for the gradients of at least one document. */
static void slice_set(dure_layer_acts *set, slicer *s, dure_workspace *ws,
                      const dure_transformer *t)
{
    const dure_model_shape *shape = &t->shape;
    const dure_model_arch *arch = &t->arch;
    size_t n = ws->has.rows, start = s->used;
    widths w = widths_of(shape);
    set->gradients = floats(s, 0);
    set->x = acts(s, n * w.d);
    set->mid = acts(s, n * w.d);
    set->q = acts(s, n * w.q);
    set->k = acts(s, n * w.kv);
    set->v = acts(s, n * w.kv);
    set->att = acts(s, n * w.q);
    set->gate = acts(s, n * w.f);
    set->up = acts(s, n * w.f);
    set->z = acts(s, n * ws->ldz * DURE_LORA_TARGETS);
    if (arch->qk_norm) {
        set->q_kept = acts(s, n * w.q);
        set->k_kept = acts(s, n * w.kv);
    }
    if (arch->post_norms) {
        set->att_kept = acts(s, n * w.d);
        set->ffn_kept = acts(s, n * w.d);
    }
    for (int k = 0; k < DURE_LORA_TARGETS; k++)
        if (ws->has.dora >> k & 1)
            set->sums[k] = acts(s, n * dure_lora_out(shape, (dure_lora_target)k));
    set->lse = floats(s, n * shape->n_head);
    size_t used = (s->used - start) / sizeof(float);
    if (used < ws->has.gradients && !ws->has.checkpoints) floats(s, ws->has.gradients - used);
    ws->set_floats = (s->used - start) / sizeof(float);
}

static void slice_backward(dure_workspace *ws, slicer *s, const dure_model_shape *shape)
{
    size_t n = ws->has.rows;
    widths w = widths_of(shape);
    ws->spare = floats(s, ws->has.checkpoints ? 0 : ws->set_floats);
    ws->gradient = floats(s, ws->has.gradient * (ws->has.checkpoints ? ws->has.whole : 1));
    ws->dres = floats(s, n * w.d);
    ws->dnorm = floats(s, n * w.d);
    ws->dy = acts(s, n * w.d);
    ws->dq = acts(s, n * w.q);
    ws->dk = acts(s, n * w.kv);
    ws->dv = acts(s, n * w.kv);
    ws->datt = acts(s, n * w.q);
    ws->dz = acts(s, n * ws->ldz * DURE_LORA_TARGETS);
}

static void slice_head(dure_workspace *ws, slicer *s, const dure_transformer *t)
{
    size_t n = ws->has.rows, d = t->shape.n_embd;
    ws->labels = n < LABELS ? n : LABELS;
    ws->p_ld = dure_round_up(t->head.out, PAD) + PAD;
    ws->logits_ld = ws->p_ld;
    size_t blocks = dure_cross_entropy_blocks(t->head.out);
    ws->head_x = floats(s, ws->labels * d);
    ws->head_dnorm = floats(s, ws->labels * d);
    ws->head_norm = acts(s, ws->labels * d);
    ws->head_kept = acts(s, ws->labels * d);
    ws->p = acts(s, ws->labels * ws->p_ld);
    ws->max = floats(s, ws->labels * blocks);
    ws->sum = floats(s, ws->labels * blocks);
    ws->at_label = floats(s, ws->labels);
    ws->logits = floats(s, ws->has.logits * ws->logits_ld);
}

static size_t slice_all(dure_workspace *ws, void *base, const dure_transformer *t)
{
    const dure_model_shape *shape = &t->shape;
    const dure_cpu_ops *ops = t->compute.ops;
    slicer s = {.base = base, .act_bytes = ops->act_bytes};
    if (t->device) { /* all else is in its memory */
        ws->gradient = floats(&s, ws->has.gradient + 1);
        ws->logits_ld = t->head.out;
        ws->logits = floats(&s, ws->has.logits * ws->logits_ld);
        return s.used;
    }
    size_t n = ws->has.rows;
    widths w = widths_of(shape);
    for (size_t i = 0; i <= ws->has.stored; i++)
        slice_set(&ws->sets[i], &s, ws, t);
    ws->res = floats(&s, n * w.d);
    ws->checkpoints = floats(&s, ws->has.checkpoints * n * w.d);
    if (t->arch.post_norms) ws->added = floats(&s, n * w.d);
    ws->norm = acts(&s, n * w.d);
    ws->h = acts(&s, n * w.f);
    ws->packed = slice(
        &s, dure_attention_packed_bytes(ws->has.keys, n, shape->n_head_kv, shape->head_dim, ops));
    if (ws->has.gradients) slice_backward(ws, &s, shape);
    slice_head(ws, &s, t);
    return s.used;
}

static dure_err allocate(dure_workspace *ws, const dure_transformer *t)
{
    size_t n = ws->has.rows;
    ws->sets = calloc(ws->has.stored + 1, sizeof *ws->sets);
    ws->tokens = calloc(n, sizeof *ws->tokens);
    ws->position = calloc(n, sizeof *ws->position);
    ws->docs = calloc(n, sizeof *ws->docs);
    ws->doc_index = calloc(n, sizeof *ws->doc_index);
    ws->label_row = calloc(n, sizeof *ws->label_row);
    ws->label = calloc(n, sizeof *ws->label);
    ws->label_weight = calloc(n, sizeof *ws->label_weight);
    ws->nll = calloc(n, sizeof *ws->nll);
    if (!ws->sets || !ws->tokens || !ws->position || !ws->docs || !ws->doc_index ||
        !ws->label_row || !ws->label || !ws->label_weight || !ws->nll)
        return DURE_ERR_NOMEM;
    size_t bytes = slice_all(ws, NULL, t);
    ws->arena = dure_block_new(bytes);
    if (!ws->arena) return DURE_ERR_NOMEM;
    ws->arena_bytes = bytes;
    slice_all(ws, ws->arena, t);
    return DURE_OK;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* What any thread needs for any task of a pass. */
static size_t scratch_bytes(const dure_transformer *t, const dure_workspace_need *has)
{
    widths w = widths_of(&t->shape);
    size_t bytes = dure_matmul_scratch_bytes(has->rows, larger(larger(w.d, w.f), w.q));
    bytes = larger(bytes,
                   dure_attention_scratch_bytes(has->longest, t->shape.head_dim, t->compute.ops));
    return larger(bytes, dure_lora_scratch_bytes(has->rank));
}

dure_err dure_transformer_reserve(dure_transformer *t, dure_workspace_need need)
{
    dure_workspace *ws = &t->ws;
    const dure_workspace_need *has = &ws->has;
    dure_workspace_need grown = {
        .rows = larger(need.rows, has->rows),
        .rank = larger(need.rank, has->rank),
        .stored = larger(need.stored, has->stored),
        .keys = larger(larger(need.keys, has->keys), need.rows),
        .longest = larger(larger(need.longest, has->longest), need.rows),
        .gradients = larger(need.gradients, has->gradients),
        .gradient = larger(need.gradient, has->gradient),
        .whole = larger(need.whole, has->whole),
        .checkpoints = larger(need.checkpoints, has->checkpoints),
        .logits = larger(need.logits, has->logits),
        .dora = need.dora | has->dora,
    };
    if (ws->arena && !memcmp(&grown, has, sizeof grown)) return DURE_OK;
    dure_workspace_fini(ws);
    ws->has = grown;
    ws->ldz = dure_round_up(grown.rank, t->compute.ops->group);
    dure_err err = allocate(ws, t);
    if (!err) err = dure_pool_reserve(t->pool, scratch_bytes(t, &ws->has));
    if (!err) err = dure_rope_table_reserve(&t->rope, grown.longest);
    if (!err && t->arch.window) err = dure_rope_table_reserve(&t->rope_sliding, grown.longest);
    if (err) dure_workspace_fini(ws);
    return err;
}

size_t dure_workspace_bytes(const dure_transformer *t, dure_workspace_need need)
{
    dure_workspace ws = {.has = need, .ldz = dure_round_up(need.rank, t->compute.ops->group)};
    ws.sets = calloc(need.stored + 1, sizeof *ws.sets);
    if (!ws.sets) return SIZE_MAX;
    size_t bytes = slice_all(&ws, NULL, t);
    free(ws.sets);
    /* Room for the panels of many short documents is only used as far as there are such. */
    bytes -= dure_attention_packed_bytes(0, need.rows - 1, t->shape.n_head_kv, t->shape.head_dim,
                                         t->compute.ops);
    return bytes + dure_pool_threads(t->pool) * scratch_bytes(t, &need);
}

float *dure_transformer_checkpoint(const dure_transformer *t, uint32_t layer)
{
    const dure_workspace_need *has = &t->ws.has;
    size_t stored_from = t->shape.n_layers - has->stored;
    /* Both have grown to the largest asked for, so together they may be more than there are. */
    size_t from = has->checkpoints < stored_from ? stored_from - has->checkpoints : 0;
    if (layer < from || layer >= stored_from) return NULL;
    return t->ws.checkpoints + (layer - from) * has->rows * t->shape.n_embd;
}

dure_layer_acts *dure_transformer_acts(dure_transformer *t, uint32_t layer)
{
    size_t below = t->shape.n_layers - t->ws.has.stored;
    return &t->ws.sets[layer < below ? 0 : 1 + layer - below];
}
