#include "model/transformer_int.h"

#include "kernels/cross_entropy.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"
#include "model/transformer_dora.h"
#include "model/transformer_dropout.h"

#include <string.h>

/* Of the embedding: between two times that the pages of the file are let go. */
enum { LET_GO_ROWS = 16 };

/* One frozen product of a layer: where its rows are, and what becomes of its sums. */
typedef struct linear {
    dure_lora_target target;
    const void *x;
    dure_finisher *finish;
    void *state;
    dure_touched to; /* where the sums go */
} linear;

static void multiply(const dure_transformer *t, const dure_pass *pass, const dure_product *products,
                     size_t n, dure_ahead ahead)
{
    if (pass->few)
        dure_matmul_few(products, n, pass->rows, &t->compute);
    else
        dure_matmul_ahead(products, n, pass->rows, ahead, &t->compute);
}

static const dure_ahead nothing;

/* The weights of the products that follow those of `last`. */
static dure_ahead after(const dure_transformer *t, uint32_t layer, dure_lora_target last)
{
    switch (last) {
    case DURE_LORA_V:
        return dure_transformer_ahead(t, layer, DURE_LORA_O, false);
    case DURE_LORA_O:
        return dure_transformer_ahead(t, layer, DURE_LORA_GATE, false);
    case DURE_LORA_UP:
        return dure_transformer_ahead(t, layer, DURE_LORA_DOWN, false);
    default:
        return dure_transformer_ahead(t, layer + 1, DURE_LORA_Q, false);
    }
}

/* Where s x A^T of a target is kept. */
static void *z_of(dure_transformer *t, uint32_t layer, dure_lora_target target)
{
    const dure_workspace *ws = &t->ws;
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    return dure_act_at(t->compute.ops, acts->z, target * ws->has.rows * ws->ldz);
}

/* Finishes x W^T + z B^T for each, where z = s x A^T comes first and is kept for the backward
 * pass. */
static void linears(dure_transformer *t, const dure_pass *pass, uint32_t layer, const linear *list,
                    size_t n)
{
    dure_product main[3], down[3];
    dure_lora_pair pairs[3];
    dure_store stores[3];
    dure_dora_sums gains[3];
    size_t adapted = 0, ldz = t->ws.ldz, in = t->layers[layer].w[list[0].target].in;
    const void *x = dure_dropout_masked(t, pass, layer, list[0].target, list[0].x, in);
    for (size_t i = 0; i < n; i++) {
        const linear *l = &list[i];
        const dure_weight *w = &t->layers[layer].w[l->target];
        main[i] = (dure_product){.terms = {{.x = l->x, .ldx = w->in, .w = w}},
                                 .n_terms = 1,
                                 .finish = l->finish,
                                 .state = l->state,
                                 .touched = {l->to}};
        if (l->finish == dure_finish_heads) main[i].grain = dure_heads_grain(l->state);
        dure_dora_before(&main[i], &gains[i], t, pass, layer, l->target);
        dure_lora_pair *pair = &pairs[adapted];
        if (!dure_transformer_pair(pair, pass->lora, layer, l->target)) continue;
        void *z = z_of(t, layer, l->target);
        /* A group of activations may reach past an odd rank. */
        if (pair->a.out % t->compute.ops->group)
            memset(z, 0, pass->rows * ldz * t->compute.ops->act_bytes);
        if (pass->dropout) pair->scale *= pass->dropout->scale;
        stores[adapted] = (dure_store){.y = z, .ldy = ldz, .scale = pair->scale};
        down[adapted] = (dure_product){.terms = {{.x = x, .ldx = w->in, .w = &pair->a}},
                                       .n_terms = 1,
                                       .finish = dure_finish_store,
                                       .state = &stores[adapted]};
        main[i].terms[main[i].n_terms++] = (dure_term){.x = z, .ldx = ldz, .w = &pair->b};
        adapted++;
    }
    dure_profile_enter(t->compute.profile, DURE_PHASE_LORA);
    if (pass->few)
        dure_matmul_few(down, adapted, pass->rows, &t->compute);
    else
        dure_matmul_narrow(down, adapted, pass->rows, &t->compute);
    dure_profile_enter(t->compute.profile, DURE_PHASE_MATMUL);
    multiply(t, pass, main, n, after(t, layer, list[n - 1].target));
}

static dure_rmsnorm norm_args(const dure_transformer *t, const float *w, size_t rows)
{
    return (dure_rmsnorm){.w = w, .rows = rows, .width = t->shape.n_embd, .eps = t->arch.norm_eps};
}

/* Points every document at its keys and values: those of the pass, or the whole of its cache,
 * which takes those of the pass. */
static void point_at_keys(dure_transformer *t, const dure_pass *pass, uint32_t layer)
{
    const dure_cpu_ops *ops = t->compute.ops;
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    size_t kv = (size_t)t->shape.n_head_kv * t->shape.head_dim;
    for (size_t d = 0; d < pass->n_docs; d++) {
        dure_attention_doc *doc = &t->ws.docs[d];
        doc->k = dure_act_at(ops, acts->k, doc->first * kv);
        doc->v = dure_act_at(ops, acts->v, doc->first * kv);
        if (!pass->caches) continue;
        dure_kv_cache *cache = pass->caches[d];
        size_t start = layer * cache->positions * kv, end = start + cache->n * kv;
        memcpy(dure_act_at(ops, cache->k, end), doc->k, doc->n * kv * ops->act_bytes);
        memcpy(dure_act_at(ops, cache->v, end), doc->v, doc->n * kv * ops->act_bytes);
        doc->k = dure_act_at(ops, cache->k, start);
        doc->v = dure_act_at(ops, cache->v, start);
    }
}

/* A product of what was normed. */
static linear to_heads(const dure_transformer *t, dure_lora_target target, dure_heads *heads)
{
    return (linear){target, t->ws.norm, dure_finish_heads, heads,
                    dure_touched_acts(heads->y, heads->ldy, t->compute.ops)};
}

static linear to_store(const dure_transformer *t, dure_lora_target target, dure_store *store)
{
    return (linear){target, t->ws.norm, dure_finish_store, store,
                    dure_touched_acts(store->y, store->ldy, t->compute.ops)};
}

static dure_store store_at(void *y, size_t ldy)
{
    return (dure_store){.y = y, .ldy = ldy, .scale = 1.0f};
}

dure_heads dure_transformer_heads(dure_transformer *t, uint32_t layer, dure_lora_target target)
{
    const dure_model_shape *s = &t->shape;
    const float *const *vector = t->layers[layer].vector;
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    dure_heads h = {.dim = s->head_dim, .eps = t->arch.norm_eps, .position = t->ws.position};
    bool is_q = target == DURE_LORA_Q;
    h.ldy = (size_t)(is_q ? s->n_head : s->n_head_kv) * s->head_dim;
    if (target == DURE_LORA_V) {
        h.y = acts->v;
        h.bias = vector[DURE_VECTOR_V_BIAS];
        return h;
    }
    h.y = is_q ? acts->q : acts->k;
    h.kept = is_q ? acts->q_kept : acts->k_kept;
    h.bias = vector[is_q ? DURE_VECTOR_Q_BIAS : DURE_VECTOR_K_BIAS];
    h.norm = vector[is_q ? DURE_VECTOR_Q_NORM : DURE_VECTOR_K_NORM];
    h.table = dure_model_arch_slides(&t->arch, layer) ? &t->rope_sliding : &t->rope;
    return h;
}

size_t dure_transformer_window(const dure_transformer *t, uint32_t layer)
{
    return dure_model_arch_slides(&t->arch, layer) ? t->arch.window : 0;
}

/* Finishes the products of a half of a layer: their sums go to the residual stream, or first
 * through a norm. */
static void add_half(dure_transformer *t, const dure_pass *pass, uint32_t layer, linear last,
                     dure_model_vector which, void *kept)
{
    const float *w = t->layers[layer].vector[which];
    dure_floats sums = {.y = w ? t->ws.added : t->ws.res, .ldy = t->shape.n_embd, .accumulate = !w};
    last.finish = dure_finish_floats;
    last.state = &sums;
    last.to = dure_touched_floats(sums.y, sums.ldy);
    linears(t, pass, layer, &last, 1);
    if (!w) return;
    dure_rmsnorm norm = norm_args(t, w, pass->rows);
    dure_profile_enter(t->compute.profile, DURE_PHASE_ELEMENTWISE);
    dure_rmsnorm_add(t->ws.res, kept, t->ws.added, &norm, &t->compute);
}

static void attend(dure_transformer *t, const dure_pass *pass, uint32_t layer)
{
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    const dure_model_shape *s = &t->shape;
    size_t q = (size_t)s->n_head * s->head_dim, kv = (size_t)s->n_head_kv * s->head_dim;
    dure_rmsnorm norm = norm_args(t, t->layers[layer].vector[DURE_VECTOR_ATTN_NORM], pass->rows);
    dure_profile_enter(t->compute.profile, DURE_PHASE_ELEMENTWISE);
    dure_rmsnorm_forward(t->ws.norm, acts->x, t->ws.res, &norm, &t->compute);
    dure_heads to_q = dure_transformer_heads(t, layer, DURE_LORA_Q);
    dure_heads to_k = dure_transformer_heads(t, layer, DURE_LORA_K);
    dure_heads to_v = dure_transformer_heads(t, layer, DURE_LORA_V);
    linears(t, pass, layer,
            (linear[]){to_heads(t, DURE_LORA_Q, &to_q), to_heads(t, DURE_LORA_K, &to_k),
                       to_heads(t, DURE_LORA_V, &to_v)},
            3);
    dure_profile_enter(t->compute.profile, DURE_PHASE_ATTENTION);
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
                           .window = dure_transformer_window(t, layer),
                           .scale = t->arch.attention_scale,
                           .packed = t->ws.packed};
    dure_attention_forward(acts->att, acts->lse, &args, &t->compute);
    add_half(t, pass, layer, (linear){.target = DURE_LORA_O, .x = acts->att},
             DURE_VECTOR_POST_ATTN_NORM, acts->att_kept);
}

static void feed_forward(dure_transformer *t, const dure_pass *pass, uint32_t layer)
{
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    size_t f = t->shape.n_ff;
    dure_rmsnorm norm = norm_args(t, t->layers[layer].vector[DURE_VECTOR_FFN_NORM], pass->rows);
    dure_profile_enter(t->compute.profile, DURE_PHASE_ELEMENTWISE);
    dure_rmsnorm_forward(t->ws.norm, acts->mid, t->ws.res, &norm, &t->compute);
    dure_store gate = store_at(acts->gate, f), up = store_at(acts->up, f);
    linears(t, pass, layer,
            (linear[]){to_store(t, DURE_LORA_GATE, &gate), to_store(t, DURE_LORA_UP, &up)}, 2);
    dure_profile_enter(t->compute.profile, DURE_PHASE_ELEMENTWISE);
    dure_swiglu gated = {.h = t->ws.h,
                         .gate = acts->gate,
                         .up = acts->up,
                         .n = pass->rows * f,
                         .of_gate = t->arch.activation};
    dure_swiglu_forward(&gated, &t->compute);
    add_half(t, pass, layer, (linear){.target = DURE_LORA_DOWN, .x = t->ws.h},
             DURE_VECTOR_POST_FFN_NORM, acts->ffn_kept);
}

void dure_transformer_run(dure_transformer *t, dure_pass *pass)
{
    size_t d = t->shape.n_embd;
    dure_profile_enter(t->compute.profile, DURE_PHASE_ELEMENTWISE);
    for (size_t i = 0; i < pass->rows; i++) {
        float *x = t->ws.res + i * d, by = t->arch.embedding_scale;
        dure_weight_row(x, &t->embedding, (size_t)t->ws.tokens[i], &t->compute);
        if (by > 1 || by < 1) t->compute.ops->scale(x, by, d);
        /* The rows lie all over the table, and the system brings their surroundings too. */
        if (t->packed && (i + 1) % LET_GO_ROWS == 0) dure_gguf_let_go(t->gguf);
    }
    for (uint32_t l = 0; l < t->shape.n_layers; l++) {
        float *kept = pass->keep ? dure_transformer_checkpoint(t, l) : NULL;
        if (kept) memcpy(kept, t->ws.res, pass->rows * d * sizeof *kept);
        attend(t, pass, l);
        feed_forward(t, pass, l);
    }
    for (size_t i = 0; pass->caches && i < pass->n_docs; i++)
        pass->caches[i]->n += t->ws.docs[i].n;
}

void dure_transformer_run_again(dure_transformer *t, const dure_pass *pass, uint32_t layer)
{
    const float *kept = dure_transformer_checkpoint(t, layer);
    memcpy(t->ws.res, kept, pass->rows * t->shape.n_embd * sizeof *kept);
    attend(t, pass, layer);
    feed_forward(t, pass, layer);
}

/* The norm of rows row[0..n) of the residual stream, for the head. */
static void head_norm(dure_transformer *t, const size_t *row, size_t n)
{
    dure_workspace *ws = &t->ws;
    size_t d = t->shape.n_embd;
    for (size_t i = 0; i < n; i++)
        memcpy(ws->head_x + i * d, ws->res + row[i] * d, d * sizeof *ws->head_x);
    dure_rmsnorm norm = norm_args(t, t->output_norm, n);
    dure_rmsnorm_forward(ws->head_norm, ws->head_kept, ws->head_x, &norm, &t->compute);
}

static dure_product head_product(const dure_transformer *t, dure_finisher *finish, void *state)
{
    return (dure_product){.terms = {{.x = t->ws.head_norm, .ldx = t->shape.n_embd, .w = &t->head}},
                          .n_terms = 1,
                          .finish = finish,
                          .state = state};
}

void dure_transformer_logits(dure_transformer *t, const size_t *row, size_t n, bool few)
{
    dure_floats logits = {.y = t->ws.logits, .ldy = t->ws.logits_ld};
    DURE_ASSERT(n <= t->ws.has.logits);
    head_norm(t, row, n);
    dure_product product = head_product(t, dure_finish_floats, &logits);
    dure_pass pass = {.rows = n, .few = few};
    multiply(t, &pass, &product, 1, nothing);
}

void dure_transformer_head(dure_transformer *t, size_t first, size_t n, bool gradient)
{
    dure_workspace *ws = &t->ws;
    size_t d = t->shape.n_embd;
    dure_cross_entropy loss = {.labels = ws->label + first,
                               .rows = n,
                               .vocab = t->head.out,
                               .p = ws->p,
                               .ld = ws->p_ld,
                               .max = ws->max,
                               .sum = ws->sum,
                               .at_label = ws->at_label};
    dure_profile_enter(t->compute.profile, DURE_PHASE_CROSS_ENTROPY);
    head_norm(t, ws->label_row + first, n);
    dure_product forward = head_product(t, dure_finish_cross_entropy, &loss);
    forward.grain = DURE_CROSS_ENTROPY_BLOCK;
    forward.touched[0] = dure_touched_acts(ws->p, ws->p_ld, t->compute.ops);
    dure_profile_enter(t->compute.profile, DURE_PHASE_MATMUL);
    dure_matmul(&forward, 1, n, &t->compute);
    dure_profile_enter(t->compute.profile, DURE_PHASE_CROSS_ENTROPY);
    dure_cross_entropy_end(ws->nll + first, &loss, gradient ? ws->label_weight + first : NULL,
                           &t->compute);
    if (!gradient) return;
    dure_floats dnorm = {.y = ws->head_dnorm, .ldy = d};
    dure_product back = {
        .terms = {{.x = ws->p, .ldx = ws->p_ld, .w = &t->head, .transposed = true}},
        .n_terms = 1,
        .finish = dure_finish_floats,
        .state = &dnorm,
        .touched = {dure_touched_floats(dnorm.y, dnorm.ldy)}};
    dure_profile_enter(t->compute.profile, DURE_PHASE_MATMUL);
    dure_matmul(&back, 1, n, &t->compute);
    dure_profile_enter(t->compute.profile, DURE_PHASE_CROSS_ENTROPY);
    /* Each row predicts at most one label, so its gradient is written once. */
    memset(ws->head_x, 0, n * d * sizeof *ws->head_x);
    dure_rmsnorm norm = norm_args(t, t->output_norm, n);
    dure_rmsnorm_backward(ws->head_x, NULL, ws->head_dnorm, ws->head_kept, &norm, &t->compute);
    for (size_t i = 0; i < n; i++)
        memcpy(ws->dres + ws->label_row[first + i] * d, ws->head_x + i * d, d * sizeof *ws->dres);
}
