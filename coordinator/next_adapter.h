/* From a stored sum to the next stored adapter, row by row: the present adapter is mapped, the sum
 * is read and the next adapter is hashed and written in small pieces, so that none of the three is
 * ever in memory as a whole.
 *
 * Killed anywhere, it leaves both of what it starts from and at most one unfinished file, over
 * which the next call writes. Run again it makes the same bytes.
 *
 * Threads: one call at a time for a folder of blobs. */
#pragma once

#include "crypto/hash.h"
#include "federation/terms.h"

typedef struct dure_next_adapter {
    const dure_terms *terms;
    const char *blobs;         /* folder of all three */
    dure_hash adapter_in, sum; /* blobs that are there */
    uint32_t n_sites;          /* in the sum */
} dure_next_adapter;

/* *digest names the new blob, synced. DURE_ERR_PROTO, with a sentence: no honest sites sum to this.
 * DURE_ERR_FORMAT: the sum has another length than the terms say. Else as dure_blob_open(),
 * dure_adapter_view_open() and dure_file_writer_put(). On an error there is no new blob. */
DURE_MUST_USE dure_err dure_next_adapter_make(dure_hash *digest, const dure_next_adapter *next,
                                              dure_diag *diag);
