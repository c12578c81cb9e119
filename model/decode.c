#include "model/decode.h"

#include "model/transformer_device.h"
#include "model/transformer_dora.h"
#include "model/transformer_int.h"

#include <stdlib.h>
#include <string.h>

/* Up to FEW rows each weight row is decoded and used at once; above it panels are cheaper. Of a
 * text that is scored, SCORED rows of logits are held at a time. */
enum { FEW = 5, SCORED = 128 };

struct dure_decoder {
    dure_transformer *t;
    dure_kv_cache cache;
    float *logits;
};

static dure_err cache_new(dure_kv_cache *cache, dure_transformer *t)
{
    const dure_model_shape *s = &t->shape;
    if (t->device) return t->device->cache_new(&cache->k, t, cache->positions);
    size_t bytes = (size_t)s->n_layers * cache->positions * s->n_head_kv * s->head_dim *
                   t->compute.ops->act_bytes;
    cache->k = malloc(bytes);
    cache->v = malloc(bytes);
    return cache->k && cache->v ? DURE_OK : DURE_ERR_NOMEM;
}

dure_err dure_decoder_new(dure_decoder **out, dure_transformer *t, size_t context)
{
    const dure_model_shape *s = &t->shape;
    *out = NULL;
    dure_decoder *d = calloc(1, sizeof *d);
    if (!d) return DURE_ERR_NOMEM;
    d->t = t;
    d->cache.positions = context == 0 || context > s->n_context ? s->n_context : context;
    d->logits = calloc(s->n_vocab, sizeof *d->logits);
    dure_err err = d->logits ? cache_new(&d->cache, t) : DURE_ERR_NOMEM;
    if (err)
        dure_decoder_free(&d);
    else
        *out = d;
    return err;
}

void dure_decoder_free(dure_decoder **d)
{
    if (!*d) return;
    dure_transformer *t = (*d)->t;
    if (t->device)
        t->device->cache_free(t, (*d)->cache.k);
    else
        free((*d)->cache.k);
    free((*d)->cache.v);
    free((*d)->logits);
    free(*d);
    *d = NULL;
}

size_t dure_decoder_length(const dure_decoder *d)
{
    return d->cache.n;
}

size_t dure_decoder_room(const dure_decoder *d)
{
    return d->cache.positions - d->cache.n;
}

void dure_decoder_rewind(dure_decoder *d, size_t n)
{
    DURE_ASSERT(n <= d->cache.n);
    d->cache.n = n;
}

const float *dure_decoder_logits(const dure_decoder *d)
{
    return d->logits;
}

/* The rows of one document of the pass: n tokens that go on where its decoder stands. */
static void add_rows(dure_pass *pass, dure_decoder *d, const int32_t *tokens, size_t n)
{
    dure_workspace *ws = &d->t->ws;
    for (size_t i = 0; i < n; i++) {
        ws->tokens[pass->rows + i] = tokens[i];
        ws->position[pass->rows + i] = (uint32_t)(d->cache.n + i);
    }
    ws->docs[pass->n_docs] =
        (dure_attention_doc){.first = pass->rows, .n = n, .n_keys = d->cache.n + n};
    pass->caches[pass->n_docs++] = &d->cache;
    pass->rows += n;
    pass->few = pass->rows <= FEW;
}

static dure_err check_feed(const dure_decoder *d, const int32_t *tokens, size_t n, dure_diag *diag)
{
    if (n == 0 || n > dure_decoder_room(d))
        return dure_diag_set(diag, DURE_ERR_LIMIT,
                             "%zu tokens do not fit: %zu of the context's %zu are taken", n,
                             d->cache.n, d->cache.positions);
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= d->t->shape.n_vocab)
            return dure_diag_set(diag, DURE_ERR_USAGE, "token %d is not in the vocabulary of %u",
                                 tokens[i], d->t->shape.n_vocab);
    return DURE_OK;
}

static dure_err prepare(dure_decoder *const *decoders, size_t n, size_t logits,
                        const dure_lora *lora, dure_diag *diag)
{
    dure_transformer *t = decoders[0]->t;
    dure_workspace_need need = {.rows = n > t->rows ? n : t->rows,
                                .rank = lora ? dure_lora_rank_most(&lora->layout) : 0,
                                .logits = logits};
    for (size_t i = 0; i < n; i++) {
        size_t positions = decoders[i]->cache.positions;
        need.keys += positions;
        if (positions > need.longest) need.longest = positions;
    }
    dure_err err = dure_transformer_check_lora(t, lora, diag);
    if (err) return err;
    if (t->device) return dure_transformer_prepare_device(t, need, lora, NULL, n, diag);
    err = dure_transformer_reserve(t, need);
    return err ? err : dure_dora_settle(t, lora);
}

/* The pass, and the logits of n of its rows; of all of them as the pass itself is computed. */
static dure_err run(dure_transformer *t, dure_pass *pass, const size_t *row, size_t n,
                    dure_diag *diag)
{
    if (!t->device) {
        dure_transformer_run(t, pass);
        if (n) dure_transformer_logits(t, row, n, n <= FEW && (pass->few || n < pass->rows));
        return DURE_OK;
    }
    dure_err err = t->device->decode(t, pass, row, n, diag);
    for (size_t i = 0; i < pass->n_docs && !err; i++)
        pass->caches[i]->n += t->ws.docs[i].n;
    return err;
}

dure_err dure_decoder_feed(dure_decoder *d, const dure_lora *lora, const int32_t *tokens, size_t n,
                           dure_diag *diag)
{
    dure_transformer *t = d->t;
    dure_err err = check_feed(d, tokens, n, diag);
    if (!err) err = prepare(&d, 1, 1, lora, diag);
    if (err) return err;
    size_t rows = 0, had = d->cache.n;
    for (size_t i = 0; i < n && !err; i += rows) {
        dure_pass pass = {.lora = lora, .caches = &(dure_kv_cache *){NULL}};
        rows = n - i < t->rows ? n - i : t->rows;
        add_rows(&pass, d, tokens + i, rows);
        err = run(t, &pass, (size_t[]){rows - 1}, i + rows == n, diag);
    }
    if (err) {
        d->cache.n = had;
        return err;
    }
    memcpy(d->logits, t->ws.logits, t->shape.n_vocab * sizeof *d->logits);
    return DURE_OK;
}

/* The logits of the n rows of a pass, tokens[first..] of what is scored, to the sink. */
static bool tell(const dure_transformer *t, size_t first, size_t n, dure_logits_sink *sink,
                 void *state)
{
    for (size_t i = 0; i < n; i++)
        if (!sink(state, first + i, t->ws.logits + i * t->ws.logits_ld)) return false;
    return true;
}

dure_err dure_decoder_score(dure_decoder *d, const dure_lora *lora, const int32_t *tokens, size_t n,
                            dure_logits_sink *sink, void *state, dure_diag *diag)
{
    dure_transformer *t = d->t;
    size_t row[SCORED], rows = 0, had = d->cache.n;
    for (size_t i = 0; i < SCORED; i++)
        row[i] = i;
    dure_err err = check_feed(d, tokens, n, diag);
    if (!err) err = prepare(&d, 1, SCORED, lora, diag);
    if (err) return err;
    for (size_t i = 0; i < n && !err; i += rows) {
        dure_pass pass = {.lora = lora, .caches = &(dure_kv_cache *){NULL}};
        rows = n - i < SCORED ? n - i : SCORED;
        if (rows > t->rows) rows = t->rows;
        add_rows(&pass, d, tokens + i, rows);
        pass.few = false; /* or the bits of a short rest would be others */
        err = run(t, &pass, row, rows, diag);
        if (!err && !tell(t, i, rows, sink, state)) err = DURE_ERR_CANCELLED;
    }
    if (err) {
        d->cache.n = had;
        return err;
    }
    memcpy(d->logits, t->ws.logits + (rows - 1) * t->ws.logits_ld,
           t->shape.n_vocab * sizeof *d->logits);
    return DURE_OK;
}

dure_err dure_decoder_feed_each(dure_decoder *const *decoders, const int32_t *tokens, size_t n,
                                const dure_lora *lora, dure_diag *diag)
{
    dure_kv_cache *caches[DURE_DECODERS_TOGETHER];
    size_t row[DURE_DECODERS_TOGETHER];
    DURE_ASSERT(n <= DURE_DECODERS_TOGETHER);
    if (n == 0) return DURE_OK;
    dure_transformer *t = decoders[0]->t;
    dure_err err = prepare(decoders, n, n, lora, diag);
    for (size_t i = 0; i < n && !err; i++)
        err = check_feed(decoders[i], &tokens[i], 1, diag);
    if (err) return err;
    dure_pass pass = {.lora = lora, .caches = caches};
    for (size_t i = 0; i < n; i++) {
        row[i] = i;
        add_rows(&pass, decoders[i], &tokens[i], 1);
    }
    err = run(t, &pass, row, n, diag);
    if (err) return err;
    for (size_t i = 0; i < n; i++)
        memcpy(decoders[i]->logits, t->ws.logits + i * t->ws.logits_ld,
               t->shape.n_vocab * sizeof(float));
    return DURE_OK;
}

dure_err dure_generate(dure_finish *finish, dure_decoder *d, const int32_t *prompt, size_t n,
                       const dure_generation *opts, dure_diag *diag)
{
    dure_sampler sampler = {0};
    size_t n_vocab = d->t->shape.n_vocab;
    *finish = DURE_FINISH_LENGTH;
    dure_err err = dure_sampler_init(&sampler, &opts->sampling, n_vocab);
    if (!err) err = dure_decoder_feed(d, opts->lora, prompt, n, diag);
    for (size_t made = 0; !err && (opts->max_tokens == 0 || made < opts->max_tokens); made++) {
        int32_t id = dure_sampler_next(&sampler, d->logits);
        if (opts->tokenizer && dure_tokenizer_is_end(opts->tokenizer, id)) {
            *finish = DURE_FINISH_STOP;
            break;
        }
        if (!opts->sink(opts->state, id)) {
            *finish = DURE_FINISH_CANCELLED;
            break;
        }
        bool last = made + 1 == opts->max_tokens || dure_decoder_room(d) == 0;
        if (last) break;
        err = dure_decoder_feed(d, opts->lora, &id, 1, diag);
    }
    dure_sampler_fini(&sampler);
    return err;
}
