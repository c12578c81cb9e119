/* The one function that turns messages into tokens: for training, generation and serving alike.
 *
 * The template is recognised by the text of `tokenizer.chat_template`; one that is not known is
 * refused by name. ChatML as in SmolLM2 puts the default system message where none is given.
 * Content is encoded as plain text: a "<|im_end|>" inside it never becomes the special token. */
#pragma once

#include "model/tokenizer.h"

typedef enum dure_role { DURE_ROLE_SYSTEM, DURE_ROLE_USER, DURE_ROLE_ASSISTANT } dure_role;
/* "system", "user", "assistant"; DURE_ERR_FORMAT for another. */
DURE_MUST_USE dure_err dure_role_parse(dure_role *out, const char *text, dure_diag *diag);

typedef struct dure_message {
    dure_role role;
    dure_span content; /* UTF-8, borrowed */
} dure_message;

/* The templates that are known, as they stand in `tokenizer.chat_template`. */
extern const char dure_chat_template_smollm2[]; /* ChatML with a default system message */
extern const char dure_chat_template_chatml[];  /* ChatML alone */

typedef struct dure_chat_template {
    const char *name;         /* "smollm2" or "chatml" */
    char default_system[256]; /* empty: none is added */
    int32_t begin, end;       /* <|im_start|>, <|im_end|> */
} dure_chat_template;

/* DURE_ERR_NOT_FOUND if the model has no template, DURE_ERR_UNSUPPORTED for an unknown one. */
DURE_MUST_USE dure_err dure_chat_template_find(dure_chat_template *out, const dure_gguf *gguf,
                                               const dure_tokenizer *t, dure_diag *diag);

/* Appends the conversation. The tokens of assistant messages, their closing token included, are
 * marked supervised. `open_answer`: ends with the opening of an assistant message.
 *
 * Role and content of system and user messages are encoded as one text, as the Jinja template
 * does. An answer is encoded on its own, so that what a generation starts from is, token by token,
 * what training showed; that differs from Jinja only where an answer begins with white space. */
DURE_MUST_USE dure_err dure_chat_render(dure_tokens *out, const dure_chat_template *chat,
                                        const dure_tokenizer *t, const dure_message *messages,
                                        size_t n, bool open_answer);
