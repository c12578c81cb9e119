#include "model/transformer_cuda.h"

#include "model/transformer_cuda_int.h"
#include "model/transformer_dora.h"
#include "model/transformer_dropout.h"

#include <stdio.h>
#include <stdlib.h>

enum { PAD = 8 };

/* --- what belongs together --- */

void *dure_cuda_take(dure_cuda_owned *owned, size_t bytes)
{
    void *at = NULL;
    if (owned->counts) owned->bytes += bytes;
    if (owned->counts || owned->err) return NULL;
    if (bytes > *owned->left) {
        owned->err = dure_diag_set(owned->diag, DURE_ERR_NOMEM,
                                   "of the GPU's memory %.0f MB more may be taken, and %.0f MB "
                                   "are needed",
                                   (double)*owned->left / 1e6, (double)bytes / 1e6);
        return NULL;
    }
    if (owned->n == owned->capacity) {
        size_t capacity = owned->capacity * 2 + 64;
        void **list = realloc(owned->list, capacity * sizeof *list);
        owned->err = list ? DURE_OK : DURE_ERR_NOMEM;
        if (!list) return NULL;
        owned->list = list;
        owned->capacity = capacity;
    }
    owned->err = dure_device_new(&at, owned->device, bytes, owned->diag);
    if (owned->err) return NULL;
    owned->list[owned->n++] = at;
    owned->bytes += bytes;
    *owned->left -= bytes;
    return at;
}

void dure_cuda_give_back(dure_cuda_owned *owned)
{
    for (size_t i = 0; i < owned->n; i++)
        dure_device_free(owned->device, owned->list[i]);
    free(owned->list);
    if (owned->left) *owned->left += owned->bytes;
    *owned = (dure_cuda_owned){.device = owned->device, .left = owned->left};
}

dure_cuda_group dure_cuda_group_of(dure_lora_target target)
{
    if (target <= DURE_LORA_V) return DURE_CUDA_QKV;
    if (target == DURE_LORA_O) return DURE_CUDA_O;
    return target == DURE_LORA_DOWN ? DURE_CUDA_DOWN : DURE_CUDA_GATE_UP;
}

dure_lora_target dure_cuda_first(dure_cuda_group group)
{
    static const dure_lora_target first[] = {DURE_LORA_Q, DURE_LORA_O, DURE_LORA_GATE,
                                             DURE_LORA_DOWN};
    return first[group];
}

size_t dure_cuda_count(dure_cuda_group group)
{
    static const size_t count[] = {3, 1, 2, 1};
    return count[group];
}

size_t dure_cuda_column(const dure_cuda_engine *e, dure_lora_target target)
{
    size_t column = 0;
    for (dure_lora_target k = dure_cuda_first(dure_cuda_group_of(target)); k < target; k++)
        column += e->width[k];
    return column;
}

const float *dure_cuda_vector(const dure_cuda_engine *e, const dure_transformer *t,
                              const float *host)
{
    return host ? e->vectors + (host - t->norms) : NULL;
}

dure_cuda_acts *dure_cuda_acts_of(const dure_cuda_engine *e, const dure_transformer *t,
                                  uint32_t layer)
{
    size_t below = t->shape.n_layers - e->stored;
    return &e->acts[layer < below ? 0 : 1 + layer - below];
}

float *dure_cuda_input_of(const dure_cuda_engine *e, const dure_transformer *t, uint32_t layer)
{
    size_t stored_from = t->shape.n_layers - e->stored, first = stored_from - e->again;
    if (layer < first || layer >= stored_from) return NULL;
    return e->inputs + (layer - first) * e->rows * t->shape.n_embd;
}

/* --- the engine --- */

static dure_err prepare(dure_transformer *t, const dure_lora *lora, const dure_gradient_map *map,
                        bool twice, dure_diag *diag)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    dure_err err = dure_dora_settle(t, lora);
    if (!err) err = dure_cuda_adapter_load(e, t, lora, diag);
    return err ? err : dure_cuda_workspace_reserve(e, t, lora, map, twice, diag);
}

/* The documents of the pass, and the tiles that attention cuts them into. */
static void describe(dure_cuda_engine *e, const dure_transformer *t, const dure_pass *pass)
{
    size_t height = dure_cuda_tile_rows();
    e->n_tiles = 0;
    e->n_docs = pass->n_docs;
    for (size_t d = 0; d < pass->n_docs; d++) {
        size_t first = t->ws.docs[d].first, end = first + t->ws.docs[d].n;
        e->host_docs[d] = (dure_cuda_rows){(int32_t)first, (int32_t)(end - first)};
        for (size_t row = first; row < end; row += height) {
            size_t n = end - row < height ? end - row : height;
            e->host_tiles[e->n_tiles++] = (dure_cuda_tile){(int32_t)row, (int32_t)n, (int32_t)first,
                                                           (int32_t)end, (int32_t)d};
        }
    }
}

static size_t width_kv(const dure_transformer *t)
{
    return (size_t)t->shape.n_head_kv * t->shape.head_dim;
}

/* Where the documents of a pass go on. */
static void describe_caches(dure_cuda_engine *e, const dure_transformer *t, const dure_pass *pass)
{
    DURE_ASSERT(pass->n_docs <= DURE_DECODERS_TOGETHER);
    for (size_t d = 0; d < pass->n_docs; d++) {
        const dure_kv_cache *cache = pass->caches[d];
        const dure_attention_doc *doc = &t->ws.docs[d];
        e->host_caches[d] = (dure_cuda_cache){.rows = cache->k,
                                              .layer = 2 * cache->positions * width_kv(t),
                                              .first = (int32_t)doc->first,
                                              .n = (int32_t)doc->n,
                                              .had = (int32_t)cache->n};
    }
}

static void upload_pass(dure_cuda_engine *e, const dure_transformer *t, const dure_pass *pass)
{
    const dure_workspace *ws = &t->ws;
    dure_device *d = e->device;
    for (size_t i = 0; i < pass->n_labels; i++)
        e->host_rows[i] = (int32_t)ws->label_row[i];
    dure_device_upload(d, e->tokens, ws->tokens, pass->rows * sizeof *e->tokens);
    dure_device_upload(d, e->position, ws->position, pass->rows * sizeof *e->position);
    dure_device_upload(d, e->label, ws->label, pass->n_labels * sizeof *e->label);
    dure_device_upload(d, e->label_row, e->host_rows, pass->n_labels * sizeof *e->label_row);
    dure_device_upload(d, e->label_weight, ws->label_weight,
                       pass->n_labels * sizeof *e->label_weight);
    dure_device_upload(d, e->tiles, e->host_tiles, e->n_tiles * sizeof *e->tiles);
    dure_device_upload(d, e->doc_rows, e->host_docs, e->n_docs * sizeof *e->doc_rows);
}

/* The seed of each row's record. */
static void upload_seeds(dure_cuda_engine *e, const dure_transformer *t, const dure_pass *pass)
{
    for (size_t d = 0; d < pass->n_docs; d++)
        for (size_t i = 0; i < t->ws.docs[d].n; i++)
            e->host_seeds[t->ws.docs[d].first + i] = pass->dropout->seeds[t->ws.doc_index[d]];
    dure_device_upload(e->device, e->seeds, e->host_seeds, pass->rows * sizeof *e->seeds);
}

static void clip_begin(dure_transformer *t, const dure_gradient_map *map)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    dure_device_upload(e->device, e->clip_sum, map->clip->sum, map->n * sizeof *e->clip_sum);
}

/* The gradients of the pass's documents into the sum. */
static void clip(dure_cuda_engine *e, const dure_gradient_map *map)
{
    dure_cuda_clip args = {.sum = e->clip_sum,
                           .gradients = e->gradients,
                           .stride = map->n,
                           .n = map->n,
                           .n_docs = e->n_docs,
                           .per_unit = map->clip->per_unit,
                           .norm_most = map->clip->norm_most,
                           .squares_most = map->clip->squares_most,
                           .clipped = e->clipped,
                           .room = e->clip_room};
    dure_cuda_clip_run(e->device, &args);
    dure_device_download(e->device, e->host_clipped, e->clipped, e->n_docs * sizeof *e->clipped);
}

static dure_err clip_end(dure_transformer *t, const dure_gradient_map *map, dure_diag *diag)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    dure_device_download(e->device, map->clip->sum, e->clip_sum, map->n * sizeof *e->clip_sum);
    return dure_device_wait(e->device, diag);
}

static dure_err run(dure_transformer *t, const dure_pass *pass, const dure_gradient_map *map,
                    dure_diag *diag)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    describe(e, t, pass);
    if (map && map->together) {
        e->host_docs[0] = (dure_cuda_rows){0, (int32_t)pass->rows};
        e->n_docs = 1;
    }
    upload_pass(e, t, pass);
    if (pass->dropout) upload_seeds(e, t, pass);
    dure_cuda_forward(t, pass);
    dure_cuda_head(t, pass, map != NULL);
    if (map) dure_cuda_backward(t, pass, map);
    if (map && map->clip) clip(e, map);
    dure_device_download(e->device, t->ws.nll, e->nll, pass->n_labels * sizeof *t->ws.nll);
    dure_err err = dure_device_wait(e->device, diag);
    for (size_t d = 0; !err && map && map->clip && d < pass->n_docs; d++)
        map->clip->outcome[t->ws.doc_index[d]] = (dure_clip_outcome){
            .norm_square = e->host_clipped[d].norm_square, .added = e->host_clipped[d].added};
    return err;
}

static dure_err cache_new(void **out, dure_transformer *t, size_t positions)
{
    size_t bytes = 2 * positions * width_kv(t) * t->shape.n_layers * sizeof(uint16_t);
    return dure_device_new(out, dure_cuda_engine_of(t)->device, bytes, NULL);
}

static void cache_free(dure_transformer *t, void *cache)
{
    dure_device_free(dure_cuda_engine_of(t)->device, cache);
}

/* Of rows [first, first + n) that were asked for, to the host. */
static void some_logits(dure_transformer *t, size_t first, size_t n)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    dure_cuda_logits(t, first, n);
    for (size_t i = 0; i < n; i++)
        dure_device_download(e->device, t->ws.logits + (first + i) * t->ws.logits_ld,
                             e->logits + i * e->vocab, t->shape.n_vocab * sizeof(float));
}

static dure_err decode(dure_transformer *t, const dure_pass *pass, const size_t *row, size_t n,
                       dure_diag *diag)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    describe(e, t, pass);
    describe_caches(e, t, pass);
    upload_pass(e, t, pass);
    dure_device_upload(e->device, e->caches, e->host_caches, pass->n_docs * sizeof *e->caches);
    dure_cuda_forward(t, pass);
    for (size_t i = 0; i < n; i++)
        e->host_rows[i] = (int32_t)row[i];
    dure_device_upload(e->device, e->label_row, e->host_rows, n * sizeof *e->label_row);
    for (size_t i = 0; i < n; i += e->labels)
        some_logits(t, i, n - i < e->labels ? n - i : e->labels);
    return dure_device_wait(e->device, diag);
}

static dure_err gradient(dure_transformer *t, const dure_gradient_map *map, size_t doc,
                         dure_diag *diag)
{
    dure_cuda_engine *e = dure_cuda_engine_of(t);
    dure_device_download(e->device, t->ws.gradient, e->gradients + doc * map->n,
                         map->n * sizeof(float));
    return dure_device_wait(e->device, diag);
}

static size_t most_docs(const dure_transformer *t)
{
    return dure_cuda_engine_of(t)->docs;
}

static dure_transformer_fit fit(const dure_transformer *t)
{
    const dure_cuda_engine *e = dure_cuda_engine_of(t);
    return (dure_transformer_fit){.packed = !e->decoded,
                                  .recompute = (uint32_t)e->again,
                                  .rows = e->rows,
                                  .bytes =
                                      e->weights.bytes + e->adapter.bytes + e->workspace.bytes};
}

static void close_engine(void *state)
{
    dure_cuda_engine *e = state;
    dure_cuda_workspace_fini(e);
    dure_cuda_give_back(&e->adapter);
    dure_cuda_give_back(&e->weights);
    dure_device_close(&e->device);
    free(e->layers);
    free(e);
}

static dure_err check_model(dure_cuda_engine *e, const dure_transformer *t, dure_diag *diag)
{
    for (int k = 0; k < DURE_LORA_TARGETS; k++) {
        const dure_weight *w = &t->layers[0].w[k];
        dure_cuda_group group = dure_cuda_group_of((dure_lora_target)k);
        if (w->in % PAD || w->out % PAD)
            return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                                 "the model has matrices of %zu x %zu; a GPU wants multiples of 8, "
                                 "so use --device cpu",
                                 w->out, w->in);
        e->width[k] = w->out;
        e->in[group] = w->in;
        e->out[group] += w->out;
    }
    if (t->shape.head_dim <= DURE_CUDA_HEAD_WIDEST && t->shape.head_dim % PAD == 0) return DURE_OK;
    return dure_diag_set(
        diag, DURE_ERR_UNSUPPORTED,
        "heads of %u elements do not run on a GPU, multiples of 8 up to %d do; use "
        "--device cpu",
        t->shape.head_dim, DURE_CUDA_HEAD_WIDEST);
}

dure_err dure_transformer_cuda_attach(dure_transformer *t, int index, dure_diag *diag)
{
    dure_cuda_engine *e = calloc(1, sizeof *e);
    dure_transformer_device *device = calloc(1, sizeof *device);
    dure_err err = e && device ? dure_device_open(&e->device, index, diag) : DURE_ERR_NOMEM;
    if (!err) {
        e->weights.device = e->adapter.device = e->workspace.device = e->device;
        e->weights.left = e->adapter.left = e->workspace.left = &e->left;
        e->left =
            t->device_bytes && t->device_bytes < SIZE_MAX ? (size_t)t->device_bytes : SIZE_MAX;
        err = check_model(e, t, diag);
    }
    if (!err) err = dure_cuda_weights_load(e, t, diag);
    if (err) {
        if (e) close_engine(e);
        free(device);
        return err;
    }
    *device = (dure_transformer_device){.state = e,
                                        .prepare = prepare,
                                        .run = run,
                                        .clip_begin = clip_begin,
                                        .clip_end = clip_end,
                                        .gradient = gradient,
                                        .cache_new = cache_new,
                                        .cache_free = cache_free,
                                        .decode = decode,
                                        .most_docs = most_docs,
                                        .fit = fit,
                                        .close = close_engine};
    dure_workspace_fini(&t->ws); /* what it held was for the CPU */
    t->device = device;
    snprintf(t->path, sizeof t->path, "bf16, CUDA on %.60s", dure_device_name(e->device));
    return DURE_OK;
}
