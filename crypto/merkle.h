/* Merkle trees of RFC 9162 section 2.1 (the same hashes as RFC 6962) over SHA-256.
 *
 * leaf = SHA-256(0x00 . bytes), node = SHA-256(0x01 . left . right), the root of no leaves is
 * SHA-256 of nothing. A tree of n leaves splits at the largest power of two below n. */
#pragma once

#include "crypto/hash.h"

/* Every function is DURE_ERR_CRYPTO when the library fails, with its output zeroed. */
DURE_MUST_USE dure_err dure_merkle_leaf(dure_hash *out, dure_span bytes);
DURE_MUST_USE dure_err dure_merkle_node(dure_hash *out, const dure_hash *left,
                                        const dure_hash *right);

/* The root of leaves[0..n), which are leaf hashes. */
DURE_MUST_USE dure_err dure_merkle_root(dure_hash *out, const dure_hash *leaves, uint64_t n);

/* A tree that only grows: the roots of its complete subtrees, O(log n) memory. Start from {0}. */
typedef struct dure_merkle_frontier {
    uint64_t n;
    dure_hash nodes[64]; /* nodes[k] is set where bit k of n is set */
} dure_merkle_frontier;
DURE_MUST_USE dure_err dure_merkle_frontier_add(dure_merkle_frontier *frontier,
                                                const dure_hash *leaf);
/* Adds 1 << level leaves at once, of which `node` is the root. DURE_ERR_USAGE, with nothing
 * changed, unless the leaves so far are a multiple of as many. */
DURE_MUST_USE dure_err dure_merkle_frontier_add_subtree(dure_merkle_frontier *frontier,
                                                        unsigned level, const dure_hash *node);
DURE_MUST_USE dure_err dure_merkle_frontier_root(dure_hash *out,
                                                 const dure_merkle_frontier *frontier);

/* A tree's size and root. */
typedef struct dure_merkle_head {
    uint64_t n;
    dure_hash root;
} dure_merkle_head;

/* An inclusion or a consistency proof, in the order of the RFC. */
#define DURE_MERKLE_PROOF_MAX 65
typedef struct dure_merkle_proof {
    size_t n;
    dure_hash nodes[DURE_MERKLE_PROOF_MAX];
} dure_merkle_proof;

/* Where a prover finds complete subtrees: the root of leaves [index << level, (index + 1) <<
 * level). Errors of `node` are passed on. */
typedef struct dure_merkle_source {
    dure_err (*node)(void *state, dure_hash *out, unsigned level, uint64_t index);
    void *state; /* borrowed */
} dure_merkle_source;

/* Proofs in the tree of the first n leaves; O(log n) calls of the source.
 * DURE_ERR_USAGE unless index < n, or 0 < old_n <= n. */
DURE_MUST_USE dure_err dure_merkle_prove_inclusion(dure_merkle_proof *out,
                                                   const dure_merkle_source *source, uint64_t n,
                                                   uint64_t index);
DURE_MUST_USE dure_err dure_merkle_prove_consistency(dure_merkle_proof *out,
                                                     const dure_merkle_source *source, uint64_t n,
                                                     uint64_t old_n);
/* The root of the first n leaves of the source. */
DURE_MUST_USE dure_err dure_merkle_source_root(dure_hash *out, const dure_merkle_source *source,
                                               uint64_t n);

/* DURE_ERR_AUTH unless the proof shows that `leaf` (a leaf hash) is number `index` of the tree
 * (RFC 9162 section 2.1.3.2). */
DURE_MUST_USE dure_err dure_merkle_verify_inclusion(const dure_merkle_head *head, uint64_t index,
                                                    const dure_hash *leaf,
                                                    const dure_merkle_proof *proof);
/* DURE_ERR_AUTH unless the proof shows that `old_head` is a prefix of `head` (section 2.1.4.2).
 * The empty tree is a prefix of every tree; its proof is empty, as is that of equal heads. */
DURE_MUST_USE dure_err dure_merkle_verify_consistency(const dure_merkle_head *head,
                                                      const dure_merkle_head *old_head,
                                                      const dure_merkle_proof *proof);
