#include "model/transformer_dropout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A word of the mask decides this many columns, 16 bits each. */
enum { LANES = 4, GRAIN = 8 };

/* The finaliser of SplitMix64 (Steele, Lea and Flood 2014). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static const uint64_t golden = 0x9e3779b97f4a7c15u;

/* What the words of one row are drawn from. */
static uint64_t row_key(uint64_t seed, uint32_t layer, dure_lora_target input, size_t position)
{
    uint64_t place = ((uint64_t)layer << 8 | (uint64_t)input) << 32 | (uint64_t)position;
    return mix(seed + mix(place + golden));
}

static uint64_t word_at(uint64_t key, size_t column)
{
    return mix(key + (column / LANES + 1) * golden);
}

/* All bits of lane i where it stays, none where it is dropped. */
static void lanes_of(uint32_t keep[LANES], uint64_t word, uint32_t threshold)
{
    for (size_t i = 0; i < LANES; i++)
        keep[i] = (uint32_t)0 - (uint32_t)((word >> i * 16 & 0xffff) >= threshold);
}

static size_t widest(const dure_model_shape *s)
{
    size_t q = (size_t)s->n_head * s->head_dim, most = s->n_embd > s->n_ff ? s->n_embd : s->n_ff;
    return q > most ? q : most;
}

size_t dure_dropout_bytes(const dure_model_shape *s, size_t rows, const dure_cpu_ops *ops)
{
    return rows * widest(s) * (ops->act_bytes + sizeof(float));
}

dure_err dure_dropout_init(dure_dropout *d, const dure_transformer *t, double rate,
                           const uint64_t *seeds)
{
    size_t n = t->ws.has.rows * widest(&t->shape);
    *d = (dure_dropout){.threshold = (uint32_t)lrint(rate * 65536), .seeds = seeds};
    d->scale = (float)(65536.0 / (65536.0 - d->threshold));
    d->masked = malloc(n * t->compute.ops->act_bytes);
    d->extra = malloc(n * sizeof *d->extra);
    if (d->masked && d->extra) return DURE_OK;
    dure_dropout_fini(d);
    return DURE_ERR_NOMEM;
}

void dure_dropout_fini(dure_dropout *d)
{
    free(d->masked);
    free(d->extra);
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

static uint64_t key_of(const dure_dropout_sums *s, size_t row)
{
    const dure_workspace *ws = &s->t->ws;
    size_t doc = doc_of(ws, s->pass, row);
    return row_key(s->pass->dropout->seeds[ws->doc_index[doc]], s->layer, s->input,
                   row - ws->docs[doc].first);
}

typedef struct mask_job {
    dure_dropout_sums at;
    const void *x;
} mask_job;

static void drop_halves(uint16_t *y, size_t width, uint64_t key, uint32_t threshold)
{
    uint32_t keep[LANES];
    for (size_t i = 0; i < width; i += LANES) {
        lanes_of(keep, word_at(key, i), threshold);
        for (size_t k = 0; k < LANES && i + k < width; k++)
            y[i + k] &= (uint16_t)keep[k];
    }
}

static void drop_floats(float *y, size_t width, uint64_t key, uint32_t threshold)
{
    uint32_t keep[LANES];
    for (size_t i = 0; i < width; i += LANES) {
        lanes_of(keep, word_at(key, i), threshold);
        for (size_t k = 0; k < LANES && i + k < width; k++)
            y[i + k] = keep[k] ? y[i + k] : 0;
    }
}

static void mask_rows(void *state, size_t first, size_t last, void *scratch)
{
    const mask_job *job = state;
    const dure_cpu_ops *ops = job->at.t->compute.ops;
    const dure_dropout *d = job->at.pass->dropout;
    size_t width = job->at.width;
    (void)scratch;
    for (size_t r = first; r < last; r++) {
        void *y = dure_act_at(ops, d->masked, r * width);
        memcpy(y, dure_act_in(ops, job->x, r * width), width * ops->act_bytes);
        uint64_t key = key_of(&job->at, r);
        if (ops->act_bytes == sizeof(uint16_t))
            drop_halves(y, width, key, d->threshold);
        else
            drop_floats(y, width, key, d->threshold);
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

void dure_dropout_finish_extra(void *state, const dure_sums *sums, const dure_cpu_ops *ops)
{
    const dure_dropout_sums *s = state;
    const dure_dropout *d = s->pass->dropout;
    size_t end = sums->column + sums->columns;
    uint32_t keep[LANES];
    (void)ops;
    for (size_t r = 0; r < sums->rows; r++) {
        uint64_t key = key_of(s, sums->row + r);
        const float *from = sums->at + r * sums->ld;
        float *to = d->extra + (sums->row + r) * s->width;
        for (size_t i = sums->column, next; i < end; i = next) {
            next = i / LANES * LANES + LANES;
            lanes_of(keep, word_at(key, i), d->threshold);
            for (size_t k = i; k < next && k < end; k++)
                to[k] = keep[k % LANES] ? from[k - sums->column] : 0;
        }
    }
}

void dure_dropout_finish_rest(void *state, const dure_sums *sums, const dure_cpu_ops *ops)
{
    const dure_dropout_sums *s = state;
    for (size_t r = 0; r < sums->rows; r++)
        ops->add(sums->at + r * sums->ld,
                 s->pass->dropout->extra + (sums->row + r) * s->width + sums->column,
                 sums->columns);
    s->finish(s->state, sums, ops);
}
