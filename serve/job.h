/* One request from its parsed form to its last byte: its prompts as tokens, what the scheduler says
 * of them as text, and the answer, whole or streamed.
 *
 * Threads: dure_job_start() on any; everything after it happens on the scheduler's. */
#pragma once

#include "net/http.h"
#include "serve/api.h"
#include "serve/catalog.h"
#include "serve/scheduler.h"

/* What jobs need of the server; outlives them. */
typedef struct dure_job_context {
    dure_scheduler *scheduler;
    const dure_tokenizer *tokenizer;
    const dure_chat_template *chat; /* NULL: the model has none that is known */
    dure_metrics *metrics;
} dure_job_context;

/* Takes `request`, `offer` and `x`, which the caller has kept, and answers later. On failure
 * *error says what the client is told: the caller answers, and still owns all three. */
DURE_MUST_USE dure_err dure_job_start(const dure_job_context *context, dure_http_exchange *x,
                                      dure_api_request *request, dure_offer *offer,
                                      dure_api_error *error);
