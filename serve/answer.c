#include "serve/answer.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TOKEN_TEXT_SIZE 1024

/* Valid UTF-8 of the token's bytes, or "bytes:\xNN..." as the API writes what is none: two
 * different tokens then have different texts. */
static json_t *token_text(const dure_tokenizer *tokenizer, int32_t token)
{
    dure_span piece = dure_tokenizer_piece(tokenizer, token);
    json_t *text = json_stringn((const char *)piece.data, piece.n);
    if (text) return text;
    char escaped[TOKEN_TEXT_SIZE];
    size_t n = (size_t)snprintf(escaped, sizeof escaped, "bytes:");
    for (size_t i = 0; i < piece.n && n + 5 < sizeof escaped; i++)
        n += (size_t)snprintf(escaped + n, sizeof escaped - n, "\\x%02x", piece.data[i]);
    return json_string(escaped);
}

/* JSON has no infinity: what the model excludes altogether gets the API's own floor. */
static json_t *logprob_json(float logprob)
{
    return json_real(isfinite(logprob) ? (double)logprob : -9999.0);
}

static json_t *token_bytes(const dure_tokenizer *tokenizer, int32_t token)
{
    dure_span piece = dure_tokenizer_piece(tokenizer, token);
    json_t *bytes = json_array();
    for (size_t i = 0; i < piece.n; i++)
        json_array_append_new(bytes, json_integer(piece.data[i]));
    return bytes;
}

static json_t *chat_token(const dure_tokenizer *tokenizer, dure_token_choice choice)
{
    return json_pack("{s:o, s:o, s:o}", "token", token_text(tokenizer, choice.token), "logprob",
                     logprob_json(choice.logprob), "bytes", token_bytes(tokenizer, choice.token));
}

static dure_err reset(dure_logprobs *l)
{
    l->content = l->tokens = l->token_logprobs = l->top_logprobs = l->text_offset = NULL;
    if (l->chat) {
        l->content = json_array();
        return l->content ? DURE_OK : DURE_ERR_NOMEM;
    }
    l->tokens = json_array();
    l->token_logprobs = json_array();
    l->top_logprobs = json_array();
    l->text_offset = json_array();
    return l->tokens && l->token_logprobs && l->top_logprobs && l->text_offset ? DURE_OK
                                                                               : DURE_ERR_NOMEM;
}

dure_err dure_logprobs_init(dure_logprobs *out, const dure_tokenizer *tokenizer, bool chat)
{
    *out = (dure_logprobs){.tokenizer = tokenizer, .chat = chat};
    return reset(out);
}

void dure_logprobs_fini(dure_logprobs *l)
{
    json_decref(l->content);
    json_decref(l->tokens);
    json_decref(l->token_logprobs);
    json_decref(l->top_logprobs);
    json_decref(l->text_offset);
    *l = (dure_logprobs){0};
}

static dure_err add_chat(dure_logprobs *l, const dure_token_event *event)
{
    json_t *entry = chat_token(l->tokenizer, event->chosen), *top = json_array();
    for (size_t i = 0; i < event->n_top; i++)
        json_array_append_new(top, chat_token(l->tokenizer, event->top[i]));
    bool failed = json_object_set_new(entry, "top_logprobs", top) != 0;
    failed |= json_array_append_new(l->content, entry) != 0;
    return failed ? DURE_ERR_NOMEM : DURE_OK;
}

/* The likeliest tokens by text; the token itself is always among them. */
static json_t *top_by_text(const dure_logprobs *l, const dure_token_event *event)
{
    json_t *top = json_object();
    for (size_t i = 0; i <= event->n_top; i++) {
        dure_token_choice choice = i < event->n_top ? event->top[i] : event->chosen;
        json_t *text = token_text(l->tokenizer, choice.token);
        if (text && !json_object_get(top, json_string_value(text)))
            json_object_set_new(top, json_string_value(text), logprob_json(choice.logprob));
        json_decref(text);
    }
    return top;
}

static dure_err add_completion(dure_logprobs *l, const dure_token_event *event)
{
    dure_span piece = dure_tokenizer_piece(l->tokenizer, event->chosen.token);
    bool has = event->has_logprob, failed = false;
    failed |= json_array_append_new(l->tokens, token_text(l->tokenizer, event->chosen.token)) != 0;
    failed |= json_array_append_new(l->token_logprobs,
                                    has ? logprob_json(event->chosen.logprob) : json_null()) != 0;
    failed |=
        json_array_append_new(l->top_logprobs, has ? top_by_text(l, event) : json_null()) != 0;
    failed |= json_array_append_new(l->text_offset, json_integer((json_int_t)l->offset)) != 0;
    for (size_t i = 0; i < piece.n; i++)
        l->offset += (piece.data[i] & 0xc0) != 0x80; /* counts the beginnings of characters */
    return failed ? DURE_ERR_NOMEM : DURE_OK;
}

dure_err dure_logprobs_add(dure_logprobs *l, const dure_token_event *event)
{
    return l->chat ? add_chat(l, event) : add_completion(l, event);
}

json_t *dure_logprobs_take(dure_logprobs *l)
{
    json_t *value = l->chat ? json_pack("{s:o}", "content", l->content)
                            : json_pack("{s:o, s:o, s:o, s:o}", "tokens", l->tokens,
                                        "token_logprobs", l->token_logprobs, "top_logprobs",
                                        l->top_logprobs, "text_offset", l->text_offset);
    if (reset(l)) {
        json_decref(value);
        return NULL;
    }
    return value;
}

static json_t *or_null(json_t *value)
{
    return value ? value : json_null();
}

static json_t *finish_json(const char *finish)
{
    return finish ? json_string(finish) : json_null();
}

static json_t *text_json(dure_span text)
{
    return json_stringn(text.n ? (const char *)text.data : "", text.n);
}

json_t *dure_answer_choice(const dure_answer_head *head, const dure_choice *choice)
{
    json_t *logprobs = or_null(choice->logprobs), *finish = finish_json(choice->finish);
    json_int_t index = (json_int_t)choice->index;
    if (head->chat)
        return json_pack("{s:I, s:{s:s, s:o}, s:o, s:o}", "index", index, "message", "role",
                         "assistant", "content", text_json(choice->text), "logprobs", logprobs,
                         "finish_reason", finish);
    return json_pack("{s:I, s:o, s:o, s:o}", "index", index, "text", text_json(choice->text),
                     "logprobs", logprobs, "finish_reason", finish);
}

static json_t *usage_json(dure_usage usage)
{
    return json_pack("{s:I, s:I, s:I}", "prompt_tokens", (json_int_t)usage.prompt_tokens,
                     "completion_tokens", (json_int_t)usage.completion_tokens, "total_tokens",
                     (json_int_t)(usage.prompt_tokens + usage.completion_tokens));
}

/* Takes `choices`. */
static json_t *with_head(const dure_answer_head *head, const char *object, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", head->id, "object", object, "created",
                     (json_int_t)head->created_s, "model", head->model, "choices", choices);
}

json_t *dure_answer_whole(const dure_answer_head *head, json_t *choices, dure_usage usage)
{
    json_t *answer = with_head(head, head->chat ? "chat.completion" : "text_completion", choices);
    if (json_object_set_new(answer, "usage", usage_json(usage))) {
        json_decref(answer);
        return NULL;
    }
    return answer;
}

/* Takes `choice`; NULL gives a chunk without choices. */
static json_t *chunk(const dure_answer_head *head, json_t *choice)
{
    json_t *choices = json_array();
    if (choice) json_array_append_new(choices, choice);
    json_t *value =
        with_head(head, head->chat ? "chat.completion.chunk" : "text_completion", choices);
    if (head->usage_in_chunks) json_object_set_new(value, "usage", json_null());
    return value;
}

json_t *dure_answer_opening(const dure_answer_head *head, size_t index)
{
    return chunk(head,
                 json_pack("{s:I, s:{s:s, s:s}, s:n, s:n}", "index", (json_int_t)index, "delta",
                           "role", "assistant", "content", "", "logprobs", "finish_reason"));
}

json_t *dure_answer_chunk(const dure_answer_head *head, const dure_choice *choice)
{
    if (!head->chat) return chunk(head, dure_answer_choice(head, choice));
    json_t *delta = json_object();
    if (choice->text.n) json_object_set_new(delta, "content", text_json(choice->text));
    return chunk(head, json_pack("{s:I, s:o, s:o, s:o}", "index", (json_int_t)choice->index,
                                 "delta", delta, "logprobs", or_null(choice->logprobs),
                                 "finish_reason", finish_json(choice->finish)));
}

json_t *dure_answer_usage_chunk(const dure_answer_head *head, dure_usage usage)
{
    json_t *value = chunk(head, NULL);
    json_object_set_new(value, "usage", usage_json(usage));
    return value;
}

void dure_answer_put_event(dure_buf *out, json_t *value)
{
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(value);
    if (text)
        dure_put_format(out, "data: %s\n\n", text);
    else if (!out->err)
        out->err = DURE_ERR_NOMEM;
    free(text);
}
