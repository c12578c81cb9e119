/* Merging of neighbours, the loop that byte-pair encoding and SentencePiece share: repeatedly the
 * pair of lowest rank becomes one symbol, the leftmost pair of equals first.
 * Sennrich et al., arXiv 1508.07909; the same order as the `tokenizers` library. */
#pragma once

#include "common/err.h"

#include <stddef.h>
#include <stdint.h>

#define DURE_NO_RANK UINT32_MAX

typedef struct dure_symbol {
    int32_t id;     /* the token, -1: none */
    uint32_t at, n; /* the bytes that it stands for, for a rank that goes by text */
} dure_symbol;

/* The rank of a pair and the token that it becomes; DURE_NO_RANK if it does not merge. Must depend
 * on what the two symbols are alone. */
typedef uint32_t dure_pair_rank(int32_t *merged, const void *context, const dure_symbol *left,
                                const dure_symbol *right);

/* Merges symbols[0..*n) in place, *n shrinks. Neighbours join their bytes. O(n log n). */
DURE_MUST_USE dure_err dure_merge(dure_symbol *symbols, size_t *n, dure_pair_rank *rank,
                                  const void *context);
