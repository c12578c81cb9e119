/* The logits at every place of a text, in one pass: what scoring a given text needs, where the
 * decoder gives those after the last token alone.
 *
 * Threads: as for the transformer. */
#pragma once

#include "model/transformer.h"

#include <stdbool.h>

/* Hears, in order, the logits that follow tokens[0..i], vocabulary floats borrowed for the call.
 * Returns false to stop. */
typedef bool dure_score_sink(void *state, size_t i, const float *logits);

/* Calls `sink` for i in [0, n - 1): for every token that another one follows. `lora` may be NULL.
 * DURE_ERR_USAGE: a token or the adapter does not fit the model, or n is over its context;
 * DURE_ERR_CANCELLED: the sink stopped. */
DURE_MUST_USE dure_err dure_score(dure_transformer *t, const dure_lora *lora, const int32_t *tokens,
                                  size_t n, dure_score_sink *sink, void *state, dure_diag *diag);
