#include "model/shape.h"

#include "model/arch.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const target_names[DURE_LORA_TARGETS] = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
};

void dure_model_target_name(char name[64], uint32_t layer, dure_lora_target target)
{
    snprintf(name, 64, "blk.%u.%s.weight", layer, target_names[target]);
}

/* As dure_model_number(), with `absent` when there is no such key. */
static dure_err read_size_or(uint32_t *out, uint32_t absent, const dure_gguf *gguf,
                             const dure_model_shape *shape, const char *key, dure_diag *diag)
{
    char full[96];
    snprintf(full, sizeof full, "%s.%s", shape->architecture, key);
    *out = absent;
    return dure_gguf_has(gguf, full) ? dure_gguf_u32(out, gguf, full, diag) : DURE_OK;
}

static dure_err read_architecture(dure_model_shape *out, const dure_gguf *gguf, dure_diag *diag)
{
    dure_span text = {0};
    dure_err err = dure_gguf_text(&text, gguf, "general.architecture", diag);
    if (err) return err;
    char shown[128];
    dure_gguf_print(shown, text);
    if (!dure_model_arch_known(shown))
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the architecture '%s' is not supported; use a model of the "
                             "architecture llama (such as SmolLM2), qwen2, qwen3 or gemma3",
                             shown);
    memcpy(out->architecture, shown, strlen(shown) + 1); /* known ones are short */
    return DURE_OK;
}

static dure_err check_matrix(const dure_gguf *gguf, const char *name, uint64_t in, uint64_t out,
                             dure_diag *diag)
{
    const dure_gguf_tensor *tensor = dure_gguf_find(gguf, name);
    if (!tensor) return dure_diag_set(diag, DURE_ERR_FORMAT, "the tensor %s is missing", name);
    if (tensor->dims[0] != in || tensor->dims[1] != out || tensor->dims[2] != 1 ||
        tensor->dims[3] != 1)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the tensor %s is %llu x %llu, but the metadata ask for %llu x %llu",
                             name, (unsigned long long)tensor->dims[0],
                             (unsigned long long)tensor->dims[1], (unsigned long long)in,
                             (unsigned long long)out);
    return DURE_OK;
}

static dure_err check_vector(const dure_gguf *gguf, const char *name, uint32_t n, dure_diag *diag)
{
    const dure_gguf_tensor *tensor = dure_gguf_find(gguf, name);
    if (!tensor) return dure_diag_set(diag, DURE_ERR_FORMAT, "the tensor %s is missing", name);
    if (tensor->dims[0] != n || tensor->dims[1] != 1 || tensor->dims[2] != 1 ||
        tensor->dims[3] != 1)
        return dure_diag_set(
            diag, DURE_ERR_FORMAT, "the tensor %s has %llu x %llu elements, not %u", name,
            (unsigned long long)tensor->dims[0], (unsigned long long)tensor->dims[1], n);
    return DURE_OK;
}

/* Counts what the layers need, all of which is there when this succeeds. */
static dure_err check_layers(size_t *n_needed, const dure_model_shape *shape,
                             const dure_model_arch *arch, const dure_gguf *gguf, dure_diag *diag)
{
    char name[64];
    dure_err err = DURE_OK;
    for (uint32_t layer = 0; layer < shape->n_layers && !err; layer++) {
        for (int target = 0; target < DURE_LORA_TARGETS && !err; target++) {
            dure_lora_target which = (dure_lora_target)target;
            dure_model_target_name(name, layer, which);
            err = check_matrix(gguf, name, dure_lora_in(shape, which), dure_lora_out(shape, which),
                               diag);
            ++*n_needed;
        }
        for (int vector = 0; vector < DURE_MODEL_VECTORS && !err; vector++) {
            dure_model_vector which = (dure_model_vector)vector;
            uint32_t n = dure_model_vector_size(shape, arch, which);
            if (n == 0) continue;
            dure_model_vector_name(name, layer, which);
            err = check_vector(gguf, name, n, diag);
            ++*n_needed;
        }
    }
    return err;
}

/* Whether `name` is a tensor of one of the layers that check_layers() asked for. */
static bool is_of_a_layer(const char *name, const dure_model_shape *shape,
                          const dure_model_arch *arch)
{
    char wanted[64];
    unsigned long layer = strncmp(name, "blk.", 4) ? ULONG_MAX : strtoul(name + 4, NULL, 10);
    if (layer >= shape->n_layers) return false;
    for (int target = 0; target < DURE_LORA_TARGETS; target++) {
        dure_model_target_name(wanted, (uint32_t)layer, (dure_lora_target)target);
        if (!strcmp(name, wanted)) return true;
    }
    for (int vector = 0; vector < DURE_MODEL_VECTORS; vector++) {
        dure_model_vector_name(wanted, (uint32_t)layer, (dure_model_vector)vector);
        if (dure_model_vector_size(shape, arch, (dure_model_vector)vector) && !strcmp(name, wanted))
            return true;
    }
    return false;
}

/* A tensor that the engine would leave out changes the model's meaning: refused by name. */
static dure_err check_no_others(size_t n_needed, const dure_model_shape *shape,
                                const dure_model_arch *arch, const dure_gguf *gguf, dure_diag *diag)
{
    static const char *const global[] = {"token_embd.weight", "output_norm.weight", "output.weight",
                                         "rope_freqs.weight"};
    for (size_t k = 0; k < sizeof global / sizeof global[0]; k++)
        n_needed += dure_gguf_find(gguf, global[k]) != NULL;
    for (size_t i = 0; n_needed < dure_gguf_tensor_count(gguf); i++) {
        const dure_gguf_tensor *tensor = dure_gguf_tensor_at(gguf, i);
        bool known = is_of_a_layer(tensor->name, shape, arch);
        for (size_t k = 0; k < sizeof global / sizeof global[0] && !known; k++)
            known = !strcmp(tensor->name, global[k]);
        if (!known)
            return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                                 "the model has the tensor %s, which Dure does not support in the "
                                 "architecture %s",
                                 tensor->name, shape->architecture);
    }
    return DURE_OK;
}

static dure_err check_tensors(const dure_model_shape *shape, const dure_gguf *gguf, dure_diag *diag)
{
    dure_model_arch arch;
    size_t n_needed = 0;
    dure_err err = dure_model_arch_read(&arch, gguf, shape, diag);
    if (!err) err = check_matrix(gguf, "token_embd.weight", shape->n_embd, shape->n_vocab, diag);
    if (!err) err = check_vector(gguf, "output_norm.weight", shape->n_embd, diag);
    if (!err && dure_gguf_find(gguf, "output.weight"))
        err = check_matrix(gguf, "output.weight", shape->n_embd, shape->n_vocab, diag);
    if (!err) err = check_layers(&n_needed, shape, &arch, gguf, diag);
    return err ? err : check_no_others(n_needed, shape, &arch, gguf, diag);
}

static dure_err check_range(const char *what, uint32_t value, uint32_t most, dure_diag *diag)
{
    if (value >= 1 && value <= most) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_FORMAT, "the model's %s is %u, not from 1 to %u", what,
                         value, most);
}

/* bfloat16 is multiplied in pairs: the last element of an odd row would be paired with the first of
 * the next row, which is another record's. */
static dure_err check_even(const char *what, uint32_t value, dure_diag *diag)
{
    if (value % 2 == 0) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "the model's %s of %u is not supported; the number must be even", what,
                         value);
}

/* With these bounds heads * head_dim and rank * width stay far below 2^32. */
dure_err dure_model_shape_check(const dure_model_shape *shape, dure_diag *diag)
{
    dure_err err = check_range("number of layers", shape->n_layers, DURE_ARCH_MAX_LAYERS, diag);
    if (!err) err = check_range("embedding length", shape->n_embd, 65536, diag);
    if (!err) err = check_range("feed-forward length", shape->n_ff, 1 << 19, diag);
    if (!err) err = check_range("number of heads", shape->n_head, 1024, diag);
    if (!err) err = check_range("number of key heads", shape->n_head_kv, shape->n_head, diag);
    if (!err) err = check_range("head dimension", shape->head_dim, 1024, diag);
    if (!err) err = check_range("vocabulary", shape->n_vocab, 1 << 22, diag);
    if (!err) err = check_range("context length", shape->n_context, 1 << 24, diag);
    if (err) return err;
    if (shape->n_head % shape->n_head_kv)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "%u attention heads cannot share %u key heads evenly", shape->n_head,
                             shape->n_head_kv);
    err = check_even("embedding length", shape->n_embd, diag);
    if (!err) err = check_even("feed-forward length", shape->n_ff, diag);
    if (!err) err = check_even("head dimension", shape->head_dim, diag);
    return err;
}

/* Every token that the tokenizer can give needs its row in the embedding. */
static dure_err check_vocabulary(const dure_model_shape *shape, const dure_gguf *gguf,
                                 dure_diag *diag)
{
    size_t n = 0;
    if (!dure_gguf_has(gguf, "tokenizer.ggml.tokens")) return DURE_OK;
    dure_err err = dure_gguf_array(&n, gguf, "tokenizer.ggml.tokens", diag);
    if (!err && n > shape->n_vocab)
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "the vocabulary has %zu tokens, but token_embd.weight only %u rows", n,
                            shape->n_vocab);
    return err;
}

dure_err dure_model_shape_read(dure_model_shape *out, const dure_gguf *gguf, dure_diag *diag)
{
    dure_model_shape s = {0};
    dure_err err = read_architecture(&s, gguf, diag);
    if (!err) err = dure_model_number(&s.n_layers, gguf, "block_count", diag);
    if (!err) err = dure_model_number(&s.n_embd, gguf, "embedding_length", diag);
    if (!err) err = dure_model_number(&s.n_ff, gguf, "feed_forward_length", diag);
    if (!err) err = dure_model_number(&s.n_head, gguf, "attention.head_count", diag);
    if (!err) err = dure_model_number(&s.n_context, gguf, "context_length", diag);
    if (!err) err = read_size_or(&s.n_head_kv, s.n_head, gguf, &s, "attention.head_count_kv", diag);
    if (!err) err = check_range("number of heads", s.n_head, s.n_embd, diag);
    if (!err)
        err =
            read_size_or(&s.head_dim, s.n_embd / s.n_head, gguf, &s, "attention.key_length", diag);
    const dure_gguf_tensor *embedding = dure_gguf_find(gguf, "token_embd.weight");
    if (!err && !embedding)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "the tensor token_embd.weight is missing");
    if (err) return err;
    s.n_vocab = embedding->dims[1] > UINT32_MAX ? UINT32_MAX : (uint32_t)embedding->dims[1];
    err = dure_model_shape_check(&s, diag);
    if (!err) err = check_vocabulary(&s, gguf, diag);
    if (!err) err = check_tensors(&s, gguf, diag);
    if (!err) *out = s;
    return err;
}

uint64_t dure_model_parameters(const dure_gguf *gguf)
{
    uint64_t n = 0;
    for (size_t i = 0; i < dure_gguf_tensor_count(gguf); i++) {
        const uint64_t *dims = dure_gguf_tensor_at(gguf, i)->dims;
        n += dims[0] * dims[1] * dims[2] * dims[3];
    }
    return n;
}

bool dure_model_shape_equal(const dure_model_shape *a, const dure_model_shape *b)
{
    return !strcmp(a->architecture, b->architecture) && a->n_layers == b->n_layers &&
           a->n_embd == b->n_embd && a->n_ff == b->n_ff && a->n_head == b->n_head &&
           a->n_head_kv == b->n_head_kv && a->head_dim == b->head_dim && a->n_vocab == b->n_vocab &&
           a->n_context == b->n_context;
}
