/* The vector that is masked, as it travels: chunks of packed words under one Merkle root.
 *
 * Every chunk but the last has config->chunk_words words; the leaf of chunk i is the RFC 9162 leaf
 * hash of its packed bytes, so a tree over them commits to order and length, and each chunk can be
 * checked by itself. Masks are seekable, so chunks are masked and unmasked independently. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/mask.h"
#include "crypto/merkle.h"
#include "proto/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Collects the chunks of one site's vector in order and gives the root that its final frame must
 * name. Start from {0}; nothing to free. */
typedef struct dure_vector_tree {
    dure_merkle_frontier frontier; /* frontier.n chunks have been added */
} dure_vector_tree;

/* Chunk number `tree->frontier.n`. DURE_ERR_PROTO unless its length is exactly what `config` gives
 * that chunk; nothing has then changed. */
DURE_MUST_USE dure_err dure_vector_tree_add(dure_vector_tree *tree, const dure_config *config,
                                            dure_span chunk);
/* DURE_ERR_STATE before the last chunk. */
DURE_MUST_USE dure_err dure_vector_tree_root(dure_hash *root, const dure_vector_tree *tree,
                                             const dure_config *config);

/* A set of mask streams with their signs: one site's masks, or what the server takes off a sum.
 * Belongs to one thread at a time. Keys are wiped when it is freed. */
typedef struct dure_masks dure_masks;
DURE_MUST_USE dure_err dure_masks_new(dure_masks **out, const dure_config *config,
                                      size_t n_streams_max);
void dure_masks_free(dure_masks **masks); /* wipes; NULL-safe, nulls */
DURE_MUST_USE dure_err dure_masks_add(dure_masks *masks, const uint8_t key[DURE_MASK_KEY_BYTES],
                                      bool subtract);
/* The same masks for another thread. */
DURE_MUST_USE dure_err dure_masks_copy(dure_masks **out, const dure_masks *masks);
/* Applies all streams to the words of chunk `chunk`, modulo 2^b. words[] has as many words as the
 * chunk. DURE_ERR_USAGE past the last chunk; on every error the words are zeroed. */
DURE_MUST_USE dure_err dure_masks_apply(uint32_t *words, dure_masks *masks, uint32_t chunk);

/* Words in chunk `chunk`; 0 past the last. */
size_t dure_vector_chunk_words(const dure_config *config, uint32_t chunk);

/* sum[j] += word j of the packed chunk, modulo 2^32: the coordinator adds the chunks of all of U3
 * this way, then unmasks, which reduces modulo 2^b. */
void dure_vector_add_packed(uint32_t *sum, dure_span chunk, const dure_config *config);
