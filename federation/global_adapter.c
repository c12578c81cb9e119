#include "federation/global_adapter.h"

#include "crypto/wipe.h"
#include "federation/server_step.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void make_notes(dure_adapter_notes *out, const dure_terms *terms)
{
    *out = (dure_adapter_notes){.texts = NULL};
    dure_hex_encode(out->base_digest, terms->base.digest.b, sizeof terms->base.digest.b);
}

dure_err dure_global_adapter_first(dure_buf *out, const dure_terms *terms, dure_diag *diag)
{
    dure_lora_layout layout;
    dure_adapter_notes notes;
    dure_lora *lora = NULL;
    dure_buf_init(out, SIZE_MAX / 2);
    dure_err err = dure_global_adapter_layout(&layout, terms, diag);
    if (!err) err = dure_lora_new(&lora, &layout);
    if (!err) {
        dure_lora_init_orthonormal(lora, terms->layout.seed);
        make_notes(&notes, terms);
        err = dure_adapter_encode(out, lora, &notes, diag);
    }
    if (err) dure_buf_fini(out);
    dure_lora_free(&lora);
    return err;
}

static dure_err check_layout(const dure_lora_layout *found, const dure_lora_layout *wanted,
                             dure_diag *diag)
{
    if (dure_lora_layout_equal(found, wanted)) return DURE_OK;
    return dure_diag_set(diag, DURE_ERR_STATE,
                         "the global adapter's layout is not the federation's");
}

dure_err dure_global_adapter_parse(dure_lora **out, const dure_terms *terms, dure_span file,
                                   dure_diag *diag)
{
    dure_lora_layout layout;
    *out = NULL;
    dure_err err = dure_global_adapter_layout(&layout, terms, diag);
    if (!err) err = dure_adapter_parse(out, NULL, file, &layout.shape, diag);
    if (!err) err = check_layout(&(*out)->layout, &layout, diag);
    if (err) dure_lora_free(out);
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

/* ---- the next adapter ---- */

typedef struct stepping {
    const dure_global_step *step;
    const dure_lora_layout *layout;
    dure_server_step server;
    int32_t *sum; /* owned: of one row of B */
} stepping;

/* B follows its canonical order, in which the sum is. */
static dure_err next_row(void *state, const dure_adapter_row *row, float *out, dure_diag *diag)
{
    stepping *s = state;
    const dure_global_step *step = s->step;
    dure_err err = dure_adapter_view_row(out, step->present, row, diag);
    if (err || row->factor == DURE_LORA_FACTOR_A) return err;
    const size_t n = dure_lora_rank(s->layout, row->target);
    err = step->sum(step->sum_state, s->sum, n, diag);
    if (!err) err = dure_server_step_apply(out, out, s->sum, n, &s->server, diag);
    s->server.first += n;
    return err;
}

dure_err dure_global_adapter_write(const dure_gguf_sink *out, const dure_global_step *step,
                                   dure_diag *diag)
{
    const dure_terms *terms = step->terms;
    dure_lora_layout layout;
    dure_adapter_notes notes;
    stepping s = {.step = step,
                  .layout = &layout,
                  .server = {.grid = terms->grid,
                             .n_sites = step->n_sites,
                             .rate = terms->training.server_rate}};
    dure_err err = dure_global_adapter_layout(&layout, terms, diag);
    if (!err) err = check_layout(dure_adapter_view_layout(step->present), &layout, diag);
    if (err) return err;
    s.sum = malloc(dure_lora_rank_most(&layout) * sizeof *s.sum);
    make_notes(&notes, terms);
    err = s.sum ? dure_adapter_write(out, &layout, &notes, next_row, &s, diag) : DURE_ERR_NOMEM;
    free(s.sum);
    return err;
}

static dure_err take_from_memory(void *state, int32_t *out, size_t n, dure_diag *diag)
{
    const int32_t **at = state;
    (void)diag;
    memcpy(out, *at, n * sizeof *out);
    *at += n;
    return DURE_OK;
}

static dure_err put_in_memory(void *state, dure_span bytes, dure_diag *diag)
{
    (void)diag;
    dure_put_raw(state, bytes.data, bytes.n);
    return dure_buf_err(state);
}

dure_err dure_global_adapter_next(dure_buf *out, const dure_terms *terms, dure_span present,
                                  const int32_t *sum, uint32_t n_sites, dure_diag *diag)
{
    dure_lora_layout layout;
    dure_global_step step = {
        .terms = terms, .sum = take_from_memory, .sum_state = &sum, .n_sites = n_sites};
    const dure_gguf_sink sink = {.put = put_in_memory, .state = out};
    dure_buf_init(out, SIZE_MAX / 2);
    dure_err err = dure_global_adapter_layout(&layout, terms, diag);
    if (!err) err = dure_adapter_view_of(&step.present, present, &layout.shape, diag);
    if (!err) err = dure_global_adapter_write(&sink, &step, diag);
    dure_adapter_view_close(&step.present);
    if (err) dure_buf_fini(out);
    return err;
}
