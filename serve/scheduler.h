/* Runs many prompts on one model, a token of each in a round (continuous batching over slots): a
 * prompt takes a slot as soon as one is free and gives it up with its last token, whatever the
 * others do. Each slot has its own keys and values and its own adapter; slots with the same adapter
 * share each pass over the weights.
 *
 * One thread of the scheduler does all work with the model and makes all calls to a prompt's
 * owner; the model's own threads work inside. A prompt whose reader is slow is left out of the
 * turn, and the others go on. */
#pragma once

#include "common/err.h"
#include "model/lora.h"
#include "model/tokenizer.h"
#include "model/transformer.h"
#include "serve/api.h"
#include "serve/metrics.h"

typedef struct dure_token_choice {
    int32_t token;
    float logprob; /* natural logarithm, of the model itself: temperature and top_p have no part */
} dure_token_choice;

/* One token, of the prompt (when its log-probabilities were asked for) or generated. */
typedef struct dure_token_event {
    dure_token_choice chosen;
    bool of_prompt;
    bool has_logprob; /* false for the first token of a prompt, or when none were asked for */
    size_t n_top;     /* the likeliest tokens at this place, best first */
    dure_token_choice top[DURE_API_LOGPROBS_MAX];
} dure_token_event;

typedef enum dure_flow {
    DURE_FLOW_GO,
    DURE_FLOW_WAIT, /* the reader has no room: ask again */
    DURE_FLOW_STOP, /* the owner has all it wants, or the reader is gone */
} dure_flow;

/* Called on the scheduler's thread, in this order: token and flow any number of times, end once. */
typedef struct dure_prompt_owner {
    /* Asked before every piece of work, and after the end until it is not WAIT. */
    dure_flow (*flow)(void *state);
    /* STOP: this was the last (a stop string, say). An end-of-text token is not shown. */
    dure_flow (*token)(void *state, const dure_token_event *event);
    /* The last word about the answer; the prompt's slot is held until flow is not WAIT. */
    void (*end)(void *state, dure_end how);
    /* Nothing will be called after this; the prompt may be freed. */
    void (*release)(void *state);
} dure_prompt_owner;

/* Borrowed, with all it points to, from submit to release. */
typedef struct dure_prompt {
    const int32_t *tokens;
    size_t n_tokens;
    uint32_t max_tokens;   /* to generate; 0: the prompt's own log-probabilities only */
    const dure_lora *lora; /* NULL: the base */
    double temperature, top_p;
    uint64_t seed;
    bool echo_logprobs; /* an event for every token of the prompt too */
    bool logprobs;
    uint32_t top_logprobs;
    const dure_prompt_owner *owner;
    void *state;
    /* The scheduler's own. */
    struct dure_prompt *next;
    double submitted_s;
} dure_prompt;

typedef struct dure_scheduler_opts {
    uint32_t slots;     /* 0: 4 */
    uint32_t queue;     /* prompts that may wait, 0: 64 */
    uint32_t positions; /* of each slot's cache: the longest prompt and answer; 0: the context */
} dure_scheduler_opts;

typedef struct dure_scheduler dure_scheduler;

/* Borrows all three until dure_scheduler_free(). */
DURE_MUST_USE dure_err dure_scheduler_new(dure_scheduler **out, dure_transformer *model,
                                          const dure_tokenizer *tokenizer, dure_metrics *metrics,
                                          const dure_scheduler_opts *opts);
/* Cancels what runs and waits; every owner gets its end and release. Later submits fail. */
void dure_scheduler_stop(dure_scheduler *scheduler);
/* Stops it first. NULL-safe, nulls. */
void dure_scheduler_free(dure_scheduler **scheduler);

uint32_t dure_scheduler_positions(const dure_scheduler *scheduler);
/* Slots and queue together: a list of more prompts is never taken, however idle it is. */
size_t dure_scheduler_prompts_max(const dure_scheduler *scheduler);

/* Queues all of a list of prompts linked by `next`, or none. DURE_ERR_BUSY: the queue is full;
 * DURE_ERR_STATE: the scheduler drains. Any thread. */
DURE_MUST_USE dure_err dure_scheduler_submit(dure_scheduler *scheduler, dure_prompt *prompts);

/* Refuses new prompts; true when all are done within `timeout_ms`. */
bool dure_scheduler_drain(dure_scheduler *scheduler, uint32_t timeout_ms);

/* Queue, slots and cache as they are now. Any thread. */
dure_gauges dure_scheduler_gauges(dure_scheduler *scheduler);
