/* SentencePiece's byte-pair merging (Kudo and Richardson, arXiv 1808.06226), as llama.cpp does it:
 * spaces are written U+2581; of all neighbours that together are a token, the pair of the highest
 * score merges first, the leftmost of equals; a character that is no token falls back to its
 * bytes.
 *
 * Threads: read-only once made. */
#pragma once

#include "model/tokenizer_vocab.h"

typedef struct dure_spm {
    const dure_vocab *vocab; /* borrowed */
    /* [a * 256 + b]: some token has byte b right after byte a. No merge crosses another boundary,
     * so a text may be cut there. */
    uint8_t *neighbours;
} dure_spm;

DURE_MUST_USE dure_err dure_spm_init(dure_spm *out, const dure_vocab *vocab);
void dure_spm_fini(dure_spm *spm);

/* Writes the ids of `text` and returns their count through *n. `ids` has room for one id a byte of
 * what dure_spm_room() says. `space_prefix`: a space is put before the text. */
size_t dure_spm_room(const uint8_t *text, size_t n, bool space_prefix);
DURE_MUST_USE dure_err dure_spm_encode(int32_t *ids, size_t *n_ids, const dure_spm *spm,
                                       const uint8_t *text, size_t n, bool space_prefix);
