#include "model/score.h"

#include "model/transformer_int.h"

#include <stdlib.h>
#include <string.h>

/* Rows whose logits are made at a time. */
enum { ROWS = 128 };

/* Rows [first, first + n) of the pass to the sink. */
static bool tell(dure_transformer *t, size_t first, size_t n, dure_score_sink *sink, void *state)
{
    dure_transformer_logits(t, t->ws.label_row + first, n, false);
    for (size_t i = 0; i < n; i++)
        if (!sink(state, first + i, t->ws.logits + i * t->ws.logits_ld)) return false;
    return true;
}

dure_err dure_score(dure_transformer *t, const dure_lora *lora, const int32_t *tokens, size_t n,
                    dure_score_sink *sink, void *state, dure_diag *diag)
{
    if (n < 2) return DURE_OK;
    uint8_t *labels = malloc(n);
    if (!labels) return DURE_ERR_NOMEM;
    memset(labels, 1, n);
    labels[0] = 0;
    const dure_document doc = {.tokens = tokens, .supervised = labels, .n = n};
    dure_err err = dure_transformer_prepare(t, lora, &doc, 1, NULL, diag);
    dure_workspace_need need = t->ws.has;
    need.logits = ROWS;
    if (!err) err = dure_transformer_reserve(t, need);
    if (!err) {
        dure_pass pass = {.lora = lora};
        size_t next = 0;
        dure_transformer_pack(&pass, &next, t, &doc, 1, 1);
        dure_transformer_run(t, &pass);
        for (size_t i = 0; i < pass.n_labels && !err; i += ROWS) {
            size_t left = pass.n_labels - i;
            if (!tell(t, i, left < ROWS ? left : ROWS, sink, state)) err = DURE_ERR_CANCELLED;
        }
    }
    free(labels);
    return err;
}
