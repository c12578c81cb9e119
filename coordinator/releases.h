/* Promotions and rollbacks into the federation's log. `dure adapter` moves the champion, the
 * registry keeps each move, and whoever may write the log enters it: the running coordinator, or
 * the command itself when none runs.
 *
 * An entry is made once: after a crash between the log and the registry it is found there.
 *
 * Threads: as the registry and the journal. */
#pragma once

#include "common/err.h"
#include "ledger/journal.h"
#include "registry/registry.h"

#include <stddef.h>
#include <stdint.h>

/* Enters every move that the log does not have; *n is how many there were. A version that no round
 * in the log made gets no entry. */
DURE_MUST_USE dure_err dure_releases_log(size_t *n, dure_registry *registry, dure_journal *journal,
                                         uint64_t run_id, dure_diag *diag);
/* The same for the coordinator's folder `dir` when no coordinator runs there. *waits: one runs and
 * will do it, or the next one will, once it has entered the result of a round that has its sum. A
 * folder without a log is left alone. */
DURE_MUST_USE dure_err dure_releases_log_folder(bool *waits, const char *dir,
                                                dure_registry *registry, dure_diag *diag);
