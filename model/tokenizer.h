/* Text to token ids and back, from the vocabulary inside a GGUF.
 *
 * Byte-level BPE (`tokenizer.ggml.model` = gpt2) with the splitters of tokenizer_split.h, and
 * SentencePiece (= llama: Llama 2, Gemma 3). Agrees with the `tokenizers` library; where llama.cpp
 * does not, tests/oracle/tokenizer_parity.py names the difference.
 *
 * Threads: read-only after creation. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "model/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A growable list of token ids with one byte of marking each (what is supervised). */
typedef struct dure_tokens {
    int32_t *ids;
    uint8_t *supervised;
    size_t n, capacity;
} dure_tokens;
void dure_tokens_fini(dure_tokens *tokens);
DURE_MUST_USE dure_err dure_tokens_push(dure_tokens *tokens, int32_t id, bool supervised);

typedef struct dure_tokenizer dure_tokenizer;

/* Borrows nothing from `gguf`. The caller owns *out. An unknown model or splitter is
 * DURE_ERR_UNSUPPORTED and named. */
DURE_MUST_USE dure_err dure_tokenizer_new(dure_tokenizer **out, const dure_gguf *gguf,
                                          dure_diag *diag);
void dure_tokenizer_free(dure_tokenizer **t);

/* Appends the ids of `text` (UTF-8; invalid bytes are taken as single bytes). Where the model wants
 * form NFC, text that is not UTF-8 or has more than 256 combining marks in a row (to put them in
 * order takes the square of their number) is taken as it is. Control tokens are never recognised
 * inside text: what a person wrote stays text. User-defined tokens always are. Where the vocabulary
 * wants a space before a text (SPM), it is put at the start of *out and after a special token.
 * Nothing else is added, so no BOS. */
DURE_MUST_USE dure_err dure_tokenizer_encode(dure_tokens *out, const dure_tokenizer *t,
                                             dure_span text, bool supervised);
/* The id of a special token by its text; -1 if there is none. Special are control tokens, which no
 * text can become; user-defined ones, such as Gemma's line breaks, are text. */
int32_t dure_tokenizer_special(const dure_tokenizer *t, const char *text);
/* The beginning-of-text token, -1 if the vocabulary has none. */
int32_t dure_tokenizer_bos(const dure_tokenizer *t);
/* Whether the model expects that token before a plain text (a chat template says so itself). */
bool dure_tokenizer_adds_bos(const dure_tokenizer *t);
/* Appends that token if the model expects it; the start of a plain text. */
DURE_MUST_USE dure_err dure_tokenizer_begin(dure_tokens *out, const dure_tokenizer *t);
/* The bytes of one token, borrowed; special tokens give their text. Empty for an id out of
 * range. */
dure_span dure_tokenizer_piece(const dure_tokenizer *t, int32_t id);
bool dure_tokenizer_is_special(const dure_tokenizer *t, int32_t id);
bool dure_tokenizer_is_end(const dure_tokenizer *t, int32_t id); /* ends a generation */
size_t dure_tokenizer_size(const dure_tokenizer *t);
/* "llama-bpe", "SentencePiece": for people. Static. */
const char *dure_tokenizer_name(const dure_tokenizer *t);
