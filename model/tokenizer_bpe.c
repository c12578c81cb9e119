#include "model/tokenizer_bpe.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT = 48, MOST_PROBES = 1024 };
#define NO_RANK UINT32_MAX

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

/* The rank of a pair, NO_RANK if it does not merge. */
static uint32_t find(int32_t *merged, const dure_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t key = pair_key(left, right);
    for (size_t slot = slot_of(key, bpe->mask);; slot = (slot + 1) & bpe->mask) {
        const dure_bpe_pair *pair = &bpe->slots[slot];
        if (pair->merged < 0) return NO_RANK;
        if (pair->key == key) {
            *merged = pair->merged;
            return pair->rank;
        }
    }
}

/* Words are short: looking through all ranks is faster than any heap. */
static void merge_short(int32_t *ids, size_t *n, const dure_bpe *bpe)
{
    uint32_t ranks[SHORT];
    int32_t merged[SHORT];
    for (size_t i = 0; i + 1 < *n; i++)
        ranks[i] = find(&merged[i], bpe, ids[i], ids[i + 1]);
    while (*n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < *n; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == NO_RANK) return;
        ids[best] = merged[best];
        size_t moved = *n - best - 2;
        memmove(ids + best + 1, ids + best + 2, moved * sizeof *ids);
        memmove(ranks + best, ranks + best + 1, moved * sizeof *ranks);
        memmove(merged + best, merged + best + 1, moved * sizeof *merged);
        --*n;
        if (best + 1 < *n) ranks[best] = find(&merged[best], bpe, ids[best], ids[best + 1]);
        if (best > 0) ranks[best - 1] = find(&merged[best - 1], bpe, ids[best - 1], ids[best]);
    }
}

/* A pair that could merge; stale when the symbols at `at` are no longer these two. */
typedef struct candidate {
    uint32_t rank, at;
    int32_t left, right;
} candidate;

typedef struct symbol {
    int32_t id; /* -1: swallowed by its left neighbour */
    uint32_t previous, next;
} symbol;

typedef struct long_merge {
    const dure_bpe *bpe;
    symbol *symbols;
    candidate *heap; /* least (rank, at) first */
    size_t n_heap;
} long_merge;

static bool comes_first(const candidate *a, const candidate *b)
{
    return a->rank < b->rank || (a->rank == b->rank && a->at < b->at);
}

static void heap_push(long_merge *m, candidate c)
{
    size_t i = m->n_heap++;
    for (; i > 0; i = (i - 1) / 2) {
        if (!comes_first(&c, &m->heap[(i - 1) / 2])) break;
        m->heap[i] = m->heap[(i - 1) / 2];
    }
    m->heap[i] = c;
}

static candidate heap_pop(long_merge *m)
{
    candidate top = m->heap[0], last = m->heap[--m->n_heap];
    size_t i = 0;
    for (size_t child = 1; child < m->n_heap; child = 2 * i + 1) {
        if (child + 1 < m->n_heap && comes_first(&m->heap[child + 1], &m->heap[child])) child++;
        if (!comes_first(&m->heap[child], &last)) break;
        m->heap[i] = m->heap[child];
        i = child;
    }
    m->heap[i] = last;
    return top;
}

static void consider(long_merge *m, uint32_t at)
{
    uint32_t next = m->symbols[at].next;
    if (next == UINT32_MAX) return;
    int32_t merged, left = m->symbols[at].id, right = m->symbols[next].id;
    uint32_t rank = find(&merged, m->bpe, left, right);
    if (rank != NO_RANK) heap_push(m, (candidate){rank, at, left, right});
}

static void merge_at(long_merge *m, const candidate *c)
{
    symbol *left = &m->symbols[c->at];
    if (left->id != c->left || left->next == UINT32_MAX) return;
    symbol *right = &m->symbols[left->next];
    if (right->id != c->right) return;
    find(&left->id, m->bpe, c->left, c->right);
    left->next = right->next;
    right->id = -1;
    if (left->next != UINT32_MAX) m->symbols[left->next].previous = c->at;
    consider(m, c->at);
    if (left->previous != UINT32_MAX) consider(m, left->previous);
}

static dure_err merge_long(int32_t *ids, size_t *n, const dure_bpe *bpe)
{
    /* n - 1 pairs at first and at most two new ones for each of n - 1 merges. */
    long_merge m = {.bpe = bpe,
                    .symbols = malloc(*n * sizeof *m.symbols),
                    .heap = malloc(3 * *n * sizeof *m.heap)};
    dure_err err = m.symbols && m.heap ? DURE_OK : DURE_ERR_NOMEM;
    if (err) goto out;
    for (uint32_t i = 0; i < *n; i++)
        m.symbols[i] = (symbol){ids[i], i - 1, i + 1 < *n ? i + 1 : UINT32_MAX};
    for (uint32_t i = 0; i < *n; i++)
        consider(&m, i);
    while (m.n_heap > 0) {
        candidate best = heap_pop(&m);
        merge_at(&m, &best);
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != UINT32_MAX; i = m.symbols[i].next)
        ids[kept++] = m.symbols[i].id;
    *n = kept;
out:
    free(m.symbols);
    free(m.heap);
    return err;
}

dure_err dure_bpe_merge(int32_t *ids, size_t *n, const dure_bpe *bpe)
{
    if (*n < 2) return DURE_OK;
    if (*n > SHORT) return *n < UINT32_MAX / 4 ? merge_long(ids, n, bpe) : DURE_ERR_LIMIT;
    merge_short(ids, n, bpe);
    return DURE_OK;
}
