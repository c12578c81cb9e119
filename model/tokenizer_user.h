/* User-defined tokens: texts that are always found whole in a text, before anything else is done
 * with it. The leftmost match wins, the longest of those that begin there, as in `tokenizers`.
 *
 * Threads: read-only once built. */
#pragma once

#include "model/tokenizer_vocab.h"

typedef struct dure_user_node {
    uint32_t child, next; /* first longer text, next alternative; 0: none */
    int32_t id;           /* the token that ends here, -1: none */
    uint8_t byte;
} dure_user_node;

typedef struct dure_user_tokens {
    dure_user_node *nodes; /* nodes[0] is the root; NULL: there are no such tokens */
    size_t n;
    bool starts[256];
} dure_user_tokens;

/* DURE_ERR_LIMIT for a text over 1024 bytes or over 4 MiB in all: texts made to cost time. */
DURE_MUST_USE dure_err dure_user_tokens_init(dure_user_tokens *out, const dure_vocab *v,
                                             dure_diag *diag);
void dure_user_tokens_fini(dure_user_tokens *u);

/* Where in text[at..n) the first such token begins; *id and *used are the token and its bytes.
 * Without one: n, *used is 0. */
size_t dure_user_tokens_next(int32_t *id, size_t *used, const dure_user_tokens *u,
                             const uint8_t *text, size_t n, size_t at);
