#include "model/transformer_int.h"

#include "kernels/lora.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"

#include <string.h>

/* One product of a layer on the way back: dy is known; x is its input. */
typedef struct linear_grad {
    dure_lora_target target;
    const float *dy;
    const float *x; /* read for dA only */
} linear_grad;

typedef struct back {
    dure_transformer *t;
    const dure_pass *pass;
    const dure_gradient_map *map;
    float *gradients;
} back;

static const size_t *offsets(const back *b, uint32_t layer, dure_lora_target target)
{
    return b->map->offset[layer][target];
}

static bool trains(const back *b, uint32_t layer, dure_lora_target target, int factor)
{
    return offsets(b, layer, target)[factor] != SIZE_MAX;
}

/* dz = s dy B for every adapted product of the list. */
static void lora_inputs(const back *b, uint32_t layer, const linear_grad *list, size_t n)
{
    dure_transformer *t = b->t;
    dure_product_grad terms[3];
    dure_matmul_grad grads[3];
    dure_lora_pair pairs[3];
    size_t k = 0, rank = t->ws.rank, plane = t->ws.rows * rank;
    for (size_t i = 0; i < n; i++) {
        if (!dure_transformer_pair(&pairs[k], b->pass->lora, layer, list[i].target)) continue;
        terms[k] = (dure_product_grad){.dy = list[i].dy, .lddy = pairs[k].b.out, .w = &pairs[k].b};
        grads[k] = (dure_matmul_grad){.dx = t->ws.dz + list[i].target * plane,
                                      .lddx = pairs[k].b.in,
                                      .terms = &terms[k],
                                      .n_terms = 1};
        k++;
    }
    if (k == 0) return;
    dure_matmul_backward(grads, k, b->pass->rows, &t->compute);
    for (size_t i = 0; i < k; i++)
        t->compute.ops->scale(grads[i].dx, pairs[i].scale, b->pass->rows * pairs[i].b.in);
}

/* dA and dB of the list for one document at a time: a task is one document and one factor. */
typedef struct factor_job {
    const back *b;
    uint32_t layer;
    const linear_grad *list;
    size_t n;
} factor_job;

static void factor_task(void *state, size_t task, void *scratch)
{
    const factor_job *job = state;
    const back *b = job->b;
    dure_workspace *ws = &b->t->ws;
    size_t doc = task / (2 * job->n), factor = task % 2;
    const linear_grad *g = &job->list[task / 2 % job->n];
    if (!trains(b, job->layer, g->target, (int)factor)) return;
    dure_lora_rows rows = {ws->docs[doc].first, ws->docs[doc].n};
    const dure_weight *w = &b->t->layers[job->layer].w[g->target];
    size_t rank = b->pass->lora->layout.rank, plane = g->target * ws->rows * ws->rank;
    float *out = b->gradients + doc * b->map->n + offsets(b, job->layer, g->target)[factor];
    if (factor == 0) {
        dure_lora_grad_a a = {.da = out,
                              .dz = ws->dz + plane,
                              .lddz = rank,
                              .x = g->x,
                              .ldx = w->in,
                              .in = w->in,
                              .rank = rank};
        dure_lora_grad_a_run(&a, rows, b->t->compute.ops);
    } else {
        dure_lora_grad_b bb = {.db = out,
                               .dy = g->dy,
                               .lddy = w->out,
                               .z = dure_transformer_acts(b->t, job->layer)->z + plane,
                               .ldz = rank,
                               .out = w->out,
                               .rank = rank};
        dure_lora_grad_b_run(&bb, rows, scratch, b->t->compute.ops);
    }
}

/* The LoRA gradients of the list and, unless dx is NULL, dx = sum of dy W + dz A over it. */
static void linears_back(const back *b, uint32_t layer, float *dx, const linear_grad *list,
                         size_t n)
{
    dure_transformer *t = b->t;
    dure_product_grad terms[6];
    dure_lora_pair pairs[3];
    size_t n_terms = 0;
    lora_inputs(b, layer, list, n);
    factor_job job = {.b = b, .layer = layer, .list = list, .n = n};
    dure_pool_run(t->pool, b->pass->n_docs * 2 * n, factor_task, &job);
    if (!dx) return;
    for (size_t i = 0; i < n; i++) {
        const dure_weight *w = &t->layers[layer].w[list[i].target];
        terms[n_terms++] = (dure_product_grad){.dy = list[i].dy, .lddy = w->out, .w = w};
        if (!dure_transformer_pair(&pairs[i], b->pass->lora, layer, list[i].target)) continue;
        terms[n_terms++] =
            (dure_product_grad){.dy = t->ws.dz + list[i].target * t->ws.rows * t->ws.rank,
                                .lddy = pairs[i].a.out,
                                .w = &pairs[i].a};
    }
    size_t in = t->layers[layer].w[list[0].target].in;
    dure_matmul_grad grad = {.dx = dx, .lddx = in, .terms = terms, .n_terms = n_terms};
    dure_matmul_backward(&grad, 1, b->pass->rows, &t->compute);
}

static dure_rmsnorm norm_args(const back *b, const float *x, const float *w)
{
    return (dure_rmsnorm){
        .x = x, .w = w, .rows = b->pass->rows, .width = b->t->shape.n_embd, .eps = b->t->eps};
}

/* The feed-forward half: ws.dx goes from the layer's output to acts->mid. */
static void feed_forward_back(const back *b, uint32_t layer)
{
    dure_transformer *t = b->t;
    dure_workspace *ws = &t->ws;
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    size_t n = b->pass->rows * t->shape.n_ff;
    if (trains(b, layer, DURE_LORA_DOWN, 0))
        dure_swiglu_forward(ws->h, acts->gate, acts->up, n, &t->compute);
    linears_back(b, layer, ws->dh, (linear_grad[]){{DURE_LORA_DOWN, ws->dx, ws->h}}, 1);
    dure_swiglu_grad swiglu = {.dgate = acts->gate,
                               .dup = acts->up,
                               .dh = ws->dh,
                               .gate = acts->gate,
                               .up = acts->up,
                               .n = n};
    dure_swiglu_backward(&swiglu, &t->compute);
    dure_rmsnorm norm = norm_args(b, acts->mid, t->layers[layer].ffn_norm);
    if (trains(b, layer, DURE_LORA_GATE, 0) || trains(b, layer, DURE_LORA_UP, 0))
        dure_rmsnorm_forward(ws->norm, &norm, &t->compute);
    linears_back(
        b, layer, ws->dnorm,
        (linear_grad[]){{DURE_LORA_GATE, acts->gate, ws->norm}, {DURE_LORA_UP, acts->up, ws->norm}},
        2);
    dure_rmsnorm_backward(ws->dx, ws->dnorm, &norm, &t->compute);
}

static void rotate_back(const back *b, float *x, size_t heads)
{
    dure_rope args = {.table = &b->t->rope,
                      .position = b->t->ws.position,
                      .rows = b->pass->rows,
                      .ld = heads * b->t->shape.head_dim,
                      .heads = heads,
                      .head_dim = b->t->shape.head_dim,
                      .backward = true};
    dure_rope_apply(x, &args, &b->t->compute);
}

/* dq, dk, dv before the rotation, from ws.datt. */
static void scores_back(const back *b, uint32_t layer)
{
    dure_transformer *t = b->t;
    dure_workspace *ws = &t->ws;
    const dure_model_shape *s = &t->shape;
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    size_t q = (size_t)s->n_head * s->head_dim, kv = (size_t)s->n_head_kv * s->head_dim;
    for (size_t d = 0; d < b->pass->n_docs; d++) {
        ws->docs[d].k = acts->k + ws->docs[d].first * kv;
        ws->docs[d].v = acts->v + ws->docs[d].first * kv;
    }
    dure_attention args = {.docs = ws->docs,
                           .n_docs = b->pass->n_docs,
                           .q = acts->q,
                           .ldq = q,
                           .ldk = kv,
                           .ldv = kv,
                           .heads = s->n_head,
                           .heads_kv = s->n_head_kv,
                           .dim = s->head_dim,
                           .scale = t->attention_scale,
                           .packed = ws->packed};
    dure_attention_grad grad = {.args = &args,
                                .out = acts->att,
                                .lse = acts->lse,
                                .dout = ws->datt,
                                .dq = ws->dq,
                                .dk = ws->dk,
                                .dv = ws->dv};
    dure_attention_backward(&grad, &t->compute);
    rotate_back(b, ws->dq, s->n_head);
    rotate_back(b, ws->dk, s->n_head_kv);
}

/* The attention half: ws.dx goes from acts->mid to acts->x; the lowest adapted layer needs only
 * its own gradients. */
static void attention_back(const back *b, uint32_t layer)
{
    dure_transformer *t = b->t;
    dure_workspace *ws = &t->ws;
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    linears_back(b, layer, ws->datt, (linear_grad[]){{DURE_LORA_O, ws->dx, acts->att}}, 1);
    scores_back(b, layer);
    dure_rmsnorm norm = norm_args(b, acts->x, t->layers[layer].attn_norm);
    if (trains(b, layer, DURE_LORA_Q, 0) || trains(b, layer, DURE_LORA_K, 0) ||
        trains(b, layer, DURE_LORA_V, 0))
        dure_rmsnorm_forward(ws->norm, &norm, &t->compute);
    bool lowest = layer == b->pass->lora->layout.first_layer;
    linears_back(b, layer, lowest ? NULL : ws->dnorm,
                 (linear_grad[]){{DURE_LORA_Q, ws->dq, ws->norm},
                                 {DURE_LORA_K, ws->dk, ws->norm},
                                 {DURE_LORA_V, ws->dv, ws->norm}},
                 3);
    if (!lowest) dure_rmsnorm_backward(ws->dx, ws->dnorm, &norm, &t->compute);
}

void dure_transformer_run_backward(dure_transformer *t, const dure_pass *pass,
                                   const dure_gradient_map *map, float *gradients)
{
    back b = {.t = t, .pass = pass, .map = map, .gradients = gradients};
    for (uint32_t layer = t->shape.n_layers; layer-- > pass->lora->layout.first_layer;) {
        feed_forward_back(&b, layer);
        attention_back(&b, layer);
    }
}
