#include "model/arch.h"

#include "kernels/compute.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_KEY = 160, MAX_PAIRS = 512 };

/* The number "gemma3.rope.NAME", or `absent`; it must be above 0. */
static dure_err read_positive(double *out, double absent, const dure_gguf *gguf,
                              const dure_model_shape *shape, const char *name, dure_diag *diag)
{
    char key[MAX_KEY];
    float value = 0;
    snprintf(key, sizeof key, "%s.rope.%s", shape->architecture, name);
    *out = absent;
    if (!dure_gguf_has(gguf, key)) return DURE_OK;
    dure_err err = dure_gguf_f32(&value, gguf, key, diag);
    if (!err && !(value > 0))
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "the key %s is not above 0", key);
    if (!err) *out = (double)value;
    return err;
}

typedef enum scaling { SCALING_NONE, SCALING_LINEAR, SCALING_YARN } scaling;

/* Without a type, a factor alone stretches linearly, as in llama.cpp. */
static dure_err read_scaling(scaling *out, const dure_gguf *gguf, const dure_model_shape *shape,
                             dure_diag *diag)
{
    char key[MAX_KEY], shown[128];
    dure_span text = {0};
    snprintf(key, sizeof key, "%s.rope.scaling.type", shape->architecture);
    *out = SCALING_LINEAR;
    if (!dure_gguf_has(gguf, key)) return DURE_OK;
    dure_err err = dure_gguf_text(&text, gguf, key, diag);
    if (err) return err;
    dure_gguf_print(shown, text);
    if (!strcmp(shown, "none"))
        *out = SCALING_NONE;
    else if (!strcmp(shown, "yarn"))
        *out = SCALING_YARN;
    else if (strcmp(shown, "linear") != 0)
        err = dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                            "%s '%s' is not supported; none, linear and yarn are", key, shown);
    return err;
}

/* With YaRN the vector grows by 1 + ln(stretch) / 10, and by a factor of the model's own. The
 * converter also keeps the factor of the original model, which includes that growth. */
static dure_err read_yarn(dure_rope_opts *out, const dure_gguf *gguf, const dure_model_shape *shape,
                          dure_diag *diag)
{
    double attention = 1, whole = 0, growth = 1 + 0.1 * log(out->stretch);
    dure_err err = read_positive(&out->yarn.fast, 32, gguf, shape, "scaling.yarn_beta_fast", diag);
    if (!err) err = read_positive(&out->yarn.slow, 1, gguf, shape, "scaling.yarn_beta_slow", diag);
    if (!err) err = read_positive(&attention, 1, gguf, shape, "scaling.attn_factor", diag);
    if (!err) err = read_positive(&whole, growth, gguf, shape, "scaling.yarn_attn_factor", diag);
    if (err) return err;
    if (out->stretch < 1 || fabs(whole - growth) > 1e-3)
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "%s.rope.scaling has the factor %g and the yarn_attn_factor %g, which "
                             "Dure does not support together",
                             shape->architecture, out->stretch, whole);
    out->magnitude = attention * growth;
    return DURE_OK;
}

static dure_err read_stretch(dure_rope_opts *out, const dure_gguf *gguf,
                             const dure_model_shape *shape, dure_diag *diag)
{
    scaling kind;
    char key[MAX_KEY];
    uint32_t context = shape->n_context;
    dure_err err = read_scaling(&kind, gguf, shape, diag);
    if (err || kind == SCALING_NONE) return err;
    err = read_positive(&out->stretch, 1, gguf, shape, "scale_linear", diag); /* its older name */
    if (!err) err = read_positive(&out->stretch, out->stretch, gguf, shape, "scaling.factor", diag);
    if (err || kind == SCALING_LINEAR) return err;
    snprintf(key, sizeof key, "%s.rope.scaling.original_context_length", shape->architecture);
    if (dure_gguf_has(gguf, key)) err = dure_gguf_u32(&context, gguf, key, diag);
    if (!err && context == 0) err = dure_diag_set(diag, DURE_ERR_FORMAT, "the key %s is 0", key);
    out->yarn.context = (double)context;
    return err ? err : read_yarn(out, gguf, shape, diag);
}

/* The divisors of Llama 3, one for each pair. */
static dure_err read_factors(float factors[MAX_PAIRS], const dure_gguf *gguf, size_t pairs,
                             dure_diag *diag)
{
    const dure_gguf_tensor *t = dure_gguf_find(gguf, "rope_freqs.weight");
    if (t->type != DURE_GGUF_F32 || t->dims[0] != pairs || t->bytes != pairs * sizeof *factors)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "the tensor rope_freqs.weight is not of %zu F32 elements", pairs);
    dure_cpu_ops_of(DURE_CPU_REFERENCE)->dequant(factors, t->data, pairs, t->type);
    for (size_t i = 0; i < pairs; i++)
        if (!(factors[i] > 0) || !isfinite(factors[i]))
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "the tensor rope_freqs.weight holds a factor that is not above 0");
    return DURE_OK;
}

dure_err dure_model_rope_read(dure_rope_table *out, const dure_gguf *gguf,
                              const dure_model_shape *shape, const dure_model_arch *arch,
                              bool sliding, dure_diag *diag)
{
    float factors[MAX_PAIRS];
    char key[MAX_KEY];
    uint32_t dim = shape->head_dim;
    dure_rope_opts opts = {.halves = arch->rope_halves};
    *out = (dure_rope_table){0};
    snprintf(key, sizeof key, "%s.rope.dimension_count", shape->architecture);
    dure_err err = DURE_OK;
    if (dure_gguf_has(gguf, key)) err = dure_gguf_u32(&dim, gguf, key, diag);
    if (!err && (dim == 0 || dim % 2 || dim > shape->head_dim || dim > 2 * MAX_PAIRS))
        err = dure_diag_set(diag, DURE_ERR_FORMAT, "the key %s is %u, with heads of %u", key, dim,
                            shape->head_dim);
    if (!err)
        err = read_positive(&opts.freq_base, 10000, gguf, shape,
                            sliding ? "freq_base_swa" : "freq_base", diag);
    if (!err && !sliding) err = read_stretch(&opts, gguf, shape, diag);
    if (!err && dure_gguf_find(gguf, "rope_freqs.weight")) {
        err = read_factors(factors, gguf, dim / 2, diag);
        opts.factors = factors;
    }
    if (err) return err;
    opts.dim = dim;
    return dure_rope_table_init(out, &opts);
}
