#include "secagg/roll.h"

#include "crypto/merkle.h"
#include "proto/messages_round.h"

#include <stdlib.h>
#include <string.h>

/* The members of a set in the order of the ring, and which of them are known. */
typedef struct line {
    size_t n;
    uint16_t member[DURE_ROUND_MEMBERS_MAX];
    bool known[DURE_ROUND_MEMBERS_MAX];
} line;

static void line_up(line *out, const dure_graph *graph, const dure_members *set,
                    const dure_members *known)
{
    out->n = 0;
    for (uint32_t i = 0; i < graph->n; i++) {
        const uint16_t u = graph->at[i];
        if (!dure_members_has(set, u)) continue;
        out->member[out->n] = u;
        out->known[out->n++] = dure_members_has(known, u);
    }
}

/* The largest complete subtree that begins at leaf i and has no known leaf. */
static unsigned unknown_level(const line *l, size_t i)
{
    size_t free_ = 1;
    while (i + free_ < l->n && !l->known[i + free_]) {
        free_++;
    }
    unsigned level = 0;
    while (i % ((size_t)2 << level) == 0 && (size_t)2 << level <= free_) {
        level++;
    }
    return level;
}

dure_err dure_roll_root(dure_hash *root, const dure_roll_view *view,
                        const uint8_t (*proof)[DURE_DIGEST_BYTES], size_t n_proof)
{
    *root = (dure_hash){{0}};
    line l;
    line_up(&l, view->graph, view->set, view->known);
    dure_merkle_frontier tree = {0};
    size_t used = 0;
    dure_err err = DURE_OK;
    for (size_t i = 0; !err && i < l.n;) {
        if (l.known[i]) {
            const size_t rank = dure_members_rank(view->known, l.member[i]);
            err = dure_merkle_frontier_add(&tree, &view->leaves[rank]);
            i++;
            continue;
        }
        if (used == n_proof) return DURE_ERR_PROTO;
        const unsigned level = unknown_level(&l, i);
        dure_hash node;
        memcpy(node.b, proof[used++], sizeof node.b);
        err = dure_merkle_frontier_add_subtree(&tree, level, &node);
        i += (size_t)1 << level;
    }
    if (err) return err;
    return used == n_proof ? dure_merkle_frontier_root(root, &tree) : DURE_ERR_PROTO;
}

/* Where a level begins among the nodes. */
static size_t level_at(size_t n, unsigned level)
{
    size_t at = 0;
    for (unsigned i = 0; i < level; i++) {
        at += n >> i;
    }
    return at;
}

static dure_err fill_levels(dure_roll *roll)
{
    for (unsigned level = 1; roll->n >> level; level++) {
        const dure_hash *below = roll->nodes + level_at(roll->n, level - 1);
        dure_hash *nodes = roll->nodes + level_at(roll->n, level);
        for (size_t i = 0; i < roll->n >> level; i++) {
            dure_err err = dure_merkle_node(&nodes[i], &below[2 * i], &below[2 * i + 1]);
            if (err) return err;
        }
    }
    return DURE_OK;
}

dure_err dure_roll_make(dure_roll *out, const dure_graph *graph, const dure_members *set,
                        const dure_hash *leaves)
{
    const dure_members none = {{0}};
    line l;
    line_up(&l, graph, set, &none);
    *out = (dure_roll){.graph = graph, .set = *set, .n = l.n};
    out->nodes = calloc(2 * l.n + 1, sizeof *out->nodes);
    if (!out->nodes) return DURE_ERR_NOMEM;
    for (size_t i = 0; i < l.n; i++) {
        out->nodes[i] = leaves[l.member[i]];
    }
    dure_err err = fill_levels(out);
    if (err) dure_roll_fini(out);
    return err;
}

void dure_roll_fini(dure_roll *roll)
{
    if (!roll) return;
    free(roll->nodes);
    *roll = (dure_roll){0};
}

dure_err dure_roll_prove(uint8_t (*proof)[DURE_DIGEST_BYTES], size_t *n_proof,
                         const dure_roll *roll, const dure_members *known)
{
    line l;
    line_up(&l, roll->graph, &roll->set, known);
    *n_proof = 0;
    for (size_t i = 0; i < l.n;) {
        if (l.known[i]) {
            i++;
            continue;
        }
        if (*n_proof == DURE_MSG_ROLL_PROOF_MAX) return DURE_ERR_LIMIT;
        const unsigned level = unknown_level(&l, i);
        memcpy(proof[(*n_proof)++], roll->nodes[level_at(l.n, level) + (i >> level)].b,
               DURE_DIGEST_BYTES);
        i += (size_t)1 << level;
    }
    return DURE_OK;
}

static dure_err node_at(void *state, dure_hash *out, unsigned level, uint64_t index)
{
    const dure_roll *roll = state;
    *out = roll->nodes[level_at(roll->n, level) + index];
    return DURE_OK;
}

dure_err dure_roll_whole(dure_hash *root, const dure_roll *roll)
{
    dure_roll copy = *roll;
    const dure_merkle_source source = {node_at, &copy};
    return dure_merkle_source_root(root, &source, roll->n);
}
