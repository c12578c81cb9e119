#include "kernels/attention.h"

#include <string.h>

/* TILE query rows at a time: their scores against all keys stay in the second-level cache. LANE
 * pads the transposed keys so that scores are made in whole vectors. */
enum { TILE = 56, LANE = 16 };

static size_t padded(size_t keys)
{
    return (keys + LANE - 1) / LANE * LANE;
}

size_t dure_attention_packed_floats(size_t rows, size_t docs, size_t heads_kv, size_t dim)
{
    return 2 * heads_kv * dim * (rows + docs * LANE);
}

size_t dure_attention_scratch_bytes(size_t keys)
{
    return 2 * TILE * padded(keys) * sizeof(float);
}

/* Transposed keys of one document and head, [dim][padded]; `values` gives the values instead. */
static float *packed_at(const dure_attention *a, size_t doc, size_t head_kv, bool values)
{
    float *at = a->packed;
    for (size_t d = 0; d < doc; d++)
        at += 2 * a->heads_kv * a->dim * padded(a->docs[d].n_keys);
    size_t one = a->dim * padded(a->docs[doc].n_keys);
    return at + (2 * head_kv + (values ? 1 : 0)) * one;
}

typedef struct job {
    const dure_attention *a;
    float *out, *lse;
    const dure_attention_grad *grad; /* NULL in forward */
    const dure_cpu_ops *ops;
} job;

static void pack_task(void *state, size_t task, void *scratch)
{
    const job *j = state;
    const dure_attention *a = j->a;
    size_t doc = task / a->heads_kv, head = task % a->heads_kv;
    const dure_attention_doc *d = &a->docs[doc];
    (void)scratch;
    float *keys = packed_at(a, doc, head, false);
    j->ops->transpose(keys, padded(d->n_keys), d->k + head * a->dim, a->ldk, d->n_keys, a->dim);
    if (!j->grad) return;
    float *values = packed_at(a, doc, head, true);
    j->ops->transpose(values, padded(d->n_keys), d->v + head * a->dim, a->ldv, d->n_keys, a->dim);
}

static size_t tiles(const dure_attention_doc *d)
{
    return (d->n + TILE - 1) / TILE;
}

/* One document's query rows [first, first + n) at one head. */
typedef struct tile {
    const dure_attention_doc *d;
    size_t doc, head, head_kv, first, n;
    size_t before; /* keys that query 0 sees besides its own */
    size_t keys;   /* that the last row of the tile sees */
} tile;

static tile tile_of(const dure_attention *a, size_t doc, size_t head, size_t index)
{
    const dure_attention_doc *d = &a->docs[doc];
    tile t = {.d = d,
              .doc = doc,
              .head = head,
              .head_kv = head / (a->heads / a->heads_kv),
              .first = index * TILE,
              .before = d->n_keys - d->n};
    t.n = d->n - t.first < TILE ? d->n - t.first : TILE;
    t.keys = t.before + t.first + t.n;
    return t;
}

/* s[tile rows x padded keys] = x (rows of q or dout) times the transposed keys or values. */
static void scores(float *s, const job *j, const tile *t, const float *x, bool values)
{
    const dure_attention *a = j->a;
    size_t ld = padded(t->d->n_keys);
    j->ops->gemm(&(dure_gemm){.c = s,
                              .ldc = ld,
                              .a = x + (t->d->first + t->first) * a->ldq + t->head * a->dim,
                              .a_row = a->ldq,
                              .a_step = 1,
                              .b = packed_at(a, t->doc, t->head_kv, values),
                              .ldb = ld,
                              .m = t->n,
                              .n = padded(t->keys),
                              .k = a->dim});
}

static void forward_tile(const job *j, const tile *t, float *s)
{
    const dure_attention *a = j->a;
    size_t ld = padded(t->d->n_keys), row = t->d->first + t->first;
    scores(s, j, t, a->q, false);
    for (size_t i = 0; i < t->n; i++) {
        size_t seen = t->before + t->first + i + 1;
        float lse = j->ops->softmax(s + i * ld, seen, a->scale);
        if (j->lse) j->lse[(row + i) * a->heads + t->head] = lse;
        memset(s + i * ld + seen, 0, (t->keys - seen) * sizeof *s);
    }
    j->ops->gemm(&(dure_gemm){.c = j->out + row * a->ldq + t->head * a->dim,
                              .ldc = a->ldq,
                              .a = s,
                              .a_row = ld,
                              .a_step = 1,
                              .b = t->d->v + t->head_kv * a->dim,
                              .ldb = a->ldv,
                              .m = t->n,
                              .n = a->dim,
                              .k = t->keys});
}

static void forward_task(void *state, size_t task, void *scratch)
{
    const job *j = state;
    size_t doc = 0;
    while (task >= tiles(&j->a->docs[doc]) * j->a->heads)
        task -= tiles(&j->a->docs[doc++]) * j->a->heads;
    tile t = tile_of(j->a, doc, task % j->a->heads, task / j->a->heads);
    forward_tile(j, &t, scratch);
}

void dure_attention_forward(float *out, float *lse, const dure_attention *args,
                            const dure_compute *c)
{
    job j = {.a = args, .out = out, .lse = lse, .ops = c->ops};
    size_t n = 0;
    for (size_t d = 0; d < args->n_docs; d++)
        n += tiles(&args->docs[d]) * args->heads;
    dure_pool_run(c->pool, args->n_docs * args->heads_kv, pack_task, &j);
    dure_pool_run(c->pool, n, forward_task, &j);
}

/* p = the tile's probabilities, ds = the gradient of its scores before scaling. */
static void score_gradient(float *p, float *ds, const job *j, const tile *t)
{
    const dure_attention *a = j->a;
    const dure_attention_grad *g = j->grad;
    size_t ld = padded(t->d->n_keys), row = t->d->first + t->first;
    scores(p, j, t, a->q, false);
    scores(ds, j, t, g->dout, true);
    for (size_t i = 0; i < t->n; i++) {
        size_t seen = t->before + t->first + i + 1, at = (row + i) * a->ldq + t->head * a->dim;
        float d = j->ops->dot(g->dout + at, g->out + at, a->dim);
        j->ops->softmax_again(p + i * ld, seen, a->scale, g->lse[(row + i) * a->heads + t->head]);
        j->ops->softmax_backward(ds + i * ld, p + i * ld, seen, d, a->scale);
        memset(p + i * ld + seen, 0, (t->keys - seen) * sizeof *p);
        memset(ds + i * ld + seen, 0, (t->keys - seen) * sizeof *ds);
    }
}

static void backward_tile(const job *j, const tile *t, float *p)
{
    const dure_attention *a = j->a;
    const dure_attention_grad *g = j->grad;
    size_t ld = padded(t->d->n_keys);
    size_t q_at = (t->d->first + t->first) * a->ldq + t->head * a->dim;
    size_t k_at = t->head_kv * a->dim;
    float *ds = p + TILE * ld;
    score_gradient(p, ds, j, t);
    dure_gemm dq = {.c = g->dq + q_at,
                    .ldc = a->ldq,
                    .a = ds,
                    .a_row = ld,
                    .a_step = 1,
                    .b = t->d->k + k_at,
                    .ldb = a->ldk,
                    .m = t->n,
                    .n = a->dim,
                    .k = t->keys};
    dure_gemm dk = {.c = g->dk + t->d->first * a->ldk + k_at,
                    .ldc = a->ldk,
                    .a = ds,
                    .a_row = 1,
                    .a_step = ld,
                    .b = a->q + q_at,
                    .ldb = a->ldq,
                    .m = t->keys,
                    .n = a->dim,
                    .k = t->n,
                    .accumulate = true};
    dure_gemm dv = dk;
    dv.c = g->dv + t->d->first * a->ldv + k_at;
    dv.ldc = a->ldv;
    dv.a = p;
    dv.b = g->dout + q_at;
    j->ops->gemm(&dq);
    j->ops->gemm(&dk);
    j->ops->gemm(&dv);
}

/* One document and key head: all query heads of its group, so that nobody else adds to its dk
 * and dv, in a fixed order. */
static void backward_task(void *state, size_t task, void *scratch)
{
    const job *j = state;
    const dure_attention *a = j->a;
    size_t doc = task / a->heads_kv, head_kv = task % a->heads_kv, group = a->heads / a->heads_kv;
    const dure_attention_doc *d = &a->docs[doc];
    for (size_t i = 0; i < d->n; i++) {
        size_t row = d->first + i, at = head_kv * a->dim;
        memset(j->grad->dk + row * a->ldk + at, 0, a->dim * sizeof(float));
        memset(j->grad->dv + row * a->ldv + at, 0, a->dim * sizeof(float));
    }
    for (size_t h = 0; h < group; h++)
        for (size_t i = 0; i < tiles(d); i++) {
            tile t = tile_of(a, doc, head_kv * group + h, i);
            backward_tile(j, &t, scratch);
        }
}

void dure_attention_backward(const dure_attention_grad *grad, const dure_compute *c)
{
    const dure_attention *a = grad->args;
    job j = {.a = a, .grad = grad, .ops = c->ops};
    dure_pool_run(c->pool, a->n_docs * a->heads_kv, pack_task, &j);
    dure_pool_run(c->pool, a->n_docs * a->heads_kv, backward_task, &j);
}
