/* `dure coordinator run`: one process that lets sites join, opens rounds, collects masked vectors,
 * turns their sum into the next adapter, and keeps the federation's log.
 *
 * One thread owns everything: the router, the timers, the state. What takes long elsewhere (the
 * gate's evaluation) runs behind callbacks that are polled. It may be killed at any instruction:
 * what it said is on disk before it is said, and a restart goes on with the round, or closes it as
 * charged and opens the next.
 *
 *   GATHERING --enough sites, last checkpoint cosigned--> RUNNING (coordinator/round.h)
 *   RUNNING --sum--> GATING --leaf, result--> GATHERING          RUNNING --too few--> GATHERING
 *
 * Folder: federation.yaml, keys/, roster.bin, state.db, blobs/, spool/, ledger/, inbox/
 * (revocations signed by the root), status.json (for `dure status`), lock. */
#pragma once

#include "common/err.h"
#include "coordinator/round.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Computes the losses of the federation's evaluation records, one a record and always in the same
 * order, elsewhere. One at a time. */
typedef struct dure_coordinator_gate {
    /* Starts with the adapter's file, or the base alone for NULL. */
    dure_err (*start)(void *state, const char *adapter_path, dure_diag *diag);
    /* *done false: not yet. When done, *losses are the caller's to free(). */
    dure_err (*poll)(bool *done, double **losses, size_t *n, void *state, dure_diag *diag);
    void (*stop)(void *state); /* ends what runs; fine when nothing does */
    void *state;
} dure_coordinator_gate;

/* Something happened: a name ("round_open") and its facts, borrowed. Called by the loop's thread.
 */
typedef void dure_coordinator_event(void *state, const char *name, const json_t *facts);

typedef struct dure_coordinator_opts {
    const char *dir;      /* DIR/coordinator */
    const char *endpoint; /* to bind instead of the settings'; NULL: theirs */
    uint64_t rounds;      /* end after so many completed rounds of this run; 0: the terms' plan */
    bool exit_when_done;  /* else it stays, for sites to fetch the last result */
    dure_patience patience;
    uint32_t settle_ms;                /* waited for more sites once enough are there; 0: 2,000 */
    const dure_coordinator_gate *gate; /* borrowed; NULL: adapters stay candidates */
    dure_coordinator_event *event;     /* may be NULL */
    void *event_state;
} dure_coordinator_opts;

typedef struct dure_coordinator dure_coordinator;

/* Takes the folder's lock (DURE_ERR_BUSY), checks federation.yaml against what the root signed,
 * opens state, ledger and socket, and takes up an unfinished round. The caller owns *out. */
DURE_MUST_USE dure_err dure_coordinator_open(dure_coordinator **out,
                                             const dure_coordinator_opts *opts, dure_diag *diag);
void dure_coordinator_close(dure_coordinator **coordinator);

/* Until the rounds are done (with exit_when_done), dure_coordinator_stop(), or a failure that the
 * sentence names: a full disk, damaged state. */
DURE_MUST_USE dure_err dure_coordinator_run(dure_coordinator *coordinator, dure_diag *diag);
/* Ends the loop after the present message. Async-signal-safe. */
void dure_coordinator_stop(dure_coordinator *coordinator);

/* "tcp://127.0.0.1:7070" as bound. Borrowed. */
const char *dure_coordinator_endpoint(const dure_coordinator *coordinator);
