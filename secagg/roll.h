/* The roll of a step: who is in a set, and what each of them sent, under one hash.
 *
 * The entries are the leaves of an RFC 9162 Merkle tree in the order of the ring, so a member and
 * its neighbours are a run of leaves, and a few hashes stand for all others: 2 log2 n of them at
 * most, none on the complete graph, where all are neighbours. Two sites that compute the same root
 * have the same entry for every member that both have seen, whatever hashes they were given, and
 * the root goes into the transcript: who was shown other entries ends up with other keys.
 *
 * Hashes in a proof are complete subtrees, left to right, each as large as its place in the tree
 * and the next entry that the receiver has allow. */
#pragma once

#include "secagg/graph.h"

/* What is known of a set: the leaf hashes of `known`, a subset, by rank among them. */
typedef struct dure_roll_view {
    const dure_graph *graph;
    const dure_members *set, *known;
    const dure_hash *leaves;
} dure_roll_view;

/* DURE_ERR_PROTO unless the proof has exactly the hashes that are missing. */
DURE_MUST_USE dure_err dure_roll_root(dure_hash *root, const dure_roll_view *view,
                                      const uint8_t (*proof)[DURE_DIGEST_BYTES], size_t n_proof);

/* The whole tree, for who makes the proofs. Start from {0}. */
typedef struct dure_roll {
    const dure_graph *graph; /* borrowed */
    dure_members set;
    size_t n;
    dure_hash *nodes; /* level by level, n >> level of them */
} dure_roll;
/* leaves[] has a place for every member of the round; those of `set` are read. */
DURE_MUST_USE dure_err dure_roll_make(dure_roll *out, const dure_graph *graph,
                                      const dure_members *set, const dure_hash *leaves);
void dure_roll_fini(dure_roll *roll); /* NULL-safe, idempotent */
/* The hashes for a receiver that has the entries of `known`. DURE_ERR_LIMIT when they are more than
 * a message carries, which cannot be for a run of the ring. */
DURE_MUST_USE dure_err dure_roll_prove(uint8_t (*proof)[DURE_DIGEST_BYTES], size_t *n_proof,
                                       const dure_roll *roll, const dure_members *known);
DURE_MUST_USE dure_err dure_roll_whole(dure_hash *root, const dure_roll *roll);
