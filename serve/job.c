#include "serve/job.h"

#include "common/clock.h"
#include "common/log.h"
#include "crypto/rng.h"
#include "serve/answer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COMPLETION_TOKENS_DEFAULT 16 /* of /v1/completions, as the API has it */
#define TEXT_BYTES_MAX ((size_t)64 * 1024 * 1024)
#define WRITE_BYTES ((size_t)16 * 1024)
/* A reader that takes nothing for so long is given up. */
#define STALL_S 30.0

typedef struct job job;

/* One prompt of the request and its choice in the answer. */
typedef struct choice {
    job *job;
    size_t index;
    dure_tokens tokens;
    dure_prompt prompt;
    dure_text_stream *stream;
    dure_buf text; /* of a whole answer */
    dure_logprobs logprobs;
    uint64_t generated;
    const char *finish; /* NULL while it runs */
    bool stopped;       /* by a stop string */
    bool failed;        /* a part of the answer is missing: memory */
    bool echoed;        /* a stream has been given the prompt's text */
    double last_token_s;
} choice;

struct job {
    dure_job_context context;
    dure_http_exchange *x;
    dure_api_request request;
    dure_offer *offer;
    dure_answer_head head;
    choice *choices;
    size_t n_choices, n_running, n_held;
    dure_end how; /* the worst of the choices' ends */
    bool streaming, lost;
    dure_buf outbox; /* bytes of the stream from `outbox_at` on are to be written */
    size_t outbox_at;
    double started_s, stalled_s; /* stalled_s: 0 while the reader keeps up */
};

static void job_free(job *j)
{
    for (size_t i = 0; i < j->n_choices; i++) {
        choice *c = &j->choices[i];
        dure_tokens_fini(&c->tokens);
        dure_text_stream_free(&c->stream);
        dure_buf_fini(&c->text);
        dure_logprobs_fini(&c->logprobs);
    }
    free(j->choices);
    dure_buf_fini(&j->outbox);
    free(j);
}

/* Writes what the stream has room for. */
static dure_flow flush(job *j)
{
    if (dure_buf_err(&j->outbox)) return DURE_FLOW_STOP; /* a part of the answer is missing */
    while (j->outbox_at < j->outbox.n) {
        size_t n = j->outbox.n - j->outbox_at;
        if (n > WRITE_BYTES) n = WRITE_BYTES;
        dure_err err =
            dure_http_stream_write(j->x, dure_span_of(j->outbox.data + j->outbox_at, n), 0);
        if (err == DURE_ERR_TIMEOUT) {
            double now_s = dure_clock_monotonic_s();
            if (j->stalled_s == 0) j->stalled_s = now_s;
            return now_s - j->stalled_s > STALL_S ? DURE_FLOW_STOP : DURE_FLOW_WAIT;
        }
        if (err) return DURE_FLOW_STOP;
        j->outbox_at += n;
        j->stalled_s = 0;
    }
    j->outbox.n = j->outbox_at = 0;
    return DURE_FLOW_GO;
}

static dure_flow on_flow(void *state)
{
    job *j = ((choice *)state)->job;
    if (j->lost) return DURE_FLOW_STOP;
    dure_flow flow = DURE_FLOW_GO;
    if (j->streaming)
        flow = flush(j);
    else if (dure_http_gone(j->x))
        flow = DURE_FLOW_STOP;
    j->lost = flow == DURE_FLOW_STOP;
    return flow;
}

static void put_event(job *j, json_t *value)
{
    dure_answer_put_event(&j->outbox, value);
}

static bool begin_stream(job *j)
{
    if (j->streaming) return true;
    if (dure_http_stream_begin(j->x, 200, "text/event-stream")) {
        j->lost = true;
        return false;
    }
    j->streaming = true;
    dure_metrics_status(j->context.metrics, 200);
    if (j->head.chat)
        for (size_t i = 0; i < j->n_choices; i++)
            put_event(j, dure_answer_opening(&j->head, i));
    return true;
}

/* Text that is ready, to the stream or to the whole answer. */
static void give_text(choice *c, dure_span text, const char *finish)
{
    job *j = c->job;
    if (!j->request.stream) {
        dure_put_raw(&c->text, text.data, text.n);
        return;
    }
    bool logprobs = j->request.logprobs && !finish;
    if ((text.n == 0 && !finish && !logprobs) || !begin_stream(j)) return;
    const dure_choice out = {.index = c->index,
                             .text = text,
                             .logprobs = logprobs ? dure_logprobs_take(&c->logprobs) : NULL,
                             .finish = finish};
    put_event(j, dure_answer_chunk(&j->head, &out));
}

/* The prompt's own text and log-probabilities go in front of a stream, where they are wanted. */
static void give_echo(choice *c)
{
    if (c->echoed || !c->job->request.stream || !c->job->request.echo) return;
    c->echoed = true;
    give_text(c, dure_buf_span(&c->text), NULL);
}

static void time_token(choice *c)
{
    job *j = c->job;
    double now_s = dure_clock_monotonic_s();
    if (c->generated == 0)
        dure_metrics_time(j->context.metrics, DURE_TIMING_FIRST, now_s - j->started_s);
    else
        dure_metrics_time(j->context.metrics, DURE_TIMING_TOKEN, now_s - c->last_token_s);
    c->last_token_s = now_s;
}

/* Ends the choice, and not because anybody left. */
static dure_flow fail(choice *c, dure_err err)
{
    dure_log(DURE_LOG_ERROR, "serve", "answer_failed", "error=\"%s\"", dure_err_text(err));
    c->failed = true;
    return DURE_FLOW_STOP;
}

static dure_flow on_token(void *state, const dure_token_event *event)
{
    choice *c = state;
    dure_span ready = {0};
    if (!event->of_prompt) give_echo(c);
    dure_err err = c->job->request.logprobs ? dure_logprobs_add(&c->logprobs, event) : DURE_OK;
    if (err) return fail(c, err);
    if (event->of_prompt) return DURE_FLOW_GO;
    time_token(c);
    c->generated++;
    dure_span piece = dure_tokenizer_piece(c->job->context.tokenizer, event->chosen.token);
    if (dure_tokenizer_is_special(c->job->context.tokenizer, event->chosen.token)) piece.n = 0;
    err = dure_text_stream_push(&ready, &c->stopped, c->stream, piece);
    if (err) return fail(c, err);
    give_text(c, ready, NULL);
    return c->stopped ? DURE_FLOW_STOP : DURE_FLOW_GO;
}

static dure_usage usage_of(const job *j)
{
    dure_usage usage = {0};
    for (size_t i = 0; i < j->n_choices; i++) {
        usage.prompt_tokens += j->choices[i].tokens.n;
        usage.completion_tokens += j->choices[i].generated;
    }
    return usage;
}

static void reply_whole(job *j)
{
    json_t *choices = json_array();
    for (size_t i = 0; i < j->n_choices; i++) {
        choice *c = &j->choices[i];
        const dure_choice out = {.index = i,
                                 .text = dure_buf_span(&c->text),
                                 .logprobs =
                                     j->request.logprobs ? dure_logprobs_take(&c->logprobs) : NULL,
                                 .finish = c->finish};
        json_array_append_new(choices, dure_answer_choice(&j->head, &out));
    }
    dure_metrics_status(j->context.metrics, 200);
    dure_http_reply_json(j->x, 200, dure_answer_whole(&j->head, choices, usage_of(j)));
}

/* The answer cannot be given: as a whole it is an error, in a stream the last event. */
static void reply_failure(job *j)
{
    dure_api_error error;
    bool stopping = j->how == DURE_END_CANCELLED;
    dure_api_refuse(&error, stopping ? 503 : 500, NULL,
                    stopping ? "the server is stopping"
                             : "the server failed on this request; its log says why");
    if (j->streaming) {
        put_event(j, dure_api_error_json(&error));
        return;
    }
    dure_metrics_status(j->context.metrics, error.status);
    dure_http_reply_json(j->x, error.status, dure_api_error_json(&error));
}

static void finish_job(job *j)
{
    dure_usage usage = usage_of(j);
    dure_metrics_end(j->context.metrics, j->how, usage.prompt_tokens, usage.completion_tokens);
    dure_metrics_time(j->context.metrics, DURE_TIMING_REQUEST,
                      dure_clock_monotonic_s() - j->started_s);
    if (j->how == DURE_END_CANCELLED || j->how == DURE_END_FAILED) {
        reply_failure(j);
    } else if (!j->request.stream) {
        reply_whole(j);
    } else {
        j->head.usage_in_chunks = false;
        if (j->request.include_usage) put_event(j, dure_answer_usage_chunk(&j->head, usage));
        dure_put_format(&j->outbox, "data: [DONE]\n\n");
    }
}

static void on_end(void *state, dure_end how)
{
    choice *c = state;
    job *j = c->job;
    if (c->stopped && how == DURE_END_CANCELLED) how = DURE_END_STOP;
    if (c->failed && how == DURE_END_CANCELLED) how = DURE_END_FAILED;
    dure_span rest = {0};
    if (how == DURE_END_STOP || how == DURE_END_LENGTH) {
        if (!c->stopped && dure_text_stream_end(&rest, c->stream)) how = DURE_END_FAILED;
        c->finish = how == DURE_END_LENGTH ? "length" : "stop";
        give_echo(c);
        if (rest.n) give_text(c, rest, NULL);
        give_text(c, dure_span_of(NULL, 0), c->finish);
        if (dure_buf_err(&c->text)) how = DURE_END_FAILED;
    }
    if (how > j->how) j->how = how;
    if (--j->n_running == 0) finish_job(j);
}

static void on_release(void *state)
{
    job *j = ((choice *)state)->job;
    if (--j->n_held > 0) return;
    if (j->streaming && !j->lost && j->outbox.n == 0) dure_http_stream_end(j->x);
    dure_http_release(&j->x);
    dure_offer_release(&j->offer);
    dure_api_request_fini(&j->request);
    job_free(j);
}

static const dure_prompt_owner owner = {
    .flow = on_flow, .token = on_token, .end = on_end, .release = on_release};

static dure_err out_of_memory(dure_api_error *error)
{
    return dure_api_refuse(error, 500, NULL, "the server is out of memory");
}

static dure_err put_ids(dure_tokens *out, const json_t *ids, size_t vocabulary,
                        dure_api_error *error)
{
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id)
    {
        json_int_t token = json_integer_value(id);
        if ((size_t)token >= vocabulary)
            return dure_api_refuse(error, 400, "prompt",
                                   "token %lld is not in the vocabulary of %zu", (long long)token,
                                   vocabulary);
        if (dure_tokens_push(out, (int32_t)token, false)) return out_of_memory(error);
    }
    return DURE_OK;
}

static dure_err tokenize(choice *c, dure_api_error *error)
{
    const job *j = c->job;
    const dure_job_context *context = &j->context;
    dure_diag diag = {{0}};
    dure_err err = DURE_OK;
    if (j->request.chat) {
        err = dure_chat_render(&c->tokens, context->chat, context->tokenizer, j->request.messages,
                               j->request.n_messages, true, &diag);
        if (err == DURE_ERR_FORMAT) return dure_api_refuse(error, 400, "messages", "%s", diag.text);
        return err ? out_of_memory(error) : DURE_OK;
    }
    const dure_api_prompt *prompt = &j->request.prompts[c->index];
    if (prompt->ids)
        return put_ids(&c->tokens, prompt->ids, dure_tokenizer_size(context->tokenizer), error);
    if (prompt->text.n) err = dure_tokenizer_begin(&c->tokens, context->tokenizer);
    if (!err) err = dure_tokenizer_encode(&c->tokens, context->tokenizer, prompt->text, false);
    if (err) return out_of_memory(error);
    if (c->tokens.n == 0) return dure_api_refuse(error, 400, "prompt", "the prompt is empty");
    return DURE_OK;
}

/* How many tokens may be generated; the context is the limit. */
static dure_err take_room(choice *c, dure_api_error *error)
{
    const dure_api_request *request = &c->job->request;
    const size_t context = dure_scheduler_positions(c->job->context.scheduler);
    const size_t n = c->tokens.n;
    size_t room = n < context ? context - n : 0;
    size_t wanted = request->has_max_tokens ? request->max_tokens
                    : request->chat         ? room
                                            : COMPLETION_TOKENS_DEFAULT;
    if (!request->has_max_tokens && wanted > room) wanted = room;
    if (n > context || wanted > room || (wanted == 0 && !request->has_max_tokens)) {
        dure_api_refuse(error, 400, request->chat ? "messages" : "prompt",
                        "this model's context is %zu tokens, but the request needs %zu (%zu in the "
                        "prompt and %zu to generate)",
                        context, n + (wanted ? wanted : 1), n, wanted ? wanted : 1);
        error->code = "context_length_exceeded";
        return DURE_ERR_USAGE;
    }
    c->prompt.max_tokens = (uint32_t)wanted;
    return DURE_OK;
}

/* The text of the prompt's own tokens, in front of what is generated. */
static dure_err echo(choice *c)
{
    dure_text_stream *plain;
    dure_err err = dure_text_stream_new(&plain, NULL, 0);
    dure_span ready;
    bool stopped;
    for (size_t i = 0; !err && i < c->tokens.n; i++) {
        dure_span piece = dure_tokenizer_piece(c->job->context.tokenizer, c->tokens.ids[i]);
        err = dure_text_stream_push(&ready, &stopped, plain, piece);
        if (!err) dure_put_raw(&c->text, ready.data, ready.n);
    }
    if (!err) err = dure_text_stream_end(&ready, plain);
    if (!err) dure_put_raw(&c->text, ready.data, ready.n);
    if (!err) err = dure_buf_err(&c->text);
    dure_text_stream_free(&plain);
    return err;
}

static dure_err fill_choice(choice *c, uint64_t seed, dure_api_error *error)
{
    const job *j = c->job;
    const dure_api_request *request = &j->request;
    dure_buf_init(&c->text, TEXT_BYTES_MAX);
    dure_err err = tokenize(c, error);
    if (!err) err = take_room(c, error);
    if (err) return err;
    if (dure_text_stream_new(&c->stream, request->stops, request->n_stops) ||
        dure_logprobs_init(&c->logprobs, j->context.tokenizer, request->chat) ||
        (request->echo && echo(c)))
        return out_of_memory(error);
    c->prompt.tokens = c->tokens.ids;
    c->prompt.n_tokens = c->tokens.n;
    c->prompt.lora = j->offer->lora;
    c->prompt.temperature = request->temperature;
    c->prompt.top_p = request->top_p;
    c->prompt.seed = seed + c->index;
    c->prompt.logprobs = request->logprobs;
    c->prompt.top_logprobs = request->top_logprobs;
    c->prompt.echo_logprobs = request->echo && request->logprobs;
    c->prompt.owner = &owner;
    c->prompt.state = c;
    return DURE_OK;
}

/* An id, and the seed where the client gave none, out of one draw. */
static dure_err draw(job *j, uint64_t *seed)
{
    uint8_t bytes[20];
    char hex[25];
    dure_rng rng = dure_rng_system();
    dure_err err = dure_rng_fill(&rng, bytes, sizeof bytes);
    if (err) return err;
    memcpy(seed, bytes + 12, sizeof *seed);
    if (j->request.has_seed) *seed = j->request.seed;
    dure_hex_encode(hex, bytes, 12);
    snprintf(j->head.id, sizeof j->head.id, "%s-%s", j->head.chat ? "chatcmpl" : "cmpl", hex);
    return DURE_OK;
}

static dure_err fill_job(job *j, dure_api_error *error)
{
    const dure_api_request *request = &j->request;
    uint64_t seed;
    j->n_choices = request->chat ? 1 : request->n_prompts;
    j->choices = calloc(j->n_choices, sizeof *j->choices);
    if (!j->choices) {
        j->n_choices = 0;
        return out_of_memory(error);
    }
    j->head = (dure_answer_head){.created_s = dure_clock_wall_s(),
                                 .model = j->offer->name,
                                 .chat = request->chat,
                                 .usage_in_chunks = request->include_usage};
    if (draw(j, &seed)) return dure_api_refuse(error, 500, NULL, "no random numbers to be had");
    for (size_t i = 0; i < j->n_choices; i++) {
        choice *c = &j->choices[i];
        c->job = j;
        c->index = i;
        dure_err err = fill_choice(c, seed, error);
        if (err) return err;
        if (i > 0) j->choices[i - 1].prompt.next = &c->prompt;
    }
    j->n_running = j->n_held = j->n_choices;
    return DURE_OK;
}

dure_err dure_job_start(const dure_job_context *context, dure_http_exchange *x,
                        dure_api_request *request, dure_offer *offer, dure_api_error *error)
{
    if (request->chat && !context->chat)
        return dure_api_refuse(error, 400, "messages",
                               "this model has no chat template: use /v1/completions");
    const size_t most = dure_scheduler_prompts_max(context->scheduler);
    if (!request->chat && request->n_prompts > most)
        return dure_api_refuse(error, 400, "prompt",
                               "%zu prompts in one request; this server takes at most %zu (its "
                               "--slots plus its --queue): send them in parts",
                               request->n_prompts, most);
    job *j = calloc(1, sizeof *j);
    if (!j) return out_of_memory(error);
    j->context = *context;
    j->x = x;
    j->request = *request;
    j->offer = offer;
    j->started_s = dure_clock_monotonic_s();
    dure_buf_init(&j->outbox, TEXT_BYTES_MAX);
    dure_err err = fill_job(j, error);
    if (!err) {
        err = dure_scheduler_submit(context->scheduler, &j->choices[0].prompt);
        if (!err) return DURE_OK;
        dure_api_refuse(error, 503, NULL,
                        err == DURE_ERR_BUSY ? "the server is busy: try again in a moment"
                                             : "the server is stopping");
    }
    job_free(j);
    return err;
}
