#include "model/tokenizer.h"

#include "model/tokenizer_bpe.h"
#include "model/tokenizer_compose.h"
#include "model/tokenizer_split.h"
#include "model/tokenizer_spm.h"
#include "model/tokenizer_user.h"
#include "model/tokenizer_vocab.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_MERGES = 1 << 21, MAX_MERGE_TEXT = 65535 };

/* What `tokenizer.ggml.pre` stands for. */
typedef struct splitter {
    const char *name;
    dure_split rule;
    bool whole_words; /* a word that is a token is taken at once, whatever the merges say */
    bool composes;    /* text is brought into Unicode's form NFC first */
    bool adds_bos;    /* unless the metadata say otherwise */
} splitter;

static const splitter splitters[] = {
    {"smollm", DURE_SPLIT_SMOLLM, false, false, false},
    {"starcoder", DURE_SPLIT_SMOLLM, false, false, false},
    {"refact", DURE_SPLIT_SMOLLM, false, false, false},
    {"command-r", DURE_SPLIT_SMOLLM, false, true, false},
    {"gpt-2", DURE_SPLIT_GPT2, false, false, false},
    {"llama-bpe", DURE_SPLIT_LLAMA3, true, false, true},
    {"llama3", DURE_SPLIT_LLAMA3, true, false, true},
    {"llama-v3", DURE_SPLIT_LLAMA3, true, false, true},
    {"qwen2", DURE_SPLIT_QWEN2, false, true, false},
};

struct dure_tokenizer {
    const splitter *splitter; /* NULL: SPM */
    dure_vocab vocab;
    dure_user_tokens user;
    dure_bpe bpe;
    dure_spm spm;
    int32_t bos; /* -1: none */
    bool adds_bos, adds_space;
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

/* A merge is "left right"; the alphabet has no space, so the first one separates them. */
static dure_err read_merge(dure_tokenizer *t, const dure_gguf *gguf, size_t i, dure_diag *diag)
{
    dure_span text = {0};
    dure_err err = dure_gguf_array_text(&text, gguf, "tokenizer.ggml.merges", i, diag);
    if (err) return err;
    const uint8_t *space = text.n > 2 ? memchr(text.data + 1, ' ', text.n - 2) : NULL;
    if (!space || text.n > MAX_MERGE_TEXT)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "tokenizer.ggml.merges: entry %zu is not two texts with a space "
                             "between them",
                             i);
    uint8_t joined[MAX_MERGE_TEXT]; /* text.n is at most that */
    size_t n_left = (size_t)(space - text.data), n_right = text.n - n_left - 1;
    memcpy(joined, text.data, n_left);
    memcpy(joined + n_left, space + 1, n_right);
    int32_t left = dure_vocab_find_mergeable(&t->vocab, joined, n_left);
    int32_t right = dure_vocab_find_mergeable(&t->vocab, space + 1, n_right);
    int32_t merged = dure_vocab_find_mergeable(&t->vocab, joined, n_left + n_right);
    if (left < 0 || right < 0 || merged < 0)
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "tokenizer.ggml.merges: entry %zu names a token that is not in the "
                             "vocabulary, or that text may not become",
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

/* *id stays as it is when the key is missing. */
static dure_err read_id(int32_t *id, const dure_tokenizer *t, const dure_gguf *gguf,
                        const char *key, dure_diag *diag)
{
    uint32_t number = 0;
    if (!dure_gguf_has(gguf, key)) return DURE_OK;
    dure_err err = dure_gguf_u32(&number, gguf, key, diag);
    if (err) return err;
    if (number >= t->vocab.n)
        return dure_diag_set(diag, DURE_ERR_FORMAT, "%s is %u, but the vocabulary has %zu tokens",
                             key, number, t->vocab.n);
    *id = (int32_t)number;
    return DURE_OK;
}

static dure_err read_flag(bool *flag, const dure_gguf *gguf, const char *key, dure_diag *diag)
{
    return dure_gguf_has(gguf, key) ? dure_gguf_bool(flag, gguf, key, diag) : DURE_OK;
}

/* The model ends its turn with the token that its metadata names; chat models also know others. */
static dure_err mark_ends(dure_tokenizer *t, const dure_gguf *gguf, dure_diag *diag)
{
    static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    static const char *const texts[] = {
        "<|im_end|>",    "<|endoftext|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>",
        "<end_of_turn>", "<|end|>",       "<eos>",      "</s>",
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        int32_t id = -1;
        dure_err err = read_id(&id, t, gguf, keys[i], diag);
        if (err) return err;
        if (id >= 0) t->vocab.tokens[id].end = true;
    }
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        int32_t id = dure_tokenizer_special(t, texts[i]);
        if (id >= 0) t->vocab.tokens[id].end = true; /* Gemma's user-defined </s> is a web page's */
    }
    return DURE_OK;
}

static dure_err read_starts(dure_tokenizer *t, const dure_gguf *gguf, dure_diag *diag)
{
    t->bos = !t->splitter && t->vocab.n > 1 ? 1 : -1; /* SentencePiece's own numbering */
    t->adds_bos = t->splitter ? t->splitter->adds_bos : true;
    t->adds_space = !t->splitter;
    dure_err err = read_id(&t->bos, t, gguf, "tokenizer.ggml.bos_token_id", diag);
    if (!err) err = read_flag(&t->adds_bos, gguf, "tokenizer.ggml.add_bos_token", diag);
    if (!err && !t->splitter)
        err = read_flag(&t->adds_space, gguf, "tokenizer.ggml.add_space_prefix", diag);
    if (err) return err;
    if (t->bos < 0) t->adds_bos = false;
    return DURE_OK;
}

static bool equals(dure_span text, const char *wanted)
{
    return text.n == strlen(wanted) && !memcmp(text.data, wanted, text.n);
}

/* *found is NULL for SPM. */
static dure_err find_splitter(const splitter **found, const dure_gguf *gguf, dure_diag *diag)
{
    dure_span model = {0}, name = dure_span_of_text("(none)");
    *found = NULL;
    if (dure_gguf_has(gguf, "adapter.type"))
        return dure_diag_set(diag, DURE_ERR_FORMAT,
                             "this is an adapter, not a base model; name the base with --model and "
                             "the adapter with --adapter");
    dure_err err = dure_gguf_text(&model, gguf, "tokenizer.ggml.model", diag);
    if (err || equals(model, "llama")) return err;
    if (dure_gguf_has(gguf, "tokenizer.ggml.pre"))
        err = dure_gguf_text(&name, gguf, "tokenizer.ggml.pre", diag);
    if (err) return err;
    for (size_t i = 0; i < sizeof splitters / sizeof splitters[0] && equals(model, "gpt2"); i++) {
        if (!equals(name, splitters[i].name)) continue;
        *found = &splitters[i];
        return DURE_OK;
    }
    char model_text[128], name_text[128];
    dure_gguf_print(model_text, model);
    dure_gguf_print(name_text, name);
    return dure_diag_set(diag, DURE_ERR_UNSUPPORTED,
                         "the tokenizer '%s' with the splitter '%s' is not supported; use a model "
                         "with 'llama' (SentencePiece), or 'gpt2' and one of smollm, gpt-2, "
                         "llama-bpe or qwen2",
                         model_text, name_text);
}

dure_err dure_tokenizer_new(dure_tokenizer **out, const dure_gguf *gguf, dure_diag *diag)
{
    *out = NULL;
    const splitter *found;
    dure_err err = find_splitter(&found, gguf, diag);
    if (err) return err;
    dure_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return DURE_ERR_NOMEM;
    t->splitter = found;
    err = dure_vocab_read(&t->vocab, gguf, found ? DURE_ALPHABET_BYTES : DURE_ALPHABET_SPM, diag);
    if (!err) err = dure_user_tokens_init(&t->user, &t->vocab, diag);
    if (!err) err = found ? read_merges(t, gguf, diag) : dure_spm_init(&t->spm, &t->vocab);
    if (!err) err = mark_ends(t, gguf, diag);
    if (!err) err = read_starts(t, gguf, diag);
    if (err)
        dure_tokenizer_free(&t);
    else
        *out = t;
    return err;
}

void dure_tokenizer_free(dure_tokenizer **t)
{
    if (!t || !*t) return;
    dure_vocab_fini(&(*t)->vocab);
    dure_user_tokens_fini(&(*t)->user);
    dure_bpe_fini(&(*t)->bpe);
    dure_spm_fini(&(*t)->spm);
    free(*t);
    *t = NULL;
}

/* A byte that the vocabulary lacks is dropped, as `tokenizers` does without an unknown token. */
static dure_err encode_word(dure_tokens *out, const dure_tokenizer *t, const uint8_t *text,
                            size_t n)
{
    dure_err err = tokens_reserve(out, n);
    if (err) return err;
    int32_t *ids = out->ids + out->n;
    if (t->splitter->whole_words) {
        ids[0] = dure_vocab_find_bytes(&t->vocab, text, n);
        if (dure_vocab_is_mergeable(&t->vocab, ids[0])) {
            out->n++;
            return DURE_OK;
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (t->vocab.byte_ids[text[i]] >= 0) ids[kept++] = t->vocab.byte_ids[text[i]];
    err = dure_bpe_merge(ids, &kept, &t->bpe);
    if (!err) out->n += kept;
    return err;
}

static dure_err encode_words(dure_tokens *out, const dure_tokenizer *t, const uint8_t *text,
                             size_t n)
{
    dure_err err = DURE_OK;
    for (size_t at = 0; at < n && !err;) {
        size_t length = dure_split_next(t->splitter->rule, text + at, n - at);
        err = encode_word(out, t, text + at, length);
        at += length;
    }
    return err;
}

static bool is_ascii(const uint8_t *text, size_t n)
{
    uint8_t all = 0;
    for (size_t i = 0; i < n; i++)
        all |= text[i];
    return all < 0x80;
}

/* A text that is not UTF-8 has no composed form and is taken as it is. */
static dure_err encode_composed(dure_tokens *out, const dure_tokenizer *t, const uint8_t *text,
                                size_t n)
{
    uint8_t *composed = NULL;
    size_t length = 0;
    if (is_ascii(text, n)) return encode_words(out, t, text, n);
    dure_err err = dure_compose(&composed, &length, text, n);
    if (err == DURE_ERR_FORMAT) return encode_words(out, t, text, n);
    if (!err) err = encode_words(out, t, composed, length);
    free(composed);
    return err;
}

static dure_err encode_pieces(dure_tokens *out, const dure_tokenizer *t, const uint8_t *text,
                              size_t n)
{
    bool space =
        t->adds_space && (out->n == 0 || dure_vocab_is_special(&t->vocab, out->ids[out->n - 1]));
    dure_err err = tokens_reserve(out, dure_spm_room(text, n, space));
    if (err) return err;
    size_t kept = 0;
    err = dure_spm_encode(out->ids + out->n, &kept, &t->spm, text, n, space);
    if (!err) out->n += kept;
    return err;
}

static dure_err encode_between(dure_tokens *out, const dure_tokenizer *t, const uint8_t *text,
                               size_t n)
{
    if (n == 0) return DURE_OK;
    if (!t->splitter) return encode_pieces(out, t, text, n);
    return t->splitter->composes ? encode_composed(out, t, text, n) : encode_words(out, t, text, n);
}

dure_err dure_tokenizer_encode(dure_tokens *out, const dure_tokenizer *t, dure_span text,
                               bool supervised)
{
    size_t first = out->n, at = 0;
    dure_err err = DURE_OK;
    while (at < text.n && !err) {
        int32_t id = -1;
        size_t used = 0;
        size_t end = dure_user_tokens_next(&id, &used, &t->user, text.data, text.n, at);
        err = encode_between(out, t, text.data + at, end - at);
        if (!err && used) err = dure_tokens_push(out, id, supervised);
        at = end + used;
    }
    if (err)
        out->n = first;
    else if (out->n > first)
        memset(out->supervised + first, supervised ? 1 : 0, out->n - first);
    return err;
}

bool dure_tokenizer_is_special(const dure_tokenizer *t, int32_t id)
{
    if (id < 0 || (size_t)id >= t->vocab.n) return false;
    uint8_t type = t->vocab.tokens[id].type;
    return type == DURE_TOKEN_CONTROL || type == DURE_TOKEN_UNKNOWN;
}

int32_t dure_tokenizer_special(const dure_tokenizer *t, const char *text)
{
    int32_t id = dure_vocab_find(&t->vocab, (const uint8_t *)text, strlen(text));
    return dure_tokenizer_is_special(t, id) ? id : -1;
}

int32_t dure_tokenizer_bos(const dure_tokenizer *t)
{
    return t->bos;
}

bool dure_tokenizer_adds_bos(const dure_tokenizer *t)
{
    return t->adds_bos;
}

dure_err dure_tokenizer_begin(dure_tokens *out, const dure_tokenizer *t)
{
    return t->adds_bos ? dure_tokens_push(out, t->bos, false) : DURE_OK;
}

dure_span dure_tokenizer_piece(const dure_tokenizer *t, int32_t id)
{
    if (id < 0 || (size_t)id >= t->vocab.n) return dure_span_of(NULL, 0);
    return dure_span_of(t->vocab.bytes + t->vocab.tokens[id].at, t->vocab.tokens[id].plain);
}

bool dure_tokenizer_is_end(const dure_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->vocab.n && t->vocab.tokens[id].end;
}

size_t dure_tokenizer_size(const dure_tokenizer *t)
{
    return t->vocab.n;
}

const char *dure_tokenizer_name(const dure_tokenizer *t)
{
    return t->splitter ? t->splitter->name : "SentencePiece";
}
