#include "model/transformer_int.h"

#include "kernels/cross_entropy.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"

#include <string.h>

/* One frozen product of a layer and where its rows are. */
typedef struct linear {
    dure_lora_target target;
    float *y;
    const float *x;
} linear;

static void multiply(const dure_transformer *t, const dure_pass *pass, const dure_product *products,
                     size_t n)
{
    dure_matmul job = {.rows = pass->rows, .products = products, .n_products = n};
    if (n == 0) return;
    if (pass->few)
        dure_matmul_few(&job, &t->compute);
    else
        dure_matmul_forward(&job, &t->compute);
}

typedef struct scale_job {
    float *x, by;
    const dure_cpu_ops *ops;
} scale_job;

static void scale_body(void *state, size_t first, size_t last, void *scratch)
{
    const scale_job *job = state;
    (void)scratch;
    job->ops->scale(job->x + first, job->by, last - first);
}

static void scale(const dure_transformer *t, float *x, float by, size_t n)
{
    scale_job job = {.x = x, .by = by, .ops = t->compute.ops};
    dure_compute_rows(&t->compute, n, 8192, scale_body, &job);
}

/* y = x W^T + (s x A^T) B^T for each; z keeps s x A^T for the backward pass. */
static void linears(dure_transformer *t, const dure_pass *pass, uint32_t layer, const linear *list,
                    size_t n)
{
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    dure_product main[3], down[3], up[3];
    dure_lora_pair pairs[3];
    size_t adapted = 0;
    for (size_t i = 0; i < n; i++) {
        const dure_weight *w = &t->layers[layer].w[list[i].target];
        main[i] =
            (dure_product){.y = list[i].y, .ldy = w->out, .x = list[i].x, .ldx = w->in, .w = w};
        dure_lora_pair *pair = &pairs[adapted];
        if (!dure_transformer_pair(pair, pass->lora, layer, list[i].target)) continue;
        float *z = acts->z + list[i].target * t->ws.rows * t->ws.rank;
        down[adapted] =
            (dure_product){.y = z, .ldy = pair->a.out, .x = list[i].x, .ldx = w->in, .w = &pair->a};
        up[adapted] = (dure_product){.y = list[i].y,
                                     .ldy = w->out,
                                     .x = z,
                                     .ldx = pair->a.out,
                                     .w = &pair->b,
                                     .accumulate = true};
        adapted++;
    }
    multiply(t, pass, main, n);
    multiply(t, pass, down, adapted);
    for (size_t i = 0; i < adapted; i++)
        scale(t, down[i].y, pairs[i].scale, pass->rows * down[i].ldy);
    multiply(t, pass, up, adapted);
}

static void norm(const dure_transformer *t, float *y, const float *x, const float *w, size_t rows)
{
    dure_rmsnorm args = {.x = x, .w = w, .rows = rows, .width = t->shape.n_embd, .eps = t->eps};
    dure_rmsnorm_forward(y, &args, &t->compute);
}

typedef struct sum_job {
    float *y;
    const float *a, *b;
    const dure_cpu_ops *ops;
} sum_job;

static void sum_body(void *state, size_t first, size_t last, void *scratch)
{
    const sum_job *job = state;
    (void)scratch;
    if (job->y != job->a) memcpy(job->y + first, job->a + first, (last - first) * sizeof *job->y);
    job->ops->add(job->y + first, job->b + first, last - first);
}

/* y = a + b; y may be a. */
static void sum(const dure_transformer *t, float *y, const float *a, const float *b, size_t n)
{
    sum_job job = {.y = y, .a = a, .b = b, .ops = t->compute.ops};
    dure_compute_rows(&t->compute, n, 8192, sum_body, &job);
}

static void rotate(const dure_transformer *t, float *x, size_t heads, size_t rows)
{
    dure_rope args = {.table = &t->rope,
                      .position = t->ws.position,
                      .rows = rows,
                      .ld = heads * t->shape.head_dim,
                      .heads = heads,
                      .head_dim = t->shape.head_dim};
    dure_rope_apply(x, &args, &t->compute);
}

/* Points every document at its keys and values: those of the pass, or the whole of its cache,
 * which takes those of the pass. */
static void point_at_keys(dure_transformer *t, const dure_pass *pass, uint32_t layer)
{
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    size_t kv = (size_t)t->shape.n_head_kv * t->shape.head_dim;
    for (size_t d = 0; d < pass->n_docs; d++) {
        dure_attention_doc *doc = &t->ws.docs[d];
        doc->k = acts->k + doc->first * kv;
        doc->v = acts->v + doc->first * kv;
        if (!pass->caches) continue;
        dure_kv_cache *cache = pass->caches[d];
        size_t start = layer * cache->positions * kv, bytes = doc->n * kv * sizeof(float);
        memcpy(cache->k + start + cache->n * kv, doc->k, bytes);
        memcpy(cache->v + start + cache->n * kv, doc->v, bytes);
        doc->k = cache->k + start;
        doc->v = cache->v + start;
    }
}

static void attend(dure_transformer *t, const dure_pass *pass, uint32_t layer)
{
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    const dure_model_shape *s = &t->shape;
    size_t q = (size_t)s->n_head * s->head_dim, kv = (size_t)s->n_head_kv * s->head_dim;
    norm(t, t->ws.norm, acts->x, t->layers[layer].attn_norm, pass->rows);
    linears(t, pass, layer,
            (linear[]){{DURE_LORA_Q, acts->q, t->ws.norm},
                       {DURE_LORA_K, acts->k, t->ws.norm},
                       {DURE_LORA_V, acts->v, t->ws.norm}},
            3);
    rotate(t, acts->q, s->n_head, pass->rows);
    rotate(t, acts->k, s->n_head_kv, pass->rows);
    point_at_keys(t, pass, layer);
    dure_attention args = {.docs = t->ws.docs,
                           .n_docs = pass->n_docs,
                           .q = acts->q,
                           .ldq = q,
                           .ldk = kv,
                           .ldv = kv,
                           .heads = s->n_head,
                           .heads_kv = s->n_head_kv,
                           .dim = s->head_dim,
                           .scale = t->attention_scale,
                           .packed = t->ws.packed};
    dure_attention_forward(acts->att, acts->lse, &args, &t->compute);
}

void dure_transformer_run(dure_transformer *t, dure_pass *pass)
{
    size_t d = t->shape.n_embd, n = pass->rows;
    float *x = dure_transformer_acts(t, 0)->x;
    for (size_t i = 0; i < n; i++)
        dure_weight_row(x + i * d, &t->embedding, (size_t)t->ws.tokens[i], &t->compute);
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        dure_layer_acts *acts = dure_transformer_acts(t, l);
        attend(t, pass, l);
        linears(t, pass, l, (linear[]){{DURE_LORA_O, t->ws.out, acts->att}}, 1);
        sum(t, acts->mid, acts->x, t->ws.out, n * d);
        norm(t, t->ws.norm, acts->mid, t->layers[l].ffn_norm, n);
        linears(t, pass, l,
                (linear[]){{DURE_LORA_GATE, acts->gate, t->ws.norm},
                           {DURE_LORA_UP, acts->up, t->ws.norm}},
                2);
        dure_swiglu_forward(t->ws.h, acts->gate, acts->up, n * t->shape.n_ff, &t->compute);
        linears(t, pass, l, (linear[]){{DURE_LORA_DOWN, t->ws.out, t->ws.h}}, 1);
        bool last = l + 1 == t->shape.n_layers;
        float *y = last ? t->ws.final_x : dure_transformer_acts(t, l + 1)->x;
        sum(t, y, acts->mid, t->ws.out, n * d);
    }
    for (size_t i = 0; pass->caches && i < pass->n_docs; i++)
        pass->caches[i]->n += t->ws.docs[i].n;
}

void dure_transformer_logits(dure_transformer *t, const size_t *row, size_t n, bool few)
{
    dure_workspace *ws = &t->ws;
    size_t d = t->shape.n_embd;
    for (size_t i = 0; i < n; i++)
        memcpy(ws->head_x + i * d, ws->final_x + row[i] * d, d * sizeof *ws->head_x);
    norm(t, ws->head_norm, ws->head_x, t->output_norm, n);
    dure_product product = {
        .y = ws->logits, .ldy = ws->logits_ld, .x = ws->head_norm, .ldx = d, .w = &t->head};
    dure_pass pass = {.rows = n, .few = few};
    multiply(t, &pass, &product, 1);
}

void dure_transformer_head(dure_transformer *t, size_t first, size_t n, bool gradient)
{
    dure_workspace *ws = &t->ws;
    size_t d = t->shape.n_embd;
    dure_transformer_logits(t, ws->label_row + first, n, false);
    dure_cross_entropy args = {.logits = ws->logits,
                               .labels = ws->label + first,
                               .rows = n,
                               .vocab = t->head.out,
                               .ld = ws->logits_ld};
    if (!gradient) {
        dure_cross_entropy_forward(ws->nll + first, &args, &t->compute);
        return;
    }
    dure_cross_entropy_backward(ws->nll + first, &args, ws->label_weight + first, &t->compute);
    dure_product_grad term = {.dy = ws->logits, .lddy = ws->logits_ld, .w = &t->head};
    dure_matmul_grad grad = {.dx = ws->head_dnorm, .lddx = d, .terms = &term, .n_terms = 1};
    dure_matmul_backward(&grad, 1, n, &t->compute);
    /* Each row predicts at most one label, so its gradient is written once. */
    float *dx = ws->head_norm;
    memset(dx, 0, n * d * sizeof *dx);
    dure_rmsnorm args_norm = {
        .x = ws->head_x, .w = t->output_norm, .rows = n, .width = d, .eps = t->eps};
    dure_rmsnorm_backward(dx, ws->head_dnorm, &args_norm, &t->compute);
    for (size_t i = 0; i < n; i++)
        memcpy(ws->dx + ws->label_row[first + i] * d, dx + i * d, d * sizeof *dx);
}
