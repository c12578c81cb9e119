/* `dure client run`: a site that takes part in its federation's rounds until it is stopped.
 *
 * One thread owns socket, state and budget; training runs beside it (client/work.h). A round:
 *
 *   OPEN -> checks (root, roster, log, policy, budget) -> R0, R1 while the trainer works
 *        -> A2 and update ready: mask, charge (ledger, state: synced), upload on request -> R2..R4
 *        -> Result: log entry, sum and adapter recomputed -> cosign
 *
 * Outbound only. When the coordinator is away the site waits, says so, and goes on by itself. It
 * may be killed at any instruction: the round's secrets are gone then and it counts as dropped;
 * what was charged stays charged; a reply that had been given (R4) is given again, byte for byte.
 *
 * Threads: one thread; dure_session_stop() from any, and from signal handlers. */
#pragma once

#include "client/site.h"

#include <jansson.h>

/* Something happened: a name and its facts, borrowed. Facts about losses are for the owner's own
 * screen. */
typedef void dure_session_event(void *state, const char *name, const json_t *facts);

typedef struct dure_session_opts {
    const char *dir;
    uint32_t threads;      /* 0: the physical cores */
    uint64_t memory_bytes; /* of the process, at most; 0: as the policy says */
    bool cuda;             /* train on GPU number `device` */
    int device;
    bool exit_when_done;       /* end when the plan's rounds are done */
    dure_session_event *event; /* may be NULL */
    void *event_state;
} dure_session_opts;

typedef struct dure_session dure_session;

/* Takes the folder's lock (DURE_ERR_BUSY), opens ledger, model and records. The caller owns *out.
 */
DURE_MUST_USE dure_err dure_session_open(dure_session **out, const dure_session_opts *opts,
                                         dure_diag *diag);
void dure_session_close(dure_session **session);

/* Until it is stopped or, with exit_when_done, done. Fails when the coordinator refuses the site
 * for good, publishes a result that does not follow from its sum, or this machine cannot go on (a
 * full disk); never because the coordinator is away. */
DURE_MUST_USE dure_err dure_session_run(dure_session *session, dure_diag *diag);
/* Ends the loop after the present message. Async-signal-safe. */
void dure_session_stop(dure_session *session);
