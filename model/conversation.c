#include "model/conversation.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_MESSAGES = 4096 };

static dure_err take_message(dure_message *out, bool *answered, json_t *from, dure_diag *diag)
{
    const char *role = json_string_value(json_object_get(from, "role"));
    const json_t *content = json_object_get(from, "content");
    if (!role || !json_is_string(content))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "each message needs a \"role\" and a \"content\", both texts");
    const char *key;
    json_t *value;
    json_object_foreach(from, key, value)
    {
        if (!strcmp(key, "role") || !strcmp(key, "content")) continue;
        char shown[128];
        dure_gguf_print(shown, dure_span_of_text(key));
        return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                             "a message has the key \"%s\", which training would not respect; "
                             "remove it",
                             shown);
    }
    dure_err err = dure_role_parse(&out->role, role, diag);
    if (err) return err;
    out->content = dure_span_of(json_string_value(content), json_string_length(content));
    if (out->role == DURE_ROLE_ASSISTANT && out->content.n) *answered = true;
    return DURE_OK;
}

static dure_err take_messages(dure_conversation *out, const json_t *list, dure_diag *diag)
{
    size_t n = json_array_size(list);
    if (n == 0 || n > MAX_MESSAGES)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "\"messages\" must be an array of 1 to %d messages", MAX_MESSAGES);
    out->messages = calloc(n, sizeof *out->messages);
    if (!out->messages) return DURE_ERR_NOMEM;
    out->n = n;
    dure_err err = DURE_OK;
    for (size_t i = 0; i < n && !err; i++)
        err = take_message(&out->messages[i], &out->answered, json_array_get(list, i), diag);
    return err;
}

static dure_span text_of(const json_t *value)
{
    return dure_span_of(json_string_value(value), json_string_length(value));
}

/* A question, its answer and, if it is there, the system message before them. */
static dure_err take_exchange(dure_conversation *out, const json_t *record, dure_span question,
                              dure_span answer, dure_diag *diag)
{
    const json_t *system = json_object_get(record, "system");
    if (system && !json_is_string(system) && !json_is_null(system))
        return dure_diag_set(diag, DURE_ERR_FORMAT, "\"system\" must be a text");
    out->messages = calloc(3, sizeof *out->messages);
    if (!out->messages) return DURE_ERR_NOMEM;
    if (json_string_length(system))
        out->messages[out->n++] = (dure_message){DURE_ROLE_SYSTEM, text_of(system)};
    out->messages[out->n++] = (dure_message){DURE_ROLE_USER, question};
    out->messages[out->n++] = (dure_message){DURE_ROLE_ASSISTANT, answer};
    out->answered = answer.n > 0;
    return DURE_OK;
}

static dure_err take_pair(dure_conversation *out, const json_t *record, dure_diag *diag)
{
    const json_t *prompt = json_object_get(record, "prompt");
    const json_t *response = json_object_get(record, "response");
    if (!json_is_string(prompt) || !json_is_string(response))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "\"prompt\" and \"response\" must both be there and be texts");
    return take_exchange(out, record, text_of(prompt), text_of(response), diag);
}

static dure_err take_instruction(dure_conversation *out, const json_t *record, dure_diag *diag)
{
    const json_t *instruction = json_object_get(record, "instruction");
    const json_t *input = json_object_get(record, "input");
    const json_t *output = json_object_get(record, "output");
    if (!json_is_string(instruction) || !json_is_string(output) ||
        (input && !json_is_string(input) && !json_is_null(input)))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "\"instruction\" and \"output\" must both be there and be texts; "
                             "\"input\" may be a third");
    dure_span question = text_of(instruction);
    size_t more = json_string_length(input);
    if (more) {
        size_t n = question.n + 2 + more;
        out->joined = malloc(n);
        if (!out->joined) return DURE_ERR_NOMEM;
        memcpy(out->joined, question.data, question.n);
        memcpy(out->joined + question.n, "\n\n", 2);
        memcpy(out->joined + question.n + 2, json_string_value(input), more);
        question = dure_span_of(out->joined, n);
    }
    return take_exchange(out, record, question, text_of(output), diag);
}

dure_err dure_conversation_read(dure_conversation *out, const json_t *record, dure_diag *diag)
{
    const json_t *messages = json_object_get(record, "messages");
    bool pair = json_object_get(record, "prompt") || json_object_get(record, "response");
    bool task = json_object_get(record, "instruction") || json_object_get(record, "output");
    *out = (dure_conversation){0};
    if (!json_is_object(record) || (messages != NULL) + pair + task != 1)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "a record has either \"messages\", or \"prompt\" and \"response\", or "
                             "\"instruction\" and \"output\", or a \"text\" alone");
    dure_err err = messages ? take_messages(out, messages, diag)
                   : pair   ? take_pair(out, record, diag)
                            : take_instruction(out, record, diag);
    if (err) dure_conversation_fini(out);
    return err;
}

void dure_conversation_fini(dure_conversation *talk)
{
    if (!talk) return;
    free(talk->messages);
    free(talk->joined);
    *talk = (dure_conversation){0};
}
