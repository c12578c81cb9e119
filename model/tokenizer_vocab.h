/* The vocabulary of a GGUF: each token's text, the bytes it stands for, its type and its score.
 *
 * Texts are unique. Byte-level vocabularies write bytes in GPT-2's printable alphabet,
 * SentencePiece ones (SPM) write a space as U+2581 and a lone byte as the token "<0x0A>".
 *
 * Threads: read-only once read. Sources: llama.cpp src/llama-vocab.cpp, ggml docs/gguf.md. */
#pragma once

#include "common/err.h"
#include "model/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum dure_token_type {
    DURE_TOKEN_NORMAL = 1,
    DURE_TOKEN_UNKNOWN,
    DURE_TOKEN_CONTROL, /* never comes from text */
    DURE_TOKEN_USER,    /* always found in text, whole */
    DURE_TOKEN_UNUSED,
    DURE_TOKEN_BYTE, /* one byte, written "<0x0A>" */
} dure_token_type;

typedef enum dure_alphabet { DURE_ALPHABET_BYTES, DURE_ALPHABET_SPM } dure_alphabet;

typedef struct dure_token {
    size_t at;      /* in the vocabulary's `text` and `bytes` */
    uint32_t n;     /* bytes of the text */
    uint32_t plain; /* bytes after decoding; never more than n */
    float score;    /* SPM alone */
    uint8_t type;   /* dure_token_type */
    bool end;       /* ends a generation */
} dure_token;

typedef struct dure_vocab {
    dure_token *tokens;
    size_t n;
    uint8_t *text;       /* every token as the vocabulary writes it, one after the other */
    uint8_t *bytes;      /* every token as the bytes it stands for; same offsets */
    int32_t *slots;      /* hash table of ids by text; -1: empty */
    int32_t *byte_slots; /* the same by bytes; normal tokens of a byte alphabet alone */
    size_t mask;
    uint32_t longest;      /* text of a token that is not special */
    int32_t byte_ids[256]; /* -1: the vocabulary has no token for this byte */
} dure_vocab;

/* Fails with a sentence when the arrays do not fit each other, a text is empty, over 65535 bytes
 * or there twice, a byte token is not "<0xHH>", or SPM lacks a score or one of the 256 bytes.
 * On error *out is empty. */
DURE_MUST_USE dure_err dure_vocab_read(dure_vocab *out, const dure_gguf *gguf,
                                       dure_alphabet alphabet, dure_diag *diag);
void dure_vocab_fini(dure_vocab *v);

/* The token of that text; -1 if there is none. */
int32_t dure_vocab_find(const dure_vocab *v, const uint8_t *text, size_t n);
/* The same, of those that a text may become by merging: normal and unused ones. */
int32_t dure_vocab_find_mergeable(const dure_vocab *v, const uint8_t *text, size_t n);
/* The normal token that stands for these bytes; byte alphabet. */
int32_t dure_vocab_find_bytes(const dure_vocab *v, const uint8_t *bytes, size_t n);
bool dure_vocab_is_mergeable(const dure_vocab *v, int32_t id);
bool dure_vocab_is_special(const dure_vocab *v, int32_t id); /* control, unknown, user-defined */
