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

static dure_err take_pair(dure_conversation *out, const json_t *prompt, const json_t *response,
                          dure_diag *diag)
{
    if (!json_is_string(prompt) || !json_is_string(response))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "\"prompt\" and \"response\" must both be there and be texts");
    out->messages = calloc(2, sizeof *out->messages);
    if (!out->messages) return DURE_ERR_NOMEM;
    out->n = 2;
    out->messages[0] = (dure_message){
        DURE_ROLE_USER, dure_span_of(json_string_value(prompt), json_string_length(prompt))};
    out->messages[1] =
        (dure_message){DURE_ROLE_ASSISTANT,
                       dure_span_of(json_string_value(response), json_string_length(response))};
    out->answered = out->messages[1].content.n > 0;
    return DURE_OK;
}

dure_err dure_conversation_read(dure_conversation *out, const json_t *record, dure_diag *diag)
{
    const json_t *messages = json_object_get(record, "messages");
    const json_t *prompt = json_object_get(record, "prompt");
    const json_t *response = json_object_get(record, "response");
    bool pair = prompt || response;
    if (!json_is_object(record) || (messages != NULL) == pair)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "a record is an object with either \"messages\" or \"prompt\" and "
                             "\"response\"");
    *out = (dure_conversation){0};
    dure_err err =
        messages ? take_messages(out, messages, diag) : take_pair(out, prompt, response, diag);
    if (err) dure_conversation_fini(out);
    return err;
}

void dure_conversation_fini(dure_conversation *talk)
{
    if (!talk) return;
    free(talk->messages);
    *talk = (dure_conversation){0};
}
