/* A conversation as JSON, in the forms that data files use:
 *   {"messages": [{"role": "user", "content": "..."}, ...]}
 *   {"prompt": "...", "response": "..."}, one user message and its answer
 *   {"instruction": "...", "input": "...", "output": "..."}, where a user message of the
 *     instruction, a blank line and the input (if there is one) is answered by the output
 * The last two may have a "system" message. Other keys of the record are ignored (an id, a source);
 * other keys of a message are refused, because training would not respect what they ask for
 * ("weight", "tool_calls"). */
#pragma once

#include "model/chat_template.h"

#include <jansson.h>

typedef struct dure_conversation {
    dure_message *messages; /* owned; their texts are borrowed from the JSON or from `joined` */
    size_t n;
    char *joined;  /* owned: instruction and input; NULL when there was nothing to join */
    bool answered; /* some assistant message has text */
} dure_conversation;

/* DURE_ERR_FORMAT or DURE_ERR_UNSUPPORTED with a sentence; *out is then empty. `record` must
 * outlive *out; dure_conversation_fini(out). */
DURE_MUST_USE dure_err dure_conversation_read(dure_conversation *out, const json_t *record,
                                              dure_diag *diag);
void dure_conversation_fini(dure_conversation *talk);
