/* Requests of the OpenAI API as plain structs, and its error shape.
 *
 * Everything a client may send is checked here: types, ranges, counts. What would change the
 * answer and is not supported (n > 1, tools, penalties, ...) is refused and named; what would not
 * (user, metadata, ...) is passed over.
 *
 * Threads: no shared state. Source: platform.openai.com/docs/api-reference (chat, completions). */
#pragma once

#include "common/json.h"
#include "model/chat_template.h"
#include "serve/text_stream.h"

#define DURE_API_PROMPTS_MAX 128 /* and no more than the scheduler has room for: serve/job.c */
#define DURE_API_MESSAGES_MAX 1024
#define DURE_API_LOGPROBS_MAX 20
#define DURE_API_TOKENS_MAX ((size_t)1 << 20)

/* {"error":{message,type,param,code}} with an HTTP status. Plain data. */
typedef struct dure_api_error {
    unsigned status;
    char message[512];
    const char *type; /* static */
    char param[64];   /* "": null */
    const char *code; /* static; NULL: null */
} dure_api_error;

/* Fills *error for a status that the API gives a fixed type and code; returns DURE_ERR_USAGE. */
dure_err dure_api_refuse(dure_api_error *error, unsigned status, const char *param,
                         const char *format, ...) __attribute__((format(printf, 4, 5)));
/* A new reference; NULL when out of memory. */
json_t *dure_api_error_json(const dure_api_error *error);

/* One prompt of /v1/completions: text, or token ids. */
typedef struct dure_api_prompt {
    dure_span text;    /* data NULL: ids */
    const json_t *ids; /* array of integers that fit int32 and are not negative */
} dure_api_prompt;

typedef struct dure_api_request {
    json_t *json; /* owns every borrowed text below */
    char *joined; /* owns contents that came in parts */
    bool chat, stream, include_usage, echo;
    const char *model;
    dure_message *messages; /* chat */
    size_t n_messages;
    dure_api_prompt *prompts; /* completions */
    size_t n_prompts;
    bool has_max_tokens;
    uint32_t max_tokens;
    double temperature, top_p; /* defaults 1 and 1 */
    bool has_seed;
    uint64_t seed;
    dure_span stops[DURE_STOPS_MAX];
    size_t n_stops;
    bool logprobs;
    uint32_t top_logprobs; /* alternatives a position, 0..DURE_API_LOGPROBS_MAX */
} dure_api_request;

/* The body of POST /v1/chat/completions or /v1/completions. On failure *error says what the client
 * is told. The caller releases *out with dure_api_request_fini() in any case. */
DURE_MUST_USE dure_err dure_api_parse_chat(dure_api_request *out, dure_span body,
                                           dure_api_error *error);
DURE_MUST_USE dure_err dure_api_parse_completion(dure_api_request *out, dure_span body,
                                                 dure_api_error *error);
void dure_api_request_fini(dure_api_request *request);
