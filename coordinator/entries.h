/* The coordinator's leaves of the ledger, made from the configuration, the roster and the outcome.
 *
 * Threads: pure functions; an event is large (about 20 KiB), so callers allocate it. */
#pragma once

#include "common/err.h"
#include "federation/roster.h"
#include "federation/terms.h"
#include "ledger/event.h"
#include "proto/config.h"

/* Leaf 0. */
DURE_MUST_USE dure_err dure_entries_genesis(dure_event *out, const dure_terms *terms,
                                            const uint8_t root_public[32],
                                            const uint8_t coordinator_sign[32], int64_t now_s);
/* Who is in force now. */
void dure_entries_roster(dure_event *out, const dure_roster *roster, int64_t now_s);

/* What a round came to. Members that got the shares of the others (U2) may have sent a part of
 * their update and are charged; those of U3 are in the sum. */
typedef struct dure_outcome {
    dure_hash config_hash, t3, adapter_out, sum;
    dure_members u2, u3;
    dure_event_gate gate;
    const char *reason; /* ABORTED only */
} dure_outcome;

/* OPENED, CLOSED or ABORTED. */
void dure_entries_round(dure_event *out, dure_event_kind kind, const dure_config *config,
                        const dure_outcome *outcome, int64_t now_s);
