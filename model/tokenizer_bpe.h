/* The merges of a byte-level vocabulary: pairs of tokens that become a third, in their order.
 *
 * Threads: read-only once the merges are added. */
#pragma once

#include "model/tokenizer_merge.h"

typedef struct dure_bpe_pair {
    uint64_t key; /* left id << 32 | right id */
    uint32_t rank;
    int32_t merged; /* -1: empty slot */
} dure_bpe_pair;

/* Open addressing; the size is a power of two and at least twice the merges. */
typedef struct dure_bpe {
    dure_bpe_pair *slots;
    size_t mask;
    uint32_t n;
} dure_bpe;

DURE_MUST_USE dure_err dure_bpe_init(dure_bpe *bpe, size_t n_merges);
void dure_bpe_fini(dure_bpe *bpe);
/* The next rank. DURE_ERR_EXISTS for a pair that is there already, DURE_ERR_LIMIT when so many
 * pairs collide that the list must have been made for it. */
DURE_MUST_USE dure_err dure_bpe_add(dure_bpe *bpe, int32_t left, int32_t right, int32_t merged);

/* Merges ids[0..*n) in place, *n shrinks. O(n log n). */
DURE_MUST_USE dure_err dure_bpe_merge(int32_t *ids, size_t *n, const dure_bpe *bpe);
