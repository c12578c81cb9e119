#include "serve/api.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The type and code that clients branch on, by status. */
static void set_kind(dure_api_error *error)
{
    error->type = "invalid_request_error";
    error->code = NULL;
    switch (error->status) {
    case 401:
        error->code = "invalid_api_key";
        break;
    case 403:
        error->type = "permission_error";
        break;
    case 404:
        if (!strcmp(error->param, "model")) error->code = "model_not_found";
        break;
    case 500:
        error->type = "server_error";
        break;
    case 503:
        error->type = "server_error";
        error->code = "overloaded";
        break;
    default:
        break;
    }
}

dure_err dure_api_refuse(dure_api_error *error, unsigned status, const char *param,
                         const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    error->status = status;
    snprintf(error->param, sizeof error->param, "%s", param ? param : "");
    set_kind(error);
    return DURE_ERR_USAGE;
}

json_t *dure_api_error_json(const dure_api_error *error)
{
    json_t *param = error->param[0] ? json_string(error->param) : json_null();
    json_t *code = error->code ? json_string(error->code) : json_null();
    /* A message that was cut in the middle of a character must not lose the whole error. */
    json_t *message = json_string(error->message);
    if (!message) message = json_string("the request is not valid");
    return json_pack("{s:{s:o, s:s, s:o, s:o}}", "error", "message", message, "type", error->type,
                     "param", param, "code", code);
}

/* A member that is there and not null; NULL otherwise. */
static const json_t *given(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static dure_err take_bool(bool *out, const json_t *object, const char *key, dure_api_error *error)
{
    const json_t *value = given(object, key);
    if (!value) return DURE_OK;
    if (!json_is_boolean(value))
        return dure_api_refuse(error, 400, key, "'%s' must be true or false", key);
    *out = json_is_true(value);
    return DURE_OK;
}

static dure_err take_number(double *out, const json_t *object, const char *key, double least,
                            double most, dure_api_error *error)
{
    const json_t *value = given(object, key);
    if (!value) return DURE_OK;
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= least && number <= most))
        return dure_api_refuse(error, 400, key, "'%s' must be a number from %g to %g", key, least,
                               most);
    *out = number;
    return DURE_OK;
}

static dure_err take_count(uint32_t *out, bool *has, const json_t *object, const char *key,
                           json_int_t least, json_int_t most, dure_api_error *error)
{
    const json_t *value = given(object, key);
    *has = value != NULL;
    if (!value) return DURE_OK;
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < least || number > most)
        return dure_api_refuse(error, 400, key,
                               "'%s' must be a whole number from %" JSON_INTEGER_FORMAT
                               " to %" JSON_INTEGER_FORMAT,
                               key, least, most);
    *out = (uint32_t)number;
    return DURE_OK;
}

static dure_err add_stop(dure_api_request *r, const json_t *value, dure_api_error *error)
{
    dure_span stop = dure_span_of(json_string_value(value), json_string_length(value));
    if (!json_is_string(value) || stop.n == 0 || stop.n > DURE_STOP_BYTES_MAX ||
        r->n_stops == DURE_STOPS_MAX)
        return dure_api_refuse(error, 400, "stop",
                               "'stop' must be one text or up to %d texts of 1 to %d bytes",
                               DURE_STOPS_MAX, DURE_STOP_BYTES_MAX);
    r->stops[r->n_stops++] = stop;
    return DURE_OK;
}

static dure_err take_stops(dure_api_request *r, dure_api_error *error)
{
    const json_t *value = given(r->json, "stop");
    if (!value) return DURE_OK;
    if (!json_is_array(value)) return add_stop(r, value, error);
    size_t i;
    json_t *stop;
    json_array_foreach(value, i, stop)
    {
        dure_err err = add_stop(r, stop, error);
        if (err) return err;
    }
    return DURE_OK;
}

/* Refuses what would change the answer. A value that asks for nothing is fine. */
static dure_err refuse_unsupported(const dure_api_request *r, dure_api_error *error)
{
    static const char *const ones[] = {"n", "best_of"};
    static const char *const zeros[] = {"frequency_penalty", "presence_penalty"};
    static const char *const empties[] = {"tools",  "functions", "logit_bias",
                                          "suffix", "audio",     "prediction"};
    for (size_t i = 0; i < sizeof ones / sizeof ones[0]; i++) {
        const json_t *value = given(r->json, ones[i]);
        if (value && !(json_is_integer(value) && json_integer_value(value) == 1))
            return dure_api_refuse(error, 400, ones[i], "'%s' must be 1: one answer a request",
                                   ones[i]);
    }
    for (size_t i = 0; i < sizeof zeros / sizeof zeros[0]; i++) {
        const json_t *value = given(r->json, zeros[i]);
        if (value && !(json_is_number(value) && json_number_value(value) == 0.0))
            return dure_api_refuse(error, 400, zeros[i], "'%s' is not supported", zeros[i]);
    }
    for (size_t i = 0; i < sizeof empties / sizeof empties[0]; i++) {
        const json_t *value = given(r->json, empties[i]);
        bool empty = !value || (json_is_array(value) && json_array_size(value) == 0) ||
                     (json_is_object(value) && json_object_size(value) == 0) ||
                     (json_is_string(value) && json_string_length(value) == 0);
        if (!empty)
            return dure_api_refuse(error, 400, empties[i], "'%s' is not supported", empties[i]);
    }
    const json_t *format = given(r->json, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));
    if (format && (!type || strcmp(type, "text")))
        return dure_api_refuse(error, 400, "response_format",
                               "'response_format' other than text is not supported");
    return DURE_OK;
}

static dure_err take_seed(dure_api_request *r, dure_api_error *error)
{
    const json_t *value = given(r->json, "seed");
    if (!value) return DURE_OK;
    if (!json_is_integer(value))
        return dure_api_refuse(error, 400, "seed", "'seed' must be a whole number");
    r->has_seed = true;
    r->seed = (uint64_t)json_integer_value(value);
    return DURE_OK;
}

static dure_err take_stream_options(dure_api_request *r, dure_api_error *error)
{
    const json_t *options = given(r->json, "stream_options");
    if (!options) return DURE_OK;
    if (!json_is_object(options) || !r->stream)
        return dure_api_refuse(error, 400, "stream_options",
                               "'stream_options' must be an object, with 'stream' true");
    return take_bool(&r->include_usage, options, "include_usage", error);
}

static dure_err parse_common(dure_api_request *r, dure_span body, json_int_t least_tokens,
                             dure_api_error *error)
{
    dure_diag diag = {0};
    *r = (dure_api_request){.temperature = 1, .top_p = 1};
    if (dure_json_parse(&r->json, body, "the request body", &diag))
        return dure_api_refuse(error, 400, NULL, "%s", diag.text);
    if (!json_is_object(r->json))
        return dure_api_refuse(error, 400, NULL, "the request body must be a JSON object");
    r->model = json_string_value(json_object_get(r->json, "model"));
    if (!r->model) return dure_api_refuse(error, 400, "model", "'model' is missing or not a text");
    dure_err err = refuse_unsupported(r, error);
    if (!err) err = take_bool(&r->stream, r->json, "stream", error);
    if (!err) err = take_stream_options(r, error);
    if (!err) err = take_number(&r->temperature, r->json, "temperature", 0, 2, error);
    if (!err) err = take_number(&r->top_p, r->json, "top_p", 0, 1, error);
    if (!err) err = take_seed(r, error);
    if (!err) err = take_stops(r, error);
    if (!err)
        err = take_count(&r->max_tokens, &r->has_max_tokens, r->json, "max_tokens", least_tokens,
                         INT32_MAX, error);
    return err;
}

static size_t part_bytes(const json_t *parts)
{
    size_t i, n = 0;
    json_t *part;
    json_array_foreach(parts, i, part) n += json_string_length(json_object_get(part, "text"));
    return n;
}

/* The content of one message: a text, or an array of text parts, joined at *free_at. */
static dure_err take_content(dure_span *out, char **free_at, const json_t *message,
                             dure_api_error *error)
{
    const json_t *content = given(message, "content");
    if (json_is_string(content)) {
        *out = dure_span_of(json_string_value(content), json_string_length(content));
        return DURE_OK;
    }
    if (!json_is_array(content))
        return dure_api_refuse(error, 400, "messages",
                               "the content of a message must be a text or a list of text parts");
    char *begin = *free_at;
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        const json_t *text = json_object_get(part, "text");
        const char *type = json_string_value(json_object_get(part, "type"));
        if (!type || strcmp(type, "text") || !json_is_string(text))
            return dure_api_refuse(error, 400, "messages",
                                   "a part of a message's content is not of type text");
        memcpy(*free_at, json_string_value(text), json_string_length(text));
        *free_at += json_string_length(text);
    }
    *out = dure_span_of(begin, (size_t)(*free_at - begin));
    return DURE_OK;
}

static dure_err take_message(dure_message *out, char **free_at, const json_t *message,
                             dure_api_error *error)
{
    dure_diag diag = {0};
    const char *role = json_string_value(json_object_get(message, "role"));
    if (role && !strcmp(role, "developer")) role = "system"; /* its newer name */
    if (!role || dure_role_parse(&out->role, role, &diag))
        return dure_api_refuse(error, 400, "messages",
                               "the role of a message must be system, user or assistant");
    return take_content(&out->content, free_at, message, error);
}

static dure_err take_messages(dure_api_request *r, dure_api_error *error)
{
    const json_t *list = json_object_get(r->json, "messages");
    size_t n = json_array_size(list), i, bytes = 0;
    if (!json_is_array(list) || n == 0 || n > DURE_API_MESSAGES_MAX)
        return dure_api_refuse(error, 400, "messages", "'messages' must be a list of 1 to %d",
                               DURE_API_MESSAGES_MAX);
    json_t *message;
    json_array_foreach(list, i, message) bytes += part_bytes(json_object_get(message, "content"));
    r->messages = calloc(n, sizeof *r->messages);
    r->joined = malloc(bytes + 1);
    if (!r->messages || !r->joined)
        return dure_api_refuse(error, 500, NULL, "the server is out of memory");
    char *free_at = r->joined;
    json_array_foreach(list, i, message)
    {
        dure_err err = take_message(&r->messages[i], &free_at, message, error);
        if (err) return err;
    }
    r->n_messages = n;
    return DURE_OK;
}

dure_err dure_api_parse_chat(dure_api_request *r, dure_span body, dure_api_error *error)
{
    bool has = false;
    dure_err err = parse_common(r, body, 1, error);
    r->chat = true;
    /* The newer name wins where both are given. */
    uint32_t newer = 0;
    if (!err) err = take_count(&newer, &has, r->json, "max_completion_tokens", 1, INT32_MAX, error);
    if (!err && has) {
        r->has_max_tokens = true;
        r->max_tokens = newer;
    }
    if (!err) err = take_bool(&r->logprobs, r->json, "logprobs", error);
    if (!err)
        err = take_count(&r->top_logprobs, &has, r->json, "top_logprobs", 0, DURE_API_LOGPROBS_MAX,
                         error);
    if (!err && has && !r->logprobs)
        err = dure_api_refuse(error, 400, "top_logprobs", "'top_logprobs' needs 'logprobs' true");
    return err ? err : take_messages(r, error);
}

static bool is_token_list(const json_t *value)
{
    size_t n = json_array_size(value), i;
    json_t *id;
    if (!json_is_array(value) || n == 0 || n > DURE_API_TOKENS_MAX) return false;
    json_array_foreach(value, i, id) if (!json_is_integer(id) || json_integer_value(id) < 0 ||
                                         json_integer_value(id) > INT32_MAX) return false;
    return true;
}

static dure_err take_prompt(dure_api_prompt *out, const json_t *value, dure_api_error *error)
{
    if (json_is_string(value))
        out->text = dure_span_of(json_string_value(value), json_string_length(value));
    else if (is_token_list(value))
        out->ids = value;
    else
        return dure_api_refuse(error, 400, "prompt",
                               "'prompt' must be a text, a list of token ids, or a list of these");
    return DURE_OK;
}

static dure_err take_prompts(dure_api_request *r, dure_api_error *error)
{
    const json_t *value = json_object_get(r->json, "prompt");
    bool several = json_is_array(value) && !json_is_integer(json_array_get(value, 0));
    size_t n = several ? json_array_size(value) : 1;
    if (n == 0 || n > DURE_API_PROMPTS_MAX)
        return dure_api_refuse(error, 400, "prompt", "'prompt' must hold 1 to %d prompts",
                               DURE_API_PROMPTS_MAX);
    r->prompts = calloc(n, sizeof *r->prompts);
    if (!r->prompts) return dure_api_refuse(error, 500, NULL, "the server is out of memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *one = several ? json_array_get(value, i) : value;
        dure_err err = take_prompt(&r->prompts[i], one, error);
        if (err) return err;
    }
    r->n_prompts = n;
    return DURE_OK;
}

dure_err dure_api_parse_completion(dure_api_request *r, dure_span body, dure_api_error *error)
{
    dure_err err = parse_common(r, body, 0, error);
    if (!err) err = take_bool(&r->echo, r->json, "echo", error);
    if (!err)
        err = take_count(&r->top_logprobs, &r->logprobs, r->json, "logprobs", 0,
                         DURE_API_LOGPROBS_MAX, error);
    return err ? err : take_prompts(r, error);
}

void dure_api_request_fini(dure_api_request *request)
{
    json_decref(request->json);
    free(request->joined);
    free(request->messages);
    free(request->prompts);
    *request = (dure_api_request){0};
}
