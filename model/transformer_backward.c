#include "model/transformer_int.h"

#include "kernels/lora.h"
#include "kernels/rmsnorm.h"
#include "kernels/swiglu.h"
#include "model/transformer_dora.h"
#include "model/transformer_dropout.h"

#include <string.h>

/* One product of a layer on the way back: dy is known, and with DoRA changed to that of the sums
 * before their gains; x is its input. */
typedef struct linear_grad {
    dure_lora_target target;
    void *dy;
    const void *x; /* read for dA only */
} linear_grad;

typedef struct back {
    dure_transformer *t;
    const dure_pass *pass;
    const dure_gradient_map *map;
} back;

static void enter(const back *b, dure_phase phase)
{
    dure_profile_enter(b->t->compute.profile, phase);
}

static bool trains(const back *b, uint32_t layer, dure_lora_target target, int factor)
{
    return b->map->offset[layer][target][factor] != SIZE_MAX;
}

/* The target's plane of z or dz. */
static void *plane(const back *b, void *z, dure_lora_target target)
{
    const dure_workspace *ws = &b->t->ws;
    return dure_act_at(b->t->compute.ops, z, target * ws->has.rows * ws->ldz);
}

/* dz = s dy B for every adapted product of the list; before that, DoRA's part. */
static void lora_inputs(const back *b, uint32_t layer, const linear_grad *list, size_t n)
{
    dure_transformer *t = b->t;
    dure_product products[3];
    dure_lora_pair pairs[3];
    dure_store stores[3];
    size_t k = 0, ldz = t->ws.ldz;
    enter(b, DURE_PHASE_LORA);
    for (size_t i = 0; i < n; i++) {
        dure_lora_pair *pair = &pairs[k];
        dure_dora_back(t, b->pass, b->map, layer, list[i].target, list[i].dy);
        if (!dure_transformer_pair(pair, b->pass->lora, layer, list[i].target)) continue;
        void *dz = plane(b, t->ws.dz, list[i].target);
        if (pair->a.out % t->compute.ops->group)
            memset(dz, 0, b->pass->rows * ldz * t->compute.ops->act_bytes);
        if (b->pass->dropout) pair->scale *= b->pass->dropout->scale;
        stores[k] = (dure_store){.y = dz, .ldy = ldz, .scale = pair->scale};
        products[k] = (dure_product){
            .terms = {{.x = list[i].dy, .ldx = pair->b.out, .w = &pair->b, .transposed = true}},
            .n_terms = 1,
            .finish = dure_finish_store,
            .state = &stores[k]};
        k++;
    }
    dure_matmul_narrow(products, k, b->pass->rows, &t->compute);
}

float *dure_transformer_layer_gradients(dure_transformer *t, const dure_gradient_map *map,
                                        uint32_t layer, size_t doc)
{
    if (t->ws.has.checkpoints) return t->ws.gradient + doc * map->n + map->layer_at[layer];
    bool top = layer + 1 == t->shape.n_layers;
    float *room = top ? t->ws.spare : dure_transformer_acts(t, layer + 1)->gradients;
    return room + doc * (map->layer_at[layer + 1] - map->layer_at[layer]);
}

/* dA of the list's products together where their ranks are equal, since they share x, and dB of
 * each: for one document at a time. A task is a document and a piece of a row of this table. */
enum { SUMS_MAX = 6 };

typedef struct factor_job {
    const back *b;
    uint32_t layer;
    dure_lora_sums
        sums[SUMS_MAX]; /* `out` counts from the document's first gradient of the layer */
    size_t offset[SUMS_MAX][DURE_LORA_SUMS_MAX], n;
    size_t pieces[SUMS_MAX + 1]; /* of the rows before */
} factor_job;

static void add_sum(factor_job *job, dure_lora_sums *sums, dure_lora_target target, int factor)
{
    const back *b = job->b;
    size_t row = (size_t)(sums - job->sums);
    void *z = factor ? dure_transformer_acts(b->t, job->layer)->z : b->t->ws.dz;
    job->offset[row][sums->n] =
        b->map->offset[job->layer][target][factor] - b->map->layer_at[job->layer];
    sums->list[sums->n++] = (dure_lora_sum){.z = plane(b, z, target), .ldz = b->t->ws.ldz};
}

static void factor_task(void *state, size_t task, void *scratch)
{
    const factor_job *job = state;
    const back *b = job->b;
    size_t doc = task / job->pieces[job->n], piece = task % job->pieces[job->n], row = 0;
    while (piece >= job->pieces[row + 1])
        row++;
    dure_lora_sums sums = job->sums[row];
    size_t column = (piece - job->pieces[row]) * DURE_LORA_PIECE, left = sums.width - column;
    dure_lora_columns columns = {column, left < DURE_LORA_PIECE ? left : DURE_LORA_PIECE};
    float *room = dure_transformer_layer_gradients(b->t, b->map, job->layer, doc);
    for (size_t i = 0; i < sums.n; i++)
        sums.list[i].out = room + job->offset[row][i];
    const dure_attention_doc *d = &b->t->ws.docs[doc];
    dure_lora_rows rows = {d->first, d->n};
    if (b->map->together) rows = (dure_lora_rows){0, b->pass->rows};
    dure_lora_sums_run(&sums, rows, columns, scratch, b->t->compute.ops);
}

/* The row of sums over x that has this rank; a new one where there is none yet. */
static dure_lora_sums *sums_of_rank(factor_job *job, const void *x, size_t in, size_t rank)
{
    size_t row = 0;
    while (row < job->n && job->sums[row].rank != rank)
        row++;
    if (row == job->n)
        job->sums[job->n++] = (dure_lora_sums){.x = x, .ldx = in, .width = in, .rank = rank};
    return &job->sums[row];
}

static void factor_gradients(const back *b, uint32_t layer, const linear_grad *list, size_t n)
{
    dure_transformer *t = b->t;
    const dure_lora_layout *layout = &b->pass->lora->layout;
    size_t in = t->layers[layer].w[list[0].target].in;
    factor_job job = {.b = b, .layer = layer};
    const void *x = NULL;
    for (size_t i = 0; i < n; i++) {
        if (!trains(b, layer, list[i].target, 0)) continue;
        if (!x) x = dure_dropout_masked(t, b->pass, layer, list[0].target, list[0].x, in);
        size_t rank = dure_lora_rank(layout, list[i].target);
        add_sum(&job, sums_of_rank(&job, x, in, rank), list[i].target, 0);
    }
    for (size_t i = 0; i < n; i++) {
        if (!trains(b, layer, list[i].target, 1)) continue;
        size_t out = t->layers[layer].w[list[i].target].out;
        dure_lora_sums *sums = &job.sums[job.n++];
        *sums = (dure_lora_sums){.x = list[i].dy,
                                 .ldx = out,
                                 .width = out,
                                 .rank = dure_lora_rank(layout, list[i].target),
                                 .turned = true};
        add_sum(&job, sums, list[i].target, 1);
    }
    for (size_t i = 0; i < job.n; i++)
        job.pieces[i + 1] =
            job.pieces[i] + (job.sums[i].width + DURE_LORA_PIECE - 1) / DURE_LORA_PIECE;
    size_t docs = b->map->together ? 1 : b->pass->n_docs;
    double flops = 0;
    for (size_t i = 0; i < job.n; i++)
        flops +=
            2.0 * (double)(b->pass->rows * job.sums[i].width * job.sums[i].rank * job.sums[i].n);
    enter(b, DURE_PHASE_LORA);
    dure_profile_work(t->compute.profile, flops, 0);
    dure_pool_run(t->pool, docs * job.pieces[job.n], factor_task, &job);
}

/* Appends dz A, if the product is adapted. */
static void add_lora_term(dure_product *p, dure_lora_pair *pair, const back *b, uint32_t layer,
                          dure_lora_target target)
{
    if (!dure_transformer_pair(pair, b->pass->lora, layer, target)) return;
    p->terms[p->n_terms++] = (dure_term){
        .x = plane(b, b->t->ws.dz, target), .ldx = b->t->ws.ldz, .w = &pair->a, .transposed = true};
}

/* The weights of the products that follow, on the way back, those of `first`. */
static dure_ahead after(const back *b, uint32_t layer, dure_lora_target first)
{
    switch (first) {
    case DURE_LORA_DOWN:
        return dure_transformer_ahead(b->t, layer, DURE_LORA_GATE, true);
    case DURE_LORA_GATE:
        return dure_transformer_ahead(b->t, layer, DURE_LORA_O, true);
    case DURE_LORA_O:
        return dure_transformer_ahead(b->t, layer, DURE_LORA_Q, true);
    default:
        return dure_transformer_ahead(b->t, layer - 1, DURE_LORA_DOWN, true);
    }
}

/* What becomes of the gradient of a product's input. */
typedef struct input_finish {
    dure_finisher *finish;
    void *state;
    dure_touched touched[DURE_TOUCHED_MAX];
} input_finish;

/* Finishes the sum of dy W + dz A over the list, whose dz is there. */
static void inputs_back(const back *b, uint32_t layer, const linear_grad *list, size_t n,
                        const input_finish *to)
{
    dure_transformer *t = b->t;
    dure_lora_pair pairs[3];
    dure_product p = {.finish = to->finish, .state = to->state};
    dure_dropout_sums dropped = {.t = t,
                                 .pass = b->pass,
                                 .layer = layer,
                                 .input = list[0].target,
                                 .width = t->layers[layer].w[list[0].target].in};
    memcpy(p.touched, to->touched, sizeof p.touched);
    for (size_t i = 0; i < n; i++) {
        const dure_weight *w = &t->layers[layer].w[list[i].target];
        p.terms[p.n_terms++] =
            (dure_term){.x = list[i].dy, .ldx = w->out, .w = w, .transposed = true};
        /* Beside its product, from whose sums its own go on. */
        if (!b->pass->dropout) add_lora_term(&p, &pairs[i], b, layer, list[i].target);
    }
    for (size_t i = 0; b->pass->dropout && i < n; i++)
        add_lora_term(&p, &pairs[i], b, layer, list[i].target);
    if (b->pass->dropout && p.n_terms > n) {
        p.n_apart = p.n_terms - n;
        p.join = dure_dropout_join;
        p.join_state = &dropped;
    }
    enter(b, DURE_PHASE_MATMUL);
    dure_matmul_ahead(&p, 1, b->pass->rows, after(b, layer, list[0].target), &t->compute);
}

/* The same into ws.dnorm. */
static void norm_input_back(const back *b, uint32_t layer, const linear_grad *list, size_t n)
{
    dure_floats dnorm = {.y = b->t->ws.dnorm, .ldy = b->t->shape.n_embd};
    inputs_back(
        b, layer, list, n,
        &(input_finish){dure_finish_floats, &dnorm, {dure_touched_floats(dnorm.y, dnorm.ldy)}});
}

static dure_rmsnorm norm_args(const back *b, const float *w)
{
    return (dure_rmsnorm){
        .w = w, .rows = b->pass->rows, .width = b->t->shape.n_embd, .eps = b->t->arch.norm_eps};
}

/* ws.dy, the gradient of what a half of a layer adds: that of the residual stream, or of the norm's
 * input where the half ends in one. */
static void into_half(const back *b, uint32_t layer, dure_model_vector which, const void *kept)
{
    dure_workspace *ws = &b->t->ws;
    const float *w = b->t->layers[layer].vector[which];
    if (!w) return; /* ws.dy is ws.dres already */
    dure_rmsnorm norm = norm_args(b, w);
    enter(b, DURE_PHASE_ELEMENTWISE);
    memset(ws->dnorm, 0, norm.rows * norm.width * sizeof *ws->dnorm);
    dure_rmsnorm_backward(ws->dnorm, ws->dy, ws->dres, kept, &norm, &b->t->compute);
}

/* The feed-forward half: ws.dres and ws.dy go from the layer's output to acts->mid. */
static void feed_forward_back(const back *b, uint32_t layer)
{
    dure_transformer *t = b->t;
    dure_workspace *ws = &t->ws;
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    const linear_grad down = {DURE_LORA_DOWN, ws->dy, ws->h};
    into_half(b, layer, DURE_VECTOR_POST_FFN_NORM, acts->ffn_kept);
    lora_inputs(b, layer, &down, 1);
    /* Gate and up become their gradients, and h is there once more. */
    dure_swiglu_grad swiglu = {.h = ws->h,
                               .gate = acts->gate,
                               .up = acts->up,
                               .width = t->shape.n_ff,
                               .of_gate = t->arch.activation};
    const dure_cpu_ops *ops = t->compute.ops;
    const size_t f = t->shape.n_ff;
    inputs_back(
        b, layer, &down, 1,
        &(input_finish){dure_finish_swiglu_backward,
                        &swiglu,
                        {dure_touched_acts(ws->h, f, ops), dure_touched_acts(acts->gate, f, ops),
                         dure_touched_acts(acts->up, f, ops)}});
    factor_gradients(b, layer, &down, 1);
    const linear_grad both[] = {{DURE_LORA_GATE, acts->gate, ws->norm},
                                {DURE_LORA_UP, acts->up, ws->norm}};
    dure_rmsnorm norm = norm_args(b, t->layers[layer].vector[DURE_VECTOR_FFN_NORM]);
    enter(b, DURE_PHASE_ELEMENTWISE);
    dure_rmsnorm_again(ws->norm, acts->mid, &norm, &t->compute);
    lora_inputs(b, layer, both, 2);
    factor_gradients(b, layer, both, 2);
    norm_input_back(b, layer, both, 2);
    enter(b, DURE_PHASE_ELEMENTWISE);
    dure_rmsnorm_backward(ws->dres, ws->dy, ws->dnorm, acts->mid, &norm, &t->compute);
}

/* dq, dk, dv of the products, from ws.datt. */
static void scores_back(const back *b, uint32_t layer)
{
    dure_transformer *t = b->t;
    dure_workspace *ws = &t->ws;
    const dure_model_shape *s = &t->shape;
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    size_t q = (size_t)s->n_head * s->head_dim, kv = (size_t)s->n_head_kv * s->head_dim;
    for (size_t d = 0; d < b->pass->n_docs; d++) {
        ws->docs[d].k = dure_act_at(t->compute.ops, acts->k, ws->docs[d].first * kv);
        ws->docs[d].v = dure_act_at(t->compute.ops, acts->v, ws->docs[d].first * kv);
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
                           .window = dure_transformer_window(t, layer),
                           .scale = t->arch.attention_scale,
                           .packed = ws->packed};
    dure_heads to_q = dure_transformer_heads(t, layer, DURE_LORA_Q);
    dure_heads to_k = dure_transformer_heads(t, layer, DURE_LORA_K);
    dure_attention_grad grad = {.args = &args,
                                .out = acts->att,
                                .lse = acts->lse,
                                .dout = ws->datt,
                                .dq = ws->dq,
                                .dk = ws->dk,
                                .dv = ws->dv,
                                .heads_q = &to_q,
                                .heads_k = &to_k};
    enter(b, DURE_PHASE_ATTENTION);
    dure_attention_backward(&grad, &t->compute);
}

/* The attention half: ws.dres and ws.dy go from acts->mid to acts->x; the lowest adapted layer
 * needs only its own gradients. */
static void attention_back(const back *b, uint32_t layer)
{
    dure_transformer *t = b->t;
    dure_workspace *ws = &t->ws;
    dure_layer_acts *acts = dure_transformer_acts(t, layer);
    const linear_grad out = {DURE_LORA_O, ws->dy, acts->att};
    dure_store datt = {
        .y = ws->datt, .ldy = (size_t)t->shape.n_head * t->shape.head_dim, .scale = 1.0f};
    into_half(b, layer, DURE_VECTOR_POST_ATTN_NORM, acts->att_kept);
    lora_inputs(b, layer, &out, 1);
    factor_gradients(b, layer, &out, 1);
    inputs_back(b, layer, &out, 1,
                &(input_finish){dure_finish_store,
                                &datt,
                                {dure_touched_acts(datt.y, datt.ldy, t->compute.ops)}});
    scores_back(b, layer);
    const linear_grad three[] = {{DURE_LORA_Q, ws->dq, ws->norm},
                                 {DURE_LORA_K, ws->dk, ws->norm},
                                 {DURE_LORA_V, ws->dv, ws->norm}};
    dure_rmsnorm norm = norm_args(b, t->layers[layer].vector[DURE_VECTOR_ATTN_NORM]);
    enter(b, DURE_PHASE_ELEMENTWISE);
    dure_rmsnorm_again(ws->norm, acts->x, &norm, &t->compute);
    lora_inputs(b, layer, three, 3);
    factor_gradients(b, layer, three, 3);
    if (layer == b->pass->lora->layout.first_layer) return;
    norm_input_back(b, layer, three, 3);
    enter(b, DURE_PHASE_ELEMENTWISE);
    dure_rmsnorm_backward(ws->dres, ws->dy, ws->dnorm, acts->x, &norm, &t->compute);
}

typedef struct round_job {
    const back *b;
} round_job;

static void round_rows(void *state, size_t first, size_t last, void *scratch)
{
    const back *b = ((const round_job *)state)->b;
    const dure_cpu_ops *ops = b->t->compute.ops;
    size_t d = b->t->shape.n_embd;
    (void)scratch;
    ops->store(dure_act_at(ops, b->t->ws.dy, first * d), b->t->ws.dres + first * d,
               (last - first) * d, 1.0f);
}

void dure_transformer_run_backward(dure_transformer *t, const dure_pass *pass,
                                   const dure_gradient_map *map)
{
    back b = {.t = t, .pass = pass, .map = map};
    enter(&b, DURE_PHASE_ELEMENTWISE);
    dure_compute_rows(&t->compute, pass->rows, 16, round_rows, &(round_job){&b});
    for (uint32_t layer = t->shape.n_layers; layer-- > pass->lora->layout.first_layer;) {
        if (dure_transformer_checkpoint(t, layer)) dure_transformer_run_again(t, pass, layer);
        feed_forward_back(&b, layer);
        attention_back(&b, layer);
    }
}
