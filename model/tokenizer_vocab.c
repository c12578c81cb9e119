#include "model/tokenizer_vocab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_TOKENS = 1 << 20, MAX_PROBES = 1024, MAX_TEXT = 65535, ALPHABET = 324 };

/* GPT-2's printable alphabet: bytes that print stand for themselves, the other 68 for the code
 * points from U+0100 on. */
typedef struct byte_alphabet {
    int16_t byte_of[ALPHABET]; /* -1: the code point is not in the alphabet */
    int32_t code_of[256];
} byte_alphabet;

static bool prints_as_itself(int32_t code)
{
    return (code >= '!' && code <= '~') || (code >= 0xa1 && code <= 0xff && code != 0xad);
}

static void make_alphabet(byte_alphabet *a)
{
    int32_t next = 0x100;
    for (int32_t i = 0; i < ALPHABET; i++)
        a->byte_of[i] = -1;
    for (int32_t b = 0; b < 256; b++) {
        a->code_of[b] = prints_as_itself(b) ? b : next++;
        a->byte_of[a->code_of[b]] = (int16_t)b;
    }
}

/* The bytes that a token of the alphabet stands for; a text outside it stands for itself. */
static uint32_t decode_alphabet(uint8_t *out, const uint8_t *text, uint32_t n,
                                const byte_alphabet *a)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n;) {
        utf8proc_int32_t code;
        utf8proc_ssize_t used = utf8proc_iterate(text + i, (utf8proc_ssize_t)(n - i), &code);
        if (used <= 0 || code >= ALPHABET || a->byte_of[code] < 0) {
            memcpy(out, text, n);
            return n;
        }
        out[kept++] = (uint8_t)a->byte_of[code];
        i += (uint32_t)used;
    }
    return kept;
}

static uint32_t decode_spm(uint8_t *out, const uint8_t *text, uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n;) {
        bool space = n - i >= 3 && !memcmp(text + i, "\xe2\x96\x81", 3); /* U+2581 */
        out[kept++] = space ? ' ' : text[i];
        i += space ? 3 : 1;
    }
    return kept;
}

/* The byte of "<0x0A>", upper case; -1 for anything else. */
static int byte_of_text(const uint8_t *text, size_t n)
{
    static const char digits[] = "0123456789ABCDEF";
    if (n != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const char *high = memchr(digits, text[3], 16), *low = memchr(digits, text[4], 16);
    return high && low ? (int)(high - digits) << 4 | (int)(low - digits) : -1;
}

static uint64_t hash_text(const uint8_t *text, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ text[i]) * UINT64_C(0x100000001b3);
    return h ^ h >> 32;
}

static bool is_text(const dure_vocab *v, int32_t id, const uint8_t *text, size_t n)
{
    const dure_token *t = &v->tokens[id];
    return t->n == n && !memcmp(v->text + t->at, text, n);
}

static bool is_bytes(const dure_vocab *v, int32_t id, const uint8_t *bytes, size_t n)
{
    const dure_token *t = &v->tokens[id];
    return t->plain == n && !memcmp(v->bytes + t->at, bytes, n);
}

int32_t dure_vocab_find(const dure_vocab *v, const uint8_t *text, size_t n)
{
    for (size_t slot = (size_t)hash_text(text, n) & v->mask; v->slots[slot] >= 0;
         slot = (slot + 1) & v->mask)
        if (is_text(v, v->slots[slot], text, n)) return v->slots[slot];
    return -1;
}

int32_t dure_vocab_find_bytes(const dure_vocab *v, const uint8_t *bytes, size_t n)
{
    for (size_t slot = (size_t)hash_text(bytes, n) & v->mask; v->byte_slots[slot] >= 0;
         slot = (slot + 1) & v->mask)
        if (is_bytes(v, v->byte_slots[slot], bytes, n)) return v->byte_slots[slot];
    return -1;
}

bool dure_vocab_is_mergeable(const dure_vocab *v, int32_t id)
{
    if (id < 0 || (size_t)id >= v->n) return false;
    return v->tokens[id].type == DURE_TOKEN_NORMAL || v->tokens[id].type == DURE_TOKEN_UNUSED;
}

bool dure_vocab_is_special(const dure_vocab *v, int32_t id)
{
    if (id < 0 || (size_t)id >= v->n) return false;
    uint8_t type = v->tokens[id].type;
    return type == DURE_TOKEN_CONTROL || type == DURE_TOKEN_USER || type == DURE_TOKEN_UNKNOWN;
}

int32_t dure_vocab_find_mergeable(const dure_vocab *v, const uint8_t *text, size_t n)
{
    if (n > v->longest) return -1;
    int32_t id = dure_vocab_find(v, text, n);
    return dure_vocab_is_mergeable(v, id) ? id : -1;
}

static dure_err too_many_collide(dure_diag *diag)
{
    return dure_diag_set(diag, DURE_ERR_LIMIT, "tokenizer.ggml.tokens: too many texts collide");
}

/* The probes are bounded so that a vocabulary made to collide cannot cost quadratic time. */
static dure_err index_text(dure_vocab *v, int32_t id, dure_diag *diag)
{
    const dure_token *t = &v->tokens[id];
    size_t slot = (size_t)hash_text(v->text + t->at, t->n) & v->mask;
    for (size_t probes = 0; v->slots[slot] >= 0; probes++) {
        if (is_text(v, v->slots[slot], v->text + t->at, t->n))
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "tokenizer.ggml.tokens: the tokens %d and %d have the same text",
                                 v->slots[slot], id);
        if (probes == MAX_PROBES) return too_many_collide(diag);
        slot = (slot + 1) & v->mask;
    }
    v->slots[slot] = id;
    return DURE_OK;
}

/* Two texts may stand for the same bytes only where one is outside the alphabet; the first wins. */
static dure_err index_bytes(dure_vocab *v, int32_t id, dure_diag *diag)
{
    const dure_token *t = &v->tokens[id];
    size_t slot = (size_t)hash_text(v->bytes + t->at, t->plain) & v->mask;
    for (size_t probes = 0; v->byte_slots[slot] >= 0; probes++) {
        if (is_bytes(v, v->byte_slots[slot], v->bytes + t->at, t->plain)) return DURE_OK;
        if (probes == MAX_PROBES) return too_many_collide(diag);
        slot = (slot + 1) & v->mask;
    }
    v->byte_slots[slot] = id;
    return DURE_OK;
}

static dure_err size_vocabulary(size_t *total, const dure_gguf *gguf, size_t n, dure_diag *diag)
{
    *total = 0;
    for (size_t i = 0; i < n; i++) {
        dure_span text = {0};
        dure_err err = dure_gguf_array_text(&text, gguf, "tokenizer.ggml.tokens", i, diag);
        if (err) return err;
        if (text.n == 0 || text.n > MAX_TEXT)
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "tokenizer.ggml.tokens: token %zu has %zu bytes, not 1 to %d", i,
                                 text.n, MAX_TEXT);
        *total += text.n; /* at most 2^20 * 2^16 */
    }
    return DURE_OK;
}

static dure_err allocate(dure_vocab *v, size_t n, size_t text_bytes, dure_alphabet alphabet)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    v->mask = size - 1;
    v->tokens = calloc(n, sizeof *v->tokens);
    v->text = malloc(text_bytes);
    v->bytes = malloc(text_bytes);
    v->slots = malloc(size * sizeof *v->slots);
    if (!v->tokens || !v->text || !v->bytes || !v->slots) return DURE_ERR_NOMEM;
    memset(v->slots, 0xff, size * sizeof *v->slots);
    if (alphabet != DURE_ALPHABET_BYTES) return DURE_OK;
    v->byte_slots = malloc(size * sizeof *v->byte_slots);
    if (!v->byte_slots) return DURE_ERR_NOMEM;
    memset(v->byte_slots, 0xff, size * sizeof *v->byte_slots);
    return DURE_OK;
}

static dure_err read_type(uint8_t *type, const dure_gguf *gguf, size_t i, dure_diag *diag)
{
    int32_t number = DURE_TOKEN_NORMAL;
    if (dure_gguf_has(gguf, "tokenizer.ggml.token_type")) {
        dure_err err = dure_gguf_array_i32(&number, gguf, "tokenizer.ggml.token_type", i, diag);
        if (err) return err;
    }
    if (number < DURE_TOKEN_NORMAL || number > DURE_TOKEN_BYTE)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "tokenizer.ggml.token_type: token %zu is of unknown type %d", i,
                             number);
    *type = (uint8_t)number;
    return DURE_OK;
}

static dure_err read_score(float *score, const dure_gguf *gguf, size_t i, dure_diag *diag)
{
    dure_err err = dure_gguf_array_f32(score, gguf, "tokenizer.ggml.scores", i, diag);
    if (!err && isnan(*score))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "tokenizer.ggml.scores: the score of token %zu is not a number", i);
    return err;
}

static dure_err decode_token(dure_vocab *v, dure_token *t, const byte_alphabet *a, dure_diag *diag)
{
    const uint8_t *text = v->text + t->at;
    uint8_t *bytes = v->bytes + t->at;
    if (t->type == DURE_TOKEN_BYTE) {
        int byte = byte_of_text(text, t->n);
        char shown[128];
        dure_gguf_print(shown, dure_span_of(text, t->n));
        if (byte < 0)
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "tokenizer.ggml.tokens: token %zu is a byte, but its text '%.40s' "
                                 "is not of the form <0x0A>",
                                 (size_t)(t - v->tokens), shown);
        bytes[0] = (uint8_t)byte;
        t->plain = 1;
    } else if (t->type == DURE_TOKEN_NORMAL || t->type == DURE_TOKEN_UNUSED) {
        t->plain = a ? decode_alphabet(bytes, text, t->n, a) : decode_spm(bytes, text, t->n);
        if (t->n > v->longest) v->longest = t->n;
    } else {
        memcpy(bytes, text, t->n);
        t->plain = t->n;
    }
    return DURE_OK;
}

/* `a` NULL: SPM. */
static dure_err read_token(dure_vocab *v, size_t *at, const dure_gguf *gguf, const byte_alphabet *a,
                           dure_diag *diag)
{
    dure_span text = {0};
    dure_token *t = &v->tokens[v->n];
    *t = (dure_token){.at = *at};
    dure_err err = dure_gguf_array_text(&text, gguf, "tokenizer.ggml.tokens", v->n, diag);
    if (!err) err = read_type(&t->type, gguf, v->n, diag);
    if (!err && !a) err = read_score(&t->score, gguf, v->n, diag);
    if (err) return err;
    t->n = (uint32_t)text.n;
    memcpy(v->text + t->at, text.data, text.n);
    *at += text.n;
    err = decode_token(v, t, a, diag);
    if (err) return err;
    int32_t id = (int32_t)v->n++;
    err = index_text(v, id, diag);
    if (!err && a && t->type == DURE_TOKEN_NORMAL) err = index_bytes(v, id, diag);
    return err;
}

static void find_bytes_of_alphabet(dure_vocab *v, const byte_alphabet *a)
{
    for (int b = 0; b < 256; b++) {
        uint8_t text[4];
        utf8proc_ssize_t used = utf8proc_encode_char(a->code_of[b], text);
        v->byte_ids[b] = dure_vocab_find_mergeable(v, text, (size_t)used);
    }
}

static dure_err find_bytes_of_spm(dure_vocab *v, dure_diag *diag)
{
    for (int b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", (unsigned)b);
        v->byte_ids[b] = dure_vocab_find(v, (const uint8_t *)text, 6);
        if (v->byte_ids[b] < 0 || v->tokens[v->byte_ids[b]].type != DURE_TOKEN_BYTE)
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "tokenizer.ggml.tokens lacks the byte token %s, so not every text "
                                 "could be written",
                                 text);
    }
    return DURE_OK;
}

/* What opens and closes a message of a known chat template. Some vocabularies list these as normal
 * or user-defined tokens; they are control tokens here, because a person's text must never become
 * one. */
static void guard_markers(dure_vocab *v)
{
    static const char *const markers[] = {
        "<|im_start|>",      "<|im_end|>",    "<|start_header_id|>", "<|end_header_id|>",
        "<|begin_of_text|>", "<|eot_id|>",    "<|eom_id|>",          "<|end_of_text|>",
        "<start_of_turn>",   "<end_of_turn>", "<|endoftext|>",
    };
    for (size_t i = 0; i < sizeof markers / sizeof markers[0]; i++) {
        int32_t id = dure_vocab_find(v, (const uint8_t *)markers[i], strlen(markers[i]));
        if (id >= 0) v->tokens[id].type = DURE_TOKEN_CONTROL;
    }
}

dure_err dure_vocab_read(dure_vocab *out, const dure_gguf *gguf, dure_alphabet alphabet,
                         dure_diag *diag)
{
    size_t n = 0, total = 0, at = 0;
    *out = (dure_vocab){0};
    dure_err err = dure_gguf_array(&n, gguf, "tokenizer.ggml.tokens", diag);
    if (err) return err;
    if (n == 0 || n > MAX_TOKENS)
        return dure_diag_set(diag, DURE_ERR_LIMIT,
                             "tokenizer.ggml.tokens has %zu tokens, not 1 to %d", n, MAX_TOKENS);
    byte_alphabet a;
    make_alphabet(&a);
    bool spm = alphabet == DURE_ALPHABET_SPM;
    err = size_vocabulary(&total, gguf, n, diag);
    if (!err) err = allocate(out, n, total, alphabet);
    while (!err && out->n < n)
        err = read_token(out, &at, gguf, spm ? NULL : &a, diag);
    if (!err) guard_markers(out);
    if (!err && !spm) find_bytes_of_alphabet(out, &a);
    if (!err && spm) err = find_bytes_of_spm(out, diag);
    if (err) dure_vocab_fini(out);
    return err;
}

void dure_vocab_fini(dure_vocab *v)
{
    free(v->tokens);
    free(v->text);
    free(v->bytes);
    free(v->slots);
    free(v->byte_slots);
    *v = (dure_vocab){0};
}
