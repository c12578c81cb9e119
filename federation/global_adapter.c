#include "federation/global_adapter.h"

#include "crypto/wipe.h"
#include "federation/server_step.h"
#include "model/adapter_file.h"

#include <stdio.h>
#include <stdlib.h>

dure_err dure_global_adapter_layout(dure_lora_layout *out, const dure_terms *terms, dure_diag *diag)
{
    const dure_base *b = &terms->base;
    *out = (dure_lora_layout){.shape = {.n_layers = b->n_layers,
                                        .n_embd = b->n_embd,
                                        .n_ff = b->n_ff,
                                        .n_head = b->n_head,
                                        .n_head_kv = b->n_head_kv,
                                        .head_dim = b->head_dim,
                                        .n_vocab = b->n_vocab,
                                        .n_context = b->n_context},
                              .rank = terms->layout.rank,
                              .alpha = (float)terms->layout.alpha,
                              .targets = terms->layout.targets,
                              .first_layer = terms->layout.first_layer};
    snprintf(out->shape.architecture, sizeof out->shape.architecture, "%s", b->architecture);
    dure_err err = dure_lora_layout_check(out, diag);
    if (err) return err;
    if (dure_lora_count(out, DURE_LORA_FACTOR_B) != terms->layout.n_active ||
        dure_lora_count(out, DURE_LORA_FACTOR_BOTH) != terms->layout.n_params)
        return dure_diag_set(diag, DURE_ERR_STATE,
                             "the terms' adapter.trained and adapter.parameters do not follow from "
                             "its layout");
    return DURE_OK;
}

dure_err dure_global_adapter_encode(dure_buf *out, const dure_lora *lora, const dure_terms *terms,
                                    dure_diag *diag)
{
    dure_adapter_notes notes = {.texts = NULL};
    dure_buf_init(out, SIZE_MAX / 2);
    dure_hex_encode(notes.base_digest, terms->base.digest.b, sizeof terms->base.digest.b);
    dure_err err = dure_adapter_encode(out, lora, &notes, diag);
    if (err) dure_buf_fini(out);
    return err;
}

dure_err dure_global_adapter_first(dure_buf *out, const dure_terms *terms, dure_diag *diag)
{
    dure_lora_layout layout;
    dure_lora *lora = NULL;
    *out = (dure_buf){0};
    dure_err err = dure_global_adapter_layout(&layout, terms, diag);
    if (!err) err = dure_lora_new(&lora, &layout);
    if (!err) {
        dure_lora_init_orthonormal(lora, terms->layout.seed);
        err = dure_global_adapter_encode(out, lora, terms, diag);
    }
    dure_lora_free(&lora);
    return err;
}

dure_err dure_global_adapter_step(dure_lora *lora, const dure_terms *terms, const int32_t *sum,
                                  uint32_t n_sites, dure_diag *diag)
{
    const size_t n = (size_t)terms->layout.n_active;
    const dure_server_step step = {
        .grid = terms->grid, .n_sites = n_sites, .rate = terms->training.server_rate};
    float *b = malloc(n * sizeof *b);
    if (!b) return DURE_ERR_NOMEM;
    dure_lora_pack(b, lora, DURE_LORA_FACTOR_B);
    dure_err err = dure_server_step_apply(b, b, sum, n, &step, diag);
    if (!err) dure_lora_unpack(lora, b, DURE_LORA_FACTOR_B);
    free(b);
    return err;
}

dure_err dure_global_adapter_parse(dure_lora **out, const dure_terms *terms, dure_span file,
                                   dure_diag *diag)
{
    dure_lora_layout layout;
    *out = NULL;
    dure_err err = dure_global_adapter_layout(&layout, terms, diag);
    if (!err) err = dure_adapter_parse(out, NULL, file, &layout.shape, diag);
    if (!err && !dure_lora_layout_equal(&(*out)->layout, &layout)) {
        dure_lora_free(out);
        err = dure_diag_set(diag, DURE_ERR_STATE,
                            "the global adapter's layout is not the federation's");
    }
    return err;
}

static dure_err compare_frozen(const dure_lora *lora, const dure_terms *terms, dure_diag *diag)
{
    const size_t n = dure_lora_count(&lora->layout, DURE_LORA_FACTOR_A);
    dure_lora *want = NULL;
    float *a = malloc(2 * n * sizeof *a);
    dure_err err = a ? dure_lora_new(&want, &lora->layout) : DURE_ERR_NOMEM;
    if (!err) {
        dure_lora_init_orthonormal(want, terms->layout.seed);
        dure_lora_pack(a, want, DURE_LORA_FACTOR_A);
        dure_lora_pack(a + n, lora, DURE_LORA_FACTOR_A);
        if (!dure_ct_equal(a, a + n, n * sizeof *a))
            err = dure_diag_set(diag, DURE_ERR_AUTH,
                                "the global adapter's factor A is not the one that the "
                                "federation's root signed");
    }
    dure_lora_free(&want);
    free(a);
    return err;
}

dure_err dure_global_adapter_check(const dure_terms *terms, dure_span file, dure_diag *diag)
{
    dure_lora *lora = NULL;
    dure_err err = dure_global_adapter_parse(&lora, terms, file, diag);
    if (!err) err = compare_frozen(lora, terms, diag);
    dure_lora_free(&lora);
    return err;
}

dure_err dure_global_adapter_next(dure_buf *out, const dure_terms *terms, dure_span present,
                                  const int32_t *sum, uint32_t n_sites, dure_diag *diag)
{
    dure_lora *lora = NULL;
    *out = (dure_buf){0};
    dure_err err = dure_global_adapter_parse(&lora, terms, present, diag);
    if (!err) err = dure_global_adapter_step(lora, terms, sum, n_sites, diag);
    if (!err) err = dure_global_adapter_encode(out, lora, terms, diag);
    dure_lora_free(&lora);
    return err;
}
