/* A new epoch: the root says that entries of the log were lost, and the log goes on after those
 * that are kept. For when no site has what the folder lacks, or two sites have seen different logs.
 *
 *   drafted at the coordinator's folder --> signed where the root's key is --> taken by the folder
 *
 * One that turns out to be of too little can be made again with the same number, as long as no site
 * has gone on after it. All three are for a coordinator that does not run; the file between them is
 * JSON, for people to read before they sign. What was paid for by sites and signed in rounds is not
 * taken back by it.
 *
 * Threads: the caller's. */
#pragma once

#include "common/err.h"
#include "ledger/event.h"

#include <stdbool.h>

typedef struct dure_epoch_opts {
    uint64_t keep; /* entries; 0: those of the newest checkpoint, else all that are here */
    uint64_t lost; /* entries that any site may have seen; 0: what is known here */
    const char *reason;
} dure_epoch_opts;

/* The statement, not signed yet. DURE_ERR_USAGE names the option that does not fit; DURE_ERR_BUSY:
 * the coordinator runs. */
DURE_MUST_USE dure_err dure_epoch_draft(dure_event_epoch *out, const char *dir,
                                        const dure_epoch_opts *opts, dure_diag *diag);

DURE_MUST_USE dure_err dure_epoch_write(const char *path, const dure_event_epoch *epoch,
                                        bool is_signed, dure_diag *diag);
/* *is_signed: it bears a signature, not verified yet. DURE_ERR_FORMAT names the file and key. */
DURE_MUST_USE dure_err dure_epoch_read(dure_event_epoch *out, bool *is_signed, const char *path,
                                       dure_diag *diag);
/* The same over bytes; `name` stands for the file in `diag`. */
DURE_MUST_USE dure_err dure_epoch_parse(dure_event_epoch *out, bool *is_signed, dure_span text,
                                        const char *name, dure_diag *diag);

/* Takes the folder's log back to what is kept, enters the statement and signs a checkpoint; rounds
 * and adapter follow. Again after a crash is fine. DURE_ERR_AUTH: not signed by this federation's
 * root, or of other entries than those here; DURE_ERR_EXISTS: taken before. */
DURE_MUST_USE dure_err dure_epoch_take(const char *dir, const dure_event_epoch *epoch,
                                       dure_diag *diag);
