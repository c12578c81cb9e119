/* The ledger in one file, for anyone to verify without the coordinator.
 *
 * The line "dure-ledger-export-1", then the canonical encoding (common/buf.h) of: the leaves, each
 * with its leaf hash; the notes of the checkpoints with their cosignatures; the roster as the
 * federation layer encodes it, opaque here. The leaf hashes are redundant on purpose: together with
 * the signed roots they tell which entry was changed, not only that one was. */
#pragma once

#include "common/buf.h"
#include "common/err.h"
#include "crypto/hash.h"
#include "ledger/journal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DURE_EXPORT_MAX (1u << 30)
#define DURE_EXPORT_NOTES_MAX 1048576u
#define DURE_EXPORT_ROSTER_MAX (4u << 20)

/* Writes it atomically. `roster` may be empty. */
DURE_MUST_USE dure_err dure_export_write(const char *path, const dure_journal *journal,
                                         dure_span roster, dure_diag *diag);
/* The same into a buffer. */
DURE_MUST_USE dure_err dure_export_put(dure_buf *out, const dure_journal *journal, dure_span roster,
                                       dure_diag *diag);

/* The file's parts; all spans point into the bytes that were read. */
typedef struct dure_export_leaf {
    dure_span bytes;
    dure_hash hash; /* as stored, not recomputed */
} dure_export_leaf;
typedef struct dure_export {
    dure_export_leaf *leaves;
    size_t n_leaves;
    dure_span *notes; /* by ascending size, as stored */
    size_t n_notes;
    dure_span roster;
} dure_export;

/* Structure only; nothing is verified. DURE_ERR_FORMAT, naming the entry at which the file ends or
 * is malformed. The caller owns *out and keeps `bytes` alive. */
DURE_MUST_USE dure_err dure_export_parse(dure_export **out, dure_span bytes, dure_diag *diag);
/* Also for a file that cannot be parsed: the first entry that is not whole or does not have its
 * stored hash. False if there is no such entry, or the file is no export. */
bool dure_export_first_fault(uint64_t *index, dure_span bytes);
void dure_export_free(dure_export **export_);
