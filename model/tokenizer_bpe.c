#include "model/tokenizer_bpe.h"

#include <stdlib.h>

enum { FEW = 48, MOST_PROBES = 1024 };

dure_err dure_bpe_init(dure_bpe *bpe, size_t n_merges)
{
    size_t size = 16;
    while (size < 2 * n_merges)
        size *= 2;
    *bpe = (dure_bpe){.slots = malloc(size * sizeof *bpe->slots), .mask = size - 1};
    if (!bpe->slots) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < size; i++)
        bpe->slots[i] = (dure_bpe_pair){.merged = -1};
    return DURE_OK;
}

void dure_bpe_fini(dure_bpe *bpe)
{
    free(bpe->slots);
    *bpe = (dure_bpe){0};
}

static uint64_t pair_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t slot_of(uint64_t key, size_t mask)
{
    uint64_t h = key * UINT64_C(0x9e3779b97f4a7c15);
    return (size_t)(h ^ h >> 29) & mask;
}

dure_err dure_bpe_add(dure_bpe *bpe, int32_t left, int32_t right, int32_t merged)
{
    uint64_t key = pair_key(left, right);
    size_t slot = slot_of(key, bpe->mask);
    for (size_t probes = 0; bpe->slots[slot].merged >= 0; probes++) {
        if (bpe->slots[slot].key == key) return DURE_ERR_EXISTS;
        if (probes == MOST_PROBES) return DURE_ERR_LIMIT;
        slot = (slot + 1) & bpe->mask;
    }
    bpe->slots[slot] = (dure_bpe_pair){key, bpe->n++, merged};
    return DURE_OK;
}

static uint32_t rank_of(int32_t *merged, const void *context, const dure_symbol *left,
                        const dure_symbol *right)
{
    const dure_bpe *bpe = context;
    uint64_t key = pair_key(left->id, right->id);
    for (size_t slot = slot_of(key, bpe->mask);; slot = (slot + 1) & bpe->mask) {
        const dure_bpe_pair *pair = &bpe->slots[slot];
        if (pair->merged < 0) return DURE_NO_RANK;
        if (pair->key == key) {
            *merged = pair->merged;
            return pair->rank;
        }
    }
}

dure_err dure_bpe_merge(int32_t *ids, size_t *n, const dure_bpe *bpe)
{
    dure_symbol few[FEW], *symbols = few;
    if (*n > UINT32_MAX) return DURE_ERR_LIMIT;
    if (*n > FEW) symbols = malloc(*n * sizeof *symbols);
    if (!symbols) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < *n; i++)
        symbols[i] = (dure_symbol){ids[i], (uint32_t)i, 1};
    dure_err err = dure_merge(symbols, n, rank_of, bpe);
    for (size_t i = 0; i < *n && !err; i++)
        ids[i] = symbols[i].id;
    if (symbols != few) free(symbols);
    return err;
}
