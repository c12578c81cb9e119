#include "model/tokenizer_user.h"

#include <stdlib.h>

enum { MAX_TEXT = 1024, MAX_TOTAL = 1 << 22 };

static dure_err size_texts(size_t *total, const dure_vocab *v, dure_diag *diag)
{
    *total = 0;
    for (size_t i = 0; i < v->n; i++) {
        if (v->tokens[i].type != DURE_TOKEN_USER) continue;
        if (v->tokens[i].n > MAX_TEXT)
            return dure_diag_set(diag, DURE_ERR_LIMIT,
                                 "tokenizer.ggml.tokens: the user-defined token %zu has %u bytes, "
                                 "more than %d",
                                 i, v->tokens[i].n, MAX_TEXT);
        *total += v->tokens[i].n;
    }
    if (*total > MAX_TOTAL)
        return dure_diag_set(diag, DURE_ERR_LIMIT,
                             "tokenizer.ggml.tokens: the user-defined tokens have over %d bytes",
                             MAX_TOTAL);
    return DURE_OK;
}

static uint32_t child_of(const dure_user_tokens *u, uint32_t node, uint8_t byte)
{
    uint32_t child = u->nodes[node].child;
    while (child && u->nodes[child].byte != byte)
        child = u->nodes[child].next;
    return child;
}

static void add(dure_user_tokens *u, const uint8_t *text, size_t n, int32_t id)
{
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t child = child_of(u, node, text[i]);
        if (!child) {
            child = (uint32_t)u->n++;
            u->nodes[child] = (dure_user_node){0, u->nodes[node].child, -1, text[i]};
            u->nodes[node].child = child;
        }
        node = child;
    }
    u->nodes[node].id = id;
    u->starts[text[0]] = true;
}

dure_err dure_user_tokens_init(dure_user_tokens *out, const dure_vocab *v, dure_diag *diag)
{
    *out = (dure_user_tokens){0};
    size_t total = 0;
    dure_err err = size_texts(&total, v, diag);
    if (err || total == 0) return err;
    out->nodes = malloc((total + 1) * sizeof *out->nodes);
    if (!out->nodes) return DURE_ERR_NOMEM;
    out->nodes[0] = (dure_user_node){0, 0, -1, 0};
    out->n = 1;
    for (size_t i = 0; i < v->n; i++)
        if (v->tokens[i].type == DURE_TOKEN_USER)
            add(out, v->text + v->tokens[i].at, v->tokens[i].n, (int32_t)i);
    return DURE_OK;
}

void dure_user_tokens_fini(dure_user_tokens *u)
{
    free(u->nodes);
    *u = (dure_user_tokens){0};
}

static size_t longest_at(int32_t *id, const dure_user_tokens *u, const uint8_t *text, size_t n)
{
    size_t used = 0;
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        node = child_of(u, node, text[i]);
        if (!node) break;
        if (u->nodes[node].id < 0) continue;
        *id = u->nodes[node].id;
        used = i + 1;
    }
    return used;
}

size_t dure_user_tokens_next(int32_t *id, size_t *used, const dure_user_tokens *u,
                             const uint8_t *text, size_t n, size_t at)
{
    *used = 0;
    if (!u->nodes) return n;
    for (; at < n; at++) {
        if (!u->starts[text[at]]) continue;
        *used = longest_at(id, u, text + at, n - at);
        if (*used) return at;
    }
    return n;
}
