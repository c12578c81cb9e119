/* The masked vectors of one round: spooled to disk per site, summed once they verified.
 *
 * Chunks arrive in the order that the coordinator asks for (net/transfer.h) and go to
 * DIR/spool/ROUND/MEMBER. A vector counts only when its last chunk is there and the Merkle root
 * over all chunks is the one that its signed final frame names. Each chunk is added, masked, to a
 * running sum as it comes. That is the sum if those whose chunks came are the survivors; if one of
 * them is lost, the spools of the survivors are read again and added instead. So memory is O(one
 * adapter), whatever the number of sites, and no unmasked vector of one site ever exists. The
 * spools go when the round closes.
 *
 * Chunks are written as they come and synced once, when the vector is whole: from then on the
 * signed list of survivors may name it. What a crash tears before that is fetched again.
 *
 * Threads: an object belongs to one thread at a time. It has some of its own, which hash, add and
 * write chunks while that one receives. */
#pragma once

#include "common/err.h"
#include "net/transfer.h"
#include "proto/messages.h"
#include "secagg/vector.h"

#include <stdbool.h>

typedef struct dure_aggregate dure_aggregate;

/* Makes DIR/spool/ROUND, or goes on with what an earlier run left there. `config` and `budget` are
 * borrowed. The caller owns *out. */
DURE_MUST_USE dure_err dure_aggregate_open(dure_aggregate **out, const char *dir,
                                           const dure_config *config, dure_byte_budget *budget,
                                           dure_diag *diag);
/* Frees; the spools stay. NULL-safe, nulls. */
void dure_aggregate_free(dure_aggregate **aggregate);
/* Removes the round's spools, from this object's round or, after a restart, any round but it. */
DURE_MUST_USE dure_err dure_aggregate_remove(dure_aggregate *aggregate, dure_diag *diag);
DURE_MUST_USE dure_err dure_aggregate_remove_stale(const char *dir, uint64_t round,
                                                   dure_diag *diag);

/* Begins to fetch the vector of `member`; fine if it was begun. What is spooled already counts. */
DURE_MUST_USE dure_err dure_aggregate_collect(dure_aggregate *aggregate, uint32_t member,
                                              uint64_t now_ms, dure_diag *diag);
/* Stops fetching and removes the member's spool: it broke the protocol. */
void dure_aggregate_discard(dure_aggregate *aggregate, uint32_t member);

/* True with the chunks to ask `member` for next; false while its window or the budget is full. */
bool dure_aggregate_next(uint32_t *first_chunk, uint32_t *n_chunks, dure_aggregate *aggregate,
                         uint32_t member);
/* A chunk arrived; its bytes are copied. DURE_ERR_PROTO: it was not asked for, or has the wrong
 * length: give the member up; DURE_ERR_STATE: nothing is fetched from this member;
 * DURE_ERR_DISK_FULL, DURE_ERR_IO: of this chunk or of one before it. A repeat is ignored. */
DURE_MUST_USE dure_err dure_aggregate_accept(dure_aggregate *aggregate, uint32_t member,
                                             uint32_t chunk, dure_span bytes, uint64_t now_ms,
                                             dure_diag *diag);
/* What was in flight is asked for again: the connection was lost, or nothing came for a while. */
void dure_aggregate_rewind(dure_aggregate *aggregate, uint32_t member);

/* Once every chunk came: waits until all are stored, and syncs. Nothing else makes a vector
 * complete. DURE_ERR_DISK_FULL, DURE_ERR_IO. */
DURE_MUST_USE dure_err dure_aggregate_settle(dure_aggregate *aggregate, uint32_t member,
                                             dure_diag *diag);
/* All chunks are there and synced; *root is over them. False while some are missing. */
bool dure_aggregate_root(dure_hash *root, const dure_aggregate *aggregate, uint32_t member);
/* Bytes of all members received, bytes of one, and when its last chunk came. */
uint64_t dure_aggregate_received(const dure_aggregate *aggregate);
uint64_t dure_aggregate_last_ms(const dure_aggregate *aggregate, uint32_t member);

/* (*sum)[0..n_words) over the members of `u3`, unmasked and with its sign, on all cores. The caller
 * owns it, free(); it is the memory of the running sum, so there is one sum of a round. Spools that
 * have to be read again are compared with what came: DURE_ERR_AUTH if a byte on disk changed. On
 * error *sum is NULL. */
DURE_MUST_USE dure_err dure_aggregate_sum(int32_t **sum, dure_aggregate *aggregate,
                                          const dure_members *u3, const dure_masks *masks,
                                          dure_diag *diag);
