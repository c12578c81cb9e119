/* The site's training for a federation: model and records opened once, one round at a time trained
 * in a thread of its own, while the session talks to the coordinator.
 *
 *   IDLE --start--> TRAINING --(thread ends)--> TRAINED --charge--> IDLE
 *                      `----------- drop ----------'
 *
 * A round's noise key exists from start to charge or drop. Steps that were not charged leave no
 * trace: a drop discards the optimizer's state too, and the next round goes on from the state that
 * was saved with the last charge.
 *
 * Threads: one thread uses this object; the training thread is inside. */
#pragma once

#include "client/site.h"
#include "client/trainer.h"

typedef struct dure_work dure_work;

typedef struct dure_work_opts {
    uint32_t threads;      /* 0: the physical cores */
    uint64_t memory_bytes; /* of the process, at most, 0: as the policy says; with `cuda` of the
                              GPU, 0: what is free */
    bool cuda;             /* on GPU number `device`; for privacy it is checked (device_proof.h) */
    int device;
    void (*wake)(void *state); /* called by the training thread after every step; may be NULL */
    void *state;
} dure_work_opts;

typedef struct dure_work_facts {
    size_t records, cut, unusable; /* for the owner's own screen */
    size_t tokens;
    size_t trained;   /* parameters of factor B */
    const char *path; /* which kernels run; borrowed */
    size_t proved; /* synthetic records that a GPU was checked with (client/device_proof.h); 0: none
                      asked for it */
    dure_transformer_fit fit;    /* how it keeps within memory, and what is expected of it */
    dure_transformer_fit device; /* on a GPU, after the first pass */
} dure_work_facts;

/* Opens model and data of the site's policy; checks them against the federation's terms, and that
 * the memory is enough (DURE_ERR_LIMIT names what is). Borrows `site`. An attempt that a crash left
 * behind is erased. The caller owns *out. */
DURE_MUST_USE dure_err dure_work_open(dure_work **out, const dure_site *site,
                                      const dure_work_opts *opts, dure_diag *diag);
/* Whether that would go well, before the site has a folder: of `site` it looks at the policy,
 * the invitation and the declared batch alone, and leaves the base's digest to the caller. */
DURE_MUST_USE dure_err dure_work_check(const dure_site *site, dure_diag *diag);
void dure_work_close(dure_work **work); /* stops the thread; NULL-safe, nulls */
dure_work_facts dure_work_facts_of(const dure_work *work);

/* Starts the local steps of one round from the global adapter's file. `plan` NULL: without privacy.
 * Borrows `plan` until the round is charged or dropped. */
typedef struct dure_work_round {
    const dure_hash *config_hash;
    dure_span adapter;
    const dure_dp_plan *plan;
    uint64_t first_step, n_steps; /* of the plan */
    dure_reservation_id reservation;
} dure_work_round;
DURE_MUST_USE dure_err dure_work_start(dure_work *work, const dure_work_round *round,
                                       dure_diag *diag);

/* The next step that the thread has taken and that was not asked for yet; false: none. */
bool dure_work_next_step(dure_trainer_step *out, dure_work *work);
uint32_t dure_work_steps_done(dure_work *work); /* of the round */

typedef enum dure_work_state {
    DURE_WORK_IDLE,
    DURE_WORK_TRAINING,
    DURE_WORK_TRAINED,
    DURE_WORK_FAILED, /* `diag` of dure_work_state_of() says why */
} dure_work_state;
dure_work_state dure_work_state_of(dure_work *work, dure_diag *diag);

/* The training of a round went wrong where the site is what is protected: its update is then zero,
 * under the same noise, since whether it comes must not tell of the records. `why` (may be NULL)
 * says. */
bool dure_work_lost(const dure_work *work, dure_diag *why);

/* The update in units of the terms' grid, n_active of them, borrowed until charge or drop. Secret:
 * it is what the masks hide. DURE_ERR_STATE unless TRAINED. */
DURE_MUST_USE dure_err dure_work_update(const int32_t **units, size_t *n, dure_work *work,
                                        dure_diag *diag);
/* The steps are charged: the optimizer's state is saved, the noise key erased, the units wiped. */
DURE_MUST_USE dure_err dure_work_charge(dure_work *work, dure_diag *diag);
/* Stops training, erases the key and forgets the steps. Fine when idle. */
void dure_work_drop(dure_work *work);

/* Seconds of one gradient pass over up to `n_records` records, and their tokens: what a dry run
 * tells about the time a round will take. Nothing is kept. */
DURE_MUST_USE dure_err dure_work_measure(double *seconds, size_t *tokens, dure_work *work,
                                         size_t n_records, dure_diag *diag);
