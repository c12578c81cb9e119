#include "model/tokenizer_merge.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT = 48 };

static void take_in(dure_symbol *left, const dure_symbol *right, int32_t merged)
{
    left->id = merged;
    left->n += right->n;
}

/* Words are short: looking through all ranks is faster than any heap. */
static void merge_short(dure_symbol *s, size_t *n, dure_pair_rank *rank, const void *context)
{
    uint32_t ranks[SHORT];
    int32_t merged[SHORT];
    for (size_t i = 0; i + 1 < *n; i++)
        ranks[i] = rank(&merged[i], context, &s[i], &s[i + 1]);
    while (*n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < *n; i++)
            if (ranks[i] < ranks[best]) best = i;
        if (ranks[best] == DURE_NO_RANK) return;
        take_in(&s[best], &s[best + 1], merged[best]);
        size_t moved = *n - best - 2;
        memmove(s + best + 1, s + best + 2, moved * sizeof *s);
        memmove(ranks + best, ranks + best + 1, moved * sizeof *ranks);
        memmove(merged + best, merged + best + 1, moved * sizeof *merged);
        --*n;
        if (best + 1 < *n) ranks[best] = rank(&merged[best], context, &s[best], &s[best + 1]);
        if (best > 0) ranks[best - 1] = rank(&merged[best - 1], context, &s[best - 1], &s[best]);
    }
}

/* A pair that could merge; stale when the symbols at `at` are no longer these two. */
typedef struct candidate {
    uint32_t rank, at;
    int32_t left, right, merged;
} candidate;

typedef struct link {
    uint32_t previous, next; /* UINT32_MAX: none */
} link;

typedef struct long_merge {
    dure_pair_rank *rank;
    const void *context;
    dure_symbol *symbols; /* borrowed; n is 0 when swallowed by the left neighbour */
    link *links;
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
    uint32_t next = m->links[at].next;
    if (next == UINT32_MAX) return;
    const dure_symbol *left = &m->symbols[at], *right = &m->symbols[next];
    candidate c = {.at = at, .left = left->id, .right = right->id};
    c.rank = m->rank(&c.merged, m->context, left, right);
    if (c.rank != DURE_NO_RANK) heap_push(m, c);
}

/* A symbol without a token is one character that has not merged yet, so that equal ids at the same
 * place are always the same two symbols. */
static void merge_at(long_merge *m, const candidate *c)
{
    link *here = &m->links[c->at];
    dure_symbol *left = &m->symbols[c->at];
    if (left->n == 0 || left->id != c->left || here->next == UINT32_MAX) return;
    uint32_t swallowed = here->next;
    dure_symbol *right = &m->symbols[swallowed];
    if (right->id != c->right) return;
    take_in(left, right, c->merged);
    right->n = 0;
    here->next = m->links[swallowed].next;
    if (here->next != UINT32_MAX) m->links[here->next].previous = c->at;
    consider(m, c->at);
    if (here->previous != UINT32_MAX) consider(m, here->previous);
}

static dure_err merge_long(dure_symbol *s, size_t *n, dure_pair_rank *rank, const void *context)
{
    /* n - 1 pairs at first and at most two new ones for each of n - 1 merges. */
    long_merge m = {.rank = rank,
                    .context = context,
                    .symbols = s,
                    .links = malloc(*n * sizeof *m.links),
                    .heap = malloc(3 * *n * sizeof *m.heap)};
    dure_err err = m.links && m.heap ? DURE_OK : DURE_ERR_NOMEM;
    if (err) goto out;
    for (uint32_t i = 0; i < *n; i++)
        m.links[i] = (link){i - 1, i + 1 < *n ? i + 1 : UINT32_MAX};
    for (uint32_t i = 0; i < *n; i++)
        consider(&m, i);
    while (m.n_heap > 0) {
        candidate best = heap_pop(&m);
        merge_at(&m, &best);
    }
    size_t kept = 0;
    for (uint32_t i = 0; i != UINT32_MAX; i = m.links[i].next)
        s[kept++] = s[i];
    *n = kept;
out:
    free(m.links);
    free(m.heap);
    return err;
}

dure_err dure_merge(dure_symbol *symbols, size_t *n, dure_pair_rank *rank, const void *context)
{
    if (*n < 2) return DURE_OK;
    if (*n > SHORT)
        return *n < UINT32_MAX / 4 ? merge_long(symbols, n, rank, context) : DURE_ERR_LIMIT;
    merge_short(symbols, n, rank, context);
    return DURE_OK;
}
