#include "kernels/attention.h"

#include <string.h>

/* TILE query rows at a time: their scores against all keys stay in the second-level cache. LANE is
 * a multiple of every level's panel width; keys are counted up to it. */
enum { TILE = 56, LANE = 16 };

static size_t padded(size_t n)
{
    return dure_round_up(n, LANE);
}

/* Keys and values of one document and head, as right factors: of the scores (K^T), of the
 * probabilities' gradient (V^T), of dq (K) and of the output (V). */
typedef enum panel_kind { KEYS_NT, VALUES_NT, KEYS_NN, VALUES_NN, PANEL_KINDS } panel_kind;

size_t dure_attention_packed_bytes(size_t keys, size_t docs, size_t heads_kv, size_t dim,
                                   const dure_cpu_ops *ops)
{
    return PANEL_KINDS * heads_kv * padded(dim) * (keys + docs * LANE) * ops->act_bytes;
}

static dure_panels panels_of(const dure_attention *a, size_t doc, size_t head_kv, panel_kind kind,
                             const dure_cpu_ops *ops)
{
    size_t before = 0, keys = padded(a->docs[doc].n_keys), one = padded(a->dim) * keys;
    for (size_t d = 0; d < doc; d++)
        before += padded(a->docs[d].n_keys);
    size_t at = PANEL_KINDS * a->heads_kv * padded(a->dim) * before +
                (PANEL_KINDS * head_kv + (size_t)kind) * one;
    bool nt = kind == KEYS_NT || kind == VALUES_NT;
    return (dure_panels){dure_act_at(ops, a->packed, at), (nt ? a->dim : keys) * ops->width};
}

/* What a task works in. `s` and `dp` are TILE x keys of float32, `p` and `ds` the same of
 * activations; the rest is for the backward pass. */
typedef struct work {
    float *s, *dp, *tile, *dk, *dv;
    void *p, *ds, *left, *right;
} work;

size_t dure_attention_scratch_bytes(size_t keys, size_t dim, const dure_cpu_ops *ops)
{
    size_t floats = 2 * TILE * padded(keys) + TILE * padded(dim) + 2 * padded(keys) * padded(dim);
    size_t acts = 3 * TILE * padded(keys) + TILE * padded(dim);
    return floats * sizeof(float) + acts * ops->act_bytes;
}

static work work_in(void *scratch, size_t n_keys, size_t dim, const dure_cpu_ops *ops)
{
    size_t keys = padded(n_keys);
    work w = {.s = scratch};
    w.dp = w.s + TILE * keys;
    w.tile = w.dp + TILE * keys;
    w.dk = w.tile + TILE * padded(dim);
    w.dv = w.dk + keys * padded(dim);
    w.p = w.dv + keys * padded(dim);
    w.ds = dure_act_at(ops, w.p, TILE * keys);
    w.left = dure_act_at(ops, w.ds, TILE * keys);
    w.right = dure_act_at(ops, w.left, TILE * keys);
    return w;
}

typedef struct job {
    const dure_attention *a;
    void *out;
    float *lse;
    const dure_attention_grad *grad; /* NULL in forward */
    const dure_cpu_ops *ops;
} job;

static void pack_task(void *state, size_t task, void *scratch)
{
    const job *j = state;
    const dure_attention *a = j->a;
    size_t doc = task / a->heads_kv, head = task % a->heads_kv, at = head * a->dim;
    const dure_attention_doc *d = &a->docs[doc];
    (void)scratch;
    dure_pack k = {.x = dure_act_in(j->ops, d->k, at), .ld = a->ldk};
    dure_pack v = {.x = dure_act_in(j->ops, d->v, at), .ld = a->ldv};
    for (panel_kind kind = 0; kind < PANEL_KINDS; kind++) {
        bool nt = kind == KEYS_NT || kind == VALUES_NT;
        if (kind == (j->grad ? VALUES_NN : VALUES_NT) || (kind == KEYS_NN && !j->grad)) continue;
        dure_pack p = kind == KEYS_NT || kind == KEYS_NN ? k : v;
        p.to = panels_of(a, doc, head, kind, j->ops);
        p.n = nt ? d->n_keys : a->dim;
        p.k = nt ? a->dim : d->n_keys;
        (nt ? j->ops->pack_nt : j->ops->pack_nn)(&p);
    }
}

static size_t tiles(const dure_attention_doc *d)
{
    return (d->n + TILE - 1) / TILE;
}

/* One document's query rows [first, first + n) at one head. */
typedef struct tile {
    const dure_attention_doc *d;
    size_t doc, head, head_kv, first, n;
    size_t row;    /* of the pass */
    size_t before; /* keys that query 0 of the document sees besides its own */
    size_t begin;  /* of the keys that its rows see, down to a whole panel */
    size_t keys;   /* end of those that the last row sees */
    size_t depth;  /* the same, up to a whole group */
} tile;

/* The first key that the query at `place` sees, places and keys counted from the document's. */
static size_t first_seen(const dure_attention *a, size_t place)
{
    return a->window && place >= a->window ? place + 1 - a->window : 0;
}

static tile tile_of(const job *j, size_t doc, size_t head, size_t index)
{
    const dure_attention *a = j->a;
    const dure_attention_doc *d = &a->docs[doc];
    tile t = {.d = d,
              .doc = doc,
              .head = head,
              .head_kv = head / (a->heads / a->heads_kv),
              .first = index * TILE,
              .row = d->first + index * TILE,
              .before = d->n_keys - d->n};
    t.n = d->n - t.first < TILE ? d->n - t.first : TILE;
    t.keys = t.before + t.first + t.n;
    t.depth = dure_round_up(t.keys, j->ops->group);
    t.begin = first_seen(a, t.before + t.first) / LANE * LANE;
    return t;
}

/* s[tile rows x padded keys] = x (the tile's rows of q or dout) times K^T or V^T. */
static void scores(float *s, const job *j, const tile *t, const void *x, panel_kind kind)
{
    const dure_attention *a = j->a;
    dure_panels b = panels_of(a, t->doc, t->head_kv, kind, j->ops);
    j->ops->gemm(&(dure_gemm){.c = s + t->begin,
                              .ldc = padded(t->d->n_keys),
                              .a = dure_act_in(j->ops, x, t->row * a->ldq + t->head * a->dim),
                              .a_row = a->ldq,
                              .a_step = j->ops->group,
                              .b = dure_act_in(j->ops, b.at, t->begin / j->ops->width * b.panel),
                              .b_panel = b.panel,
                              .m = t->n,
                              .n = t->keys - t->begin,
                              .k = a->dim});
}

/* w->tile[tile rows x dim] = x (probabilities or their gradient) times V or K. */
static void combine(const work *w, const job *j, const tile *t, const void *x, panel_kind kind)
{
    dure_panels b = panels_of(j->a, t->doc, t->head_kv, kind, j->ops);
    j->ops->gemm(&(dure_gemm){.c = w->tile,
                              .ldc = padded(j->a->dim),
                              .a = dure_act_in(j->ops, x, t->begin),
                              .a_row = padded(t->d->n_keys),
                              .a_step = j->ops->group,
                              .b = dure_act_in(j->ops, b.at, t->begin * j->ops->width),
                              .b_panel = b.panel,
                              .m = t->n,
                              .n = j->a->dim,
                              .k = t->depth - t->begin});
}

static void clear_acts(const job *j, void *acts, size_t at, size_t n)
{
    memset(dure_act_at(j->ops, acts, at), 0, n * j->ops->act_bytes);
}

static void forward_task(void *state, size_t task, void *scratch)
{
    const job *j = state;
    const dure_attention *a = j->a;
    size_t doc = 0;
    while (task >= tiles(&a->docs[doc]) * a->heads)
        task -= tiles(&a->docs[doc++]) * a->heads;
    tile t = tile_of(j, doc, task % a->heads, task / a->heads);
    work w = work_in(scratch, t.d->n_keys, a->dim, j->ops);
    size_t ld = padded(t.d->n_keys);
    scores(w.s, j, &t, a->q, KEYS_NT);
    for (size_t i = 0; i < t.n; i++) {
        size_t place = t.before + t.first + i, from = first_seen(a, place), at = i * ld + from;
        clear_acts(j, w.p, i * ld + t.begin, from - t.begin);
        float lse = j->ops->softmax(dure_act_at(j->ops, w.p, at), w.s + at, place + 1 - from,
                                    t.depth - from, a->scale);
        if (j->lse) j->lse[(t.row + i) * a->heads + t.head] = lse;
    }
    combine(&w, j, &t, w.p, VALUES_NN);
    for (size_t i = 0; i < t.n; i++)
        j->ops->store(dure_act_at(j->ops, j->out, (t.row + i) * a->ldq + t.head * a->dim),
                      w.tile + i * padded(a->dim), a->dim, 1.0f);
}

/* `products` of a query and a key, or a probability and a value, for each pair that is seen. */
static void count_work(const dure_attention *a, double products, const dure_compute *c)
{
    double pairs = 0;
    for (size_t d = 0; c->profile && d < a->n_docs; d++)
        for (size_t i = 0; i < a->docs[d].n; i++) {
            size_t seen = a->docs[d].n_keys - a->docs[d].n + i + 1;
            pairs += (double)(a->window && seen > a->window ? a->window : seen);
        }
    dure_profile_work(c->profile, 2 * products * pairs * (double)(a->heads * a->dim), 0);
}

void dure_attention_forward(void *out, float *lse, const dure_attention *args,
                            const dure_compute *c)
{
    job j = {.a = args, .out = out, .lse = lse, .ops = c->ops};
    size_t n = 0;
    for (size_t d = 0; d < args->n_docs; d++)
        n += tiles(&args->docs[d]) * args->heads;
    count_work(args, 2, c);
    dure_pool_run(c->pool, args->n_docs * args->heads_kv, pack_task, &j);
    dure_pool_run(c->pool, n, forward_task, &j);
}

/* p = the tile's probabilities, ds = the gradient of its scores. */
static void score_gradient(const work *w, const job *j, const tile *t)
{
    const dure_attention *a = j->a;
    const dure_attention_grad *g = j->grad;
    size_t ld = padded(t->d->n_keys);
    scores(w->s, j, t, a->q, KEYS_NT);
    scores(w->dp, j, t, g->dout, VALUES_NT);
    for (size_t i = 0; i < t->n; i++) {
        size_t at = (t->row + i) * a->ldq + t->head * a->dim;
        size_t place = t->before + t->first + i, from = first_seen(a, place), key = i * ld + from;
        clear_acts(j, w->p, i * ld + t->begin, from - t->begin);
        clear_acts(j, w->ds, i * ld + t->begin, from - t->begin);
        dure_score_row row = {
            .s = w->s + key,
            .dp = w->dp + key,
            .seen = place + 1 - from,
            .padded = t->depth - from,
            .scale = a->scale,
            .lse = g->lse[(t->row + i) * a->heads + t->head],
            .d = j->ops->dot_acts(dure_act_in(j->ops, g->dout, at), dure_act_in(j->ops, g->out, at),
                                  a->dim),
        };
        j->ops->softmax_backward(dure_act_at(j->ops, w->p, key), dure_act_at(j->ops, w->ds, key),
                                 &row);
    }
}

/* sums[keys x dim] += x^T y: x the tile's p or ds, y its rows of dout or q. */
static void add_to_keys(float *sums, const work *w, const job *j, const tile *t, const void *x,
                        const void *y)
{
    const dure_attention *a = j->a;
    const dure_cpu_ops *ops = j->ops;
    size_t rows = dure_round_up(t->n, ops->group), panel = rows * ops->width;
    size_t n = t->keys - t->begin;
    ops->pack_nn(&(dure_pack){.to = {w->left, panel},
                              .x = dure_act_in(ops, x, t->begin),
                              .ld = padded(t->d->n_keys),
                              .n = n,
                              .k = t->n});
    ops->pack_nn(&(dure_pack){.to = {w->right, panel},
                              .x = dure_act_in(ops, y, t->row * a->ldq + t->head * a->dim),
                              .ld = a->ldq,
                              .n = a->dim,
                              .k = t->n});
    for (size_t key = 0; key < n; key += ops->width)
        ops->gemm(&(dure_gemm){.c = sums + (t->begin + key) * padded(a->dim),
                               .ldc = padded(a->dim),
                               .a = dure_act_in(ops, w->left, key * rows),
                               .a_row = ops->group,
                               .a_step = ops->width * ops->group,
                               .b = w->right,
                               .b_panel = panel,
                               .m = n - key < ops->width ? n - key : ops->width,
                               .n = a->dim,
                               .k = rows,
                               .accumulate = true});
}

static void backward_tile(const work *w, const job *j, const tile *t)
{
    const dure_attention *a = j->a;
    score_gradient(w, j, t);
    combine(w, j, t, w->ds, KEYS_NN);
    for (size_t i = 0; i < t->n; i++)
        dure_heads_back(dure_act_at(j->ops, j->grad->dq, (t->row + i) * a->ldq + t->head * a->dim),
                        w->tile + i * padded(a->dim), j->grad->heads_q, t->row + i, t->head,
                        j->ops);
    add_to_keys(w->dk, w, j, t, w->ds, a->q);
    add_to_keys(w->dv, w, j, t, w->p, j->grad->dout);
}

/* One document and key head: all query heads of its group, so that nobody else adds to its dk
 * and dv, in a fixed order. */
static void backward_task(void *state, size_t task, void *scratch)
{
    const job *j = state;
    const dure_attention *a = j->a;
    size_t doc = task / a->heads_kv, head_kv = task % a->heads_kv, group = a->heads / a->heads_kv;
    const dure_attention_doc *d = &a->docs[doc];
    work w = work_in(scratch, d->n_keys, a->dim, j->ops);
    memset(w.dk, 0, 2 * padded(d->n_keys) * padded(a->dim) * sizeof *w.dk);
    for (size_t h = 0; h < group; h++)
        for (size_t i = 0; i < tiles(d); i++) {
            tile t = tile_of(j, doc, head_kv * group + h, i);
            backward_tile(&w, j, &t);
        }
    for (size_t i = 0; i < d->n; i++) {
        size_t row = d->first + i, at = i * padded(a->dim);
        dure_heads_back(dure_act_at(j->ops, j->grad->dk, row * a->ldk + head_kv * a->dim),
                        w.dk + at, j->grad->heads_k, row, head_kv, j->ops);
        j->ops->store(dure_act_at(j->ops, j->grad->dv, row * a->ldv + head_kv * a->dim), w.dv + at,
                      a->dim, 1.0f);
    }
}

void dure_attention_backward(const dure_attention_grad *grad, const dure_compute *c)
{
    const dure_attention *a = grad->args;
    job j = {.a = a, .grad = grad, .ops = c->ops};
    count_work(a, 5, c);
    dure_pool_run(c->pool, a->n_docs * a->heads_kv, pack_task, &j);
    dure_pool_run(c->pool, a->n_docs * a->heads_kv, backward_task, &j);
}
