#include "model/transformer_dora.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- norms --- */

/* One adapted matrix. */
typedef struct norm_job {
    dure_transformer *t;
    const dure_weight *w;
    const float *a, *b; /* rank x in, out x rank */
    const float *gram;  /* A A^T, rank x rank */
    double scale;
    uint32_t rank;
    const float *magnitude;
    double *base;
    float *norm, *gain;
    bool first; /* base is not there yet */
} norm_job;

/* |W + s B A|^2 of a row: |w|^2 + 2 s b (A w) + s^2 b (A A^T) b. */
static double squared_norm(const norm_job *j, size_t row, const float *w)
{
    const dure_cpu_ops *ops = j->t->compute.ops;
    const float *b = j->b + row * j->rank;
    double cross = 0, square = 0;
    for (uint32_t r = 0; r < j->rank; r++) {
        if (fpclassify(b[r]) == FP_ZERO) continue;
        cross += (double)b[r] * (double)ops->dot(j->a + (size_t)r * j->w->in, w, j->w->in);
        square += (double)b[r] * (double)ops->dot(j->gram + (size_t)r * j->rank, b, j->rank);
    }
    return j->base[row] + 2 * j->scale * cross + j->scale * j->scale * square;
}

static void norm_rows(void *state, size_t first, size_t last, void *scratch)
{
    const norm_job *j = state;
    float *w = scratch;
    for (size_t row = first; row < last; row++) {
        dure_weight_row(w, j->w, row, &j->t->compute);
        if (j->first) {
            double sum = 0;
            for (size_t i = 0; i < j->w->in; i++)
                sum += (double)w[i] * (double)w[i];
            j->base[row] = sum;
        }
        double square = squared_norm(j, row, w);
        /* Rounding alone could make it negative; a row of zeros has no direction to keep. */
        j->norm[row] = square > 0 ? (float)sqrt(square) : 0;
        j->gain[row] = j->norm[row] > 0 ? j->magnitude[row] / j->norm[row] : 0;
    }
}

static void make_gram(float *gram, const float *a, size_t rank, size_t in, const dure_cpu_ops *ops)
{
    for (size_t r = 0; r < rank; r++)
        for (size_t q = 0; q <= r; q++)
            gram[r * rank + q] = gram[q * rank + r] = ops->dot(a + r * in, a + q * in, in);
}

static void settle_matrix(dure_transformer *t, const dure_lora *lora, uint32_t layer,
                          dure_lora_target target, float *gram)
{
    enum { GRAIN = 16 };
    const dure_lora_layout *layout = &lora->layout;
    size_t a, b, m, at = dure_lora_norm_index(layout, layer, target);
    if (!dure_lora_find(&a, layout, layer, target, DURE_LORA_FACTOR_A) ||
        !dure_lora_find(&b, layout, layer, target, DURE_LORA_FACTOR_B) ||
        !dure_lora_find_magnitude(&m, layout, layer, target))
        return;
    const dure_weight *w = &t->layers[layer].w[target];
    norm_job job = {.t = t,
                    .w = w,
                    .a = lora->params + a,
                    .b = lora->params + b,
                    .gram = gram,
                    .scale = (double)dure_lora_scale(layout, target),
                    .rank = dure_lora_rank(layout, target),
                    .magnitude = lora->params + m,
                    .base = lora->norms->base + at,
                    .norm = lora->norms->norm + at,
                    .gain = lora->norms->gain + at,
                    .first = lora->norms->of == 0};
    make_gram(gram, job.a, job.rank, w->in, t->compute.ops);
    dure_compute_rows(&t->compute, w->out, GRAIN, norm_rows, &job);
}

dure_err dure_dora_settle(dure_transformer *t, const dure_lora *lora)
{
    if (!lora || !lora->norms || lora->norms->of == lora->version) return DURE_OK;
    const dure_lora_layout *layout = &lora->layout;
    size_t most = dure_lora_rank_most(layout), widest = 0;
    for (int k = 0; k < DURE_LORA_TARGETS; k++) {
        size_t in = dure_lora_in(&layout->shape, (dure_lora_target)k);
        if (in > widest) widest = in;
    }
    float *gram = malloc(most * most * sizeof *gram);
    dure_err err = gram ? dure_pool_reserve(t->pool, widest * sizeof(float)) : DURE_ERR_NOMEM;
    for (uint32_t layer = layout->first_layer; layer < layout->shape.n_layers && !err; layer++)
        for (int k = 0; k < DURE_LORA_TARGETS; k++)
            settle_matrix(t, lora, layer, (dure_lora_target)k, gram);
    free(gram);
    if (!err) lora->norms->of = lora->version;
    return err;
}

dure_err dure_transformer_init_magnitudes(dure_transformer *t, dure_lora *lora, dure_diag *diag)
{
    const dure_lora_layout *layout = &lora->layout;
    if (!lora->norms) return DURE_OK;
    dure_err err = dure_transformer_check_lora(t, lora, diag);
    if (!err) err = dure_dora_settle(t, lora);
    for (uint32_t layer = layout->first_layer; layer < layout->shape.n_layers && !err; layer++)
        for (int k = 0; k < DURE_LORA_TARGETS; k++) {
            dure_lora_target target = (dure_lora_target)k;
            size_t m;
            if (!dure_lora_find_magnitude(&m, layout, layer, target)) continue;
            memcpy(lora->params + m,
                   lora->norms->norm + dure_lora_norm_index(layout, layer, target),
                   dure_lora_out(&layout->shape, target) * sizeof(float));
        }
    if (!err) dure_lora_changed(lora);
    return err;
}

/* --- forward --- */

static void finish_with_gains(void *state, const dure_sums *sums, const dure_cpu_ops *ops)
{
    const dure_dora_sums *s = state;
    for (size_t r = 0; r < sums->rows; r++) {
        float *at = sums->at + r * sums->ld;
        if (s->kept)
            ops->store(dure_act_at(ops, s->kept, (sums->row + r) * s->ld + sums->column), at,
                       sums->columns, 1.0f);
        for (size_t i = 0; i < sums->columns; i++)
            at[i] *= s->gains[sums->column + i];
    }
    s->finish(s->state, sums, ops);
}

void dure_dora_before(dure_product *product, dure_dora_sums *out, dure_transformer *t,
                      const dure_pass *pass, uint32_t layer, dure_lora_target target)
{
    const dure_lora *lora = pass->lora;
    size_t unused;
    if (!lora || !dure_lora_find_magnitude(&unused, &lora->layout, layer, target)) return;
    *out = (dure_dora_sums){.gains = lora->norms->gain +
                                     dure_lora_norm_index(&lora->layout, layer, target),
                            .kept = dure_transformer_acts(t, layer)->sums[target],
                            .ld = t->layers[layer].w[target].out,
                            .finish = product->finish,
                            .state = product->state};
    product->finish = finish_with_gains;
    product->state = out;
}

/* --- backward --- */

typedef struct back_job {
    dure_transformer *t;
    const dure_pass *pass;
    const dure_gradient_map *map;
    uint32_t layer;
    size_t width, offset; /* of the magnitudes in the layer's gradients; SIZE_MAX: not trained */
    size_t docs;          /* whose magnitudes have gradients of their own */
    const void *kept;
    void *dy;
    const float *norms, *gains;
} back_job;

/* Documents share out among the threads; one alone is cut across its columns. */
static size_t strips_of(const back_job *j)
{
    return j->docs > 1 ? 1 : dure_pool_threads(j->t->pool);
}

/* Columns [first, end) of a row: adds dy . sums to dm (NULL: not wanted), and dy takes the gains.
 */
static void back_row(const back_job *j, size_t row, size_t first, size_t end, float *dm)
{
    enum { PIECE = 256 };
    const dure_cpu_ops *ops = j->t->compute.ops;
    float dy[PIECE], kept[PIECE];
    for (size_t i = first; i < end; i += PIECE) {
        size_t n = end - i < PIECE ? end - i : PIECE;
        void *at = dure_act_at(ops, j->dy, row * j->width + i);
        ops->load(dy, at, n);
        if (dm) ops->load(kept, dure_act_in(ops, j->kept, row * j->width + i), n);
        for (size_t k = 0; dm && k < n; k++)
            dm[i + k] += dy[k] * kept[k];
        for (size_t k = 0; k < n; k++)
            dy[k] *= j->gains[i + k];
        ops->store(at, dy, n, 1.0f);
    }
}

/* A strip's gradient, dm = sum of dy . sums over the document's rows, over the norm; and its dy. */
static void back_task(void *state, size_t index, void *scratch)
{
    const back_job *j = state;
    size_t strips = strips_of(j), doc = index / strips, strip = index % strips;
    const dure_attention_doc *d = &j->t->ws.docs[doc];
    size_t first = j->docs == 1 ? 0 : d->first, rows = j->docs == 1 ? j->pass->rows : d->n;
    size_t from = strip * j->width / strips, end = (strip + 1) * j->width / strips;
    float *dm = NULL;
    (void)scratch;
    if (j->offset != SIZE_MAX) {
        dm = dure_transformer_layer_gradients(j->t, j->map, j->layer, doc) + j->offset;
        memset(dm + from, 0, (end - from) * sizeof *dm);
    }
    for (size_t r = first; r < first + rows; r++)
        back_row(j, r, from, end, dm);
    for (size_t i = from; dm && i < end; i++)
        dm[i] = j->norms[i] > 0 ? dm[i] / j->norms[i] : 0;
}

void dure_dora_back(dure_transformer *t, const dure_pass *pass, const dure_gradient_map *map,
                    uint32_t layer, dure_lora_target target, void *dy)
{
    const dure_lora_layout *layout = &pass->lora->layout;
    size_t unused;
    if (!dure_lora_find_magnitude(&unused, layout, layer, target)) return;
    size_t at = dure_lora_norm_index(layout, layer, target), b = map->offset[layer][target][1];
    back_job job = {.t = t,
                    .pass = pass,
                    .map = map,
                    .layer = layer,
                    .width = t->layers[layer].w[target].out,
                    .offset = SIZE_MAX,
                    .docs = map->together ? 1 : pass->n_docs,
                    .kept = dure_transformer_acts(t, layer)->sums[target],
                    .dy = dy,
                    .norms = pass->lora->norms->norm + at,
                    .gains = pass->lora->norms->gain + at};
    if (b != SIZE_MAX) /* the magnitudes follow B */
        job.offset = b - map->layer_at[layer] + job.width * dure_lora_rank(layout, target);
    dure_pool_run(t->pool, job.docs * strips_of(&job), back_task, &job);
}
