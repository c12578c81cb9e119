/* The coordinator's leaves of the ledger that are made from the terms and the roster; those of
 * rounds are in ledger/round_event.h.
 *
 * Threads: pure functions; an event is large (about 20 KiB), so callers allocate it. */
#pragma once

#include "common/err.h"
#include "federation/roster.h"
#include "federation/terms.h"
#include "ledger/event.h"

/* Leaf 0. */
DURE_MUST_USE dure_err dure_entries_genesis(dure_event *out, const dure_terms *terms,
                                            const uint8_t root_public[32],
                                            const uint8_t coordinator_sign[32], int64_t now_s);
/* Who is in force now. */
void dure_entries_roster(dure_event *out, const dure_roster *roster, int64_t now_s);
