/* Runs the engine for tests/oracle/engine_parity.py, which compares it with PyTorch.
 *
 *   engine_oracle MODEL                             one line in, one line out:
 *       {"tokens": [...]}                        -> {"logprobs": [...]}
 *   engine_oracle MODEL RANK ALPHA LAYER PARAMS GRADIENTS [dora]
 *       all targets from LAYER on; PARAMS holds the whole vector as float32; for every line
 *       {"tokens": [...], "supervised": [...]} the gradient of both factors is appended to
 *       GRADIENTS as float32, and {"loss": x} printed. */
#include "common/file.h"
#include "model/transformer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct record {
    int32_t *tokens;
    uint8_t *supervised;
    size_t n;
} record;

static bool read_record(record *out, const char *line)
{
    json_t *value = json_loads(line, 0, NULL), *tokens = json_object_get(value, "tokens");
    json_t *supervised = json_object_get(value, "supervised");
    out->n = json_array_size(tokens);
    out->tokens = calloc(out->n + 1, sizeof *out->tokens);
    out->supervised = calloc(out->n + 1, 1);
    if (!out->tokens || !out->supervised) return false;
    for (size_t i = 0; i < out->n; i++) {
        out->tokens[i] = (int32_t)json_integer_value(json_array_get(tokens, i));
        out->supervised[i] = json_integer_value(json_array_get(supervised, i)) != 0;
    }
    json_decref(value);
    return out->n > 0;
}

static dure_err print_logprobs(dure_transformer *t, const record *r, dure_diag *diag)
{
    float *logprobs = calloc(r->n, sizeof *logprobs);
    if (!logprobs) return DURE_ERR_NOMEM;
    dure_err err = dure_transformer_logprobs(logprobs, t, NULL, r->tokens, r->n, diag);
    printf("{\"logprobs\": [");
    for (size_t i = 0; i < r->n; i++)
        printf("%s%.9g", i ? ", " : "", (double)logprobs[i]);
    printf("]}\n");
    free(logprobs);
    return err;
}

typedef struct writer {
    FILE *to;
    size_t n;
} writer;

static dure_err write_gradient(void *state, size_t doc, const float *gradient,
                               const dure_document_loss *loss)
{
    writer *w = state;
    (void)doc;
    if (!gradient || fwrite(gradient, sizeof *gradient, w->n, w->to) != w->n) return DURE_ERR_IO;
    printf("{\"loss\": %.12g}\n", loss->nll_sum / loss->n_labels);
    return DURE_OK;
}

static dure_err make_lora(dure_lora **out, const dure_transformer *t, char **argv, bool dora,
                          dure_diag *diag)
{
    dure_lora_layout layout = {.shape = *dure_transformer_shape(t),
                               .rank = (uint32_t)strtoul(argv[0], NULL, 10),
                               .alpha = strtof(argv[1], NULL),
                               .targets = (1u << DURE_LORA_TARGETS) - 1,
                               .first_layer = (uint32_t)strtoul(argv[2], NULL, 10),
                               .dora = dora};
    dure_buf params;
    dure_buf_init(&params, SIZE_MAX);
    dure_err err = dure_lora_layout_check(&layout, diag);
    if (!err) err = dure_lora_new(out, &layout);
    if (!err) err = dure_file_read(&params, argv[3], SIZE_MAX, diag);
    if (!err && params.n != (*out)->n * sizeof(float)) err = DURE_ERR_FORMAT;
    if (!err) memcpy((*out)->params, params.data, params.n);
    dure_buf_fini(&params);
    return err;
}

static dure_err run(dure_transformer *t, const dure_lora *lora, const char *path, dure_diag *diag)
{
    static char line[1 << 20];
    dure_gradient_opts opts = {.factors = DURE_LORA_FACTOR_BOTH};
    writer w = {.n = lora ? lora->n : 0};
    dure_err err = DURE_OK;
    if (lora) w.to = fopen(path, "wb");
    while (!err && fgets(line, sizeof line, stdin)) {
        record r = {0};
        dure_document doc;
        if (!read_record(&r, line)) err = DURE_ERR_FORMAT;
        doc = (dure_document){r.tokens, r.supervised, r.n};
        if (!err && lora)
            err = dure_transformer_gradients(t, lora, &opts, &doc, 1, write_gradient, &w, diag);
        else if (!err)
            err = print_logprobs(t, &r, diag);
        free(r.tokens);
        free(r.supervised);
    }
    if (w.to && fclose(w.to)) err = DURE_ERR_IO;
    return err;
}

int main(int argc, char **argv)
{
    dure_gguf *gguf = NULL;
    dure_transformer *t = NULL;
    dure_lora *lora = NULL;
    dure_diag diag = {{0}};
    bool dora = argc == 8 && !strcmp(argv[7], "dora"), trains = argc == 7 || dora;
    if (argc != 2 && !trains) return 2;
    dure_err err = dure_gguf_open(&gguf, argv[1], NULL, &diag);
    if (!err) err = dure_transformer_new(&t, gguf, &(dure_transformer_opts){0}, &diag);
    if (!err && trains) err = make_lora(&lora, t, argv + 2, dora, &diag);
    if (!err) fprintf(stderr, "engine: %s\n", dure_transformer_path(t));
    if (!err) err = run(t, lora, trains ? argv[6] : NULL, &diag);
    if (err) fprintf(stderr, "engine_oracle: %s: %s\n", dure_err_text(err), diag.text);
    dure_lora_free(&lora);
    dure_transformer_free(&t);
    dure_gguf_close(&gguf);
    return err ? 1 : 0;
}
