#include "model/tokenizer_spm.h"

#include "model/tokenizer_merge.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static const uint8_t space[3] = {0xe2, 0x96, 0x81}; /* U+2581 */

dure_err dure_spm_init(dure_spm *out, const dure_vocab *vocab)
{
    *out = (dure_spm){vocab, calloc(256 * 256, 1)};
    if (!out->neighbours) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < vocab->n; i++) {
        if (!dure_vocab_is_mergeable(vocab, (int32_t)i)) continue;
        const uint8_t *text = vocab->text + vocab->tokens[i].at;
        for (size_t j = 1; j < vocab->tokens[i].n; j++)
            out->neighbours[text[j - 1] * 256 + text[j]] = 1;
    }
    return DURE_OK;
}

void dure_spm_fini(dure_spm *spm)
{
    free(spm->neighbours);
    *spm = (dure_spm){0};
}

typedef struct escaped_text {
    const dure_vocab *vocab;
    const uint8_t *text;
} escaped_text;

/* A high score is a low rank: the bits of a float, turned so that they sort from high to low. */
static uint32_t rank_of_score(float score)
{
    uint32_t bits;
    score += 0.0f; /* -0 and 0 are equal */
    memcpy(&bits, &score, sizeof bits);
    return bits >> 31 ? bits : ~bits & 0x7fffffff; /* no score is NaN, so none is DURE_NO_RANK */
}

static uint32_t rank_of(int32_t *merged, const void *context, const dure_symbol *left,
                        const dure_symbol *right)
{
    const escaped_text *e = context;
    *merged = dure_vocab_find_mergeable(e->vocab, e->text + left->at, left->n + right->n);
    return *merged < 0 ? DURE_NO_RANK : rank_of_score(e->vocab->tokens[*merged].score);
}

size_t dure_spm_room(const uint8_t *text, size_t n, bool space_prefix)
{
    size_t room = n + (space_prefix ? sizeof space : 0);
    for (size_t i = 0; i < n; i++)
        if (text[i] == ' ') room += sizeof space - 1;
    return room;
}

static void escape(uint8_t *out, const uint8_t *text, size_t n, bool space_prefix)
{
    if (space_prefix) {
        memcpy(out, space, sizeof space);
        out += sizeof space;
    }
    for (size_t i = 0; i < n; i++) {
        if (text[i] != ' ') {
            *out++ = text[i];
            continue;
        }
        memcpy(out, space, sizeof space);
        out += sizeof space;
    }
}

/* A byte that begins no character of UTF-8 stands alone: it must not swallow a space. */
static size_t character_bytes(const uint8_t *text, size_t n)
{
    if (text[0] < 0x80) return 1;
    utf8proc_int32_t code;
    utf8proc_ssize_t used = utf8proc_iterate(text, n < 4 ? (utf8proc_ssize_t)n : 4, &code);
    return used > 0 ? (size_t)used : 1;
}

/* The characters from *at up to a place that no token crosses. */
static size_t take_segment(dure_symbol *symbols, size_t *at, const dure_spm *spm,
                           const uint8_t *text, size_t n)
{
    size_t taken = 0;
    do {
        size_t length = character_bytes(text + *at, n - *at);
        int32_t id = dure_vocab_find_mergeable(spm->vocab, text + *at, length);
        symbols[taken++] = (dure_symbol){id, (uint32_t)*at, (uint32_t)length};
        *at += length;
    } while (*at < n && spm->neighbours[text[*at - 1] * 256 + text[*at]]);
    return taken;
}

static size_t put_symbol(int32_t *ids, const dure_vocab *v, const uint8_t *text,
                         const dure_symbol *symbol)
{
    if (symbol->id >= 0) {
        ids[0] = symbol->id;
        return 1;
    }
    for (size_t i = 0; i < symbol->n; i++)
        ids[i] = v->byte_ids[text[symbol->at + i]];
    return symbol->n;
}

dure_err dure_spm_encode(int32_t *ids, size_t *n_ids, const dure_spm *spm, const uint8_t *text,
                         size_t n, bool space_prefix)
{
    size_t room = dure_spm_room(text, n, space_prefix), at = 0;
    *n_ids = 0;
    if (n == 0) return DURE_OK;
    if (room > UINT32_MAX / 4) return DURE_ERR_LIMIT;
    uint8_t *escaped = malloc(room);
    dure_symbol *symbols = malloc(room * sizeof *symbols);
    dure_err err = escaped && symbols ? DURE_OK : DURE_ERR_NOMEM;
    if (err) goto out;
    escape(escaped, text, n, space_prefix);
    escaped_text context = {spm->vocab, escaped};
    while (at < room && !err) {
        size_t taken = take_segment(symbols, &at, spm, escaped, room);
        err = dure_merge(symbols, &taken, rank_of, &context);
        for (size_t i = 0; i < taken && !err; i++)
            *n_ids += put_symbol(ids + *n_ids, spm->vocab, escaped, &symbols[i]);
    }
out:
    free(escaped);
    free(symbols);
    return err;
}
