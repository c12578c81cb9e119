#include "model/merge.h"

#include "kernels/compute.h"
#include "kernels/dequant.h"
#include "model/gguf_write.h"
#include "model/shape.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* general.file_type of llama.cpp: what most of the matrices are. */
enum { FILE_MOSTLY_F16 = 1, FILE_MOSTLY_Q8_0 = 7, Q8_BLOCK = 32 };

dure_err dure_merge_mode_parse(dure_merge_mode *out, const char *text, dure_diag *diag)
{
    if (!strcmp(text, "f16")) {
        *out = DURE_MERGE_F16;
        return DURE_OK;
    }
    if (!strcmp(text, "mixed")) {
        *out = DURE_MERGE_MIXED;
        return DURE_OK;
    }
    if (!strcmp(text, "same") || !strncmp(text, "q4", 2) || !strncmp(text, "Q4", 2))
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "merging back into the type of a 4-bit base is refused: rounding to "
                             "its grid erases 91 to 99 %% of an update below 3 %% of the weights; "
                             "use f16 or mixed, or serve the adapter unmerged");
    return dure_diag_set(diag, DURE_ERR_USAGE,
                         "the merge mode '%.32s' is unknown; use f16 or mixed", text);
}

void dure_merge_report_fini(dure_merge_report *report)
{
    if (!report) return;
    free(report->tensors);
    *report = (dure_merge_report){0};
}

/* Sums over one matrix, in double and in the order of its elements. */
typedef struct sums {
    double base;     /* |W|^2 */
    double update;   /* |D|^2 */
    double along;    /* <M - W, D> */
    double residual; /* |M - W - D|^2 */
} sums;

/* An adapted matrix of the base. */
typedef struct job {
    const dure_gguf_tensor *tensor; /* NULL: the tensor is copied */
    dure_lora_target target;
    const float *a, *b; /* A: rank x in, B: out x rank */
    const float *m;     /* DoRA's magnitudes, out; NULL: none */
    uint32_t to_type;
    sums sums;
} job;

typedef struct merging {
    const dure_gguf *base;
    const dure_lora *lora;
    job *jobs;                        /* one for each tensor of the base */
    float *weights, *update, *merged; /* one row each */
} merging;

static uint32_t type_after(dure_merge_mode mode, const dure_gguf_tensor *tensor)
{
    switch (tensor->type) {
    case DURE_GGUF_F32:
        return DURE_GGUF_F32;
    case DURE_GGUF_F16:
    case DURE_GGUF_BF16:
    case DURE_GGUF_Q8_0:
        return DURE_GGUF_F16; /* the same type would round the update away */
    default:
        break;
    }
    bool blocks = tensor->dims[0] % Q8_BLOCK == 0;
    return mode == DURE_MERGE_MIXED && blocks ? DURE_GGUF_Q8_0 : DURE_GGUF_F16;
}

static dure_err add_job(merging *m, uint32_t layer, dure_lora_target target, dure_merge_mode mode,
                        dure_diag *diag)
{
    size_t a = 0, b = 0, magnitude = 0, weights, bytes;
    const dure_lora_layout *layout = &m->lora->layout;
    bool dora = dure_lora_find_magnitude(&magnitude, layout, layer, target);
    if (!dure_lora_find(&a, layout, layer, target, DURE_LORA_FACTOR_A) ||
        !dure_lora_find(&b, layout, layer, target, DURE_LORA_FACTOR_B))
        return DURE_OK;
    char name[64];
    dure_model_target_name(name, layer, target);
    for (size_t i = 0; i < dure_gguf_tensor_count(m->base); i++) {
        const dure_gguf_tensor *tensor = dure_gguf_tensor_at(m->base, i);
        if (strcmp(tensor->name, name) != 0) continue;
        if (!dure_quant_block(&weights, &bytes, tensor->type))
            return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                                 "%s is of type %s, which Dure cannot decode", name,
                                 dure_gguf_type_name(tensor->type));
        m->jobs[i] = (job){.tensor = tensor,
                           .target = target,
                           .a = m->lora->params + a,
                           .b = m->lora->params + b,
                           .m = dora ? m->lora->params + magnitude : NULL,
                           .to_type = type_after(mode, tensor)};
        return DURE_OK;
    }
    return dure_diag_set(diag, DURE_ERR_STATE, "the base has no tensor %s", name);
}

static dure_err plan(merging *m, dure_merge_mode mode, dure_diag *diag)
{
    dure_model_shape shape;
    dure_err err = dure_model_shape_read(&shape, m->base, diag);
    if (!err) err = dure_gguf_check_finite(m->base, diag);
    if (!err && !dure_model_shape_equal(&shape, &m->lora->layout.shape))
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            "the adapter belongs to another base model: the sizes differ");
    if (err) return err;
    size_t longest = shape.n_ff;
    if (longest < shape.n_embd) longest = shape.n_embd;
    if (longest < shape.n_head * shape.head_dim) longest = shape.n_head * shape.head_dim;
    m->jobs = calloc(dure_gguf_tensor_count(m->base) + 1, sizeof *m->jobs);
    m->weights = malloc(longest * sizeof(float));
    m->update = malloc(longest * sizeof(float));
    m->merged = malloc(longest * sizeof(float));
    if (!m->jobs || !m->weights || !m->update || !m->merged) return DURE_ERR_NOMEM;
    for (uint32_t layer = 0; layer < shape.n_layers && !err; layer++)
        for (int target = 0; target < DURE_LORA_TARGETS && !err; target++)
            err = add_job(m, layer, (dure_lora_target)target, mode, diag);
    return err;
}

static void put_le16(uint8_t *out, uint16_t value)
{
    out[0] = (uint8_t)value;
    out[1] = (uint8_t)(value >> 8);
}

/* ggml's quantize_row_q8_0_ref: the scale from the largest magnitude, halves away from zero. */
static void encode_q8_0(uint8_t *out, const float *x, size_t n)
{
    for (size_t at = 0; at < n; at += Q8_BLOCK, out += 2 + Q8_BLOCK) {
        float most = 0;
        for (size_t i = 0; i < Q8_BLOCK; i++)
            most = fmaxf(most, fabsf(x[at + i]));
        float d = most / 127.0f, inverse = d > 1e-30f ? 1.0f / d : 0.0f;
        put_le16(out, dure_float_to_half(d));
        for (size_t i = 0; i < Q8_BLOCK; i++)
            out[2 + i] = (uint8_t)(int8_t)lrintf(roundf(x[at + i] * inverse));
    }
}

static void encode_row(uint8_t *out, const float *x, size_t n, uint32_t type)
{
    if (type == DURE_GGUF_Q8_0) {
        encode_q8_0(out, x, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        if (type == DURE_GGUF_F16) {
            put_le16(out + 2 * i, dure_float_to_half(x[i]));
        } else {
            put_le16(out + 4 * i, (uint16_t)bits);
            put_le16(out + 4 * i + 2, (uint16_t)(bits >> 16));
        }
    }
}

/* One row of D = s * B A. */
static void update_row(float *out, const dure_lora *lora, const job *j, uint64_t row, size_t n)
{
    uint32_t rank = dure_lora_rank(&lora->layout, j->target);
    float scale = dure_lora_scale(&lora->layout, j->target);
    memset(out, 0, n * sizeof *out);
    for (uint32_t r = 0; r < rank; r++) {
        float weight = scale * j->b[row * rank + r];
        const float *a = j->a + (size_t)r * n;
        for (size_t i = 0; i < n; i++)
            out[i] += weight * a[i];
    }
}

/* DoRA: the merged row gets the length that is its magnitude. */
static void stretch_row(merging *m, float magnitude, size_t n)
{
    double sum = 0;
    for (size_t k = 0; k < n; k++)
        sum += (double)m->merged[k] * (double)m->merged[k];
    double by = sum > 0 ? (double)magnitude / sqrt(sum) : 0;
    for (size_t k = 0; k < n; k++) {
        m->merged[k] = (float)((double)m->merged[k] * by);
        m->update[k] = m->merged[k] - m->weights[k];
    }
}

static dure_err add_sums(sums *to, const merging *m, size_t n, const char *name, dure_diag *diag)
{
    for (size_t i = 0; i < n; i++) {
        double w = (double)m->weights[i], d = (double)m->update[i],
               moved = (double)m->merged[i] - w;
        if (!isfinite(m->merged[i]))
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "%s: a merged weight is too large for the new type", name);
        to->base += w * w;
        to->update += d * d;
        to->along += moved * d;
        to->residual += (moved - d) * (moved - d);
    }
    return DURE_OK;
}

static dure_err make_row(void *state, size_t i, uint64_t row, uint8_t *out, dure_diag *diag)
{
    merging *m = state;
    job *j = &m->jobs[i];
    const dure_cpu_ops *ops = dure_cpu_ops_of(DURE_CPU_REFERENCE);
    size_t n = (size_t)j->tensor->dims[0], bytes = dure_quant_row_bytes(j->tensor->type, n);
    ops->dequant(m->weights, j->tensor->data + row * bytes, n, j->tensor->type);
    update_row(m->update, m->lora, j, row, n);
    for (size_t k = 0; k < n; k++)
        m->merged[k] = m->weights[k] + m->update[k];
    if (j->m) stretch_row(m, j->m[row], n);
    encode_row(out, m->merged, n, j->to_type);
    ops->dequant(m->merged, out, n, j->to_type);
    return add_sums(&j->sums, m, n, j->tensor->name, diag);
}

static void put_keys(dure_gguf_writer *w, const dure_gguf *base, const dure_merge_opts *opts)
{
    static const char *const replaced[] = {"general.alignment", "general.file_type",
                                           "dure.merge.mode", "dure.merge.base.sha256",
                                           "dure.merge.adapter.sha256"};
    for (size_t i = 0; i < dure_gguf_key_count(base); i++) {
        char value[128];
        const char *key = dure_gguf_key_at(value, base, i);
        bool skip = !strncmp(key, "split.", 6); /* the merged model is one file */
        for (size_t k = 0; k < sizeof replaced / sizeof replaced[0]; k++)
            skip = skip || !strcmp(key, replaced[k]);
        if (!skip) dure_gguf_put_copy(w, base, i);
    }
    bool f16 = opts->mode == DURE_MERGE_F16;
    dure_gguf_put_u32(w, "general.file_type", f16 ? FILE_MOSTLY_F16 : FILE_MOSTLY_Q8_0);
    dure_gguf_put_text(w, "dure.merge.mode", dure_span_of_text(f16 ? "f16" : "mixed"));
    if (opts->base_digest)
        dure_gguf_put_text(w, "dure.merge.base.sha256", dure_span_of_text(opts->base_digest));
    if (opts->adapter_digest)
        dure_gguf_put_text(w, "dure.merge.adapter.sha256", dure_span_of_text(opts->adapter_digest));
}

static void put_tensors(dure_gguf_writer *w, const merging *m)
{
    for (size_t i = 0; i < dure_gguf_tensor_count(m->base); i++) {
        dure_gguf_tensor tensor = *dure_gguf_tensor_at(m->base, i);
        if (m->jobs[i].tensor) {
            tensor.type = m->jobs[i].to_type;
            tensor.data = NULL;
        }
        dure_gguf_put_tensor(w, &tensor);
    }
}

/* An update of zero is kept whole. */
static double ratio(double above, double below, double without)
{
    return below > 0 ? above / below : without;
}

static dure_err make_report(dure_merge_report *out, const merging *m)
{
    size_t n = dure_gguf_tensor_count(m->base);
    sums all = {0};
    out->tensors = calloc(n + 1, sizeof *out->tensors);
    if (!out->tensors) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const job *j = &m->jobs[i];
        if (!j->tensor) continue;
        dure_merge_fidelity *f = &out->tensors[out->n++];
        *f = (dure_merge_fidelity){.from_type = j->tensor->type,
                                   .to_type = j->to_type,
                                   .relative_size = sqrt(ratio(j->sums.update, j->sums.base, 0)),
                                   .gain = ratio(j->sums.along, j->sums.update, 1),
                                   .relative_error =
                                       sqrt(ratio(j->sums.residual, j->sums.update, 0))};
        memcpy(f->tensor, j->tensor->name, strlen(j->tensor->name) + 1);
        all.update += j->sums.update;
        all.along += j->sums.along;
        all.residual += j->sums.residual;
    }
    out->gain = ratio(all.along, all.update, 1);
    out->relative_error = sqrt(ratio(all.residual, all.update, 0));
    return DURE_OK;
}

dure_err dure_merge_save(dure_merge_report *out, const char *path, const dure_gguf *base,
                         const dure_lora *lora, const dure_merge_opts *opts, dure_diag *diag)
{
    *out = (dure_merge_report){0};
    merging m = {.base = base, .lora = lora};
    dure_gguf_writer *w = NULL;
    dure_err err = plan(&m, opts->mode, diag);
    if (!err) err = dure_gguf_writer_new(&w);
    if (err) goto out;
    put_keys(w, base, opts);
    put_tensors(w, &m);
    err = dure_gguf_writer_save(w, path, make_row, &m, diag);
    if (!err) err = make_report(out, &m);
out:
    dure_gguf_writer_free(&w);
    free(m.jobs);
    free(m.weights);
    free(m.update);
    free(m.merged);
    return err;
}
