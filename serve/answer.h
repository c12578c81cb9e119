/* The answers of the OpenAI API as JSON: whole, and as the chunks of a stream.
 *
 * Pure: all state is in the structs. Threads: no shared state. */
#pragma once

#include "model/tokenizer.h"
#include "serve/scheduler.h"

#include <jansson.h>

typedef struct dure_answer_head {
    char id[48]; /* "chatcmpl-..." or "cmpl-..." */
    int64_t created_s;
    const char *model; /* borrowed */
    bool chat;
    bool usage_in_chunks; /* every chunk but the last then has "usage": null */
} dure_answer_head;

typedef struct dure_usage {
    uint64_t prompt_tokens, completion_tokens;
} dure_usage;

/* What has been said of the log-probabilities since the last chunk, in the API's two shapes. */
typedef struct dure_logprobs {
    const dure_tokenizer *tokenizer; /* borrowed */
    bool chat;
    json_t *content;                                              /* chat */
    json_t *tokens, *token_logprobs, *top_logprobs, *text_offset; /* completions */
    uint64_t offset; /* characters of the tokens so far */
} dure_logprobs;

DURE_MUST_USE dure_err dure_logprobs_init(dure_logprobs *out, const dure_tokenizer *tokenizer,
                                          bool chat);
void dure_logprobs_fini(dure_logprobs *logprobs);
DURE_MUST_USE dure_err dure_logprobs_add(dure_logprobs *logprobs, const dure_token_event *event);
/* What there is as a new reference, which empties it. NULL when out of memory. */
json_t *dure_logprobs_take(dure_logprobs *logprobs);

/* One choice. `logprobs` is taken; NULL gives null. `finish` NULL gives null. */
typedef struct dure_choice {
    size_t index;
    dure_span text; /* valid UTF-8 */
    json_t *logprobs;
    const char *finish;
} dure_choice;

/* New references, NULL when out of memory. */
json_t *dure_answer_choice(const dure_answer_head *head, const dure_choice *choice);
/* The whole answer; takes `choices`, an array of the above. */
json_t *dure_answer_whole(const dure_answer_head *head, json_t *choices, dure_usage usage);

/* The first chunk of a chat says the role. */
json_t *dure_answer_opening(const dure_answer_head *head, size_t index);
json_t *dure_answer_chunk(const dure_answer_head *head, const dure_choice *choice);
/* The chunk without choices that `stream_options.include_usage` asks for. */
json_t *dure_answer_usage_chunk(const dure_answer_head *head, dure_usage usage);

/* Appends "data: JSON\n\n"; takes `value`. Failures are in the buffer. */
void dure_answer_put_event(dure_buf *out, json_t *value);
