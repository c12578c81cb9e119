/* One private training run of an owner's own, from the reservation in the ledger to the erased key,
 * in an order in which it may be killed anywhere:
 *
 *   prepare: save the name of a reservation -> reserve the whole plan under it
 *            -> draw and save the key -> forget the name
 *   (train, saving the state)
 *   spend:   reserved -> spent by this key, before the adapter is written
 *   (write the adapter)
 *   close:   erase the key
 *
 * Prepared again with the same settings on the same records, a killed run goes on with the same
 * bits under the same reservation; a second run that has its name from a copy draws other bits, and
 * may not spend what the first one has. One that is never taken up again stays counted.
 *
 * Threads: one. */
#pragma once

#include "client/attempt.h"
#include "client/trainer.h"
#include "ledger/site_ledger.h"

typedef struct dure_private_run_opts {
    const char *key_path;
    const char *ledger_path; /* NULL: the owner's (dure_site_ledger_path) */
    const char *source;
    const char *purpose;
    dure_privacy budget;          /* of the source; fixed when it is first named */
    const char *unit;             /* of privacy: "record" or "subject"; NULL: record */
    uint64_t n_pub, batch, steps; /* n_pub and batch count units */
    double clip;                  /* of the first step, if it adapts */
    dure_dp_adaptive adaptive;    /* zero: a fixed clip */
    double noise;                 /* 0: the least that what is left of the budget allows */
} dure_private_run_opts;

/* How the run trains (plan and attempt are not looked at), where it starts, on what. Borrowed. */
typedef struct dure_private_run_subject {
    const dure_trainer_opts *trainer;
    const dure_lora *start;
    const dure_hash *base, *data;
} dure_private_run_subject;

typedef struct dure_private_run {
    dure_site_ledger *ledger;
    dure_reservation_id id;
    dure_dp_plan plan;
    dure_attempt attempt;
    bool resumed;
    double epsilon; /* of this plan alone, at budget.delta */
} dure_private_run;

/* What prepare would reserve now, with nothing named, reserved, drawn or written: plan and epsilon.
 * `opts->key_path` is not looked at. DURE_ERR_BUDGET, with a sentence, where prepare would refuse.
 */
typedef struct dure_private_preview {
    dure_dp_plan plan;
    double epsilon;   /* of this plan alone, at budget.delta */
    double remaining; /* of the source's budget before it */
} dure_private_preview;
DURE_MUST_USE dure_err dure_private_run_preview(dure_private_preview *out,
                                                const dure_private_run_opts *opts,
                                                const dure_private_run_subject *subject,
                                                dure_diag *diag);

/* Whether a run that was begun at key_path is not closed. */
bool dure_private_run_exists(const char *key_path);
/* Nothing is drawn unless this succeeds. DURE_ERR_BUDGET with a sentence that says what would fit;
 * DURE_ERR_STATE if a run with other settings was left unfinished at key_path. */
DURE_MUST_USE dure_err dure_private_run_prepare(dure_private_run *out,
                                                const dure_private_run_opts *opts,
                                                const dure_private_run_subject *subject,
                                                dure_diag *diag);
DURE_MUST_USE dure_err dure_private_run_spend(dure_private_run *run, dure_diag *diag);
DURE_MUST_USE dure_err dure_private_run_close(dure_private_run *run, dure_diag *diag);
/* Leaves the key where it is. Idempotent. */
void dure_private_run_fini(dure_private_run *run);
