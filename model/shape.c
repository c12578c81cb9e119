#include "model/shape.h"

#include <stdio.h>
#include <string.h>

static const char *const target_names[DURE_LORA_TARGETS] = {
    "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down",
};

void dure_model_target_name(char name[64], uint32_t layer, dure_lora_target target)
{
    snprintf(name, 64, "blk.%u.%s.weight", layer, target_names[target]);
}

/* The number `llama`.`key`; its range is checked with the whole shape. */
static dure_err read_size(uint32_t *out, const dure_gguf *gguf, const char *key, dure_diag *diag)
{
    char full[96];
    snprintf(full, sizeof full, "llama.%s", key);
    return dure_gguf_u32(out, gguf, full, diag);
}

/* As read_size, with `absent` when there is no such key. */
static dure_err read_size_or(uint32_t *out, uint32_t absent, const dure_gguf *gguf, const char *key,
                             dure_diag *diag)
{
    char full[96];
    snprintf(full, sizeof full, "llama.%s", key);
    *out = absent;
    return dure_gguf_has(gguf, full) ? read_size(out, gguf, key, diag) : DURE_OK;
}

static dure_err read_architecture(dure_model_shape *out, const dure_gguf *gguf, dure_diag *diag)
{
    dure_span text = {0};
    dure_err err = dure_gguf_text(&text, gguf, "general.architecture", diag);
    if (err) return err;
    char shown[128];
    dure_gguf_print(shown, text);
    if (strcmp(shown, "llama") != 0)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the architecture '%s' is not supported; use a model of the "
                             "architecture 'llama', such as SmolLM2",
                             shown);
    memcpy(out->architecture, "llama", sizeof "llama");
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

static dure_err check_layers(const dure_model_shape *shape, const dure_gguf *gguf, dure_diag *diag)
{
    for (uint32_t layer = 0; layer < shape->n_layers; layer++) {
        for (int target = 0; target < DURE_LORA_TARGETS; target++) {
            char name[64];
            dure_lora_target which = (dure_lora_target)target;
            dure_model_target_name(name, layer, which);
            dure_err err = check_matrix(gguf, name, dure_lora_in(shape, which),
                                        dure_lora_out(shape, which), diag);
            if (err) return err;
        }
    }
    return DURE_OK;
}

static dure_err check_range(const char *what, uint32_t value, uint32_t most, dure_diag *diag)
{
    if (value >= 1 && value <= most) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_FORMAT, "the model's %s is %u, not from 1 to %u", what,
                         value, most);
}

/* With these bounds heads * head_dim and rank * width stay far below 2^32. */
dure_err dure_model_shape_check(const dure_model_shape *shape, dure_diag *diag)
{
    dure_err err = check_range("number of layers", shape->n_layers, 1024, diag);
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
    if (shape->head_dim % 2)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "heads of %u dimensions are not supported; the number must be even",
                             shape->head_dim);
    return DURE_OK;
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
    if (!err) err = read_size(&s.n_layers, gguf, "block_count", diag);
    if (!err) err = read_size(&s.n_embd, gguf, "embedding_length", diag);
    if (!err) err = read_size(&s.n_ff, gguf, "feed_forward_length", diag);
    if (!err) err = read_size(&s.n_head, gguf, "attention.head_count", diag);
    if (!err) err = read_size(&s.n_context, gguf, "context_length", diag);
    if (!err) err = read_size_or(&s.n_head_kv, s.n_head, gguf, "attention.head_count_kv", diag);
    if (err) return err;
    err = check_range("number of heads", s.n_head, s.n_embd, diag);
    if (!err)
        err = read_size_or(&s.head_dim, s.n_embd / s.n_head, gguf, "attention.key_length", diag);
    const dure_gguf_tensor *embedding = dure_gguf_find(gguf, "token_embd.weight");
    if (!err && !embedding)
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "the tensor token_embd.weight is missing");
    if (err) return err;
    s.n_vocab = embedding->dims[1] > UINT32_MAX ? UINT32_MAX : (uint32_t)embedding->dims[1];
    err = dure_model_shape_check(&s, diag);
    if (err) return err;
    err = check_matrix(gguf, "token_embd.weight", s.n_embd, s.n_vocab, diag);
    if (!err) err = check_vocabulary(&s, gguf, diag);
    if (!err) err = check_layers(&s, gguf, diag);
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
