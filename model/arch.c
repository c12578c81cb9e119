#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_KEY = 160, DEFAULT_PERIOD = 6 };

typedef struct row {
    const char *name;
    bool interleaves; /* what the converter does to q and k; the rotation follows from it */
    bool qkv_bias, qk_norm, gemma;
} row;

static const row rows[] = {
    {.name = "llama", .interleaves = true},
    {.name = "qwen2", .qkv_bias = true},
    {.name = "qwen3", .qk_norm = true},
    {.name = "gemma3", .qk_norm = true, .gemma = true},
};

static const row *find_row(const char *name)
{
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (!strcmp(rows[i].name, name)) return &rows[i];
    return NULL;
}

bool dure_model_arch_known(const char *name)
{
    return find_row(name) != NULL;
}

bool dure_model_arch_interleaves(const char *name)
{
    const row *r = find_row(name);
    return r && r->interleaves;
}

bool dure_model_arch_slides(const dure_model_arch *arch, uint32_t layer)
{
    return layer < DURE_ARCH_MAX_LAYERS && (arch->sliding[layer / 8] >> layer % 8 & 1);
}

/* "gemma3.attention.key_length". The architecture's name has at most 31 bytes. */
static const char *full_key(char key[MAX_KEY], const dure_model_shape *shape, const char *name)
{
    snprintf(key, MAX_KEY, "%s.%s", shape->architecture, name);
    return key;
}

static dure_err read_u32_or(uint32_t *out, uint32_t absent, const dure_gguf *gguf,
                            const dure_model_shape *shape, const char *name, dure_diag *diag)
{
    char key[MAX_KEY];
    *out = absent;
    return dure_gguf_has(gguf, full_key(key, shape, name)) ? dure_gguf_u32(out, gguf, key, diag)
                                                           : DURE_OK;
}

static dure_err read_f32_or(double *out, double absent, const dure_gguf *gguf,
                            const dure_model_shape *shape, const char *name, dure_diag *diag)
{
    char key[MAX_KEY];
    float value = 0;
    *out = absent;
    if (!dure_gguf_has(gguf, full_key(key, shape, name))) return DURE_OK;
    dure_err err = dure_gguf_f32(&value, gguf, key, diag);
    if (!err) *out = (double)value;
    return err;
}

dure_err dure_model_number(uint32_t *out, const dure_gguf *gguf, const char *key, dure_diag *diag)
{
    char full[MAX_KEY];
    dure_span text = {0};
    dure_err err = dure_gguf_text(&text, gguf, "general.architecture", diag);
    if (err) return err;
    snprintf(full, sizeof full, "%.*s.%s", (int)(text.n < 32 ? text.n : 32),
             (const char *)text.data, key);
    return dure_gguf_u32(out, gguf, full, diag);
}

/* Keys that change the result and that the engine does not follow. Each is fine when it is absent
 * or has the neutral value. */
static dure_err check_neutral(const dure_gguf *gguf, const dure_model_shape *shape, dure_diag *diag)
{
    static const struct {
        const char *name;
        double neutral;
    } keys[] = {
        {"attention.scale", 0},
        {"attention.clamp_kqv", 0},
        {"attn_logit_softcapping", 0},
        {"final_logit_softcapping", 0},
        {"embedding_scale", 0},
        {"residual_scale", 0},
        {"logit_scale", 0},
        {"rope.scaling.yarn_log_multiplier", 0},
        {"rope.scaling.yarn_ext_factor", 1},
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        double value = 0;
        dure_err err = read_f32_or(&value, keys[i].neutral, gguf, shape, keys[i].name, diag);
        if (err) return err;
        if (value < keys[i].neutral || value > keys[i].neutral)
            return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                                 "the key %s.%s is %g, which Dure does not support",
                                 shape->architecture, keys[i].name, value);
    }
    char key[MAX_KEY];
    bool causal = true;
    if (!dure_gguf_has(gguf, full_key(key, shape, "attention.causal"))) return DURE_OK;
    dure_err err = dure_gguf_bool(&causal, gguf, key, diag);
    if (!err && !causal)
        err = dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                            "the model's attention is not causal, which Dure does not support");
    return err;
}

/* Which layers slide: a list of them, or every one but each PERIOD-th. */
static dure_err read_pattern(dure_model_arch *out, const dure_gguf *gguf,
                             const dure_model_shape *shape, dure_diag *diag)
{
    char key[MAX_KEY];
    size_t n = 0;
    uint32_t period = DEFAULT_PERIOD;
    bool slides = false;
    full_key(key, shape, "attention.sliding_window_pattern");
    bool listed = dure_gguf_array(&n, gguf, key, NULL) == DURE_OK;
    dure_err err = DURE_OK;
    if (listed && n < shape->n_layers)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "the key %s has %zu elements for %u layers",
                             key, n, shape->n_layers);
    if (!listed)
        err = read_u32_or(&period, DEFAULT_PERIOD, gguf, shape, "attention.sliding_window_pattern",
                          diag);
    for (uint32_t layer = 0; layer < shape->n_layers && !err; layer++) {
        if (listed)
            err = dure_gguf_array_bool(&slides, gguf, key, layer, diag);
        else
            slides = period == 0 || layer % period < period - 1;
        if (slides) out->sliding[layer / 8] |= (uint8_t)(1u << layer % 8);
    }
    return err;
}

static dure_err read_window(dure_model_arch *out, const dure_gguf *gguf,
                            const dure_model_shape *shape, dure_diag *diag)
{
    const row *r = find_row(shape->architecture);
    dure_err err = read_u32_or(&out->window, 0, gguf, shape, "attention.sliding_window", diag);
    if (err || out->window == 0) return err;
    if (!r->gemma)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "the key %s.attention.sliding_window is %u; Dure supports a sliding "
                             "window in gemma3 alone",
                             shape->architecture, out->window);
    return read_pattern(out, gguf, shape, diag);
}

dure_err dure_model_arch_read(dure_model_arch *out, const dure_gguf *gguf,
                              const dure_model_shape *shape, dure_diag *diag)
{
    const row *r = find_row(shape->architecture);
    uint32_t value_length = 0;
    double eps = 0;
    DURE_ASSERT(r && shape->n_layers <= DURE_ARCH_MAX_LAYERS);
    dure_model_arch a = {
        .rope_halves = !r->interleaves,
        .qkv_bias = r->qkv_bias,
        .qk_norm = r->qk_norm,
        .post_norms = r->gemma,
        .activation = r->gemma ? DURE_ACTIVATION_GELU : DURE_ACTIVATION_SILU,
        .embedding_scale = r->gemma ? sqrtf((float)shape->n_embd) : 1.0f,
    };
    /* Gemma 3 27B alone scales by the width that its heads would have. */
    uint32_t scaled_by =
        r->gemma && shape->n_layers == 62 ? shape->n_embd / shape->n_head : shape->head_dim;
    a.attention_scale = 1.0f / sqrtf((float)scaled_by);
    dure_err err = read_f32_or(&eps, 0, gguf, shape, "attention.layer_norm_rms_epsilon", diag);
    if (!err && !(eps > 0 && eps < 1))
        err = dure_diag_set(diag, DURE_ERR_FORMAT,
                            "the key %s.attention.layer_norm_rms_epsilon is missing or not "
                            "between 0 and 1",
                            shape->architecture);
    a.norm_eps = (float)eps;
    if (!err)
        err = read_u32_or(&value_length, shape->head_dim, gguf, shape, "attention.value_length",
                          diag);
    if (!err && value_length != shape->head_dim)
        err = dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                            "keys of %u elements and values of %u are not supported; they must be "
                            "of one length",
                            shape->head_dim, value_length);
    if (!err) err = check_neutral(gguf, shape, diag);
    if (!err) err = read_window(&a, gguf, shape, diag);
    if (!err) *out = a;
    return err;
}

static const char *const vector_names[DURE_MODEL_VECTORS] = {
    [DURE_VECTOR_ATTN_NORM] = "attn_norm.weight",
    [DURE_VECTOR_FFN_NORM] = "ffn_norm.weight",
    [DURE_VECTOR_Q_BIAS] = "attn_q.bias",
    [DURE_VECTOR_K_BIAS] = "attn_k.bias",
    [DURE_VECTOR_V_BIAS] = "attn_v.bias",
    [DURE_VECTOR_Q_NORM] = "attn_q_norm.weight",
    [DURE_VECTOR_K_NORM] = "attn_k_norm.weight",
    [DURE_VECTOR_POST_ATTN_NORM] = "post_attention_norm.weight",
    [DURE_VECTOR_POST_FFN_NORM] = "post_ffw_norm.weight",
};

uint32_t dure_model_vector_size(const dure_model_shape *shape, const dure_model_arch *arch,
                                dure_model_vector vector)
{
    switch (vector) {
    case DURE_VECTOR_ATTN_NORM:
    case DURE_VECTOR_FFN_NORM:
        return shape->n_embd;
    case DURE_VECTOR_Q_BIAS:
        return arch->qkv_bias ? shape->n_head * shape->head_dim : 0;
    case DURE_VECTOR_K_BIAS:
    case DURE_VECTOR_V_BIAS:
        return arch->qkv_bias ? shape->n_head_kv * shape->head_dim : 0;
    case DURE_VECTOR_Q_NORM:
    case DURE_VECTOR_K_NORM:
        return arch->qk_norm ? shape->head_dim : 0;
    default:
        return arch->post_norms ? shape->n_embd : 0;
    }
}

void dure_model_vector_name(char name[64], uint32_t layer, dure_model_vector vector)
{
    snprintf(name, 64, "blk.%u.%s", layer, vector_names[vector]);
}
