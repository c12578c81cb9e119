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
    const double *gram; /* A A^T, rank x rank */
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
        for (uint32_t q = 0; q < j->rank; q++)
            square += (double)b[r] * (double)b[q] * j->gram[r * j->rank + q];
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

static void make_gram(double *gram, const float *a, size_t rank, size_t in)
{
    for (size_t r = 0; r < rank; r++)
        for (size_t q = 0; q <= r; q++) {
            double sum = 0;
            for (size_t i = 0; i < in; i++)
                sum += (double)a[r * in + i] * (double)a[q * in + i];
            gram[r * rank + q] = gram[q * rank + r] = sum;
        }
}

static void settle_matrix(dure_transformer *t, const dure_lora *lora, uint32_t layer,
                          dure_lora_target target, double *gram)
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
    make_gram(gram, job.a, job.rank, w->in);
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
    double *gram = malloc(most * most * sizeof *gram);
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
    size_t width, offset; /* of the magnitudes in the layer's gradients */
    const void *kept;
    void *dy;
    const float *norms, *gains;
} back_job;

/* dm = sum of dy . sums over the rows of one document, over the norm. */
static void magnitude_task(void *state, size_t doc, void *scratch)
{
    enum { PIECE = 256 };
    const back_job *j = state;
    const dure_cpu_ops *ops = j->t->compute.ops;
    const dure_attention_doc *d = &j->t->ws.docs[doc];
    size_t first = j->map->together ? 0 : d->first, n = j->map->together ? j->pass->rows : d->n;
    float *out = dure_transformer_layer_gradients(j->t, j->map, j->layer, doc) + j->offset;
    float dy[PIECE], kept[PIECE];
    (void)scratch;
    memset(out, 0, j->width * sizeof *out);
    for (size_t r = first; r < first + n; r++)
        for (size_t i = 0; i < j->width; i += PIECE) {
            size_t columns = j->width - i < PIECE ? j->width - i : PIECE;
            ops->load(dy, dure_act_at(ops, j->dy, r * j->width + i), columns);
            ops->load(kept, dure_act_in(ops, j->kept, r * j->width + i), columns);
            for (size_t k = 0; k < columns; k++)
                out[i + k] += dy[k] * kept[k];
        }
    for (size_t i = 0; i < j->width; i++)
        out[i] = j->norms[i] > 0 ? out[i] / j->norms[i] : 0;
}

static void scale_rows(void *state, size_t first, size_t last, void *scratch)
{
    const back_job *j = state;
    const dure_cpu_ops *ops = j->t->compute.ops;
    float *row = scratch;
    for (size_t r = first; r < last; r++) {
        void *dy = dure_act_at(ops, j->dy, r * j->width);
        ops->load(row, dy, j->width);
        for (size_t i = 0; i < j->width; i++)
            row[i] *= j->gains[i];
        ops->store(dy, row, j->width, 1.0f);
    }
}

void dure_dora_back(dure_transformer *t, const dure_pass *pass, const dure_gradient_map *map,
                    uint32_t layer, dure_lora_target target, void *dy)
{
    enum { GRAIN = 8 };
    const dure_lora_layout *layout = &pass->lora->layout;
    size_t unused;
    if (!dure_lora_find_magnitude(&unused, layout, layer, target)) return;
    size_t at = dure_lora_norm_index(layout, layer, target), b = map->offset[layer][target][1];
    back_job job = {.t = t,
                    .pass = pass,
                    .map = map,
                    .layer = layer,
                    .width = t->layers[layer].w[target].out,
                    .kept = dure_transformer_acts(t, layer)->sums[target],
                    .dy = dy,
                    .norms = pass->lora->norms->norm + at,
                    .gains = pass->lora->norms->gain + at};
    if (b != SIZE_MAX) { /* the magnitudes follow B */
        job.offset = b - map->layer_at[layer] + job.width * dure_lora_rank(layout, target);
        dure_pool_run(t->pool, map->together ? 1 : pass->n_docs, magnitude_task, &job);
    }
    dure_compute_rows(&t->compute, pass->rows, GRAIN, scale_rows, &job);
}
