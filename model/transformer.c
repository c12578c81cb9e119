#include "model/transformer_int.h"

#include "kernels/dequant.h"
#include "kernels/packed_weight.h"
#include "model/memory.h"
#include "model/shape.h"
#include "model/transformer_cuda.h"
#include "model/transformer_device.h"
#include "model/transformer_dora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of fewer rows than FEW a pass keeps a GPU less busy than it loses by computing layers twice. */
enum { DEFAULT_ROWS = 512, DEFAULT_ROWS_CUDA = 8192, FEW_ROWS_CUDA = 2048, LEAST_ROWS_CUDA = 64 };

static dure_err bind_weight(dure_weight *out, const dure_gguf *gguf, const char *name,
                            dure_diag *diag)
{
    const dure_gguf_tensor *tensor = dure_gguf_find(gguf, name);
    if (!tensor) return dure_diag_set(diag, DURE_ERR_FORMAT, "the tensor %s is missing", name);
    size_t weights, bytes;
    if (!dure_quant_block(&weights, &bytes, tensor->type))
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the tensor %s is stored as %s, which Dure cannot decode; convert the "
                             "model to Q8_0 or F16",
                             name, dure_gguf_type_name(tensor->type));
    size_t in = (size_t)tensor->dims[0], rows = (size_t)tensor->dims[1];
    if (in % weights || tensor->bytes != rows * dure_quant_row_bytes(tensor->type, in))
        return dure_diag_set(diag, DURE_ERR_FORMAT, "the tensor %s has a wrong size", name);
    *out = (dure_weight){.type = tensor->type, .out = rows, .in = in, .data = tensor->data};
    return DURE_OK;
}

/* A vector of n elements in any plain or quantized type, as float32 at *out; advances *out. */
static dure_err read_vector(const float **vector, float **out, const dure_gguf *gguf,
                            const char *name, size_t n, dure_diag *diag)
{
    dure_weight w = {0};
    dure_err err = bind_weight(&w, gguf, name, diag);
    if (err) return err;
    if (w.in != n || w.out != 1)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "the tensor %s has %zu x %zu elements, not %zu",
                             name, w.out, w.in, n);
    dure_cpu_ops_of(DURE_CPU_REFERENCE)->dequant(*out, w.data, n, w.type);
    *vector = *out;
    *out += n;
    return DURE_OK;
}

static dure_err bind_layer(dure_layer_weights *layer, float **vectors, const dure_transformer *t,
                           const dure_gguf *gguf, dure_diag *diag)
{
    char name[64];
    uint32_t index = (uint32_t)(layer - t->layers);
    dure_err err = DURE_OK;
    for (int v = 0; v < DURE_MODEL_VECTORS && !err; v++) {
        dure_model_vector which = (dure_model_vector)v;
        uint32_t n = dure_model_vector_size(&t->shape, &t->arch, which);
        if (n == 0) continue;
        dure_model_vector_name(name, index, which);
        err = read_vector(&layer->vector[v], vectors, gguf, name, n, diag);
    }
    for (int k = 0; k < DURE_LORA_TARGETS && !err; k++) {
        dure_model_target_name(name, index, (dure_lora_target)k);
        err = bind_weight(&layer->w[k], gguf, name, diag);
    }
    return err;
}

/* A product hands over whole heads, as many as pairs of vectors fit together with: 256 columns at
 * most. The vectors are those of the widest level, so that a model runs on every CPU or on none. */
static dure_err check_heads(const dure_transformer *t, dure_diag *diag)
{
    uint32_t dim = t->shape.head_dim, columns = dim;
    if (!t->arch.qk_norm && !t->arch.rope_halves) return DURE_OK;
    while (columns % 32)
        columns += dim;
    if (columns <= DURE_HEADS_WIDEST) return DURE_OK;
    return dure_diag_set(
        diag, DURE_ERR_UNSUPPORTED,
        "heads of %u elements are not supported; up to 128 in steps of 16 and up to "
        "256 in steps of 32 are",
        dim);
}

static dure_err bind_globals(dure_transformer *t, float **norms, const dure_gguf *gguf,
                             dure_diag *diag)
{
    const dure_model_shape *s = &t->shape;
    dure_err err = bind_weight(&t->embedding, gguf, "token_embd.weight", diag);
    if (err) return err;
    t->head = t->embedding;
    if (dure_gguf_find(gguf, "output.weight")) {
        err = bind_weight(&t->head, gguf, "output.weight", diag);
        if (err) return err;
    }
    if (t->head.in != s->n_embd || t->head.out < s->n_vocab)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "output.weight is %zu x %zu, not %u x %u",
                             t->head.out, t->head.in, s->n_vocab, s->n_embd);
    return read_vector(&t->output_norm, norms, gguf, "output_norm.weight", s->n_embd, diag);
}

static dure_err make_rope(dure_transformer *t, const dure_gguf *gguf, dure_diag *diag)
{
    dure_err err = dure_model_rope_read(&t->rope, gguf, &t->shape, &t->arch, false, diag);
    if (!err) err = dure_model_rope_read(&t->rope_sliding, gguf, &t->shape, &t->arch, true, diag);
    return err;
}

size_t dure_transformer_vector_floats(const dure_transformer *t)
{
    size_t layer = 0;
    for (int v = 0; v < DURE_MODEL_VECTORS; v++)
        layer += dure_model_vector_size(&t->shape, &t->arch, (dure_model_vector)v);
    return t->shape.n_layers * layer + t->shape.n_embd;
}

static dure_err bind(dure_transformer *t, const dure_gguf *gguf, dure_diag *diag)
{
    const dure_model_shape *s = &t->shape;
    dure_err err = dure_model_arch_read(&t->arch, gguf, s, diag);
    if (!err) err = check_heads(t, diag);
    if (err) return err;
    t->layers = calloc(s->n_layers, sizeof *t->layers);
    t->norms = calloc(dure_transformer_vector_floats(t), sizeof *t->norms);
    if (!t->layers || !t->norms) return DURE_ERR_NOMEM;
    float *vectors = t->norms;
    err = bind_globals(t, &vectors, gguf, diag);
    for (uint32_t l = 0; l < s->n_layers && !err; l++)
        err = bind_layer(&t->layers[l], &vectors, t, gguf, diag);
    if (!err) err = make_rope(t, gguf, diag);
    return err;
}

/* The weight number i of the products: the layers' matrices, then the head; NULL past the end. */
static dure_weight *product_weight(dure_transformer *t, size_t i)
{
    size_t in_layers = (size_t)t->shape.n_layers * DURE_LORA_TARGETS;
    if (i < in_layers) return &t->layers[i / DURE_LORA_TARGETS].w[i % DURE_LORA_TARGETS];
    return i == in_layers ? &t->head : NULL;
}

size_t dure_transformer_packed_bytes(dure_transformer *t)
{
    size_t sum = 0;
    dure_weight *w;
    for (size_t i = 0; (w = product_weight(t, i)) != NULL; i++)
        if (dure_weight_can_pack(w, t->compute.ops))
            sum += dure_weight_packed_bytes(w, t->compute.ops);
    return sum;
}

dure_err dure_transformer_pack_weights(dure_transformer *t)
{
    size_t scratch = 0, used = 0;
    dure_weight *w;
    for (size_t i = 0; (w = product_weight(t, i)) != NULL; i++) {
        size_t bytes = dure_weight_pack_scratch_bytes(w);
        if (bytes > scratch) scratch = bytes;
    }
    t->packed_bytes = dure_transformer_packed_bytes(t);
    if (t->packed || t->packed_bytes == 0) return DURE_OK;
    t->packed = dure_block_new(t->packed_bytes);
    dure_err err = t->packed ? dure_pool_reserve(t->pool, scratch) : DURE_ERR_NOMEM;
    for (size_t i = 0; !err && (w = product_weight(t, i)) != NULL; i++) {
        if (!dure_weight_can_pack(w, t->compute.ops)) continue;
        dure_weight_pack(w, (char *)t->packed + used, &t->compute);
        used += dure_weight_packed_bytes(w, t->compute.ops);
        /* Layer by layer, so that the file and the copy are never both in memory. */
        if (i % DURE_LORA_TARGETS == 0) dure_gguf_let_go(t->gguf);
    }
    dure_gguf_let_go(t->gguf);
    return err;
}

static dure_err choose_path(dure_transformer *t, const dure_transformer_opts *opts, dure_diag *diag)
{
    static const dure_cpu_level most[] = {
        [DURE_PRECISION_AUTO] = DURE_CPU_AVX512_BF16,
        [DURE_PRECISION_F32] = DURE_CPU_AVX512,
        [DURE_PRECISION_BF16] = DURE_CPU_AVX512_BF16,
    };
    bool plain = opts->precision == DURE_PRECISION_REFERENCE;
    dure_cpu_level level = plain ? DURE_CPU_REFERENCE : dure_cpu_best_up_to(most[opts->precision]);
    t->compute.ops = dure_cpu_ops_of(level);
    bool bf16 = t->compute.ops->act_bytes == 2;
    snprintf(t->path, sizeof t->path, "%s, %s", bf16 ? "bf16" : "f32", t->compute.ops->name);
    if (opts->precision == DURE_PRECISION_BF16 && !bf16)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "this CPU does not multiply bfloat16 in hardware; use f32");
    dure_err err = dure_pool_new(&t->pool, opts->threads, 0);
    t->compute.pool = t->pool;
    if (!err && opts->profile) {
        dure_profile_init(&t->profile, dure_pool_threads(t->pool));
        t->compute.profile = &t->profile;
    }
    return err;
}

static bool packs(dure_transformer *t, dure_weights weights)
{
    size_t bytes = dure_transformer_packed_bytes(t);
    if (weights != DURE_WEIGHTS_AUTO) return weights == DURE_WEIGHTS_PACKED;
    return bytes / 1024 <= dure_machine_memory_bytes() / 2048;
}

static dure_err attach(dure_transformer *t, const dure_transformer_opts *opts, dure_diag *diag)
{
#ifdef DURE_CUDA
    return dure_transformer_cuda_attach(t, opts->device, diag);
#else
    (void)t;
    (void)opts;
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "this build of Dure has no CUDA; build it with the preset 'cuda' "
                         "(docs/gpu.md), or use the CPU");
#endif
}

dure_err dure_transformer_new(dure_transformer **out, const dure_gguf *gguf,
                              const dure_transformer_opts *opts, dure_diag *diag)
{
    *out = NULL;
    dure_transformer *t = calloc(1, sizeof *t);
    if (!t) return DURE_ERR_NOMEM;
    t->rows = opts->cuda ? DEFAULT_ROWS_CUDA : DEFAULT_ROWS;
    if (opts->rows) t->rows = opts->rows;
    t->recompute = opts->recompute;
    t->device_bytes = opts->device_bytes;
    t->whole = 1;
    t->gguf = gguf;
    dure_err err = dure_model_shape_read(&t->shape, gguf, diag);
    if (!err) err = dure_gguf_check_finite(gguf, diag);
    if (!err) err = bind(t, gguf, diag);
    if (!err) err = choose_path(t, opts, diag);
    if (!err && opts->cuda) err = attach(t, opts, diag);
    if (!err && !opts->cuda && packs(t, opts->weights)) err = dure_transformer_pack_weights(t);
    if (!err) {
        *out = t;
    } else {
        dure_transformer_free(&t);
    }
    return err;
}

void dure_transformer_free(dure_transformer **t)
{
    if (!*t) return;
    if ((*t)->device) (*t)->device->close((*t)->device->state);
    free((*t)->device);
    dure_workspace_fini(&(*t)->ws);
    dure_rope_table_fini(&(*t)->rope);
    dure_rope_table_fini(&(*t)->rope_sliding);
    dure_pool_free(&(*t)->pool);
    dure_block_free((*t)->packed, (*t)->packed_bytes);
    free((*t)->layers);
    free((*t)->norms);
    free(*t);
    *t = NULL;
}

const dure_model_shape *dure_transformer_shape(const dure_transformer *t)
{
    return &t->shape;
}

const char *dure_transformer_path(const dure_transformer *t)
{
    return t->path;
}

dure_ahead dure_transformer_ahead(const dure_transformer *t, uint32_t layer, dure_lora_target first,
                                  bool transposed)
{
    if (layer >= t->shape.n_layers) return (dure_ahead){.w = NULL};
    return (dure_ahead){&t->layers[layer].w[first], transposed};
}

size_t dure_transformer_rows(const dure_transformer *t)
{
    return t->rows;
}

bool dure_transformer_clips(const dure_transformer *t)
{
    return t->device != NULL;
}

const dure_compute *dure_transformer_compute(const dure_transformer *t)
{
    return &t->compute;
}

dure_profile *dure_transformer_profile(dure_transformer *t)
{
    return t->compute.profile;
}

bool dure_transformer_pair(dure_lora_pair *out, const dure_lora *lora, uint32_t layer,
                           dure_lora_target target)
{
    size_t a, b;
    if (!lora || !dure_lora_find(&a, &lora->layout, layer, target, DURE_LORA_FACTOR_A))
        return false;
    if (!dure_lora_find(&b, &lora->layout, layer, target, DURE_LORA_FACTOR_B)) return false;
    const dure_lora_layout *layout = &lora->layout;
    *out = (dure_lora_pair){
        .a = {.out = dure_lora_rank(layout, target),
              .in = dure_lora_in(&layout->shape, target),
              .data = lora->params + a},
        .b = {.out = dure_lora_out(&layout->shape, target),
              .in = dure_lora_rank(layout, target),
              .data = lora->params + b},
        .scale = dure_lora_scale(layout, target),
    };
    return true;
}

dure_err dure_transformer_check_lora(const dure_transformer *t, const dure_lora *lora,
                                     dure_diag *diag)
{
    if (!lora) return DURE_OK;
    const dure_model_shape *a = &lora->layout.shape, *b = &t->shape;
    if (a->n_layers != b->n_layers || a->n_embd != b->n_embd || a->n_ff != b->n_ff ||
        a->n_head != b->n_head || a->n_head_kv != b->n_head_kv || a->head_dim != b->head_dim)
        return dure_diag_set(diag, DURE_ERR_USAGE,
                             "the adapter was made for a model of another shape");
    return DURE_OK;
}

/* Runs forward and the head over one pass; nll of every label is in ws.nll. */
static dure_err pass_loss(dure_transformer *t, dure_pass *pass, dure_diag *diag)
{
    if (t->device) return t->device->run(t, pass, NULL, diag);
    dure_transformer_run(t, pass);
    for (size_t i = 0; i < pass->n_labels; i += t->ws.labels) {
        size_t left = pass->n_labels - i;
        dure_transformer_head(t, i, left < t->ws.labels ? left : t->ws.labels, false);
    }
    return DURE_OK;
}

static size_t longest(const dure_document *docs, size_t n_docs)
{
    size_t rows = 0;
    for (size_t d = 0; d < n_docs; d++) {
        size_t n = dure_document_rows(&docs[d]);
        if (n > rows) rows = n;
    }
    return rows;
}

/* Adds the pass's ws.nll to the losses of its documents, in their order. */
static void collect_losses(dure_document_loss *losses, const dure_transformer *t,
                           const dure_pass *pass)
{
    size_t label = 0;
    for (size_t d = 0; d < pass->n_docs; d++) {
        const dure_attention_doc *doc = &t->ws.docs[d];
        dure_document_loss *loss = &losses[t->ws.doc_index[d]];
        for (; label < pass->n_labels && t->ws.label_row[label] < doc->first + doc->n; label++) {
            loss->nll_sum += (double)t->ws.nll[label];
            loss->n_labels++;
        }
        loss->finite = isfinite(loss->nll_sum);
    }
}

dure_err dure_transformer_prepare_device(dure_transformer *t, dure_workspace_need need,
                                         const dure_lora *lora, const dure_gradient_map *map,
                                         size_t longest_doc, dure_diag *diag)
{
    for (;;) {
        need.rows = t->rows > longest_doc ? t->rows : longest_doc;
        bool last = t->rows <= longest_doc || t->rows <= LEAST_ROWS_CUDA;
        dure_err err = dure_transformer_reserve(t, need);
        if (!err) err = t->device->prepare(t, lora, map, last || t->rows <= FEW_ROWS_CUDA, diag);
        if (err != DURE_ERR_NOMEM || last) return err;
        t->rows /= 2;
        dure_workspace_fini(&t->ws);
    }
}

dure_err dure_transformer_prepare(dure_transformer *t, const dure_lora *lora,
                                  const dure_document *docs, size_t n_docs,
                                  const dure_gradient_map *map, dure_diag *diag)
{
    dure_err err = dure_transformer_check_lora(t, lora, diag);
    if (!err) err = dure_transformer_check_docs(t, docs, n_docs, diag);
    if (err) return err;
    size_t most = longest(docs, n_docs);
    dure_workspace_need need = {.rows = most > t->rows ? most : t->rows,
                                .rank = lora ? dure_lora_rank_most(&lora->layout) : 0,
                                .gradients = map ? map->widest : 0,
                                .gradient = map ? map->n : 0,
                                .whole = map && !map->together ? t->whole : 1};
    if (map) {
        need.stored = t->shape.n_layers - lora->layout.first_layer;
        need.checkpoints = t->recompute < need.stored ? t->recompute : need.stored;
        need.stored -= need.checkpoints;
    }
    if (t->device) { /* what layers keep lies there */
        need.stored = need.checkpoints = 0;
        return dure_transformer_prepare_device(t, need, lora, map, most, diag);
    }
    if (map && lora->layout.dora) need.dora = lora->layout.targets;
    err = dure_transformer_reserve(t, need);
    return err ? err : dure_dora_settle(t, lora);
}

dure_transformer_fit dure_transformer_device_fit(const dure_transformer *t)
{
    return t->device ? t->device->fit(t) : (dure_transformer_fit){.rows = 0};
}

dure_err dure_transformer_loss(dure_document_loss *losses, dure_transformer *t,
                               const dure_lora *lora, const dure_document *docs, size_t n_docs,
                               dure_diag *diag)
{
    dure_err err = dure_transformer_prepare(t, lora, docs, n_docs, NULL, diag);
    if (err) return err;
    for (size_t d = 0; d < n_docs; d++)
        losses[d] = (dure_document_loss){.finite = true};
    for (size_t next = 0; next < n_docs;) {
        dure_pass pass = {.lora = lora};
        dure_transformer_pack(&pass, &next, t, docs, n_docs, SIZE_MAX);
        if (pass.n_docs == 0) break;
        err = pass_loss(t, &pass, diag);
        if (err) return err;
        collect_losses(losses, t, &pass);
    }
    return DURE_OK;
}

dure_err dure_transformer_logprobs(float *logprobs, dure_transformer *t, const dure_lora *lora,
                                   const int32_t *tokens, size_t n, dure_diag *diag)
{
    if (n == 0) return DURE_OK;
    uint8_t *all = malloc(n);
    if (!all) return DURE_ERR_NOMEM;
    memset(all, 1, n);
    all[0] = 0;
    dure_document doc = {.tokens = tokens, .supervised = all, .n = n};
    dure_err err = dure_transformer_prepare(t, lora, &doc, 1, NULL, diag);
    logprobs[0] = 0;
    if (!err && n > 1) {
        dure_pass pass = {.lora = lora};
        size_t next = 0;
        dure_transformer_pack(&pass, &next, t, &doc, 1, 1);
        err = pass_loss(t, &pass, diag);
        for (size_t i = 1; i < n && !err; i++)
            logprobs[i] = -t->ws.nll[i - 1];
    }
    free(all);
    return err;
}
