/* What the leaves say was spent: each member's epsilon, recomputed from the logged events.
 *
 * A member is charged with the round's plan when anything of its masked update left it (part
 * UPLOADED or SUMMED in the CLOSED or ABORTED leaf), and for every OPENED round that has no end in
 * the log: in doubt counts as spent. All its charges compose, across runs, since they concern the
 * same records; in the accountant of privacy loss distributions (dp/calibrate.h) and again in
 * the Renyi accountant (dp/accountant_rdp.h), which has nothing in common with the first.
 *
 * This is what the federation caused; a site's own ledger may hold more, from other uses of its
 * data.
 *
 * Threads: an object belongs to one thread at a time. */
#pragma once

#include "common/err.h"
#include "ledger/event.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct dure_replay dure_replay;

DURE_MUST_USE dure_err dure_replay_new(dure_replay **out);
void dure_replay_free(dure_replay **replay); /* NULL-safe, nulls */

/* Takes the events in log order. DURE_ERR_STATE, with a sentence, when one cannot follow what came
 * before: a number out of order, a second GENESIS, a round that closes another configuration than
 * was opened or closes twice, a round number that does not grow, a member that is not in the roster
 * in force or stands there with another key, an adapter that does not continue the last one. */
DURE_MUST_USE dure_err dure_replay_add(dure_replay *replay, const dure_event *event,
                                       dure_diag *diag);

/* The delta of accounts whose unit is a site, which the federation's terms have and the log has
 * not; until then the largest that terms may have. */
void dure_replay_set_site_delta(dure_replay *replay, double delta);

/* One member's account. delta is 1 / (10 n_pub) of its latest plan, the largest that is allowed, or
 * where the unit is a site that of the terms. */
typedef struct dure_account {
    char name[DURE_EVENT_NAME_SIZE];
    uint8_t sign_public[32];
    uint64_t rounds;      /* charged */
    uint64_t rounds_open; /* of those, opened and not ended in the log */
    uint64_t steps;
    const char *unit;   /* that epsilon is for one of, of its first plan; static */
    double epsilon;     /* by loss distributions; infinite when a charged plan had no noise */
    double epsilon_rdp; /* by Renyi divergences: an upper bound too, never much below the first */
    double delta;
} dure_account;
size_t dure_replay_accounts(const dure_replay *replay);
DURE_MUST_USE dure_err dure_replay_account(dure_account *out, const dure_replay *replay, size_t i);
/* What a test for membership can find of the i-th member's records at most (dp/membership.h). */
DURE_MUST_USE dure_err dure_replay_membership(double *true_rate, const dure_replay *replay,
                                              size_t i, double false_rate);

/* Counts over all that was added. */
typedef struct dure_replay_totals {
    uint64_t opened, closed, aborted, promoted, rolled_back, epochs;
    dure_hash adapter; /* newest promoted, else newest closed; zero if none */
    int64_t first_s, last_s;
} dure_replay_totals;
dure_replay_totals dure_replay_sum(const dure_replay *replay);
