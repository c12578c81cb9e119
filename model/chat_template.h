/* The one function that turns messages into tokens: for training, generation and serving alike.
 *
 * The template is recognised by the text of `tokenizer.chat_template`; one that is not known is
 * refused, unless the person names the family. It is rendered as Jinja would, for messages of the
 * roles system, user and assistant and without tools. Llama 3.1 writes a date; Dure always takes
 * the template's own, so that the same record gives the same tokens tomorrow.
 *
 * Content is encoded as plain text: a "<|im_end|>" inside it never becomes the special token. */
#pragma once

#include "model/tokenizer.h"

typedef enum dure_role { DURE_ROLE_SYSTEM, DURE_ROLE_USER, DURE_ROLE_ASSISTANT } dure_role;
/* "system", "user", "assistant"; DURE_ERR_FORMAT for another. */
DURE_MUST_USE dure_err dure_role_parse(dure_role *out, const char *text, dure_diag *diag);
const char *dure_role_name(dure_role role);

typedef struct dure_message {
    dure_role role;
    dure_span content; /* UTF-8, borrowed */
} dure_message;

typedef struct dure_chat_template {
    const char *name;                      /* "smollm2", "llama3.1", ... */
    const struct dure_chat_family *family; /* static; NULL: nothing can be rendered */
    int32_t bos, begin, header_end, end;   /* special tokens; -1: not used */
    dure_diag why;                         /* without a family: the reason */
} dure_chat_template;

/* The names of the families, separated by commas, for people. */
extern const char dure_chat_template_names[];

/* The family of that name, whatever the model says; DURE_ERR_USAGE for one that is not known.
 * `name` NULL: the one that the model's template belongs to; DURE_ERR_NOT_FOUND if it has none,
 * DURE_ERR_UNSUPPORTED for an unknown one. DURE_ERR_FORMAT when the vocabulary lacks the special
 * tokens. After an error *out renders no conversation and keeps the reason, so that a model may be
 * opened for plain texts. */
DURE_MUST_USE dure_err dure_chat_template_open(dure_chat_template *out, const char *name,
                                               const dure_gguf *gguf, const dure_tokenizer *t,
                                               dure_diag *diag);

/* Appends the conversation. The tokens of assistant messages, their closing token included, are
 * marked supervised. `open_answer`: ends with the opening of an assistant message.
 * DURE_ERR_FORMAT where the template refuses the order of the roles, DURE_ERR_STATE when it could
 * not be opened.
 *
 * Role and content of system and user messages are encoded as one text, as the Jinja template
 * does. An answer is encoded on its own, so that what a generation starts from is, token by token,
 * what training showed; that differs from Jinja only where an answer begins with white space. */
DURE_MUST_USE dure_err dure_chat_render(dure_tokens *out, const dure_chat_template *chat,
                                        const dure_tokenizer *t, const dure_message *messages,
                                        size_t n, bool open_answer, dure_diag *diag);
