/* Writes one adapter in every form for tests/oracle/adapter_parity.py, which loads the files with
 * PEFT and llama.cpp and compares them with the engine.
 *
 *   adapter_oracle MODEL FOLDER
 *
 * makes FOLDER/adapter.gguf, FOLDER/peft/, FOLDER/f16.gguf, FOLDER/mixed.gguf and FOLDER/f32.gguf
 * (the base, decoded); then for every line {"tokens": [...]} of stdin prints {"base": [...],
 * "adapted": [...], "merged": [...]}: the engine's log-probabilities of the base, of the base with
 * the adapter, and of f16.gguf. */
#include "common/file.h"
#include "kernels/compute.h"
#include "kernels/dequant.h"
#include "model/adapter_file.h"
#include "model/gguf_write.h"
#include "model/merge.h"
#include "model/transformer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 4096, FIRST_LAYER = 10, RANK = 8 };

/* A as for training; B so that the update is a few per cent of the weights. */
static dure_err make_adapter(dure_lora **out, const dure_model_shape *shape)
{
    dure_lora_layout layout = {.shape = *shape,
                               .rank = RANK,
                               .alpha = 16,
                               .targets = (1u << DURE_LORA_TARGETS) - 1,
                               .first_layer = FIRST_LAYER < shape->n_layers ? FIRST_LAYER : 0};
    dure_err err = dure_lora_new(out, &layout);
    if (err) return err;
    dure_lora_init_uniform(*out, 1);
    size_t n = dure_lora_count(&layout, DURE_LORA_FACTOR_B);
    float *b = malloc(n * sizeof *b);
    if (!b) return DURE_ERR_NOMEM;
    uint32_t random = 1;
    for (size_t i = 0; i < n; i++) {
        random = random * 1664525u + 1013904223u;
        b[i] = 0.04f * ((float)(random >> 8) / 16777216.0f - 0.5f);
    }
    dure_lora_unpack(*out, b, DURE_LORA_FACTOR_B);
    free(b);
    return DURE_OK;
}

static dure_err decode_row(void *state, size_t tensor, uint64_t row, uint8_t *out, dure_diag *diag)
{
    const dure_gguf_tensor *t = dure_gguf_tensor_at(state, tensor);
    (void)diag;
    size_t n = (size_t)t->dims[0], bytes = dure_quant_row_bytes(t->type, n);
    float *row_values = malloc(n * sizeof *row_values);
    if (!row_values) return DURE_ERR_NOMEM;
    dure_cpu_ops_of(DURE_CPU_REFERENCE)->dequant(row_values, t->data + row * bytes, n, t->type);
    memcpy(out, row_values, n * sizeof *row_values);
    free(row_values);
    return DURE_OK;
}

static dure_err save_f32(const char *path, dure_gguf *base, dure_diag *diag)
{
    dure_gguf_writer *w = NULL;
    dure_err err = dure_gguf_writer_new(&w);
    if (err) return err;
    for (size_t i = 0; i < dure_gguf_key_count(base); i++) {
        char value[128];
        const char *key = dure_gguf_key_at(value, base, i);
        if (strcmp(key, "general.file_type") != 0) dure_gguf_put_copy(w, base, i);
    }
    dure_gguf_put_u32(w, "general.file_type", 0);
    for (size_t i = 0; i < dure_gguf_tensor_count(base); i++) {
        dure_gguf_tensor t = *dure_gguf_tensor_at(base, i);
        t.type = DURE_GGUF_F32;
        t.data = NULL;
        dure_gguf_put_tensor(w, &t);
    }
    err = dure_gguf_writer_save(w, path, decode_row, base, diag);
    dure_gguf_writer_free(&w);
    return err;
}

static dure_err save_merged(const char *path, const dure_gguf *base, const dure_lora *lora,
                            dure_merge_mode mode, dure_diag *diag)
{
    dure_merge_report report;
    dure_merge_opts opts = {.mode = mode};
    dure_err err = dure_merge_save(&report, path, base, lora, &opts, diag);
    if (!err)
        fprintf(stderr, "merge %s: gain %.6f, relative error %.4f over %zu matrices\n",
                mode == DURE_MERGE_F16 ? "f16" : "mixed", report.gain, report.relative_error,
                report.n);
    dure_merge_report_fini(&report);
    return err;
}

static dure_err save_all(const char *folder, dure_gguf *base, const dure_lora *lora,
                         dure_diag *diag)
{
    static const char *const names[] = {"adapter.gguf", "peft", "f16.gguf", "mixed.gguf",
                                        "f32.gguf"};
    char *paths[5] = {0};
    dure_err err = dure_dir_make(folder, diag);
    for (int i = 0; i < 5; i++)
        if (!(paths[i] = dure_path_join(folder, names[i]))) err = DURE_ERR_NOMEM;
    if (!err) err = dure_adapter_save(paths[0], lora, NULL, diag);
    if (!err) err = dure_adapter_save_peft(paths[1], lora, "base", NULL, diag);
    if (!err) err = save_merged(paths[2], base, lora, DURE_MERGE_F16, diag);
    if (!err) err = save_merged(paths[3], base, lora, DURE_MERGE_MIXED, diag);
    if (!err) err = save_f32(paths[4], base, diag);
    for (int i = 0; i < 5; i++)
        free(paths[i]);
    return err;
}

static dure_err print_logprobs(const char *name, dure_transformer *t, const dure_lora *lora,
                               const int32_t *tokens, size_t n, dure_diag *diag)
{
    static float logprobs[MAX_TOKENS];
    dure_err err = dure_transformer_logprobs(logprobs, t, lora, tokens, n, diag);
    printf("\"%s\": [", name);
    for (size_t i = 0; i < n; i++)
        printf("%s%.9g", i ? ", " : "", (double)logprobs[i]);
    printf("]");
    return err;
}

typedef struct engines {
    dure_gguf *base, *merged;
    dure_transformer *of_base, *of_merged;
    dure_lora *lora;
} engines;

static dure_err answer(const engines *e, const char *line, dure_diag *diag)
{
    static int32_t ids[MAX_TOKENS];
    json_t *value = json_loads(line, 0, NULL), *tokens = json_object_get(value, "tokens");
    size_t n = json_array_size(tokens);
    if (n == 0 || n > MAX_TOKENS) return DURE_ERR_LIMIT;
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
    json_decref(value);
    printf("{");
    dure_err err = print_logprobs("base", e->of_base, NULL, ids, n, diag);
    printf(", ");
    if (!err) err = print_logprobs("adapted", e->of_base, e->lora, ids, n, diag);
    printf(", ");
    if (!err) err = print_logprobs("merged", e->of_merged, NULL, ids, n, diag);
    printf("}\n");
    return err;
}

static dure_err prepare(engines *e, const char *model, const char *folder, dure_diag *diag)
{
    const dure_transformer_opts opts = {.precision = DURE_PRECISION_F32};
    char *merged = dure_path_join(folder, "f16.gguf");
    dure_err err = merged ? dure_gguf_open(&e->base, model, NULL, diag) : DURE_ERR_NOMEM;
    if (!err) err = dure_transformer_new(&e->of_base, e->base, &opts, diag);
    if (!err) err = make_adapter(&e->lora, dure_transformer_shape(e->of_base));
    if (!err) err = save_all(folder, e->base, e->lora, diag);
    if (!err) err = dure_gguf_open(&e->merged, merged, NULL, diag);
    if (!err) err = dure_transformer_new(&e->of_merged, e->merged, &opts, diag);
    free(merged);
    return err;
}

int main(int argc, char **argv)
{
    static char line[1 << 20];
    engines e = {0};
    dure_diag diag = {{0}};
    if (argc != 3) return 2;
    dure_err err = prepare(&e, argv[1], argv[2], &diag);
    while (!err && fgets(line, sizeof line, stdin))
        err = answer(&e, line, &diag);
    if (err) fprintf(stderr, "adapter_oracle: %s: %s\n", dure_err_text(err), diag.text);
    dure_lora_free(&e.lora);
    dure_transformer_free(&e.of_base);
    dure_transformer_free(&e.of_merged);
    dure_gguf_close(&e.base);
    dure_gguf_close(&e.merged);
    return err ? 1 : 0;
}
