#include "model/transformer_int.h"

#include <stdlib.h>
#include <string.h>

/* LABELS rows of the head at a time: the head's weights are decoded once for each such block, and
 * LABELS x vocabulary floats are held. PAD keeps the rows of the logits off a power-of-two
 * stride, which would put one column of every row in the same cache set. */
enum { LABELS = 256, PAD = 16, ALIGN = 16 };

void dure_workspace_fini(dure_workspace *ws)
{
    free(ws->arena);
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
    float *base;
    size_t used;
} slicer;

static float *slice(slicer *s, size_t n)
{
    float *at = s->base ? s->base + s->used : NULL;
    s->used += (n + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

static void slice_set(dure_layer_acts *acts, slicer *s, const dure_workspace *ws,
                      const dure_model_shape *shape)
{
    size_t n = ws->rows, d = shape->n_embd, f = shape->n_ff;
    size_t q = (size_t)shape->n_head * shape->head_dim;
    size_t kv = (size_t)shape->n_head_kv * shape->head_dim;
    acts->x = slice(s, n * d);
    acts->mid = slice(s, n * d);
    acts->q = slice(s, n * q);
    acts->k = slice(s, n * kv);
    acts->v = slice(s, n * kv);
    acts->att = slice(s, n * q);
    acts->lse = slice(s, n * shape->n_head);
    acts->gate = slice(s, n * f);
    acts->up = slice(s, n * f);
    acts->z = slice(s, n * ws->rank * DURE_LORA_TARGETS);
}

static void slice_backward(dure_workspace *ws, slicer *s, const dure_model_shape *shape)
{
    size_t n = ws->rows, d = shape->n_embd, q = (size_t)shape->n_head * shape->head_dim;
    size_t kv = (size_t)shape->n_head_kv * shape->head_dim;
    ws->dx = slice(s, n * d);
    ws->dnorm = slice(s, n * d);
    ws->dq = slice(s, n * q);
    ws->dk = slice(s, n * kv);
    ws->dv = slice(s, n * kv);
    ws->datt = slice(s, n * q);
    ws->dh = slice(s, n * shape->n_ff);
    ws->dz = slice(s, n * ws->rank * DURE_LORA_TARGETS);
}

static size_t slice_all(dure_workspace *ws, float *base, const dure_transformer *t)
{
    const dure_model_shape *shape = &t->shape;
    slicer s = {.base = base};
    size_t n = ws->rows, d = shape->n_embd;
    for (size_t i = 0; i <= ws->stored; i++)
        slice_set(&ws->sets[i], &s, ws, shape);
    ws->final_x = slice(&s, n * d);
    ws->norm = slice(&s, n * d);
    ws->out = slice(&s, n * d);
    ws->h = slice(&s, n * shape->n_ff);
    ws->packed = slice(&s, dure_attention_packed_floats(n > shape->n_context ? n : shape->n_context,
                                                        n, shape->n_head_kv, shape->head_dim));
    if (ws->backward) slice_backward(ws, &s, shape);
    ws->labels = n < LABELS ? n : LABELS;
    ws->logits_ld = (t->head.out + ALIGN - 1) / ALIGN * ALIGN + PAD;
    ws->logits = slice(&s, ws->labels * ws->logits_ld);
    ws->head_x = slice(&s, ws->labels * d);
    ws->head_norm = slice(&s, ws->labels * d);
    ws->head_dnorm = slice(&s, ws->labels * d);
    return s.used;
}

static dure_err allocate(dure_workspace *ws, const dure_transformer *t)
{
    size_t n = ws->rows;
    ws->sets = calloc(ws->stored + 1, sizeof *ws->sets);
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
    size_t floats = slice_all(ws, NULL, t);
    ws->arena = aligned_alloc(64, floats * sizeof *ws->arena);
    if (!ws->arena) return DURE_ERR_NOMEM;
    slice_all(ws, ws->arena, t);
    return DURE_OK;
}

dure_err dure_transformer_reserve(dure_transformer *t, dure_workspace_need need)
{
    dure_workspace *ws = &t->ws;
    if (ws->arena && need.rows <= ws->rows && need.rank <= ws->rank && need.stored <= ws->stored &&
        (ws->backward || !need.backward))
        return DURE_OK;
    dure_workspace grown = {
        .rows = need.rows > ws->rows ? need.rows : ws->rows,
        .rank = need.rank > ws->rank ? need.rank : ws->rank,
        .stored = need.stored > ws->stored ? need.stored : ws->stored,
        .backward = need.backward || ws->backward,
    };
    dure_workspace_fini(ws);
    *ws = grown;
    dure_err err = allocate(ws, t);
    size_t keys = ws->rows > t->shape.n_context ? ws->rows : t->shape.n_context;
    if (!err) err = dure_pool_reserve(t->pool, dure_attention_scratch_bytes(keys));
    if (err) dure_workspace_fini(ws);
    return err;
}

dure_layer_acts *dure_transformer_acts(dure_transformer *t, uint32_t layer)
{
    size_t below = t->shape.n_layers - t->ws.stored;
    return &t->ws.sets[layer < below ? 0 : 1 + layer - below];
}
