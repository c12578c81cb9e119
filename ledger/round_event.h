/* The leaf of a round, made from its configuration and its outcome: by the coordinator, which logs
 * it, and by every site, which cosigns no log in which the round reads otherwise.
 *
 * Threads: pure functions; an event is large (about 20 KiB), so callers allocate it. */
#pragma once

#include "ledger/event.h"
#include "proto/config.h"

/* What a round came to. Members that got the shares of the others (U2) may have sent a part of
 * their update and are charged; those of U3 are in the sum. */
typedef struct dure_round_outcome {
    dure_hash config_hash, t3, adapter_out, sum;
    dure_members u2, u3;
    dure_event_gate gate;
    const char *reason; /* ABORTED only */
} dure_round_outcome;

/* OPENED, CLOSED or ABORTED. The log gives the event its index. */
void dure_round_event_make(dure_event *out, dure_event_kind kind, const dure_config *config,
                           const dure_round_outcome *outcome, int64_t now_s);
