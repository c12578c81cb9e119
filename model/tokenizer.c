#include "model/tokenizer.h"

#include "model/tokenizer_bpe.h"
#include "model/tokenizer_split.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { MAX_TOKENS = 1 << 20, MAX_MERGES = 1 << 21, MAX_PROBES = 1024, MAX_TEXT = 65535 };
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER, TYPE_UNUSED, TYPE_BYTE };

typedef struct piece {
    size_t at;      /* in `text` */
    uint32_t n;     /* bytes in the vocabulary's alphabet */
    uint32_t plain; /* bytes after decoding, at `at` in `bytes`; never more than n */
    uint8_t type;
    bool end;
} piece;

struct dure_tokenizer {
    piece *pieces;
    size_t n;
    uint8_t *text;  /* every token as the vocabulary writes it, one after the other */
    uint8_t *bytes; /* every token as the bytes it stands for; same offsets */
    int32_t *slots; /* hash table of ids by text; -1: empty */
    size_t mask;
    int32_t byte_ids[256]; /* -1: the vocabulary has no token for this byte */
    dure_bpe bpe;
};

void dure_tokens_fini(dure_tokens *tokens)
{
    if (!tokens) return;
    free(tokens->ids);
    free(tokens->supervised);
    *tokens = (dure_tokens){0};
}

static dure_err tokens_reserve(dure_tokens *tokens, size_t n)
{
    if (n <= tokens->capacity - tokens->n) return DURE_OK;
    size_t capacity = tokens->capacity ? tokens->capacity : 256;
    while (capacity - tokens->n < n)
        capacity *= 2;
    int32_t *ids = realloc(tokens->ids, capacity * sizeof *ids);
    if (!ids) return DURE_ERR_NOMEM;
    tokens->ids = ids;
    uint8_t *supervised = realloc(tokens->supervised, capacity);
    if (!supervised) return DURE_ERR_NOMEM;
    tokens->supervised = supervised;
    tokens->capacity = capacity;
    return DURE_OK;
}

dure_err dure_tokens_push(dure_tokens *tokens, int32_t id, bool supervised)
{
    dure_err err = tokens_reserve(tokens, 1);
    if (err) return err;
    tokens->ids[tokens->n] = id;
    tokens->supervised[tokens->n++] = supervised ? 1 : 0;
    return DURE_OK;
}

/* GPT-2's printable alphabet: bytes that print stand for themselves, the other 68 for the code
 * points from U+0100 on. Returns the byte for a code point, -1 if it is not in the alphabet. */
static bool prints_as_itself(int32_t code)
{
    return (code >= '!' && code <= '~') || (code >= 0xa1 && code <= 0xff && code != 0xad);
}

static void make_alphabet(int16_t byte_of[324], int32_t code_of[256])
{
    int32_t next = 0x100;
    for (int32_t i = 0; i < 324; i++)
        byte_of[i] = -1;
    for (int32_t b = 0; b < 256; b++) {
        code_of[b] = prints_as_itself(b) ? b : next++;
        byte_of[code_of[b]] = (int16_t)b;
    }
}

/* The bytes that a normal token stands for; a text outside the alphabet stands for itself. */
static uint32_t decode_piece(uint8_t *out, const uint8_t *text, uint32_t n,
                             const int16_t byte_of[324])
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n;) {
        utf8proc_int32_t code;
        utf8proc_ssize_t used = utf8proc_iterate(text + i, (utf8proc_ssize_t)(n - i), &code);
        if (used <= 0 || code >= 324 || byte_of[code] < 0) {
            memcpy(out, text, n);
            return n;
        }
        out[kept++] = (uint8_t)byte_of[code];
        i += (uint32_t)used;
    }
    return kept;
}

static uint64_t hash_text(const uint8_t *text, size_t n)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    for (size_t i = 0; i < n; i++)
        h = (h ^ text[i]) * UINT64_C(0x100000001b3);
    return h ^ h >> 32;
}

static int32_t find_text(const dure_tokenizer *t, const uint8_t *text, size_t n)
{
    for (size_t slot = (size_t)hash_text(text, n) & t->mask; t->slots[slot] >= 0;
         slot = (slot + 1) & t->mask) {
        const piece *p = &t->pieces[t->slots[slot]];
        if (p->n == n && !memcmp(t->text + p->at, text, n)) return t->slots[slot];
    }
    return -1;
}

/* The probes are bounded so that a vocabulary made to collide cannot cost quadratic time. */
static dure_err index_text(dure_tokenizer *t, int32_t id, dure_diag *diag)
{
    const piece *p = &t->pieces[id];
    size_t slot = (size_t)hash_text(t->text + p->at, p->n) & t->mask;
    for (size_t probes = 0; t->slots[slot] >= 0; probes++) {
        const piece *other = &t->pieces[t->slots[slot]];
        if (other->n == p->n && !memcmp(t->text + other->at, t->text + p->at, p->n))
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "tokenizer.ggml.tokens: the tokens %d and %d have the same text",
                                 t->slots[slot], id);
        if (probes == MAX_PROBES)
            return dure_diag_set(diag, DURE_ERR_LIMIT,
                                 "tokenizer.ggml.tokens: too many texts collide");
        slot = (slot + 1) & t->mask;
    }
    t->slots[slot] = id;
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

static dure_err allocate(dure_tokenizer *t, size_t n, size_t text_bytes)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    t->mask = size - 1;
    t->pieces = calloc(n, sizeof *t->pieces);
    t->text = malloc(text_bytes);
    t->bytes = malloc(text_bytes);
    t->slots = malloc(size * sizeof *t->slots);
    if (!t->pieces || !t->text || !t->bytes || !t->slots) return DURE_ERR_NOMEM;
    memset(t->slots, 0xff, size * sizeof *t->slots);
    return DURE_OK;
}

static dure_err read_token(dure_tokenizer *t, size_t *at, const dure_gguf *gguf,
                           const int16_t byte_of[324], dure_diag *diag)
{
    dure_span text = {0};
    int32_t type = TYPE_NORMAL;
    dure_err err = dure_gguf_array_text(&text, gguf, "tokenizer.ggml.tokens", t->n, diag);
    if (!err && dure_gguf_has(gguf, "tokenizer.ggml.token_type"))
        err = dure_gguf_array_i32(&type, gguf, "tokenizer.ggml.token_type", t->n, diag);
    if (err) return err;
    if (type < TYPE_NORMAL || type > TYPE_BYTE)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "tokenizer.ggml.token_type: token %zu is of unknown type %d", t->n,
                             type);
    piece *p = &t->pieces[t->n];
    *p = (piece){.at = *at, .n = (uint32_t)text.n, .type = (uint8_t)type};
    memcpy(t->text + p->at, text.data, text.n);
    if (type == TYPE_NORMAL) {
        p->plain = decode_piece(t->bytes + p->at, text.data, p->n, byte_of);
    } else {
        memcpy(t->bytes + p->at, text.data, text.n);
        p->plain = p->n;
    }
    *at += text.n;
    t->n++;
    return index_text(t, (int32_t)t->n - 1, diag);
}

static dure_err read_vocabulary(dure_tokenizer *t, const dure_gguf *gguf, dure_diag *diag)
{
    size_t n = 0, total = 0, at = 0;
    dure_err err = dure_gguf_array(&n, gguf, "tokenizer.ggml.tokens", diag);
    if (err) return err;
    if (n == 0 || n > MAX_TOKENS)
        return dure_diag_set(diag, DURE_ERR_LIMIT,
                             "tokenizer.ggml.tokens has %zu tokens, not 1 to %d", n, MAX_TOKENS);
    err = size_vocabulary(&total, gguf, n, diag);
    if (!err) err = allocate(t, n, total);
    int16_t byte_of[324];
    int32_t code_of[256];
    make_alphabet(byte_of, code_of);
    for (size_t i = 0; i < n && !err; i++)
        err = read_token(t, &at, gguf, byte_of, diag);
    if (err) return err;
    for (int b = 0; b < 256; b++) {
        uint8_t text[4];
        utf8proc_ssize_t used = utf8proc_encode_char(code_of[b], text);
        t->byte_ids[b] = find_text(t, text, (size_t)used);
    }
    return DURE_OK;
}

/* A merge is "left right"; the alphabet has no space, so the first one separates them. */
static dure_err read_merge(dure_tokenizer *t, const dure_gguf *gguf, size_t i, dure_diag *diag)
{
    dure_span text = {0};
    dure_err err = dure_gguf_array_text(&text, gguf, "tokenizer.ggml.merges", i, diag);
    if (err) return err;
    const uint8_t *space = text.n > 2 ? memchr(text.data + 1, ' ', text.n - 2) : NULL;
    if (!space || text.n > MAX_TEXT)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "tokenizer.ggml.merges: entry %zu is not two texts with a space "
                             "between them",
                             i);
    uint8_t joined[MAX_TEXT]; /* text.n is at most MAX_TEXT */
    size_t n_left = (size_t)(space - text.data), n_right = text.n - n_left - 1;
    memcpy(joined, text.data, n_left);
    memcpy(joined + n_left, space + 1, n_right);
    int32_t left = find_text(t, joined, n_left), right = find_text(t, space + 1, n_right);
    int32_t merged = find_text(t, joined, n_left + n_right);
    if (left < 0 || right < 0 || merged < 0)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "tokenizer.ggml.merges: entry %zu names a token that is not in the "
                             "vocabulary",
                             i);
    err = dure_bpe_add(&t->bpe, left, right, merged);
    if (err) dure_diag_set(diag, err, "tokenizer.ggml.merges: entry %zu repeats another", i);
    return err;
}

static dure_err read_merges(dure_tokenizer *t, const dure_gguf *gguf, dure_diag *diag)
{
    size_t n = 0;
    dure_err err = dure_gguf_array(&n, gguf, "tokenizer.ggml.merges", diag);
    if (err) return err;
    if (n > MAX_MERGES)
        return dure_diag_set(diag, DURE_ERR_LIMIT, "tokenizer.ggml.merges has over %d entries",
                             MAX_MERGES);
    err = dure_bpe_init(&t->bpe, n);
    for (size_t i = 0; i < n && !err; i++)
        err = read_merge(t, gguf, i, diag);
    return err;
}

/* The model ends its turn with the token that its metadata names; chat models also know others. */
static dure_err mark_ends(dure_tokenizer *t, const dure_gguf *gguf, dure_diag *diag)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    static const char *const texts[] = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        uint32_t id = 0;
        if (!dure_gguf_has(gguf, keys[i])) continue;
        dure_err err = dure_gguf_u32(&id, gguf, keys[i], diag);
        if (err) return err;
        if (id >= t->n)
            return dure_diag_set(diag, DURE_ERR_FORMAT,
                                 "%s is %u, but the vocabulary has %zu tokens", keys[i], id, t->n);
        t->pieces[id].end = true;
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int32_t id = dure_tokenizer_special(t, texts[i]);
        if (id >= 0) t->pieces[id].end = true;
    }
    return DURE_OK;
}

static bool equals(dure_span text, const char *wanted)
{
    return text.n == strlen(wanted) && !memcmp(text.data, wanted, text.n);
}

/* The splitters that share the rule of tokenizer_split.h under other models' names. */
static bool is_known_splitter(dure_span name)
{
    static const char *const known[] = {"smollm", "starcoder", "refact", "command-r"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (equals(name, known[i])) return true;
    return false;
}

static dure_err check_kind(const dure_gguf *gguf, dure_diag *diag)
{
    dure_span model = {0}, splitter = dure_span_of_text("(none)");
    if (dure_gguf_has(gguf, "adapter.type"))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "this is an adapter, not a base model; name the base with --model and "
                             "the adapter with --adapter");
    dure_err err = dure_gguf_text(&model, gguf, "tokenizer.ggml.model", diag);
    if (!err && dure_gguf_has(gguf, "tokenizer.ggml.pre"))
        err = dure_gguf_text(&splitter, gguf, "tokenizer.ggml.pre", diag);
    if (err) return err;
    if (equals(model, "gpt2") && is_known_splitter(splitter)) return DURE_OK;
    char model_text[128], splitter_text[128];
    dure_gguf_print(model_text, model);
    dure_gguf_print(splitter_text, splitter);
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "the tokenizer '%s' with the splitter '%s' is not supported; use a model "
                         "with 'gpt2' and 'smollm', such as SmolLM2",
                         model_text, splitter_text);
}

dure_err dure_tokenizer_new(dure_tokenizer **out, const dure_gguf *gguf, dure_diag *diag)
{
    *out = NULL;
    dure_err err = check_kind(gguf, diag);
    if (err) return err;
    dure_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return DURE_ERR_NOMEM;
    err = read_vocabulary(t, gguf, diag);
    if (!err) err = read_merges(t, gguf, diag);
    if (!err) err = mark_ends(t, gguf, diag);
    if (err)
        dure_tokenizer_free(&t);
    else
        *out = t;
    return err;
}

void dure_tokenizer_free(dure_tokenizer **t)
{
    if (!t || !*t) return;
    free((*t)->pieces);
    free((*t)->text);
    free((*t)->bytes);
    free((*t)->slots);
    dure_bpe_fini(&(*t)->bpe);
    free(*t);
    *t = NULL;
}

/* A byte that the vocabulary lacks is dropped, as `tokenizers` does without an unknown token. */
static dure_err encode_piece(dure_tokens *out, const dure_tokenizer *t, const uint8_t *text,
                             size_t n)
{
    dure_err err = tokens_reserve(out, n);
    if (err) return err;
    int32_t *ids = out->ids + out->n;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (t->byte_ids[text[i]] >= 0) ids[kept++] = t->byte_ids[text[i]];
    err = dure_bpe_merge(ids, &kept, &t->bpe);
    if (!err) out->n += kept;
    return err;
}

dure_err dure_tokenizer_encode(dure_tokens *out, const dure_tokenizer *t, dure_span text,
                               bool supervised)
{
    size_t first = out->n;
    dure_err err = DURE_OK;
    for (size_t at = 0; at < text.n && !err;) {
        size_t n = dure_split_next(text.data + at, text.n - at);
        err = encode_piece(out, t, text.data + at, n);
        at += n;
    }
    if (err)
        out->n = first;
    else if (out->n > first)
        memset(out->supervised + first, supervised ? 1 : 0, out->n - first);
    return err;
}

bool dure_tokenizer_is_special(const dure_tokenizer *t, int32_t id)
{
    if (id < 0 || (size_t)id >= t->n) return false;
    return t->pieces[id].type == TYPE_CONTROL || t->pieces[id].type == TYPE_USER;
}

int32_t dure_tokenizer_special(const dure_tokenizer *t, const char *text)
{
    int32_t id = find_text(t, (const uint8_t *)text, strlen(text));
    return dure_tokenizer_is_special(t, id) ? id : -1;
}

dure_span dure_tokenizer_piece(const dure_tokenizer *t, int32_t id)
{
    if (id < 0 || (size_t)id >= t->n) return dure_span_of(NULL, 0);
    return dure_span_of(t->bytes + t->pieces[id].at, t->pieces[id].plain);
}

bool dure_tokenizer_is_end(const dure_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n && t->pieces[id].end;
}

size_t dure_tokenizer_size(const dure_tokenizer *t)
{
    return t->n;
}
