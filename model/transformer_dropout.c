#include "model/transformer_dropout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GRAIN = 8 };

static size_t widest(const dure_model_shape *s)
{
    size_t q = (size_t)s->n_head * s->head_dim, most = s->n_embd > s->n_ff ? s->n_embd : s->n_ff;
    return q > most ? q : most;
}

size_t dure_dropout_bytes(const dure_model_shape *s, size_t rows, const dure_cpu_ops *ops)
{
    return rows * widest(s) * ops->act_bytes;
}

dure_err dure_dropout_init(dure_dropout *d, const dure_transformer *t, double rate,
                           const uint64_t *seeds)
{
    size_t n = t->ws.has.rows * widest(&t->shape);
    *d = (dure_dropout){.threshold = (uint32_t)lrint(rate * 65536), .seeds = seeds};
    d->scale = (float)(65536.0 / (65536.0 - d->threshold));
    if (t->device) return DURE_OK; /* it has its own room */
    d->masked = malloc(n * t->compute.ops->act_bytes);
    return d->masked ? DURE_OK : DURE_ERR_NOMEM;
}

void dure_dropout_fini(dure_dropout *d)
{
    free(d->masked);
    *d = (dure_dropout){.seeds = NULL};
}

/* The document that a row of the pass belongs to: the last that starts at or before it. */
static size_t doc_of(const dure_workspace *ws, const dure_pass *pass, size_t row)
{
    size_t low = 0, high = pass->n_docs;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (ws->docs[middle].first <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static dure_drop mask_of(const dure_dropout_sums *s, size_t row)
{
    const dure_workspace *ws = &s->t->ws;
    const dure_dropout *d = s->pass->dropout;
    size_t doc = doc_of(ws, s->pass, row);
    return (dure_drop){.key = dure_drop_row_key(d->seeds[ws->doc_index[doc]], s->layer, s->input,
                                                row - ws->docs[doc].first),
                       .threshold = d->threshold};
}

typedef struct mask_job {
    dure_dropout_sums at;
    const void *x;
} mask_job;

static void mask_rows(void *state, size_t first, size_t last, void *scratch)
{
    const mask_job *job = state;
    const dure_cpu_ops *ops = job->at.t->compute.ops;
    const dure_dropout *d = job->at.pass->dropout;
    size_t width = job->at.width;
    (void)scratch;
    for (size_t r = first; r < last; r++) {
        const dure_drop mask = mask_of(&job->at, r);
        ops->drop(dure_act_at(ops, d->masked, r * width), dure_act_in(ops, job->x, r * width),
                  width, &mask);
    }
}

const void *dure_dropout_masked(const dure_transformer *t, const dure_pass *pass, uint32_t layer,
                                dure_lora_target input, const void *x, size_t width)
{
    if (!pass->dropout) return x;
    mask_job job = {.at = {.t = t, .pass = pass, .layer = layer, .input = input, .width = width},
                    .x = x};
    dure_compute_rows(&t->compute, pass->rows, GRAIN, mask_rows, &job);
    return pass->dropout->masked;
}

void dure_dropout_join(void *state, const dure_sums *sums, const float *apart,
                       const dure_cpu_ops *ops)
{
    const dure_dropout_sums *s = state;
    for (size_t r = 0; r < sums->rows; r++) {
        const dure_drop mask = mask_of(s, sums->row + r);
        ops->add_kept(sums->at + r * sums->ld, apart + r * sums->ld, sums->column, sums->columns,
                      &mask);
    }
}
