/* An append-only Merkle log in a folder: `leaves`, every leaf after its length, and `index`, one
 * record of end offset and leaf hash for each.
 *
 * An append writes and syncs the leaf, then writes and syncs its index record, and only then
 * returns: the index record is what makes a leaf part of the log. So a crash leaves at most a tail
 * that was never acknowledged, which the next opening for writing cuts off. Every other
 * disagreement between the two files is damage: it is refused and the entry is named.
 *
 * Opening reads and hashes every leaf. Proofs then cost O(log n) hashes from memory (64 bytes a
 * leaf).
 *
 * Threads: one thread at a time on one object; one writing process, held by a lock in the
 * folder. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/merkle.h"
#include "ledger/event.h"

#define DURE_LEAF_LOG_LEAVES_MAX 16777216u

typedef struct dure_leaf_log dure_leaf_log;

typedef enum dure_leaf_log_mode {
    DURE_LEAF_LOG_READ,  /* must exist; an unacknowledged tail is passed over */
    DURE_LEAF_LOG_WRITE, /* created if missing (0700, files 0600); DURE_ERR_BUSY if another holds it
                          */
} dure_leaf_log_mode;

/* The caller owns *out. DURE_ERR_FORMAT names the damaged entry and how it is damaged. */
DURE_MUST_USE dure_err dure_leaf_log_open(dure_leaf_log **out, const char *dir,
                                          dure_leaf_log_mode mode, dure_diag *diag);
void dure_leaf_log_close(dure_leaf_log **log); /* NULL-safe, nulls */

uint64_t dure_leaf_log_size(const dure_leaf_log *log);

/* Durable when it returns. On failure (DURE_ERR_DISK_FULL, DURE_ERR_IO) the log is as before.
 * DURE_ERR_LIMIT for a leaf over DURE_LEAF_MAX; DURE_ERR_STATE when opened for reading. */
DURE_MUST_USE dure_err dure_leaf_log_append(uint64_t *index, dure_leaf_log *log, dure_span leaf,
                                            dure_diag *diag);

/* Forgets all but the first n leaves, durably: for entries that turned out not to be those of the
 * log. DURE_ERR_USAGE when n is over the size. */
DURE_MUST_USE dure_err dure_leaf_log_cut(dure_leaf_log *log, uint64_t n, dure_diag *diag);

/* Leaf `index` into *out (dure_buf_fini() by the caller), checked against its hash.
 * DURE_ERR_NOT_FOUND past the end; DURE_ERR_FORMAT when it was changed meanwhile. */
DURE_MUST_USE dure_err dure_leaf_log_read(dure_buf *out, const dure_leaf_log *log, uint64_t index,
                                          dure_diag *diag);
/* Its hash; borrowed until the next append. `index` must be below the size. */
const dure_hash *dure_leaf_log_leaf_hash(const dure_leaf_log *log, uint64_t index);

/* Size and root of the first n leaves, and proofs in that tree; DURE_ERR_USAGE when n is over the
 * size. Consistency with old_n = 0 is the empty proof. */
DURE_MUST_USE dure_err dure_leaf_log_head(dure_merkle_head *out, const dure_leaf_log *log,
                                          uint64_t n);
DURE_MUST_USE dure_err dure_leaf_log_inclusion(dure_merkle_proof *out, const dure_leaf_log *log,
                                               uint64_t n, uint64_t index);
DURE_MUST_USE dure_err dure_leaf_log_consistency(dure_merkle_proof *out, const dure_leaf_log *log,
                                                 uint64_t n, uint64_t old_n);
