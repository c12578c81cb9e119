/* What the log tells about past rounds, for a store that lacks it: after the log was got back from
 * the sites, or taken back to what the root's statement of a loss keeps.
 *
 * Threads: the caller's; the journal and the store are used by nobody else meanwhile. */
#pragma once

#include "coordinator/store.h"
#include "federation/terms.h"
#include "ledger/journal.h"

/* The Result of the round that leaf `index` closes, under the newest checkpoint and without the
 * proof that each site gets of its own, into an initialised buffer. DURE_ERR_STATE when no
 * checkpoint covers the leaf, DURE_ERR_FORMAT when it closes no round. */
DURE_MUST_USE dure_err dure_history_result(dure_buf *frame, const dure_journal *journal,
                                           uint64_t index, dure_diag *diag);

/* Makes the store say what the log says: rounds that it does not know, or knows otherwise, the
 * adapter of the last that is done, else the first. Rounds that are not in the log failed. The
 * newest checkpoint must cover every closed round. All of it or nothing; again is fine. */
DURE_MUST_USE dure_err dure_history_follow(dure_store *store, const dure_journal *journal,
                                           const dure_terms *terms, dure_diag *diag);
