/* A site's memory of the federation's log: the last checkpoint it verified, in one file.
 *
 * Rules: (1) a new checkpoint must bear the coordinator's signature and come with a proof that it
 * extends the stored one; (2) size never goes backwards, and one size has one root; (3) the file is
 * written and synced before anything is signed. So a coordinator that rewrites, forks or rolls back
 * its log finds no cosignature, and the file itself is the evidence: it is the signed note, which
 * `dure audit verify --checkpoint` takes.
 *
 * Threads: one thread at a time on one object. */
#pragma once

#include "crypto/merkle.h"
#include "ledger/cosign.h"
#include "ledger/event.h"

typedef struct dure_witness dure_witness;

/* Reads the file if it is there. DURE_ERR_FORMAT or DURE_ERR_AUTH when it is not a note of this
 * origin and coordinator. The caller owns *out. */
DURE_MUST_USE dure_err dure_witness_open(dure_witness **out, const char *path, const char *origin,
                                         const uint8_t coordinator_public[32], dure_diag *diag);
void dure_witness_close(dure_witness **witness); /* NULL-safe, nulls */

/* The stored size and root; size 0 and the root of the empty tree when nothing was seen yet. */
dure_merkle_head dure_witness_head(const dure_witness *witness);

/* Verifies `note` against the stored checkpoint and stores it. The same checkpoint again is fine,
 * its proof empty. DURE_ERR_FORMAT: no note; DURE_ERR_AUTH, with the sentence that says which: not
 * signed by the coordinator, older than what was seen, another root of the same size, not an
 * extension, or of the history that a root-signed loss has taken back. Nothing is stored on error.
 */
DURE_MUST_USE dure_err dure_witness_update(dure_witness *witness, dure_span note,
                                           const dure_merkle_proof *consistency, dure_diag *diag);

/* Cosigns the stored checkpoint. DURE_ERR_STATE when there is none. */
DURE_MUST_USE dure_err dure_witness_cosign(dure_cosignature *out, const dure_witness *witness,
                                           const dure_sign_key *site, uint64_t now_s);

/* Accepts a root-signed loss, the NEW_EPOCH leaf of this federation: from now on the next
 * checkpoint need only extend epoch.kept. Whether kept is what this site saw cannot be proved any
 * more once leaves are lost; the root's word is taken, and the leaf is kept beside the superseded
 * note (PATH.epoch) as evidence. DURE_ERR_AUTH unless the root signed it, its number is above the
 * last one accepted, and what is stored lies between kept and what it calls lost; DURE_ERR_PROTO
 * when it is no such leaf. */
DURE_MUST_USE dure_err dure_witness_new_epoch(dure_witness *witness, dure_span leaf,
                                              const uint8_t root_public[32], dure_diag *diag);
