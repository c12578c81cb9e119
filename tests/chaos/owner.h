/* An owner with one data source, one ledger and two processes that train on it, and all that
 * happens to them: kills at any point, copies of the ledger put back, clocks turned back, records
 * renamed.
 *
 * What is drawn follows from the seed alone; where two processes meet at the ledger, or one is
 * killed from outside, another run of the seed may take other turns. */
#pragma once

#include "dp/plan.h"
#include "support/seeded_rng.h"
#include "support/temp_dir.h"

#include <stdbool.h>
#include <sys/types.h>

#define OWNER_DESKS 2
#define OWNER_RUNS_MAX 64
#define OWNER_COPIES_MAX 8
#define OWNER_RECORDS 1000
#define OWNER_BATCH 8
#define OWNER_SOURCE "orders"

/* A training as it was asked for; its folder is a0, a1, ... */
typedef struct owner_run {
    uint64_t steps;
    double noise;
} owner_run;

typedef struct owner {
    temp_dir dir;
    const char *model; /* path, borrowed */
    dure_privacy budget;
    seeded_rng rng;
    owner_run runs[OWNER_RUNS_MAX];
    size_t n_runs;
    pid_t desks[OWNER_DESKS]; /* 0: nobody there */
    size_t at[OWNER_DESKS];   /* the run that is trained there */
    size_t n_copies;          /* of the ledger: copy0, copy1, ... */
    bool is_old;              /* an older copy is in place; the newest is in the file `newest` */
    size_t n_names;           /* the records are in data<n_names>.jsonl */
    long clock_off_s;
    size_t n_killed, n_refused, n_restored; /* what happened */
} owner;

void owner_make(owner *o, uint64_t seed, const char *model);
void owner_end(owner *o, bool keep);
uint64_t owner_draw(owner *o, uint64_t n); /* below n */

/* Something happens. */
void owner_act(owner *o);
/* A run of this plan at a desk without kills, to its end. */
void owner_train(owner *o, owner_run run);
/* Everyone has ended, and the newest ledger is in place. */
void owner_settle(owner *o);

/* Copies the ledger as it is; puts a copy back; with its mark, as no rule of Dure's can notice. */
void owner_copy(owner *o);
void owner_put_back(owner *o, size_t copy);
void owner_forget(owner *o, size_t copy);

/* Whether the run's adapter is there, whole or in part: then it has left. */
bool owner_has_adapter(const owner *o, size_t run);
dure_dp_plan owner_plan(const owner *o, size_t run);
