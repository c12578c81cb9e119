#include "common/file.h"
#include "model/adapter_int.h"
#include "model/arch.h"
#include "model/gguf.h"
#include "model/gguf_write.h"
#include "model/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An adapter has a few thousand small keys and tensors at most; a base has far more. */
const dure_gguf_limits dure_adapter_gguf_limits = {
    .max_tensors = 16384,
    .max_keys = 1024,
    .max_key_bytes = 256,
    .max_text_bytes = 1 << 20,
    .max_array = 1 << 16,
    .max_alignment = 65536,
    .max_files = 1,
};
/* Of the keys in practice: notes take 16 MiB at most. */
static const size_t keys_bytes_most = (size_t)64 << 20;

/* The base's shape as keys, so that a program without the base can still hold the adapter. */
static const struct {
    const char *key;
    size_t offset;
} shape_keys[] = {
    {"dure.shape.layers", offsetof(dure_model_shape, n_layers)},
    {"dure.shape.embedding", offsetof(dure_model_shape, n_embd)},
    {"dure.shape.feed_forward", offsetof(dure_model_shape, n_ff)},
    {"dure.shape.heads", offsetof(dure_model_shape, n_head)},
    {"dure.shape.heads_kv", offsetof(dure_model_shape, n_head_kv)},
    {"dure.shape.head_dim", offsetof(dure_model_shape, head_dim)},
    {"dure.shape.vocabulary", offsetof(dure_model_shape, n_vocab)},
    {"dure.shape.context", offsetof(dure_model_shape, n_context)},
};
enum { N_SHAPE_KEYS = sizeof shape_keys / sizeof shape_keys[0] };

static const char note_prefix[] = "dure.note.";

static void put_shape(dure_gguf_writer *w, const dure_model_shape *shape)
{
    for (size_t i = 0; i < N_SHAPE_KEYS; i++) {
        uint32_t value;
        memcpy(&value, (const uint8_t *)shape + shape_keys[i].offset, sizeof value);
        dure_gguf_put_u32(w, shape_keys[i].key, value);
    }
}

static dure_err put_notes(dure_gguf_writer *w, const dure_adapter_notes *notes)
{
    if (notes->base_digest[0])
        dure_gguf_put_text(w, "dure.base.sha256", dure_span_of_text(notes->base_digest));
    size_t n = 0;
    const char **names = dure_adapter_notes_sorted(&n, notes);
    if (!names) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        char key[sizeof note_prefix + 64];
        snprintf(key, sizeof key, "%s%s", note_prefix, names[i]);
        const json_t *value = json_object_get(notes->texts, names[i]);
        dure_gguf_put_text(w, key,
                           dure_span_of(json_string_value(value), json_string_length(value)));
    }
    free(names);
    return DURE_OK;
}

static void put_factor(dure_gguf_writer *w, const dure_lora_layout *layout, const float *params,
                       uint32_t layer, dure_lora_target target, dure_lora_factor factor)
{
    size_t offset = 0;
    if (!dure_lora_find(&offset, layout, layer, target, factor)) return;
    const dure_model_shape *shape = &layout->shape;
    bool is_a = factor == DURE_LORA_FACTOR_A;
    uint32_t rank = dure_lora_rank(layout, target);
    char base[64], name[80];
    dure_model_target_name(base, layer, target);
    snprintf(name, sizeof name, "%s.lora_%c", base, is_a ? 'a' : 'b');
    dure_gguf_put_tensor(
        w, &(dure_gguf_tensor){.name = name,
                               .type = DURE_GGUF_F32,
                               .n_dims = 2,
                               .dims = {is_a ? dure_lora_in(shape, target) : rank,
                                        is_a ? rank : dure_lora_out(shape, target)},
                               .data = params ? (const uint8_t *)(params + offset) : NULL});
}

dure_err dure_adapter_gguf_declare(dure_gguf_writer *w, const dure_lora_layout *layout,
                                   const float *params, const dure_adapter_notes *notes,
                                   dure_diag *diag)
{
    if (layout->dora)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "GGUF has no place for DoRA's magnitudes; keep the PEFT folder, or "
                             "merge the adapter into its base");
    dure_err err = dure_adapter_notes_check(notes, diag);
    if (err) return err;
    dure_gguf_put_text(w, "general.architecture", dure_span_of_text(layout->shape.architecture));
    dure_gguf_put_text(w, "general.type", dure_span_of_text("adapter"));
    dure_gguf_put_text(w, "adapter.type", dure_span_of_text("lora"));
    dure_gguf_put_f32(w, "adapter.lora.alpha", layout->alpha);
    put_shape(w, &layout->shape);
    if (notes) err = put_notes(w, notes);
    for (uint32_t layer = layout->first_layer; layer < layout->shape.n_layers; layer++) {
        for (dure_lora_target target = 0; target < DURE_LORA_TARGETS; target++) {
            put_factor(w, layout, params, layer, target, DURE_LORA_FACTOR_A);
            put_factor(w, layout, params, layer, target, DURE_LORA_FACTOR_B);
        }
    }
    return err;
}

dure_err dure_adapter_encode(dure_buf *out, const dure_lora *lora, const dure_adapter_notes *notes,
                             dure_diag *diag)
{
    dure_gguf_writer *w = NULL;
    dure_err err = dure_gguf_writer_new(&w);
    if (!err) err = dure_adapter_gguf_declare(w, &lora->layout, lora->params, notes, diag);
    if (!err) err = dure_gguf_writer_encode(out, w);
    dure_gguf_writer_free(&w);
    return err;
}

dure_err dure_adapter_save(const char *path, const dure_lora *lora, const dure_adapter_notes *notes,
                           dure_diag *diag)
{
    dure_buf bytes;
    dure_buf_init(&bytes, SIZE_MAX);
    dure_err err = dure_adapter_encode(&bytes, lora, notes, diag);
    if (!err) err = dure_file_write_atomic(path, dure_buf_span(&bytes), 0644, diag);
    dure_buf_fini(&bytes);
    return err;
}

static dure_err check_text(const dure_gguf *g, const char *key, const char *wanted, dure_diag *diag)
{
    dure_span text = {0};
    dure_err err = dure_gguf_text(&text, g, key, diag);
    if (err) return err == DURE_ERR_NOT_FOUND ? DURE_ERR_FORMAT : err;
    if (text.n == strlen(wanted) && !memcmp(text.data, wanted, text.n)) return DURE_OK;
    char shown[128];
    dure_gguf_print(shown, text);
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "%s is '%s', not '%s': this is not a LoRA adapter", key, shown, wanted);
}

/* "blk.3.attn_q.weight.lora_a" to its place; false for any other name. */
static bool parse_name(dure_adapter_part *out, const char *name)
{
    uint32_t layer = 0;
    const char *at = name + 4;
    if (strncmp(name, "blk.", 4) != 0 || *at < '0' || *at > '9') return false;
    for (; *at >= '0' && *at <= '9' && layer < 100000; at++)
        layer = layer * 10 + (uint32_t)(*at - '0');
    for (int target = 0; target < DURE_LORA_TARGETS; target++) {
        char wanted[64];
        dure_model_target_name(wanted, layer, (dure_lora_target)target);
        size_t n = strlen(wanted);
        if (strncmp(name, wanted, n) != 0) continue;
        bool is_a = !strcmp(name + n, ".lora_a");
        if (!is_a && strcmp(name + n, ".lora_b") != 0) return false;
        out->layer = layer;
        out->target = (dure_lora_target)target;
        out->factor = is_a ? DURE_LORA_FACTOR_A : DURE_LORA_FACTOR_B;
        return true;
    }
    return false;
}

static dure_err read_part(dure_adapter_part *out, const dure_gguf_tensor *tensor, dure_diag *diag)
{
    *out = (dure_adapter_part){.name = tensor->name,
                               .type = tensor->type,
                               .rows = tensor->dims[1],
                               .cols = tensor->dims[0],
                               .data = tensor->data};
    if (!parse_name(out, tensor->name))
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the adapter has the tensor %s; only attention and feed-forward "
                             "matrices are supported",
                             tensor->name);
    if (tensor->type != DURE_GGUF_F32 && tensor->type != DURE_GGUF_F16 &&
        tensor->type != DURE_GGUF_BF16 && tensor->type != DURE_GGUF_Q8_0)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "%s is of type %s; F32, F16, BF16 and Q8_0 are supported",
                             tensor->name, dure_gguf_type_name(tensor->type));
    if (tensor->dims[2] != 1 || tensor->dims[3] != 1)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "%s is not a matrix", tensor->name);
    return DURE_OK;
}

static dure_err read_shape(dure_model_shape *out, const dure_gguf *g, dure_diag *diag)
{
    *out = (dure_model_shape){0};
    dure_span text = {0};
    dure_err err = dure_gguf_text(&text, g, "general.architecture", diag);
    if (err) return err;
    char shown[128];
    dure_gguf_print(shown, text);
    if (!dure_model_arch_known(shown))
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the adapter's architecture '%s' is not supported; llama, qwen2, "
                             "qwen3 and gemma3 are",
                             shown);
    memcpy(out->architecture, shown, strlen(shown) + 1); /* known ones are short */
    for (size_t i = 0; i < N_SHAPE_KEYS && !err; i++) {
        uint32_t value = 0;
        err = dure_gguf_u32(&value, g, shape_keys[i].key, diag);
        memcpy((uint8_t *)out + shape_keys[i].offset, &value, sizeof value);
    }
    if (!err) err = dure_model_shape_check(out, diag);
    return err;
}

/* Only an adapter that Dure did not write lacks the keys of the shape; then the base's is used. */
static dure_err check_shape(const dure_gguf *g, const dure_model_shape *shape, dure_diag *diag)
{
    dure_span text = {0};
    dure_err err = dure_gguf_text(&text, g, "general.architecture", diag);
    if (err) return err;
    if (text.n != strlen(shape->architecture) || memcmp(text.data, shape->architecture, text.n))
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "the adapter belongs to another base model: its architecture is not "
                             "%s; give the base that the adapter was made for",
                             shape->architecture);
    for (size_t i = 0; i < N_SHAPE_KEYS; i++) {
        uint32_t value = 0, wanted;
        memcpy(&wanted, (const uint8_t *)shape + shape_keys[i].offset, sizeof wanted);
        if (!dure_gguf_has(g, shape_keys[i].key)) continue;
        err = dure_gguf_u32(&value, g, shape_keys[i].key, diag);
        if (err) return err;
        if (value != wanted)
            return dure_diag_set(diag, DURE_ERR_STATE,
                                 "the adapter belongs to another base model: its %s is %u, this "
                                 "base's is %u; give the base that the adapter was made for",
                                 shape_keys[i].key, value, wanted);
    }
    return DURE_OK;
}

static dure_err read_notes(dure_adapter_notes *out, const dure_gguf *g, dure_diag *diag)
{
    dure_span text = {0};
    dure_err err = DURE_OK;
    if (dure_gguf_has(g, "dure.base.sha256")) {
        err = dure_gguf_text(&text, g, "dure.base.sha256", diag);
        if (!err && text.n != 64)
            err = dure_diag_set(diag, DURE_ERR_FORMAT, "dure.base.sha256 is not 64 hex digits");
        if (err) return err;
        memcpy(out->base_digest, text.data, 64);
    }
    for (size_t i = 0; i < dure_gguf_key_count(g) && !err; i++) {
        char value[128];
        const char *key = dure_gguf_key_at(value, g, i);
        if (strncmp(key, note_prefix, sizeof note_prefix - 1) != 0) continue;
        err = dure_gguf_text(&text, g, key, diag);
        if (!err) err = dure_adapter_notes_add(out, key + sizeof note_prefix - 1, text, diag);
    }
    return err ? err : dure_adapter_notes_check(out, diag);
}

dure_err dure_adapter_gguf_parts(dure_adapter_parts *out, dure_model_shape *own, const dure_gguf *g,
                                 const dure_model_shape *shape, dure_diag *diag)
{
    size_t n = dure_gguf_tensor_count(g);
    dure_adapter_part *parts = NULL;
    dure_err err = DURE_OK;
    *out = (dure_adapter_parts){.n = n};
    if (!dure_gguf_has(g, "adapter.type"))
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "this is a model, not an adapter; give the adapter's file or folder");
    if (!err) err = check_text(g, "general.type", "adapter", diag);
    if (!err) err = check_text(g, "adapter.type", "lora", diag);
    if (!err && dure_gguf_has(g, "adapter.alora.invocation_tokens"))
        err = dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                            "the adapter acts only after an activating text (aLoRA), which is not "
                            "supported");
    if (!err) err = dure_gguf_f32(&out->alpha, g, "adapter.lora.alpha", diag);
    if (!err) err = shape ? check_shape(g, shape, diag) : read_shape(own, g, diag);
    if (!err && !(parts = calloc(n + 1, sizeof *parts))) err = DURE_ERR_NOMEM;
    for (size_t i = 0; i < n && !err; i++)
        err = read_part(&parts[i], dure_gguf_tensor_at(g, i), diag);
    if (err) {
        free(parts);
        return err;
    }
    /* llama.cpp's rule: alpha 0 stands for a scale of 1. */
    if (!(out->alpha != 0.0f) && n)
        out->alpha = (float)(parts[0].factor == DURE_LORA_FACTOR_A ? parts[0].rows : parts[0].cols);
    out->parts = parts;
    return DURE_OK;
}

static dure_err read_adapter(dure_lora **out, dure_adapter_notes *notes, const dure_gguf *g,
                             const dure_model_shape *shape, dure_diag *diag)
{
    dure_model_shape own;
    dure_adapter_parts from;
    dure_err err = dure_adapter_gguf_parts(&from, &own, g, shape, diag);
    if (!err) err = dure_adapter_assemble(out, &from, shape ? shape : &own, diag);
    if (!err && notes) err = read_notes(notes, g, diag);
    if (err) dure_lora_free(out);
    free(from.parts);
    return err;
}

static dure_err read_and_close(dure_lora **out, dure_adapter_notes *notes, dure_gguf *g,
                               const dure_model_shape *shape, dure_diag *diag)
{
    dure_err err = read_adapter(out, notes, g, shape, diag);
    if (err && notes) dure_adapter_notes_fini(notes);
    dure_gguf_close(&g);
    return err;
}

dure_err dure_adapter_parse(dure_lora **out, dure_adapter_notes *notes, dure_span bytes,
                            const dure_model_shape *shape, dure_diag *diag)
{
    dure_gguf *g;
    *out = NULL;
    if (notes) *notes = (dure_adapter_notes){0};
    dure_err err = dure_gguf_parse(&g, bytes, &dure_adapter_gguf_limits, diag);
    return err ? err : read_and_close(out, notes, g, shape, diag);
}

dure_err dure_adapter_load(dure_lora **out, dure_adapter_notes *notes, const char *path,
                           const dure_model_shape *shape, dure_diag *diag)
{
    dure_gguf *g;
    *out = NULL;
    if (notes) *notes = (dure_adapter_notes){0};
    dure_err err = dure_gguf_open(&g, path, &dure_adapter_gguf_limits, diag);
    if (err) return err;
    err = read_and_close(out, notes, g, shape, diag);
    return err ? dure_diag_prefix(diag, err, "%s", path) : DURE_OK;
}

size_t dure_adapter_bytes_most(const dure_model_shape *shape)
{
    /* A, B and magnitudes, each with its entry and its padding. */
    const size_t n_tensors = 3 * (size_t)shape->n_layers * DURE_LORA_TARGETS;
    const size_t beside =
        dure_adapter_gguf_limits.max_key_bytes + dure_adapter_gguf_limits.max_alignment;
    return keys_bytes_most + n_tensors * beside + dure_lora_count_most(shape) * sizeof(float);
}
